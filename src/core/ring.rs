//! With whom sessions are kept in a large network: neighbours on the ring of ids, near and far (protocol.md, 4 and 6).
//!
//! With everybody that would cost each node memory and handshakes for all others, for ever. So above a limit a session
//! that is neither used nor one of the ring's is let go when no data may travel in it any more: its peer stays online and
//! is *dormant*. Whoever wants something of it begins with a handshake.
//!
//! The near neighbours ask each other. The far ones, at half the ring, a quarter, an eighth and so on, carry news to all
//! in few steps: that somebody left is told from one to the next, and each looks for itself before it believes and passes
//! it on. A peer that comes or goes changes the far neighbours of few others.

use std::time::Duration;

use crate::core::Node;
use crate::core::liveness::RING;
use crate::core::sessions::DATA_LIFE;
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::limits;
use crate::wire::message::Record;

/// How many successors on the ring each node asks.
const SUCCESSORS: usize = 2;
/// A session that nobody needs is wiped at this age: the other side sends no data in it either by then, however its clock
/// and the way of the last packets differ.
pub(crate) const LET_GO: Duration = DATA_LIFE.saturating_add(Duration::from_secs(10));

impl Node {
    /// Whether there are so many peers that sessions are kept with some of them only.
    pub(crate) fn is_crowded_ring(&self) -> bool {
        self.peers.counts().0 > limits::SESSIONS_KEPT
    }

    /// Whether a session with `id` is renewed when it is old.
    pub(crate) fn keeps_session(&self, id: NodeId) -> bool {
        let needed =
            |liveness: &crate::core::liveness::Liveness| liveness.is_in_use(self.now) || liveness.is_linked();
        !self.is_crowded_ring()
            || self.peers.get(&id).is_some_and(|peer| needed(&peer.liveness))
            || self.is_awaited(id)
    }

    /// Peers came or went: finds the neighbours on the ring anew.
    pub(crate) fn ring_changed(&mut self) {
        let mut ring = self.peers.near();
        let at = ring.partition_point(|id| *id < self.id);
        ring.insert(at, self.id);
        let count = ring.len();
        let steps = 1..=SUCCESSORS.min(count - 1);
        let successors: Vec<_> = steps.clone().map(|step| ring[(at + step) % count]).collect();
        let predecessors: Vec<_> = steps.map(|step| ring[(at + count - step) % count]).collect();
        let crowded = self.is_crowded_ring();
        let far = if crowded { far_neighbours(&ring, at) } else { Vec::new() };
        for (_, peer) in self.peers.iter_mut() {
            peer.liveness.unlink();
        }
        for (ids, asked_by_us, asks_us) in
            [(&successors, true, false), (&predecessors, false, true), (&far, false, false)]
        {
            for id in ids {
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.liveness.link(asked_by_us, asks_us);
                }
            }
        }
        for id in successors.iter().chain(&predecessors) {
            if !self.timers.is_set(Timer::Liveness(*id)) {
                // The first question comes at a random moment, so that twenty nodes that start together do not ask
                // together for ever.
                let first = self.jittered(RING);
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.liveness.ask_first_in(first, self.now);
                }
                self.timers.set(Timer::Liveness(*id), self.now + first);
            }
        }
        let needed = if crowded { [successors, predecessors, far].concat() } else { ring };
        for id in needed {
            if self.is_dormant(id) && !self.prospects.seeks(&id) {
                self.seek(id, None, None);
            }
        }
    }

    /// Whether `id` is online and has no session with us.
    pub(crate) fn is_dormant(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.is_online() && peer.current.is_none())
    }

    /// Wipes the sessions with a peer that stays online.
    pub(crate) fn let_go(&mut self, id: NodeId) {
        self.flush(id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for gone in [peer.current.take(), peer.previous.take()].into_iter().flatten() {
            self.handshakes.indices.remove(&gone.index);
        }
        self.timers.clear(Timer::Session(id));
    }

    /// The peer said that it leaves. In a large network not all have a session to hear it in: they are told to look for
    /// themselves.
    pub(crate) fn on_goodbye(&mut self, id: NodeId) {
        let crowded = self.is_crowded_ring();
        self.exit(id, "it said goodbye");
        if crowded {
            self.spread_suspicion(id, crowded);
        }
    }

    /// Tells others to look whether `id` is there: the neighbours in a `crowded` ring, else everyone.
    pub(crate) fn spread_suspicion(&mut self, id: NodeId, crowded: bool) {
        for other in self.peers.online() {
            let Some(liveness) = self.peers.get(&other).map(|peer| &peer.liveness) else { continue };
            // Who may be gone too is not told: when many vanish at once, that would be the square of them.
            if !liveness.is_suspect() && (!crowded || liveness.is_linked()) {
                self.tell(other, &Record::Suspect { peer: id });
            }
        }
    }
}

/// The peers at half the ring, a quarter, an eighth and so on from the one at `at`, and those of which it is that: with
/// the same peers both sides find each other, and one more or less changes few pairs.
fn far_neighbours(ring: &[NodeId], at: usize) -> Vec<NodeId> {
    let places: Vec<_> = ring.iter().map(NodeId::place).collect();
    let count = places.len();
    let (own, before) = (places[at], places[(at + count - 1) % count]);
    let gap = own.wrapping_sub(before);
    let mut far = Vec::new();
    for distance in (0..u64::BITS).map(|bit| 1_u64 << bit) {
        far.push(places.partition_point(|place| *place < own.wrapping_add(distance)) % count);
        // Ours is the first place at or behind theirs and the distance.
        let since = before.wrapping_sub(distance);
        let first = places.partition_point(|place| *place <= since);
        let theirs = (0..count).map(|step| (first + step) % count);
        far.extend(theirs.take_while(|other| (1..=gap).contains(&places[*other].wrapping_sub(since))));
    }
    far.sort_unstable();
    far.dedup();
    far.into_iter().filter(|other| *other != at).map(|other| ring[other]).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::*;
    use crate::crypto::hash::hash;

    fn ring(count: u32) -> Vec<NodeId> {
        let mut ring: Vec<_> = (0..count).map(|n| NodeId(hash(&[&n.to_le_bytes()]))).collect();
        ring.sort();
        ring
    }

    #[test]
    fn far_neighbours_are_so_on_both_sides_and_few() {
        for count in [2, 3, 129, 1000] {
            let ring = ring(count);
            let far: Vec<BTreeSet<_>> =
                (0..ring.len()).map(|at| far_neighbours(&ring, at).into_iter().collect()).collect();
            for (at, own) in ring.iter().enumerate() {
                for (other, theirs) in ring.iter().zip(&far) {
                    assert_eq!(
                        far[at].contains(other),
                        theirs.contains(own),
                        "{own:?} and {other:?} of {count}"
                    );
                }
            }
            let sum: usize = far.iter().map(BTreeSet::len).sum();
            assert!(sum <= 2 * ring.len() * (count.ilog2() as usize + 2), "{sum} of {count}");
        }
    }

    #[test]
    fn news_go_from_neighbour_to_neighbour_to_all_of_four_thousand_in_eight_steps() {
        let ring = ring(4096);
        let mut steps = vec![usize::MAX; ring.len()];
        steps[0] = 0;
        let mut queue = VecDeque::from([0]);
        while let Some(at) = queue.pop_front() {
            for other in far_neighbours(&ring, at) {
                let other = ring.binary_search(&other).unwrap();
                if steps[other] == usize::MAX {
                    steps[other] = steps[at] + 1;
                    queue.push_back(other);
                }
            }
        }
        assert!(steps.iter().all(|steps| *steps <= 8), "{:?}", steps.iter().max());
    }

    #[test]
    fn one_more_peer_changes_the_far_neighbours_of_few() {
        let with = ring(1000);
        let new = NodeId(hash(&[&7_u32.to_le_bytes()]));
        let without: Vec<_> = with.iter().copied().filter(|id| *id != new).collect();
        let changed = without.iter().enumerate().filter(|(at, id)| {
            let before = far_neighbours(&without, *at);
            let mut after = far_neighbours(&with, with.binary_search(id).unwrap());
            after.retain(|id| *id != new);
            before != after
        });
        assert!(changed.count() < 60);
    }
}
