//! Time as the state machines see it: a number that the edge hands in.
//!
//! `std::time::Instant` cannot be made from a number, so it can be neither simulated nor recorded, and on Linux it
//! stands still while the machine sleeps. Ours counts from an origin that the edge chose and includes suspend.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: the time since an origin chosen by the edge, suspend included.
///
/// Only `edge/clock.rs` (and the simulation) makes one from a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// The moment `since_origin` after the origin.
    pub const fn from_origin(since_origin: Duration) -> Self {
        Self(since_origin)
    }

    /// How long after the origin this is.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}
