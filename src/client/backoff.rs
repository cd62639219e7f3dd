//! How long to wait from one try to the next.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// From 50 ms to 2 s: longer after each failure, and never quite the same, so that not all apps of a host come at once.
#[derive(Debug)]
pub(super) struct BackOff {
    base: Duration,
}

impl BackOff {
    pub(super) const fn new() -> Self {
        Self { base: SHORTEST }
    }

    /// The next wait: its base or up to twice as long.
    pub(super) fn next(&mut self) -> Duration {
        // The keys of a standard hasher are random, and that is all that is needed here.
        let random = RandomState::new().hash_one(0) >> 32;
        let most = u64::try_from(self.base.as_nanos()).unwrap_or(u64::MAX);
        let wait = self.base + Duration::from_nanos((most >> 16).saturating_mul(random >> 16));
        self.base = (self.base * 2).min(LONGEST / 2);
        wait.min(LONGEST)
    }

    /// It succeeded.
    pub(super) const fn reset(&mut self) {
        self.base = SHORTEST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_50_ms_to_2_s_and_begin_anew_after_a_success() {
        let mut back_off = BackOff::new();
        for base in [50, 100, 200, 400, 800, 1000, 1000] {
            let wait = back_off.next();
            let base = Duration::from_millis(base);
            assert!(wait >= base && wait <= 2 * base, "{wait:?}");
        }
        back_off.reset();
        assert!(back_off.next() <= 2 * SHORTEST);
    }

    #[test]
    fn no_two_apps_wait_equally_long() {
        let waits: std::collections::BTreeSet<_> = (0..16).map(|_| BackOff::new().next()).collect();
        assert!(waits.len() > 8);
    }
}
