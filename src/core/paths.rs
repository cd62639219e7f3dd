//! Ways to a peer: what kind each is, which is used, and how its round trip is measured.
//!
//! An address is a hint until our own question on it was answered; only then can it become the path. Several are tried
//! at once, never one after the other.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::api::Route;
use crate::core::links::Links;
use crate::core::relays::is_relayed;
use crate::limits;
use crate::time::Instant;

/// Where a peer may be, the newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
}

/// An address, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) route: Route,
    pub(crate) source: Source,
    penalty: Penalty,
    /// As measured since the last comparison of ways.
    round_trip: RoundTrip,
}

/// What an address pays for having failed as a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Penalty {
    /// How often in a row.
    falls: u32,
    /// Until when nothing is left for it that works.
    until: Instant,
}

/// Who says that a peer is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The configuration.
    Configured,
    /// It was reached there.
    Proved,
    /// A peer that relays.
    Relayed,
    /// Multicast, or an answer from there.
    Seen,
    /// Itself, through a rendezvous server.
    Introduced,
    /// Another peer.
    Hearsay,
}

impl Candidates {
    /// Remembers that the peer may be at `route`. Each kind of source has places of its own, the newest stay in them: so an
    /// address at which the peer was reached makes room for another such one only, whatever others say or play back.
    pub(crate) fn add(&mut self, route: Route, source: Source) {
        let (penalty, round_trip) = (Penalty::default(), RoundTrip::default());
        self.put(Candidate { route, source, penalty, round_trip });
    }

    fn put(&mut self, candidate: Candidate) {
        let source = candidate.source;
        let known = self.list.iter().position(|known| known.route.is_way_of(&candidate.route));
        if known.is_some_and(|at| self.list[at].source < source) {
            // Nothing new is known by it.
            return;
        }
        let candidate = match known.map(|at| self.list.remove(at)) {
            Some(known) => Candidate { route: candidate.route, source, ..known },
            None => candidate,
        };
        self.list.insert(0, candidate);
        let mut room = limits::LEARNT_CANDIDATES;
        self.list.retain(|candidate| {
            let counts = candidate.source == source && source != Source::Configured;
            let keep = !counts || room > 0;
            room = room.saturating_sub(usize::from(counts));
            keep
        });
    }

    /// The path by `route`, held since `since`, was left because it failed.
    pub(crate) fn fell(&mut self, route: Route, since: Instant, now: Instant) {
        let Some(candidate) = self.list.iter_mut().find(|known| known.route.is_way_of(&route)) else {
            return;
        };
        let penalty = &mut candidate.penalty;
        if now.since(since) >= PENALTY_MAX {
            penalty.falls = 0;
        }
        penalty.until = now + (PENALTY * (1 << penalty.falls.min(16))).min(PENALTY_MAX);
        penalty.falls += 1;
    }

    /// Whether a path that works is better than going back to `route`, which failed a short while ago.
    pub(crate) fn is_penalised(&self, route: Route, now: Instant) -> bool {
        self.list.iter().any(|known| known.route.is_way_of(&route) && now < known.penalty.until)
    }

    /// A question by `route` was answered after `took`; says how long it takes there, measured how often.
    pub(crate) fn sample(&mut self, route: Route, took: Duration) -> RoundTrip {
        let Some(candidate) = self.list.iter_mut().find(|known| known.route.is_way_of(&route)) else {
            return RoundTrip::default();
        };
        candidate.round_trip.sample(took);
        candidate.round_trip
    }

    /// What is known of the round trip by `route`.
    pub(crate) fn round_trip(&self, route: Route) -> RoundTrip {
        let known = self.list.iter().find(|known| known.route.is_way_of(&route));
        known.map(|known| known.round_trip).unwrap_or_default()
    }

    /// All ways are measured anew.
    pub(crate) fn compare_anew(&mut self) {
        self.list.iter_mut().for_each(|candidate| candidate.round_trip = RoundTrip::default());
    }

    /// The best way beside `path` on which the peer was reached or is relayed to, by `rank`.
    pub(crate) fn best_beside(&self, path: Route, rank: impl Fn(Route) -> u8) -> Option<Route> {
        let usable = |candidate: &&Candidate| {
            !candidate.route.is_way_of(&path) && matches!(candidate.source, Source::Proved | Source::Relayed)
        };
        let usable = self.list.iter().filter(usable).map(|candidate| candidate.route);
        usable.min_by_key(|route| rank(*route))
    }

    /// Forgets those that are `gone`.
    pub(crate) fn forget(&mut self, gone: impl Fn(&Candidate) -> bool) {
        self.list.retain(|candidate| !gone(candidate));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }

    /// Our networks are these now: what leaves from an address or by an interface that is gone shall leave by any, and who
    /// is on a link is tried by each interface on it.
    pub(crate) fn follow(&mut self, links: &Links) {
        for candidate in std::mem::take(&mut self.list).into_iter().rev() {
            let again = Route { interface: None, ..candidate.route };
            let kept = links.renewed(candidate.route);
            for route in links.ways(again) {
                // What was measured is of the one way only.
                let same = route.is_way_of(&kept).then_some(candidate);
                let new =
                    Candidate { penalty: Penalty::default(), round_trip: RoundTrip::default(), ..candidate };
                let source =
                    if same.is_some() { candidate.source } else { candidate.source.max(Source::Seen) };
                self.put(Candidate { route, source, ..same.unwrap_or(new) });
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The addresses at which the peer was reached, the last one first.
    pub(crate) fn proved(&self) -> impl Iterator<Item = SocketAddr> {
        let proved = |c: &&Candidate| c.source <= Source::Proved && !is_relayed(c.route.remote.ip());
        self.list.iter().filter(proved).map(|c| c.route.remote)
    }
}

/// The smoothed round trip (RFC 6298, 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    samples: u32,
}

impl RoundTrip {
    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Whether a way that takes so long is worth leaving one of the same kind that takes `other`: two answers are no
    /// accident, and a fifth and [`WORTH_LEAVING`] are more than noise.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        let (Some(ours), Some(theirs)) = (self.smoothed, other.smoothed) else { return false };
        self.samples >= 2 && ours + WORTH_LEAVING <= theirs && ours <= theirs * 4 / 5
    }

    /// Whether another answer is wanted before it is compared.
    pub(crate) const fn is_single(&self) -> bool {
        self.samples == 1
    }

    pub(crate) fn sample(&mut self, sample: Duration) {
        self.samples = self.samples.saturating_add(1);
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = self.variation * 3 / 4 + smoothed.abs_diff(sample) / 4;
                self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
            }
        }
    }

    /// When to send again what was not answered, before back-off.
    pub(crate) fn retry_after(&self) -> Duration {
        match self.smoothed {
            // As the first message of a handshake.
            None => Duration::from_millis(250),
            Some(smoothed) => (smoothed + self.variation * 4).clamp(RETRY_MIN, RETRY_MAX),
        }
    }
}

/// A path that failed is not gone back to for so long while another one works; twice as long each time, and as at first
/// when it was held for the longest of these. Else a path that comes and goes would take every message with it.
const PENALTY: Duration = Duration::from_secs(8);
const PENALTY_MAX: Duration = Duration::from_secs(600);
/// A way of the same kind must be faster by this much, or the path would change with every whim of a network.
const WORTH_LEAVING: Duration = Duration::from_millis(2);
/// A path that was taken is held for so long before a faster one of the same kind is taken.
pub(crate) const PATH_HELD: Duration = Duration::from_secs(5);
/// The ways to a peer in use that is off our links and farther than this are compared so often.
pub(crate) const COMPARE_AGAIN: Duration = Duration::from_secs(60);
pub(crate) const WORTH_COMPARING: Duration = Duration::from_millis(5);
/// A busy receiver on a small device needs this long to be scheduled.
const RETRY_MIN: Duration = Duration::from_millis(30);
/// A message has a deadline of a few seconds: with this longest pause it is tried 15 times in the usual five, and at
/// 20 % loss each way all of them fail once in millions.
pub(crate) const RETRY_MAX: Duration = Duration::from_millis(400);
/// From one question for a peer's topics to the next.
pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A question on a path that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) token: u64,
    pub(crate) route: Route,
    pub(crate) asked: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_falls_again_and_again_waits_longer_each_time_and_begins_anew_when_it_was_held() {
        let mut candidates = Candidates::default();
        let route = Route::to(([10, 0, 0, 1], 1).into());
        candidates.add(route, Source::Proved);
        let at = |seconds| Instant::from_origin(Duration::from_secs(seconds));
        let waits = |candidates: &Candidates, from: u64| {
            (0..).find(|wait| !candidates.is_penalised(route, at(from + wait))).unwrap()
        };
        for (fall, wait) in [(1000, 8), (2000, 16), (3000, 32)] {
            candidates.fell(route, at(fall - 10), at(fall));
            candidates.add(route, Source::Seen);
            assert_eq!(waits(&candidates, fall), wait);
        }
        candidates.fell(route, at(4000), at(5000));
        assert_eq!(waits(&candidates, 5000), 8);
    }

    #[test]
    fn only_an_address_at_which_the_peer_was_reached_takes_the_place_of_such_a_one() {
        let route = |port| Route::to(([10, 0, 0, 1], port).into());
        let mut candidates = Candidates::default();
        candidates.add(route(1), Source::Proved);
        candidates.add(route(2), Source::Relayed);
        candidates.add(route(3), Source::Introduced);
        for port in 10..60 {
            candidates.add(route(port), Source::Seen);
            candidates.add(route(100 + port), Source::Hearsay);
            // What was proved is not worth less, nor more recent, because it is repeated.
            candidates.add(route(1), Source::Seen);
        }
        for port in 1..=3 {
            assert!(candidates.iter().any(|known| known.route == route(port)), "{port}");
        }
        assert_eq!(candidates.proved().collect::<Vec<_>>(), [route(1).remote]);
        assert_eq!(candidates.iter().count(), 3 + 2 * limits::LEARNT_CANDIDATES);
        for port in 200..220 {
            candidates.add(route(port), Source::Proved);
            candidates.add(route(200), Source::Seen);
        }
        let newest = (200..220).rev().map(|port| route(port).remote);
        let newest: Vec<_> = newest.take(limits::LEARNT_CANDIDATES).collect();
        assert_eq!(candidates.proved().collect::<Vec<_>>(), newest);
    }

    #[test]
    fn learnt_addresses_are_bounded_and_the_newest_stay() {
        let mut candidates = Candidates::default();
        let route = |port| Route::to(([10, 0, 0, 1], port).into());
        candidates.add(route(1), Source::Configured);
        for port in 2..40 {
            candidates.add(route(port), Source::Hearsay);
        }
        assert_eq!(candidates.iter().count(), limits::LEARNT_CANDIDATES + 1);
        assert_eq!(candidates.iter().next().unwrap().route, route(39));
        assert!(candidates.iter().any(|candidate| candidate.route == route(1)));
    }
}
