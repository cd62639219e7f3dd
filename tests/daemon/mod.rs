//! The real daemon as a process that a test starts and talks to.

// Each test file uses its part of it.
#![allow(dead_code)]
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// A running daemon, which ends with the test.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) output: BufReader<ChildStdout>,
    pub(crate) ready: String,
}

impl Daemon {
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        Self::spawn(command(dir, args))
    }

    /// Runs it, and waits until it is ready, or has ended and says nothing.
    pub(crate) fn spawn(mut command: Command) -> Self {
        // A group of its own, so that what it runs ends with it.
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        output.read_line(&mut ready).unwrap();
        Self { child, output, ready }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
        // All of the group have closed it, and with it everything else that they held.
        let _ = self.output.read_to_end(&mut Vec::new());
    }
}

pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command.env_clear().arg("--state-dir").arg(dir.join("state")).arg("--socket").arg(dir.join("a.sock"));
    command.args(["--name", "test-node", "--bind", "127.0.0.1", "--no-mdns", "--no-hello", "--log", "warn"]);
    command.args(args);
    command
}

pub(crate) fn connect(dir: &Path) -> (UnixStream, BufReader<UnixStream>) {
    let stream = UnixStream::connect(dir.join("a.sock")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let reader = BufReader::new(stream.try_clone().unwrap());
    (stream, reader)
}

pub(crate) fn line(reader: &mut impl BufRead) -> serde_json::Value {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}
