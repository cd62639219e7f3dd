//! The wall clock, for times that people read: RFC 3339 in UTC, to the millisecond.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::Instant;

/// What the edge said of the wall clock; 1970 until it did.
#[derive(Debug, Default)]
pub(crate) struct ClockText {
    origin_since_1970: Option<Duration>,
}

impl ClockText {
    /// At `now` it is `since_1970`. Returns how much that is ahead of what it would have been by itself.
    pub(crate) fn set(&mut self, since_1970: Duration, now: Instant) -> Duration {
        let origin = since_1970.saturating_sub(now.since_origin());
        let before = self.origin_since_1970.replace(origin);
        before.map_or(Duration::ZERO, |before| origin.saturating_sub(before))
    }

    /// The time since 1970 at `now`.
    pub(crate) fn since_1970(&self, now: Instant) -> Duration {
        self.origin_since_1970.unwrap_or_default() + now.since_origin()
    }
}

/// Writes a time since 1970 into `text`, in place of what is there.
pub(crate) fn write_time(since_1970: Duration, text: &mut String) {
    use std::fmt::Write;

    text.clear();
    let milliseconds = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX);
    // Writing into a String cannot fail.
    let _ = write!(text, "{time:.3}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_to_the_millisecond() {
        let mut text = String::new();
        write_time(Duration::from_millis(1_795_449_600_250), &mut text);
        assert_eq!(text, "2026-11-23T16:00:00.250Z");
        write_time(Duration::MAX, &mut text);
        assert!(text.starts_with("9999-"));
    }
}
