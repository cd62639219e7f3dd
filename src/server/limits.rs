//! How often somebody may do something.
//!
//! A bucket is one number (the generic cell rate algorithm): the time at which it will be full again.

use std::time::Duration;

use rand_core::CryptoRng;

use super::keyed::Keyed;
use crate::source::{LEVELS, Source};
use crate::time::Instant;

/// A burst, and then one each `every`; of what is counted one by one, or of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    burst: u32,
    every: Duration,
}

/// How many times the rate of a /64 the /56 and the /48 around it have: a home with several links, a site with several
/// homes or phones of one carrier. An IPv4 address has it once.
const TIMES: [u32; LEVELS] = [1, 2, 8];

/// Registers of one source address.
pub(super) const REGISTERS: Rate = Rate { burst: 64, every: Duration::from_micros(62_500) };
/// Registers of one source address that cost a key exchange and had a wrong mac: a member has none. Only who registers in
/// an unknown namespace is asked for this one, so that no number of sources that guess keeps members out.
pub(super) const GUESSES: Rate = Rate { burst: 4, every: Duration::from_secs(1) };
/// Key exchanges for namespaces that nobody has proved yet, of all together: 40 us each, so a sixth of a core. Members of
/// namespaces that are there, or that have a token, do not need them.
pub(super) const KEY_EXCHANGES: Rate = Rate { burst: 4096, every: Duration::from_micros(250) };
/// Intros of one member.
pub(super) const INTROS: Rate = Rate { burst: 64, every: Duration::from_secs(1) };
/// Knocks to one member.
pub(super) const KNOCKS: Rate = Rate { burst: 64, every: Duration::from_millis(250) };

/// Bytes of events to one source address, 192 KiB and then 16 kB a second: each of 64 members there hears of fifteen
/// changes at once, and then of more than one a second.
pub(super) const EVENT_BYTES: Rate = Rate { burst: 192 * 1024, every: Duration::from_micros(61) };
/// The same when the events only hint that there is news: they may use what the others leave.
pub(super) const HINT_BYTES: Rate = Rate { burst: 256 * 1024, every: EVENT_BYTES.every };
/// Knocks to one source address: of each of a thousand members there four others want something at once, and then a
/// quarter of them each second. No knock is longer than its intro, so this is for who sits there, not for the server.
pub(super) const KNOCKS_TO_SOURCE: Rate = Rate { burst: 4096, every: Duration::from_micros(3_906) };

/// How much of one rate is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at_ns: u64,
}

impl Rate {
    /// So many times as much, in a burst and later.
    const fn times(self, times: u32) -> Self {
        Self {
            burst: self.burst * times,
            every: Duration::from_nanos(self.every.as_nanos() as u64 / times as u64),
        }
    }
}

impl Bucket {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.take_many(rate, 1, now)
    }

    /// Whether there are so many.
    fn has_many(self, rate: Rate, count: u32, now: Instant) -> bool {
        // It is a copy from which they are taken.
        let mut copy = self;
        copy.take_many(rate, count, now)
    }

    /// Takes so many, if there are as many.
    fn take_many(&mut self, rate: Rate, count: u32, now: Instant) -> bool {
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let now = ns(now.since_origin());
        let used = self.full_at_ns.max(now);
        let used = used.saturating_add(ns(rate.every) * u64::from(count));
        let free = used - now <= ns(rate.every) * u64::from(rate.burst);
        if free {
            self.full_at_ns = used;
        }
        free
    }
}

/// Buckets of all sources, in one table of fixed size for each of their levels: two that meet in a place share it. Who cannot
/// see the key cannot choose whom to meet.
pub(super) struct SourceBuckets {
    keyed: Keyed,
    levels: [Box<[Bucket]>; LEVELS],
}

impl SourceBuckets {
    /// Half a megabyte for a level: a million sources that register once an hour leave each of them nearly empty.
    const PLACES: usize = 1 << 16;

    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        let level = |_| vec![Bucket::default(); Self::PLACES].into_boxed_slice();
        Self { keyed: Keyed::new(rng), levels: std::array::from_fn(level) }
    }

    pub(super) fn take(&mut self, source: Source, rate: Rate, now: Instant) -> bool {
        self.take_many(source, rate, 1, now)
    }

    pub(super) fn has(&self, source: Source, rate: Rate, now: Instant) -> bool {
        self.has_many(source, rate, 1, now)
    }

    /// Takes so many at each level of the source, or none at any.
    pub(super) fn take_many(&mut self, source: Source, rate: Rate, count: usize, now: Instant) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let has = self.has_many(source, rate, count, now);
        if has {
            for (level, source) in source.levels() {
                let place = self.place(source);
                self.levels[level][place].take_many(rate.times(TIMES[level]), count, now);
            }
        }
        has
    }

    fn has_many(&self, source: Source, rate: Rate, count: u32, now: Instant) -> bool {
        source.levels().all(|(level, source)| {
            self.levels[level][self.place(source)].has_many(rate.times(TIMES[level]), count, now)
        })
    }

    fn place(&self, source: Source) -> usize {
        self.keyed.hash(&source.bytes()) as usize % Self::PLACES
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

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

    #[test]
    fn a_bucket_of_bytes_gives_what_is_there_whole_or_not_at_all() {
        let mut bucket = Bucket::default();
        assert!(bucket.take_many(EVENT_BYTES, 196_000, at(1000)));
        assert!(!bucket.take_many(EVENT_BYTES, 609, at(1000)));
        assert!(bucket.take_many(EVENT_BYTES, 608, at(1000)));
        assert!(!bucket.take_many(EVENT_BYTES, 1, at(1000)));
        assert!(!bucket.take_many(EVENT_BYTES, 16_400, at(2000)));
        assert!(bucket.take_many(EVENT_BYTES, 16_390, at(2000)));
        assert!(bucket.take_many(HINT_BYTES, 65_536, at(2000)), "a quarter is for hints alone");
        assert!(!bucket.take_many(HINT_BYTES, 44, at(2000)));
    }

    #[test]
    fn what_one_home_and_one_site_take_is_counted_for_all_their_links_and_what_is_refused_for_none() {
        let mut buckets = SourceBuckets::new(&mut ChaCha20Rng::from_seed([1; 32]));
        let mut taken = |address: &dyn Fn(u32) -> String| {
            let source = |number| Source::of(address(number).parse().unwrap());
            (0..4096).filter(|number| buckets.take(source(*number), KNOCKS, at(1000))).count()
        };
        assert_eq!(taken(&|_| "2001:db8:1:100::1".to_owned()), 64);
        assert_eq!(taken(&|number| format!("2001:db8:1:1{:02x}::1", number % 256)), 64);
        assert_eq!(taken(&|number| format!("2001:db8:1:{number:x}::1")), 8 * 64 - 2 * 64);
        assert_eq!(taken(&|_| "2001:db8:2::1".to_owned()), 64, "another site has its own");
        assert_eq!(
            taken(&|number| format!("192.0.2.{}", number % 8)),
            8 * 64,
            "IPv4 addresses have nothing in common"
        );
    }
}
