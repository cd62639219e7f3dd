//! Apps when their daemon is restarted: the real daemon, and the real command line.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;
mod pair;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};

use serde_json::json;

use crate::daemon::Daemon;
use crate::pair::Pair;

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
    command.arg("--socket").arg(dir.join("a.sock")).args(["--timeout", "30s"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

#[test]
fn whoever_listens_and_watches_goes_on_when_the_daemon_is_restarted_or_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(dir.path(), &[]);
    let mut listening = Running(atonce(dir.path(), &["listen", "chat", "--lines"]).spawn().unwrap());
    let mut heard = BufReader::new(listening.0.stdout.take().unwrap());
    let mut notes = BufReader::new(listening.0.stderr.take().unwrap());
    for signal in [Signal::TERM, Signal::KILL] {
        assert!(atonce(dir.path(), &["wait", "test-node/chat"]).status().unwrap().success());
        let sent = atonce(dir.path(), &["send", "test-node", "chat", "hi"]).output().unwrap();
        assert!(sent.status.success(), "{sent:?}");
        assert_eq!(line(&mut heard), "hi\n");
        kill_process(daemon.pid(), signal).unwrap();
        daemon.child.wait().unwrap();
        assert_eq!(line(&mut notes), "atonce: the daemon is gone; waiting for it to come back\n");
        daemon = Daemon::start(dir.path(), &[]);
        assert_eq!(line(&mut notes), "atonce: the daemon is back: listening again\n");
    }
    let last = atonce(dir.path(), &["send", "test-node", "chat", "still here"]).output().unwrap();
    assert!(last.status.success(), "{last:?}");
    assert_eq!(line(&mut heard), "still here\n");
    drop(daemon);
}

/// An app that listens at `one` of a pair, and has begun to.
fn listen_at_one(pair: &Pair) -> (Running, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
    command.arg("--socket").arg(pair.socket("one")).args(["listen", "chat", "--lines"]);
    let mut listening = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let heard = BufReader::new(listening.0.stdout.take().unwrap());
    (listening, heard)
}

#[test]
fn messages_that_wait_while_the_daemon_and_the_app_there_are_restarted_are_delivered_five_of_five() {
    let mut pair = Pair::start();
    let mut app = pair.app("two");
    app.ask(json!({"op": "watch"}));
    assert_eq!(app.next("enter")["peer"]["name"], "one");
    for round in 0..5 {
        let (listening, heard) = listen_at_one(&pair);
        pair.app("two").until_listening("one", "chat");
        while app.next("listen")["peer"]["name"] != "one" {}
        pair.stop_one();
        while app.next("exit")["peer"]["name"] != "one" {}
        drop((listening, heard));
        let text = format!("round {round}");
        let message = json!({"op": "send", "to": "one", "topic": "chat", "text": text, "timeout_ms": 8000});
        let id = app.begin(message);
        pair.start_one();
        // The daemon is met again before its app is even started.
        while app.next("enter")["peer"]["name"] != "one" {}
        let (_listening, mut heard) = listen_at_one(&pair);
        assert_eq!(line(&mut heard), format!("{text}\n"));
        let result = app.next("result");
        assert_eq!((result["id"].as_u64(), result["outcome"].as_str()), (Some(id), Some("delivered")));
    }
}

#[test]
fn a_message_may_wait_for_an_app_that_has_never_listened() {
    let pair = Pair::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
    command.arg("--socket").arg(pair.socket("two")).args([
        "--timeout",
        "60s",
        "send",
        "one",
        "chat",
        "hi",
        "--wait",
    ]);
    let mut sending = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut told = BufReader::new(sending.0.stdout.take().unwrap());
    // The first moments of both daemons are over.
    assert_eq!(pair.app("two").send("one", "nothing", "x"), "no-listener");
    let (_listening, mut heard) = listen_at_one(&pair);
    assert_eq!(line(&mut heard), "hi\n");
    assert!(line(&mut told).starts_with("delivered to one"));
}
