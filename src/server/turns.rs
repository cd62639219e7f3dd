//! When those that the server forgot by a restart are to tell their blobs again: so many in each second.

use std::collections::VecDeque;

use crate::time::Instant;

/// Registers in one second: less than a tenth of a core.
const EACH_SECOND: u32 = 20_000;
/// How many seconds ahead turns are given; who comes when all those are full gets the last one, since longer than a
/// minute nobody is to wait.
const SECONDS: usize = 61;

/// The turns given for this second and the next ones.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The second, since the clock's origin, of the first count.
    first: u64,
    given: VecDeque<u32>,
}

impl Turns {
    /// Takes the first turn that is free; tells its second.
    pub(super) fn take(&mut self, now: Instant) -> u64 {
        let second = now.since_origin().as_secs();
        let over = usize::try_from(second.saturating_sub(self.first)).unwrap_or(SECONDS);
        self.given.drain(..over.min(self.given.len()));
        self.given.resize(SECONDS, 0);
        self.first = self.first.max(second);
        let free = self.given.iter().position(|given| *given < EACH_SECOND).unwrap_or(SECONDS - 1);
        if let Some(given) = self.given.get_mut(free) {
            *given = given.saturating_add(1);
        }
        self.first + free as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(milliseconds))
    }

    #[test]
    fn each_second_has_its_number_of_turns_whenever_they_are_taken() {
        let mut turns = Turns::default();
        let mut seconds = BTreeMap::<u64, u32>::new();
        // A hundred thousand within a second that is no whole one.
        for n in 0..100_000 {
            *seconds.entry(turns.take(at(5_700 + n / 100))).or_default() += 1;
        }
        assert_eq!(seconds.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9].map(|second| (second, 20_000)));
        assert_eq!(turns.take(at(20_000)), 20, "those seconds are over");
        for _ in 1..1_300_000 {
            assert!(turns.take(at(20_000)) <= 80);
        }
        assert_eq!(turns.take(at(20_000)), 80);
        assert_eq!(turns.take(at(21_000)), 81);
        assert_eq!(turns.take(at(1_000_000)), 1000);
    }
}
