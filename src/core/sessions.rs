//! Sessions in use: their beginning, what is told in them, their renewal and their end (protocol.md, 4).
//!
//! Each peer has the session that we send in and the one before it, in which late packets may still come. Renewal
//! belongs to the side that began; the other follows a little later, should the first one not.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info};

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Route};
use crate::core::handshakes::Owner;
use crate::core::introductions::is_public;
use crate::core::origin::Origin;
use crate::core::paths::{COMPARE_AGAIN, PATH_HELD, Question, Source, WORTH_COMPARING};
use crate::core::relays::is_relayed;
use crate::core::ring::LET_GO;
use crate::core::timers::Timer;
use crate::crypto::network::NetworkTag;
use crate::crypto::session::{OpenError, Session};
use crate::id::{BootId, Channel, NodeId, NodeName, SessionIndex};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::{self, Record};
use crate::wire::packet::size;

/// A session that is used for this long is renewed (WireGuard's REKEY_AFTER_TIME).
const RENEW_IN_USE: Duration = Duration::from_secs(120);
/// The side that answered waits this much longer before it renews itself.
const RENEW_MARGIN: Duration = Duration::from_secs(10);
/// No app's data travels under keys older than this (WireGuard's REJECT_AFTER_TIME).
pub(crate) const DATA_LIFE: Duration = Duration::from_secs(180);
/// An idle session is renewed at this age, so that a goodbye can still be said in it.
const RENEW_IDLE: Duration = Duration::from_secs(480);
/// The keys are wiped at this age.
const LIFE: Duration = Duration::from_secs(540);

/// A session whose other side proved to be alive.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) session: Session,
    /// Whose secret made it.
    pub(crate) network: NetworkTag,
    /// What we call it.
    pub(crate) index: SessionIndex,
    pub(crate) since: Instant,
    /// We sent the first message.
    pub(crate) initiator: bool,
    /// An app's data went through it.
    pub(crate) used: bool,
}

impl Node {
    /// Commits a session: `counter` is that of the peer's first message, `name` what its second one said. Says
    /// whether there was room for the peer.
    pub(crate) fn establish(
        &mut self,
        id: NodeId,
        established: Established,
        boot: BootId,
        counter: Option<u64>,
        name: Option<&NodeName>,
        via: Route,
    ) -> bool {
        let index = established.index;
        if !self.make_room(id) || self.peers.admit(id, name).is_none() {
            self.handshakes.indices.remove(&index);
            return false;
        }
        self.handshakes.indices.insert(index, Owner::Peer(id));
        let learnt = self.prospect_met(id);
        self.note_answered(id);
        if self.peers.get(&id).is_some_and(|peer| peer.boot.is_some_and(|before| before != boot)) {
            self.restarted(id);
        }
        let (links, now) = (&self.links, self.now);
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        for candidate in learnt.iter() {
            peer.candidates.add(candidate.route, candidate.source);
        }
        peer.candidates.add(links.own_end(via), Source::Proved);
        peer.boot = Some(boot);
        peer.network = Some(established.network);
        if let Some(counter) = counter {
            peer.handshake_counter = counter;
        }
        let replaced = std::mem::replace(&mut peer.previous, peer.current.replace(Box::new(established)));
        if let Some(replaced) = replaced {
            self.handshakes.indices.remove(&replaced.index);
        }
        let entered = !peer.is_online();
        let better = peer.path.is_none_or(|path| {
            let rank = |route: Route| links.rank(route);
            let penalised = !path.is_way_of(&via) && peer.candidates.is_penalised(via, now);
            rank(via) <= rank(path) && !penalised || now.since(peer.path_heard) > PATH_STALE
        });
        peer.origin = Some(Origin::of(via.remote.ip(), links));
        peer.met.get_or_insert(now);
        peer.heard = Some(now);
        peer.lost = None;
        peer.path_heard = now;
        peer.liveness.heard(now);
        peer.comparison = None;
        self.timers.clear(Timer::Lost(id));
        self.timers.set(Timer::Session(id), now + LET_GO);
        self.end_previous(id);
        if better {
            self.take_path(id, via);
        }
        if entered {
            self.entered(id);
        }
        let routes =
            self.peers.get(&id).map(|peer| peer.candidates.iter().map(|known| known.route).collect());
        self.try_other_interfaces(id, routes.unwrap_or_default());
        if self.peers.get(&id).is_some_and(|peer| peer.is_near()) {
            self.met(id);
        }
        self.names_changed();
        self.resume_delivery(id);
        true
    }

    /// `id` is reached by `via` from now on.
    fn take_path(&mut self, id: NodeId, via: Route) {
        let kind = self.links.kind(via.remote.ip());
        let via = self.links.own_end(via);
        self.begin_mtu(id, via);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.path.replace(via);
        let since = std::mem::replace(&mut peer.path_since, self.now);
        peer.round_trip = peer.candidates.round_trip(via);
        if let Some(before) = before
            && self.links.rank(before) < self.links.rank(via)
        {
            peer.candidates.fell(before, since, self.now);
        }
        if before.is_some_and(|before| before.port != via.port) {
            peer.sees_us = None;
        }
        let kind_changed = std::mem::replace(&mut peer.last_kind, kind) != kind;
        if is_public(via.remote.ip()) {
            // Perhaps a translator is between: where we see it may be news to it.
            self.tell(id, &Record::YouAre { addr: via.remote });
        }
        if before.is_none() {
            return;
        }
        debug!(peer = %id.short(), path = %via.remote, "path");
        self.remember();
        self.choose_warm();
        self.path_changed(id);
        if kind_changed {
            self.presence_changed(id);
        }
        if self.peers.recount(id) {
            self.nearness_changed(id);
        }
    }

    /// A peer says where it sees us.
    pub(crate) fn on_you_are(&mut self, from: NodeId, addr: SocketAddr) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if is_public(addr.ip()) && peer.path.is_some_and(|path| is_public(path.remote.ip())) {
            peer.sees_us = Some(addr);
        }
    }

    /// `id` is reached without a relay, and was not before, or the other way round.
    fn nearness_changed(&mut self, id: NodeId) {
        self.ring_changed();
        if self.peers.get(&id).is_some_and(|peer| peer.is_near()) {
            self.met(id);
        } else {
            self.stop_relaying(id);
            self.relay_left(id);
            self.meet_soon(id);
        }
    }

    /// The peer has a new life: what belonged to the old one ends.
    fn restarted(&mut self, id: NodeId) {
        self.exit(id, "restarted");
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(before) = peer.boot.take() {
            peer.past_boots.push_back(before);
            if peer.past_boots.len() > limits::PAST_BOOTS {
                peer.past_boots.pop_front();
            }
        }
        peer.handshake_counter = 0;
        self.forget_remote_topics(id);
        self.end_numbered(id);
    }

    fn entered(&mut self, id: NodeId) {
        self.peers.recount(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.topics.begin(self.now);
        }
        info!(peer = %id.short(), "enter");
        if let Some(peer) = self.peers.get(&id) {
            debug!(peer = %id.short(), name = %peer.name, path = ?peer.path, "enter");
        }
        self.remember();
        self.presence_changed(id);
        self.ring_changed();
        self.choose_warm();
        if self.peers.get(&id).is_some_and(|peer| !peer.is_near()) {
            self.meet_soon(id);
        }
    }

    /// The peer is gone: its sessions are wiped, its apps are told.
    pub(crate) fn exit(&mut self, id: NodeId, reason: &'static str) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.stayed = peer.has_stayed(now);
        let online = peer.path.take().is_some();
        peer.why = reason;
        peer.liveness = Default::default();
        peer.train.clear(&mut self.outbox, &mut peer.flight);
        peer.path_mtu = Default::default();
        peer.datagram_bytes = limits::DATAGRAM_BYTES;
        peer.flight.change_path(limits::DATAGRAM_BYTES);
        peer.inbox.drop_held();
        peer.receipts = Default::default();
        for gone in [peer.current.take(), peer.previous.take()].into_iter().flatten() {
            self.handshakes.indices.remove(&gone.index);
        }
        for timer in [
            Timer::Session(id),
            Timer::Liveness(id),
            Timer::Topics(id),
            Timer::Flight(id),
            Timer::Receipt(id),
        ] {
            self.timers.clear(timer);
        }
        self.forget_parts(id);
        if online {
            self.peers.recount(id);
            info!(peer = %id.short(), reason, "exit");
            self.remember();
            self.forget_remote_topics(id);
            self.presence_changed(id);
            self.ring_changed();
            self.stop_relaying(id);
            self.relay_left(id);
            self.look_on();
            if self.is_awaited(id) {
                self.seek(id, None, None);
            }
        }
    }

    /// The peer is gone and did not say why: perhaps the network changed, so we look for everyone again.
    pub(crate) fn lose(&mut self, id: NodeId, reason: &'static str) {
        let near =
            !self.is_crowded_ring() || self.peers.get(&id).is_some_and(|peer| peer.liveness.is_linked());
        self.exit(id, reason);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.lost = Some(self.now);
        }
        self.seek(id, None, None);
        // One of many is missed by its neighbours: if all greeted, that would be the square of them.
        if near {
            self.kick("session lost");
            self.unsettle();
        }
    }

    /// A packet in a session.
    pub(crate) fn on_data(
        &mut self,
        via: Route,
        index: SessionIndex,
        packet: &mut [u8],
    ) -> Result<(), Dropped> {
        if let Some(Owner::HalfOpen) = self.handshakes.indices.get(&index) {
            return self.on_first_data(via, index, packet);
        }
        let (id, plaintext) = self.open(via, index, packet)?;
        self.on_records(id, via, plaintext);
        Ok(())
    }

    /// A packet in a session, with another one in it that has passed a relay or is to.
    pub(crate) fn on_relayed(
        &mut self,
        via: Route,
        index: SessionIndex,
        packet: &mut [u8],
    ) -> Result<(), Dropped> {
        if is_relayed(via.remote.ip()) {
            // One relay is enough, and two could make a circle.
            return Err(Dropped::Malformed);
        }
        let (id, plaintext) = self.open(via, index, packet)?;
        let (channel, inner) = plaintext.split_first_chunk().ok_or(Dropped::Malformed)?;
        let (channel, to_us) = Channel(u32::from_le_bytes(*channel)).parts();
        let mut inner = inner.to_vec();
        if to_us { self.on_unwrapped(id, channel, &mut inner) } else { self.pass_on(id, channel, &mut inner) }
    }

    /// Whose packet in a session it is, and its plaintext.
    fn open<'p>(
        &mut self,
        via: Route,
        index: SessionIndex,
        packet: &'p mut [u8],
    ) -> Result<(NodeId, &'p [u8]), Dropped> {
        let Some(Owner::Peer(id)) = self.handshakes.indices.get(&index).copied() else {
            return Err(Dropped::UnknownSession);
        };
        let now = self.now;
        let peer = self.peers.get_mut(&id).ok_or(Dropped::UnknownSession)?;
        let of_index = |slot: &&mut Box<Established>| slot.index == index;
        let slots = [peer.current.as_mut(), peer.previous.as_mut()];
        let session = slots.into_iter().flatten().find(of_index).ok_or(Dropped::UnknownSession)?;
        if now.since(session.since) > LIFE {
            return Err(Dropped::UnknownSession);
        }
        let (counter, plaintext) = session.session.open_counted(packet).map_err(|error| match error {
            OpenError::Replayed => Dropped::Replayed,
            OpenError::Tag => Dropped::Unauthenticated,
            OpenError::Length => Dropped::Malformed,
        })?;
        peer.receipts.note(index, counter, now);
        peer.heard = Some(now);
        if peer.path.is_some_and(|path| path.is_way_of(&via)) {
            peer.path_heard = now;
            peer.liveness.heard(now);
        } else {
            self.challenge(id, via);
            // It may have left our path because that one is dead.
            self.doubt(id);
        }
        Ok((id, plaintext))
    }

    /// The peer sends from another address than the one we use: ask there, and keep the old one until the answer.
    pub(super) fn challenge(&mut self, id: NodeId, via: Route) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let asked =
            |question: &Question| question.route.is_way_of(&via) && now.since(question.asked) < CHALLENGE_GAP;
        if peer.is_online() && !peer.liveness.questions().any(asked) {
            self.ask(id, via);
        }
    }

    /// Sends a ping by `route`; its answer makes the route usable. Without a session a handshake asks the same.
    pub(crate) fn ask(&mut self, id: NodeId, route: Route) {
        if self.is_dormant(id) {
            return self.knock(id);
        }
        let token = self.rng.next_u64();
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.liveness.asked(Question { token, route, asked: now });
        self.tell_on(id, route, &Record::Ping { token, peers: self.acquaintances() });
    }

    /// The answer to a ping came, by the way it asked for.
    pub(crate) fn on_pong(&mut self, id: NodeId, via: Route, token: u64) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(question) = peer.liveness.answered(token, via) else { return };
        self.hold_place(id, question.asked);
        let links = &self.links;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let took = now.since(question.asked);
        peer.candidates.add(links.own_end(via), Source::Proved);
        let there = peer.candidates.sample(via, took);
        let Some(path) = peer.path else { return };
        if path.is_way_of(&via) {
            peer.round_trip.sample(took);
            peer.path_heard = now;
            peer.liveness.heard(now);
            // Our own network may be another one than it was.
            let kind = links.kind(via.remote.ip());
            if std::mem::replace(&mut peer.last_kind, kind) != kind {
                self.presence_changed(id);
            }
            return;
        }
        let (new, old) = (links.rank(via), links.rank(path));
        // A peer that moved is heard from where it is now, and no more from where it was.
        let silent = peer.path_heard <= question.asked;
        let better = match new.cmp(&old) {
            Ordering::Less => silent || !peer.candidates.is_penalised(via, now),
            Ordering::Equal if silent || peer.liveness.awaits(&path, question.asked) => true,
            Ordering::Equal if there.is_single() => {
                self.ask(id, via);
                false
            }
            Ordering::Equal => {
                there.beats(&peer.round_trip)
                    && now.since(peer.path_since) >= PATH_HELD
                    && !peer.candidates.is_penalised(via, now)
            }
            Ordering::Greater => {
                silent && peer.liveness.is_suspect() || now.since(peer.path_heard) > PATH_STALE
            }
        };
        if better {
            self.flush(id);
            self.take_path(id, via);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.path_heard = now;
                peer.liveness.heard(now);
            }
        }
    }

    /// Asks on those of `routes` that leave by another interface than the path, so that there is a second way before the
    /// first one dies.
    pub(super) fn try_other_interfaces(&mut self, id: NodeId, routes: Vec<Route>) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.current.is_some()) else { return };
        let Some(path) = peer.path else { return };
        for route in routes {
            if route.interface().is_some() && route.interface() != path.interface() {
                self.challenge(id, route);
            }
        }
    }

    /// Whether the interface is gone by which `id` was reached. Another way that is known takes its place at once.
    pub(super) fn leave_lost_interface(&mut self, id: NodeId) -> bool {
        let links = &self.links;
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let Some(path) = peer.path else { return false };
        let lost = links.has_lost(path);
        let renewed = links.renewed(path);
        peer.path = Some(renewed);
        // The same without its interface is no other way.
        let other = peer.candidates.best_beside(renewed, |route| links.rank(route));
        if let Some(other) = other.filter(|other| lost && !links.has_lost(*other) && links.may_lead(*other)) {
            self.take_path(id, other);
        }
        lost
    }

    /// The second way on which what is acknowledged goes too, while the path is in doubt.
    pub(super) fn other_way(&self, id: NodeId) -> Option<Route> {
        let peer = self.peers.get(&id).filter(|peer| peer.liveness.is_suspect())?;
        peer.candidates.best_beside(peer.path?, |route| self.links.rank(route))
    }

    /// Asks on all ways to a peer in use how long they take, if its path is long and that was not asked lately.
    pub(super) fn compare_paths(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(path) = peer.path else { return };
        let short = peer.round_trip.smoothed().is_none_or(|took| took <= WORTH_COMPARING);
        if peer.current.is_none()
            || short
            || now.since(peer.compared) < COMPARE_AGAIN
            || self.links.on_link(path.remote.ip())
        {
            return;
        }
        peer.compared = now;
        peer.candidates.compare_anew();
        let routes: Vec<_> = peer.candidates.iter().map(|candidate| candidate.route).collect();
        for route in routes {
            self.ask(id, route);
        }
    }

    /// Tells `id` something by another way than its path, in a datagram of its own.
    pub(crate) fn tell_on(&mut self, id: NodeId, route: Route, record: &Record<'_>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(current) = peer.current.as_mut() else { return };
        let mut packet = self.outbox.buffer();
        packet.resize(size::DATA_HEADER, 0);
        let fits = message::push(&mut packet, limits::DATAGRAM_BYTES - size::DATA_OVERHEAD, record);
        if fits && current.session.seal(&mut packet, 0).is_ok() {
            self.outbox.push(Destination::One(route), &packet);
        }
        self.outbox.recycle(packet);
    }

    /// Whether an app's data may travel in the session with `id`; renews it in time.
    pub(crate) fn may_carry_data(&mut self, id: NodeId) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let Some(current) = peer.current.as_mut() else { return false };
        current.used = true;
        let age = now.since(current.since);
        let due = if current.initiator { RENEW_IN_USE } else { RENEW_IN_USE + RENEW_MARGIN };
        if age >= due && !self.prospects.seeks(&id) {
            self.seek(id, None, None);
        }
        age < DATA_LIFE
    }

    /// Whether the keys that we have with `id` are to be renewed.
    pub(super) fn is_renewal_due(&self, id: NodeId) -> bool {
        let current = self.peers.get(&id).and_then(|peer| peer.current.as_ref());
        current.is_none_or(|current| self.now.since(current.since) >= RENEW_IN_USE)
    }

    pub(crate) fn on_session_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(current) = self.peers.get(&id).and_then(|peer| peer.current.as_ref()) else { return };
        let (since, initiator) = (current.since, current.initiator);
        let age = now.since(since);
        if age >= LET_GO && !self.keeps_session(id) {
            return self.let_go(id);
        }
        if age >= LIFE {
            self.lose(id, "session not renewed");
            return;
        }
        let renew_at = since + if initiator { RENEW_IDLE } else { RENEW_IDLE + RENEW_MARGIN };
        if age < LET_GO {
            self.timers.set(Timer::Session(id), since + LET_GO);
        } else if now >= renew_at {
            self.seek(id, None, None);
            self.timers.set(Timer::Session(id), since + LIFE);
        } else {
            self.timers.set(Timer::Session(id), renew_at);
        }
        self.end_previous(id);
    }

    /// Wipes the keys of the session before the current one when they are too old, now or in time.
    fn end_previous(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(gone) = peer.previous.take_if(|previous| now.since(previous.since) >= LIFE) {
            self.handshakes.indices.remove(&gone.index);
        }
        if let Some(previous) = &peer.previous {
            self.timers.set_sooner(Timer::Session(id), previous.since + LIFE);
        }
    }

    /// The age of the oldest keys of any session that this node holds: they are wiped at 540 s.
    pub(super) fn oldest_key(&self) -> Duration {
        let of_peers = self.peers.iter().flat_map(|(_, peer)| [&peer.current, &peer.previous]);
        let established = of_peers.flatten().map(|session| session.since);
        let since = established.chain(self.handshakes.oldest()).chain(self.prospects.oldest_key()).min();
        since.map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// Says goodbye to everyone and wipes all sessions.
    pub(crate) fn leave(&mut self, reason: &'static str) {
        for id in self.peers.online() {
            self.say_goodbye(id);
        }
        for id in self.peers.online() {
            self.exit(id, reason);
        }
    }

    /// Twice, in datagrams of their own: nobody will ask again if one is lost.
    pub(crate) fn say_goodbye(&mut self, id: NodeId) {
        for _ in 0..2 {
            self.flush(id);
            self.tell(id, &Record::Goodbye);
        }
        self.flush(id);
    }
}

/// A path that was not heard for this long is worth less than any that was.
const PATH_STALE: Duration = Duration::from_secs(3);
/// From one question at a new address to the next.
const CHALLENGE_GAP: Duration = Duration::from_millis(100);
