//! What people wait for on a LAN, measured with the real programs on hosts of the lab.
//!
//! `cargo bench --bench lan` prints the smallest, the median, the 95th percentile and the largest of 20 runs of each, in
//! milliseconds, beside the time that merely starting the program takes; `cargo bench --bench lan -- two quiet` measures
//! only those sections. All hosts share the processors of this machine.
#![allow(
    missing_docs,
    dead_code,
    clippy::needless_pass_by_ref_mut,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the lab has more than it needs"
)]

#[path = "../../tests/lab/lab.rs"]
mod lab;
mod seen;

use std::process::Command;
use std::time::{Duration, Instant};

use lab::cable::Lan;
use lab::{Daemon, Host, Lab};
use seen::{Seen, Talk};

const RUNS: usize = 20;
const MESSAGES: usize = 200;
/// From one message to the next, where a peer is in use.
const TALK: Duration = Duration::from_millis(100);
/// What is measured together, in a lab of its own.
type Section = (&'static str, fn(&Lab));

const SECTIONS: [Section; 6] = [
    ("two", two),
    ("lost", lost),
    ("moved", moved),
    ("parted", parted),
    ("twenty", twenty),
    ("quiet", quiet),
];
const NAMES: [&str; 20] = [
    "h01", "h02", "h03", "h04", "h05", "h06", "h07", "h08", "h09", "h10", "h11", "h12", "h13", "h14", "h15",
    "h16", "h17", "h18", "h19", "h20",
];

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    for (name, section) in SECTIONS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            Lab::run(name, |lab| {
                println!("{:44} {:>9} {:>9} {:>9} {:>9}", name, "min", "median", "p95", "max");
                section(lab);
                // The lab takes this for the sign that all went well.
                println!("1 passed, 0 failed");
            });
        }
    }
}

/// Two hosts: one comes, talks, and goes.
fn two(lab: &Lab) {
    let old = lab.host("old").daemon(&[]);
    let host = lab.host("new");
    let watch = Seen::by(&old);
    let (mut bare, mut joined, mut left, mut talked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        bare.push(time_of_starting_alone());
        let name = format!("new{run}");
        let began = Instant::now();
        let new = host.daemon_named(&name, &[]);
        let seen = Seen::by(&new);
        joined.push(seen.when("enter", "old").max(watch.when("enter", &name)) - began);
        if run == 0 {
            seen.say(r#"{"op":"listen","topic":"bench"}"#);
            watch.when("listen", &name);
            let app = Seen::of(&old);
            for id in 0..MESSAGES {
                let began = Instant::now();
                app.say(&format!(r#"{{"op":"send","id":{id},"to":"{name}","topic":"bench","text":"x"}}"#));
                talked.push(seen.line(|line| line["ev"] == "message").0 - began);
            }
        }
        let began = Instant::now();
        new.stop();
        left.push(watch.when("exit", &name) - began);
    }
    row("starting the program only", bare);
    row("start to session, both directions", joined);
    row("a message, from app to app", talked);
    row("stop to exit at the other", left);
}

/// One of two goes without a word: killed, or cut off behind the switch.
fn lost(lab: &Lab) {
    let (there, here) = (lab.bare_host("there"), lab.host("here").daemon(&[]));
    let cable = lab.plug(there, Lan::FIRST, "eth0");
    cable.give(&there.ip());
    let watch = Seen::by(&here);
    for (what, in_use, kill) in [
        ("kill -9 to exit, in use", true, true),
        ("kill -9 to exit, idle", false, true),
        ("cable cut to exit, in use", true, false),
        ("cable cut to exit, idle", false, false),
    ] {
        let mut took = Vec::new();
        for run in 0..RUNS {
            let name = format!("{}{run}", what.replace([' ', ',', '-'], ""));
            let daemon = there.daemon_named(&name, &[]);
            watch.when("enter", &name);
            let talk = in_use.then(|| Talk::between(&here, &name, TALK));
            // At another moment of the ring's round each time.
            std::thread::sleep(Duration::from_millis(1000 + 131 * run as u64));
            let began = Instant::now();
            if kill {
                daemon.kill();
                took.push(watch.when("exit", &name) - began);
            } else {
                cable.cut();
                took.push(watch.when("exit", &name) - began);
                cable.mend();
                daemon.kill();
            }
            drop(talk);
        }
        row(what, took);
    }
}

/// One of two gets another address.
fn moved(lab: &Lab) {
    let (there, here) = (lab.bare_host("there"), lab.host("here").daemon(&[]));
    let cable = lab.plug(there, Lan::FIRST, "eth0");
    cable.give("10.77.0.100");
    let daemon = there.daemon(&[]);
    let (seen, app) = (Seen::by(&daemon), Seen::of(&here));
    seen.when("enter", "here");
    seen.say(r#"{"op":"listen","topic":"bench"}"#);
    Seen::by(&here).when("listen", "there");
    let mut took = Vec::new();
    for run in 0..RUNS {
        let talk = Talk::between(&here, "there", TALK);
        std::thread::sleep(Duration::from_millis(1000));
        drop(talk);
        let (old, new) = (format!("10.77.0.{}", 100 + run), format!("10.77.0.{}", 101 + run));
        cable.take(&old);
        cable.give(&new);
        let began = Instant::now();
        app.say(&format!(r#"{{"op":"send","id":{run},"to":"there","topic":"bench","text":"moved {run}"}}"#));
        took.push(seen.line(|line| line["text"] == format!("moved {run}")).0 - began);
    }
    row("change of address to the next message", took);
}

/// Two of three are parted, and the third goes on seeing both.
fn parted(lab: &Lab) {
    let hosts = ["one", "two", "three"].map(|name| lab.host(name));
    let daemons = hosts.map(|host| host.daemon(&[]));
    let seen = [0, 1, 2].map(|host| Seen::by(&daemons[host]));
    seen[0].when("enter", "two");
    seen[1].when("enter", "one");
    let other = |host: usize| hosts[1 - host];
    let mut took = Vec::new();
    for _ in 0..RUNS {
        for host in [0, 1] {
            let mac = other(host).mac().map(|byte| format!("{byte:02x}")).join(":");
            hosts[host].filter(&[&format!("input ether saddr {mac} drop")]);
        }
        seen[0].when("exit", "two");
        seen[1].when("exit", "one");
        std::thread::sleep(Duration::from_secs(5));
        let began = Instant::now();
        for host in [0, 1] {
            hosts[host].sh("nft delete table inet lab");
        }
        took.push(seen[0].when("enter", "two").max(seen[1].when("enter", "one")) - began);
    }
    row("healed partition to whole again", took);
}

/// Twenty hosts: the last one comes and goes, and all start together.
fn twenty(lab: &Lab) {
    let hosts = NAMES.map(|name| lab.host(name));
    let (last, others) = hosts.split_last().unwrap();
    let daemons: Vec<Daemon> = others.iter().map(|host| host.daemon(&[])).collect();
    let seen: Vec<Seen> = daemons.iter().map(Seen::by).collect();
    std::thread::sleep(Duration::from_secs(3));
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let name = format!("last{run}");
        let began = Instant::now();
        let daemon = last.daemon_named(&name, &[]);
        let there = seen.iter().map(|seen| seen.when("enter", &name)).max().unwrap();
        let here = Seen::by(&daemon);
        let here = (0..others.len()).map(|_| here.line(|line| line["ev"] == "enter").0).max().unwrap();
        joined.push(there.max(here) - began);
        let began = Instant::now();
        daemon.stop();
        left.push(seen.iter().map(|seen| seen.when("exit", &name)).max().unwrap() - began);
    }
    row("start to session with 19, both directions", joined);
    row("stop to exit at all 19", left);
    drop(seen);
    daemons.into_iter().for_each(Daemon::stop);

    let mut together = Vec::new();
    for run in 0..RUNS {
        let began = Instant::now();
        let daemons = start_together(&hosts, run);
        let last = daemons.iter().map(|daemon| {
            let seen = Seen::by(daemon);
            (1..hosts.len()).map(|_| seen.line(|line| line["ev"] == "enter").0).max().unwrap()
        });
        together.push(last.max().unwrap() - began);
        daemons.into_iter().for_each(Daemon::kill);
    }
    row("start of 20 together to full mesh", together);
}

fn start_together(hosts: &[Host], run: usize) -> Vec<Daemon> {
    std::thread::scope(|scope| {
        let start = |host: Host| scope.spawn(move || host.daemon_named(&format!("{}r{run}", host.name), &[]));
        let threads: Vec<_> = hosts.iter().map(|host| start(*host)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Twenty hosts that do nothing for a minute.
fn quiet(lab: &Lab) {
    let daemons = NAMES.map(|name| lab.host(name).daemon(&[]));
    std::thread::sleep(Duration::from_secs(20));
    let processor = || daemons.iter().map(processor_time).collect::<Vec<_>>();
    let (before, capture) = (processor(), lab.capture());
    std::thread::sleep(Duration::from_secs(60));
    let frames = capture.frames();
    let multicast = frames.iter().filter(|frame| frame.0[0] & 1 == 1 && frame.is_udp()).count();
    let udp = frames.iter().filter(|frame| frame.is_udp()).count();
    row(
        "processor a minute",
        processor().into_iter().zip(before).map(|(now, before)| now - before).collect(),
    );
    let memory: Vec<u64> = daemons.iter().map(Daemon::memory).collect();
    println!(
        "packets a minute on the whole LAN: {udp}, of them multicast {multicast}; with ARP and all {}",
        frames.len()
    );
    println!(
        "resident memory of a daemon: {} to {} kB",
        memory.iter().min().unwrap(),
        memory.iter().max().unwrap()
    );
}

/// How long the threads of the daemon have had a processor.
fn processor_time(daemon: &Daemon) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let of_one = |thread: std::io::Result<std::fs::DirEntry>| {
        let times = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        Duration::from_nanos(times.split_whitespace().next().unwrap().parse().unwrap())
    };
    threads.map(of_one).sum()
}

fn time_of_starting_alone() -> Duration {
    let began = Instant::now();
    let version = Command::new(env!("CARGO_BIN_EXE_atonced")).arg("--version").output().unwrap();
    assert!(version.status.success());
    began.elapsed()
}

fn row(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{what:44} {:9.2} {:9.2} {:9.2} {:9.2}", at(0), at(50), at(95), at(100));
}
