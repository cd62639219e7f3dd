//! A way of limited rate: packets queue before it, and those that find the queue full are lost.

use std::time::Duration;

use atonce::time::Instant;

/// One direction of it.
pub struct Pipe {
    pub bits_per_second: u64,
    pub latency: Duration,
    /// What the queue holds, as the time that it takes to run empty.
    pub buffer: Duration,
    /// In parts of a thousand, by chance.
    pub loss: u64,
    /// Larger datagrams vanish.
    pub mtu: usize,
    /// When all that waits will have passed.
    free: Instant,
    pub passed_bytes: u64,
    pub dropped: u64,
}

/// IPv4 and UDP.
const HEADERS: usize = 28;

impl Pipe {
    pub fn new(bits_per_second: u64, latency: Duration, buffer: Duration, loss: u64) -> Self {
        let (free, passed_bytes, dropped) = (Instant::default(), 0, 0);
        Self { bits_per_second, latency, buffer, loss, mtu: 1500, free, passed_bytes, dropped }
    }

    /// After how long a datagram arrives, if it does; `chance` is below a thousand.
    pub fn pass(&mut self, datagram: usize, chance: u64, now: Instant) -> Option<Duration> {
        let bytes = datagram + HEADERS;
        let wait = self.free.since(now);
        if wait > self.buffer || chance < self.loss || bytes > self.mtu {
            self.dropped += 1;
            return None;
        }
        let sending = Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / self.bits_per_second);
        self.free = self.free.max(now) + sending;
        self.passed_bytes += bytes as u64;
        Some(self.free.since(now) + self.latency)
    }

    /// How long the queue is.
    pub fn queue(&self, now: Instant) -> Duration {
        self.free.since(now)
    }
}
