//! Making sessions: whom we seek, whom we answered, and who has to prove more first (protocol.md, 3 and 4).
//!
//! A [`Prospect`] is somebody whom we want a session with: a hint named its id, or it is a peer whose keys are old. It
//! gets one first message, the same bytes to all addresses at which it may be. An answered first message of somebody
//! else is a [`HalfOpen`]: it commits nothing before its first data packet proves that it is no recording.
//!
//! If both sides start, the first message of the larger id stands.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::core::api::{Destination, Dropped, Route};
use crate::core::paths::{Candidates, Source};
use crate::core::sessions::Established;
use crate::core::timers::Timer;
use crate::core::whois::Whois;
use crate::core::{Node, random};
use crate::crypto::cookie::{self, CookieJar};
use crate::crypto::handshake::{self, Initiator, Received};
use crate::crypto::network::NetworkKind;
use crate::crypto::session::Session;
use crate::id::{BootId, NodeId, NodeName, SessionIndex};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::{Read, Record, Records};
use crate::wire::packet::{field, size};

/// From one first message to the next (protocol.md, 3.4).
pub(super) const RETRY: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(5),
];
/// A hint that leads nowhere is given up with the end of [`RETRY`]; a peer that an app waits for is sought on, every
/// 5 s, as long as it waits.
pub(super) const ATTEMPTS: usize = RETRY.len();
/// One first message is used for this long; then a new one is made, so that an answer never meets old keys.
const FIRST_MESSAGE_LIFE: Duration = Duration::from_secs(5);
/// How many we seek at once; hints beyond that wait for the next time that they are heard.
const PROSPECTS: usize = 1024;
/// First messages that leave in a burst, and a second: 100 a second are 16 kB/s, which no network minds.
const FIRST_MESSAGE_BURST: f64 = 32.0;
const FIRST_MESSAGES_A_SECOND: f64 = 100.0;
/// Different prospects may not send first messages to one address faster: hearsay must not become a weapon.
const ONE_ADDRESS: Duration = Duration::from_secs(1);
/// A half-open handshake that has not spoken after this time never will: its initiator has given up by then.
const HALF_OPEN_LIFE: Duration = Duration::from_secs(5);
/// A copy of a first message gets the stored answer for this long; afterwards it is a new one.
const ANSWER_LIFE: Duration = Duration::from_secs(1);
/// So many handshakes waiting or in one second are load: whoever wants one more proves its address first.
const LOAD_HALF_OPEN: usize = 128;
const LOAD_A_SECOND: u32 = 200;
/// How long a cookie lives: WireGuard's value, long enough for any retry.
const COOKIE_LIFE: Duration = Duration::from_secs(120);
/// Every handshake that is not finished.
#[derive(Debug)]
pub(crate) struct Handshakes {
    prospects: BTreeMap<NodeId, Prospect>,
    half_open: BTreeMap<SessionIndex, HalfOpen>,
    /// Whose every index of ours is.
    pub(crate) indices: BTreeMap<SessionIndex, Owner>,
    cookies: CookieJar,
    /// Room for first messages: refilled by time, one a message.
    tokens: f64,
    refilled: Instant,
    addressed: BTreeMap<SocketAddr, (Instant, NodeId)>,
    counter: u64,
    /// This second, the first messages answered in it, and the whois questions answered in it.
    second: (u64, u32, u32),
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
}

/// Somebody whom we want a session with.
#[derive(Debug)]
struct Prospect {
    candidates: Candidates,
    attempts: usize,
    first_message: Option<FirstMessage>,
    /// Who told us of it, if it was another peer.
    teller: Option<NodeId>,
    since: Instant,
    last_sent: Option<Instant>,
}

#[derive(Debug)]
struct FirstMessage {
    initiator: Initiator,
    packet: [u8; size::INITIATION],
    made: Instant,
}

/// A first message that we answered.
#[derive(Debug)]
struct HalfOpen {
    peer: NodeId,
    boot: BootId,
    counter: u64,
    session: Session,
    since: Instant,
    mac1: [u8; size::MAC],
    response: [u8; size::RESPONSE],
    sources: Vec<SocketAddr>,
}

impl Handshakes {
    pub(crate) fn new(cookie_secret: [u8; 32]) -> Self {
        Self {
            prospects: BTreeMap::new(),
            half_open: BTreeMap::new(),
            indices: BTreeMap::new(),
            cookies: CookieJar::new(cookie_secret),
            tokens: FIRST_MESSAGE_BURST,
            refilled: Instant::default(),
            addressed: BTreeMap::new(),
            counter: 0,
            second: (0, 0, 0),
            whois: Whois::default(),
        }
    }

    /// Whether we seek `peer`.
    pub(crate) fn seeks(&self, peer: &NodeId) -> bool {
        self.prospects.contains_key(peer)
    }

    /// How many handshakes wait for their first data packet.
    pub(crate) fn half_open(&self) -> usize {
        self.half_open.len()
    }

    fn take_token(&mut self, now: Instant) -> bool {
        let passed = now.since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * FIRST_MESSAGES_A_SECOND).min(FIRST_MESSAGE_BURST);
        self.refilled = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }

    fn may_address(&mut self, addr: SocketAddr, prospect: NodeId, now: Instant) -> bool {
        if self.addressed.len() >= PROSPECTS {
            self.addressed.retain(|_, (at, _)| now.since(*at) < ONE_ADDRESS);
        }
        let free = match self.addressed.get(&addr) {
            Some((at, by)) => *by == prospect || now.since(*at) >= ONE_ADDRESS,
            None => self.addressed.len() < PROSPECTS,
        };
        if free {
            self.addressed.insert(addr, (now, prospect));
        }
        free
    }

    pub(super) fn count_this_second(&mut self, now: Instant) -> &mut (u64, u32, u32) {
        let second = now.since_origin().as_secs();
        if self.second.0 != second {
            self.second = (second, 0, 0);
        }
        &mut self.second
    }
}

impl Node {
    /// Wants a session with `id`, which may be at `route`. With `route` none, at the addresses known of it.
    pub(crate) fn seek(&mut self, id: NodeId, route: Option<(Route, Source)>, teller: Option<NodeId>) {
        if id == self.id {
            return;
        }
        let known = self.peers.get(&id).map(|peer| peer.candidates.clone());
        let prospects = &mut self.handshakes.prospects;
        if !prospects.contains_key(&id) {
            if prospects.len() >= PROSPECTS {
                // The newest hints come first: the oldest that came from others makes room.
                let oldest =
                    prospects.iter().filter(|(id, _)| !self.peers.get(id).is_some_and(|p| p.is_online()));
                let Some(oldest) = oldest.min_by_key(|(_, prospect)| prospect.since).map(|(id, _)| *id)
                else {
                    return;
                };
                self.give_up(oldest, "too many prospects");
            }
            let candidates = known.unwrap_or_default();
            let since = self.now;
            let prospect =
                Prospect { candidates, attempts: 0, first_message: None, teller, since, last_sent: None };
            self.handshakes.prospects.insert(id, prospect);
        }
        let Some(prospect) = self.handshakes.prospects.get_mut(&id) else { return };
        let mut fresh = prospect.attempts == 0;
        if let Some((route, source)) = route {
            fresh |= !prospect.candidates.iter().any(|candidate| candidate.route.remote == route.remote);
            // Back-off must not make us deaf: a hint after a while says that the way may be open again.
            fresh |= prospect.last_sent.is_some_and(|sent| self.now.since(sent) >= ONE_ADDRESS);
            prospect.candidates.add(route, source);
            // A newly seen address is worth a new series.
            if fresh && source < Source::Hearsay {
                prospect.attempts = 0;
            }
        }
        if prospect.candidates.is_empty() {
            self.give_up(id, "no address");
        } else if fresh {
            self.send_first_message(id);
        }
    }

    /// Seeks the peers of earlier runs where they were last.
    pub(crate) fn seek_remembered(&mut self) {
        let known: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| !p.candidates.is_empty() && !p.is_online())
            .map(|(id, _)| *id)
            .collect();
        for id in known.into_iter().take(PROSPECTS / 2) {
            self.seek(id, None, None);
        }
    }

    /// Sends our first message to all addresses at which the prospect may be, and awaits the answer.
    fn send_first_message(&mut self, id: NodeId) {
        let now = self.now;
        let stale = |first: &FirstMessage| now.since(first.made) >= FIRST_MESSAGE_LIFE;
        let Some(prospect) = self.handshakes.prospects.get(&id) else { return };
        if prospect.first_message.as_ref().is_none_or(stale) && !self.make_first_message(id) {
            return;
        }
        if !self.handshakes.take_token(now) {
            self.timers.set(Timer::Handshake(id), now + Duration::from_millis(100));
            return;
        }
        let Some(prospect) = self.handshakes.prospects.get_mut(&id) else { return };
        let step = RETRY[prospect.attempts.min(ATTEMPTS - 1)];
        prospect.attempts += 1;
        prospect.last_sent = Some(now);
        let Some(first) = &prospect.first_message else { return };
        let packet = first.packet;
        let candidates: Vec<_> = prospect.candidates.iter().copied().collect();
        for candidate in candidates {
            let trusted = candidate.source <= Source::Proved;
            if trusted || self.handshakes.may_address(candidate.route.remote, id, now) {
                self.outbox.push(Destination::One(candidate.route), &packet);
            }
        }
        let retry = self.jittered(step);
        self.timers.set(Timer::Handshake(id), now + retry);
    }

    fn make_first_message(&mut self, id: NodeId) -> bool {
        self.forget_first_message(id);
        let index = self.free_index();
        let ephemeral = self.random();
        self.handshakes.counter += 1;
        // protocol.md, 3.2: boot id, counter, zeros
        let mut payload = [0; size::INITIATION_PAYLOAD];
        payload[..8].copy_from_slice(&self.boot.0.to_le_bytes());
        payload[8..16].copy_from_slice(&self.handshakes.counter.to_le_bytes());
        let made = Initiator::start(&self.identity, &self.config.network, &id, index, ephemeral, &payload);
        let Some((initiator, packet)) = made else {
            self.give_up(id, "its id is no key");
            return false;
        };
        self.handshakes.indices.insert(index, Owner::Prospect(id));
        if let Some(prospect) = self.handshakes.prospects.get_mut(&id) {
            prospect.first_message = Some(FirstMessage { initiator, packet, made: self.now });
        }
        true
    }

    fn forget_first_message(&mut self, id: NodeId) {
        let prospect = self.handshakes.prospects.get_mut(&id);
        if let Some(first) = prospect.and_then(|prospect| prospect.first_message.take()) {
            self.handshakes.indices.remove(&first.initiator.sender());
        }
    }

    /// An index that nothing of ours has.
    fn free_index(&mut self) -> SessionIndex {
        loop {
            let index = SessionIndex::from_bits(self.rng.next_u32());
            if !self.handshakes.indices.contains_key(&index) {
                return index;
            }
        }
    }

    pub(crate) fn on_handshake_timer(&mut self, id: NodeId) {
        let Some(prospect) = self.handshakes.prospects.get(&id) else { return };
        if prospect.attempts < ATTEMPTS || self.is_awaited(id) {
            self.send_first_message(id);
        } else {
            self.give_up(id, "no answer");
        }
    }

    /// Stops seeking `id`.
    pub(crate) fn give_up(&mut self, id: NodeId, reason: &'static str) {
        self.forget_first_message(id);
        self.timers.clear(Timer::Handshake(id));
        let Some(prospect) = self.handshakes.prospects.remove(&id) else { return };
        debug!(peer = ?id, reason, "no session");
        if let Some(teller) = prospect.teller {
            self.blame(teller);
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && !peer.is_online()
        {
            peer.why = "no answer at any address that is known of it";
        }
    }

    /// Forgets all that was begun, for another network.
    pub(crate) fn forget_handshakes(&mut self) {
        let ids: Vec<_> = self.handshakes.prospects.keys().copied().collect();
        for id in ids {
            self.forget_first_message(id);
            self.timers.clear(Timer::Handshake(id));
        }
        self.handshakes.prospects.clear();
        for index in std::mem::take(&mut self.handshakes.half_open).into_keys() {
            self.handshakes.indices.remove(&index);
        }
    }

    pub(crate) fn on_initiation(
        &mut self,
        via: Route,
        packet: &[u8; size::INITIATION],
    ) -> Result<(), Dropped> {
        if !handshake::check_mac1(&self.config.network, &self.id, packet) {
            return Err(Dropped::Unauthenticated);
        }
        self.check_address(via.remote.ip())?;
        let mut mac1 = [0; size::MAC];
        mac1.copy_from_slice(&packet[field::INITIATION_MAC1]);
        if let Some(answered) = self.answer_again(via, &mac1) {
            return answered;
        }
        if self.is_loaded() && !self.handshakes.cookies.check_mac2(&via.remote, packet) {
            let nonce = random(&mut *self.rng);
            let network = &self.config.network;
            let reply = self.handshakes.cookies.reply(network, &self.id, packet, &via.remote, nonce);
            self.outbox.push(Destination::One(via), &reply);
            return Err(Dropped::OverLimit);
        }
        if self.handshakes.half_open.len() >= limits::HALF_OPEN || self.is_crowded(via.remote.ip()) {
            return Err(Dropped::OverLimit);
        }
        self.handshakes.count_this_second(self.now).1 += 1;
        let received = Received::read(&self.identity, &self.config.network, packet)
            .map_err(|_| Dropped::Unauthenticated)?;
        let peer = received.initiator;
        if peer == self.id {
            return Err(Dropped::Unexpected);
        }
        let (boot, counter) = boot_and_counter(&received.payload);
        self.check_life(&peer, boot, counter)?;
        if self.id > peer && self.has_first_message(&peer) {
            // Ours stands; it may never have reached the other side, so it goes where this one came from.
            self.seek(peer, Some((via, Source::Seen)), None);
            return Err(Dropped::Unexpected);
        }
        self.answer_first_message(via, received, boot, counter, mac1)
    }

    /// In the open network only neighbours are answered; in a private one the membership is proved.
    pub(super) fn check_address(&self, addr: IpAddr) -> Result<(), Dropped> {
        let known = || self.lan.is_static(addr);
        if self.config.network.kind() == NetworkKind::Open && !self.links.is_local_network(addr) && !known() {
            return Err(Dropped::ForeignAddress);
        }
        Ok(())
    }

    /// A copy of a first message, from another interface of its sender, gets the answer that the first one got.
    fn answer_again(&mut self, via: Route, mac1: &[u8; size::MAC]) -> Option<Result<(), Dropped>> {
        let now = self.now;
        let known = self.handshakes.half_open.values_mut().find(|half| half.mac1 == *mac1)?;
        if now.since(known.since) > ANSWER_LIFE {
            return None;
        }
        if !known.sources.contains(&via.remote) {
            if known.sources.len() >= limits::ANSWER_COPIES {
                return Some(Err(Dropped::OverLimit));
            }
            known.sources.push(via.remote);
        }
        self.outbox.push(Destination::One(via), &known.response);
        Some(Ok(()))
    }

    fn is_loaded(&mut self) -> bool {
        let now = self.now;
        self.handshakes.half_open.len() >= LOAD_HALF_OPEN
            || self.handshakes.count_this_second(now).1 >= LOAD_A_SECOND
    }

    fn is_crowded(&self, source: IpAddr) -> bool {
        let of_source = |half: &&HalfOpen| half.sources.iter().any(|addr| addr.ip() == source);
        self.handshakes.half_open.values().filter(of_source).count() >= limits::HALF_OPEN_PER_SOURCE
            // Daemons side by side on one host all come from the same address.
            && !source.is_loopback()
    }

    /// A recording of an earlier handshake is refused (protocol.md, 3.3).
    fn check_life(&self, peer: &NodeId, boot: BootId, counter: u64) -> Result<(), Dropped> {
        let Some(known) = self.peers.get(peer) else { return Ok(()) };
        let recorded = known.past_boots.contains(&boot)
            || (known.boot == Some(boot) && counter <= known.handshake_counter);
        if recorded { Err(Dropped::Replayed) } else { Ok(()) }
    }

    fn has_first_message(&self, peer: &NodeId) -> bool {
        self.handshakes.prospects.get(peer).is_some_and(|prospect| prospect.first_message.is_some())
    }

    fn answer_first_message(
        &mut self,
        via: Route,
        received: Received,
        boot: BootId,
        counter: u64,
        mac1: [u8; size::MAC],
    ) -> Result<(), Dropped> {
        let peer = received.initiator;
        let remote = received.sender;
        let index = self.free_index();
        let ephemeral = self.random();
        // protocol.md, 3.2: boot id, length of the name, name, zeros
        let mut payload = [0; size::RESPONSE_PAYLOAD];
        payload[..8].copy_from_slice(&self.boot.0.to_le_bytes());
        let name = self.config.name.as_str().as_bytes();
        payload[8] = u8::try_from(name.len()).unwrap_or(0);
        payload[9..9 + name.len()].copy_from_slice(name);
        let answered = received.respond(&self.config.network, index, ephemeral, &payload);
        let (keys, response) = answered.map_err(|_| Dropped::Unauthenticated)?;
        // The other side's handshake stands: ours would only cross it. If theirs comes to nothing, ours starts anew.
        if self.has_first_message(&peer) {
            self.forget_first_message(peer);
            self.timers.set(Timer::Handshake(peer), self.now + RETRY[2]);
        }
        let half_open = HalfOpen {
            peer,
            boot,
            counter,
            session: Session::new(keys, remote),
            since: self.now,
            mac1,
            response,
            sources: vec![via.remote],
        };
        self.handshakes.half_open.insert(index, half_open);
        self.handshakes.indices.insert(index, Owner::HalfOpen);
        self.timers.set_sooner(Timer::HalfOpen, self.now + HALF_OPEN_LIFE);
        self.outbox.push(Destination::One(via), &response);
        Ok(())
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
        if let Some(oldest) = half_open.values().map(|half| half.since).min() {
            self.timers.set(Timer::HalfOpen, oldest + HALF_OPEN_LIFE);
        }
    }

    /// The first data packet of a session that we answered: its initiator is alive, and now it commits.
    pub(crate) fn on_first_data(
        &mut self,
        via: Route,
        index: SessionIndex,
        packet: &mut [u8],
    ) -> Result<Option<NodeId>, Dropped> {
        let half = self.handshakes.half_open.get_mut(&index).ok_or(Dropped::UnknownSession)?;
        let mut probe = packet.to_vec();
        let plaintext = half.session.open(&mut probe).map_err(|_| Dropped::Unauthenticated)?;
        // Its name stands in its first record: whoever is told that it entered is told the name too.
        let name = name_in(plaintext);
        packet.copy_from_slice(&probe);
        let Some(half) = self.handshakes.half_open.remove(&index) else {
            return Err(Dropped::UnknownSession);
        };
        // Another handshake of the same life may have committed since this one began.
        if let Err(reason) = self.check_life(&half.peer, half.boot, half.counter) {
            self.handshakes.indices.remove(&index);
            return Err(reason);
        }
        let established =
            Established { session: half.session, index, since: self.now, initiator: false, used: false };
        let admitted =
            self.establish(half.peer, established, half.boot, Some(half.counter), name.as_ref(), via);
        Ok(admitted.then_some(half.peer))
    }

    pub(crate) fn on_response(&mut self, via: Route, packet: &[u8; size::RESPONSE]) -> Result<(), Dropped> {
        let index = crate::wire::packet::index_at(packet, field::RESPONSE_RECEIVER);
        let Some(Owner::Prospect(peer)) = self.handshakes.indices.get(&index).copied() else {
            return Err(Dropped::UnknownSession);
        };
        let prospect =
            self.handshakes.prospects.get(&peer).and_then(|prospect| prospect.first_message.as_ref());
        let first = prospect.ok_or(Dropped::UnknownSession)?;
        let finished = first.initiator.finish(&self.identity, &self.config.network, packet);
        let (keys, payload) = finished.map_err(|_| Dropped::Unauthenticated)?;
        let (boot, name) = boot_and_name(&payload).ok_or(Dropped::Malformed)?;
        if self.peers.get(&peer).is_some_and(|known| known.past_boots.contains(&boot)) {
            return Err(Dropped::Replayed);
        }
        let asked = first.made;
        let remote = crate::wire::packet::index_at(packet, field::SENDER);
        let established = Established {
            session: Session::new(keys, remote),
            index,
            since: self.now,
            initiator: true,
            used: false,
        };
        // The index goes over to the session: it must not be freed with the first message.
        if let Some(prospect) = self.handshakes.prospects.get_mut(&peer) {
            prospect.first_message = None;
        }
        if !self.establish(peer, established, boot, None, Some(&name), via) {
            return Err(Dropped::OverLimit);
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.round_trip.sample(self.now.since(asked));
        }
        self.introduce_ourselves(peer);
        Ok(())
    }

    /// A session with `peer` is made: nothing more is to be sought, and what was learnt on the way is kept.
    pub(crate) fn prospect_met(&mut self, peer: NodeId) -> Candidates {
        self.forget_first_message(peer);
        self.timers.clear(Timer::Handshake(peer));
        let met = self.handshakes.prospects.remove(&peer);
        if let Some(teller) = met.as_ref().and_then(|prospect| prospect.teller)
            && let Some(teller) = self.peers.get_mut(&teller)
        {
            teller.failed_hints = 0;
        }
        met.map(|prospect| prospect.candidates).unwrap_or_default()
    }

    pub(crate) fn on_cookie(&mut self, packet: &[u8; size::COOKIE]) -> Result<(), Dropped> {
        let index = crate::wire::packet::index_at(packet, field::RECEIVER);
        let Some(Owner::Prospect(peer)) = self.handshakes.indices.get(&index).copied() else {
            return Err(Dropped::UnknownSession);
        };
        let prospect = self.handshakes.prospects.get_mut(&peer);
        let first =
            prospect.and_then(|prospect| prospect.first_message.as_mut()).ok_or(Dropped::UnknownSession)?;
        let mut mac1 = [0; size::MAC];
        mac1.copy_from_slice(&first.packet[field::INITIATION_MAC1]);
        let cookie = cookie::open_cookie(&self.config.network, &peer, packet, &mac1);
        // Used at the next retry: a cookie makes nothing leave at once, so a forged or repeated one cannot either.
        handshake::set_mac2(&mut first.packet, &cookie.ok_or(Dropped::Unauthenticated)?);
        self.timers.set_sooner(Timer::Handshake(peer), self.now + RETRY[0]);
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

fn boot_and_name(payload: &[u8; size::RESPONSE_PAYLOAD]) -> Option<(BootId, NodeName)> {
    let (boot, rest) = payload.split_first_chunk::<8>()?;
    let (length, name) = rest.split_first()?;
    let name = std::str::from_utf8(name.get(..usize::from(*length))?).ok()?;
    Some((BootId(u64::from_le_bytes(*boot)), name.parse().ok()?))
}
