//! A moment in eight bytes: an [`Instant`] takes sixteen, and every namespace remembers one.

use std::time::Duration;

use crate::time::Instant;

/// Microseconds since the clock's origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// The first whole microsecond that is not before `at`.
    pub(super) fn after(at: Instant) -> Self {
        let since = at.since_origin();
        let whole = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        Self(whole.saturating_add(u64::from(!since.subsec_nanos().is_multiple_of(1000))))
    }

    pub(super) const fn instant(self) -> Instant {
        Instant::from_origin(Duration::from_micros(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_not_before_its_instant_and_less_than_a_microsecond_after_it() {
        for nanoseconds in [0, 1, 999, 1000, 1001, 1_000_000_000, 1_999_999_001] {
            let at = Instant::from_origin(Duration::from_nanos(nanoseconds));
            let late = Moment::after(at).instant().since(at);
            assert!(Moment::after(at).instant() >= at && late < Duration::from_micros(1), "{nanoseconds}");
        }
    }
}
