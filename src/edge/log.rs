//! The log, on standard error: for people, or for the journal, which knows the time and shows levels by itself. Its
//! filter can change while the daemon runs.

use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::{env, fmt, fs};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, layer as layer_of_lines};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;

/// The log of this process.
#[derive(Debug)]
pub struct Log {
    filter: Handle<Targets, Registry>,
}

impl Log {
    /// Begins to log what passes `filter`, which was checked to be one. Once in a process.
    pub fn start(filter: &str) -> Self {
        let (layer, filter) = reload::Layer::new(targets(filter).unwrap_or_default());
        // Colours for people only; a log that is collected stays plain.
        let lines = layer_of_lines().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        let lines = if is_journal() { lines.event_format(Journal).boxed() } else { lines.boxed() };
        tracing_subscriber::registry().with(layer).with(lines).init();
        Self { filter }
    }

    /// Logs from now on what passes `filter`, which was checked to be one.
    pub(super) fn set(&self, filter: &str) {
        // It fails only when the log itself is gone.
        let _ = self.filter.reload(targets(filter).unwrap_or_default());
    }
}

/// Levels and targets with their levels, between commas and perhaps spaces.
pub(super) fn targets(filter: &str) -> Result<Targets, ParseError> {
    filter.replace(' ', "").parse()
}

/// Whether standard error goes to the journal, by the device and number of the file that systemd names.
fn is_journal() -> bool {
    let Some(named) = env::var_os("JOURNAL_STREAM") else { return false };
    let own = fs::metadata("/proc/self/fd/2").map(|own| format!("{}:{}", own.dev(), own.ino()));
    own.is_ok_and(|own| named == *own)
}

/// Lines that begin with the number of their level, as the journal reads them.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{level}>{}: ", event.metadata().target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_and_targets_with_or_without_spaces_between() {
        let filter = targets("warn, atonce=debug,mdns_sd = off").unwrap();
        assert!(filter.would_enable("atonce::core", &Level::DEBUG));
        assert!(filter.would_enable("other", &Level::WARN) && !filter.would_enable("other", &Level::INFO));
        assert!(!filter.would_enable("mdns_sd", &Level::ERROR));
        assert!(targets("atonce=loud").is_err());
    }
}
