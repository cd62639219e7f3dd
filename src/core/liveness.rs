//! Who still answers: a ring of pings, suspicion, and the verdict (protocol.md, 6).
//!
//! Idle sessions are silent but for a ring: in the order of ids each node asks its two successors every 2.5 s, and both
//! ends judge. A peer in use is asked after 750 ms of silence. Silence makes a peer suspect: it is then asked on every
//! address that it may have, and a handshake is tried, since it may only have restarted. Any packet of its on the path
//! clears it; when all questions are unanswered it has left, and the others are told to look for themselves.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::core::Node;
use crate::core::api::{Destination, HELLO_PORT, Route};
use crate::core::introductions::is_public;
use crate::core::mapping_life::UNKNOWN;
use crate::core::paths::Question;
use crate::core::peers::Peer;
use crate::core::prospects::KNOCK_PAUSE;
use crate::core::relays::is_relayed;
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::time::Instant;

/// How often a ring neighbour is asked.
pub(crate) const RING: Duration = Duration::from_millis(2500);
/// After a loss the ring asks this often, for a while: the first question after a parted network is one again shows
/// both sides whom they lack.
const RING_UNSETTLED: Duration = Duration::from_secs(1);
const UNSETTLED: Duration = Duration::from_secs(60);
/// How much later than it should have asked us a neighbour becomes suspect.
const RING_GRACE: Duration = Duration::from_millis(1200);
/// A successor whose turn comes within half the interval is asked along with the other, so that an idle node wakes once
/// for both.
const ALONG: u32 = 2;
/// How long after its last data a peer counts as in use.
const IN_USE: Duration = Duration::from_secs(5);
/// A peer in use is asked after this much silence.
const HEARTBEAT: Duration = Duration::from_millis(750);
/// An unanswered question makes its peer suspect after this time, or after three round trips if that is longer.
const PATIENCE: Duration = Duration::from_millis(300);
/// From one question to a suspect to the next, in milliseconds. Eight lost round trips in a row at 20 % loss happen
/// once in 3500 times; with the ring's own interval they take 5 s.
const QUESTIONS: [u64; 7] = [100, 100, 200, 300, 400, 500, 600];
/// A peer in use is waited for a little less: its data would have been heard in between.
const QUESTIONS_IN_USE: usize = 6;
/// Where the network says that nobody listens any more, so many are enough: a restart takes no longer.
const QUESTIONS_REFUSED: usize = 4;
/// With this question a handshake is tried too: a peer that restarted answers nothing else.
const HANDSHAKE_WITH: usize = 2;
/// What is sent and not answered for so long, or for three round trips if that is longer, makes its receiver suspect: a
/// path that died under traffic is left before anybody is told.
const DOUBT: Duration = Duration::from_millis(250);
const DOUBT_MAX: Duration = Duration::from_secs(2);
/// So many of the messages under way go by a second way at once when that happens; the others wait behind them.
pub(crate) const HURRIED: usize = 8;
/// The one of two with the smaller id asks so much later: not at all, since it is asked before.
const WARM_TURN: Duration = Duration::from_secs(2);
/// Of so many such peers, the latest.
const KEPT_WARM: usize = 16;
/// After this much silence the way to others of them may be forgotten.
const GROWN_COLD: Duration = Duration::from_secs(20);
/// From one showing of our interfaces to the next, however many peers are asked.
const SHOW_AGAIN: Duration = Duration::from_millis(300);
/// A network that nobody is in (RFC 5737).
const NOBODYS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
/// Questions remembered: the last three rounds of a suspicion on all addresses. What is older than that was not answered
/// in half a second by ways that answer at all.
const OUTSTANDING: usize = 24;
/// Who was heard this recently is there, whatever the network says: that is of who had the address before.
const REFUSAL_IS_LATE: Duration = Duration::from_millis(100);
/// Nodes that hear a verdict look for themselves after a random part of this, times the number of peers.
const VERDICT_SPREAD: Duration = Duration::from_millis(5);

/// What one peer's silence means.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    phase: Phase,
    /// When it was heard on its path last.
    heard: Instant,
    last_asked: Instant,
    outstanding: Vec<Question>,
    /// When it was asked on all ways at once, as a suspect.
    round: Option<Instant>,
    /// The network said since then that nobody listens there.
    refused: bool,
    /// Until when it counts as in use.
    in_use_until: Instant,
    /// It is one of our two successors on the ring.
    asked_by_us: bool,
    /// We are one of its two successors.
    asks_us: bool,
    /// It is a neighbour on the ring, near or far.
    linked: bool,
    /// The way to it is kept open, by asking after this much silence.
    warm: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// It is believed to be there.
    #[default]
    Resting,
    /// It was asked, and has not been heard since.
    Asked(Instant),
    /// It left so many questions unanswered.
    Suspect(usize),
}

impl Liveness {
    /// It sent something on its path.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.refused = false;
        self.phase = Phase::Resting;
    }

    /// Nothing is known of it but that it is to be asked now.
    pub(crate) fn begin_anew(&mut self, now: Instant) {
        self.outstanding.clear();
        self.phase = Phase::Asked(now);
    }

    pub(crate) const fn is_suspect(&self) -> bool {
        matches!(self.phase, Phase::Suspect(_))
    }

    /// It is no neighbour on the ring.
    pub(crate) fn unlink(&mut self) {
        (self.linked, self.asked_by_us, self.asks_us) = (false, false, false);
    }

    /// It is a neighbour on the ring: one whom we ask, one who asks us, both, or a far one.
    pub(crate) fn link(&mut self, asked_by_us: bool, asks_us: bool) {
        self.linked = true;
        self.asked_by_us |= asked_by_us;
        self.asks_us |= asks_us;
    }

    pub(crate) const fn is_linked(&self) -> bool {
        self.linked
    }

    /// As its successor on the ring we ask it for the first time after `pause`.
    pub(crate) fn ask_first_in(&mut self, pause: Duration, now: Instant) {
        self.last_asked = now + pause - RING;
    }

    pub(crate) fn is_in_use(&self, now: Instant) -> bool {
        now < self.in_use_until
    }

    pub(crate) fn questions(&self) -> impl Iterator<Item = &Question> {
        self.outstanding.iter()
    }

    pub(crate) fn asked(&mut self, question: Question) {
        if self.outstanding.len() >= OUTSTANDING {
            self.outstanding.remove(0);
        }
        self.outstanding.push(question);
    }

    /// All ways were asked at once at `asked`, and `path` has not answered: what comes by it may come one way only.
    pub(crate) fn awaits(&self, path: &Route, asked: Instant) -> bool {
        let by_path = |question: &Question| question.asked == asked && question.route.is_way_of(path);
        self.round == Some(asked) && self.outstanding.iter().any(by_path)
    }

    /// The question with `token` was answered by the way on which it had been asked.
    pub(crate) fn answered(&mut self, token: u64, via: Route) -> Option<Question> {
        let at = self.outstanding.iter().position(|q| q.token == token && q.route.is_way_of(&via))?;
        Some(self.outstanding.remove(at))
    }

    /// As our successor on the ring it was not asked for `pause`.
    fn is_due(&self, pause: Duration, now: Instant) -> bool {
        self.asked_by_us && self.phase == Phase::Resting && self.last_asked + pause <= now
    }

    /// When it has to be asked next, and when it should have been heard; later than any time if never.
    fn deadlines(&self, now: Instant, ring: Duration) -> (Option<Instant>, Option<Instant>) {
        let in_use = self.is_in_use(now).then(|| self.heard + HEARTBEAT);
        let ring = self.asked_by_us.then(|| self.last_asked + ring);
        let warm = self.warm.map(|silence| self.heard.max(self.last_asked) + silence);
        let ask = in_use.into_iter().chain(ring).chain(warm).min();
        let judge = self.asks_us.then(|| self.heard + RING + RING_GRACE);
        (ask, judge)
    }
}

impl Node {
    /// An app's data went to or came from `id`.
    pub(crate) fn in_use(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was = now < peer.liveness.in_use_until;
        peer.liveness.in_use_until = now + IN_USE;
        self.compare_paths(id);
        let Some(peer) = self.peers.get(&id) else { return };
        if was || !peer.is_online() {
            return;
        }
        self.timers.set_sooner(Timer::Liveness(id), now + HEARTBEAT);
        let cold = now.since(peer.liveness.heard) >= GROWN_COLD;
        if !peer.path.is_some_and(|path| is_public(path.remote.ip())) {
            return;
        }
        // Prepared before the path fails.
        self.seek_relay(id, None);
        if cold && self.may_meet(&id) {
            // Its translator may have forgotten us: it is told to open it again, beside the first message.
            self.meet(id, false);
        }
    }

    /// What was sent to `id` is not answered, or it sends by another way: perhaps the path is dead.
    pub(crate) fn doubt(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_online()) else { return };
        let round_trip = peer.round_trip.smoothed().unwrap_or_default();
        let silence = now.since(peer.path_heard);
        if !peer.liveness.is_suspect() && silence >= DOUBT.max((round_trip * 3).min(DOUBT_MAX)) {
            self.question(id, 0);
            if self.other_way(id).is_some() {
                self.hurry_delivery(id, HURRIED);
            }
        }
    }

    /// Paths came or went: finds anew which of those across the internet are kept open.
    pub(crate) fn choose_warm(&mut self) {
        // Less than what our translator keeps a mapping for.
        let pause = self.mapping_life.pause().unwrap_or(UNKNOWN);
        let far = |peer: &crate::core::peers::Peer| {
            peer.path.is_some_and(|path| is_public(path.remote.ip()) || is_relayed(path.remote.ip()))
        };
        let far = self.peers.iter().filter(|(_, peer)| far(peer));
        let mut far: Vec<_> = far.map(|(id, peer)| (peer.liveness.in_use_until, peer.met, *id)).collect();
        far.sort_unstable();
        let warm: Vec<_> = far.into_iter().rev().take(KEPT_WARM).map(|(_, _, id)| id).collect();
        for (id, peer) in self.peers.iter_mut() {
            let turn = if self.id < *id { WARM_TURN } else { Duration::ZERO };
            peer.liveness.warm = warm.contains(id).then_some(pause + turn);
        }
        for id in warm {
            self.timers.set_sooner(Timer::Liveness(id), self.now + pause);
        }
    }

    /// A peer was lost: perhaps the network is parted.
    pub(crate) fn unsettle(&mut self) {
        self.unsettled_until = self.now + UNSETTLED;
        let neighbours = self.peers.iter().filter(|(_, peer)| peer.liveness.asked_by_us).map(|(id, _)| *id);
        for id in neighbours.collect::<Vec<_>>() {
            let first = self.jittered(RING_UNSETTLED);
            self.timers.set_sooner(Timer::Liveness(id), self.now + first);
        }
    }

    pub(crate) fn on_liveness_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_online()) else { return };
        match peer.liveness.phase {
            Phase::Suspect(unanswered) => return self.question(id, unanswered),
            Phase::Asked(_) => return self.question(id, 0),
            Phase::Resting => {}
        }
        let ring = self.ring_interval();
        let (ask, judge) = peer.liveness.deadlines(now, ring);
        if peer.liveness.is_due(ring, now) {
            let due = |peer: &Peer| peer.is_online() && peer.liveness.is_due(ring / ALONG, now);
            let due: Vec<_> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect();
            due.into_iter().for_each(|id| self.ask_again(id));
        } else if ask.is_some_and(|ask| ask <= now) {
            self.ask_again(id);
        } else if judge.is_some_and(|judge| judge <= now) {
            self.question(id, 0);
        } else {
            self.rest(id);
        }
    }

    fn ring_interval(&self) -> Duration {
        if self.now < self.unsettled_until { RING_UNSETTLED } else { RING }
    }

    /// Asks a peer that is believed to be there.
    fn ask_again(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(path) = peer.path else { return };
        peer.liveness.phase = Phase::Asked(now);
        peer.liveness.last_asked = now;
        let patience = PATIENCE.max(peer.round_trip.smoothed().unwrap_or_default() * 3);
        self.timers.set(Timer::Liveness(id), now + patience);
        self.ask(id, path);
    }

    /// `id` asked or answered: what was to be done if it had not is put off.
    pub(crate) fn rest(&mut self, id: NodeId) {
        let (now, ring) = (self.now, self.ring_interval());
        let Some(peer) = self.peers.get(&id) else { return };
        if !peer.is_online() || peer.liveness.phase != Phase::Resting {
            return;
        }
        let (ask, judge) = peer.liveness.deadlines(now, ring);
        match ask.into_iter().chain(judge).min() {
            // Overdue by much would look as if we had slept.
            Some(next) => self.timers.set(Timer::Liveness(id), next.max(now)),
            None => self.timers.clear(Timer::Liveness(id)),
        }
    }

    /// Asks a suspect on every address that it may have; after the last question it has left.
    pub(crate) fn question(&mut self, id: NodeId, unanswered: usize) {
        let now = self.now;
        if self.is_dormant(id) && !self.may_knock(id) {
            // Only a question that leaves counts.
            return self.timers.set(Timer::Liveness(id), now + KNOCK_PAUSE);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let questions = match &peer.liveness {
            liveness if liveness.refused => QUESTIONS_REFUSED,
            liveness if liveness.is_in_use(now) => QUESTIONS_IN_USE,
            _ => QUESTIONS.len(),
        };
        let Some(pause) = QUESTIONS[..questions].get(unanswered) else {
            return self.condemn(id);
        };
        peer.liveness.phase = Phase::Suspect(unanswered + 1);
        peer.liveness.round = Some(now);
        let mut candidates: Vec<_> = peer.candidates.iter().copied().collect();
        // The newest questions are remembered: those on addresses that others only tell of are the first to be forgotten.
        candidates.sort_by_key(|candidate| Reverse(candidate.source));
        let mut routes: Vec<_> = candidates.into_iter().map(|candidate| candidate.route).collect();
        if let Some(path) = peer.path
            && !routes.iter().any(|route| route.is_way_of(&path))
        {
            routes.push(path);
        }
        let path = peer.path;
        for route in routes {
            self.ask(id, route);
        }
        // In each round: when the first one came an interface may not have worked yet.
        path.into_iter().for_each(|path| self.show_interfaces(path));
        if unanswered == 0 {
            self.seek_relay(id, None);
        }
        if unanswered == HANDSHAKE_WITH {
            self.seek(id, None, None);
        }
        self.timers.set(Timer::Liveness(id), now + Duration::from_millis(*pause));
    }

    /// Makes neighbours write to the right one of several interfaces that we have on the link of `path`. Linux answers
    /// ARP for each of its addresses on each of its interfaces, so a neighbour may hold that of a dead one for those of
    /// the others. What is sent by an interface to an address that nobody has is a question of ARP, which all hear and
    /// which says who asks. Another one each time: what was asked a moment ago is not asked again.
    fn show_interfaces(&mut self, path: Route) {
        if path.remote.is_ipv6() || self.interfaces_shown.is_some_and(|at| self.now.since(at) < SHOW_AGAIN) {
            return;
        }
        let ends: Vec<_> = self.links.own_ends(path).collect();
        if ends.len() < 2 {
            return;
        }
        self.interfaces_shown = Some(self.now);
        for (interface, local) in ends {
            let nobody = Ipv4Addr::from_bits(NOBODYS.to_bits() + 1 + self.rng.next_u32() % 254);
            let to = Route::to((nobody, HELLO_PORT).into());
            let to = Route { local: Some(local), interface: Some(interface), ..to };
            self.outbox.push_as_far_as(Destination::One(to), Some(0), &[0]);
        }
    }

    pub(crate) fn condemn(&mut self, id: NodeId) {
        let crowded = self.is_crowded_ring();
        self.lose(id, "it stopped answering");
        self.spread_suspicion(id, crowded);
    }

    /// Somebody else lost `id`: that only starts our own questions.
    pub(crate) fn on_verdict(&mut self, from: NodeId, id: NodeId) {
        let now = self.now;
        if from == id {
            return;
        }
        // Each is a question to somebody else.
        if !self.peers.get_mut(&from).is_some_and(|peer| peer.verdicts.take(now)) {
            self.paced_records += 1;
            return;
        }
        self.suspect(id);
    }

    /// A hint says that `id` may be gone: asks it, unless it was heard just now.
    pub(crate) fn suspect(&mut self, id: NodeId) {
        let now = self.now;
        let (online, _) = self.peers.counts();
        let spread = VERDICT_SPREAD * u32::try_from(online).unwrap_or(u32::MAX);
        let delay = Duration::from_nanos(self.rng.next_u64() % (1 + spread.as_nanos() as u64));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let patience = if peer.liveness.refused { PATIENCE / 3 } else { PATIENCE };
        let fresh = now.since(peer.liveness.heard) < patience;
        if peer.is_online() && peer.liveness.phase == Phase::Resting && !fresh {
            peer.liveness.phase = Phase::Asked(now);
            self.timers.set(Timer::Liveness(id), now + delay);
        }
    }

    /// The network says that nobody listens at `remote`.
    pub(crate) fn suspect_at(&mut self, remote: SocketAddr) {
        let there = |peer: &Peer| peer.path.is_some_and(|path| path.remote == remote);
        let ids: Vec<_> = self.peers.iter().filter(|(_, peer)| there(peer)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if self.now.since(peer.liveness.heard) >= REFUSAL_IS_LATE {
                peer.liveness.refused = true;
                self.suspect(id);
            }
        }
    }
}
