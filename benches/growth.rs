//! What one node costs as its network grows: packets, processor time, memory, and the time until all know all.
//!
//! `cargo bench --bench growth --profile dev` simulates a LAN with 10, 100 and 1000 nodes that start together, every node
//! of them the real one, and prints a table. Times are those of the virtual network but for the processor's.
#![allow(
    missing_docs,
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on has failed, and tells; the world has more than it needs"
)]

#[path = "../tests/sim/world.rs"]
mod world;

use std::time::Instant;

use world::{World, milliseconds, seconds};

fn main() {
    println!(
        "{:>6} {:>12} {:>14} {:>14} {:>16} {:>14} {:>10} {:>10}",
        "nodes",
        "all know all",
        "packets until",
        "packets idle",
        "processor until",
        "processor idle",
        "memory",
        "sessions"
    );
    println!(
        "{:>6} {:>12} {:>14} {:>14} {:>16} {:>14} {:>10} {:>10}",
        "", "ms", "a node", "a node, minute", "ms a node", "ms a node, min", "kB a node", "idle"
    );
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    for nodes in if sizes.is_empty() { vec![10, 100, 1000] } else { sizes } {
        let before = resident_kilobytes();
        let mut world = World::new(1);
        for n in 0..nodes {
            let host = world.add(&format!("pi-{n}"), 0);
            world.start(host);
        }
        let (began, start) = (Instant::now(), world.now);
        let mut unfinished: Vec<usize> = (0..nodes).collect();
        while !unfinished.is_empty() {
            world.run(milliseconds(5));
            unfinished.retain(|host| world.online(*host) < nodes - 1);
            assert!(world.now.since(start) < seconds(120), "{} nodes do not know all", unfinished.len());
        }
        let known = world.now.since(start);
        let cpu = began.elapsed();
        let sent = |world: &World| world.hosts.iter().map(|host| host.sent_packets).sum::<u64>();
        let first = sent(&world);
        // The sessions that only proved somebody are gone by then.
        world.run(seconds(200));
        let (began, settled) = (Instant::now(), sent(&world));
        world.run(seconds(60));
        let idle_cpu = began.elapsed();
        let idle = sent(&world) - settled;
        let memory = (resident_kilobytes() - before) / nodes as u64;
        let sessions = (0..nodes).map(|host| world.counter(host, "sessions")).sum::<u64>() / nodes as u64;
        let each = |value: u64| value / nodes as u64;
        println!(
            "{nodes:>6} {:>12} {:>14} {:>14} {:>16.2} {:>14.2} {memory:>10} {sessions:>10}",
            known.as_millis(),
            each(first),
            each(idle),
            cpu.as_secs_f64() * 1000.0 / nodes as f64,
            idle_cpu.as_secs_f64() * 1000.0 / nodes as f64,
        );
    }
    println!("1 passed, 0 failed");
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
