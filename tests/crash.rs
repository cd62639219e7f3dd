//! The daemon's files when it is killed at any step of a write, or when the disk takes no more. strace does both, at
//! exactly the system calls that touch a file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::daemon::{Daemon, command, connect, line};

/// The system calls that change a file or a directory, or get ready to.
const STEPS: &str = "openat,write,fsync,rename,renameat,renameat2,unlink,unlinkat,chmod,fchmodat";
/// More than any of our writes has.
const STEPS_MAX: usize = 40;

/// The daemon under strace, which does `what` to it at the system calls `calls` that touch `file` of its state directory,
/// the new content of it, or the directory.
fn traced(dir: &Path, file: &str, calls: &str, what: &str) -> Command {
    let state = dir.join("state");
    let plain = command(dir, &[]);
    let mut traced = Command::new("strace");
    traced.env_clear().env("PATH", "/usr/bin:/bin").args(["-f", "-qq", "-o"]).arg(dir.join("trace"));
    for path in [state.join(file), state.join(format!(".{file}.new")), state] {
        traced.arg("-P").arg(path);
    }
    traced.args(["-e", &format!("trace={STEPS}"), "-e", &format!("inject={calls}:{what}")]);
    traced.arg(plain.get_program()).args(plain.get_args());
    traced
}

/// Runs `at` for each system call that may be the last one, until it says that the call did not come so often. strace
/// counts each kind by itself.
fn each_step(mut at: impl FnMut(&str, &str) -> bool) {
    for call in STEPS.split(',') {
        assert!(
            (1..STEPS_MAX).any(|step| !at(call, &format!("signal=KILL:when={step}"))),
            "{call} has no end"
        );
    }
}

fn id(ready: &str) -> &str {
    ready.split(['(', ')']).nth(1).unwrap()
}

fn ask(dir: &Path, op: &str) -> Value {
    let (mut app, mut answers) = connect(dir);
    writeln!(app, "{{\"op\":{op},\"id\":1}}").unwrap();
    line(&mut answers)
}

/// The files of the state directory.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("state")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_daemon_that_is_killed_at_any_step_of_making_its_key_has_none_or_a_whole_one() {
    let (mut killed, mut key_was_there) = (0, 0);
    each_step(|call, kill| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let first = Daemon::spawn(traced(dir.path(), "identity.key", call, kill));
        let died = first.ready.is_empty();
        drop(first);
        let there = dir.path().join("state/identity.key").exists();
        let second = Daemon::start(dir.path(), &[]);
        assert!(second.ready.contains(") ready, "), "{call} {kill}");
        let made = id(&second.ready).to_owned();
        drop(second);
        assert!(files(dir.path()).iter().all(|file| !file.contains(".bad-")), "{call} {kill}");
        assert_eq!(id(&Daemon::start(dir.path(), &[]).ready), made, "{call} {kill}");
        assert!(died || there);
        killed += usize::from(died);
        key_was_there += usize::from(died && there);
        died
    });
    assert!(killed >= 7, "it was killed at {killed} steps only");
    assert!(key_was_there >= 1, "it was never killed after the key was there");
}

#[test]
fn a_key_that_is_there_outlives_a_kill_at_any_step_of_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let made = id(&Daemon::start(dir.path(), &[]).ready).to_owned();
    // An old version's file, which is rewritten where the machine has parts to bind it to.
    each_step(|call, kill| {
        let first = Daemon::spawn(traced(dir.path(), "identity.key", call, kill));
        let died = first.ready.is_empty();
        drop(first);
        assert_eq!(id(&Daemon::start(dir.path(), &[]).ready), made, "{call} {kill}");
        died
    });
}

fn join(letter: &str) -> String {
    format!(r#""network","action":"join","secret":"atonce-secret-{}a""#, letter.repeat(51))
}

fn fingerprint(answer: &Value) -> String {
    answer["network"]["fingerprint"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn a_daemon_that_is_killed_at_any_step_of_a_join_is_in_the_old_network_or_in_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let show = "\"network\",\"action\":\"show\"";
    let daemon = Daemon::start(dir.path(), &[]);
    let new = fingerprint(&ask(dir.path(), &join("c")));
    let old = fingerprint(&ask(dir.path(), &join("b")));
    drop(daemon);
    let mut seen = [0, 0];
    each_step(|call, kill| {
        let daemon = Daemon::spawn(traced(dir.path(), "network.secret", call, kill));
        let mut answer = String::new();
        if !daemon.ready.is_empty() {
            let mut app = UnixStream::connect(dir.path().join("a.sock")).unwrap();
            let _ = writeln!(app, "{{\"op\":{},\"id\":1}}", join("c"));
            let _ = BufReader::new(app).read_line(&mut answer);
        }
        drop(daemon);
        let daemon = Daemon::start(dir.path(), &[]);
        let now = fingerprint(&ask(dir.path(), show));
        assert!(now == old || now == new, "{call} {kill}: {now}");
        assert!(answer.is_empty() || now == new, "{call} {kill}: it was told {answer}");
        let died = answer.is_empty();
        seen[usize::from(now == new)] += usize::from(died);
        fingerprint(&ask(dir.path(), &join("b")));
        drop(daemon);
        died
    });
    assert!(seen[0] >= 4 && seen[1] >= 1, "{seen:?}");
}

#[test]
fn a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_anybody_relies_on_it() {
    let dir = tempfile::tempdir().unwrap();
    // The delay changes nothing.
    drop(Daemon::spawn(traced(dir.path(), "identity.key", "fsync", "delay_enter=1")));
    let trace = std::fs::read_to_string(dir.path().join("trace")).unwrap();
    let at = |what: &str| {
        trace.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}\n{trace}"))
    };
    let renamed = at("rename(");
    let synced: Vec<_> =
        trace.lines().enumerate().filter(|(_, line)| line.contains("fsync(")).map(|(n, _)| n).collect();
    assert!(at("write(") < synced[0] && synced[0] < renamed && renamed < synced[1], "{trace}");
}

#[test]
fn a_disk_that_takes_no_key_ends_the_start_with_a_word() {
    for (calls, error, word) in [
        ("write", "ENOSPC", "No space left on device"),
        ("fsync", "EIO", "Input/output error"),
        ("rename,renameat,renameat2", "EROFS", "Read-only file system"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let ended = traced(dir.path(), "identity.key", calls, &format!("error={error}")).output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(
            told.contains("a new key cannot be written to ") && told.contains(word) && told.contains("try: "),
            "{told}"
        );
        assert_eq!(files(dir.path()), ["lock"], "{error}");
    }
}

#[test]
fn a_full_disk_refuses_a_new_secret_and_the_daemon_goes_on_in_its_network() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &[]);
    let old = fingerprint(&ask(dir.path(), &join("b")));
    drop(daemon);
    let _daemon = Daemon::spawn(traced(dir.path(), "network.secret", "write", "error=ENOSPC"));
    let refused = ask(dir.path(), &join("c"));
    assert_eq!((&refused["ev"], &refused["code"]), (&json!("error"), &json!("internal")));
    assert!(refused["message"].as_str().unwrap().contains("No space left on device"), "{refused}");
    assert_eq!(fingerprint(&ask(dir.path(), "\"network\",\"action\":\"show\"")), old);
    assert!(!files(dir.path()).contains(&".network.secret.new".to_owned()));
}

#[test]
fn a_full_disk_that_keeps_no_peers_is_told_and_the_daemon_goes_on() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = Daemon::spawn(traced(dir.path(), "peers.json", "write", "error=ENOSPC"));
    let port = daemon.ready.split("udp ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let _other = Daemon::start(other.path(), &["--peer", &format!("127.0.0.1:{port}")]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let status = ask(dir.path(), "\"status\"");
        let checks = status["status"]["health"].as_array().unwrap();
        if let Some(check) = checks.iter().find(|check| check["check"] == "state-dir") {
            assert_eq!((&check["state"], &status["status"]["peers"]["online"]), (&json!("warn"), &json!(1)));
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{status}");
        std::thread::yield_now();
    }
}
