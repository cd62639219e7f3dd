//! The rendezvous server as a state machine: everything that one `atonce-rendezvous` knows and decides, without a socket,
//! a clock, a file or an operating system. The bytes and the rules are in `docs/rendezvous.md`.
//!
//! This file dispatches, and knows how a member comes and goes. `questions` answers, `proofs` knows who receives where it
//! sends from, `namespaces` (each with its `roll`), `members` and the `census` of sources remember, `events` tells what changed, the `wheel` of seconds forgets, `echoes` wait in another one, `limits`,
//! `credit` and `turns` say how much and when.
//!
//! The contract is that of [`crate::core`]: equal inputs give equal outputs, inputs may be given in any number before the
//! outputs are drained, the deadlines that [`Server::poll_timeout`] reports are enough, a datagram that is dropped changes
//! nothing but counters and buckets. And: no answer is longer than its question; before a cookie was proved nothing is
//! kept and no public key computed; no address of one member is told to another.

mod census;
mod counts;
mod credit;
mod echoes;
mod events;
mod keyed;
mod limits;
mod members;
mod moment;
mod namespaces;
mod outbox;
mod proofs;
mod questions;
mod roll;
mod slots;
mod turns;
mod wheel;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use self::census::Census;
pub use self::counts::{Counts, Dropped};
use self::echoes::Echoes;
use self::limits::{Bucket, SourceBuckets};
use self::members::{Locals, Member, MemberIndex, Members};
use self::moment::Moment;
use self::namespaces::{NamespaceIndex, Namespaces};
use self::outbox::Outbox;
use self::proofs::Proofs;
use self::turns::Turns;
use self::wheel::Wheel;
use crate::crypto::namespace::{NamespaceKeys, ServerSecret};
use crate::id::ServerKey;
use crate::limits as bounds;
use crate::route::{OwnPort, Route};
use crate::source::Source;
use crate::time::Instant;
use crate::wire::rendezvous::{
    DAY_SECONDS, Day, FromNode, FromServer, Handle, Refusal, Register, ServerTime,
};

/// What outlives a run of the server.
pub struct Secrets {
    /// Its key pair.
    pub key: ServerSecret,
    /// What tokens are made with.
    pub tokens: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The second port of a server, as [`Route::port`] names it: all that it tells is where a question came from.
pub const SECOND_PORT: OwnPort = OwnPort::extra(NonZeroU16::MIN);

/// What a server is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Members that it takes, all namespaces together.
    pub members_max: usize,
    /// The number of its [`SECOND_PORT`], if it has one.
    pub second_port: Option<NonZeroU16>,
}

impl Default for Config {
    fn default() -> Self {
        Self { members_max: bounds::SERVER_MEMBERS, second_port: None }
    }
}

/// One rendezvous server: see the module's description.
pub struct Server {
    config: Config,
    key: ServerSecret,
    rng: Box<dyn CryptoRng + Send>,
    /// The latest time seen.
    now: Instant,
    /// The time since 1970, and when it was that.
    wall: (Duration, Instant),
    proofs: Proofs,
    registers: SourceBuckets,
    guesses: SourceBuckets,
    key_exchanges: Bucket,
    /// What goes unasked to one source: bytes of events, and knocks.
    events_to: SourceBuckets,
    knocks_to: SourceBuckets,
    turns: Turns,
    namespaces: Namespaces,
    members: Members,
    census: Census,
    locals: Locals,
    /// When to look whether a member is still here. One whose lease began anew meanwhile is put into a later list when
    /// its second comes, so that a keep costs nothing here.
    leases: Wheel<MemberIndex>,
    echoes: Echoes,
    /// Which namespaces have an event to tell, and when.
    events: BTreeSet<(Moment, NamespaceIndex)>,
    /// Those whose event is due.
    untold: VecDeque<NamespaceIndex>,
    outbox: Outbox,
    counts: Counts,
    /// Kept only for its memory.
    entries: Vec<u8>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
struct Asker {
    route: Route,
    /// Its address; an IPv4 one never in IPv6 dress.
    addr: SocketAddr,
    source: Source,
    /// Bytes of its question: no answer has more.
    length: usize,
}

impl Server {
    /// A server without members; `rng` is the operating system's in the daemon, a seeded one in tests. Tell it the wall
    /// clock before anything else.
    pub fn new(config: Config, secrets: Secrets, mut rng: Box<dyn CryptoRng + Send>, now: Instant) -> Self {
        Self {
            config,
            key: secrets.key,
            now,
            wall: (Duration::ZERO, now),
            proofs: Proofs::new(secrets.tokens, &mut *rng),
            registers: SourceBuckets::new(&mut *rng),
            guesses: SourceBuckets::new(&mut *rng),
            key_exchanges: Bucket::default(),
            events_to: SourceBuckets::new(&mut *rng),
            knocks_to: SourceBuckets::new(&mut *rng),
            turns: Turns::default(),
            namespaces: Namespaces::new(&mut *rng),
            members: Members::new(&mut *rng),
            census: Census::default(),
            locals: Locals::default(),
            leases: Wheel::default(),
            echoes: Echoes::default(),
            events: BTreeSet::new(),
            untold: VecDeque::new(),
            outbox: Outbox::default(),
            counts: Counts::default(),
            entries: Vec::new(),
            rng,
        }
    }

    /// What stands behind `#` in its address.
    pub fn key(&self) -> ServerKey {
        self.key.public()
    }

    /// How many members there are, all namespaces together.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// How many namespaces have members.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// How many probes wait for their answer.
    pub const fn echoes(&self) -> usize {
        self.echoes.len()
    }

    /// What it did.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A datagram from the network.
    ///
    /// # Errors
    ///
    /// Says why it had no effect; some are answered nevertheless (a retry, a nope).
    pub fn handle_datagram(&mut self, route: Route, datagram: &[u8], now: Instant) -> Result<(), Dropped> {
        self.now = self.now.max(now);
        self.counts.bytes_in += datagram.len() as u64;
        let outcome = self.dispatch(route, datagram);
        if let Err(reason) = outcome {
            self.counts.count_dropped(reason);
        }
        outcome
    }

    fn dispatch(&mut self, route: Route, datagram: &[u8]) -> Result<(), Dropped> {
        let addr = SocketAddr::new(route.remote.ip().to_canonical(), route.remote.port());
        let asker = Asker { route, addr, source: Source::of(addr.ip()), length: datagram.len() };
        let message = FromNode::parse(datagram)?;
        self.counts.count_received(message.kind());
        if matches!(message, FromNode::Where(_)) != (route.port == SECOND_PORT) {
            return Err(Dropped::Port);
        }
        match message {
            FromNode::Hail(nonce) => self.on_hail(asker, nonce),
            FromNode::Register(register) => self.on_register(asker, &register, datagram),
            FromNode::Keep(keep) => self.on_keep(asker, keep),
            FromNode::List(list) => self.on_list(asker, list),
            FromNode::Intro(intro) => self.on_intro(asker, &intro),
            FromNode::Bye(bye) => self.on_bye(asker, bye),
            FromNode::Probe(probe) => self.on_probe(asker, probe),
            FromNode::Where(nonce) => self.on_where(asker, nonce),
        }
    }

    /// The time since 1970: days, tokens and versions are counted by it.
    pub fn handle_wall_clock(&mut self, since_1970: Duration, now: Instant) {
        self.now = self.now.max(now);
        self.wall = (since_1970, self.now);
    }

    /// Does what is due. A call too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        while let Some((at, namespace)) =
            self.events.first().copied().filter(|(at, _)| at.instant() <= self.now)
        {
            self.events.remove(&(at, namespace));
            self.untold.push_back(namespace);
        }
        self.tell_echoes();
        let mut looked_at = 0;
        while let Some((second, index)) = self.leases.pop(self.now, &mut looked_at) {
            let Some(member) = self.members.get_mut(index).filter(|member| member.look_at == Some(second))
            else {
                continue;
            };
            let (namespace, gone) = (member.namespace, member.expire(self.now));
            let lease = member.lease();
            for addr in gone {
                self.census.depart(Source::of(addr.ip()), namespace);
            }
            match (lease, self.members.get_mut(index)) {
                (Some(lease), Some(member)) => {
                    member.look_at = Some(lease);
                    self.leases.add(lease, index);
                }
                _ => self.remove(index),
            }
        }
    }

    /// The next datagram to be sent, and where to. Its bytes replace those of `buffer`, whose memory is used again.
    #[must_use]
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Route> {
        loop {
            if let Some(route) = self.outbox.pop(buffer) {
                if let Some(kind) = crate::wire::rendezvous::Kind::of(buffer) {
                    self.counts.count_sent(kind, buffer.len());
                }
                return Some(route);
            }
            let namespace = self.untold.pop_front()?;
            self.tell_event(namespace);
        }
    }

    /// When [`Server::handle_timeout`] must be called next, and why. `None`: only an input can make work.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let event = self.events.first().map(|(at, _)| (at.instant(), "event"));
        let lease = self.leases.next().map(|at| (at, "lease"));
        let echo = self.echoes.next().map(|at| (at, "echo"));
        event.into_iter().chain(lease).chain(echo).min()
    }

    /// The time since 1970.
    fn wall(&self) -> Duration {
        self.wall.0.saturating_add(self.now.since(self.wall.1))
    }

    fn time(&self) -> ServerTime {
        let seconds = self.wall().as_secs();
        let day = u32::try_from(seconds / u64::from(DAY_SECONDS)).unwrap_or(u32::MAX);
        ServerTime { day: Day(day), second: (seconds % u64::from(DAY_SECONDS)) as u32 }
    }

    /// With which a new namespace begins: higher than it was before a restart.
    fn first_version(&self) -> u64 {
        let wall = self.wall();
        // Whatever the clock says, there is room to count on.
        let seconds = wall.as_secs().min(u64::MAX >> 21);
        (seconds << 20) | ((u64::from(wall.subsec_nanos()) << 20) / 1_000_000_000)
    }

    /// Makes sure that the namespace and the member are there, if there is room for them.
    fn enter(
        &mut self,
        asker: Asker,
        there: Option<NamespaceIndex>,
        new_keys: Option<NamespaceKeys>,
        member: Option<MemberIndex>,
        handle: Handle,
    ) -> Result<(NamespaceIndex, MemberIndex), Refusal> {
        let is_at_source = |member: &Member| member.addrs().any(|addr| Source::of(addr.ip()) == asker.source);
        let known_there = member.and_then(|index| self.members.get(index)).is_some_and(is_at_source);
        let (free, all) =
            (self.config.members_max.saturating_sub(self.members.len()), self.config.members_max);
        if !known_there && !self.census.has_room(asker.source, there, free, all) {
            return Err(Refusal::Address);
        }
        if let (Some(namespace), Some(member)) = (there, member) {
            return Ok((namespace, member));
        }
        if self.members.len() >= self.config.members_max || self.leases.len() >= bounds::LEASES_LOOKED_AT {
            return Err(Refusal::Server);
        }
        let full = |index| {
            let record = self.namespaces.get(index);
            record.is_some_and(|record| record.roll.all().len() >= bounds::NAMESPACE_MEMBERS)
        };
        if there.is_some_and(full) {
            return Err(Refusal::Namespace);
        }
        let version = self.first_version();
        let namespace = match (there, new_keys) {
            (Some(there), _) => there,
            (None, Some(keys)) => self.namespaces.insert(keys, version),
            (None, None) => return Err(Refusal::Server),
        };
        let index = self.members.insert(Member::new(handle, namespace));
        if let Some(record) = self.namespaces.get_mut(namespace) {
            record.roll.enter(index);
        }
        Ok((namespace, index))
    }

    /// The member was heard.
    fn hear(&mut self, index: MemberIndex, asker: Asker) {
        let local = self.locals.number(asker.route.local);
        let Some(member) = self.members.get_mut(index) else { return };
        let (namespace, before) = (member.namespace, member.addr_like(asker.addr));
        member.hear(asker.addr, local, asker.length, self.now);
        if let Some(lease) = member.lease().filter(|_| member.look_at.is_none()) {
            member.look_at = Some(lease);
            self.leases.add(lease, index);
        }
        if before != Some(asker.addr) {
            self.census.arrive(asker.source, namespace);
            if let Some(before) = before {
                self.census.depart(Source::of(before.ip()), namespace);
            }
        }
    }

    /// The member told what the others are to hear.
    fn list_member(&mut self, namespace: NamespaceIndex, index: MemberIndex, register: &Register<'_>) {
        let (Some(record), Some(member)) = (self.namespaces.get_mut(namespace), self.members.get_mut(index))
        else {
            return;
        };
        member.seq = register.seq;
        member.blob = register.blob.into();
        let before = member.version;
        record.roll.change(index, before, |index| self.members.version(index));
        record.version += 1;
        if let Some(member) = self.members.get_mut(index) {
            member.version = record.version;
        }
        self.changed(namespace);
    }

    /// The member is gone, and with the last one its namespace.
    fn remove(&mut self, index: MemberIndex) {
        let Some(member) = self.members.get(index) else { return };
        if let Some(record) = self.namespaces.get_mut(member.namespace) {
            record.roll.leave(index, member.version, |index| self.members.version(index));
        }
        let Some(member) = self.members.remove(index) else { return };
        for addr in member.addrs() {
            self.census.depart(Source::of(addr.ip()), member.namespace);
        }
        let Some(record) = self.namespaces.get(member.namespace) else { return };
        if record.roll.all().is_empty() {
            self.events.remove(&(record.quiet_until, member.namespace));
            self.untold.retain(|untold| *untold != member.namespace);
            self.namespaces.remove(member.namespace);
        } else if member.is_listed() {
            self.namespaces.leave(member.namespace, member.handle);
            self.changed(member.namespace);
        }
    }

    /// Sends at most `most` bytes.
    fn send(
        &mut self,
        to: Route,
        message: &FromServer<'_>,
        namespace: Option<NamespaceIndex>,
        most: usize,
    ) -> Result<(), Dropped> {
        let mut datagram = self.outbox.buffer();
        message.write(&mut datagram);
        if let Some(record) = namespace.and_then(|namespace| self.namespaces.get(namespace)) {
            record.keys.finish(&mut datagram);
        }
        if datagram.len() <= most && self.outbox.push(to, datagram) { Ok(()) } else { Err(Dropped::NoRoom) }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("members", &self.members())
            .field("namespaces", &self.namespaces())
            .finish_non_exhaustive()
    }
}
