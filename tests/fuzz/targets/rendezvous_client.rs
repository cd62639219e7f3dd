//! Two rendezvous servers and a few members who lie, each with its own right keys, and anybody else who sends anything to
//! any port of a node. Whatever they say, it sends no more than it may, to nobody whom it must not, and opens no more
//! ports than it may.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::LazyLock;

use arbitrary::Unstructured;
use atonce::core::{Destination, OwnPort, RendezvousServer, Route};
use atonce::crypto::identity::Identity;
use atonce::crypto::namespace::{Meeting, NamespaceKeys, ServerSecret};
use atonce::id::BootId;
use atonce::wire::presence::{Candidate, CandidateKind, Flags, Introduction, Presence, Step};
use atonce::wire::rendezvous::{
    Cookie, Day, Echo, Entries, Entry, Event, FromNode, FromServer, Handle, Here, Kept, Kind, Knock,
    Namespace, Nonce, Nope, Page, Refusal, Retry, ServerTime, Token, Welcome, is_rendezvous,
};

use super::rig::{ADDR, IDENTITIES, OWN, Rig, Sent, number, pause, piece, private};

/// The servers, and where a node may be told that it or others are.
const SERVERS: [&str; 2] = ["192.0.2.1:28283", "192.0.2.2:28283"];
/// How many second ports they say that they have.
const SECOND_PORTS: u16 = 4;
const PLACES: [&str; 12] = [
    "198.51.100.1:28282",
    "198.51.100.1:40000",
    "198.51.100.2:28282",
    "203.0.113.7:1",
    "10.0.0.1:28282",
    "10.0.0.255:28282",
    "10.0.0.9:28282",
    "127.0.0.1:28282",
    "224.0.0.1:5",
    "[2001:db8::1]:7",
    "[fe80::1]:7",
    "[100::1]:1",
];
static SECRETS: LazyLock<[ServerSecret; 2]> = LazyLock::new(|| [1, 2].map(|n| ServerSecret::new([n; 32])));
/// Fresh ports, and those of one birthday.
const PORTS: usize = 32 + 256;
/// What may leave in a burst, and a second: first messages, guesses near a port and at random, and openings.
const BURST: usize = 1500;
const A_SECOND: usize = 400;
/// The same to servers: what is registered, kept and listed, and hails of fresh ports.
const SERVER_BURST: usize = 400;
const SERVER_A_SECOND: usize = 60;
/// Of these, questions to second ports in a burst; one a second more.
const WHERE_BURST: usize = 8;

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut rig = Rig::new(private(), Vec::new());
    let servers: Vec<RendezvousServer> = SERVERS.iter().map(|line| line.parse().unwrap()).collect();
    rig.node.handle_servers(&servers, rig.now);
    let mut world = World::default();
    // Until both servers have been asked.
    rig.drain();
    let sent = rig.wait(std::time::Duration::from_secs(1));
    world.keep(&sent, &rig);
    while !input.is_empty() {
        let which = usize::from(number::<u8>(&mut input)) % SERVERS.len();
        let made = match number::<u8>(&mut input) % 12 {
            0 => Some((piece(&mut input, 1300).to_vec(), OwnPort::USUAL)),
            1 => {
                let sent = rig.wait(pause(&mut input));
                world.keep(&sent, &rig);
                continue;
            }
            2 => {
                rig.node.handle_battery(number(&mut input), rig.now);
                continue;
            }
            change @ (3 | 4) => {
                let mut said = world.said.get(usize::from(number::<u8>(&mut input))).cloned();
                let at = usize::from(number::<u16>(&mut input));
                let byte = said.as_mut().and_then(|said| said.get_mut(at)).filter(|_| change == 4);
                byte.into_iter().for_each(|byte| *byte ^= number::<u8>(&mut input));
                said.map(|said| (said, world.port(&mut input)))
            }
            _ => world.make(&mut input, which),
        };
        let Some((mut datagram, port)) = made else { continue };
        world.said.insert(0, datagram.clone());
        world.said.truncate(64);
        let mut from: SocketAddr =
            if number::<u8>(&mut input) < 200 { SERVERS[which].parse().unwrap() } else { place(&mut input) };
        if Kind::of(&datagram) == Some(Kind::Here) {
            let asked = world.asked.iter().find(|(_, asked)| Kind::of(asked) == Some(Kind::Where));
            from = asked.map_or(from, |(to, _)| to.remote);
        }
        let route = Route { local: Some(ADDR.into()), port, ..Route::to(from) };
        let _ = rig.node.handle_datagram(route, &mut datagram, rig.now);
        world.keep(&rig.drain(), &rig);
    }
}

fn place(input: &mut Unstructured<'_>) -> SocketAddr {
    PLACES[usize::from(number::<u8>(input)) % PLACES.len()].parse().unwrap()
}

#[derive(Default)]
struct World {
    /// What was said to the node, the latest first.
    said: Vec<Vec<u8>>,
    /// What it asked servers, and how, the latest first.
    asked: Vec<(Route, Vec<u8>)>,
    ports: BTreeSet<OwnPort>,
    /// Where it registered last with each server, and as whom.
    registered: [Option<(Namespace, Handle)>; 2],
    to_others: usize,
    to_servers: usize,
    questions_where: usize,
}

impl World {
    fn port(&self, input: &mut Unstructured<'_>) -> OwnPort {
        let at = usize::from(number::<u8>(input)) % (self.ports.len() + 1);
        self.ports.iter().nth(at).copied().unwrap_or(OwnPort::USUAL)
    }

    /// By which port the latest question of a kind was asked of a server, and its nonce.
    fn question(&self, which: usize, kind: Kind) -> Option<(OwnPort, Nonce)> {
        let there = |(to, asked): &&(Route, Vec<u8>)| {
            SERVERS[which].parse() == Ok(to.remote) && Kind::of(asked) == Some(kind)
        };
        let (to, asked) = self.asked.iter().find(there)?;
        Some((to.port, Nonce(asked[4..12].try_into().unwrap())))
    }

    /// What a server says that knows what it does.
    fn make(&self, input: &mut Unstructured<'_>, which: usize) -> Option<(Vec<u8>, OwnPort)> {
        let usual = OwnPort::USUAL;
        let day = Day(20_000 + u32::from(number::<u8>(input) % 3));
        let time = ServerTime { day, second: number::<u32>(input) % 90_000 };
        let (seen, version) = (place(input), number::<u16>(input).into());
        let (lease_seconds, keep_seconds) = (number(input), number(input));
        let token = Token([which as u8; 16]);
        let mut out = Vec::new();
        let entries = self.entries(input, which);
        let entries = Entries::parse(&entries).ok()?;
        let (port, message) = match number::<u8>(input) % 10 {
            0 | 1 => {
                let (port, nonce) = self.question(which, Kind::Hail)?;
                let server = SECRETS[which].public();
                (port, FromServer::Retry(Retry { nonce, cookie: Cookie([3; 16]), seen, server, time }))
            }
            2 => {
                let (port, nonce) = self.question(which, Kind::Register)?;
                let (upto, members) = (version, number(input));
                // Sometimes it is the first one.
                let second_port = NonZeroU16::new(28_283 + (version % u64::from(SECOND_PORTS + 1)) as u16);
                let welcome = Welcome {
                    nonce,
                    seen,
                    token,
                    time,
                    lease_seconds,
                    keep_seconds,
                    second_port,
                    version,
                    upto,
                    members,
                    entries,
                };
                (port, FromServer::Welcome(welcome))
            }
            3 => {
                let (port, nonce) = self.question(which, Kind::Keep)?;
                let register_after_seconds = number::<u16>(input).checked_sub(1);
                let kept = Kept {
                    nonce,
                    seen,
                    token,
                    time,
                    lease_seconds,
                    keep_seconds,
                    version,
                    register_after_seconds,
                };
                (port, FromServer::Kept(kept))
            }
            4 => {
                let (port, nonce) = self.question(which, Kind::List)?;
                (
                    port,
                    FromServer::Page(Page { nonce, version, upto: version, members: number(input), entries }),
                )
            }
            5 => {
                let (namespace, _) = self.registered[which]?;
                let since = number::<u8>(input).into();
                let event = Event { namespace: namespace.tag(), since, upto: version, entries };
                (usual, FromServer::Event(event))
            }
            6 => {
                let (namespace, target) = self.registered[which]?;
                let (nonce, from) = (Nonce(number(input)), Handle([number::<u8>(input) % 8; 16]));
                let step = if number(input) { Step::Meet } else { Step::Sending };
                let sender = who(input);
                let introduction = Introduction {
                    id: sender.id(),
                    to: IDENTITIES[OWN].id(),
                    boot: BootId(number::<u8>(input).into()),
                    step,
                    flags: Flags(number(input)),
                    candidates: candidates(input),
                };
                let meeting = Meeting { namespace, from, target, nonce };
                let payload = private().seal_introduction(sender, &introduction, &meeting, [9; 24]);
                let knock = Knock { namespace: namespace.tag(), nonce, from, payload: &payload };
                FromServer::Knock(knock).write(&mut out);
                self.finish(&mut out, which, namespace);
                return Some((out, usual));
            }
            9 => {
                let (to, asked) =
                    self.asked.iter().find(|(_, asked)| Kind::of(asked) == Some(Kind::Where))?;
                (to.port, FromServer::Here(Here { nonce: Nonce(asked[4..12].try_into().unwrap()), seen }))
            }
            8 => {
                let (port, nonce) = self.question(which, Kind::Probe)?;
                (port, FromServer::Echo(Echo { nonce, seen }))
            }
            _ => {
                let (port, nonce) = self.question(which, Kind::Register)?;
                let refusal = Refusal::Namespace;
                (port, FromServer::Nope(Nope { nonce, refusal, again_seconds: number(input) }))
            }
        };
        message.write(&mut out);
        if let (Some((namespace, _)), false) = (
            self.registered[which],
            matches!(
                message,
                FromServer::Retry(_) | FromServer::Nope(_) | FromServer::Echo(_) | FromServer::Here(_)
            ),
        ) {
            self.finish(&mut out, which, namespace);
        }
        Some((out, port))
    }

    fn finish(&self, out: &mut Vec<u8>, which: usize, namespace: Namespace) {
        if let Some(keys) = NamespaceKeys::of_server(&SECRETS[which], &namespace) {
            keys.finish(out);
        }
    }

    /// Members that a server tells of.
    fn entries(&self, input: &mut Unstructured<'_>, which: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let namespace = self.registered[which].map_or(Namespace([0; 32]), |(namespace, _)| namespace);
        for _ in 0..number::<u8>(input) % 4 {
            let (handle, seq) = (Handle([number::<u8>(input) % 8; 16]), 1);
            let sender = who(input);
            let presence = Presence {
                id: sender.id(),
                boot: BootId(number::<u8>(input).into()),
                flags: Flags(number(input)),
                candidates: candidates(input),
            };
            let blob = private().seal_presence(sender, &presence, &namespace, handle, seq, [8; 24]);
            let left = number::<u8>(input).is_multiple_of(8);
            Entry { handle, seq, blob: Some(&blob[..]).filter(|_| !left) }.push(&mut out);
        }
        out
    }

    /// Remembers what the node asked, and holds what it does to its limits.
    fn keep(&mut self, sent: &[Sent], rig: &Rig) {
        self.ports.clone_from(&rig.ports);
        assert!(self.ports.len() <= PORTS, "{} ports", self.ports.len());
        for Sent { to, bytes } in sent {
            let Destination::One(route) = to else { continue };
            if is_rendezvous(bytes) {
                self.to_servers += 1;
                let is_where = Kind::of(bytes) == Some(Kind::Where);
                let at_server = |server: &&str| {
                    let server: SocketAddr = server.parse().unwrap();
                    let second = server.port() + 1..=server.port() + SECOND_PORTS;
                    let right_port =
                        if is_where { second.contains(&route.remote.port()) } else { server == route.remote };
                    server.ip() == route.remote.ip() && right_port
                };
                assert!(SERVERS.iter().any(at_server), "{route:?}");
                self.questions_where += usize::from(is_where);
                if let Ok(FromNode::Register(register)) = FromNode::parse(bytes) {
                    let which = SERVERS.iter().position(|server| server.parse() == Ok(route.remote)).unwrap();
                    self.registered[which] = Some((register.namespace, register.handle));
                }
                self.asked.insert(0, (*route, bytes.clone()));
                self.asked.truncate(16);
                continue;
            }
            let ip = route.remote.ip();
            assert!(!ip.is_loopback() && !ip.is_multicast() && ip != IpAddr::from([10, 0, 0, 255]), "{ip}");
            assert_ne!(ip, IpAddr::from(ADDR));
            assert!(route.port == OwnPort::USUAL || self.ports.contains(&route.port), "{:?}", route.port);
            self.to_others += 1;
        }
        let seconds = rig.now.since(rig.started).as_secs() as usize + 1;
        assert!(
            self.to_servers <= SERVER_BURST + SERVER_A_SECOND * seconds,
            "{} to servers in {seconds} s",
            self.to_servers
        );
        let limit = WHERE_BURST + seconds;
        assert!(self.questions_where <= limit, "{} to second ports in {seconds} s", self.questions_where);
        assert!(self.to_others <= BURST + A_SECOND * seconds, "{} in {seconds} s", self.to_others);
    }
}

fn who(input: &mut Unstructured<'_>) -> &'static Identity {
    &IDENTITIES[usize::from(number::<u8>(input)) % IDENTITIES.len()]
}

fn candidates(input: &mut Unstructured<'_>) -> Vec<Candidate> {
    let kinds = [
        CandidateKind::Own,
        CandidateKind::Server,
        CandidateKind::Mapped,
        CandidateKind::Peer,
        CandidateKind::Near,
    ];
    let candidate = |input: &mut Unstructured<'_>| {
        let kind = kinds[usize::from(number::<u8>(input)) % kinds.len()];
        Candidate { kind, addr: place(input) }
    };
    (0..number::<u8>(input) % 9).map(|_| candidate(input)).collect()
}
