//! Where time comes from: the only place that reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// tokio's timers stand still while the machine sleeps: a longer sleep is cut here and the clock read again, so that
/// what fell due during a suspend is done soon after it.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time since the machine started, suspend included.
    pub fn now(self) -> Instant {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        Instant::from_origin(Duration::new(seconds, nanoseconds))
    }

    /// The time since 1970, for people only: nothing is decided by it.
    pub fn since_1970(self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// How long to sleep for `deadline`, and no longer than is safe.
    pub fn sleep_until(self, deadline: Option<Instant>) -> Duration {
        deadline.map_or(SLEEP_MAX, |deadline| deadline.since(self.now()).min(SLEEP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_no_sleep_is_longer_than_is_safe() {
        let before = Clock.now();
        assert!(Clock.now() >= before);
        assert!(before.since_origin() > Duration::ZERO);
        assert_eq!(Clock.sleep_until(None), SLEEP_MAX);
        assert_eq!(Clock.sleep_until(Some(Clock.now() + Duration::from_secs(3600))), SLEEP_MAX);
        assert_eq!(Clock.sleep_until(Some(Instant::default())), Duration::ZERO);
    }
}
