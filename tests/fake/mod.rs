//! A scripted daemon: says to each request what a test wants it to say.

// Each test file uses its part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

/// A daemon for one connection; ends with it, and with the test's failure if its script failed.
pub(crate) struct Fake {
    directory: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// It accepts one app and plays `script` from the first byte on.
    pub(crate) fn raw(script: impl FnOnce(&mut Session) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("atonced.sock")).unwrap();
        let thread = std::thread::spawn(move || script(&mut Session::new(listener.accept().unwrap().0)));
        Self { directory, thread: Some(thread) }
    }

    /// It says hello and plays `first`; then it is started again, and plays `second` in the same way.
    pub(crate) fn restarted(
        first: impl FnOnce(&mut Session) + Send + 'static,
        second: impl FnOnce(&mut Session) + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("atonced.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let mut session = Session::new(listener.accept().unwrap().0);
            session.say_hello();
            first(&mut session);
            std::fs::remove_file(&path).unwrap();
            drop((listener, session));
            let listener = UnixListener::bind(&path).unwrap();
            let mut session = Session::new(listener.accept().unwrap().0);
            session.say_hello();
            second(&mut session);
        });
        Self { directory, thread: Some(thread) }
    }

    /// It says hello, and plays `script` after that.
    pub(crate) fn new(script: impl FnOnce(&mut Session) + Send + 'static) -> Self {
        Self::raw(|session| {
            session.say_hello();
            script(session);
        })
    }

    /// It says hello, lists [`peers`], and answers everything else with the lines that `answer` has for it, until the app
    /// goes.
    pub(crate) fn answering(mut answer: impl FnMut(&Value) -> Vec<Value> + Send + 'static) -> Self {
        Self::new(move |session| {
            while let Some(request) = session.request() {
                let lines = if request["op"] == "peers" { peers(&request) } else { answer(&request) };
                for line in lines {
                    session.tell(&line);
                }
            }
        })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("atonced.sock")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Waits for the end of the script.
    pub(crate) fn finish(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

/// The connection of the app, from the daemon's side.
pub(crate) struct Session {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Session {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }

    /// The next request; none when the app is gone.
    pub(crate) fn request(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("a request is JSON")),
        }
    }

    /// The next request, which has to be of this kind.
    pub(crate) fn expect(&mut self, op: &str) -> Value {
        let request = self.request().expect("a request");
        assert_eq!(request["op"], op);
        request
    }

    pub(crate) fn tell(&mut self, line: &Value) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// Bytes as they are; an app that is gone does not matter.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes);
    }

    pub(crate) fn say_hello(&mut self) {
        self.say_hello_with(1152);
    }

    /// The same of a daemon whose messages have at most so many bytes.
    pub(crate) fn say_hello_with(&mut self, payload_bytes: usize) {
        let request = self.expect("hello");
        let hello = json!({"v": 1, "version": "0.1.0", "node": node("here", 1), "payload_bytes": payload_bytes, "line_bytes": 98304});
        self.tell(&json!({"ev": "ok", "id": request["id"], "hello": hello}));
    }

    /// Until the app is gone.
    pub(crate) fn wait_for_the_end(&mut self) {
        while self.request().is_some() {}
    }
}

/// The id of the node with this number: its key is that byte 32 times.
pub(crate) fn id(number: u8) -> String {
    atonce::id::NodeId([number; 32]).to_string()
}

pub(crate) fn node(name: &str, number: u8) -> Value {
    json!({"name": name, "id": id(number)})
}

pub(crate) fn ok(request: &Value) -> Vec<Value> {
    vec![json!({"ev": "ok", "id": request["id"]})]
}

pub(crate) fn error(request: &Value, code: &str) -> Vec<Value> {
    vec![
        json!({"ev": "error", "id": request["id"], "code": code, "message": "it is not to be", "hint": "something else"}),
    ]
}

pub(crate) fn message(name: &str, topic: &str, text: &str) -> Value {
    json!({"ev": "message", "from": node(name, 2), "topic": topic, "text": text, "path": "lan", "at": "2026-11-23T16:00:00.000Z"})
}

/// pi-attic is online, pi-cellar connecting, garage offline.
pub(crate) fn peers(request: &Value) -> Vec<Value> {
    vec![
        json!({"ev": "peer", "id": id(2), "name": "pi-attic", "state": "online", "rtt_us": 412,
            "path": {"kind": "lan", "addr": "192.168.1.42:28282", "via": null},
            "last_seen": "2026-11-23T16:00:00Z", "topics": ["sensor"]}),
        json!({"ev": "peer", "id": id(3), "name": "pi-cellar", "state": "connecting", "why": "no answer yet",
            "path": null, "rtt_us": null, "last_seen": null, "topics": []}),
        json!({"ev": "peer", "id": id(4), "name": "garage", "state": "offline", "why": "it said goodbye",
            "path": null, "rtt_us": null, "last_seen": "2026-11-21T16:00:00Z", "topics": []}),
        json!({"ev": "ok", "id": request["id"]}),
    ]
}
