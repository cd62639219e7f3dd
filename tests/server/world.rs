//! One server on a virtual clock, and all that it sends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use atonce::crypto::namespace::ServerSecret;
use atonce::crypto::network::NetworkKeys;
use atonce::route::Route;
use atonce::server::{Config, Dropped, Secrets, Server};
use atonce::time::Instant;
use atonce::wire::rendezvous::{Day, FromServer, Kind, Refusal, size};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::member::Member;

/// An evening in 2024.
pub const WALL: Duration = Duration::from_secs(20_000 * 86_400 + 70_000);
pub const DAY: Day = Day(20_000);
pub const LOCAL: [u8; 4] = [203, 0, 113, 9];

/// A datagram of the server: when, where to, and what.
pub struct Sent {
    pub at: Instant,
    pub to: SocketAddr,
    pub from: Option<IpAddr>,
    pub bytes: Vec<u8>,
}

impl Sent {
    pub fn kind(&self) -> Kind {
        Kind::of(&self.bytes).unwrap()
    }
}

pub struct World {
    pub server: Server,
    pub now: Instant,
    /// Since 1970, at the origin of `now`.
    pub wall: Duration,
    /// Also called every so often, not only when it is due.
    pub tick: Option<Duration>,
    pub sent: Vec<Sent>,
}

impl World {
    pub fn new() -> Self {
        Self::with(Config::default(), 1)
    }

    pub fn with(config: Config, seed: u8) -> Self {
        let now = Instant::from_origin(Duration::from_secs(1000));
        let mut world =
            Self { server: server(config, seed, now), now, wall: WALL, tick: None, sent: Vec::new() };
        world.server.handle_wall_clock(world.wall_now(), now);
        world
    }

    pub fn wall_now(&self) -> Duration {
        self.wall + self.now.since_origin() - Duration::from_secs(1000)
    }

    /// The server ends and begins again with what it has on disk.
    pub fn restart(&mut self) {
        self.server = server(Config::default(), 77, self.now);
        self.server.handle_wall_clock(self.wall_now(), self.now);
    }

    pub fn member(&self, network: &NetworkKeys, number: u32) -> Member {
        Member::new(network, &self.server.key(), DAY, number, v4(number))
    }

    /// One that is registered.
    pub fn joined(&mut self, network: &NetworkKeys, number: u32) -> Member {
        let mut member = self.member(network, number);
        self.join(&mut member);
        member
    }

    /// Hails and registers.
    pub fn join(&mut self, member: &mut Member) {
        let hail = member.hail();
        assert_eq!(self.ask(member, &hail), [Kind::Retry]);
        let register = member.register(size::MESSAGE_MAX);
        assert_eq!(self.ask(member, &register), [Kind::Welcome]);
    }

    /// Sends a datagram and lets the member hear the answers to it; tells what they were.
    pub fn ask(&mut self, member: &mut Member, datagram: &[u8]) -> Vec<Kind> {
        let from = self.sent.len();
        let _ = self.say(member.addr, datagram);
        let addr = member.addr;
        let answers = self.sent[from..].iter().filter(|sent| sent.to == addr);
        answers.map(|sent| member.hear(&sent.bytes)).collect()
    }

    /// Sends a datagram from an address; what the server says is in `sent`.
    pub fn say(&mut self, from: SocketAddr, datagram: &[u8]) -> Result<(), Dropped> {
        let route = Route { local: Some(LOCAL.into()), ..Route::to(from) };
        let before = self.sent.len();
        let outcome = self.server.handle_datagram(route, datagram, self.now);
        self.drain();
        for sent in self.sent[before..].iter().filter(|sent| sent.kind() != Kind::Event) {
            assert!(sent.bytes.len() <= datagram.len(), "{:?} to {:?}", sent.kind(), Kind::of(datagram));
        }
        outcome
    }

    /// Why the server refused in its last answer.
    pub fn refusal(&self) -> Option<Refusal> {
        match FromServer::parse(&self.sent.last()?.bytes) {
            Ok(FromServer::Nope(nope)) => Some(nope.refusal),
            _ => None,
        }
    }

    pub fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let due = self.server.poll_timeout().map(|(at, _)| at.max(self.now));
            let tick = self.tick.map(|tick| self.now + tick);
            let next = due.into_iter().chain(tick).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = next;
            self.server.handle_timeout(self.now);
            self.drain();
            assert!(self.server.poll_timeout().is_none_or(|(at, _)| at > self.now));
        }
        self.now = end;
    }

    /// What members were told since `from`, each hears.
    pub fn tell(&self, members: &mut [Member], from: usize) {
        for sent in &self.sent[from..] {
            for member in members.iter_mut().filter(|member| member.addr == sent.to) {
                member.hear(&sent.bytes);
            }
        }
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        while let Some(route) = self.server.poll_transmit(&mut buffer) {
            let (to, from) = (route.remote, route.local);
            self.sent.push(Sent { at: self.now, to, from, bytes: buffer.clone() });
        }
    }
}

fn server(config: Config, seed: u8, now: Instant) -> Server {
    let secrets = Secrets { key: ServerSecret::new([5; 32]), tokens: [6; 32].into() };
    Server::new(config, secrets, Box::new(ChaCha20Rng::from_seed([seed; 32])), now)
}

/// An address of its own for each number.
pub fn v4(number: u32) -> SocketAddr {
    let [a, b, c, d] = (0x6440_0000 + number).to_be_bytes();
    ([a, b, c, d], 28282).into()
}

pub fn v6(number: u32) -> SocketAddr {
    ([0x2001, 0xdb8, 0, (number >> 16) as u16, number as u16, 0, 0, 1], 28282).into()
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
