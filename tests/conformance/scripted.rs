//! A daemon that plays a script: one function for each connection, in turn.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

/// What happens on one connection.
pub(crate) type Script = Box<dyn FnOnce(&mut Connection) + Send>;

/// Serves the connections that it has scripts for, one after the other.
pub(crate) struct Scripted {
    directory: TempDir,
    thread: JoinHandle<()>,
}

impl Scripted {
    pub(crate) fn start(scripts: Vec<Script>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("atonced.sock")).unwrap();
        let thread = std::thread::spawn(move || {
            for script in scripts {
                script(&mut Connection::new(listener.accept().unwrap().0));
            }
        });
        Self { directory, thread }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("atonced.sock")
    }

    /// Waits for the end of the scripts, and fails if one of them did.
    pub(crate) fn finish(self) {
        self.thread.join().expect("the script goes as it should");
    }
}

/// The connection of a client, from the daemon's side.
pub(crate) struct Connection {
    reader: BufReader<UnixStream>,
    pub(crate) writer: UnixStream,
}

impl Connection {
    fn new(writer: UnixStream) -> Self {
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    /// The next request; none when the client is gone.
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

    /// The next request, which has to be of this kind, is done.
    pub(crate) fn grant(&mut self, op: &str) {
        let request = self.expect(op);
        self.tell(&json!({"ev": "ok", "id": request["id"]}));
    }

    pub(crate) fn say_hello(&mut self) {
        let request = self.expect("hello");
        let hello = json!({"v": 1, "version": "9.9.9", "node": node("here"), "payload_bytes": 61440, "line_bytes": 98304});
        self.tell(&json!({"ev": "ok", "id": request["id"], "hello": hello}));
    }

    pub(crate) fn tell(&mut self, line: &Value) {
        self.write(format!("{line}\n").as_bytes());
    }

    /// Bytes as they are; a client that is gone does not matter.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.writer.write_all(bytes);
    }

    /// Until the client is gone.
    pub(crate) fn until_the_end(&mut self) {
        while self.request().is_some() {}
    }
}

/// A node with this name; its id is that of a key all of whose bytes are 7.
pub(crate) fn node(name: &str) -> Value {
    json!({"name": name, "id": atonce::id::NodeId([7; 32]).to_string()})
}

pub(crate) fn message(text: &str) -> Value {
    json!({"ev": "message", "from": node("pi"), "topic": "chat", "text": text, "path": "lan", "at": "2026-11-23T16:00:00.000Z"})
}

pub(crate) fn result(request: &Value, outcome: &str) -> Value {
    json!({"ev": "result", "id": request["id"], "outcome": outcome, "peer": node("pi"), "path": "lan", "rtt_us": 7})
}
