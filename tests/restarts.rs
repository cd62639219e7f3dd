//! Apps when their daemon is restarted: the real daemon, and the real command line.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};

use crate::daemon::Daemon;

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
