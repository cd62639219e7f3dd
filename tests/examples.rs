//! The examples run: each rings the bell of the other.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rust_doorbell() -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_atonced")).parent().unwrap().join("examples/doorbell");
    assert!(built.exists(), "cargo builds the examples with the tests");
    Command::new(built)
}

fn python_doorbell() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/doorbell.py"));
    command
}

fn first_line(running: &mut Running) -> String {
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line
}

fn daemon(dir: &Path) -> (Running, PathBuf) {
    let socket = dir.join("atonced.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_atonced"));
    command.args(["--name", "hall", "--bind", "127.0.0.1", "--no-mdns", "--no-hello", "--log", "warn"]);
    command.arg("--state-dir").arg(dir).arg("--socket").arg(&socket);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    assert!(first_line(&mut running).contains("ready"));
    (running, socket)
}

/// Rings until the bell is heard: the one who waits does not say when it listens.
fn rings(mut waiting: Command, ringing: impl Fn() -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, socket) = daemon(dir.path());
    let mut bell = waiting.env("ATONCE_SOCKET", &socket).stdout(Stdio::piped()).spawn().map(Running).unwrap();
    let heard = std::thread::spawn(move || first_line(&mut bell));
    for _ in 0..20 {
        let rung = ringing().args(["ring", "the post"]).env("ATONCE_SOCKET", &socket).output().unwrap();
        assert!(rung.status.success(), "{rung:?}");
        if heard.is_finished() {
            break;
        }
    }
    let line = heard.join().unwrap();
    assert!(line.contains("ding dong") && line.contains("the post") && line.contains("hall"), "{line}");
}

#[test]
fn the_lines_of_the_readme_answer_a_message() {
    let readme = include_str!("../README.md");
    let (_, program) = readme.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, socket) = daemon(dir.path());
    let atonce = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atonce"));
        command.arg("--socket").arg(&socket).args(["--timeout", "30s"]).args(args);
        command
    };
    let mut python = Command::new("python3");
    let _python = Running(python.args(["-c", program]).arg(&socket).stdout(Stdio::null()).spawn().unwrap());
    let listening = atonce(&["listen", "-n", "1", "chat.answer"]).stdout(Stdio::piped()).spawn();
    let mut listening = Running(listening.unwrap());
    for topic in ["hall/chat", "hall/chat.answer"] {
        assert!(atonce(&["wait", topic]).status().unwrap().success());
    }
    assert!(atonce(&["send", "hall", "chat", "dinner"]).output().unwrap().status.success());
    assert!(first_line(&mut listening).ends_with(" hall> coming\n"));
}

#[test]
fn the_rust_doorbell_rings_the_python_one() {
    rings(python_doorbell(), rust_doorbell);
}

#[test]
fn the_python_doorbell_rings_the_rust_one() {
    rings(rust_doorbell(), python_doorbell);
}
