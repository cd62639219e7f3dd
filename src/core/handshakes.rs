//! First messages of others: whom we answered, and who has to prove more first (protocol.md, 3 and 4).
//!
//! An answered first message is a [`HalfOpen`]: it commits nothing before its first data packet proves that it is no
//! recording. What we send ourselves stands in `prospects`. Nobody shuts others out: whoever proved its address has its share
//! of the work that we do for first messages, and in a full table one of the heaviest origin makes room.
//!
//! If both sides start, the first message of the larger id stands.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::api::{Destination, Dropped, Route};
use crate::core::duplicates::Claim;
use crate::core::fair::FairPace;
use crate::core::origin::{Crowd, Origin};
use crate::core::paths::Source;
use crate::core::prospects::RETRY;
use crate::core::sessions::Established;
use crate::core::timers::Timer;
use crate::core::whois::Whois;
use crate::core::{Node, random};
use crate::crypto::cookie::CookieJar;
use crate::crypto::handshake::{self, Received, SessionKeys};
use crate::crypto::network::{NetworkKind, NetworkTag};
use crate::crypto::session::Session;
use crate::id::{BootId, NodeId, NodeName, SessionIndex};
use crate::limits;
use crate::tag::Tag;
use crate::time::Instant;
use crate::wire::message::{Read, Record, Records};
use crate::wire::packet::{field, size};

/// A half-open handshake that has not spoken after this time never will: its initiator has given up by then.
const HALF_OPEN_LIFE: Duration = Duration::from_secs(5);
/// A copy of a first message gets the stored answer for this long; afterwards it is a new one.
const ANSWER_LIFE: Duration = Duration::from_secs(1);
/// So many handshakes waiting or in one second are load: whoever wants one more proves its address first.
const LOAD_HALF_OPEN: usize = 128;
const LOAD_A_SECOND: u32 = 200;
/// First messages of proved addresses that we answer, a second and at once: a quarter of a second's work of a small device,
/// and the first second of a thousand nodes that start together.
const ANSWERED_A_SECOND: usize = 256;
const ANSWERED_AT_ONCE: usize = 1024;
/// Origins whose part of that is remembered: more than can owe a tenth of a message each.
const ORIGINS: usize = 10 * ANSWERED_AT_ONCE;
/// How long a cookie lives: WireGuard's value, long enough for any retry.
const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// Every handshake that is not finished.
#[derive(Debug)]
pub(crate) struct Handshakes {
    half_open: BTreeMap<SessionIndex, HalfOpen>,
    /// Whose every index of ours is.
    pub(crate) indices: BTreeMap<SessionIndex, Owner>,
    cookies: CookieJar,
    /// Of answers to proved first messages.
    pace: FairPace<Origin>,
    /// This second, and the first messages answered in it.
    second: (u64, u32),
    pub(super) whois: Whois,
}

/// Whose a session index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Our first message to this prospect.
    Prospect(NodeId),
    /// A half-open handshake.
    HalfOpen,
    /// A session with this peer.
    Peer(NodeId),
    /// Our question whether another machine has our key.
    Copy,
}

/// A first message that we answered.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) peer: NodeId,
    pub(super) said: Said,
    session: Session,
    since: Instant,
    response: [u8; size::RESPONSE],
    /// Where its first copy came from.
    origin: Origin,
    /// Where the response went: who answers it from one of these really is there.
    sources: Vec<Route>,
}

/// What a first message says of itself.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) boot: BootId,
    counter: u64,
    /// Whose psk it used.
    network: NetworkTag,
    /// By which a copy is known.
    mac1: Tag,
    /// Its sender receives at the address that it sent from: a cookie came back.
    proved: bool,
}

impl Handshakes {
    pub(crate) fn new(cookie_secret: [u8; 32]) -> Self {
        Self {
            half_open: BTreeMap::new(),
            indices: BTreeMap::new(),
            cookies: CookieJar::new(cookie_secret),
            pace: FairPace::new(ANSWERED_AT_ONCE, ANSWERED_A_SECOND, ORIGINS),
            second: (0, 0),
            whois: Whois::default(),
        }
    }

    /// How many handshakes wait for their first data packet.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    /// When the oldest of them began.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.half_open.values().map(|half| half.since).min()
    }

    pub(super) fn count_this_second(&mut self, now: Instant) -> &mut (u64, u32) {
        let second = now.since_origin().as_secs();
        if self.second.0 != second {
            self.second = (second, 0);
        }
        &mut self.second
    }
}

impl Node {
    /// An index that nothing of ours has.
    pub(super) fn free_index(&mut self) -> SessionIndex {
        loop {
            let index = SessionIndex::from_bits(self.rng.next_u32());
            if !self.handshakes.indices.contains_key(&index) {
                return index;
            }
        }
    }

    /// Forgets all that was begun, for another network.
    pub(crate) fn forget_handshakes(&mut self) {
        self.forget_contests();
        self.forget_copy();
        self.forget_prospects();
        for index in std::mem::take(&mut self.handshakes.half_open).into_keys() {
            self.handshakes.indices.remove(&index);
        }
    }

    pub(crate) fn on_initiation(
        &mut self,
        via: Route,
        packet: &[u8; size::INITIATION],
    ) -> Result<(), Dropped> {
        let made =
            self.config.network.find(|keys| handshake::check_mac1(keys, &self.id, packet).then_some(()));
        let ((), network) = made.ok_or(Dropped::Unauthenticated)?;
        self.check_address(via.remote.ip())?;
        let mut mac1 = [0; size::MAC];
        mac1.copy_from_slice(&packet[field::INITIATION_MAC1]);
        let mac1 = Tag::new(mac1);
        if let Some(answered) = self.answer_again(via, mac1) {
            return answered;
        }
        // A source may be forged: who is really there proves it, and is counted by that.
        let proved = self.handshakes.cookies.check_mac2(&via.remote, packet);
        let origin = Origin::of(via.remote.ip(), &self.links);
        if !proved && (self.is_loaded() || self.is_crowded(origin)) {
            let nonce = random(&mut *self.rng);
            let keys = self.config.network.of(network);
            let reply = self.handshakes.cookies.reply(keys, &self.id, packet, &via.remote, nonce);
            self.outbox.push(Destination::One(via), &reply);
            return Err(Dropped::OverLimit);
        }
        if proved && !self.handshakes.pace.take(origin, 1, self.now) {
            return Err(Dropped::OverLimit);
        }
        self.handshakes.count_this_second(self.now).1 += 1;
        let received = Received::read(&self.identity, packet).map_err(|_| Dropped::Unauthenticated)?;
        let peer = received.initiator;
        let (boot, counter) = boot_and_counter(&received.payload);
        if peer == self.id {
            return self.answer_copy(via, received, boot, network);
        }
        self.check_life(&peer, boot, counter)?;
        if self.is_barred(&peer, boot, via) {
            return Err(Dropped::Duplicate);
        }
        if self.id > peer && self.has_first_message(&peer) && !self.falls_short(&peer, via) {
            // Ours stands; it may never have reached the other side, so it goes where this one came from.
            self.prospect_speaks(peer, network);
            self.seek_in(network, peer, Some((via, Source::Seen)), None);
            self.repeat_first_message(peer, via);
            return Err(Dropped::Unexpected);
        }
        self.answer_first_message(via, received, Said { boot, counter, network, mac1, proved })
    }

    /// In the open network only neighbours are answered; in a private one the membership is proved.
    pub(super) fn check_address(&self, addr: IpAddr) -> Result<(), Dropped> {
        let known = || self.lan.is_static(addr);
        if self.config.network.current().kind() == NetworkKind::Open
            && !self.links.is_local_network(addr)
            && !known()
        {
            return Err(Dropped::ForeignAddress);
        }
        Ok(())
    }

    /// A copy of a first message, from another interface of its sender, gets the answer that the first one got.
    fn answer_again(&mut self, via: Route, mac1: Tag) -> Option<Result<(), Dropped>> {
        let now = self.now;
        let known = self.handshakes.half_open.values_mut().find(|half| half.said.mac1 == mac1)?;
        if now.since(known.since) > ANSWER_LIFE {
            return None;
        }
        if !known.sources.iter().any(|source| source.is_way_of(&via)) {
            if known.sources.len() >= limits::ANSWER_COPIES {
                return Some(Err(Dropped::OverLimit));
            }
            known.sources.push(via);
        }
        self.outbox.push(Destination::One(via), &known.response);
        Some(Ok(()))
    }

    fn is_loaded(&mut self) -> bool {
        let now = self.now;
        self.handshakes.half_open.len() >= LOAD_HALF_OPEN
            || self.handshakes.count_this_second(now).1 >= LOAD_A_SECOND
    }

    /// Whether there are as many half-open handshakes from there as there may be without a proof of the address.
    fn is_crowded(&self, origin: Origin) -> bool {
        let unproved = |half: &&HalfOpen| !half.said.proved && half.origin == origin;
        self.handshakes.half_open.values().filter(unproved).count() >= limits::HALF_OPEN_PER_SOURCE
            // Daemons side by side on one host all come from the same address.
            && !matches!(origin, Origin::Neighbour(addr) if addr.is_loopback())
    }

    /// In a full table the oldest without a proof of its address makes room, else the oldest of the heaviest origin.
    fn make_room_for_half_open(&mut self) {
        let Handshakes { half_open, indices, .. } = &mut self.handshakes;
        if half_open.len() < limits::HALF_OPEN {
            return;
        }
        let crowd = Crowd::of(half_open.values().filter(|half| half.said.proved).map(|half| half.origin));
        let goes = half_open.iter().max_by_key(|(_, half)| {
            (!half.said.proved, crowd.weight(Some(half.origin)), std::cmp::Reverse(half.since))
        });
        if let Some(index) = goes.map(|(index, _)| *index) {
            half_open.remove(&index);
            indices.remove(&index);
        }
    }

    /// A recording of an earlier handshake is refused (protocol.md, 3.3).
    fn check_life(&self, peer: &NodeId, boot: BootId, counter: u64) -> Result<(), Dropped> {
        let Some(known) = self.peers.get(peer) else { return Ok(()) };
        let recorded = known.past_boots.contains(&boot)
            || (known.boot == Some(boot) && counter <= known.handshake_counter);
        if recorded { Err(Dropped::Replayed) } else { Ok(()) }
    }

    fn answer_first_message(&mut self, via: Route, received: Received, said: Said) -> Result<(), Dropped> {
        let peer = received.initiator;
        let remote = received.sender;
        let index = self.free_index();
        let (keys, response) = self.respond(received, index, said.network)?;
        // The other side's handshake stands: ours would only cross it. If theirs comes to nothing, ours starts anew. One
        // of ours that falls short is kept: should it have arrived by another way, the other side has dropped its own.
        if self.has_first_message(&peer) && !self.falls_short(&peer, via) {
            self.forget_first_message(peer);
            self.timers.set(Timer::Handshake(peer), self.now + RETRY[2]);
        }
        let half_open = HalfOpen {
            peer,
            said,
            session: Session::new(keys, remote),
            since: self.now,
            response,
            origin: Origin::of(via.remote.ip(), &self.links),
            sources: vec![via],
        };
        self.make_room_for_half_open();
        self.handshakes.half_open.insert(index, half_open);
        self.handshakes.indices.insert(index, Owner::HalfOpen);
        self.timers.set_sooner(Timer::HalfOpen, self.now + HALF_OPEN_LIFE);
        self.outbox.push(Destination::One(via), &response);
        Ok(())
    }

    /// Our answer to a first message.
    pub(super) fn respond(
        &mut self,
        received: Received,
        index: SessionIndex,
        network: NetworkTag,
    ) -> Result<(SessionKeys, [u8; size::RESPONSE]), Dropped> {
        let ephemeral = self.random();
        // protocol.md, 3.2: boot id, length of the name, name, zeros
        let mut payload = [0; size::RESPONSE_PAYLOAD];
        payload[..8].copy_from_slice(&self.boot.0.to_le_bytes());
        let name = self.config.name.as_str().as_bytes();
        payload[8] = u8::try_from(name.len()).unwrap_or(0);
        payload[9..9 + name.len()].copy_from_slice(name);
        let answered = received.respond(self.config.network.of(network), index, ephemeral, &payload);
        answered.map_err(|_| Dropped::Unauthenticated)
    }

    pub(crate) fn on_half_open_timer(&mut self) {
        let now = self.now;
        let Handshakes { half_open, indices, .. } = &mut self.handshakes;
        half_open.retain(|index, half| {
            let alive = now.since(half.since) < HALF_OPEN_LIFE;
            if !alive {
                indices.remove(index);
            }
            alive
        });
        if let Some(oldest) = self.handshakes.oldest() {
            self.timers.set(Timer::HalfOpen, oldest + HALF_OPEN_LIFE);
        }
    }

    /// The first data packet of a session that we answered: its initiator is alive, and now it commits.
    pub(crate) fn on_first_data(
        &mut self,
        via: Route,
        index: SessionIndex,
        packet: &[u8],
    ) -> Result<(), Dropped> {
        let half = self.handshakes.half_open.get_mut(&index).ok_or(Dropped::UnknownSession)?;
        let mut packet = packet.to_vec();
        half.session.open(&mut packet).map_err(|_| Dropped::Unauthenticated)?;
        let Some(half) = self.handshakes.half_open.remove(&index) else {
            return Err(Dropped::UnknownSession);
        };
        // Another handshake of the same life may have committed since this one began.
        if let Err(reason) = self.check_life(&half.peer, half.said.boot, half.said.counter) {
            self.handshakes.indices.remove(&index);
            return Err(reason);
        }
        let (peer, boot) = (half.peer, half.said.boot);
        let claim = Claim { half, index, via, packet };
        if self.lives_elsewhere(&peer, boot, via) {
            return self.contest(peer, boot, via, Some(claim));
        }
        self.accept_claim(claim)
    }

    /// Begins the session of a first message whose sender has proved that it is alive.
    pub(super) fn accept_claim(&mut self, claim: Claim) -> Result<(), Dropped> {
        let Claim { half, index, via, packet } = claim;
        let plaintext = &packet[size::DATA_HEADER..packet.len() - size::TAG];
        // Its name stands in its first record: whoever is told that it entered is told the name too.
        let name = name_in(plaintext);
        let established = Established {
            session: half.session,
            network: half.said.network,
            index,
            since: self.now,
            initiator: false,
            used: false,
        };
        // It holds our response, so it is where that went. Another address is a claim, and is asked first.
        let answered = half.sources.iter().any(|source| source.is_way_of(&via));
        let path = if answered { via } else { half.sources.first().copied().unwrap_or(via) };
        if !self.establish(
            half.peer,
            established,
            half.said.boot,
            Some(half.said.counter),
            name.as_ref(),
            path,
        ) {
            return Err(Dropped::OverLimit);
        }
        if !answered {
            self.challenge(half.peer, via);
        }
        self.on_records(half.peer, via, plaintext);
        self.introduce_ourselves(half.peer);
        Ok(())
    }

    pub(crate) fn on_cookie_timer(&mut self) {
        let secret = self.random();
        self.handshakes.cookies.rotate(secret);
        self.timers.set(Timer::Cookie, self.now + COOKIE_LIFE);
    }
}

fn name_in(plaintext: &[u8]) -> Option<NodeName> {
    Records::new(plaintext).find_map(|record| match record {
        Ok(Read::Record(Record::About { name, .. })) => name.parse().ok(),
        _ => None,
    })
}

fn boot_and_counter(payload: &[u8; size::INITIATION_PAYLOAD]) -> (BootId, u64) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&payload[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (BootId(number(0)), number(8))
}
