//! Two real daemons that know each other, `one` and `two`, and an app that speaks to one of them in plain lines.

// Each test file uses its part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take; only what has gone wrong takes so long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A program that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two daemons; they end with the test.
pub(crate) struct Pair {
    directory: TempDir,
    one: Option<Running>,
    _two: Running,
    two_port: String,
}

impl Pair {
    /// Starts them, and waits until each has the other.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (two, two_port) = daemon(directory.path(), "two", &[]);
        let mut pair = Self { directory, one: None, _two: two, two_port };
        pair.start_one();
        pair.app("two").until_there("one");
        pair.app("one").until_there("two");
        pair
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        socket(self.directory.path(), name)
    }

    /// An app of one of them.
    pub(crate) fn app(&self, name: &str) -> App {
        App::connect(&self.socket(name))
    }

    /// Kills `one` and starts it again.
    pub(crate) fn restart_one(&mut self) {
        self.one = None;
        self.start_one();
    }

    /// Ends `one` as a service manager does; it says goodbye.
    pub(crate) fn stop_one(&mut self) {
        let Some(mut one) = self.one.take() else { return };
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&one.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        one.0.wait().unwrap();
    }

    pub(crate) fn start_one(&mut self) {
        let peer = format!("127.0.0.1:{}", self.two_port);
        self.one = Some(daemon(self.directory.path(), "one", &["--peer", &peer]).0);
    }
}

fn socket(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.sock"))
}

/// A daemon that is ready, and its port.
fn daemon(directory: &Path, name: &str, more: &[&str]) -> (Running, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command
        .env_clear()
        .arg("--state-dir")
        .arg(directory.join(name))
        .arg("--socket")
        .arg(socket(directory, name));
    command
        .args(["--name", name, "--bind", "127.0.0.1", "--no-mdns", "--no-hello", "--log", "error"])
        .args(more);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let (_, port) = ready.split_once(" ready, udp ").unwrap_or_else(|| panic!("{ready:?}"));
    (running, port.split(',').next().unwrap().to_owned())
}

/// An app in plain lines.
pub(crate) struct App {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    events: VecDeque<Value>,
    last_id: u64,
}

impl App {
    fn connect(socket: &Path) -> Self {
        let writer = UnixStream::connect(socket).unwrap();
        writer.set_read_timeout(Some(LONG)).unwrap();
        let reader = BufReader::new(writer.try_clone().unwrap());
        Self { reader, writer, events: VecDeque::new(), last_id: 0 }
    }

    /// Asks, and waits for the end of the answer; what happens meanwhile is kept.
    pub(crate) fn ask(&mut self, request: Value) -> Value {
        let id = self.begin(request);
        loop {
            let line = self.line();
            let ends = ["ok", "result", "error"].iter().any(|end| line["ev"] == *end);
            if ends && line["id"] == id {
                return line;
            }
            self.events.push_back(line);
        }
    }

    /// Asks, and waits for nothing; returns the number of the request.
    pub(crate) fn begin(&mut self, mut request: Value) -> u64 {
        self.last_id += 1;
        request["id"] = json!(self.last_id);
        self.writer.write_all(format!("{request}\n").as_bytes()).unwrap();
        self.last_id
    }

    pub(crate) fn listen(&mut self, topic: &str) {
        assert_eq!(self.ask(json!({"op": "listen", "topic": topic}))["ev"], "ok");
    }

    /// Sends, and says what became of it.
    pub(crate) fn send(&mut self, to: &str, topic: &str, text: &str) -> String {
        let result = self.ask(json!({"op": "send", "to": to, "topic": topic, "text": text}));
        result["outcome"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    }

    /// The next event of this kind; others before it are skipped.
    pub(crate) fn next(&mut self, kind: &str) -> Value {
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.line());
            if event["ev"] == kind {
                return event;
            }
        }
    }

    /// Waits until that peer is online.
    pub(crate) fn until_there(&mut self, peer: &str) {
        self.ask(json!({"op": "watch"}));
        while self.next("enter")["peer"]["name"] != peer {}
    }

    /// Waits until an app of that peer, or of this node, listens to the topic.
    pub(crate) fn until_listening(&mut self, peer: &str, topic: &str) {
        self.ask(json!({"op": "watch", "own": true}));
        loop {
            let listens = self.next("listen");
            if listens["peer"]["name"] == peer && listens["topic"] == topic {
                return;
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}
