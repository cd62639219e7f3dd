//! How much may be under way to a peer, and how fast it is sent: a model of the path, not a reaction to single losses.
//!
//! The path is described by two figures: the highest rate at which packets arrived lately, and the shortest round trip.
//! Their product is what the path holds without a queue; a little more than that is kept under way, paced at that rate,
//! and now and then a bit more is tried (BBR: Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016). Random
//! loss changes neither figure. Loss of many packets in one round trip means that a queue overflows or that somebody
//! limits the rate: it puts a ceiling on what is under way, which is lifted slowly (as in BBR's third version).
//!
//! The controllers of QUIC libraries take the standard library's clock and a round trip that only they can make, so none
//! of them can be driven from here.

use std::time::Duration;

use crate::time::Instant;

/// The model of one path.
#[derive(Debug)]
pub(crate) struct Congestion {
    phase: Phase,
    bandwidth: Bandwidth,
    /// The shortest round trip, and when it was measured.
    shortest: Option<(Duration, Instant)>,
    /// Round trips so far.
    round: u64,
    /// The round ends when a packet arrives that was sent after so many bytes had arrived.
    round_ends_at: u64,
    /// The bandwidth at which the search for it was last found to go on, and the rounds since.
    found: (u64, u32),
    /// The most that may be under way, after losses.
    ceiling: Option<usize>,
    /// Bytes and packets of this round that arrived, and that did not.
    arrived: (usize, usize),
    lost: (usize, usize),
    /// The largest datagram of the path, in bytes.
    datagram: usize,
}

/// What the controller is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Twice the rate in each round trip, until it grows no more.
    Search,
    /// The queue that the search made runs empty.
    Drain,
    /// At the path's rate; one step of a cycle.
    Cruise { step: usize, since: Instant },
    /// Little under way, so that the queues of others do not pass for the path's length.
    Look { until: Instant },
}

/// What arrived, as told by the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) bytes: usize,
    pub(crate) packets: usize,
    /// All bytes that arrived so far.
    pub(crate) total: u64,
    /// All that had arrived when the latest of these packets was sent.
    pub(crate) total_when_sent: u64,
    /// Bytes a second at which these arrived.
    pub(crate) rate: Option<u64>,
    /// There was nothing more to send when the latest of these packets was sent.
    pub(crate) app_limited: bool,
    /// From the sending of the latest packet to its arrival and back.
    pub(crate) round_trip: Option<Duration>,
    /// Bytes still under way.
    pub(crate) in_flight: usize,
}

/// In the search the rate doubles in each round trip: 2/ln 2.
const SEARCH_GAIN: Percent = Percent(289);
const DRAIN_GAIN: Percent = Percent(35);
/// One step a round trip: more is tried, the queue of that runs empty, and then the rate is held.
const CYCLE: [Percent; 8] = [
    Percent(125),
    Percent(75),
    Percent(100),
    Percent(100),
    Percent(100),
    Percent(100),
    Percent(100),
    Percent(100),
];
/// What is under way beyond what the path holds: answers come in bunches.
const WINDOW_GAIN: Percent = Percent(200);
/// The search is over when so many rounds brought less than a quarter more.
const ROUNDS_WITHOUT_GROWTH: u32 = 3;
/// Rounds for which an arrival rate counts: a whole cycle and a bit, since it is seen at its best in one step of it.
const BANDWIDTH_ROUNDS: usize = 10;
/// So old a shortest round trip is measured again.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);
/// For so long little is under way then.
const LOOK: Duration = Duration::from_millis(200);
/// Less than this share of a round lost is chance, and so are fewer than [`LOST_BY_CHANCE`] packets.
const LOST_SHARE: Percent = Percent(5);
const LOST_BY_CHANCE: usize = 4;
/// What is left of what was under way when a queue overflowed.
const CEILING_CUT: Percent = Percent(85);
/// What a ceiling is raised by in each cycle without such losses.
const CEILING_LIFT: Percent = Percent(110);
/// Datagrams that may be under way before anything is known (RFC 9002, 7.2 says ten), and at least.
const FIRST_DATAGRAMS: usize = 16;
const LEAST_DATAGRAMS: usize = 4;
/// Hosts wake up late: a path is not taken for shorter than this.
const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(1);
/// Bytes under way at most: 100 Mbit/s across half the earth, and what a peer's packet window and socket hold.
const WINDOW_MAX: usize = 8 << 20;
/// What is sent in one go: what leaves in a millisecond, and at least so many datagrams.
const BURST_DATAGRAMS: usize = 10;

/// A part of a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Percent(u32);

impl Percent {
    fn of(self, value: u64) -> u64 {
        value.saturating_mul(u64::from(self.0)) / 100
    }

    fn of_bytes(self, value: usize) -> usize {
        usize::try_from(self.of(value as u64)).unwrap_or(usize::MAX)
    }
}

impl Congestion {
    /// Nothing is known of the path but how large a datagram it carries.
    pub(crate) fn new(datagram: usize) -> Self {
        Self {
            phase: Phase::Search,
            bandwidth: Bandwidth::default(),
            shortest: None,
            round: 0,
            round_ends_at: 0,
            found: (0, 0),
            ceiling: None,
            arrived: (0, 0),
            lost: (0, 0),
            datagram,
        }
    }

    /// The path carries larger or only smaller datagrams.
    pub(crate) fn set_datagram(&mut self, bytes: usize) {
        self.datagram = bytes;
    }

    /// Bytes that may be under way.
    pub(crate) fn window(&self) -> usize {
        let least = LEAST_DATAGRAMS * self.datagram;
        let Some(held) = self.held() else { return FIRST_DATAGRAMS * self.datagram };
        let window = match self.phase {
            Phase::Look { .. } => held / 2,
            Phase::Search => SEARCH_GAIN.of_bytes(held).max(FIRST_DATAGRAMS * self.datagram),
            Phase::Drain | Phase::Cruise { .. } => WINDOW_GAIN.of_bytes(held),
        };
        window.min(self.ceiling.unwrap_or(WINDOW_MAX)).clamp(least, WINDOW_MAX)
    }

    /// Bytes a second; none: nothing is known yet.
    pub(crate) fn rate(&self) -> Option<u64> {
        let gain = match self.phase {
            Phase::Search => SEARCH_GAIN,
            Phase::Drain => DRAIN_GAIN,
            Phase::Cruise { step, .. } => CYCLE[step % CYCLE.len()],
            Phase::Look { .. } => Percent(100),
        };
        let bandwidth = self.bandwidth.best;
        (bandwidth > 0).then(|| gain.of(bandwidth).max(LEAST_DATAGRAMS as u64 * self.datagram as u64))
    }

    /// Bytes that may leave in one go.
    pub(crate) fn burst(&self) -> usize {
        let millisecond = self.rate().map_or(0, |rate| usize::try_from(rate / 1000).unwrap_or(usize::MAX));
        millisecond.clamp(BURST_DATAGRAMS * self.datagram, WINDOW_MAX)
    }

    /// What the path holds without a queue, if that is known.
    fn held(&self) -> Option<usize> {
        let (shortest, _) = self.shortest?;
        let shortest = shortest.max(SHORTEST_ROUND_TRIP);
        let bandwidth = self.bandwidth.best;
        let held = u128::from(bandwidth) * shortest.as_micros() / 1_000_000;
        (bandwidth > 0).then(|| usize::try_from(held).unwrap_or(usize::MAX))
    }

    /// Packets arrived.
    pub(crate) fn on_arrival(&mut self, arrival: Arrival, now: Instant) {
        self.arrived.0 += arrival.bytes;
        self.arrived.1 += arrival.packets;
        let new_round = arrival.total_when_sent >= self.round_ends_at;
        if let Some(rate) = arrival.rate
            && (!arrival.app_limited || rate >= self.bandwidth.best)
        {
            self.bandwidth.note(self.round, rate);
        }
        self.note_round_trip(arrival, now);
        if new_round {
            self.round += 1;
            self.round_ends_at = arrival.total;
            self.end_round(arrival, now);
        }
        self.step(arrival.in_flight, now);
    }

    /// Packets were lost; `in_flight` bytes were under way with them.
    pub(crate) fn on_loss(&mut self, bytes: usize, packets: usize, in_flight: usize) {
        self.lost.0 += bytes;
        self.lost.1 += packets;
        let all = self.lost.0 + self.arrived.0;
        let congested = self.lost.1 >= LOST_BY_CHANCE && self.lost.0 > LOST_SHARE.of_bytes(all);
        if !congested {
            return;
        }
        // Once a round trip: the losses of one queue come together.
        (self.arrived, self.lost) = ((0, 0), (0, 0));
        let under_way = in_flight.min(self.window());
        let least = self.held().unwrap_or(0).max(LEAST_DATAGRAMS * self.datagram);
        self.ceiling = Some(CEILING_CUT.of_bytes(under_way).max(least));
        if self.phase == Phase::Search {
            self.phase = Phase::Drain;
        }
    }

    fn note_round_trip(&mut self, arrival: Arrival, now: Instant) {
        let Some(took) = arrival.round_trip else { return };
        let stale = self.shortest.is_some_and(|(_, at)| now.since(at) > SHORTEST_LIFE);
        if self.shortest.is_none_or(|(shortest, _)| took <= shortest) || stale && arrival.app_limited {
            self.shortest = Some((took, now));
        } else if stale && !matches!(self.phase, Phase::Look { .. } | Phase::Search) {
            self.shortest = Some((took, now));
            self.phase = Phase::Look { until: now + LOOK };
        } else if let Phase::Look { .. } = self.phase {
            self.shortest = self.shortest.map(|(shortest, _)| (shortest.min(took), now));
        }
    }

    fn end_round(&mut self, arrival: Arrival, now: Instant) {
        (self.arrived, self.lost) = ((0, 0), (0, 0));
        if self.phase != Phase::Search || arrival.app_limited {
            return;
        }
        let bandwidth = self.bandwidth.best;
        let (before, rounds) = self.found;
        if bandwidth >= Percent(125).of(before) {
            self.found = (bandwidth, 0);
            return;
        }
        self.found = (before, rounds + 1);
        if rounds + 1 >= ROUNDS_WITHOUT_GROWTH {
            self.phase = Phase::Drain;
        }
        self.step(arrival.in_flight, now);
    }

    fn step(&mut self, in_flight: usize, now: Instant) {
        let Some(held) = self.held() else { return };
        let round_trip = self.shortest.map_or(SHORTEST_ROUND_TRIP, |(shortest, _)| shortest);
        match self.phase {
            Phase::Search => {}
            // Past the steps that try more and make up for it.
            Phase::Drain if in_flight <= held => self.phase = Phase::Cruise { step: 2, since: now },
            Phase::Drain => {}
            Phase::Look { until } if now >= until => self.phase = Phase::Cruise { step: 2, since: now },
            Phase::Look { .. } => {}
            Phase::Cruise { step, since } => {
                let over = now.since(since) >= round_trip;
                let next = match step {
                    0 => {
                        over && (self.lost.1 > 0 || in_flight >= CYCLE[0].of_bytes(held))
                            || now.since(since) >= round_trip * 4
                    }
                    1 => over || in_flight <= held,
                    _ => over,
                };
                if next {
                    let step = (step + 1) % CYCLE.len();
                    if step == 0 {
                        self.ceiling = self.ceiling.map(|ceiling| CEILING_LIFT.of_bytes(ceiling));
                    }
                    self.phase = Phase::Cruise { step, since: now };
                }
            }
        }
    }
}

/// The highest arrival rate of the last rounds in which the rate was seen.
#[derive(Debug, Default)]
struct Bandwidth {
    /// Bytes a second, the best of each round.
    rounds: [u64; BANDWIDTH_ROUNDS],
    at: usize,
    /// The round that is at `at`.
    round: u64,
    best: u64,
}

impl Bandwidth {
    fn note(&mut self, round: u64, rate: u64) {
        if round != self.round {
            self.round = round;
            self.at = (self.at + 1) % BANDWIDTH_ROUNDS;
            self.rounds[self.at] = 0;
        }
        self.rounds[self.at] = self.rounds[self.at].max(rate);
        self.best = self.rounds.iter().copied().max().unwrap_or(0);
    }
}
