//! What one daemon tells an app, each line with the moment at which it came.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::Daemon;
use crate::lab::lines::PATIENCE;

/// A connection of an app.
pub(crate) struct Seen {
    stream: UnixStream,
    lines: Receiver<(Instant, Value)>,
}

impl Seen {
    /// An app that watches.
    pub(crate) fn by(daemon: &Daemon) -> Self {
        let seen = Self::of(daemon);
        seen.say(r#"{"op":"watch"}"#);
        seen
    }

    /// An app that says nothing yet.
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let stream = UnixStream::connect(&daemon.socket).unwrap();
        let (sender, lines) = channel();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let now = Instant::now();
                let Ok(value) = serde_json::from_str(&line) else { return };
                if sender.send((now, value)).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { stream, lines }
    }

    pub(crate) fn say(&self, line: &str) {
        (&self.stream).write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// When the next event with this name came, of the peer with that name.
    pub(crate) fn when(&self, event: &str, peer: &str) -> Instant {
        self.line(|line| line["ev"] == event && line["peer"]["name"] == peer).0
    }

    /// The next line for which `is_it` holds.
    pub(crate) fn line(&self, is_it: impl Fn(&Value) -> bool) -> (Instant, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("what was awaited did not come");
            if is_it(&line.1) {
                return line;
            }
        }
    }
}

/// An app that sends an acknowledged message to a peer again and again, until it is dropped.
pub(crate) struct Talk {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Talk {
    pub(crate) fn between(daemon: &Daemon, peer: &str, pause: Duration) -> Self {
        let (app, ended) = (Seen::of(daemon), Arc::new(AtomicBool::new(false)));
        let line = format!(r#"{{"op":"send","to":"{peer}","topic":"bench","text":"x"}}"#);
        let flag = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                app.say(&line);
                std::thread::sleep(pause);
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
