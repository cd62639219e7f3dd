//! From the start of a daemon to its authenticated session, and from app to app, on two hosts of the lab.
//!
//! `cargo bench --bench lan` prints the smallest, the median, the 95th percentile and the largest of each, beside the
//! time that merely starting the program takes, measured in the same run.
#![allow(
    missing_docs,
    dead_code,
    clippy::needless_pass_by_ref_mut,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the lab has more than it needs"
)]

#[path = "../tests/lab/cable.rs"]
mod cable;
#[path = "../tests/lab/lab.rs"]
mod lab;
#[path = "../tests/lab/lines.rs"]
mod lines;

use std::process::Command;
use std::time::{Duration, Instant};

use lab::Lab;

const STARTS: usize = 20;
const MESSAGES: usize = 200;

fn main() {
    Lab::run("lan", |lab| {
        let old = lab.host("old").daemon(&[]);
        let host = lab.host("new");
        let watch = old.start(&["--json", "watch"]);
        let (mut bare, mut joined) = (Vec::new(), Vec::new());
        let mut newcomers = Vec::new();
        for run in 0..STARTS {
            let began = Instant::now();
            assert!(
                Command::new(env!("CARGO_BIN_EXE_atonced"))
                    .arg("--version")
                    .output()
                    .unwrap()
                    .status
                    .success()
            );
            bare.push(began.elapsed());
            let name = format!("new{run}");
            let began = Instant::now();
            let newcomer = host.daemon_named(&name, &[]);
            watch.event("enter", &name);
            joined.push(began.elapsed());
            if joined[run] > Duration::from_millis(100) {
                println!("start {run} took {:?}", joined[run]);
            }
            newcomers.push(newcomer);
            if newcomers.len() > 1 {
                newcomers.remove(0).kill();
            }
        }
        let last = newcomers.pop().unwrap();
        let _listening = last.start(&["listen", "bench"]);
        old.atonce(&["wait", &format!("{}/bench", last.name)]);
        let mut sent = Vec::new();
        for _ in 0..MESSAGES {
            let result = old.json(&["send", &last.name, "bench", "x"]);
            sent.push(Duration::from_micros(result[0]["rtt_us"].as_u64().unwrap()));
        }
        println!("{:34} {:>9} {:>9} {:>9} {:>9}", "milliseconds", "min", "median", "p95", "max");
        row("starting the program only", bare);
        row("start to session seen by the other", joined);
        row("send to outcome, one at a time", sent);
        // The lab takes this for the sign that all went well.
        println!("1 passed, 0 failed");
    });
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{what:34} {:9.2} {:9.2} {:9.2} {:9.2}", at(0), at(50), at(95), at(100));
}
