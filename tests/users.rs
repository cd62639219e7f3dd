//! Users of one daemon: none of them keeps another one, or whoever administers it, from being served.
//!
//! Root and a second user are real; the kernel says who is who.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use atonce::limits;

use crate::daemon::{Daemon, connect, line};

/// Connects so many times as the user with that number, listens to other topics on each, and says so.
const HOG: &str = r#"
import os, socket, sys
path, uid, connections, topics = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
os.setgid(uid); os.setuid(uid)
held = []
for n in range(connections):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10)
    s.connect(path)
    try: s.sendall(b'{"op":"hello","id":1}\n')
    except BrokenPipeError: pass  # refused at once: the reason is there to read
    answer = s.recv(4096)
    if b'"limit"' in answer: break
    held.append(s)
listened = 0
for n, s in enumerate(held):
    file = s.makefile("rb")
    for t in range(topics):
        s.sendall(b'{"op":"listen","id":2,"topic":"hog-%d-%d"}\n' % (n, t))
        if b'"ok"' in file.readline(): listened += 1
print(len(held), listened, flush=True)
sys.stdin.read()
"#;

/// A user that takes what it can, until the test ends.
struct Hog {
    child: Child,
    connections: usize,
    topics: usize,
}

impl Hog {
    fn start(socket: &Path, uid: u32, connections: usize, topics: usize) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", HOG])
            .arg(socket)
            .args([uid.to_string(), connections.to_string(), topics.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
        let mut numbers = told.split_whitespace().map(|number| number.parse().unwrap());
        let (connections, topics) = (numbers.next().unwrap(), numbers.next().unwrap());
        Self { child, connections, topics }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn ask(stream: &mut UnixStream, reader: &mut impl BufRead, request: &str) -> serde_json::Value {
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(b"\n").unwrap();
    line(reader)
}

/// A daemon whose socket everybody may use.
fn open_to_all() -> (tempfile::TempDir, Daemon) {
    assert!(rustix::process::geteuid().is_root(), "only root can be another user too");
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(dir.path().join("a.sock"), std::fs::Permissions::from_mode(0o666)).unwrap();
    (dir, daemon)
}

#[test]
fn a_user_with_all_places_keeps_neither_root_nor_another_user_from_being_served() {
    let (dir, _daemon) = open_to_all();
    let socket = dir.path().join("a.sock");
    let hog = Hog::start(&socket, 65_534, 200, 0);
    assert_eq!(hog.connections, limits::CLIENTS, "one alone has all places");
    let other = Hog::start(&socket, 65_533, 10, 1);
    assert_eq!((other.connections, other.topics), (limits::APP_PLACES.few, limits::APP_PLACES.few));

    let (mut stream, mut reader) = connect(dir.path());
    let status = ask(&mut stream, &mut reader, r#"{"op":"status","id":1}"#);
    assert_eq!(status["ev"], "ok", "{status}");
    let reload = ask(&mut stream, &mut reader, r#"{"op":"reload","id":2}"#);
    assert_eq!((&reload["ev"], &reload["id"]), (&"ok".into(), &2.into()), "{reload}");
    let settle = ask(&mut stream, &mut reader, r#"{"op":"network","id":3,"action":"settle"}"#);
    assert_ne!(settle["code"], "limit", "{settle}");
    let listen = ask(&mut stream, &mut reader, r#"{"op":"listen","id":4,"topic":"mine"}"#);
    assert_eq!(listen["ev"], "ok", "a user with few apps has a place like any other: {listen}");
}

#[test]
fn when_even_the_places_of_those_with_few_apps_are_taken_root_administers_and_is_told_what_it_cannot() {
    let (dir, _daemon) = open_to_all();
    let socket = dir.path().join("a.sock");
    let hogs: Vec<_> = (0..6).map(|n| Hog::start(&socket, 65_530 - n, 200, 0)).collect();
    let all: usize = hogs.iter().map(|hog| hog.connections).sum();
    assert_eq!(all, limits::CLIENTS + limits::APP_PLACES.kept);
    let mut admins: Vec<_> = (0..limits::ADMIN_PLACES).map(|_| connect(dir.path())).collect();
    for (stream, reader) in &mut admins {
        assert_eq!(ask(stream, reader, r#"{"op":"status","id":1}"#)["ev"], "ok");
        assert_eq!(ask(stream, reader, r#"{"op":"reload","id":2}"#)["ev"], "ok");
        let listen = ask(stream, reader, r#"{"op":"listen","id":3,"topic":"mine"}"#);
        assert_eq!((&listen["code"], &listen["id"]), (&"limit".into(), &3.into()), "{listen}");
    }
    let (_, mut reader) = connect(dir.path());
    let refused = line(&mut reader);
    assert_eq!(refused["code"], "limit", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("of the user 0"), "{refused}");
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "and closed");
}

#[test]
fn a_user_with_all_topics_keeps_nobody_from_listening() {
    let (dir, _daemon) = open_to_all();
    let hog = Hog::start(&dir.path().join("a.sock"), 65_534, 8, 64);
    assert_eq!(hog.topics, limits::TOPICS_PER_NODE, "one alone has all topics");
    let (mut stream, mut reader) = connect(dir.path());
    for n in 0..limits::TOPIC_PLACES.few {
        let listen =
            ask(&mut stream, &mut reader, &format!(r#"{{"op":"listen","id":4,"topic":"mine-{n}"}}"#));
        assert_eq!(listen["ev"], "ok", "{listen}");
    }
    let listen = ask(&mut stream, &mut reader, r#"{"op":"listen","id":5,"topic":"one-more"}"#);
    assert_eq!(listen["code"], "limit", "{listen}");
}
