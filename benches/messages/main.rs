//! Messages from app to app: through one daemon, and through two of them and a network, in both modes of the socket.
//!
//! `cargo bench --bench messages` prints for each size of message how many a second arrive, and how long a message and its
//! acknowledgement take, each beside the same bytes without any daemon, measured in the same run: through a Unix socket
//! (in the same batches) for one daemon; for two of them in clear text, 64 and 1200 bytes by UDP, a system call each,
//! larger ones by TCP. `-- hop` and `-- way` measure one of both. All share the processors of this machine.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::needless_pass_by_ref_mut,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the lab has more than it needs"
)]

mod app;
#[path = "../../tests/lab/lab.rs"]
mod lab;
mod raw;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use app::{Answer, Answers, Mode, Speech};
use lab::{Daemon, Host, Lab};

const SIZES: [usize; 4] = [64, 1200, 16_000, 61_440];
/// Each figure is the median of so many runs, which take turns with the baseline.
const RUNS: usize = 3;
/// Bytes of payload in a run, about; of the smallest messages less.
const RUN_BYTES: usize = 60_000_000;
const RUN_MESSAGES: usize = 300_000;
const TRIPS: usize = 2000;
/// Acknowledged messages under way, and bytes of them: half of what a daemon takes from an app.
const WINDOW: usize = 512;
const WINDOW_BYTES: usize = 512 << 10;
/// Who hears nothing for so long has heard all.
const SILENCE: Duration = Duration::from_millis(500);

fn main() {
    if raw::play() {
        return;
    }
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, section) in [("hop", hop as fn(&Lab)), ("way", way)] {
        if words.is_empty() || words.iter().any(|word| word == name) {
            Lab::run(name, |lab| {
                section(lab);
                // The lab takes this for the sign that all went well.
                println!("1 passed, 0 failed");
            });
        }
    }
}

/// Two apps of one daemon.
fn hop(lab: &Lab) {
    let daemon = lab.host("attic").daemon(&[]);
    rates("one daemon", [&daemon, &daemon], |speech, _| {
        let (batch, in_a_batch) = speech.batch(usize::MAX);
        raw::unix(&batch, in_a_batch, messages(speech.message().len()) / in_a_batch)
    });
    round_trips("one daemon", [&daemon, &daemon], raw::unix_trips(TRIPS));
}

/// Two apps of two daemons on two hosts.
fn way(lab: &Lab) {
    let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
    let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
    attic.atonce(&["wait", "kitchen"]);
    rates("two daemons", [&attic, &kitchen], |_, payload| between(hosts, payload));
    let echo = played(hosts[1], "udp-echo");
    let trips = output(hosts[0], &format!("udp-trips {} {TRIPS}", hosts[1].ip()));
    drop(echo);
    round_trips("two daemons", [&attic, &kitchen], trips.iter().map(|line| line.parse().unwrap()).collect());
}

/// How many messages of such a size make a run.
const fn messages(bytes: usize) -> usize {
    let count = RUN_BYTES / bytes;
    if count > RUN_MESSAGES { RUN_MESSAGES } else { count }
}

fn rates(what: &str, daemons: [&Daemon; 2], baseline: impl Fn(&Speech, usize) -> f64) {
    println!(
        "{what:12} {:7} {:>6} {:>9} {:>11} {:>9} {:>8}",
        "mode", "ack", "bytes", "messages/s", "Gbit/s", "ratio"
    );
    for payload in SIZES {
        for (name, mode) in [("json", Mode::Json), ("binary", Mode::Binary)] {
            for ack in [false, true] {
                let speech = Speech::new(mode, &daemons[1].name, payload, ack);
                let (mut ours, mut theirs, mut parts) = (Vec::new(), Vec::new(), Vec::new());
                for _ in 0..RUNS {
                    theirs.push(baseline(&speech, payload));
                    let (rate, part) = rate(&speech, daemons, messages(payload));
                    ours.push(rate);
                    parts.push(part * 100.0);
                }
                let [ours, theirs, part] = [&mut ours, &mut theirs, &mut parts].map(|all| median(all));
                println!(
                    "{:12} {name:7} {:>6} {payload:>9} {ours:>11.0} {:>9.2} {part:>9.0} {:>8.3}",
                    "",
                    if ack { "yes" } else { "no" },
                    ours * payload as f64 * 8.0 / 1e9,
                    ours / theirs
                );
            }
        }
    }
}

/// Messages a second that arrive, and which part of them that is: an app that reads too slowly is refused the rest. Of
/// acknowledged ones a limited number is under way.
fn rate(speech: &Speech, daemons: [&Daemon; 2], count: usize) -> (f64, f64) {
    let mut receiver = speech.connect(&daemons[1].socket, true);
    daemons[0].atonce(&["wait", &format!("{}/bench", daemons[1].name)]);
    let mut sender = speech.connect(&daemons[0].socket, false);
    let window = (WINDOW_BYTES / speech.message().len()).min(WINDOW);
    let (batch, in_a_batch) = speech.batch(window.div_ceil(2));
    let batches = (count / in_a_batch).max(2);
    let count = batches * in_a_batch;
    let mut results = sender.try_clone().unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let (answered, more) = (Mutex::new(0), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..batches {
                let fits = |answered: &mut usize| n * in_a_batch + in_a_batch > *answered + window;
                if speech.is_acknowledged() {
                    drop(more.wait_while(answered.lock().unwrap(), fits).unwrap());
                }
                sender.write_all(&batch).unwrap();
            }
        });
        if speech.is_acknowledged() {
            scope.spawn(|| {
                let mut seen = 0;
                Answers::new(speech.mode).each(&mut results, |answer| {
                    seen += usize::from(matches!(answer, Answer::Delivered | Answer::Refused));
                    *answered.lock().unwrap() = seen;
                    more.notify_one();
                    seen < count
                });
            });
        }
        let (mut seen, mut first, mut last) = (0, None, Instant::now());
        Answers::new(speech.mode).each(&mut receiver, |answer| {
            if answer == Answer::Message {
                seen += 1;
                if seen == 1 || seen % 64 == 0 || speech.payload() > 1000 {
                    last = Instant::now();
                    first.get_or_insert(last);
                }
            }
            seen < count
        });
        let took = last - first.expect("something arrives");
        ((seen - 1) as f64 / took.as_secs_f64(), seen as f64 / count as f64)
    })
}

fn round_trips(what: &str, daemons: [&Daemon; 2], mut baseline: Vec<f64>) {
    println!("{what:12} {:7} {:>9} {:>9} {:>9}", "mode", "p50 us", "p99 us", "ratio");
    baseline.sort_by(f64::total_cmp);
    let at = |sorted: &[f64], percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    println!("{:12} {:7} {:>9.0} {:>9.0}", "", "none", at(&baseline, 50), at(&baseline, 99));
    for (name, mode) in [("json", Mode::Json), ("binary", Mode::Binary)] {
        let speech = Speech::new(mode, &daemons[1].name, 64, true);
        let receiver = speech.connect(&daemons[1].socket, true);
        daemons[0].atonce(&["wait", &format!("{}/bench", daemons[1].name)]);
        let mut sender = speech.connect(&daemons[0].socket, false);
        // Read all the time, and not looked at.
        let mut reading = receiver.try_clone().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
        let (message, mut answers) = (speech.message(), Answers::new(mode));
        let mut trips = raw::trips(TRIPS, || {
            sender.write_all(&message).unwrap();
            answers.until(&mut sender, 1, |it| it == Answer::Delivered);
        });
        receiver.shutdown(std::net::Shutdown::Both).unwrap();
        let _ = reader.join();
        trips.sort_by(f64::total_cmp);
        let (p50, p99) = (at(&trips, 50), at(&trips, 99));
        println!("{:12} {name:7} {p50:>9.0} {p99:>9.0} {:>9.2}", "", p50 / at(&baseline, 50));
    }
}

/// Messages a second from host to host, in clear text.
fn between(hosts: [Host; 2], payload: usize) -> f64 {
    let protocol = if payload <= 1400 { "udp" } else { "tcp" };
    let receiver = played(hosts[1], &format!("{protocol}-receive"));
    output(hosts[0], &format!("{protocol}-send {} {payload} {}", hosts[1].ip(), messages(payload)));
    let figure: f64 = receiver.rest().pop().unwrap().parse().unwrap();
    if protocol == "udp" { figure } else { figure / payload as f64 }
}

/// A part of a baseline on a host, that is ready.
fn played(host: Host, role: &str) -> lab::Program {
    let mut command = host.command(std::env::current_exe().unwrap());
    command.env(raw::ROLE, role);
    let program = lab::Program::start(command, role.to_owned());
    program.line(|line| line == "ready");
    program
}

fn output(host: Host, role: &str) -> Vec<String> {
    let mut command: Command = host.command(std::env::current_exe().unwrap());
    let output = command.env(raw::ROLE, role).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{role}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
