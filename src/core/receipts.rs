//! Which packets of a peer came, and when it is told so (protocol.md, 5.6).
//!
//! A packet with a message whose fate is reported is told of with that report; others by two, or after a while.

use crate::core::flight::RECEIPT_DELAY;
use crate::id::SessionIndex;
use crate::limits;
use crate::time::Instant;
use crate::wire::message::Record;

/// The packets of one peer.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    /// Of the session in which the last packet came, and of the one before.
    sessions: [Came; 2],
    /// Packets with messages that it was not told of, and since when.
    untold: u32,
    since: Instant,
    urgent: bool,
    /// The peer stands in the line of those who are sent something.
    pub(crate) queued: bool,
}

/// The packets of one session that came.
#[derive(Debug, Default)]
struct Came {
    session: Option<SessionIndex>,
    /// The first and the last of each run of counters, the highest first.
    runs: Vec<(u64, u64)>,
    highest_at: Instant,
    changed: bool,
}

/// So many packets are told of at once, as TCP and QUIC do (RFC 9000, 13.2.2).
const PACKETS_A_RECEIPT: u32 = 2;

impl Receipts {
    /// A packet came.
    pub(crate) fn note(&mut self, session: SessionIndex, counter: u64, now: Instant) {
        if self.sessions[0].session != Some(session) {
            self.sessions.swap(0, 1);
            if self.sessions[0].session != Some(session) {
                self.sessions[0].runs.clear();
                self.sessions[0].session = Some(session);
            }
        }
        self.sessions[0].note(counter, now);
    }

    /// The packet that came holds a message; `urgent`: its sender waits for what became of it.
    pub(crate) fn owe(&mut self, urgent: bool, now: Instant) {
        if self.untold == 0 {
            self.since = now;
        }
        self.untold += 1;
        self.urgent |= urgent;
        self.sessions[0].changed = true;
    }

    /// Whether the peer is to be told now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.untold > 0
            && (self.urgent || self.untold >= PACKETS_A_RECEIPT || now.since(self.since) >= RECEIPT_DELAY)
    }

    /// Whether it may be told with whatever leaves.
    pub(crate) const fn is_owed(&self) -> bool {
        self.untold > 0
    }

    /// When it is to be told at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (self.untold > 0).then(|| self.since + RECEIPT_DELAY)
    }

    /// Tells of all packets by `tell`.
    pub(crate) fn tell(&mut self, now: Instant, mut tell: impl FnMut(&Record<'_>)) {
        self.untold = 0;
        (self.urgent, self.queued) = (false, false);
        for came in &mut self.sessions {
            let (true, Some(session)) = (std::mem::take(&mut came.changed), came.session) else { continue };
            let Some((_, upto)) = came.runs.first().copied() else { continue };
            let mut written = [0; RUNS_BYTES];
            let length = came.write_runs(&mut written);
            let ago = now.since(came.highest_at);
            tell(&Record::Received {
                session: session.bits(),
                upto,
                ago_us: u32::try_from(ago.as_micros()).unwrap_or(u32::MAX),
                runs: &written[..length],
            });
        }
    }
}

/// Two numbers of at most ten bytes for each run.
const RUNS_BYTES: usize = limits::RECEIPT_RUNS * 20;

impl Came {
    fn note(&mut self, counter: u64, now: Instant) {
        let at = self.runs.partition_point(|(first, _)| *first > counter);
        if self.runs.get(at).is_some_and(|(_, last)| counter <= *last) {
            return;
        }
        if at == 0 {
            self.highest_at = now;
        }
        let below = self.runs.get(at).is_some_and(|(_, last)| last + 1 == counter);
        let above = at > 0 && self.runs[at - 1].0 == counter + 1;
        match (above, below) {
            (true, true) => {
                self.runs[at - 1].0 = self.runs[at].0;
                self.runs.remove(at);
            }
            (true, false) => self.runs[at - 1].0 = counter,
            (false, true) => self.runs[at].1 = counter,
            (false, false) => {
                // What is further down was told of often.
                self.runs.truncate(limits::RECEIPT_RUNS - 1);
                self.runs.insert(at.min(self.runs.len()), (counter, counter));
            }
        }
    }

    fn write_runs(&self, written: &mut [u8; RUNS_BYTES]) -> usize {
        let mut length = 0;
        let mut put = |mut value: u64| loop {
            let byte = (value & 0x7f) as u8;
            value >>= 7;
            written[length] = byte | if value > 0 { 0x80 } else { 0 };
            length += 1;
            if value == 0 {
                return;
            }
        };
        let mut above = None;
        for (first, last) in &self.runs {
            if let Some(above) = above {
                put(above - last - 1);
            }
            put(last - first + 1);
            above = Some(*first);
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::core::flight::Receipt;

    fn told(receipts: &mut Receipts) -> BTreeSet<u64> {
        let mut counters = BTreeSet::new();
        receipts.tell(Instant::default(), |record| {
            let Record::Received { session, upto, runs, .. } = record else { panic!("{record:?}") };
            let session = SessionIndex::from_bits(*session);
            let receipt = Receipt { session, upto: *upto, ago: Duration::ZERO, runs };
            counters.extend(receipt.ranges().flatten());
        });
        counters
    }

    #[test]
    fn what_came_in_any_order_is_told_as_it_came() {
        let numbers = proptest::collection::btree_set(0_u64..60, 1..30);
        proptest::proptest!(|(numbers in numbers, seed: u64)| {
            let mut shuffled: Vec<u64> = numbers.iter().copied().collect();
            shuffled.sort_by_key(|number| number.wrapping_mul(seed | 1) >> 7);
            let mut receipts = Receipts::default();
            for number in shuffled {
                receipts.note(SessionIndex::from_bits(1), number, Instant::default());
                receipts.owe(false, Instant::default());
            }
            proptest::prop_assert_eq!(told(&mut receipts), numbers);
        });
    }

    #[test]
    fn a_sender_that_leaves_gaps_costs_no_more_than_the_runs_that_are_told() {
        let mut receipts = Receipts::default();
        for number in 0..10_000 {
            receipts.note(SessionIndex::from_bits(1), number * 2, Instant::default());
        }
        receipts.owe(true, Instant::default());
        let told = told(&mut receipts);
        assert_eq!(told.len(), limits::RECEIPT_RUNS);
        assert!(told.contains(&19_998), "the highest are told");
    }

    #[test]
    fn the_packets_of_two_sessions_are_told_apart() {
        let mut receipts = Receipts::default();
        for (session, number) in [(1, 5), (2, 0), (1, 6), (2, 1)] {
            receipts.note(SessionIndex::from_bits(session), number, Instant::default());
            receipts.owe(true, Instant::default());
        }
        assert_eq!(told(&mut receipts), [0, 1, 5, 6].into());
        assert_eq!(told(&mut receipts), BTreeSet::new(), "once");
    }
}
