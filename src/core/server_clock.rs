//! What day it is at a rendezvous server: by its word, and by how much time passes here (rendezvous.md, 3.4).
//!
//! The day is in the names under which a node registers, so a server that made a day last would know the node again, and one
//! that went back to a day would know it from then. Its word is the first that a node has. From then on the node counts
//! itself, and the server's word only sets that right by as much as clocks differ. So no day comes twice, none lasts, and a
//! server that jumps ahead does so once a day.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::rendezvous::{DAY_SECONDS, Day, ServerTime};

/// By so much the server's clock may be off from what we count since we first heard of it; and by a hundredth of that time,
/// more than the clock of any machine is.
const OFF: u64 = 3600;
const OFF_PART: u64 = 100;
/// A server whose clock is set right jumps once: members that have come since are found in its new day only.
const JUMP_AGAIN: Duration = Duration::from_secs(DAY_SECONDS as u64);
/// However often its day changes, we follow no more often: each time all is registered anew.
const NEW_DAY_AGAIN: Duration = Duration::from_secs(60);
/// Before and after midnight the neighbour day counts too.
const DAY_EDGE_SECONDS: u32 = 3600;
/// In so many seconds those who do not know what day it is look again.
const UNKNOWN: Duration = Duration::from_secs(60);

/// A moment of the server's clock, in seconds of all its days, and when that was here.
#[derive(Clone, Copy, Debug)]
struct Reading {
    seconds: u64,
    at: Instant,
}

impl Reading {
    /// What the clock says now, if it goes as ours.
    fn now(self, now: Instant) -> u64 {
        self.seconds + now.since(self.at).as_secs()
    }
}

/// The clock of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServerClock {
    /// What we go by.
    counted: Option<Reading>,
    /// From where we count: the first word that was proved, or the last jump.
    base: Option<Reading>,
    /// The latest moment that we went by, in seconds: what is an hour and more before it is over.
    latest: u64,
    /// Its last word that was proved.
    said: Option<Reading>,
    /// When its day changed last by its word, and when it jumped ahead.
    changed: Option<Instant>,
    jumped: Option<Instant>,
}

impl ServerClock {
    /// Whether the server itself has said what time it has.
    pub(crate) const fn is_heard(&self) -> bool {
        self.said.is_some()
    }

    /// In which days a member is to be found now, and until when that is so.
    pub(crate) fn days(&self, now: Instant) -> (Vec<Day>, Duration) {
        let Some(ServerTime { day, second }) = self.time(now) else { return (Vec::new(), UNKNOWN) };
        let edge = DAY_SECONDS - DAY_EDGE_SECONDS;
        let (days, until) = match second {
            ..DAY_EDGE_SECONDS => (vec![Some(day), day.0.checked_sub(1).map(Day)], DAY_EDGE_SECONDS),
            second if second < edge => (vec![Some(day)], edge),
            _ => (vec![Some(day), day.0.checked_add(1).map(Day)], DAY_SECONDS),
        };
        (days.into_iter().flatten().collect(), Duration::from_secs(u64::from(until - second)))
    }

    fn time(&self, now: Instant) -> Option<ServerTime> {
        let seconds = self.counted?.now(now);
        let day = Day(u32::try_from(seconds / u64::from(DAY_SECONDS)).ok()?);
        Some(ServerTime { day, second: u32::try_from(seconds % u64::from(DAY_SECONDS)).ok()? })
    }

    /// Somebody who heard our question says what time the server has: believed as long as the server itself has not said
    /// so. Returns whether members are to be found elsewhere now.
    pub(crate) fn hint(&mut self, time: ServerTime, now: Instant) -> bool {
        let word = reading(time, now);
        self.base.is_none() && word.is_some_and(|word| self.follow(word, false, now))
    }

    /// The server says what time it has. Returns whether members are to be found elsewhere now.
    pub(crate) fn hear(&mut self, time: ServerTime, now: Instant) -> bool {
        let Some(word) = reading(time, now) else { return false };
        self.said = Some(word);
        let Some(base) = self.base else {
            (self.base, self.latest) = (Some(word), word.seconds);
            return self.follow(word, true, now);
        };
        let counted = self.counted.map_or(0, |counted| counted.now(now));
        self.latest = self.latest.max(counted);
        if word.seconds + OFF < self.latest {
            return false;
        }
        if Self::is_near(base, word.seconds, now) {
            return self.follow(word, false, now);
        }
        let may_jump = self.jumped.is_none_or(|at| now.since(at) >= JUMP_AGAIN);
        if word.seconds < base.now(now) || !may_jump {
            return false;
        }
        (self.base, self.jumped, self.latest) = (Some(word), Some(now), word.seconds);
        self.follow(word, true, now)
    }

    /// Goes by this word; `anew`: whatever was before.
    fn follow(&mut self, word: Reading, anew: bool, now: Instant) -> bool {
        let before = (self.counted, self.days(now).0);
        self.counted = Some(word);
        let changed = self.days(now).0 != before.1;
        if changed && !anew && self.changed.is_some_and(|at| now.since(at) < NEW_DAY_AGAIN) {
            self.counted = before.0;
            return false;
        }
        if changed {
            self.changed = Some(now);
        }
        changed
    }

    /// Whether `seconds` is what a clock may say now that said `base`.
    fn is_near(base: Reading, seconds: u64, now: Instant) -> bool {
        let off = OFF + now.since(base.at).as_secs() / OFF_PART;
        base.now(now).abs_diff(seconds) <= off
    }

    /// Whether its last word was not to be believed, by what we have counted.
    pub(crate) fn is_off(&self, now: Instant) -> bool {
        let off = |(base, said): (Reading, Reading)| {
            let seconds = said.now(now);
            seconds + OFF < self.latest || !Self::is_near(base, seconds, now)
        };
        self.base.zip(self.said).is_some_and(off)
    }

    /// Whether two servers are more than a day apart, by their own words.
    pub(crate) fn disagrees(&self, other: &Self, now: Instant) -> bool {
        self.said.zip(other.said).is_some_and(|(one, other)| are_apart(one, other, now))
    }

    /// Whether they are not, as far as is known: of a server that we did not register at there are only hints.
    pub(crate) fn agrees(&self, other: &Self, now: Instant) -> bool {
        let word = |clock: &Self| clock.said.or(clock.counted);
        word(self).zip(word(other)).is_some_and(|(one, other)| !are_apart(one, other, now))
    }
}

/// Whether two clocks are more than a day apart.
fn are_apart(one: Reading, other: Reading, now: Instant) -> bool {
    one.now(now).abs_diff(other.now(now)) > u64::from(DAY_SECONDS)
}

fn reading(time: ServerTime, now: Instant) -> Option<Reading> {
    let seconds = u64::from(time.day.0) * u64::from(DAY_SECONDS) + u64::from(time.second);
    is_a_time(time).then_some(Reading { seconds, at: now })
}

/// Whether a server may have this time: until the year 4700.
pub(crate) const fn is_a_time(time: ServerTime) -> bool {
    time.second < DAY_SECONDS && time.day.0 < 1_000_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn time(seconds: u64) -> ServerTime {
        ServerTime { day: Day((seconds / DAY) as u32), second: (seconds % DAY) as u32 }
    }

    /// A clock that was heard at noon of day 100, at our second 1000.
    fn noon() -> ServerClock {
        let mut clock = ServerClock::default();
        assert!(clock.hear(time(100 * DAY + 12 * HOUR), at(1000)));
        clock
    }

    fn day(clock: &ServerClock, now: u64) -> Vec<u32> {
        clock.days(at(now)).0.into_iter().map(|day| day.0).collect()
    }

    #[test]
    fn days_go_on_by_our_own_count_whatever_the_server_says() {
        let mut clock = noon();
        for hour in 1..100 {
            let now = 1000 + hour * HOUR;
            clock.hear(time(100 * DAY + 12 * HOUR), at(now));
            // An hour that it may be off, and one for each hundred.
            let least = 100 + (12 + hour).saturating_sub(3) / 24;
            assert!(day(&clock, now).iter().any(|day| u64::from(*day) >= least), "{hour}");
            assert_eq!(clock.is_off(at(now)), hour > 1, "{hour}");
        }
    }

    #[test]
    fn an_earlier_day_is_never_believed_again_and_a_later_one_once_a_day() {
        let mut clock = noon();
        for back in [2 * HOUR, DAY, 99 * DAY] {
            assert!(!clock.hear(time(100 * DAY + 12 * HOUR - back), at(1010)));
            assert!(clock.is_off(at(1010)));
        }
        assert!(clock.hear(time(105 * DAY + 12 * HOUR), at(1020)));
        assert_eq!(day(&clock, 1020), [105]);
        assert!(!clock.hear(time(107 * DAY + 12 * HOUR), at(1020 + DAY - 1)));
        assert!(clock.hear(time(110 * DAY + 12 * HOUR), at(1020 + DAY)));
        assert!(!clock.hear(time(100 * DAY + 12 * HOUR), at(1020 + DAY)));
    }

    #[test]
    fn a_hint_counts_until_the_server_itself_has_spoken() {
        let mut clock = ServerClock::default();
        assert!(clock.hint(time(7 * DAY + 12 * HOUR), at(1000)));
        assert!(!clock.hint(time(9 * DAY + 12 * HOUR), at(1001)), "not again within a minute");
        assert!(clock.hint(time(9 * DAY + 12 * HOUR), at(1060)));
        assert!(clock.hear(time(100 * DAY + 12 * HOUR), at(1061)));
        assert!(!clock.hint(time(101 * DAY + 12 * HOUR), at(2000)));
        assert_eq!(day(&clock, 2000), [100]);
    }

    proptest! {
        #[test]
        fn no_day_that_was_left_comes_again(words in prop::collection::vec((0..3 * DAY, 0..200 * DAY), 1..60)) {
            let (mut clock, mut now, mut latest) = (noon(), 1000, 0);
            for (pause, word) in words {
                now += pause;
                clock.hear(time(word), at(now));
                let days = day(&clock, now);
                // Around midnight there are two.
                prop_assert!(days.iter().all(|day| *day + 1 >= latest), "{days:?} after {latest}");
                latest = latest.max(days.into_iter().max().unwrap());
            }
        }
    }
}
