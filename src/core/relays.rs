//! Reaching a peer through another one (protocol.md, 10): what the two ends of a relayed path do.
//!
//! A path through a relay looks like any other: the far address is one that no network has, of the block that is set apart
//! for discarding (RFC 6666), and names the relay and the channel in it. What is to leave for such an address is wrapped
//! into a packet for the relay; what comes out of such a packet has come from there. So handshakes, questions, candidates
//! and the choice of a path know nothing of relays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Route, Transmit};
use crate::core::liveness::HURRIED;
use crate::core::paths::{Candidate, Source};
use crate::crypto::network::NetworkKind;
use crate::id::{Channel, NodeId};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::Record;
use crate::wire::packet::{Kind, Packet, size};

/// So many peers are asked at once whether they reach somebody whom we do not.
const ASKED: usize = 3;
/// The same one is not asked for the same one again within this time.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// So many relays are prepared: when one fails, the other one is there.
const PREPARED: usize = 2;
/// Questions remembered.
const QUESTIONS: usize = 1024;
/// The first 64 bits of the addresses that stand for relayed paths: 100::/64.
const DISCARD: [u16; 4] = [0x100, 0, 0, 0];

/// What we know of relays as one who goes through them.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// By which our addresses name relays: the number of each is its place.
    names: Vec<NodeId>,
    asked: BTreeMap<(NodeId, NodeId), Instant>,
}

impl Relays {
    /// The address that stands for `channel` of `relay`.
    fn addr(&mut self, relay: NodeId, channel: Channel) -> Option<SocketAddr> {
        let place = self.names.iter().position(|name| *name == relay);
        if place.is_none() && self.names.len() >= limits::PEERS {
            return None;
        }
        let place = place.unwrap_or_else(|| {
            self.names.push(relay);
            self.names.len() - 1
        });
        let [a, b, c, d] = DISCARD;
        let (place, channel) = (u32::try_from(place).ok()?, channel.0);
        let ip = Ipv6Addr::new(
            a,
            b,
            c,
            d,
            (place >> 16) as u16,
            place as u16,
            (channel >> 16) as u16,
            channel as u16,
        );
        Some(SocketAddr::new(ip.into(), 1))
    }

    /// The relay and the channel that an address stands for.
    fn named(&self, addr: IpAddr) -> Option<(NodeId, Channel)> {
        let IpAddr::V6(ip) = addr else { return None };
        let [.., a, b, c, d] = ip.segments();
        if !is_relayed(addr) {
            return None;
        }
        let place = (usize::from(a) << 16) | usize::from(b);
        Some((*self.names.get(place)?, Channel((u32::from(c) << 16) | u32::from(d))))
    }
}

/// Whether an address stands for a path through a relay.
pub(crate) fn is_relayed(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(ip) if ip.segments()[..4] == DISCARD)
}

impl Node {
    /// The relay on the way to an address, if one is.
    pub(crate) fn relay_of(&self, addr: IpAddr) -> Option<NodeId> {
        self.relays.named(addr).map(|(relay, _)| relay)
    }

    /// An address as people are shown it: of a relayed path, that of the relay.
    pub(crate) fn shown(&self, addr: SocketAddr) -> SocketAddr {
        let relay = self.relay_of(addr.ip()).and_then(|relay| self.peers.get(&relay)?.path);
        relay.map_or(addr, |path| path.remote)
    }

    /// Asks those who may reach `target` to relay; the one who told us of it first, then the nearest.
    pub(super) fn seek_relay(&mut self, target: NodeId, teller: Option<NodeId>) {
        if self.config.network.current().kind() == NetworkKind::Open || !self.config.relay {
            return;
        }
        let now = self.now;
        self.relays.asked.retain(|_, at| now.since(*at) < ASK_AGAIN);
        let prepared = self.peers.get(&target).map_or(0, |peer| {
            peer.candidates.iter().filter(|candidate| is_relayed(candidate.route.remote.ip())).count()
        });
        if prepared >= PREPARED && self.peers.get(&target).is_some_and(|peer| peer.is_online()) {
            return;
        }
        let near = |(id, peer): &(&NodeId, &crate::core::peers::Peer)| {
            **id != target && peer.is_near() && peer.current.is_some() && !peer.liveness.is_suspect()
        };
        let mut relays: Vec<_> = self.peers.iter().filter(near).collect();
        relays.sort_by_key(|(id, peer)| (Some(**id) != teller, peer.round_trip.smoothed()));
        let asked = |id: &NodeId| self.relays.asked.contains_key(&(*id, target));
        let relays: Vec<_> =
            relays.into_iter().map(|(id, _)| *id).filter(|id| !asked(id)).take(ASKED).collect();
        for relay in relays {
            if self.relays.asked.len() < QUESTIONS {
                self.relays.asked.insert((relay, target), now);
                self.tell(relay, &Record::Relay { target });
            }
        }
    }

    /// A peer says through which channel it relays to `target`, or that it does not.
    pub(crate) fn on_relayed_record(&mut self, relay: NodeId, target: NodeId, channel: Option<Channel>) {
        let Some(channel) = channel else { return self.lose_relay(relay, target) };
        let Some(_) = self.relays.asked.remove(&(relay, target)) else { return };
        let Some(remote) = self.relays.addr(relay, channel) else { return };
        let route = Route::to(remote);
        debug!(peer = ?target, relay = ?relay, "a relay");
        match self.peers.get_mut(&target).filter(|peer| peer.is_online()) {
            // Prepared: it is tried when the path in use fails.
            Some(peer) => {
                peer.candidates.add(route, Source::Relayed);
                if peer.liveness.is_suspect() {
                    self.ask(target, route);
                    self.hurry_delivery(target, HURRIED);
                }
            }
            None => self.seek(target, Some((route, Source::Relayed)), None),
        }
    }

    /// The relay reaches `target` no more: so perhaps nobody does.
    fn lose_relay(&mut self, relay: NodeId, target: NodeId) {
        let relays = &self.relays;
        let through = |addr: IpAddr| relays.named(addr).is_some_and(|(name, _)| name == relay);
        let Some(peer) = self.peers.get_mut(&target) else { return };
        peer.candidates.forget(|candidate: &Candidate| through(candidate.route.remote.ip()));
        if peer.path.is_some_and(|path| through(path.remote.ip())) {
            self.suspect(target);
        }
    }

    /// A relay is gone: whoever was reached through it is asked by other ways.
    pub(super) fn relay_left(&mut self, relay: NodeId) {
        let relays = &self.relays;
        let through = |addr: IpAddr| relays.named(addr).is_some_and(|(name, _)| name == relay);
        let mut reached = Vec::new();
        for (id, peer) in self.peers.iter_mut() {
            peer.candidates.forget(|candidate: &Candidate| through(candidate.route.remote.ip()));
            if peer.path.is_some_and(|path| through(path.remote.ip())) {
                reached.push(*id);
            }
        }
        for id in reached {
            self.suspect(id);
            self.seek_relay(id, None);
        }
    }

    /// What is to leave for an address that stands for a relayed path is wrapped for its relay. None if that one is not
    /// there any more: then it is lost, as on any path.
    pub(super) fn wrap(&mut self, transmit: Transmit, bytes: &mut Vec<u8>) -> Option<Transmit> {
        let Destination::One(route) = transmit.to else { return Some(transmit) };
        if !is_relayed(route.remote.ip()) {
            return Some(transmit);
        }
        let (relay, channel) = self.relays.named(route.remote.ip())?;
        let segment_bytes = transmit.segment_bytes;
        let fitting = (limits::TRAIN_BYTES / (segment_bytes + size::RELAY_OVERHEAD)).max(1) * segment_bytes;
        if bytes.len() > fitting {
            self.outbox.put_back(transmit, bytes.split_off(fitting));
        }
        let peer = self.peers.get_mut(&relay)?;
        let (path, current) =
            (peer.path.filter(|path| !is_relayed(path.remote.ip()))?, peer.current.as_mut()?);
        let mut wrapped = Vec::with_capacity(bytes.len() + bytes.len() / 8 + size::RELAY_OVERHEAD);
        for packet in bytes.chunks(segment_bytes) {
            current.session.seal_relayed(channel, packet, &mut wrapped).ok()?;
        }
        *bytes = wrapped;
        let segment_bytes = segment_bytes + size::RELAY_OVERHEAD;
        Some(Transmit { to: Destination::One(path), segment_bytes, hops: None })
    }

    /// A packet that a relay passed on to us: as if it had come from the address that stands for the channel.
    pub(super) fn on_unwrapped(
        &mut self,
        relay: NodeId,
        channel: Channel,
        packet: &mut [u8],
    ) -> Result<(), Dropped> {
        if !self.peers.get(&relay).is_some_and(|peer| peer.is_near()) || !self.config.relay {
            return Err(Dropped::Unexpected);
        }
        let inner = packet.first().copied();
        if ![Kind::Initiation, Kind::Response, Kind::Cookie, Kind::Data]
            .iter()
            .any(|kind| inner == Some(*kind as u8))
        {
            return Err(Dropped::Malformed);
        }
        let remote = self.relays.addr(relay, channel).ok_or(Dropped::OverLimit)?;
        self.on_packet(Route::to(remote), packet)
    }
}

/// Whether two addresses are one source: a relay is one, whatever channels it makes up.
pub(super) fn is_same_source(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V6(one), IpAddr::V6(other)) if is_relayed(one.into()) => {
            one.segments()[..6] == other.segments()[..6]
        }
        _ => one == other,
    }
}

/// A packet inside another one.
pub(super) fn is_whole(packet: &mut [u8]) -> bool {
    Packet::parse(packet).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_one_channel_of_one_relay() {
        let mut relays = Relays::default();
        let ids = [NodeId([1; 32]), NodeId([2; 32])];
        for channel in [Channel(1), Channel(0x7fff_fffe)] {
            for id in ids {
                let addr = relays.addr(id, channel).unwrap();
                assert!(is_relayed(addr.ip()));
                assert_eq!(relays.named(addr.ip()), Some((id, channel)));
            }
        }
        for other in ["::1", "100:0:0:1::", "fe80::1", "1.2.3.4"] {
            assert!(!is_relayed(other.parse().unwrap()), "{other}");
        }
        assert_eq!(relays.named("100::7:0:0".parse().unwrap()), None);
    }
}
