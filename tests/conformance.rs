//! All clients pass the same checks: the Rust library, the Python client (asyncio and blocking) and the Node client.
//!
//! A check says what to do in the words of `conformance/driver.rs` and what has to come of it. The first test takes one
//! scenario with two real daemons from its beginning to its end; in the second one each check has a daemon of its own that
//! plays a script. Each prints a table, and fails if a cell does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "conformance/driver.rs"]
mod driver;
mod pair;
#[path = "conformance/real.rs"]
mod real;
#[path = "conformance/script.rs"]
mod script;
#[path = "conformance/scripted.rs"]
mod scripted;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::driver::Kind;

/// What the Rust client is not able to: it asks one thing at a time, and stays disconnected.
const RUST_LACKS: [&str; 8] = [
    "answers in any order",
    "a restart of the daemon",
    "a request that was open when the daemon went",
    "a daemon that is gone for longer",
    "a request and its reply",
    "a request that nobody answers",
    "a published request and its replies",
    "a reply",
];

/// What became of a check with one client.
enum Cell {
    Passed,
    Lacking,
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
                Cell::Lacking => "-",
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
fn cell(kind: Kind, name: &str, check: impl FnOnce()) -> Cell {
    if kind == Kind::Rust && RUST_LACKS.contains(&name) {
        return Cell::Lacking;
    }
    let Err(why) = catch_unwind(AssertUnwindSafe(check)) else { return Cell::Passed };
    let text = why.downcast_ref::<String>().cloned();
    Cell::Failed(
        text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default(),
    )
}
