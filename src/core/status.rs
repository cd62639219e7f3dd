//! What the node says of itself: the list of peers, the status, and what the edge keeps on disk.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::core::Node;
use crate::core::api::KnownPeer;
use crate::core::clock_text::write_time;
use crate::core::peers::{Peer, short_name};
use crate::crypto::network::NetworkKind;
use crate::id::{ClientId, NodeId, RequestId};
use crate::limits;
use crate::wire::local::{
    Event, Health, HealthState, InterfaceInfo, PathInfo, PeerCounts, PeerInfo, PeerState, Status,
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
            let Some(known) = self.clients.get_mut(client) else { return };
            if !known.has_room_for_state() {
                return;
            }
            let Some(listing) = known.listing() else { return };
            let (id, after) = (listing.id, listing.after);
            let met = self.peers.known_after(after).next();
            let unmet = self.unmet_after(after);
            let next = match (met, unmet) {
                (Some((met, peer)), unmet) if unmet.is_none_or(|unmet| *met <= unmet) => {
                    Some((*met, self.peer_info(*met, peer)))
                }
                (_, unmet) => unmet.map(|unmet| (unmet, self.unmet_info(unmet))),
            };
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
        let last_seen = heard.map(|heard| {
            let mut text = String::new();
            write_time(heard, &mut text);
            text
        });
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
            conflict: !peer.pinned,
            old_secret: peer.is_online()
                && self.config.network.before().is_some_and(|before| peer.network == Some(before.tag())),
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
            ("odd-records".into(), self.odd_records),
            ("unheard-messages".into(), self.unheard),
            ("partial-message-bytes".into(), self.reassembled as u64),
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
                why: format!("{} peers are known, and no more are remembered", limits::PEERS).into(),
                fix: "make several networks of it".into(),
            });
        }
        checks
    }

    /// The peers to be remembered on disk.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        let known = |(id, peer): (&NodeId, &Peer)| KnownPeer {
            id: *id,
            name: peer.name.clone(),
            pinned: peer.pinned,
            addrs: peer.candidates.proved().collect(),
            last_seen: peer.heard.map(|heard| self.clock.since_1970(heard)).or(peer.seen_before),
        };
        // Who came for a moment is not worth a place on disk, nor a name.
        let stays = |(_, peer): &(&NodeId, &Peer)| peer.is_friend() || peer.is_online();
        self.peers.known().filter(stays).map(known).collect()
    }
}
