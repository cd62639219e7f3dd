//! Reaching a peer through another one (protocol.md, 10): what the two ends of a relayed path do.
//!
//! A path through a relay looks like any other: the far address is one that no network has, of the block that is set apart
//! for discarding (RFC 6666), and names the relay and the channel in it. What is to leave for such an address is wrapped
//! into a packet for the relay; what comes out of such a packet has come from there. So handshakes, questions, candidates
//! and the choice of a path know nothing of relays.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The relays that our addresses name, by the numbers that stand in the addresses.
    names: BTreeMap<u32, NodeId>,
    numbers: BTreeMap<NodeId, u32>,
    /// A number never names another relay: an address that somebody still holds leads nowhere, and never to a stranger.
    next: u32,
    asked: BTreeMap<(NodeId, NodeId), Instant>,
}

impl Relays {
    /// The address that stands for `channel` of `relay`; none if too many relays have names.
    fn addr(&mut self, relay: NodeId, channel: Channel) -> Option<SocketAddr> {
        let number = match self.numbers.get(&relay) {
            Some(number) => *number,
            None if self.is_full() => return None,
            None => {
                let number = self.next;
                self.next = number.checked_add(1)?;
                self.names.insert(number, relay);
                self.numbers.insert(relay, number);
                number
            }
        };
        let [a, b, c, d] = DISCARD;
        let ip = Ipv6Addr::new(
            a,
            b,
            c,
            d,
            (number >> 16) as u16,
            number as u16,
            (channel.0 >> 16) as u16,
            channel.0 as u16,
        );
        Some(SocketAddr::new(ip.into(), 1))
    }

    fn is_full(&self) -> bool {
        self.names.len() >= limits::PEERS
    }

    fn has_name(&self, relay: &NodeId) -> bool {
        self.numbers.contains_key(relay)
    }

    /// Takes their names from the relays that no address in `used` names: from the older half of them, since what was
    /// named just now may be on its way to become a path.
    fn forget_unused(&mut self, used: impl Iterator<Item = IpAddr>) {
        let used: BTreeSet<u32> = used.filter_map(numbers_in).map(|(number, _)| number).collect();
        let unused: Vec<u32> = self.names.keys().copied().filter(|number| !used.contains(number)).collect();
        for number in &unused[..unused.len().div_ceil(2)] {
            if let Some(relay) = self.names.remove(number) {
                self.numbers.remove(&relay);
            }
        }
    }

    /// The relay and the channel that an address stands for.
    fn named(&self, addr: IpAddr) -> Option<(NodeId, Channel)> {
        let (number, channel) = numbers_in(addr)?;
        Some((*self.names.get(&number)?, channel))
    }
}

/// The number of a relay, and the channel, that stand in an address.
fn numbers_in(addr: IpAddr) -> Option<(u32, Channel)> {
    let IpAddr::V6(ip) = addr else { return None };
    let [.., a, b, c, d] = ip.segments();
    let pair = |high: u16, low: u16| (u32::from(high) << 16) | u32::from(low);
    is_relayed(addr).then(|| (pair(a, b), Channel(pair(c, d))))
}

/// The number of the relay that an address stands for: one source, whatever channels it makes up.
pub(crate) fn relay_number(addr: IpAddr) -> Option<u32> {
    numbers_in(addr).map(|(number, _)| number)
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

    /// The address that stands for `channel` of `relay`. When too many relays have names, those that no candidate and no
    /// path names lose theirs.
    fn relayed_addr(&mut self, relay: NodeId, channel: Channel) -> Option<SocketAddr> {
        if self.relays.is_full() && !self.relays.has_name(&relay) {
            let of_peers = self.peers.iter().flat_map(|(_, peer)| {
                let candidates = peer.candidates.iter().map(|candidate| candidate.route);
                candidates.chain(peer.path)
            });
            let sought = self.prospects.candidates().map(|candidate| candidate.route);
            self.relays.forget_unused(of_peers.chain(sought).map(|route| route.remote.ip()));
        }
        self.relays.addr(relay, channel)
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
        let Some(remote) = self.relayed_addr(relay, channel) else { return };
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
        Some(Transmit { to: Destination::One(path), segment_bytes, hops: None, cut: false })
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
        let remote = self.relayed_addr(relay, channel).ok_or(Dropped::OverLimit)?;
        self.on_packet(Route::to(remote), packet)
    }
}

/// A packet inside another one.
pub(super) fn is_whole(packet: &mut [u8]) -> bool {
    Packet::parse(packet).is_ok()
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::core::Config;
    use crate::crypto::identity::Identity;
    use crate::crypto::network::{NetworkKeys, NetworkSecret};
    use crate::id::NodeName;

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

    fn id(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        NodeId(id)
    }

    fn node() -> Node {
        let secret: NetworkSecret = format!("atonce-secret-{}a", "b".repeat(51)).parse().unwrap();
        let config = Config {
            name: "here".parse().unwrap(),
            network: NetworkKeys::private(&secret).into(),
            network_source: None,
            udp: Vec::new(),
            rendezvous: Vec::new(),
            known: Vec::new(),
            mdns: false,
            hello: false,
            relay: true,
            birthday_punch: true,
            metered: false,
        };
        let rng = Box::new(ChaCha20Rng::seed_from_u64(1));
        Node::new(config, Identity::from_secret([1; 32]), rng, Instant::default())
    }

    #[test]
    fn relays_that_come_and_go_for_ever_are_all_named_and_no_address_ever_means_another_one() {
        let mut node = node();
        let name: NodeName = "peer".parse().unwrap();
        // Four relays in use: by a path, by a candidate, by somebody who is sought, and by nobody but who holds the address.
        let held = [1, 2, 3, 4].map(|number| node.relayed_addr(id(number), Channel(7)).unwrap());
        let route = Route::to;
        node.peers.admit(id(11), Some(&name)).unwrap().path = Some(route(held[0]));
        node.peers.admit(id(12), Some(&name)).unwrap().candidates.add(route(held[1]), Source::Relayed);
        node.seek(id(13), Some((route(held[2]), Source::Relayed)), None);
        for number in 100..100 + 3 * limits::PEERS {
            let addr = node.relayed_addr(id(number), Channel(7)).unwrap();
            assert_eq!(node.relay_of(addr.ip()), Some(id(number)));
            assert!(node.relays.names.len() <= limits::PEERS);
        }
        let named = held.map(|addr| node.relay_of(addr.ip()));
        assert_eq!(named, [Some(id(1)), Some(id(2)), Some(id(3)), None]);
    }

    #[test]
    fn while_all_names_are_used_no_more_relays_are_named() {
        let mut relays = Relays::default();
        let addrs: Vec<_> =
            (0..limits::PEERS).map(|n| relays.addr(id(n), Channel(1)).unwrap().ip()).collect();
        relays.forget_unused(addrs.iter().copied());
        assert_eq!(relays.addr(id(limits::PEERS), Channel(1)), None);
        relays.forget_unused(addrs[1..].iter().copied());
        assert!(relays.addr(id(limits::PEERS), Channel(1)).is_some());
        assert_eq!(relays.named(addrs[0]), None);
    }
}
