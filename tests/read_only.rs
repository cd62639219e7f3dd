//! Both daemons where nothing can be written: a root that was made read-only, a full disk.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod daemon;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::{Daemon, command, connect, line};

/// Makes the directory `$0` read-only, for the program that follows.
const READ_ONLY: &str = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
/// Gives the directory `$0` a disk of its own, with what was in it, that is full before the program starts.
const FULL: &str = r#"mkdir "$0/../kept" && cp "$0"/* "$0/../kept" 2>/dev/null; mount -t tmpfs -o size=64k,mode=700 tmpfs "$0" && \
  cp "$0"/../kept/* "$0" 2>/dev/null; rm -r "$0/../kept"; cat /dev/zero >"$0/full" 2>/dev/null; exec "$@""#;

/// The same program, started in mounts of its own by a line of shell.
fn within(script: &str, dir: &Path, program: &Command) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--", "/bin/sh", "-c", script]).arg(dir).arg(program.get_program());
    unshare.args(program.get_args()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    unshare
}

fn id(daemon: &Daemon) -> String {
    let id = daemon.ready.split(['(', ')']).nth(1);
    id.unwrap_or_else(|| panic!("it is not ready: {:?}", daemon.ready)).to_owned()
}

fn failed(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

fn ask(dir: &Path, request: &str) -> serde_json::Value {
    let (mut app, mut answers) = connect(dir);
    writeln!(app, "{request}").unwrap();
    line(&mut answers)
}

#[test]
fn where_nothing_can_be_written_it_serves_with_its_key_and_says_that_nothing_is_remembered() {
    for script in [READ_ONLY, FULL] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = id(&Daemon::start(dir.path(), &[]));
        let daemon = Daemon::spawn(within(script, &state, &command(dir.path(), &[])));
        assert_eq!(id(&daemon), first);
        let status = ask(dir.path(), r#"{"op":"status","id":1}"#);
        let checks = status["status"]["health"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == "state-dir").unwrap();
        assert_eq!(check["state"], "warn", "{check}");
        assert!(check["why"].as_str().unwrap().contains("nothing is remembered"), "{check}");
        let join = format!(
            r#"{{"op":"network","action":"join","secret":"atonce-secret-{}","id":1}}"#,
            "a".repeat(52)
        );
        let refused = ask(dir.path(), &join);
        assert!(refused["message"].as_str().unwrap().starts_with("cannot write "), "{refused}");
        let open = ask(dir.path(), r#"{"op":"network","action":"leave","id":1}"#);
        assert_eq!(open["network"]["kind"], "open", "nothing is to be removed: {open}");
    }
}

#[test]
fn two_daemons_are_kept_apart_where_nothing_can_be_written() {
    for has_lock_file in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        drop(Daemon::start(dir.path(), &[]));
        if !has_lock_file {
            fs::remove_file(state.join("lock")).unwrap();
        }
        let daemon = Daemon::spawn(within(READ_ONLY, &state, &command(dir.path(), &[])));
        id(&daemon);
        let again = || failed(within(READ_ONLY, &state, &command(dir.path(), &[])));
        assert!(again().starts_with("atonced: the state directory "), "{}", again());
        // And by its other way, which is still writable.
        let error = failed(command(dir.path(), &[]));
        assert!(error.starts_with("atonced: the state directory "), "{error}");
    }
}

#[test]
fn without_a_key_and_a_place_for_one_it_does_not_start_and_says_why() {
    for script in [READ_ONLY, FULL] {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let error = failed(within(script, &state, &command(dir.path(), &[])));
        let told =
            format!("atonced: there is no key in {}, and a new key cannot be written to ", state.display());
        assert!(error.contains(&told) && error.contains("\ntry: start once while"), "{error}");
    }
}

#[test]
fn a_rendezvous_server_serves_with_its_key_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut server = Command::new(env!("CARGO_BIN_EXE_atonce-rendezvous"));
    server.arg("--state-dir").arg(&state).args(["--bind", "127.0.0.1:0"]);
    fs::create_dir(&state).unwrap();
    let error = failed(within(READ_ONLY, &state, &server));
    assert!(error.contains("atonce-rendezvous: there is no key in "), "{error}");

    let mut first = Command::new(server.get_program());
    let first = Daemon::spawn({
        first.args(server.get_args());
        first
    });
    let key = |daemon: &Daemon| daemon.ready.trim().split('#').nth(1).unwrap_or_default().to_owned();
    let known = key(&first);
    assert_eq!(known.len(), 52, "{}", first.ready);
    drop(first);
    for script in [READ_ONLY, FULL] {
        assert_eq!(key(&Daemon::spawn(within(script, &state, &server))), known);
    }
}
