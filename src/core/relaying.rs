//! Relaying for others (protocol.md, 10): what we do for two peers of ours that do not reach each other.
//!
//! We pass on packets that we cannot read, inside the sessions that we have with both. Nobody is relayed to whom we
//! ourselves reach through a relay: one hop, no loops. Whoever wants to be relayed asks; the other end needs no word: what
//! comes to it proves itself.
//!
//! Each peer has a share of its own, of channels and of bytes: one that is broken or lies may waste its own and no other's.

use std::collections::BTreeMap;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::fair::FairPace;
use crate::core::pace::Pace;
use crate::crypto::network::NetworkKind;
use crate::id::{Channel, NodeId};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::Record;

/// Bytes in these many go through us for free: handshakes, questions and goodbyes are not held up by anybody's bulk.
const SMALL_BYTES: usize = 256;
/// So many small packets of one peer are free, a second and at once; more of them count like large ones. With a channel to
/// each of [`limits::RELAY_CHANNELS_A_PEER`] others it asks and answers each of them in 25 s, and begins with a handshake.
const SMALL_A_SECOND: u32 = 64;
const SMALL_AT_ONCE: u32 = 512;
/// So often one peer may ask for a channel, a second; at once as often as it may have channels. Each question is a look at
/// all channels.
const ASKED_A_SECOND: u32 = 16;
/// Peers whose use of us is remembered: as many as channels have ends.
const USERS: usize = 2 * limits::RELAY_CHANNELS;

/// The channels that go through us.
#[derive(Debug)]
pub(crate) struct Relaying {
    ends: BTreeMap<Channel, End>,
    next: u32,
    /// Bytes passed on, by their sender.
    bytes: FairPace<NodeId>,
    users: BTreeMap<NodeId, User>,
    /// Packets passed on, and refused because there were too many.
    pub(super) passed: u64,
    pub(super) refused: u64,
}

/// One end of a channel.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Whose end it is.
    peer: NodeId,
    /// This one asked for the channel, and so it counts as one of its own.
    asked: bool,
    /// The end at the other one.
    other: Channel,
    used: Instant,
}

/// How often a peer uses us. It outlives the peer's channels: else who comes and goes could begin anew each time.
#[derive(Debug)]
struct User {
    small: Pace,
    asks: Pace,
}

impl Default for User {
    fn default() -> Self {
        let channels = u32::try_from(limits::RELAY_CHANNELS_A_PEER).unwrap_or(u32::MAX);
        Self { small: Pace::new(SMALL_AT_ONCE, SMALL_A_SECOND), asks: Pace::new(channels, ASKED_A_SECOND) }
    }
}

impl Default for Relaying {
    fn default() -> Self {
        let bytes = FairPace::new(limits::RELAY_BURST_BYTES, limits::RELAY_BYTES_A_SECOND, USERS);
        Self { ends: BTreeMap::new(), next: 1, bytes, users: BTreeMap::new(), passed: 0, refused: 0 }
    }
}

impl Relaying {
    /// How often `peer` uses us; none if there are too many who do.
    fn user(&mut self, peer: NodeId, now: Instant) -> Option<&mut User> {
        if self.users.len() >= USERS && !self.users.contains_key(&peer) {
            self.users.retain(|_, user| !(user.small.is_full(now) && user.asks.is_full(now)));
            if self.users.len() >= USERS {
                return None;
            }
        }
        Some(self.users.entry(peer).or_default())
    }

    fn may_ask(&mut self, peer: NodeId, now: Instant) -> bool {
        self.user(peer, now).is_some_and(|user| user.asks.take(now))
    }

    /// Whether a packet of `bytes` of `peer` may pass.
    fn may_pass(&mut self, peer: NodeId, bytes: usize, now: Instant) -> bool {
        let free = bytes <= SMALL_BYTES && self.user(peer, now).is_some_and(|user| user.small.take(now));
        free || self.bytes.take(peer, bytes, now)
    }

    /// The end of `peer` of the channel between the two; a new one if there is none.
    fn open(&mut self, peer: NodeId, target: NodeId, now: Instant) -> Channel {
        let there = |(_, end): &(&Channel, &End)| {
            end.peer == peer && self.ends.get(&end.other).is_some_and(|other| other.peer == target)
        };
        if let Some((channel, _)) = self.ends.iter().find(there) {
            return *channel;
        }
        self.make_room(peer);
        let [own, other] = [self.free(), self.free()];
        self.ends.insert(own, End { peer, asked: true, other, used: now });
        self.ends.insert(other, End { peer: target, asked: false, other: own, used: now });
        own
    }

    /// Room for one more channel of `peer`: if it has too many, its oldest goes; if there are too many in all, the oldest
    /// of those who would then have the most.
    fn make_room(&mut self, peer: NodeId) {
        let mut counts = BTreeMap::from([(peer, 1)]);
        for end in self.ends.values().filter(|end| end.asked) {
            *counts.entry(end.peer).or_insert(0) += 1;
        }
        let greedy = if counts.get(&peer).is_some_and(|count| *count > limits::RELAY_CHANNELS_A_PEER) {
            BTreeMap::from([(peer, 0)])
        } else if self.ends.len() >= 2 * limits::RELAY_CHANNELS {
            let most = counts.values().max().copied();
            counts.retain(|_, count| Some(*count) == most);
            counts
        } else {
            return;
        };
        let theirs = self.ends.iter().filter(|(_, end)| end.asked && greedy.contains_key(&end.peer));
        if let Some(oldest) = theirs.min_by_key(|(_, end)| end.used).map(|(channel, _)| *channel) {
            self.close(oldest);
        }
    }

    /// A number that no end has; none has 0, which refuses.
    fn free(&mut self) -> Channel {
        loop {
            let channel = Channel(self.next);
            self.next = ((self.next + 1) & Channel::MASK).max(1);
            if !self.ends.contains_key(&channel) {
                return channel;
            }
        }
    }

    fn close(&mut self, channel: Channel) {
        if let Some(end) = self.ends.remove(&channel) {
            self.ends.remove(&end.other);
        }
    }
}

impl Node {
    /// Whether we relay for others.
    fn is_relaying(&self) -> bool {
        self.config.relay
            && !self.config.metered
            && self.config.network.current().kind() == NetworkKind::Private
    }

    /// `peer` wants to reach `target` through us.
    pub(crate) fn on_relay(&mut self, peer: NodeId, target: NodeId) {
        if !self.relaying.may_ask(peer, self.now) {
            // No answer: it may ask again.
            return;
        }
        let near = |id: &NodeId| self.peers.get(id).is_some_and(|it| it.is_near() && it.current.is_some());
        let channel = if self.is_relaying() && peer != target && near(&peer) && near(&target) {
            debug!(?peer, ?target, "relaying");
            Some(self.relaying.open(peer, target, self.now))
        } else {
            None
        };
        self.tell(peer, &Record::Relayed { target, channel: channel.map_or(0, |channel| channel.0) });
    }

    /// A packet of `peer` for the other end of one of our channels.
    pub(super) fn pass_on(
        &mut self,
        peer: NodeId,
        channel: Channel,
        packet: &mut [u8],
    ) -> Result<(), Dropped> {
        let now = self.now;
        let relaying = &mut self.relaying;
        let end =
            relaying.ends.get_mut(&channel).filter(|end| end.peer == peer).ok_or(Dropped::UnknownSession)?;
        end.used = now;
        let other = end.other;
        let target = relaying.ends.get_mut(&other).map(|end| {
            end.used = now;
            end.peer
        });
        let target = target.ok_or(Dropped::UnknownSession)?;
        if !crate::core::relays::is_whole(packet) {
            return Err(Dropped::Malformed);
        }
        if !relaying.may_pass(peer, packet.len(), now) {
            relaying.refused += 1;
            return Err(Dropped::OverLimit);
        }
        relaying.passed += 1;
        let Some(known) = self.peers.get_mut(&target).filter(|known| known.is_near()) else {
            return Err(Dropped::UnknownSession);
        };
        let (Some(path), Some(current)) = (known.path, known.current.as_mut()) else {
            return Err(Dropped::UnknownSession);
        };
        let mut wrapped = self.outbox.buffer();
        let sealed = current.session.seal_relayed(other.to_end(), packet, &mut wrapped);
        if sealed.is_ok() {
            self.outbox.push(crate::core::api::Destination::One(path), &wrapped);
        }
        self.outbox.recycle(wrapped);
        Ok(())
    }

    /// `peer` is gone, or is not near any more: who reached it through us is told.
    pub(super) fn stop_relaying(&mut self, peer: NodeId) {
        let gone: Vec<_> =
            self.relaying.ends.iter().filter(|(_, end)| end.peer == peer).map(|(_, end)| end.other).collect();
        for channel in gone {
            let other = self.relaying.ends.get(&channel).map(|end| end.peer);
            self.relaying.close(channel);
            if let Some(other) = other {
                self.tell(other, &Record::Relayed { target: peer, channel: 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(milliseconds))
    }

    fn id(number: usize) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        NodeId(id)
    }

    /// How many channels each of the peers has asked for.
    fn held(relaying: &Relaying, peers: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let count = |peer| relaying.ends.values().filter(|end| end.asked && end.peer == id(peer)).count();
        peers.into_iter().map(count).collect()
    }

    #[test]
    fn a_peer_that_asks_for_ever_more_channels_loses_its_own_oldest_and_nobody_elses() {
        let mut relaying = Relaying::default();
        let first = relaying.open(id(1), id(2), at(0));
        for target in 0..limits::RELAY_CHANNELS_A_PEER + 1 {
            relaying.open(id(9), id(100 + target), at(1 + target as u64));
        }
        assert_eq!(held(&relaying, [1, 9]), [1, limits::RELAY_CHANNELS_A_PEER]);
        assert_eq!(relaying.open(id(1), id(2), at(9999)), first);
        assert_eq!(relaying.open(id(2), id(1), at(9999)), relaying.ends[&first].other, "one for both");
        // The oldest one is another now.
        let count = relaying.ends.len();
        relaying.open(id(9), id(100), at(9999));
        assert_eq!(relaying.ends.len(), count);
    }

    #[test]
    fn when_all_channels_are_used_the_greediest_peer_makes_room() {
        let mut relaying = Relaying::default();
        relaying.open(id(1), id(2), at(0));
        let greedy: Vec<_> = (10..10 + limits::RELAY_CHANNELS / limits::RELAY_CHANNELS_A_PEER).collect();
        let mut now = 1;
        for peer in &greedy {
            for target in 0..limits::RELAY_CHANNELS_A_PEER {
                relaying.open(id(*peer), id(1000 + target), at(now));
                now += 1;
            }
        }
        assert_eq!(relaying.ends.len(), 2 * limits::RELAY_CHANNELS);
        relaying.open(id(3), id(4), at(now));
        assert_eq!(relaying.ends.len(), 2 * limits::RELAY_CHANNELS);
        assert_eq!(held(&relaying, [1, 3]), [1, 1]);
        let held: usize = held(&relaying, greedy).iter().sum();
        assert_eq!(held, limits::RELAY_CHANNELS - 2);
    }

    #[test]
    fn no_channel_has_the_number_of_another_one_or_zero() {
        let mut relaying = Relaying { next: Channel::MASK - 1, ..Relaying::default() };
        for target in 0..10 {
            relaying.open(id(1), id(2 + target), at(0));
        }
        relaying.next = Channel::MASK - 1;
        for target in 20..30 {
            relaying.open(id(1), id(2 + target), at(0));
        }
        assert_eq!(relaying.ends.len(), 40);
        assert!(!relaying.ends.contains_key(&Channel(0)));
        assert!(relaying.ends.iter().all(|(channel, end)| relaying.ends[&end.other].other == *channel));
    }

    #[test]
    fn small_packets_are_free_up_to_a_rate_and_then_count_like_others() {
        let mut relaying = Relaying::default();
        let passed = |relaying: &mut Relaying, peer| {
            (0..100_000).filter(|_| relaying.may_pass(id(peer), 200, at(0))).count()
        };
        let lone = (limits::RELAY_BURST_BYTES * 3 / 4) / 200;
        let free = SMALL_AT_ONCE as usize;
        assert!(passed(&mut relaying, 1).abs_diff(lone + free) <= 1);
        // Another one's are still free, and what is left of the burst is still shared.
        let other = passed(&mut relaying, 2);
        assert!((free + 100..free + lone / 2).contains(&other), "{other}");
    }

    #[test]
    fn large_packets_of_one_peer_leave_room_for_those_of_another() {
        let mut relaying = Relaying::default();
        let (mut bulk, mut other) = (0, 0);
        for now in 0..10_000 {
            bulk += (0..10).filter(|_| relaying.may_pass(id(1), 1200, at(now))).count();
            if now % 10 == 0 {
                other += usize::from(relaying.may_pass(id(2), 1200, at(now)));
            }
        }
        assert_eq!(other, 1000);
        assert!((7800..8900).contains(&bulk), "{bulk}");
    }

    #[test]
    fn a_peer_may_ask_for_channels_so_often_and_who_comes_and_goes_does_not_begin_anew() {
        let mut relaying = Relaying::default();
        let asked = |relaying: &mut Relaying, peer, now| {
            (0..1000).filter(|_| relaying.may_ask(id(peer), at(now))).count()
        };
        assert_eq!(asked(&mut relaying, 1, 0), limits::RELAY_CHANNELS_A_PEER);
        for peer in 2..USERS + 100 {
            relaying.may_ask(id(peer), at(0));
        }
        assert_eq!(relaying.users.len(), USERS);
        assert_eq!(asked(&mut relaying, 1, 0), 0);
        // Those that used us long ago make room.
        assert_eq!(asked(&mut relaying, 9_999_999, 60_000), limits::RELAY_CHANNELS_A_PEER);
        assert_eq!(relaying.users.len(), 1);
    }
}
