//! All clients pass the same checks: the Rust library, the Python client (asyncio and blocking) and the Node client.
//!
//! A check says what to do in the words of `conformance/driver.rs` and what has to come of it. The first test takes one
//! scenario with two real daemons from its beginning to its end; in the second one each check has a daemon of its own that
//! plays a script. Each prints a table, and fails if a cell does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "the table is for those who look")]

#[path = "conformance/driver.rs"]
mod driver;
mod pair;
#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/script.rs"]
mod script;
#[path = "conformance/scripted.rs"]
mod scripted;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::driver::Kind;

/// What became of a check with one client.
enum Cell {
    Passed,
    Failed(String),
}

/// The checks of one client.
type Column = Vec<Cell>;

#[test]
fn every_client_passes_the_scenario_with_two_daemons() {
    table(&real::CHECKS.map(|(name, _)| name), real::column);
}

#[test]
fn every_client_copes_with_what_a_daemon_may_say() {
    table(&script::CHECKS.map(|(name, _)| name), script::column);
}

#[test]
fn threads_may_share_the_blocking_client() {
    let pair = pair::Pair::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/threads.py");
    let mut python = Command::new("python3");
    let output =
        python.args(["-B", "-W", "error"]).arg(script).env("ATONCE_SOCKET", pair.socket("one")).output();
    let output = output.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Anybody may make the directory in `/tmp` first, or a link to what is another one's.
#[test]
fn what_another_user_put_there_is_not_taken_for_the_daemons() {
    // A /tmp of its own, in which the build is still to be found if it lies there.
    let mounts = "mount -t tmpfs none /run && mount --rbind /tmp /mnt && mount -t tmpfs -o mode=1777 none /tmp && \
         for at in \"$SOURCES\" \"$BUILD\"; do \
           case $at in /tmp/*) mkdir -p \"$at\" && mount --bind \"/mnt${at#/tmp}\" \"$at\" ;; esac; \
         done";
    let sources = env!("CARGO_MANIFEST_DIR");
    let build = Path::new(env!("CARGO_BIN_EXE_atonce")).parent().unwrap();
    let long = "x".repeat(108);
    let cases = [
        ("mkdir /tmp/atonce-0 && chown 1234 /tmp/atonce-0", "", "/tmp/atonce-0 belongs to another user"),
        ("ln -s . /tmp/atonce-0 && chown -h 1234 /tmp/atonce-0", "", "/tmp/atonce-0 belongs to another user"),
        (
            "mkdir -m 777 /tmp/atonce-0 && touch /tmp/atonce-0/atonced.sock",
            "",
            "others may write to /tmp/atonce-0",
        ),
        (
            "mkdir -m 700 /tmp/own && mkdir /tmp/other && ln -s /tmp/own /tmp/link && chown -h 1234 /tmp/link",
            "/tmp/link/s",
            "/tmp/link is a link that belongs to another user",
        ),
        ("true", &long, "its path has 108 bytes, and the system takes at most 107"),
    ];
    let shell = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/shell/when-here.sh");
    let mut commands: Vec<Vec<OsString>> = Kind::ALL.into_iter().filter_map(driver::program).collect();
    commands.push(vec![env!("CARGO_BIN_EXE_atonce").into(), "status".into()]);
    commands.push(vec![shell.into(), "one".into(), "true".into()]);
    for (prepare, socket, why) in cases {
        let script = format!("{mounts} && {prepare} && exec \"$@\"");
        // The example in shell looks at its usual directory only.
        for command in commands.iter().take(commands.len() - usize::from(!socket.is_empty())) {
            let mut unshare = Command::new("unshare");
            unshare.env("ATONCE_SOCKET", socket).env("XDG_RUNTIME_DIR", "").stdin(Stdio::null());
            unshare.env("SOURCES", sources).env("BUILD", build);
            let output = unshare.args(["--mount", "sh", "-c", &script, "sh"]).args(command).output().unwrap();
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(told.contains(why), "{command:?}: {told}");
        }
    }
}

/// Runs all clients at once, prints a row for each check, and fails if a cell does.
fn table(rows: &[&str], column: fn(Kind) -> Column) {
    let threads = Kind::ALL.map(|kind| std::thread::spawn(move || column(kind)));
    let columns = threads.map(|thread| thread.join().expect("a column has all its cells"));
    let width = rows.iter().map(|row| row.len()).max().unwrap_or_default();
    let heads: String = Kind::ALL.iter().map(|kind| format!("  {:>16}", kind.name())).collect();
    println!("{:width$}{heads}", "");
    let mut failures = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut shown = String::new();
        for (kind, column) in Kind::ALL.iter().zip(&columns) {
            let word = match &column[number] {
                Cell::Passed => "ok",
                Cell::Failed(why) => {
                    failures.push(format!("{row}: {}: {why}", kind.name()));
                    "FAILED"
                }
            };
            shown.push_str(&format!("  {word:>16}"));
        }
        println!("{row:width$}{shown}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Runs one check.
fn cell(check: impl FnOnce()) -> Cell {
    let Err(why) = catch_unwind(AssertUnwindSafe(check)) else { return Cell::Passed };
    let text = why.downcast_ref::<String>().cloned();
    Cell::Failed(
        text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
    )
}
