//! How often something may happen: some at once, and then so many a second.

use crate::time::Instant;

/// Room for what it paces: refilled by time, one taken for each.
#[derive(Debug)]
pub(crate) struct Pace {
    burst: f64,
    a_second: f64,
    room: f64,
    refilled: Instant,
}

impl Pace {
    pub(crate) fn new(burst: u32, a_second: u32) -> Self {
        let burst = f64::from(burst);
        Self { burst, a_second: f64::from(a_second), room: burst, refilled: Instant::default() }
    }

    /// How many may happen now.
    pub(crate) fn room(&mut self, now: Instant) -> usize {
        let passed = now.since(self.refilled).as_secs_f64();
        self.room = (self.room + passed * self.a_second).min(self.burst);
        self.refilled = now;
        self.room as usize
    }

    /// Whether nothing was taken that is not refilled.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.room(now) as f64 >= self.burst
    }

    /// Takes the room of one; says whether there was any.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes the room of `count`, all or none; says whether there was so much.
    pub(crate) fn take_many(&mut self, count: usize, now: Instant) -> bool {
        let has = self.room(now) >= count;
        if has {
            self.room -= count as f64;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_may_happen_at_once_and_then_so_many_a_second() {
        let mut pace = Pace::new(3, 2);
        let taken = |pace: &mut Pace, seconds: u64| {
            let now = Instant::from_origin(Duration::from_secs(seconds));
            std::iter::from_fn(|| pace.take(now).then_some(())).count()
        };
        assert_eq!([1, 1, 2, 9].map(|second| taken(&mut pace, second)), [3, 0, 2, 3]);
    }
}
