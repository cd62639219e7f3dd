//! A world of real nodes under one virtual clock: hosts, LAN segments with bad habits, apps, and one seed.
//!
//! Nothing here reads a clock or the operating system: a run is a function of its seed, so a failure replays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use atonce::core::{
    Advert, Config, Destination, Event, InterfaceAddr, IpAddrScoped, KnownPeer, Node, OwnPort, Owner,
    RendezvousServer, Route, Sighting, Transmit,
};
use atonce::crypto::identity::Identity;
use atonce::crypto::membership::Membership;
use atonce::crypto::network::{NetworkKeys, NetworkSecret};
use atonce::id::{ClientId, NodeId};
use atonce::time::Instant;
use atonce::wire::local::Request;
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use serde_json::Value;

use self::internet::{Internet, Parcel, Stop};
use self::pipe::Pipe;

// Named by their files, so that the bench can have the whole world by the one file.
#[path = "internet.rs"]
pub mod internet;
#[path = "nat.rs"]
pub mod nat;
#[path = "pipe.rs"]
pub mod pipe;

/// Which host of the world.
pub type HostId = usize;

/// How a segment treats datagrams, in parts of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub loss: u64,
    pub duplicate: u64,
    pub latency_us: u64,
    /// Added to the latency at random: datagrams overtake each other.
    pub jitter_us: u64,
    /// Multicast is lost this often on top.
    pub multicast_loss: u64,
}

impl Weather {
    pub const FINE: Self = Self { loss: 0, duplicate: 0, latency_us: 100, jitter_us: 0, multicast_loss: 0 };
    pub const STORM: Self =
        Self { loss: 200, duplicate: 100, latency_us: 200, jitter_us: 3000, multicast_loss: 100 };
}

/// One device.
pub struct Host {
    pub node: Option<Node>,
    pub name: String,
    pub secret: Option<[u8; 32]>,
    /// The secret of before, if it still counts.
    pub before: Option<[u8; 32]>,
    key: [u8; 32],
    pub addr: SocketAddr,
    pub segment: usize,
    /// A second network card: its address and its segment.
    pub second: Option<(SocketAddr, usize)>,
    /// Hears multicast.
    pub hears: bool,
    pub mdns: bool,
    pub hello: bool,
    pub rendezvous: Vec<RendezvousServer>,
    /// Those beside the usual one that are open.
    pub ports: BTreeSet<OwnPort>,
    pub on_battery: bool,
    pub metered: bool,
    pub relay: bool,
    pub birthday_punch: bool,
    advert: Option<Advert>,
    browsing: bool,
    /// How often it began to browse.
    pub browses: u64,
    known: Vec<KnownPeer>,
    wake: Option<Instant>,
    next_client: u64,
    /// What each app has read, line by line.
    pub apps: BTreeMap<ClientId, App>,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    /// How often it woke because something was due.
    pub woken: u64,
    /// How often it had its peers written on disk.
    pub remembered: u64,
    /// It sleeps: nothing reaches it, and it does nothing.
    pub asleep: bool,
}

impl Host {
    /// Its network cards.
    fn cards(&self) -> impl Iterator<Item = (SocketAddr, usize)> {
        std::iter::once((self.addr, self.segment)).chain(self.second)
    }

    /// Where what leaves by a port comes from, if the port is open.
    fn addr_of_port(&self, port: OwnPort) -> Option<SocketAddr> {
        let open = port == OwnPort::USUAL || self.ports.contains(&port);
        open.then(|| SocketAddr::new(self.addr.ip(), self.addr.port() + port.number()))
    }

    /// The open port that has an address of ours.
    pub fn port_at(&self, addr: SocketAddr) -> Option<OwnPort> {
        let usual = |card: (SocketAddr, usize)| card.0 == addr;
        let extra = || self.ports.iter().find(|port| self.addr_of_port(**port) == Some(addr));
        self.cards().any(usual).then_some(OwnPort::USUAL).or_else(|| extra().copied())
    }

    /// Its address in a segment: of the card that is named, or of the first one there.
    fn addr_in(&self, segment: usize, card: Option<usize>) -> Option<SocketAddr> {
        let wanted = |(number, known): &(usize, (SocketAddr, usize))| {
            known.1 == segment && card.is_none_or(|card| card == *number)
        };
        self.cards().enumerate().find(wanted).map(|(_, card)| card.0)
    }

    /// The number of the card that has an address.
    fn card_at(&self, addr: SocketAddr) -> usize {
        self.cards().position(|card| card.0 == addr).unwrap_or(0)
    }
}

/// One app: what it has read, and whether it reads at all.
#[derive(Default)]
pub struct App {
    pub lines: Vec<Value>,
    /// What it read in binary mode, and the beginning of a line in the other.
    pub partial: Vec<u8>,
    pub in_frames: bool,
    pub deaf: bool,
    pub closed: bool,
}

/// A datagram under way.
struct Flying {
    to: Stop,
    parcel: Parcel,
}

/// A datagram as it left.
#[derive(Clone)]
pub struct Sent {
    pub at: Instant,
    pub from: SocketAddr,
    pub to: Destination,
    pub bytes: Vec<u8>,
}

/// How many of them are remembered.
const RECENT: usize = 400;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sleeper {
    Host(HostId),
    Server(usize),
}

/// Everything.
pub struct World {
    pub now: Instant,
    pub hosts: Vec<Host>,
    pub weather: Weather,
    pub cut: BTreeSet<(HostId, HostId)>,
    /// Network cards that nothing leaves, and those that nothing gets to; their hosts see nothing of that.
    pub mute: BTreeSet<(HostId, usize)>,
    pub deaf: BTreeSet<(HostId, usize)>,
    /// Bytes of the largest datagram that passes from one host to another; longer ones vanish without a word.
    pub narrow: BTreeMap<(HostId, HostId), usize>,
    /// Those without a cable: their hosts know.
    pulled: BTreeSet<(HostId, usize)>,
    rng: ChaCha20Rng,
    seed: u64,
    flying: BTreeMap<(Instant, u64), Flying>,
    wakes: BTreeSet<(Instant, Sleeper)>,
    sequence: u64,
    boots: u64,
    trace: DefaultHasher,
    /// The last datagrams that hosts and servers sent.
    pub recent: VecDeque<Sent>,
    /// Bytes that hosts sent to addresses that are watched.
    pub watched: BTreeMap<IpAddr, u64>,
    /// Every datagram that was sent, if it is wanted.
    pub capture: Option<Vec<(SocketAddr, Destination, Vec<u8>)>>,
    /// Drive all nodes every 10 ms too, though nothing is due.
    pub restless: bool,
    /// What is between the segments, if anything.
    pub internet: Internet,
    /// Ways of limited rate within a segment, and what goes through each.
    pub pipes: Vec<Pipe>,
    pub piped: BTreeMap<(HostId, HostId), usize>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_origin(Duration::from_secs(1000)),
            hosts: Vec::new(),
            weather: Weather::FINE,
            cut: BTreeSet::new(),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            narrow: BTreeMap::new(),
            pulled: BTreeSet::new(),
            rng: ChaCha20Rng::seed_from_u64(seed),
            seed,
            flying: BTreeMap::new(),
            wakes: BTreeSet::new(),
            sequence: 0,
            boots: 0,
            trace: DefaultHasher::new(),
            recent: VecDeque::new(),
            watched: BTreeMap::new(),
            capture: None,
            restless: false,
            internet: Internet::default(),
            pipes: Vec::new(),
            piped: BTreeMap::new(),
        }
    }

    /// A host that is off; its address is the n-th of 10.`segment`.0.0/22, which has room for a thousand.
    pub fn add(&mut self, name: &str, segment: u8) -> HostId {
        let n = self.hosts.len() as u32 + 1;
        self.add_at(name, segment, Ipv4Addr::from(u32::from(Ipv4Addr::new(10, segment, 0, 0)) + n).into())
    }

    /// A host that is off, with that address.
    pub fn add_at(&mut self, name: &str, segment: u8, addr: IpAddr) -> HostId {
        let id = self.hosts.len();
        let mut key = [0; 32];
        self.rng.fill_bytes(&mut key);
        self.hosts.push(Host {
            node: None,
            name: name.to_owned(),
            secret: None,
            before: None,
            key,
            addr: SocketAddr::new(addr, 28282),
            segment: usize::from(segment),
            second: None,
            hears: true,
            mdns: true,
            hello: true,
            rendezvous: Vec::new(),
            ports: BTreeSet::new(),
            on_battery: false,
            metered: false,
            relay: true,
            birthday_punch: true,
            advert: None,
            browsing: false,
            browses: 0,
            known: Vec::new(),
            wake: None,
            next_client: 1,
            apps: BTreeMap::new(),
            sent_packets: 0,
            sent_bytes: 0,
            woken: 0,
            remembered: 0,
            asleep: false,
        });
        id
    }

    /// Hosts `pi-0`, `pi-1` ... on one segment, all running.
    pub fn lan(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed);
        for n in 0..count {
            let host = world.add(&format!("pi-{n}"), 0);
            world.start(host);
        }
        world
    }

    /// A copied disk: `to` has the key of `from`.
    pub fn clone_key(&mut self, from: HostId, to: HostId) {
        self.hosts[to].key = self.hosts[from].key;
    }

    pub fn id(&self, host: HostId) -> NodeId {
        Identity::from_secret(self.hosts[host].key).id()
    }

    pub fn start(&mut self, host: HostId) {
        self.boots += 1;
        let boot = self.boots;
        let known = &self.hosts[host];
        let network = membership(known.secret, known.before);
        let config = Config {
            name: known.name.parse().unwrap(),
            network,
            network_source: None,
            udp: vec![known.addr],
            rendezvous: known.rendezvous.clone(),
            known: known.known.clone(),
            mdns: known.mdns,
            hello: known.hello,
            relay: known.relay,
            birthday_punch: known.birthday_punch,
            metered: known.metered,
        };
        let rng = ChaCha20Rng::seed_from_u64(self.seed ^ boot << 32 ^ host as u64);
        let node = Node::new(config, Identity::from_secret(known.key), Box::new(rng), self.now);
        self.hosts[host].node = Some(node);
        self.tell_links(host);
    }

    /// The secrets in the configuration of a running host are others, and it is told so.
    pub fn change_secrets(&mut self, host: HostId, secret: [u8; 32], before: Option<[u8; 32]>) {
        (self.hosts[host].secret, self.hosts[host].before) = (Some(secret), before);
        let (network, now) = (membership(Some(secret), before), self.now);
        self.with(host, |node| node.follow_network(network, None, now));
    }

    fn links(&self, host: HostId) -> Vec<InterfaceAddr> {
        let card = |(number, (addr, _)): (usize, (SocketAddr, usize))| {
            let (name, index) = if number == 0 { ("eth0", 2) } else { ("eth1", 3) };
            InterfaceAddr {
                name: name.into(),
                index,
                addr: addr.ip(),
                prefix: 22,
                point_to_point: false,
                wireless: false,
                mtu: None,
            }
        };
        let cards = self.hosts[host].cards().enumerate();
        cards.filter(|(number, _)| !self.pulled.contains(&(host, *number))).map(card).collect()
    }

    /// `host` gets a second network card.
    pub fn plug(&mut self, host: HostId, segment: u8) {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, segment, 0, 0)) + host as u32 + 1);
        self.hosts[host].second = Some((SocketAddr::new(ip.into(), 28282), segment.into()));
        self.tell_links(host);
    }

    /// `host` gets a second network card in the network of the first one.
    pub fn plug_beside(&mut self, host: HostId) {
        let segment = self.hosts[host].segment;
        let ip = Ipv4Addr::new(10, segment as u8, 2, host as u8 + 1);
        self.hosts[host].second = Some((SocketAddr::new(ip.into(), 28282), segment));
        self.tell_links(host);
    }

    /// The cable of a card is pulled, or put back: its host is told.
    pub fn pull(&mut self, host: HostId, card: usize, pulled: bool) {
        if pulled {
            self.pulled.insert((host, card));
        } else {
            self.pulled.remove(&(host, card));
        }
        self.tell_links(host);
    }

    /// It loses that one.
    pub fn unplug(&mut self, host: HostId) {
        self.hosts[host].second = None;
        self.tell_links(host);
    }

    fn tell_links(&mut self, host: HostId) {
        let (links, now) = (self.links(host), self.now);
        self.with(host, |node| node.handle_interfaces(&links, now));
    }

    /// When `host` starts next it remembers so many who were never there.
    pub fn remember_strangers(&mut self, host: HostId, count: u32) {
        let now = self.now;
        let strangers = (0..count).map(|n| {
            let mut key = [0; 32];
            self.rng.fill_bytes(&mut key);
            KnownPeer {
                id: Identity::from_secret(key).id(),
                name: format!("gone-{n}").parse().unwrap(),
                pinned: true,
                addrs: vec![SocketAddr::new(Ipv4Addr::from(0x0a00_0100 + n % 0x200).into(), 28282)],
                last_seen: Some(Duration::from_secs(1_700_000_000 + u64::from(n))),
            }
        });
        let strangers: Vec<_> = strangers.collect();
        self.with(host, |node| node.handle_shutdown(now));
        self.put_off(host);
        self.hosts[host].known = strangers;
        self.start(host);
    }

    /// Power off: no goodbye.
    pub fn crash(&mut self, host: HostId) {
        self.put_off(host);
    }

    /// `systemctl stop`.
    pub fn stop(&mut self, host: HostId) {
        let now = self.now;
        self.with(host, |node| node.handle_shutdown(now));
        self.put_off(host);
    }

    fn put_off(&mut self, host: HostId) {
        let known = &mut self.hosts[host];
        if let Some(node) = known.node.take() {
            known.known = node.known_peers();
        }
        known.apps.clear();
        known.browsing = false;
        if let Some(wake) = known.wake.take() {
            self.wakes.remove(&(wake, Sleeper::Host(host)));
        }
        self.hosts[host].advert = None;
    }

    /// The file in which a host that is off remembers its peers is lost.
    pub fn forget_known(&mut self, host: HostId) {
        self.hosts[host].known.clear();
    }

    /// The lid is closed, for that long, and opened again.
    pub fn suspend(&mut self, host: HostId, duration: Duration) {
        self.hosts[host].asleep = true;
        self.run(duration);
        self.hosts[host].asleep = false;
        let now = self.now;
        self.with(host, |node| node.handle_timeout(now));
    }

    /// The host gets another address.
    pub fn renumber(&mut self, host: HostId, addr: Ipv4Addr) {
        self.hosts[host].addr.set_ip(addr.into());
        self.tell_links(host);
    }

    pub fn connect(&mut self, host: HostId) -> ClientId {
        let client = ClientId(self.hosts[host].next_client);
        self.hosts[host].next_client += 1;
        self.hosts[host].apps.insert(client, App::default());
        let now = self.now;
        self.with(host, |node| node.handle_connect(client, Owner { uid: 0, admin: true }, now).unwrap());
        client
    }

    /// An app writes a line.
    pub fn say(&mut self, host: HostId, client: ClientId, line: &str) {
        let now = self.now;
        self.with(host, |node| node.handle_request(client, Request::parse(line.as_bytes()), now));
    }

    /// Whether the node would read more from an app.
    pub fn accepts(&self, host: HostId, client: ClientId) -> bool {
        self.hosts[host].node.as_ref().is_some_and(|node| node.accepts(client))
    }

    /// A new app that listens to `topic`.
    pub fn listener(&mut self, host: HostId, topic: &str) -> ClientId {
        let client = self.connect(host);
        self.say(host, client, &format!(r#"{{"op":"listen","topic":"{topic}"}}"#));
        client
    }

    /// A new app that watches.
    pub fn watcher(&mut self, host: HostId) -> ClientId {
        let client = self.connect(host);
        self.say(host, client, r#"{"op":"watch"}"#);
        client
    }

    pub fn send(&mut self, host: HostId, client: ClientId, id: u64, to: &str, topic: &str, text: &str) {
        let line = format!(r#"{{"op":"send","id":{id},"to":"{to}","topic":"{topic}","text":"{text}"}}"#);
        self.say(host, client, &line);
    }

    pub fn lines(&self, host: HostId, client: ClientId) -> &[Value] {
        &self.hosts[host].apps[&client].lines
    }

    /// The lines of one event that an app has read.
    pub fn heard(&self, host: HostId, client: ClientId, ev: &str) -> Vec<&Value> {
        self.lines(host, client).iter().filter(|line| line["ev"] == ev).collect()
    }

    /// The outcome of request `id`.
    pub fn outcome(&self, host: HostId, client: ClientId, id: u64) -> Option<&str> {
        let results = self.heard(host, client, "result");
        results.iter().find(|line| line["id"] == id).and_then(|line| line["outcome"].as_str())
    }

    /// What `atonce status` would print there.
    pub fn status(&mut self, host: HostId) -> Value {
        let client = self.connect(host);
        self.say(host, client, r#"{"op":"status","id":1}"#);
        let status = self.lines(host, client).last().unwrap()["status"].clone();
        let now = self.now;
        self.with(host, |node| node.handle_hangup(client, now));
        self.hosts[host].apps.remove(&client);
        status
    }

    /// How many peers are online there.
    pub fn online(&mut self, host: HostId) -> usize {
        self.status(host)["peers"]["online"].as_u64().unwrap() as usize
    }

    /// Whether every host that runs has `count` peers online.
    pub fn all_have(&self, count: usize) -> bool {
        self.hosts.iter().filter_map(|host| host.node.as_ref()).all(|node| node.online() == count)
    }

    /// A counter of `status`.
    pub fn counter(&mut self, host: HostId, name: &str) -> u64 {
        let status = self.status(host);
        let counters = status["counters"].as_array().unwrap();
        counters.iter().find(|c| c[0] == name).map_or(0, |c| c[1].as_u64().unwrap())
    }

    /// Gives the node an input, then takes all of its outputs.
    pub fn with<T>(&mut self, host: HostId, input: impl FnOnce(&mut Node) -> T) -> Option<T> {
        let node = self.hosts[host].node.as_mut()?;
        let result = input(node);
        self.drain(host);
        Some(result)
    }

    /// Gives the node an input and leaves its outputs where they are.
    pub fn with_undrained<T>(&mut self, host: HostId, input: impl FnOnce(&mut Node) -> T) -> T {
        input(self.hosts[host].node.as_mut().unwrap())
    }

    pub fn drain(&mut self, host: HostId) {
        loop {
            let Some(node) = self.hosts[host].node.as_mut() else { return };
            let Some(event) = node.poll_event() else { break };
            self.on_event(host, event);
        }
        let mut buffer = Vec::new();
        while let Some(transmit) =
            self.hosts[host].node.as_mut().and_then(|node| node.poll_transmit(&mut buffer))
        {
            self.transmit(host, transmit, &buffer);
        }
        let wake = self.hosts[host].node.as_ref().and_then(|node| node.poll_timeout()).map(|(at, _)| at);
        let before = std::mem::replace(&mut self.hosts[host].wake, wake);
        if before != wake {
            if let Some(before) = before {
                self.wakes.remove(&(before, Sleeper::Host(host)));
            }
            if let Some(wake) = wake {
                self.wakes.insert((wake, Sleeper::Host(host)));
            }
        }
    }

    fn on_event(&mut self, host: HostId, event: Event) {
        let now = self.now;
        match event {
            Event::Output(client) => {
                if self.hosts[host].apps.get(&client).is_some_and(|app| !app.deaf) {
                    self.read(host, client, usize::MAX);
                }
            }
            Event::Close(client) => {
                if let Some(app) = self.hosts[host].apps.get_mut(&client) {
                    app.closed = true;
                }
                if let Some(node) = self.hosts[host].node.as_mut() {
                    node.handle_hangup(client, now);
                }
            }
            Event::Announce(advert) => {
                self.hosts[host].advert = Some(advert);
                for other in 0..self.hosts.len() {
                    if self.hosts[other].browsing {
                        self.sight(other, host);
                    }
                }
            }
            Event::Withdraw => self.hosts[host].advert = None,
            Event::Browse | Event::Ask => {
                self.hosts[host].browsing = true;
                self.hosts[host].browses += 1;
                for other in 0..self.hosts.len() {
                    self.sight(host, other);
                }
            }
            Event::StopBrowse => self.hosts[host].browsing = false,
            Event::Resolve(name) => {
                let addr: Vec<SocketAddr> = name.parse().ok().into_iter().collect();
                if let Some(node) = self.hosts[host].node.as_mut() {
                    node.handle_server_addrs(&name, &addr, now);
                }
            }
            Event::OpenPort(port) => drop(self.hosts[host].ports.insert(port)),
            Event::ClosePort(port) => drop(self.hosts[host].ports.remove(&port)),
            Event::AskBattery => {
                let on_battery = self.hosts[host].on_battery;
                self.hosts[host].node.as_mut().unwrap().handle_battery(on_battery, now);
            }
            Event::Remember => self.hosts[host].remembered += 1,
            Event::RememberServers | Event::Network { .. } | Event::Invite { .. } | Event::Reload { .. } => {}
        }
    }

    /// An app reads that much of what there is for it.
    pub fn read(&mut self, host: HostId, client: ClientId, most: usize) {
        let now = self.now;
        let known = &mut self.hosts[host];
        let (Some(node), Some(app)) = (known.node.as_mut(), known.apps.get_mut(&client)) else { return };
        let output = node.output(client);
        let output = output[..output.len().min(most)].to_vec();
        node.handle_written(client, output.len(), now);
        output.hash(&mut self.trace);
        app.partial.extend_from_slice(&output);
        if app.in_frames {
            return;
        }
        while let Some(end) = app.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = app.partial.drain(..=end).collect();
            assert!(line.len() <= atonce::limits::LINE_BYTES);
            app.lines.push(serde_json::from_slice(&line).unwrap());
        }
    }

    /// `host` sees the advert of `other`, if it can; the node hears of it when its input is over.
    fn sight(&mut self, host: HostId, other: HostId) {
        let (seer, seen) = (&self.hosts[host], &self.hosts[other]);
        let Some(advert) = &seen.advert else { return };
        if host == other || !seer.hears || self.cut.contains(&(other, host)) {
            return;
        }
        let near = seen.cards().filter(|card| seer.addr_in(card.1, None).is_some());
        let addrs: Vec<_> = near.map(|card| IpAddrScoped { addr: card.0.ip(), scope: 0 }).collect();
        if addrs.is_empty() {
            return;
        }
        let Advert { label, port, txt, .. } = advert.clone();
        let now = self.now;
        if let Some(node) = self.hosts[host].node.as_mut() {
            node.handle_sighting(Sighting::Seen { label, port, txt, addrs }, now);
            // Its outputs are taken with the next input, at the latest when it wakes.
            self.wakes.insert((now, Sleeper::Host(host)));
        }
    }

    fn transmit(&mut self, host: HostId, transmit: Transmit, bytes: &[u8]) {
        bytes.hash(&mut self.trace);
        self.now.hash(&mut self.trace);
        assert!(bytes.len() <= atonce::limits::DATAGRAM_MAX_BYTES, "one send cannot take {}", bytes.len());
        for datagram in bytes.chunks(transmit.segment_bytes) {
            self.hosts[host].sent_packets += 1;
            self.hosts[host].sent_bytes += datagram.len() as u64;
            self.note_sent(self.hosts[host].addr, transmit.to, datagram);
            if let Some(capture) = &mut self.capture {
                capture.push((self.hosts[host].addr, transmit.to, datagram.to_vec()));
            }
            match transmit.to {
                Destination::One(route) => self.transmit_one(host, route, transmit.hops, datagram),
                Destination::Everyone | Destination::Groups => {
                    for to in 0..self.hosts.len() {
                        if to != host && self.hosts[to].hears {
                            self.spread(host, to, datagram);
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn note_sent(&mut self, from: SocketAddr, to: Destination, datagram: &[u8]) {
        if let Destination::One(route) = to
            && let Some(bytes) = self.watched.get_mut(&route.remote.ip())
        {
            *bytes += datagram.len() as u64;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Sent { at: self.now, from, to, bytes: datagram.to_vec() });
    }

    fn transmit_one(&mut self, host: HostId, route: Route, hops: Option<u8>, datagram: &[u8]) {
        let is_there = |known: &Host| known.cards().any(|card| card.0 == route.remote);
        let to = self.hosts.iter().position(is_there);
        let segment = self.hosts[host].segment;
        let card = route.interface.map(|index| index.get() as usize - 2);
        let near = |to: &HostId| {
            let there = self.hosts[*to].cards().find(|card| card.0 == route.remote);
            there.is_some_and(|there| self.hosts[host].addr_in(there.1, card).is_some())
        };
        if to == Some(host) {
            // From one of our own addresses: no kernel takes that from a network.
            return;
        }
        if let Some(to) = to.filter(near) {
            self.fly(host, to, card, Some(route.remote), datagram, false);
        } else if let Some(router) = self.internet.out_of(segment) {
            let hops = hops.unwrap_or(64);
            let known = &self.hosts[host];
            let Some(from) = known.addr_of_port(route.port) else { return };
            self.fly_out(host, router, Parcel { from, to: route.remote, hops, bytes: datagram.to_vec() });
        }
    }

    /// To each card of another host by each of ours that is in its network.
    fn spread(&mut self, host: HostId, to: HostId, datagram: &[u8]) {
        if self.hosts[host].second.is_none() && self.hosts[to].second.is_none() {
            return self.fly(host, to, None, None, datagram, true);
        }
        let there: Vec<_> = self.hosts[to].cards().map(|card| card.0).collect();
        for card in 0..self.hosts[host].cards().count() {
            for addr in &there {
                self.fly(host, to, Some(card), Some(*addr), datagram, true);
            }
        }
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        of_thousand > 0 && self.rng.next_u64() % 1000 < of_thousand
    }

    /// A random number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    /// Within the segments that both are on; to one address, or to the first.
    fn fly(
        &mut self,
        host: HostId,
        to: HostId,
        card: Option<usize>,
        remote: Option<SocketAddr>,
        datagram: &[u8],
        multicast: bool,
    ) {
        let weather = self.weather;
        let here = &self.hosts[host];
        let wanted = |card: &(SocketAddr, usize)| remote.is_none_or(|remote| remote == card.0);
        let there: Vec<_> = self.hosts[to].cards().filter(wanted).collect();
        let shared = there.into_iter().find_map(|(addr, segment)| Some((here.addr_in(segment, card)?, addr)));
        let cut = self.cut.contains(&(host, to))
            || self.narrow.get(&(host, to)).is_some_and(|most| datagram.len() > *most)
            || shared.is_some_and(|(from, addr)| {
                let (from, to) = ((host, here.card_at(from)), (to, self.hosts[to].card_at(addr)));
                self.mute.contains(&from)
                    || self.deaf.contains(&to)
                    || [from, to].iter().any(|end| self.pulled.contains(end))
            });
        let lost = self.chance(weather.loss) || multicast && self.chance(weather.multicast_loss);
        let copies = if self.chance(weather.duplicate) { 2 } else { 1 };
        let Some((from, addr)) = shared.filter(|_| !cut && !lost) else { return };
        if let Some(pipe) = self.piped.get(&(host, to)).copied() {
            let (now, chance) = (self.now, self.rng.next_u64() % 1000);
            let Some(delay) = self.pipes[pipe].pass(datagram.len(), chance, now) else { return };
            let parcel = Parcel { from, to: addr, hops: 64, bytes: datagram.to_vec() };
            return self.carry(Stop::Host(to), parcel, delay);
        }
        for _ in 0..copies {
            let jitter = if weather.jitter_us > 0 { self.below(weather.jitter_us) } else { 0 };
            let parcel = Parcel { from, to: addr, hops: 64, bytes: datagram.to_vec() };
            self.carry(Stop::Host(to), parcel, Duration::from_micros(weather.latency_us + jitter));
        }
    }

    /// A datagram leaves its segment through a router.
    fn fly_out(&mut self, host: HostId, router: Stop, parcel: Parcel) {
        let weather = self.weather;
        if self.chance(weather.loss) || self.hosts[host].asleep {
            return;
        }
        self.carry(router, parcel, Duration::from_micros(weather.latency_us));
    }

    pub(crate) fn carry(&mut self, to: Stop, parcel: Parcel, delay: Duration) {
        self.sequence += 1;
        self.flying.insert((self.now + delay, self.sequence), Flying { to, parcel });
    }

    /// A datagram from `from` will arrive at `to`.
    pub fn inject(&mut self, at: Instant, to: HostId, from: SocketAddr, datagram: &[u8]) {
        let parcel = Parcel { from, to: self.hosts[to].addr, hops: 64, bytes: datagram.to_vec() };
        self.sequence += 1;
        self.flying.insert((at, self.sequence), Flying { to: Stop::Host(to), parcel });
    }

    /// A server is to be woken at another time.
    pub(crate) fn plan_wake(&mut self, server: usize, before: Option<Instant>, wake: Option<Instant>) {
        if let Some(before) = before {
            self.wakes.remove(&(before, Sleeper::Server(server)));
        }
        if let Some(wake) = wake {
            self.wakes.insert((wake, Sleeper::Server(server)));
        }
    }

    /// Randomness for something of its own.
    pub(crate) fn fork_rng(&mut self) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(self.rng.next_u64())
    }

    pub(crate) fn is_lost(&mut self) -> bool {
        let loss = self.weather.loss;
        self.chance(loss)
    }

    /// Lets `duration` pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done`, at most `patience`; says whether it was done.
    pub fn run_for(&mut self, patience: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + patience;
        self.run_until(end, &mut done)
    }

    fn run_until(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let mut restless_at = self.now;
        loop {
            if done(self) {
                return true;
            }
            let flight = self.flying.first_key_value().map(|((at, _), _)| *at);
            let wake = self.wakes.first().map(|(at, _)| *at);
            let restless = self.restless.then_some(restless_at + Duration::from_millis(10));
            let Some(next) = flight.into_iter().chain(wake).chain(restless).min().filter(|next| *next <= end)
            else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            if restless == Some(next) {
                restless_at = next;
                for host in 0..self.hosts.len() {
                    // Only what was due would be done: nothing is drained, so that the trace shows any difference.
                    if self.hosts[host].wake.is_none_or(|wake| wake > next) {
                        if let Some(node) = self.hosts[host].node.as_mut() {
                            node.handle_timeout(next);
                        }
                        self.drain(host);
                    }
                }
                continue;
            }
            if flight == Some(next) {
                let (_, Flying { to, parcel }) = self.flying.pop_first().unwrap();
                self.at_stop(to, parcel);
            } else if let Some((at, sleeper)) = self.wakes.pop_first() {
                match sleeper {
                    Sleeper::Host(host) => self.wake(host, at),
                    Sleeper::Server(server) => self.serve(server, |server, now| server.handle_timeout(now)),
                }
            }
        }
    }

    pub(crate) fn arrive(&mut self, to: HostId, Parcel { from, to: addr, hops: _, mut bytes }: Parcel) {
        if self.hosts[to].asleep {
            return;
        }
        let (now, local) = (self.now, Some(addr.ip()));
        let interface = NonZeroU32::new(self.hosts[to].card_at(addr) as u32 + 2);
        let Some(port) = self.hosts[to].port_at(addr) else { return };
        self.with(to, |node| {
            let _ =
                node.handle_datagram(Route { local, interface, port, ..Route::to(from) }, &mut bytes, now);
        });
    }

    fn wake(&mut self, host: HostId, at: Instant) {
        if self.hosts[host].wake == Some(at) {
            self.hosts[host].wake = None;
        }
        if self.hosts[host].asleep {
            return;
        }
        self.hosts[host].woken += 1;
        let now = self.now;
        self.with(host, |node| node.handle_timeout(now));
        // The contract: nothing that was due is due still.
        let next = self.hosts[host].node.as_ref().and_then(|node| node.poll_timeout());
        if let Some((next, reason)) = next {
            assert!(next > now, "{reason} is due at once again");
        }
    }

    /// What happened so far, in one number.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }
}

fn membership(secret: Option<[u8; 32]>, before: Option<[u8; 32]>) -> Membership {
    let Some(secret) = secret else { return NetworkKeys::open().into() };
    let before = before.map(|before| NetworkKeys::private(&secret_of(before)));
    Membership::new(NetworkKeys::private(&secret_of(secret)), before)
}

pub fn secret_of(bytes: [u8; 32]) -> NetworkSecret {
    let mut line = data_encoding::BASE32_NOPAD.encode(&bytes);
    line.insert_str(0, "atonce-secret-");
    line.parse().unwrap()
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
