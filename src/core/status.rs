//! What the node says of itself: the list of peers, and the status.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::Node;
use crate::core::clock_text::write_time;
use crate::core::peers::{Peer, short_name};
use crate::core::pins::Apart;
use crate::core::room::MADE_ROOM;
use crate::crypto::network::NetworkKind;
use crate::id::{ClientId, NodeId, NodeName, RequestId};
use crate::limits;
use crate::wire::local::{
    Event, Health, HealthState, InterfaceInfo, LookingInfo, PathInfo, PeerCounts, PeerInfo, PeerState, Status,
};

impl Node {
    /// Lists the peers for an app.
    pub(crate) fn list_peers(&mut self, client: ClientId, id: Option<RequestId>) {
        if let Some(known) = self.clients.get_mut(client) {
            known.list(id);
        }
        self.refill(client);
    }

    /// Writes as much of the lists that an app asked for as it has room for.
    pub(crate) fn refill_listing(&mut self, client: ClientId) {
        loop {
            self.clients.settle(client);
            if !self.clients.has_room_for_state(client) {
                return;
            }
            let Some(known) = self.clients.get_mut(client) else { return };
            let Some(listing) = known.listing() else { return };
            let (id, after) = (listing.id, listing.after);
            let met = self.peers.known_after(after).next();
            let met = met.map(|(met, peer)| (*met, self.peer_info(*met, peer)));
            let apart = self.peers.apart_after(after).next();
            let apart = apart.map(|(id, name, apart)| (*id, self.apart_info(*id, name, apart)));
            let unmet = self.unmet_after(after).map(|unmet| (unmet, self.unmet_info(unmet)));
            let next = [met, apart, unmet].into_iter().flatten().min_by_key(|(id, _)| *id);
            let Some(known) = self.clients.get_mut(client) else { return };
            match next {
                Some((peer, info)) => {
                    known.tell(&Event::Peer(info));
                    if let Some(listing) = known.listing() {
                        listing.after = Some(peer);
                    }
                }
                None => {
                    known.listed();
                    if id.is_some() {
                        known.tell(&Event::Ok { id, hello: None, status: None, network: None, reload: None });
                    }
                }
            }
        }
    }

    fn peer_info(&self, id: NodeId, peer: &Peer) -> PeerInfo<'static> {
        let state = self.state_of(&id, peer);
        let path = peer.path.map(|path| PathInfo {
            kind: self.links.kind(path.remote.ip()),
            addr: self.shown(path.remote),
            via: self.relay_of(path.remote.ip()).map(|relay| relay.to_string()),
        });
        let heard = peer.heard.map(|heard| self.clock.since_1970(heard)).or(peer.seen_before);
        let last_seen = heard.map(as_text);
        PeerInfo {
            id,
            name: Cow::Owned(peer.name.to_string()),
            state,
            why: match state {
                PeerState::Online => None,
                PeerState::Connecting if self.is_meeting(&id) => Some(self.why_apart(&id)),
                PeerState::Connecting | PeerState::Offline => Some(Cow::Borrowed(peer.why)),
            },
            path,
            rtt_us: peer.round_trip.smoothed().filter(|_| peer.is_online()).map(|rtt| rtt.as_micros() as u64),
            last_seen,
            topics: peer.topics.names().map(|topic| Cow::Owned(topic.to_string())).collect(),
            conflict: !self.peers.is_pinned(&id),
            old_secret: peer.is_online()
                && self.config.network.before().is_some_and(|before| peer.network == Some(before.tag())),
        }
    }

    /// Somebody of whom only the name is known any more.
    fn apart_info(&self, id: NodeId, name: &NodeName, apart: &Apart) -> PeerInfo<'static> {
        PeerInfo {
            name: Cow::Owned(name.to_string()),
            state: PeerState::Offline,
            why: Some(Cow::Borrowed(MADE_ROOM)),
            last_seen: apart.last_seen.map(as_text),
            ..self.unmet_info(id)
        }
    }

    /// A member that a rendezvous server told us of, and that has not proved its key yet: nobody knows its name.
    fn unmet_info(&self, id: NodeId) -> PeerInfo<'static> {
        let meeting = self.is_meeting(&id);
        PeerInfo {
            id,
            name: Cow::Owned(short_name(&id).to_string()),
            state: if meeting { PeerState::Connecting } else { PeerState::Offline },
            why: Some(self.why_apart(&id)),
            path: None,
            rtt_us: None,
            last_seen: None,
            topics: Vec::new(),
            conflict: false,
            old_secret: false,
        }
    }

    fn state_of(&self, id: &NodeId, peer: &Peer) -> PeerState {
        if peer.is_online() {
            PeerState::Online
        } else if self.prospects.has_hint_of(id) || self.prospects.seeks(id) && self.is_awaited(*id) {
            PeerState::Connecting
        } else {
            PeerState::Offline
        }
    }

    pub(crate) fn answer_status(&mut self, client: ClientId, id: Option<RequestId>) {
        if id.is_none() {
            return;
        }
        let status = self.status();
        if let Some(known) = self.clients.get_mut(client) {
            known.tell(&Event::Ok {
                id,
                hello: None,
                status: Some(Box::new(status)),
                network: None,
                reload: None,
            });
        }
    }

    fn status(&self) -> Status<'static> {
        let mut peers = PeerCounts { connecting: self.unmet_meetings(), ..PeerCounts::default() };
        for (id, peer) in self.peers.known() {
            match self.state_of(id, peer) {
                PeerState::Online => peers.online += 1,
                PeerState::Connecting => peers.connecting += 1,
                PeerState::Offline => peers.offline += 1,
            }
        }
        peers.offline += self.peers.count_apart() as u64;
        let network = self.config.network.current();
        Status {
            v: 1,
            name: Cow::Owned(self.config.name.to_string()),
            id: self.id,
            network: network.kind().as_str().into(),
            fingerprint: (network.kind() == NetworkKind::Private).then(|| network.fingerprint().into()),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.now.since(self.started).as_secs(),
            udp: self.config.udp.clone(),
            interfaces: self.interfaces(),
            rendezvous: self.rendezvous_info(),
            peers,
            looking: self
                .looked_in_vain()
                .map(|(time, tries)| LookingInfo { for_s: time.as_secs(), tries: tries.into() }),
            apps: self.clients.len() as u64,
            counters: self.counters(),
            health: self.checks(),
        }
    }

    fn interfaces(&self) -> Vec<InterfaceInfo<'static>> {
        let mut interfaces: Vec<InterfaceInfo<'static>> = Vec::new();
        for own in self.links.addrs() {
            let addr: IpAddr = own.addr;
            match interfaces.last_mut() {
                Some(last) if last.name == own.name => last.addrs.push(addr),
                _ => interfaces.push(InterfaceInfo { name: Cow::Owned(own.name.clone()), addrs: vec![addr] }),
            }
        }
        interfaces
    }

    fn counters(&self) -> Vec<(Cow<'static, str>, u64)> {
        let mut counters: Vec<(Cow<'static, str>, u64)> = self
            .dropped
            .iter()
            .map(|(reason, count)| (Cow::Owned(format!("dropped-{reason}")), *count))
            .collect();
        let to_peers: usize = self.peers.iter().map(|(_, peer)| peer.delivery.len()).sum();
        let waiting = to_peers + self.waiting.len() + self.open_publications.len();
        let sessions = self.peers.iter().filter(|(_, peer)| peer.current.is_some()).count();
        counters.extend([
            ("sessions".into(), sessions as u64),
            ("oldest-session-key-seconds".into(), self.oldest_key().as_secs()),
            ("odd-records".into(), self.odd_records),
            ("unheard-messages".into(), self.unheard),
            ("partial-message-bytes".into(), self.budgets.parts.held() as u64),
            ("held-message-bytes".into(), self.budgets.held.held() as u64),
            ("unheld-messages".into(), self.unheld),
            ("remote-topic-bytes".into(), self.budgets.topics.held() as u64),
            ("paced-records".into(), self.paced_records),
            ("app-bytes".into(), self.clients.held() as u64),
            ("dropped-partial-messages".into(), self.parts_dropped),
            ("refused-message-pieces".into(), self.parts_refused),
            ("overflowed-trains".into(), self.outbox.overflowed),
            ("half-open-handshakes".into(), self.handshakes.half_open() as u64),
            ("messages-under-way".into(), waiting as u64),
            ("relayed-packets".into(), self.relaying.passed),
            ("refused-relayed-packets".into(), self.relaying.refused),
        ]);
        counters
    }

    fn checks(&self) -> Vec<Health<'static>> {
        let mut checks = self.health.clone();
        self.check_channels(&mut checks);
        checks.extend(self.network_health());
        checks.extend(self.copy_health());
        checks.extend(self.duplicates_health());
        checks.extend(self.names_health());
        checks.extend(self.rendezvous_health());
        if self.peers.counts().1 >= limits::PEERS {
            checks.push(Health {
                check: "peers".into(),
                state: HealthState::Warn,
                why: format!(
                    "{} peers are known: for each new one another makes room that no app here ever addressed",
                    limits::PEERS
                )
                .into(),
                fix: "make several networks of it; if these are strangers, a private one".into(),
            });
        }
        checks
    }
}

fn as_text(since_1970: Duration) -> String {
    let mut text = String::new();
    write_time(since_1970, &mut text);
    text
}
