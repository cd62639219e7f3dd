//! Questions, replies and measurements between real daemons, by the real command line.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;

/// Two daemons that know each other, "one" and "two".
struct Pair {
    one: PathBuf,
    two: PathBuf,
    _daemons: [Daemon; 2],
    _directory: TempDir,
}

impl Pair {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let first = start(&one, "one", &[]);
        let (_, port) = first.ready.split_once(" udp ").unwrap();
        let (port, _) = port.split_once(',').unwrap();
        let second = start(&two, "two", &["--peer", &format!("127.0.0.1:{port}")]);
        let pair = Self { one, two, _daemons: [first, second], _directory: directory };
        assert!(atonce(&pair.one, &["wait", "two"]).status().unwrap().success());
        assert!(atonce(&pair.two, &["wait", "one"]).status().unwrap().success());
        pair
    }

    /// What `command` writes is the reply of that node to a topic, from the time on when the other one knows of it.
    fn answers(&self, node: &str, topic: &str, command: &str) -> Running {
        let (own, other) = if node == "one" { (&self.one, &self.two) } else { (&self.two, &self.one) };
        let running = Running(atonce(own, &["listen", topic, "--exec", command, "--reply"]).spawn().unwrap());
        assert!(atonce(other, &["wait", &format!("{node}/{topic}")]).status().unwrap().success());
        running
    }
}

fn start(dir: &Path, name: &str, arguments: &[&str]) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command.env_clear().arg("--state-dir").arg(dir).arg("--socket").arg(dir.join("a.sock"));
    command.args(["--name", name, "--bind", "127.0.0.1", "--port", "0", "--no-mdns", "--no-hello"]);
    command.args(["--log", "warn"]).args(arguments);
    Daemon::spawn(command)
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn atonce(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
    command.arg("--socket").arg(dir.join("a.sock")).args(arguments);
    if !arguments.contains(&"--timeout") {
        command.args(["--timeout", "30s"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = atonce(dir, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_program_of_the_shell_replies_to_a_question_from_another_host() {
    let pair = Pair::new();
    let _two = pair.answers("two", "load", "printf '%s for %s' \"$(cat)\" \"$ATONCE_FROM\"");
    for question in ["now", "then"] {
        let (code, reply, notes) = run(&pair.one, &["request", "two", "load", question]);
        assert_eq!((code, reply), (Some(0), format!("{question} for one\n")), "{notes}");
    }
}

#[test]
fn a_question_to_all_is_answered_by_every_listener_this_nodes_included() {
    let pair = Pair::new();
    let _one = pair.answers("one", "load", "echo 1");
    let _two = pair.answers("two", "load", "echo 2");
    let (code, replies, notes) =
        run(&pair.one, &["request", "--all", "load", "-n", "2", "--for", "30s", "?"]);
    let mut replies: Vec<_> = replies.lines().collect();
    replies.sort_unstable();
    assert_eq!((code, replies), (Some(0), vec!["one> 1", "two> 2"]), "{notes}");
}

#[test]
fn a_question_that_nobody_answers_ends_with_its_time_and_one_that_nobody_hears_at_once() {
    let pair = Pair::new();
    let (code, _, notes) = run(&pair.one, &["request", "two", "load", "?"]);
    assert_eq!(code, Some(8), "{notes}");
    for to_all in [&["request", "--all", "load", "?"][..], &["publish", "--ack", "load", "?"]] {
        let (code, _, notes) = run(&pair.one, to_all);
        assert_eq!(code, Some(8), "{notes}");
        assert!(notes.starts_with("atonce: nobody listens to load now\n"), "{notes}");
    }
    let (code, _, notes) = run(&pair.one, &["wait", "two/load", "--timeout", "500ms"]);
    assert_eq!(code, Some(5), "{notes}");
    assert!(notes.starts_with("atonce: nobody listened to load on two within 500ms\n"), "{notes}");
    let _one = pair.answers("one", "load", "exit 1");
    let (code, _, notes) = run(&pair.one, &["request", "--all", "load", "?", "--for", "300ms"]);
    assert_eq!(code, Some(5), "{notes}");
    assert!(notes.starts_with("atonce: nobody replied within 300ms\n"), "{notes}");
    let _two = pair.answers("two", "load", "exit 1");
    let (code, _, notes) = run(&pair.one, &["request", "two", "load", "?", "--timeout", "500ms"]);
    assert_eq!(code, Some(5), "{notes}");
    assert!(notes.starts_with("atonce: no reply from two within 500ms\n"), "{notes}");
}

#[test]
fn every_daemon_can_be_measured_and_no_app_takes_its_place() {
    let pair = Pair::new();
    let (code, told, notes) = run(&pair.one, &["bench", "two", "--for", "200ms", "--size", "64", "--json"]);
    assert_eq!(code, Some(0), "{notes}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["ev"], &told["peer"]["name"]), (&"bench".into(), &"two".into()));
    assert!(told["delivered"].as_u64().unwrap() > 0 && told["rtt_us"]["p50"].is_u64(), "{told}");
    let (code, _, notes) = run(&pair.two, &["listen", "atonce.discard", "-n", "1"]);
    assert_eq!(code, Some(2), "{notes}");
    let (_, peers, _) = run(&pair.one, &["peers"]);
    assert!(!peers.contains("atonce.discard"), "{peers}");
}
