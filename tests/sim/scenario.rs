//! Scenarios as bytes: a world, what befalls it, who attacks it, and what holds of it all the same.
//!
//! Any bytes are a scenario: the first ones choose the network, the others what happens, step by step, with pauses between. So one
//! entry, [`play`], serves many seeds in the tests, an hour of them, and the fuzzing engine, which also makes them shorter.
//! A run that fails prints the bytes, the steps, and the last packets.
//!
//! What holds at any moment: nobody gets a message twice; what one app sent to one host comes in order; no stranger reads
//! anything; a name means whom it meant first; nobody sends much to an address for what that one says. At the end, when all
//! faults are over: everybody is there for everybody, each request has had one outcome, `delivered` was true, and no queue
//! keeps anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use arbitrary::Unstructured;
use atonce::core::Destination;
use atonce::id::ClientId;
use atonce::time::Instant;
use serde_json::Value;

use super::world::nat::Kind;
use super::world::{HostId, Sent, Weather, World, milliseconds, seconds};

/// Steps of one scenario at most.
const STEPS: usize = 48;
/// What the members of the private networks share.
const SECRET: [u8; 32] = [7; 32];
/// Within this time all on one network are together again when it works again.
const TOGETHER: Duration = seconds(75);
/// The same across the internet: a failed meeting is tried again after at most ten minutes.
const TOGETHER_APART: Duration = seconds(700);
/// Bytes that may go to an address that somebody showed us, a minute: a first message at each look for whom we miss.
const BYTES_A_MINUTE: u64 = 600;
/// Where attackers send from: the first of these addresses in the segment of the attacked.
const EVIL: u8 = 200;

/// Runs the scenario that the bytes are.
///
/// # Panics
///
/// If something did not hold.
pub fn play(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let mut scenario = Scenario::new(bytes, &mut input);
    scenario.run(seconds(3));
    while !input.is_empty() && scenario.steps.len() < STEPS {
        scenario.step(&mut input);
        scenario.check();
    }
    scenario.finish();
}

struct Scenario {
    bytes: Vec<u8>,
    world: World,
    /// Whose promises are kept.
    honest: Vec<HostId>,
    /// Members or neighbours with keys of their own and the names of others.
    impostors: Vec<HostId>,
    /// Without the secret.
    strangers: Vec<HostId>,
    /// The app of each honest host; none while its daemon is down.
    apps: BTreeMap<HostId, App>,
    /// What apps that have gone read.
    read: Vec<Reading>,
    sent: BTreeMap<String, Message>,
    next: u64,
    across: bool,
    /// Bytes that attackers sent, by the address that they used.
    attacks: BTreeMap<IpAddr, u64>,
    steps: Vec<String>,
}

/// An app that listens and sends.
#[derive(Clone, Copy)]
struct App {
    client: ClientId,
    /// Which of all that there were.
    serial: u64,
}

/// What one app read.
struct Reading {
    host: HostId,
    lines: Vec<Value>,
}

/// A message under way, or that was.
struct Message {
    host: HostId,
    app: u64,
    /// The number of the request, if it is to have an outcome.
    id: Option<u64>,
    /// To one host; none: to all.
    to: Option<HostId>,
}

impl Scenario {
    fn new(bytes: &[u8], input: &mut Unstructured<'_>) -> Self {
        let seed = u64::from(byte(input));
        let (mut world, honest, across) = match byte(input) % 5 {
            0 => Self::lan(seed, 2 + usize::from(byte(input) % 4), None),
            1 => Self::lan(seed, 2 + usize::from(byte(input) % 4), Some(SECRET)),
            2 => Self::bridged(seed),
            3 => Self::homes(seed, byte(input), false),
            _ => Self::homes(seed, byte(input), true),
        };
        if byte(input).is_multiple_of(4) && !across {
            // One that hears no multicast is found by the others.
            world.hosts[honest[0]].hears = false;
        }
        let mut scenario = Self {
            bytes: bytes.to_vec(),
            world,
            honest: honest.clone(),
            impostors: Vec::new(),
            strangers: Vec::new(),
            apps: BTreeMap::new(),
            read: Vec::new(),
            sent: BTreeMap::new(),
            next: 0,
            across,
            attacks: BTreeMap::new(),
            steps: Vec::new(),
        };
        for host in honest {
            scenario.start(host);
        }
        scenario
    }

    /// Hosts of one network.
    fn lan(seed: u64, count: usize, secret: Option<[u8; 32]>) -> (World, Vec<HostId>, bool) {
        let mut world = World::new(seed);
        let hosts = (0..count).map(|n| world.add(&format!("pi-{n}"), 0)).collect::<Vec<_>>();
        for host in &hosts {
            world.hosts[*host].secret = secret;
        }
        (world, hosts, false)
    }

    /// Two networks, and a host that is on both.
    fn bridged(seed: u64) -> (World, Vec<HostId>, bool) {
        let mut world = World::new(seed);
        let hosts: Vec<_> = [1, 1, 2].iter().map(|n| world.add(&format!("pi-{n}-{seed}"), *n)).collect();
        world.hosts[hosts[0]].name = "bridge".to_owned();
        world.plug(hosts[0], 2);
        for host in &hosts {
            world.hosts[*host].secret = Some(SECRET);
        }
        (world, hosts, false)
    }

    /// Two homes, one or two servers, and somebody without a router who relays.
    fn homes(seed: u64, kinds: u8, two_servers: bool) -> (World, Vec<HostId>, bool) {
        const HARD: [Kind; 4] = [Kind::HOME, Kind::EIF, Kind::ADF, Kind::RANDOM];
        let mut world = World::new(seed);
        world.internet.link = milliseconds(10);
        let servers: Vec<_> = (0..=u8::from(two_servers)).map(|_| world.add_server()).collect();
        let kinds = [HARD[usize::from(kinds & 3)], HARD[usize::from(kinds >> 2 & 3)], Kind::OPEN];
        let hosts: Vec<_> = (1..)
            .zip(kinds)
            .map(|(n, kind)| {
                world.router(n.into(), kind, &World::wan(n).to_string(), None);
                let name = format!("pi-{n}");
                if kind.firewall {
                    world.add_at(&name, n, format!("198.18.{n}.1").parse().unwrap())
                } else {
                    world.add(&name, n)
                }
            })
            .collect();
        for host in &hosts {
            world.hosts[*host].secret = Some(SECRET);
            world.hosts[*host].rendezvous.clone_from(&servers);
        }
        (world, hosts, true)
    }

    fn start(&mut self, host: HostId) {
        self.world.start(host);
        self.connect(host);
    }

    fn connect(&mut self, host: HostId) {
        let client = self.world.listener(host, "t");
        self.next += 1;
        self.apps.insert(host, App { client, serial: self.next });
    }

    /// The app of a host has gone, or will go with its daemon: what it read stays.
    fn part(&mut self, host: HostId) {
        if let Some(App { client, .. }) = self.apps.remove(&host) {
            let lines = self.world.lines(host, client).to_vec();
            self.read.push(Reading { host, lines });
        }
    }

    fn run(&mut self, time: Duration) {
        self.world.run(time);
    }

    fn pick(&self, input: &mut Unstructured<'_>) -> HostId {
        self.honest[usize::from(byte(input)) % self.honest.len()]
    }

    /// One thing happens, and some time passes.
    fn step(&mut self, input: &mut Unstructured<'_>) {
        let what = byte(input) % 24;
        let host = self.pick(input);
        let up = self.world.hosts[host].node.is_some();
        let step = match what {
            0..=5 => self.send(host, input),
            6 if up => {
                self.part(host);
                self.world.crash(host);
                "crashes".to_owned()
            }
            7 if up => {
                self.part(host);
                self.world.stop(host);
                "ends".to_owned()
            }
            6..=9 if !up => {
                self.start(host);
                "starts".to_owned()
            }
            8 => {
                self.part(host);
                self.world.crash(host);
                self.start(host);
                "restarts at once".to_owned()
            }
            9 => {
                let client = self.apps[&host].client;
                self.part(host);
                let now = self.world.now;
                self.world.with(host, |node| node.handle_hangup(client, now));
                self.world.hosts[host].apps.remove(&client);
                self.connect(host);
                "has another app".to_owned()
            }
            10 => {
                let other = self.pick(input);
                self.world.cut.insert((host, other));
                if byte(input).is_multiple_of(2) {
                    self.world.cut.insert((other, host));
                }
                format!("does not reach {other}")
            }
            11 => {
                self.world.cut.clear();
                "and all: no cuts".to_owned()
            }
            12 => {
                self.world.weather = match byte(input) % 3 {
                    0 => Weather::STORM,
                    1 => Weather { loss: 300, ..Weather::STORM },
                    _ => Weather::FINE,
                };
                format!("and all: {:?}", self.world.weather)
            }
            13 => {
                let lid = seconds(u64::from(byte(input)));
                self.world.suspend(host, lid);
                format!("slept {lid:?}")
            }
            14 if !self.across && self.world.hosts[host].second.is_none() => {
                // Nobody else has it.
                let n = 100 + 10 * (byte(input) % 10) + host as u8;
                let segment = self.world.hosts[host].segment as u8;
                self.world.renumber(host, [10, segment, 0, n].into());
                format!("has the address {}", self.world.hosts[host].addr)
            }
            15 if self.across => {
                let server = usize::from(byte(input)) % self.world.internet.servers.len();
                if self.world.internet.servers[server].server.is_some() {
                    self.world.stop_server(server);
                    format!("sees server {server} end")
                } else {
                    self.world.start_server(server);
                    format!("sees server {server} start")
                }
            }
            16 if self.across => {
                self.world.reboot_router(self.world.hosts[host].segment);
                "has a router that restarted".to_owned()
            }
            17 => self.impostor(host),
            18 => self.stranger(host),
            19 => self.replay(host, input),
            20 => self.replay_hello(),
            21 => self.change_bits(host, input),
            22 => self.junk(host, input),
            _ => "waits".to_owned(),
        };
        let pause = pause(byte(input));
        self.steps.push(format!("{:?} host {host} {step}; then {pause:?}", self.world.now));
        self.run(pause);
    }

    fn send(&mut self, host: HostId, input: &mut Unstructured<'_>) -> String {
        let (to, how) = (self.pick(input), byte(input));
        let Some(App { client, serial }) = self.apps.get(&host).copied() else { return "is down".to_owned() };
        self.next += 1;
        let id = self.next;
        let size = [5, 300, 3000, 61_000][usize::from(how >> 4 & 3)];
        let name = format!("m{id}");
        let text = format!("{name} {}", "x".repeat(size - size.min(name.len() + 1)));
        let target = self.world.hosts[to].name.clone();
        let (line, message) = match how % 4 {
            0 => (
                format!(r#"{{"op":"publish","topic":"t","text":"{text}"}}"#),
                Message { host, app: serial, id: None, to: None },
            ),
            1 => (
                format!(r#"{{"op":"send","to":"{target}","topic":"t","ack":false,"text":"{text}"}}"#),
                Message { host, app: serial, id: None, to: Some(to) },
            ),
            _ => (
                format!(r#"{{"op":"send","id":{id},"to":"{target}","topic":"t","text":"{text}"}}"#),
                Message { host, app: serial, id: Some(id), to: Some(to) },
            ),
        };
        self.sent.insert(name, message);
        self.world.say(host, client, &line);
        format!("sends {size} bytes to {to}, way {}", how % 4)
    }

    /// Somebody with a key of its own who calls itself like `host`, when all know that one.
    fn impostor(&mut self, host: HostId) -> String {
        let know = |other: &HostId| self.knows(*other, host);
        if self.across || self.impostors.len() > 1 || !self.honest.iter().all(know) {
            return "has no impostor".to_owned();
        }
        let (name, segment) = (self.world.hosts[host].name.clone(), self.world.hosts[host].segment as u8);
        let impostor = self.world.add(&name, segment);
        self.world.hosts[impostor].secret = self.world.hosts[host].secret;
        self.world.start(impostor);
        self.world.listener(impostor, "t");
        self.impostors.push(impostor);
        format!("has the impostor {impostor}")
    }

    /// Whether `host` has met `other`, and thus knows whom its name means.
    fn knows(&self, host: HostId, other: HostId) -> bool {
        let id = self.world.id(other);
        let node = self.world.hosts[host].node.as_ref();
        host == other || node.is_some_and(|node| node.known_peers().iter().any(|peer| peer.id == id))
    }

    fn stranger(&mut self, host: HostId) -> String {
        if self.world.hosts[host].secret.is_none() || self.strangers.len() > 1 {
            return "has no stranger".to_owned();
        }
        let segment = self.world.hosts[host].segment as u8;
        let stranger = self.world.add("stranger", segment);
        self.world.start(stranger);
        self.world.listener(stranger, "t");
        self.strangers.push(stranger);
        format!("has the stranger {stranger}")
    }

    /// An address of nobody on the link of `host`.
    fn evil(&mut self, host: HostId, n: u8, bytes: usize) -> SocketAddr {
        let ip = IpAddr::from([10, self.world.hosts[host].segment as u8, 3, EVIL + n]);
        *self.attacks.entry(ip).or_default() += bytes as u64;
        self.world.watched.entry(ip).or_default();
        SocketAddr::new(ip, 6666)
    }

    /// One of the last packets to `host`.
    fn recorded(&self, host: HostId, input: &mut Unstructured<'_>) -> Option<Sent> {
        let addr = self.world.hosts[host].addr;
        let to_host = |sent: &&Sent| matches!(sent.to, Destination::One(route) if route.remote == addr);
        let recorded: Vec<_> = self.world.recent.iter().filter(to_host).collect();
        let at = usize::from(byte(input)) % recorded.len().max(1);
        recorded.get(at).map(|sent| (*sent).clone())
    }

    fn replay(&mut self, host: HostId, input: &mut Unstructured<'_>) -> String {
        let Some(sent) = self.recorded(host, input) else { return "has no recording".to_owned() };
        let elsewhere = byte(input).is_multiple_of(2);
        let from = if elsewhere { self.evil(host, 0, sent.bytes.len()) } else { sent.from };
        let at = self.world.now + milliseconds(1);
        self.world.inject(at, host, from, &sent.bytes);
        format!("gets {} again from {from}", packet(&sent))
    }

    /// A recorded hello from eight addresses.
    fn replay_hello(&mut self) -> String {
        let hello = |sent: &&Sent| !matches!(sent.to, Destination::One(_));
        let Some(sent) = self.world.recent.iter().rev().find(hello).cloned() else {
            return "and nobody: no hello".to_owned();
        };
        let at = self.world.now + milliseconds(1);
        for host in self.honest.clone() {
            let segment = self.world.hosts[host].segment as u8;
            for n in 0..8 {
                let from = SocketAddr::new([10, segment, 3, EVIL + 8 + n].into(), sent.from.port());
                self.world.inject(at, host, from, &sent.bytes);
            }
        }
        format!("and all: {} again from eight addresses", packet(&sent))
    }

    fn change_bits(&mut self, host: HostId, input: &mut Unstructured<'_>) -> String {
        let Some(mut sent) = self.recorded(host, input) else { return "has no recording".to_owned() };
        let at = usize::from(byte(input)) * sent.bytes.len() / 256;
        sent.bytes[at] ^= 1 << (byte(input) % 8);
        let when = self.world.now + milliseconds(1);
        self.world.inject(when, host, sent.from, &sent.bytes);
        format!("gets {} changed at {at}", packet(&sent))
    }

    fn junk(&mut self, host: HostId, input: &mut Unstructured<'_>) -> String {
        let lengths = [164, 160, 60, 40, 76, 76, 76, 90];
        let kind = byte(input) % 8;
        let mut bytes = vec![byte(input); lengths[usize::from(kind)]];
        bytes[0] = kind + 1;
        let at = self.world.now + milliseconds(1);
        for n in 0..20 {
            let from = self.evil(host, 1 + n % 4, bytes.len());
            self.world.inject(at, host, from, &bytes);
        }
        format!("gets twenty junk packets of kind {}", kind + 1)
    }

    /// What holds at any moment.
    fn check(&self) {
        for stranger in &self.strangers {
            for app in self.world.hosts[*stranger].apps.values() {
                assert!(!app.lines.iter().any(|line| line["ev"] == "message"), "a stranger reads a message");
            }
        }
        for impostor in &self.impostors {
            for app in self.world.hosts[*impostor].apps.values() {
                for name in messages(&app.lines) {
                    let to = self.sent[name].to;
                    assert!(
                        to.is_none(),
                        "{name} was for host {to:?} and came to {impostor}, who has its name"
                    );
                }
            }
        }
        for (addr, sent) in &self.attacks {
            let drawn = self.world.watched[addr];
            // Where a packet of a member came from may be a way to it: that is looked at as often as any other one.
            let minutes = self.world.now.since(Instant::from_origin(seconds(1000))).as_secs() / 60;
            let most = 3 * sent + 2000 + BYTES_A_MINUTE * minutes;
            assert!(drawn <= most, "{sent} bytes of {addr} drew {drawn}");
        }
    }

    /// All faults end, and all promises are looked at.
    fn finish(&mut self) {
        self.world.cut.clear();
        self.world.weather = Weather::FINE;
        for server in 0..self.world.internet.servers.len() {
            if self.world.internet.servers[server].server.is_none() {
                self.world.start_server(server);
            }
        }
        for host in self.honest.clone() {
            if self.world.hosts[host].node.is_none() {
                self.start(host);
            }
        }
        self.steps.push(format!("{:?} all faults end", self.world.now));
        let patience = if self.across { TOGETHER_APART } else { TOGETHER };
        let honest = self.honest.clone();
        let together = |world: &mut World| {
            honest
                .iter()
                .all(|host| honest.iter().all(|other| host == other || is_online(world, *host, *other)))
        };
        // Looked at once a second: asking is no small thing.
        let mut waited = Duration::ZERO;
        while !together(&mut self.world) {
            assert!(waited < patience, "not all are together {patience:?} after all faults ended");
            self.run(seconds(1));
            waited += seconds(1);
        }
        // What came in part, and nobody reports on, is given up by then.
        self.run(atonce::limits::REASSEMBLY_LIFE + seconds(1));
        for host in self.honest.clone() {
            for other in self.honest.clone() {
                self.say_goodbye(host, other);
            }
        }
        self.run(seconds(12));
        self.check();
        self.check_outcomes();
        self.check_idle();
    }

    fn say_goodbye(&mut self, host: HostId, other: HostId) {
        let App { client, serial } = self.apps[&host];
        self.next += 1;
        let (id, name) = (self.next, format!("m{}", self.next));
        let id_of = self.world.id(other).to_string();
        let line = format!(r#"{{"op":"send","id":{id},"to":"{id_of}","topic":"t","text":"{name} goodbye"}}"#);
        self.world.say(host, client, &line);
        self.sent.insert(name, Message { host, app: serial, id: Some(id), to: Some(other) });
        self.world.run(milliseconds(300));
        let outcome = self.world.outcome(host, client, id).map(str::to_owned);
        assert_eq!(outcome.as_deref(), Some("delivered"), "the last message from {host} to {other}");
    }

    fn check_outcomes(&mut self) {
        let live: BTreeSet<u64> = self.apps.values().map(|app| app.serial).collect();
        for host in self.honest.clone() {
            self.part(host);
        }
        // Who read what, in which order.
        let mut arrived: BTreeMap<&str, Vec<HostId>> = BTreeMap::new();
        let mut last: BTreeMap<(u64, HostId), u64> = BTreeMap::new();
        let mut outcomes: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
        for Reading { host, lines } in &self.read {
            for name in messages(lines) {
                let message = &self.sent[name];
                let hosts = arrived.entry(name).or_default();
                assert!(!hosts.contains(host), "{name} came to {host} twice");
                hosts.push(*host);
                assert!(message.to.is_none_or(|to| to == *host), "{name} was not for {host}");
                if let Some(id) = message.id {
                    let before = last.insert((message.app, *host), id);
                    assert!(before.is_none_or(|before| before < id), "{name} came to {host} out of order");
                }
            }
            for line in lines.iter().filter(|line| line["ev"] == "result" || line["ev"] == "error") {
                outcomes.entry(line["id"].as_u64().unwrap_or(0)).or_default().push(line);
            }
        }
        for (name, message) in &self.sent {
            let Some(id) = message.id else { continue };
            let ended = outcomes.get(&id).map_or(&[][..], Vec::as_slice);
            let expected = if live.contains(&message.app) { 1..=1 } else { 0..=1 };
            assert!(expected.contains(&ended.len()), "{name} of host {} ended as {ended:?}", message.host);
            let came = arrived.contains_key(name.as_str());
            let outcome = ended.first().and_then(|line| line["outcome"].as_str());
            assert!(outcome != Some("delivered") || came, "{name} is said to be delivered and was not");
            let refused = ["no-listener", "busy", "too-big"];
            assert!(
                !(came && outcome.is_some_and(|outcome| refused.contains(&outcome))),
                "{name} came: {ended:?}"
            );
        }
    }

    fn check_idle(&mut self) {
        for host in self.honest.clone() {
            for counter in ["messages-under-way", "partial-message-bytes", "overflowed-trains"] {
                assert_eq!(self.world.counter(host, counter), 0, "{counter} of host {host}");
            }
        }
    }
}

impl Drop for Scenario {
    /// How it came to a failure.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut story = format!("scenario {}\n", data_encoding::HEXLOWER.encode(&self.bytes));
        for (host, known) in self.world.hosts.iter().enumerate() {
            let _ = writeln!(story, "host {host} is {} at {}", known.name, known.addr);
        }
        for step in &self.steps {
            let _ = writeln!(story, "{step}");
        }
        for sent in &self.world.recent {
            let _ = writeln!(story, "{:?} {}", sent.at, packet(sent));
        }
        let _ = std::io::stderr().write_all(story.as_bytes());
    }
}

/// A packet as people read it: from, to, kind, size.
fn packet(sent: &Sent) -> String {
    const KINDS: [&str; 8] =
        ["initiation", "response", "cookie", "data", "hello", "whois", "here-is", "relayed"];
    let first = usize::from(sent.bytes.first().copied().unwrap_or(0));
    let kind = KINDS.get(first.wrapping_sub(1)).copied().unwrap_or("rendezvous");
    let to = match sent.to {
        Destination::One(route) => route.remote.to_string(),
        Destination::Everyone | Destination::Groups => "everyone".to_owned(),
    };
    format!("{} -> {to} {kind} {}", sent.from, sent.bytes.len())
}

/// The names of the messages in what an app read.
fn messages(lines: &[Value]) -> impl Iterator<Item = &str> {
    let texts = lines.iter().filter(|line| line["ev"] == "message").filter_map(|line| line["text"].as_str());
    texts.filter_map(|text| text.split(' ').next())
}

fn is_online(world: &mut World, host: HostId, other: HostId) -> bool {
    let id = world.id(other).to_string();
    let client = world.connect(host);
    world.say(host, client, r#"{"op":"peers","id":1}"#);
    let peers = world.heard(host, client, "peer");
    let online = peers.iter().any(|peer| peer["id"] == id && peer["state"] == "online");
    let now = world.now;
    world.with(host, |node| node.handle_hangup(client, now));
    world.hosts[host].apps.remove(&client);
    online
}

fn byte(input: &mut Unstructured<'_>) -> u8 {
    input.arbitrary().unwrap_or(0)
}

/// From a millisecond to minutes: most things that go wrong do so at a certain distance from each other.
fn pause(byte: u8) -> Duration {
    const SCALE: [u64; 8] = [1, 20, 150, 700, 2500, 5000, 15_000, 70_000];
    milliseconds(SCALE[usize::from(byte & 7)] * (1 + u64::from(byte >> 3)) / 8)
}
