//! Which channels bring us something: told by `status`, and nothing is decided by it.
//!
//! Who is here is heard by multicast: by its hello or its advert. A node that others find need not hear anybody, so
//! silence alone is no fault. But all who are here answer a browse; when one ends and nobody on an interface was heard
//! whom we reach there, multicast does not get through to us.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::Node;
use crate::core::api::Route;
use crate::core::links::Links;
use crate::id::NodeId;
use crate::limits;
use crate::time::Instant;
use crate::wire::local::{Health, HealthState};

/// A peer that we have known for less of a browse may not have been asked.
const ASKED_FOR: Duration = Duration::from_secs(3);
/// How long it is told that somebody did not answer.
const UNANSWERED_LIFE: Duration = Duration::from_secs(600);
/// How many of them are counted.
const UNANSWERED: usize = 256;

/// What brings us word of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Channel {
    Hello,
    Mdns,
}

impl Channel {
    const ALL: [Self; 2] = [Self::Hello, Self::Mdns];

    /// The name of its check in the status.
    const fn check(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Mdns => "mdns",
        }
    }
}

/// Who was heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    by: BTreeMap<(NodeId, Channel), Hearing>,
    browse_began: Instant,
    /// Interfaces on which a browse was answered by none of those whom we reach there.
    deaf: BTreeSet<String>,
    /// Nodes that were heard of and never answered.
    unanswered: BTreeMap<NodeId, Instant>,
}

#[derive(Debug)]
struct Hearing {
    interface: String,
    at: Instant,
}

impl Node {
    /// `id` was heard at `addr`.
    pub(crate) fn note_heard(&mut self, id: NodeId, channel: Channel, addr: SocketAddr) {
        let Some(interface) = self.links.interface(addr) else { return };
        let heard = &mut self.heard;
        if heard.by.len() >= limits::PEERS && !heard.by.contains_key(&(id, channel)) {
            // Who invents nodes pushes out only what was invented.
            let peers = &self.peers;
            heard.by.retain(|(id, _), _| peers.get(id).is_some());
            if heard.by.len() >= limits::PEERS {
                return;
            }
        }
        heard.deaf.remove(interface);
        heard.by.insert((id, channel), Hearing { interface: interface.to_owned(), at: self.now });
    }

    pub(crate) fn note_browse_began(&mut self) {
        self.heard.browse_began = self.now;
    }

    /// A browse is over: everybody who is here had time to answer.
    pub(crate) fn note_browse_ended(&mut self) {
        let heard = &self.heard;
        let speaking: BTreeSet<_> = heard
            .by
            .values()
            .filter(|hearing| hearing.at >= heard.browse_began)
            .map(|hearing| hearing.interface.as_str())
            .collect();
        let deaf = self.reached_on().into_iter().filter(|(interface, since)| {
            !speaking.contains(interface) && self.now.since(*since) >= ASKED_FOR
        });
        self.heard.deaf = deaf.map(|(interface, _)| interface.to_owned()).collect();
    }

    /// The interfaces other than loopback on which we reach peers, one entry a peer, with the age of its session.
    fn reached_on(&self) -> Vec<(&str, Instant)> {
        let reached = self.peers.iter().filter_map(|(_, peer)| {
            let (path, current) = (peer.path?, peer.current.as_ref()?);
            Some((self.links.interface(path.remote)?, current.since))
        });
        reached.filter(|(interface, _)| !self.links.is_loopback(interface)).collect()
    }

    pub(crate) fn note_unanswered(&mut self, id: NodeId) {
        let unanswered = &mut self.heard.unanswered;
        if unanswered.len() < UNANSWERED || unanswered.contains_key(&id) {
            unanswered.insert(id, self.now);
        }
    }

    pub(crate) fn note_answered(&mut self, id: NodeId) {
        self.heard.unanswered.remove(&id);
    }

    /// Nothing of one network is told in another.
    pub(crate) fn forget_heard(&mut self) {
        self.heard = Heard::default();
    }

    /// Says of the channels that work who was heard by them, and adds what is wrong with the network.
    pub(crate) fn check_channels(&self, checks: &mut Vec<Health<'static>>) {
        for channel in Channel::ALL {
            let working = |check: &&mut Health<'static>| {
                check.check == channel.check() && check.state == HealthState::Ok
            };
            if let Some(check) = checks.iter_mut().find(working) {
                let whom = self.whom_heard(channel);
                check.why = Cow::Owned(format!("{}; {whom}", check.why));
            }
        }
        checks.extend(
            [self.check_interfaces(), self.check_links(), self.check_multicast(checks), self.check_answers()]
                .into_iter()
                .flatten(),
        );
    }

    /// `heard from 2 peers on eth0, 1 on wlan0`.
    fn whom_heard(&self, channel: Channel) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for ((id, by), hearing) in &self.heard.by {
            if *by == channel && self.peers.get(id).is_some_and(|peer| peer.is_online()) {
                *counts.entry(&hearing.interface).or_default() += 1;
            }
        }
        if counts.is_empty() {
            return "no peer was heard yet".to_owned();
        }
        let counts: Vec<_> =
            counts.iter().map(|(interface, count)| format!("{} on {interface}", peers(*count))).collect();
        format!("heard from {}", counts.join(", "))
    }

    fn check_interfaces(&self) -> Option<Health<'static>> {
        let alone = self.links.addrs().iter().all(|own| own.addr.is_loopback());
        alone.then(|| Health {
            check: "interfaces".into(),
            state: HealthState::Warn,
            why: format!(
                "no interface that is used has an address, so only nodes on this machine are found by themselves{}",
                match &self.links.left_out[..] {
                    [] => String::new(),
                    names => format!("; not used: {}", names.join(", ")),
                }
            )
            .into(),
            fix: match self.links.left_out.first() {
                Some(name) => format!(
                    "connect this machine to a network, or have an interface used that is not, as with --interface \
                     {name}; or name peers with --peer"
                ),
                None => "connect this machine to a network; or name peers with --peer".to_owned(),
            }
            .into(),
        })
    }

    /// While nobody is here: the interfaces on which nobody is found by itself.
    fn check_links(&self) -> Option<Health<'static>> {
        let lonely = self.links.without_neighbours();
        self.looked_in_vain().filter(|_| !lonely.is_empty()).map(|_| Health {
            check: "links".into(),
            state: HealthState::Warn,
            why: format!(
                "nobody can be found by multicast on {}: such a link, point-to-point or with an address of one host \
                 only (/32), has no neighbours",
                lonely.join(", ")
            )
            .into(),
            fix: "name a peer at the other end with --peer ADDRESS:PORT, or give the interface the prefix of its network"
                .into(),
        })
    }

    fn check_multicast(&self, checks: &[Health<'static>]) -> Option<Health<'static>> {
        let mdns = checks.iter().find(|check| check.check == Channel::Mdns.check())?;
        let reached = self.reached_on();
        let deaf = self.heard.deaf.iter().filter_map(|deaf| {
            let count = reached.iter().filter(|(interface, _)| interface == deaf).count();
            (count > 0).then(|| format!("{} on {deaf}", peers(count)))
        });
        let deaf: Vec<_> = deaf.collect();
        // Where mDNS itself does not work, that is told instead.
        (mdns.state == HealthState::Ok && !deaf.is_empty()).then(|| Health {
            check: "multicast".into(),
            state: HealthState::Warn,
            why: format!("none of {} was heard by multicast, only reached otherwise", deaf.join(", ")).into(),
            fix: "let UDP 5353 and 28281 in through the firewall here, and multicast through the switch or access \
                  point; until then name peers with --peer"
                .into(),
        })
    }

    fn check_answers(&self) -> Option<Health<'static>> {
        let recent = |at: &&Instant| self.now.since(**at) < UNANSWERED_LIFE;
        let count = self.heard.unanswered.values().filter(recent).count();
        (count > 0).then(|| Health {
            check: "answers".into(),
            state: HealthState::Warn,
            why: format!("{} heard of, and did not answer", match count {
                1 => "1 other node was".to_owned(),
                UNANSWERED => format!("{UNANSWERED} or more other nodes were"),
                count => format!("{count} other nodes were"),
            })
            .into(),
            fix: format!(
                "let UDP {} in through the firewall there; an access point that isolates its clients must be told \
                 not to",
                self.port()
            )
            .into(),
        })
    }
}

fn peers(count: usize) -> String {
    format!("{count} {}", if count == 1 { "peer" } else { "peers" })
}

impl Links {
    /// The name of our interface by which `addr` is reached on its link.
    fn interface(&self, addr: SocketAddr) -> Option<&str> {
        // Of several on one link it is the first, whichever the path takes.
        self.of_link(Route::to(addr)).map(|own| own.name.as_str())
    }

    /// The names of our interfaces, loopback aside, on which there is no network that others share.
    fn without_neighbours(&self) -> Vec<&str> {
        let mut shared: BTreeMap<&str, bool> = BTreeMap::new();
        for own in self.addrs().iter().filter(|own| !own.addr.is_loopback()) {
            let hosts = if own.addr.is_ipv4() { 32 } else { 128 };
            *shared.entry(&own.name).or_default() |= !own.point_to_point && own.prefix < hosts;
        }
        shared.into_iter().filter(|(_, shared)| !shared).map(|(name, _)| name).collect()
    }

    fn is_loopback(&self, interface: &str) -> bool {
        self.addrs().iter().any(|own| own.name == interface && own.addr.is_loopback())
    }
}
