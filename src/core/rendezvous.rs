//! The rendezvous servers that introduce us to members elsewhere (rendezvous.md).
//!
//! ```text
//! server -- one link per address family: hail, retry, how the server sees us
//!        -- one registration per namespace: today's, and at its edges the neighbour day's; one for each secret that counts
//!                 -- one lease per family: register, welcome, then keep, kept
//! ```
//!
//! This file is about servers and links; `registrations.rs` about what is registered there, `introductions.rs` about the
//! members that we hear of. Only a private network is registered, and nothing is decided by what a server says: it is one
//! more who gives hints.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Event, OwnPort, RendezvousServer, Route};
use crate::core::pace::Pace;
use crate::core::registrations::{Registration, TOLD_A_SECOND, TOLD_AT_ONCE};
use crate::core::second_port::{self, SecondPort};
use crate::core::timers::Timer;
use crate::crypto::hash;
use crate::crypto::network::{NetworkKeys, NetworkKind};
use crate::id::ServerKey;
use crate::time::Instant;
use crate::wire::local::{Health, HealthState, RendezvousInfo};
use crate::wire::rendezvous::{Cookie, DAY_SECONDS, Day, FromNode, FromServer, Nonce, Retry, ServerTime};

/// From one hail to the next (rendezvous.md, 3.3).
const HAIL_AGAIN: [Duration; 9] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(60),
];
/// A network that changes again and again does not hail more often than four times in this time.
const HAILS_AT_ONCE: u32 = 4;
const HAILS_PERIOD: Duration = Duration::from_secs(10);
/// After so many hails without an answer the server's name is looked up again.
const LOOK_UP_AFTER: u32 = 5;
/// A name without an address is looked up again after this time, and so is one whose server is silent.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);
/// A server with another key than it had is left alone for so long.
const WRONG_KEY_PAUSE: Duration = Duration::from_secs(600);
/// On how many servers a network is registered, of those that are configured.
const SERVERS_USED: usize = 2;
/// However often its day changes, we follow no more often: each time all is registered anew.
const NEW_DAY_AGAIN: Duration = Duration::from_secs(60);
/// Before and after midnight the neighbour day counts too.
const DAY_EDGE_SECONDS: u32 = 3600;

/// By which timers and registrations name a server; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerId(u32);

/// An address family: servers are spoken to in each, since each has its own translators and firewalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// All servers.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    pub(super) servers: BTreeMap<ServerId, Server>,
    next: u32,
    pub(super) next_registration: u32,
    /// Of registers that say where we are now.
    pub(super) told: Pace,
    /// Of questions to second ports.
    pub(super) compared: Pace,
}

impl Default for Rendezvous {
    fn default() -> Self {
        let told = Pace::new(TOLD_AT_ONCE, TOLD_A_SECOND);
        let compared = second_port::pace();
        Self { servers: BTreeMap::new(), next: 0, next_registration: 0, told, compared }
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `host:port`, as it was configured.
    name: String,
    pub(super) key: Option<ServerKey>,
    /// The key that it showed, if that is not the one that we know.
    stranger: Option<ServerKey>,
    /// It was told that it does not answer.
    silent: bool,
    /// Its clock, and when it said so.
    time: Option<(ServerTime, Instant)>,
    /// When that was another day than before.
    new_day: Option<Instant>,
    links: [Link; 2],
    pub(super) registrations: Vec<Registration>,
}

/// The server in one address family.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(super) addr: Option<SocketAddr>,
    /// Of the hail that waits for its answer.
    nonce: Option<Nonce>,
    attempts: u32,
    /// When the hails of this period began, and how many there were.
    period: (Instant, u32),
    pub(super) cookie: Option<Cookie>,
    /// How the server sees us.
    pub(super) seen: Option<SocketAddr>,
    /// And by its second port.
    pub(super) second: SecondPort,
}

impl Server {
    pub(super) fn link(&self, family: Family) -> &Link {
        &self.links[family as usize]
    }

    pub(super) fn link_mut(&mut self, family: Family) -> &mut Link {
        &mut self.links[family as usize]
    }

    /// Whether it has been asked often enough, and answers nowhere.
    fn is_gone(&self) -> bool {
        let asked = |link: &Link| link.attempts >= LOOK_UP_AFTER;
        self.links.iter().all(|link| link.cookie.is_none()) && self.links.iter().any(asked)
    }

    /// Its day and the second of that day, by its own clock.
    fn time(&self, now: Instant) -> Option<ServerTime> {
        let (time, told) = self.time?;
        let second = u64::from(time.second) + now.since(told).as_secs();
        let days = u32::try_from(second / u64::from(DAY_SECONDS)).ok()?;
        let day = Day(time.day.0.checked_add(days)?);
        Some(ServerTime { day, second: u32::try_from(second % u64::from(DAY_SECONDS)).ok()? })
    }

    /// In which namespaces a member is to be found now, and until when that is so.
    pub(super) fn days(&self, now: Instant) -> (Vec<Day>, Duration) {
        let Some(ServerTime { day, second }) = self.time(now) else { return (Vec::new(), LOOK_UP_AGAIN) };
        let edge = DAY_SECONDS - DAY_EDGE_SECONDS;
        let (days, until) = match second {
            ..DAY_EDGE_SECONDS => (vec![Some(day), day.0.checked_sub(1).map(Day)], DAY_EDGE_SECONDS),
            second if second < edge => (vec![Some(day)], edge),
            _ => (vec![Some(day), day.0.checked_add(1).map(Day)], DAY_SECONDS),
        };
        (days.into_iter().flatten().collect(), Duration::from_secs(u64::from(until - second)))
    }

    /// Takes its time, but not a new day again and again; says whether members are to be found elsewhere now.
    fn set_time(&mut self, time: ServerTime, now: Instant) -> bool {
        let before = (self.time, self.days(now).0);
        self.time = Some((time, now));
        let changed = self.days(now).0 != before.1;
        if changed && before.0.is_some() && self.new_day.is_some_and(|at| now.since(at) < NEW_DAY_AGAIN) {
            self.time = before.0;
            return false;
        }
        if changed {
            self.new_day = Some(now);
        }
        changed
    }
}

impl Node {
    /// The configured servers, complete, at start and whenever they change.
    pub fn handle_servers(&mut self, servers: &[RendezvousServer], now: Instant) {
        self.advance(now);
        // One with another key than it had is another one.
        let stays = |server: &Server, named: &RendezvousServer| {
            named.name == server.name
                && named.key.is_none_or(|key| server.key.is_none_or(|known| known == key))
        };
        let gone = |server: &Server| !servers.iter().any(|named| stays(server, named));
        let ids: Vec<_> =
            self.rendezvous.servers.iter().filter(|(_, s)| gone(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.leave_server(id);
            self.rendezvous.servers.remove(&id);
        }
        for named in servers {
            let mut known = self.rendezvous.servers.values_mut();
            if let Some(known) = known.find(|known| known.name == named.name) {
                known.key = named.key.or(known.key);
                continue;
            }
            let id = ServerId(self.rendezvous.next);
            self.rendezvous.next += 1;
            let server = Server {
                name: named.name.clone(),
                key: named.key,
                stranger: None,
                silent: false,
                time: None,
                new_day: None,
                links: Default::default(),
                registrations: Vec::new(),
            };
            self.rendezvous.servers.insert(id, server);
            self.look_up(id);
        }
        self.update_registrations();
    }

    /// The addresses of the server that is called so: none if it has none now.
    pub fn handle_server_addrs(&mut self, name: &str, addrs: &[SocketAddr], now: Instant) {
        self.advance(now);
        let servers = &mut self.rendezvous.servers;
        let Some((id, server)) = servers.iter_mut().find(|(_, server)| server.name == name) else { return };
        let id = *id;
        for family in Family::ALL {
            let of_family: Vec<_> = addrs.iter().filter(|addr| Family::of(**addr) == family).collect();
            let link = server.link_mut(family);
            // One that answers is kept, whatever else the name means now.
            let keep = link.addr.is_some_and(|addr| of_family.contains(&&addr) || link.cookie.is_some());
            if !keep && let Some(addr) = of_family.first() {
                *link = Link { addr: Some(**addr), ..Link::default() };
                self.timers.set(Timer::Hail(id, family), now);
            }
        }
        if server.links.iter().all(|link| link.addr.is_none()) {
            self.timers.set(Timer::LookUp(id), now + LOOK_UP_AGAIN);
        }
    }

    fn look_up(&mut self, id: ServerId) {
        let Some(server) = self.rendezvous.servers.get(&id) else { return };
        self.events.push_back(Event::Resolve(server.name.clone()));
    }

    pub(crate) fn on_look_up_timer(&mut self, id: ServerId) {
        self.look_up(id);
    }

    /// Whether anything leaves the LAN: members elsewhere are to find us by a rendezvous server.
    pub fn is_on_internet(&self) -> bool {
        self.is_registering() && !self.rendezvous.servers.is_empty()
    }

    /// Whether we let ourselves be introduced: the open network never does.
    pub(super) fn is_registering(&self) -> bool {
        self.config.network.current().kind() == NetworkKind::Private
    }

    /// Our addresses, our network or the time may not be what they were: every server is asked how it sees us now.
    pub(crate) fn hail_all(&mut self) {
        let ids: Vec<_> = self.rendezvous.servers.keys().copied().collect();
        for id in ids {
            for family in Family::ALL {
                self.hail_soon(id, family);
            }
        }
    }

    /// Begins with a server anew, in one family.
    pub(super) fn hail_soon(&mut self, id: ServerId, family: Family) {
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        (link.cookie, link.attempts, link.nonce) = (None, 0, None);
        if now.since(link.period.0) >= HAILS_PERIOD {
            link.period = (now, 0);
        }
        link.period.1 += 1;
        let at = if link.period.1 <= HAILS_AT_ONCE { now } else { link.period.0 + HAILS_PERIOD };
        self.timers.set(Timer::Hail(id, family), at);
    }

    pub(crate) fn on_hail_timer(&mut self, id: ServerId, family: Family) {
        if !self.is_registering() {
            return;
        }
        let nonce = Nonce(self.random());
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        if link.addr.is_none() {
            return;
        }
        (link.nonce, link.cookie) = (Some(nonce), None);
        let pause = HAIL_AGAIN[HAIL_AGAIN.len().min(link.attempts as usize + 1) - 1];
        link.attempts += 1;
        let look_up = link.attempts % LOOK_UP_AFTER == 0;
        if server.is_gone() && server.stranger.is_none() && !std::mem::replace(&mut server.silent, true) {
            warn!(server = %server.name, reason = "no-answer", "this rendezvous server does not answer");
        }
        self.ask_server(id, family, &FromNode::Hail(nonce));
        let again = self.jittered(pause);
        self.timers.set(Timer::Hail(id, family), self.now + again);
        if look_up {
            self.look_up(id);
        }
    }

    pub(super) fn send_to_server(&mut self, addr: SocketAddr, message: &[u8]) {
        self.outbox.push_cut(Destination::One(Route::to(addr)), message);
    }

    /// A message of a rendezvous server, or of somebody who poses as one.
    pub(crate) fn on_rendezvous(&mut self, via: Route, datagram: &[u8]) -> Result<(), Dropped> {
        if via.port != OwnPort::USUAL {
            return self.on_rendezvous_at_extra_port(via, datagram);
        }
        let family = Family::of(via.remote);
        let mut servers = self.rendezvous.servers.iter();
        let at = |server: &Server| server.link(family).addr == Some(via.remote);
        let Some(id) = servers.find(|(_, server)| at(server)).map(|(id, _)| *id) else {
            return self.on_second_port(via, datagram);
        };
        match FromServer::parse(datagram).map_err(|_| Dropped::Malformed)? {
            FromServer::Retry(retry) => self.on_retry(id, family, &retry),
            FromServer::Welcome(welcome) => self.on_welcome(id, family, datagram, &welcome),
            FromServer::Kept(kept) => self.on_kept(id, family, datagram, &kept),
            FromServer::Page(page) => self.on_page(id, family, datagram, &page),
            FromServer::Event(event) => self.on_server_event(id, datagram, &event),
            FromServer::Knock(knock) => self.on_knock(id, datagram, &knock),
            FromServer::Nope(nope) => self.on_nope(id, family, &nope),
            // The one is asked for from another port of ours, the other from another port of the server.
            FromServer::Echo(_) | FromServer::Here(_) => Err(Dropped::Unexpected),
        }
    }

    fn on_retry(&mut self, id: ServerId, family: Family, retry: &Retry) -> Result<(), Dropped> {
        let now = self.now;
        let server = self.rendezvous.servers.get_mut(&id).ok_or(Dropped::Unexpected)?;
        let hailed = server.link(family).nonce == Some(retry.nonce);
        if !hailed && !server.registrations.iter().any(|known| known.asked(family, retry.nonce)) {
            return Err(Dropped::Unexpected);
        }
        if !is_a_time(retry.time) {
            return Err(Dropped::Malformed);
        }
        if server.key.is_some_and(|key| key != retry.server) {
            if server.stranger.replace(retry.server).is_none() {
                warn!(server = %server.name, reason = "wrong-key", "this rendezvous server has another key than the known one");
            }
            server.link_mut(family).nonce = None;
            self.timers.set(Timer::Hail(id, family), now + WRONG_KEY_PAUSE);
            return Err(Dropped::Unauthenticated);
        }
        server.registrations.iter_mut().for_each(|known| known.refused(family, retry.nonce));
        server.stranger = None;
        if server.key.is_none() {
            info!(server = %server.name, key = %retry.server, "this is the key of the rendezvous server from now on");
            server.key = Some(retry.server);
        }
        if server.time.is_none() {
            // Its key is proved now.
            self.events.push_back(Event::Remember);
        }
        server.set_time(retry.time, now);
        let link = server.link_mut(family);
        (link.nonce, link.cookie, link.attempts) = (None, Some(retry.cookie), 0);
        self.timers.clear(Timer::Hail(id, family));
        self.note_seen(id, family, retry.seen);
        self.update_registrations();
        Ok(())
    }

    /// A server says what time it has: perhaps members are to be found elsewhere than we thought.
    pub(super) fn note_time(&mut self, id: ServerId, time: ServerTime) {
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id).filter(|_| is_a_time(time)) else { return };
        if server.set_time(time, now) {
            self.update_registrations();
        }
    }

    /// What we have registered at a server is known there.
    pub(super) fn server_answers(&mut self, id: ServerId) {
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        if std::mem::take(&mut server.silent) {
            info!(server = %server.name, reason = "registered", "this rendezvous server answers again");
        }
    }

    /// Whether a server showed another key than we know.
    pub(super) fn is_strange(&self, id: ServerId) -> bool {
        self.rendezvous.servers.get(&id).is_some_and(|server| server.stranger.is_some())
    }

    /// How a server sees us: the others are told when it is not as before.
    pub(super) fn note_seen(&mut self, id: ServerId, family: Family, seen: SocketAddr) {
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        let before = link.seen.replace(seen);
        if before.map(|before| before.ip()) != Some(seen.ip()) && seen.is_ipv4() {
            self.is_elsewhere();
        }
        if before != Some(seen) {
            debug!(addr = %seen, "a rendezvous server sees us there");
            self.compare_ports(id, family);
            self.tell_whereabouts();
        }
    }

    /// The servers that a network is registered on: the same two for all members that have the same list.
    pub(super) fn servers_of(&self, network: &NetworkKeys) -> Vec<ServerId> {
        let weight = |key: &ServerKey| hash::mac(&**network.namespace(), &[b"which server", &key.0]).bytes();
        let known = self.rendezvous.servers.iter().filter(|(_, server)| server.stranger.is_none());
        let mut known: Vec<_> = known.filter_map(|(id, server)| Some((weight(&server.key?), *id))).collect();
        known.sort();
        known.into_iter().rev().take(SERVERS_USED).map(|(_, id)| id).collect()
    }

    /// How servers see us, each address once.
    pub(super) fn seen_by_servers(&self) -> Vec<SocketAddr> {
        let links = self.rendezvous.servers.values().flat_map(|server| &server.links);
        let mut seen: Vec<_> = links.filter_map(|link| link.seen).collect();
        seen.sort();
        seen.dedup();
        seen
    }

    /// Whether our translator gives each destination another port: two who are elsewhere, servers or peers, or two ports of
    /// one server, see us at different ports of one address.
    pub(super) fn has_varying_port(&self) -> bool {
        if self.varies_by_one_server() {
            return true;
        }
        let mut seen = self.seen_by_servers();
        seen.extend(self.seen_by_peers().filter(|addr| addr.is_ipv4()));
        seen.sort();
        seen.dedup();
        seen.windows(2).any(|pair| pair[0].ip() == pair[1].ip())
    }

    /// The servers whose keys were seen to be theirs, to be known again after a restart.
    pub fn proved_servers(&self) -> Vec<RendezvousServer> {
        let proved = self.rendezvous.servers.values().filter(|server| server.time.is_some());
        proved.map(|server| RendezvousServer { name: server.name.clone(), key: server.key }).collect()
    }

    /// The servers in use, each with the key that is configured or that it showed.
    pub fn known_servers(&self) -> Vec<RendezvousServer> {
        let known = self.rendezvous.servers.values();
        known.map(|server| RendezvousServer { name: server.name.clone(), key: server.key }).collect()
    }

    pub(crate) fn rendezvous_info(&self) -> Vec<RendezvousInfo<'static>> {
        let info = |server: &Server| {
            let registered = server.registrations.iter().any(Registration::is_kept);
            let state = if !self.is_registering() {
                "open-network"
            } else if server.stranger.is_some() {
                "wrong-key"
            } else if registered {
                "registered"
            } else if server.links.iter().all(|link| link.addr.is_none()) {
                "no-address"
            } else if server.links.iter().any(|link| link.cookie.is_some()) {
                "registering"
            } else {
                "connecting"
            };
            let members = server.registrations.iter().map(Registration::members).max().unwrap_or(0);
            RendezvousInfo {
                server: server.name.clone().into(),
                state: state.into(),
                reflexive: server.links.iter().find_map(|link| link.seen),
                members: members as u64,
            }
        };
        self.rendezvous.servers.values().map(info).collect()
    }

    pub(crate) fn rendezvous_health(&self) -> Vec<Health<'static>> {
        let health = |server: &Server| {
            let name = &server.name;
            let (why, fix) = if let (Some(stranger), Some(key)) = (server.stranger, server.key) {
                let why = format!(
                    "{name} has the key {stranger}, and not {key}: it is not the server that we know"
                );
                (
                    why,
                    "if its operator changed the key, write the new line into the configuration: --rendezvous HOST:PORT#KEY; or, if \
                     it came with an invitation: atonce network join, with a line of atonce invite from a member that knows \
                     the new key",
                )
            } else if server.links.iter().all(|link| link.addr.is_none()) {
                (format!("{name} has no address"), "correct --rendezvous; it is looked up again every minute")
            } else if server.is_gone() {
                let fix = "see whether it runs, and whether this network lets UDP out";
                (format!("{name} does not answer"), fix)
            } else {
                return None;
            };
            Some(Health {
                check: "rendezvous".into(),
                state: HealthState::Warn,
                why: why.into(),
                fix: fix.into(),
            })
        };
        if !self.is_registering() {
            let any = !self.rendezvous.servers.is_empty();
            return Vec::from_iter(
                any.then(|| Health {
                    check: "rendezvous".into(),
                    state: HealthState::Warn,
                    why: "the open network is not registered at any server".into(),
                    fix: "make a private one: atonce network create, and on each device atonce network join"
                        .into(),
                }),
            );
        }
        self.rendezvous.servers.values().filter_map(health).collect()
    }
}

/// Whether a server may have this time: until the year 4700.
const fn is_a_time(time: ServerTime) -> bool {
    time.second < DAY_SECONDS && time.day.0 < 1_000_000
}
