//! Messages through a narrow way: it is used, nobody is drowned, and others have their share.

use std::collections::VecDeque;
use std::time::Duration;

use atonce::id::ClientId;
use atonce::limits;
use atonce::time::Instant;

use crate::world::pipe::Pipe;
use crate::world::{World, milliseconds, seconds};

const BITS_PER_SECOND: u64 = 10_000_000;
const ONE_WAY: Duration = milliseconds(25);
const BUFFER: Duration = milliseconds(100);

/// Two hosts, and the narrow way between them; the way back is as long and as narrow.
fn narrow(seed: u64, loss: u64) -> World {
    narrow_from(seed, loss, &["pi-0"])
}

/// Hosts, and the narrow way that all of them have to `hub`, the last one.
fn narrow_from(seed: u64, loss: u64, names: &[&str]) -> World {
    let mut world = World::new(seed);
    for name in names.iter().chain(&["hub"]) {
        let host = world.add(name, 0);
        world.start(host);
    }
    world.run(seconds(3));
    let hub = names.len();
    for direction in [0, 1] {
        world.pipes.push(Pipe::new(BITS_PER_SECOND, ONE_WAY, BUFFER, loss));
        for host in 0..hub {
            world.piped.insert(if direction == 0 { (host, hub) } else { (hub, host) }, direction);
        }
    }
    world
}

/// An app that sends acknowledged messages of 60 KiB as fast as its daemon reads.
struct Bulk {
    app: ClientId,
    line: String,
    next: u64,
    delivered: u64,
    read: usize,
    failed: Vec<String>,
}

impl Bulk {
    fn new(world: &mut World, host: usize) -> Self {
        let line = format!(r#""to":"hub","topic":"bulk","text":"{}"}}"#, "x".repeat(limits::PAYLOAD_BYTES));
        Self { app: world.connect(host), line, next: 0, delivered: 0, read: 0, failed: Vec::new() }
    }

    fn step(&mut self, world: &mut World, host: usize) {
        while world.accepts(host, self.app) {
            let line = format!(r#"{{"op":"send","id":{},"timeout_ms":60000,{}"#, self.next, self.line);
            world.say(host, self.app, &line);
            self.next += 1;
        }
        let lines = world.lines(host, self.app);
        for line in &lines[self.read..] {
            match line["outcome"].as_str() {
                Some("delivered") => self.delivered += 1,
                other => self.failed.push(format!("{other:?}: {line}")),
            }
        }
        self.read = lines.len();
    }
}

/// A flow as TCP's CUBIC would be (RFC 9438), without its finer points.
struct Cubic {
    window: f64,
    highest: f64,
    since_loss: Option<Instant>,
    in_flight: VecDeque<(Instant, bool)>,
    recovering_until: Instant,
    slow_start: bool,
    acked_bytes: u64,
}

impl Cubic {
    const PACKET: usize = 1472;

    fn new() -> Self {
        Self {
            window: 10.0,
            highest: 0.0,
            since_loss: None,
            in_flight: VecDeque::new(),
            recovering_until: Instant::default(),
            slow_start: true,
            acked_bytes: 0,
        }
    }

    fn step(&mut self, pipe: &mut Pipe, now: Instant, mut chance: impl FnMut() -> u64) {
        while let Some((at, arrived)) = self.in_flight.front().copied()
            && at <= now
        {
            self.in_flight.pop_front();
            if arrived {
                self.acked_bytes += Self::PACKET as u64;
                self.grow(now);
            } else if now >= self.recovering_until {
                self.recovering_until = now + ONE_WAY * 2 + pipe.queue(now);
                self.slow_start = false;
                self.highest = self.window;
                self.window = (self.window * 0.7).max(2.0);
                self.since_loss = Some(now);
            }
        }
        while (self.in_flight.len() as f64) < self.window {
            // A loss is learnt when the next packets come back.
            let usual = pipe.queue(now) + ONE_WAY * 2;
            let passed = pipe.pass(Self::PACKET, chance(), now);
            let back = now + passed.map_or(usual, |delay| delay + ONE_WAY);
            self.in_flight.push_back((back, passed.is_some()));
        }
    }

    fn grow(&mut self, now: Instant) {
        let Some(since) = self.since_loss.filter(|_| !self.slow_start) else {
            self.window += 1.0;
            return;
        };
        let seconds = now.since(since).as_secs_f64();
        let k = (self.highest * 0.3 / 0.4).cbrt();
        let target = 0.4 * (seconds - k).powi(3) + self.highest;
        self.window += ((target - self.window) / self.window).clamp(0.01, 0.5);
    }
}

#[test]
fn random_loss_leaves_a_narrow_way_in_use_and_the_messages_of_others_pass_quickly() {
    for seed in 0..3 {
        let mut world = narrow(seed, 10);
        let listener = world.listener(1, "bulk");
        world.listener(1, "small");
        world.run(seconds(1));
        let (mut bulk, small) = (Bulk::new(&mut world, 0), world.connect(0));
        let mut took = Vec::new();
        let duration = 20;
        for tick in 0..duration * 1000 {
            bulk.step(&mut world, 0);
            if tick % 100 == 0 {
                world.send(0, small, tick, "hub", "small", "hello");
            }
            world.run(milliseconds(1));
            world.hosts[1].apps.get_mut(&listener).unwrap().lines.clear();
        }
        let bytes = bulk.delivered * limits::PAYLOAD_BYTES as u64;
        let share = bytes * 8 * 100 / (BITS_PER_SECOND * duration);
        for line in world.heard(0, small, "result") {
            assert_eq!(line["outcome"], "delivered", "seed {seed}");
            took.push(line["rtt_us"].as_u64().unwrap() / 1000);
        }
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "seed {seed}: {share} % used, small messages {} / {} / {} / {} ms, {:?}",
            at(50),
            at(90),
            at(99),
            at(100),
            bulk.failed
        );
        assert!(bulk.failed.is_empty(), "seed {seed}: {:?}", bulk.failed);
        assert!(share >= 80, "seed {seed}: {share} %");
        assert!(at(99) <= 150, "seed {seed}: three round trips are 150 ms, {took:?}");
    }
}

#[test]
fn beside_a_flow_like_cubic_each_has_at_least_a_quarter() {
    for seed in 0..3 {
        let mut world = narrow(seed, 0);
        let listener = world.listener(1, "bulk");
        world.run(seconds(1));
        let (mut bulk, mut cubic) = (Bulk::new(&mut world, 0), Cubic::new());
        let duration = 60;
        for _ in 0..duration * 1000 {
            bulk.step(&mut world, 0);
            let now = world.now;
            let World { pipes, .. } = &mut world;
            cubic.step(&mut pipes[0], now, || 999);
            world.run(milliseconds(1));
            world.hosts[1].apps.get_mut(&listener).unwrap().lines.clear();
        }
        let ours = bulk.delivered * limits::PAYLOAD_BYTES as u64 * 8 * 100 / (BITS_PER_SECOND * duration);
        let theirs = cubic.acked_bytes * 8 * 100 / (BITS_PER_SECOND * duration);
        println!("seed {seed}: {ours} % and {theirs} %");
        assert!(ours >= 25 && theirs >= 25, "seed {seed}: {ours} % and {theirs} %");
        assert!(bulk.failed.is_empty(), "seed {seed}: {:?}", bulk.failed);
    }
}

#[test]
fn two_senders_that_begin_one_after_the_other_share_a_narrow_way() {
    for seed in 0..3 {
        let mut world = narrow_from(seed, 10, &["pi-0", "pi-1"]);
        let listener = world.listener(2, "bulk");
        world.run(seconds(1));
        let mut senders = [0, 1].map(|host| Bulk::new(&mut world, host));
        let begin = |world: &mut World, senders: &mut [Bulk], duration: u64| {
            for _ in 0..duration * 1000 {
                for (host, sender) in senders.iter_mut().enumerate() {
                    sender.step(world, host);
                }
                world.run(milliseconds(1));
                world.hosts[2].apps.get_mut(&listener).unwrap().lines.clear();
            }
        };
        begin(&mut world, &mut senders[..1], 10);
        let before = senders[0].delivered;
        begin(&mut world, &mut senders, 60);
        let shares = [senders[0].delivered - before, senders[1].delivered];
        let all: u64 = shares.iter().sum();
        println!("seed {seed}: {shares:?} messages");
        assert!(shares.iter().all(|share| share * 100 >= all * 30), "seed {seed}: {shares:?}");
        assert!(all * limits::PAYLOAD_BYTES as u64 * 8 * 100 >= 80 * 60 * BITS_PER_SECOND, "{shares:?}");
    }
}
