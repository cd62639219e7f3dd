//! How members behind routers of every kind reach each other, and how soon, with the real programs in the lab.
//!
//! `cargo bench --bench nat` prints a table in Markdown: `direct` and the time from the start of the second daemon until
//! both sides said `enter`; or `relay` and the same time from the start of a third member in the open, after both sides
//! alone had told why they are apart. Below it are times of 20 runs in milliseconds. `cargo bench --bench nat -- table`
//! measures only that, with two servers; `-- one` the same with one; `-- cases` prints another table, of the cases beside the routers. The lab's internet takes no time, so what is measured is what the programs add to it.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the lab has more than it needs"
)]

mod cases;
#[path = "../../tests/lab/homes.rs"]
mod homes;
#[path = "../../tests/lab/internet.rs"]
mod internet;
#[path = "../../tests/sim/kinds.rs"]
mod kinds;
#[path = "../../tests/lab/lab.rs"]
mod lab;
#[path = "../../tests/lab/recipes.rs"]
mod recipes;
#[path = "../lan/seen.rs"]
mod seen;
#[path = "../../tests/lab/table.rs"]
mod table;
#[path = "../../tests/lab/talk.rs"]
mod talk;

use std::time::{Duration, Instant};

use homes::{Homes, await_path, await_registered};
use internet::Side;
use kinds::{KINDS, Kind};
use lab::{Daemon, Lab};
use seen::{Seen, Talk};
use table::Table;

const RUNS: usize = 20;
/// From one message to the next, where a peer is in use.
const TALK: Duration = Duration::from_millis(20);
/// A server tells its news no more often than this: so long nobody comes or goes before a run.
const QUIET: Duration = Duration::from_millis(300);

type Section = (&'static str, fn(&Lab));
const SECTIONS: [Section; 5] = [
    ("table", |lab| print_table(lab, 2)),
    ("one", |lab| print_table(lab, 1)),
    ("cases", cases::print),
    ("homes", homes),
    ("dead", dead),
];

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, section) in SECTIONS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            Lab::run(name, |lab| {
                section(lab);
                // The lab takes this for the sign that all went well.
                println!("1 passed, 0 failed");
            });
        }
    }
}

/// When both sides have said that the other entered.
fn entered([one, other]: [&Daemon; 2], [see, saw]: [&Seen; 2]) -> Instant {
    see.when("enter", &other.name).max(saw.when("enter", &one.name))
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// With so many servers.
fn print_table(lab: &Lab, servers: usize) {
    let mut table = Table::new(lab, servers);
    let mut cells = vec![vec![String::new(); KINDS.len()]; KINDS.len()];
    for cell in table.cells(true) {
        let first = table.start(&cell, 0);
        await_registered(&first);
        let watch = Seen::by(&first);
        std::thread::sleep(QUIET);
        let began = Instant::now();
        let second = table.start(&cell, 1);
        let took = entered([&first, &second], [&watch, &Seen::by(&second)]) - began;
        await_path([&first, &second], "direct");
        cells[cell.row][cell.column] = format!("direct {:.0}", milliseconds(took));
    }
    let open = table.internet.site(Side::East, Kind::OPEN);
    let host = open.host("open");
    let apart = table.pairs(false);
    for (cell, pair) in &apart {
        let why = pair.each_ref().map(|daemon| {
            daemon.await_answer(&["peers", "--all"], |peers| {
                let apart = peers.iter().find(|peer| peer["state"] == "connecting")?;
                apart["why"].as_str().filter(|why| why.contains("router")).map(str::to_owned)
            })
        });
        println!("{}: connecting, {}", cell.kinds(), why[0]);
    }
    for (cell, pair) in &apart {
        let watches = pair.each_ref().map(Seen::by);
        std::thread::sleep(QUIET);
        let began = Instant::now();
        let _third = table.daemon(host, &format!("third-{}", cell.name(0)), &cell.secret);
        let took = entered(pair.each_ref(), watches.each_ref()) - began;
        await_path(pair.each_ref(), "relay");
        cells[cell.row][cell.column] = format!("relay {:.0}", milliseconds(took));
    }
    println!("| ms | {} |", KINDS.map(|(name, _)| name).join(" | "));
    println!("|---{}|", "|---".repeat(KINDS.len()));
    for ((name, _), row) in KINDS.iter().zip(&cells) {
        println!("| {name} | {} |", row.join(" | "));
    }
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| milliseconds(took[(took.len() - 1) * part / 100]);
    println!("| {what} | {:.1} | {:.1} | {:.1} |", at(50), at(95), at(100));
}

fn head() {
    println!("| ms | median | p95 | max |\n|---|---|---|---|");
}

/// Asks for an answer to one message and returns when it came.
fn delivered(app: &Seen, to: &str) -> Instant {
    app.say(&format!(r#"{{"op":"send","id":7,"to":"{to}","topic":"bench","text":"x","timeout_ms":30000}}"#));
    let (at, result) = app.line(|line| line["id"] == 7);
    assert_eq!(result["outcome"], "delivered", "{result}");
    at
}

/// Somebody comes home and talks to somebody at another home.
fn homes(lab: &Lab) {
    let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
    let old = homes.daemon(0);
    await_registered(&old);
    let watch = Seen::by(&old);
    watch.say(r#"{"op":"listen","topic":"bench"}"#);
    let (mut both, mut first) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        std::thread::sleep(QUIET);
        let name = format!("new{run}");
        let began = Instant::now();
        let new = homes.member(1, &name);
        let app = Seen::by(&new);
        app.when("enter", "attic");
        first.push(delivered(&app, "attic") - began);
        both.push(watch.when("enter", &name).max(began) - began);
        new.stop();
        watch.when("exit", &name);
    }
    head();
    row("two homes: start to enter at the other", both);
    row("two homes: start to the first acknowledged message", first);
}

/// The direct path dies while messages flow, and a third member is there.
fn dead(lab: &Lab) {
    let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
    let (old, third) = (homes.daemon(0), homes.third(Kind::OPEN));
    let mut took = Vec::new();
    for run in 0..RUNS {
        let new = homes.member(1, &format!("new{run}"));
        for pair in [[&old, &new], [&third, &new], [&old, &third]] {
            await_path(pair, "direct");
        }
        let listener = Seen::of(&new);
        listener.say(r#"{"op":"listen","topic":"bench","id":1}"#);
        listener.line(|line| line["ev"] == "ok");
        old.atonce(&["wait", &format!("{}/bench", new.name)]);
        let app = Seen::of(&old);
        let talk = Talk::between(&old, &new.name, TALK);
        std::thread::sleep(QUIET);
        delivered(&app, &new.name);
        homes.part();
        let began = Instant::now();
        took.push(delivered(&app, &new.name) - began);
        drop(talk);
        homes.join();
        new.stop();
    }
    head();
    row("path dead to the next acknowledged message, by a relay", took);
}
