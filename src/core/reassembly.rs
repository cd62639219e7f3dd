//! Messages of several datagrams, as far as they have come (protocol.md, 5.5).
//!
//! Bounded for each peer, and by the [`Budget`](crate::core::budget::Budget) of all. What nobody reports on makes room for what comes later, and so does a tracked message
//! of which nothing came lately: its sender has given it up, or asks for its fate and sends it again.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::time::Instant;
use crate::wire::message::Heading;

/// The unfinished messages of one peer.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: BTreeMap<Part, Partial>,
    bytes: usize,
}

/// Bytes that a message of which all runs are short costs beside its own.
const PART_OVERHEAD: usize = limits::REASSEMBLED_RUNS * size_of::<(usize, usize)>() + 256;
/// A sender that goes on with a message sends something of it within this.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(500);

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Tracked(u64),
    Untracked(u64),
}

#[derive(Debug)]
struct Partial {
    heading: Heading,
    /// The message that has to be delivered before, as the last piece said.
    after: u64,
    payload: Vec<u8>,
    /// The first byte and the one after the last of each run that came, in order.
    runs: Vec<(usize, usize)>,
    last: Instant,
}

/// A piece as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) part: Part,
    pub(crate) heading: Heading,
    /// The tracked message that has to be delivered before it.
    pub(crate) after: u64,
    /// That one has its fate: it waits for nothing.
    pub(crate) due: bool,
    pub(crate) size: usize,
    pub(crate) at: usize,
    pub(crate) bytes: &'a [u8],
}

/// What came of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The message is whole, and stays here until it is taken.
    Whole,
    /// More is to come.
    Partly,
    /// Its sender has begun more than it may.
    Overflow,
    /// All peers together have begun as much as may be kept.
    Refused,
    /// It contradicts itself or what came before.
    Malformed,
}

impl Reassembly {
    /// What the messages take, with what noting their pieces may cost.
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.partial.len() * PART_OVERHEAD
    }

    /// How many bytes more a piece of `part` takes, of `size` bytes in all.
    pub(crate) fn cost(&self, part: Part, size: usize) -> usize {
        if self.partial.contains_key(&part) { 0 } else { size + PART_OVERHEAD }
    }

    /// Puts a piece in its place. The second value tells how many other messages were dropped for it.
    pub(crate) fn add(&mut self, piece: Piece<'_>, now: Instant) -> (Added, u64) {
        let Piece { part, heading, after, due, size, at, bytes } = piece;
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= size);
        if !fits || bytes.is_empty() || size > limits::PAYLOAD_BYTES {
            return (Added::Malformed, 0);
        }
        let mut dropped = 0;
        if !self.partial.contains_key(&part) {
            while self.is_full(size) {
                let Some(gone) = self.dispensable(part, due, now) else { return (Added::Overflow, dropped) };
                self.remove(gone);
                dropped += 1;
            }
            self.bytes += size;
            let partial = Partial { heading, after, payload: vec![0; size], runs: Vec::new(), last: now };
            self.partial.insert(part, partial);
        }
        let Some(partial) = self.partial.get_mut(&part) else { return (Added::Overflow, dropped) };
        if partial.payload.len() != size || partial.heading != heading {
            return (Added::Malformed, dropped);
        }
        if !partial.fill(at, at + bytes.len()) {
            return (Added::Overflow, dropped);
        }
        partial.payload[at..at + bytes.len()].copy_from_slice(bytes);
        (partial.last, partial.after) = (now, after);
        (if partial.is_whole() { Added::Whole } else { Added::Partly }, dropped)
    }

    fn is_full(&self, size: usize) -> bool {
        self.partial.len() >= limits::REASSEMBLED_MESSAGES || self.bytes + size > limits::REASSEMBLED_BYTES
    }

    /// The message that makes room for `part`. A sender that keeps to the bounds and has no room has given one up, so
    /// that is one of which nothing came lately; for a message that is due the last one goes that may wait for it.
    fn dispensable(&self, part: Part, due: bool, now: Instant) -> Option<Part> {
        let untracked = self.partial.iter().filter(|(part, _)| matches!(part, Part::Untracked(_)));
        let oldest = untracked.min_by_key(|(_, partial)| partial.last).map(|(part, _)| *part);
        let Part::Tracked(_) = part else { return oldest };
        let is_idle = |partial: &&Partial| now.since(partial.last) >= GIVEN_UP_AFTER;
        let idle = || self.partial.iter().filter(|(_, partial)| is_idle(partial));
        let idlest = || idle().min_by_key(|(_, partial)| partial.last).map(|(part, _)| *part);
        let is_tracked = |kept: &&Part| matches!(kept, Part::Tracked(_)) && **kept > part;
        let last = || self.partial.keys().rfind(is_tracked).copied().filter(|_| due);
        oldest.or_else(idlest).or_else(last)
    }

    /// Drops the message of which nothing came for the longest time.
    pub(crate) fn drop_idlest(&mut self) {
        let idlest = self.partial.iter().min_by_key(|(_, partial)| partial.last).map(|(part, _)| *part);
        idlest.map(|part| self.remove(part));
    }

    fn remove(&mut self, part: Part) -> Option<Partial> {
        let partial = self.partial.remove(&part)?;
        self.bytes -= partial.payload.len();
        Some(partial)
    }

    /// Takes a message that is whole.
    pub(crate) fn take(&mut self, part: Part) -> Option<(Heading, Vec<u8>)> {
        if !self.is_whole(part) {
            return None;
        }
        self.remove(part).map(|partial| (partial.heading, partial.payload))
    }

    /// What came of this message is of no use.
    pub(crate) fn drop_part(&mut self, part: Part) {
        self.remove(part);
    }

    /// Whether all of a message has come.
    fn is_whole(&self, part: Part) -> bool {
        self.partial.get(&part).is_some_and(Partial::is_whole)
    }

    /// The tracked messages that are whole, the one that each waits for, and to whom it is.
    pub(crate) fn whole_tracked(&self) -> impl Iterator<Item = (u64, u64, Heading)> {
        self.partial.iter().filter_map(|(part, partial)| match part {
            Part::Tracked(number) if partial.is_whole() => Some((*number, partial.after, partial.heading)),
            Part::Tracked(_) | Part::Untracked(_) => None,
        })
    }

    /// Their sender waits for no tracked message below `open` any more.
    pub(crate) fn open_at(&mut self, open: u64) {
        let gone: Vec<_> = self.partial.range(..Part::Tracked(open)).map(|(part, _)| *part).collect();
        for part in gone {
            self.remove(part);
        }
    }

    /// Drops what nothing came of for long; says how many, and when to look again.
    pub(crate) fn expire(&mut self, now: Instant) -> (u64, Option<Instant>) {
        let is_old = |partial: &Partial| now.since(partial.last) >= limits::REASSEMBLY_LIFE;
        let old: Vec<_> =
            self.partial.iter().filter(|(_, partial)| is_old(partial)).map(|(part, _)| *part).collect();
        let count = old.len() as u64;
        for part in old {
            self.remove(part);
        }
        let next = self.partial.values().map(|partial| partial.last + limits::REASSEMBLY_LIFE).min();
        (count, next)
    }
}

impl Partial {
    fn is_whole(&self) -> bool {
        self.runs == [(0, self.payload.len())]
    }

    /// Notes that the bytes from `start` to before `end` came; says whether that could be noted.
    fn fill(&mut self, start: usize, end: usize) -> bool {
        let from = self.runs.partition_point(|(_, last)| *last < start);
        let upto = self.runs.partition_point(|(first, _)| *first <= end);
        if from == upto && self.runs.len() >= limits::REASSEMBLED_RUNS {
            return false;
        }
        let joined = &self.runs[from..upto];
        let first = joined.first().map_or(start, |run| run.0.min(start));
        let last = joined.last().map_or(end, |run| run.1.max(end));
        self.runs.splice(from..upto, [(first, last)]);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TopicNumber;

    const TOPIC: Heading = Heading::Topic(TopicNumber(1));

    fn piece(part: Part, size: usize, at: usize, bytes: &[u8]) -> Piece<'_> {
        Piece { part, heading: TOPIC, after: 0, due: false, size, at, bytes }
    }

    #[test]
    fn pieces_of_any_cut_in_any_order_make_the_message() {
        let cuts = proptest::collection::vec((0_usize..5000, 1_usize..900), 1..60);
        proptest::proptest!(|(cuts in cuts)| {
            let message: Vec<u8> = (0..5000_u32).map(|n| (n % 251) as u8).collect();
            let (mut reassembly, mut came) = (Reassembly::default(), vec![false; 5000]);
            for (at, length) in cuts {
                let end = (at + length).min(5000);
                came[at..end].fill(true);
                let whole = came.iter().all(|came| *came);
                let (added, _) =
                    reassembly.add(piece(Part::Tracked(1), 5000, at, &message[at..end]), Instant::default());
                proptest::prop_assert_eq!(added == Added::Whole, whole);
            }
            let rest: Vec<_> = (0..5000).step_by(500).collect();
            for at in rest {
                reassembly.add(piece(Part::Tracked(1), 5000, at, &message[at..at + 500]), Instant::default());
            }
            proptest::prop_assert_eq!(reassembly.take(Part::Tracked(1)).unwrap().1, message);
            proptest::prop_assert_eq!(reassembly.bytes, 0);
        });
    }

    #[test]
    fn what_nobody_reports_on_makes_room_and_a_tracked_message_does_not() {
        let mut reassembly = Reassembly::default();
        let at = |n: u64| Instant::default() + std::time::Duration::from_secs(n);
        for n in 0..4 {
            assert_eq!(reassembly.add(piece(Part::Untracked(n), 100, 0, b"x"), at(n)), (Added::Partly, 0));
        }
        assert_eq!(reassembly.add(piece(Part::Untracked(4), 100, 0, b"x"), at(4)), (Added::Partly, 1));
        assert!(!reassembly.partial.contains_key(&Part::Untracked(0)), "the oldest went");
        for n in 0..4 {
            assert_eq!(reassembly.add(piece(Part::Tracked(n), 100, 0, b"x"), at(9)), (Added::Partly, 1));
        }
        for part in [Part::Tracked(9), Part::Untracked(9)] {
            assert_eq!(reassembly.add(piece(part, 100, 0, b"x"), at(9)), (Added::Overflow, 0));
        }
    }

    #[test]
    fn no_peer_takes_more_than_its_bytes_whatever_it_sends() {
        let pieces =
            proptest::collection::vec((0_u64..9, 0_usize..70_000, 0_usize..70_000, 0_usize..1500), 1..200);
        proptest::proptest!(|(pieces in pieces)| {
            let (mut reassembly, bytes) = (Reassembly::default(), [7; 1500]);
            for (n, size, at, length) in pieces {
                let part = if n % 2 == 0 { Part::Tracked(n) } else { Part::Untracked(n) };
                reassembly.add(piece(part, size, at, &bytes[..length]), Instant::default());
                proptest::prop_assert!(reassembly.bytes <= limits::REASSEMBLED_BYTES);
                proptest::prop_assert!(reassembly.partial.len() <= limits::REASSEMBLED_MESSAGES);
                let held: usize = reassembly.partial.values().map(|partial| partial.payload.len()).sum();
                proptest::prop_assert_eq!(held, reassembly.bytes);
            }
            reassembly.expire(Instant::default() + limits::REASSEMBLY_LIFE);
            proptest::prop_assert_eq!(reassembly.bytes, 0);
        });
    }

    #[test]
    fn a_message_of_crumbs_is_refused_before_it_costs_much() {
        let mut reassembly = Reassembly::default();
        let crumbs = (0..60_000).step_by(2);
        let added: Vec<_> = crumbs
            .map(|at| reassembly.add(piece(Part::Tracked(1), 60_000, at, b"x"), Instant::default()).0)
            .collect();
        assert_eq!(added.iter().filter(|added| **added == Added::Partly).count(), limits::REASSEMBLED_RUNS);
    }
}
