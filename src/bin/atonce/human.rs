//! Times and addresses as people write and read them.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Reads `500ms`, `5s`, `2m`, `1h`; a number alone is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || "a duration looks like 500ms, 5s, 2m or 1h".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| help())?;
    let factor = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(help()),
    };
    // A deadline further away than a century is a slip of the finger, and overflows clocks.
    match number.checked_mul(factor) {
        Some(0) => Err("it must be longer than nothing".to_owned()),
        Some(milliseconds) if milliseconds < 3_155_760_000_000 => Ok(Duration::from_millis(milliseconds)),
        _ => Err("it is too long".to_owned()),
    }
}

/// An address, a link-local one with the name of its interface on this machine, as `--peer` takes it.
pub(crate) fn address(addr: SocketAddr) -> String {
    let name_of = |index| {
        let socket = UnixDatagram::unbound().ok()?;
        rustix::net::netdevice::index_to_name(socket, index).ok()
    };
    match addr {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => match name_of(v6.scope_id()) {
            Some(name) => format!("[{}%{name}]:{}", v6.ip(), v6.port()),
            None => addr.to_string(),
        },
        SocketAddr::V4(_) | SocketAddr::V6(_) => addr.to_string(),
    }
}

/// A duration as one would write it.
pub(crate) fn duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

/// A round trip in as many digits as mean something.
pub(crate) fn round_trip(microseconds: u64) -> String {
    let milliseconds = microseconds as f64 / 1000.0;
    match microseconds {
        0..100 => format!("{milliseconds:.2} ms"),
        100..10_000 => format!("{milliseconds:.1} ms"),
        _ => format!("{milliseconds:.0} ms"),
    }
}

/// A round trip as one compares it with the next.
pub(crate) fn fine_round_trip(microseconds: u64) -> String {
    let milliseconds = microseconds as f64 / 1000.0;
    match microseconds {
        0..10_000 => format!("{milliseconds:.2} ms"),
        _ => format!("{milliseconds:.1} ms"),
    }
}

/// A long time in its two largest units: `2d4h`, `3h12m`, `5m3s`, `12s`.
pub(crate) fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86_400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// How long ago a time was, in its largest unit: `now`, `12s`, `3m`, `2h`, `5d`.
pub(crate) fn age(rfc3339: &str, now: Timestamp) -> Option<String> {
    let then: Timestamp = rfc3339.parse().ok()?;
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    Some(match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    })
}

/// The time of day of a time, here.
pub(crate) fn time_of_day(rfc3339: &str) -> String {
    rfc3339.parse().map_or_else(|_| "--:--:--".to_owned(), local)
}

/// The time of day, here.
pub(crate) fn now() -> String {
    local(Timestamp::now())
}

fn local(time: Timestamp) -> String {
    time.to_zoned_datetime(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// `1 peer`, `3 peers`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// The same where the plural is another word.
pub(crate) fn counted_as(count: u64, noun: &str, plural: &str) -> String {
    format!("{count} {}", if count == 1 { noun } else { plural })
}

/// Bits a second in as many digits as mean something.
pub(crate) fn rate(bits_per_s: f64) -> String {
    match bits_per_s {
        0.0..1e6 => format!("{:.1} kbit/s", bits_per_s / 1e3),
        0.0..1e9 => format!("{:.1} Mbit/s", bits_per_s / 1e6),
        _ => format!("{:.2} Gbit/s", bits_per_s / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_shows_the_name_of_its_interface() {
        let shown = |text: &str| address(text.parse().unwrap());
        assert_eq!(shown("[fe80::2%1]:28282"), "[fe80::2%lo]:28282");
        assert_eq!(shown("[fe80::2%54321]:28282"), "[fe80::2%54321]:28282");
        assert_eq!(shown("[fd00::2]:28282"), "[fd00::2]:28282");
        assert_eq!(shown("10.0.0.2:28282"), "10.0.0.2:28282");
    }

    #[test]
    fn a_duration_has_a_unit_or_is_seconds_and_is_never_nothing() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        for wrong in ["s", "", "5 s", "-1s", "1.5s", "0s", "5d", "99999999999999999999s", "9999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(duration(Duration::from_secs(5)), "5s");
    }

    #[test]
    fn a_round_trip_has_the_digits_that_mean_something() {
        let shown = [41, 412, 812, 2100, 21_400].map(round_trip);
        assert_eq!(shown, ["0.04 ms", "0.4 ms", "0.8 ms", "2.1 ms", "21 ms"]);
        assert_eq!(fine_round_trip(412), "0.41 ms");
        assert_eq!(fine_round_trip(21_440), "21.4 ms");
    }

    #[test]
    fn ages_are_told_in_their_largest_unit() {
        let now: Timestamp = "2026-11-23T16:00:00Z".parse().unwrap();
        let ages = ["16:00:00.250", "16:00:09", "15:59:48", "15:57:10", "14:00:00"]
            .map(|time| age(&format!("2026-11-23T{time}Z"), now).unwrap());
        assert_eq!(ages, ["now", "now", "12s", "2m", "2h"]);
        assert_eq!(age("2026-11-21T15:00:00Z", now).unwrap(), "2d");
        assert_eq!(age("yesterday", now), None);
        assert_eq!([12, 303, 11_520, 187_200].map(uptime), ["12s", "5m3s", "3h12m", "2d4h"]);
    }
}
