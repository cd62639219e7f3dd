//! How often somebody may do something.
//!
//! A bucket is one number (the generic cell rate algorithm): the time at which it will be full again.

use std::time::Duration;

use rand_core::CryptoRng;

use super::keyed::Keyed;
use super::source::Source;
use crate::time::Instant;

/// A burst, and then one each `every`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    burst: u32,
    every: Duration,
}

/// Registers of one source address.
pub(super) const REGISTERS: Rate = Rate { burst: 64, every: Duration::from_micros(62_500) };
/// Intros of one member.
pub(super) const INTROS: Rate = Rate { burst: 64, every: Duration::from_secs(1) };
/// Knocks to one member.
pub(super) const KNOCKS: Rate = Rate { burst: 64, every: Duration::from_millis(250) };

/// How much of one rate is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at_us: u64,
}

impl Bucket {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let now = us(now.since_origin());
        let used = self.full_at_us.max(now);
        let free = used - now <= us(rate.every) * u64::from(rate.burst - 1);
        if free {
            self.full_at_us = used + us(rate.every);
        }
        free
    }
}

/// Buckets of all source addresses in one table of fixed size: two that meet in a place share it. Who cannot see the
/// key cannot choose whom to meet.
pub(super) struct SourceBuckets {
    keyed: Keyed,
    buckets: Box<[Bucket]>,
}

impl SourceBuckets {
    /// Half a megabyte: a million sources that register once an hour leave each of them nearly empty.
    const PLACES: usize = 1 << 16;

    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        Self { keyed: Keyed::new(rng), buckets: vec![Bucket::default(); Self::PLACES].into_boxed_slice() }
    }

    pub(super) fn take(&mut self, source: Source, rate: Rate, now: Instant) -> bool {
        let place = self.keyed.hash(&source.bytes()) as usize % Self::PLACES;
        self.buckets[place].take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let taken = |bucket: &mut Bucket, now| (0..1000).filter(|_| bucket.take(KNOCKS, now)).count();
        assert_eq!(taken(&mut bucket, at(10_000)), 64);
        assert_eq!(taken(&mut bucket, at(10_249)), 0);
        assert_eq!(taken(&mut bucket, at(10_250)), 1);
        assert_eq!(taken(&mut bucket, at(11_250)), 4);
        assert_eq!(taken(&mut bucket, at(1_000_000)), 64);
    }
}
