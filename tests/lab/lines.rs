//! What a program or a daemon says, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long an event may take before the test has failed; no test measures time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines that are read as they come.
pub(crate) struct Lines {
    what: String,
    lines: Receiver<String>,
}

impl Lines {
    /// The lines of `source`, which is called `what`.
    pub(crate) fn of(what: String, source: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(source).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { what, lines }
    }

    /// The next line for which `is_it` holds.
    pub(crate) fn line(&self, is_it: impl Fn(&str) -> bool) -> String {
        self.until(is_it).pop().unwrap()
    }

    /// All lines up to the next one for which `is_it` holds.
    pub(crate) fn until(&self, is_it: impl Fn(&str) -> bool) -> Vec<String> {
        let (deadline, mut seen) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("{}: what was awaited did not come; instead {seen:#?}", self.what)
            };
            let found = is_it(&line);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    /// The next event with this name of the peer with that name.
    pub(crate) fn event(&self, event: &str, peer: &str) -> Value {
        let line = self.line(|line| {
            let line = parse(line);
            line["ev"] == event && line["peer"]["name"] == peer
        });
        println!("{}\n{line}", self.what);
        parse(&line)
    }

    /// All lines until it ends.
    pub(crate) fn rest(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            lines.push(line);
        }
        assert!(Instant::now() < deadline, "{} did not end; it said {lines:#?}", self.what);
        lines
    }
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}
