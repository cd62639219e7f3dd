//! Members that rendezvous servers told us of, and meeting them behind address translators and firewalls
//! (rendezvous.md, 5 and 6).
//!
//! A translator lets in what answers to what it let out. So both sides send first messages to all addresses that the
//! other may have, at the same time; an introduction through the server tells the other side to begin, and where we are.
//! Until we know that the other one sends too, ours go only far enough to open our own translator: some routers, when
//! they are hit before their own side has sent, give it another port afterwards.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Dropped, OwnPort, Route};
use crate::core::members::Member;
use crate::core::paths::Source;
use crate::core::registrations::{Place, Registration};
use crate::core::relays::is_relayed;
use crate::core::rendezvous::{Family, ServerId};
use crate::core::timers::Timer;
use crate::crypto::namespace::Meeting as Sealed;
use crate::crypto::network::NetworkTag;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Record;
use crate::wire::presence::{CANDIDATES_MAX, Candidate, CandidateKind, Flags, Introduction, Presence, Step};
use crate::wire::rendezvous::{FromNode, Intro, Knock, Nonce};

/// From one first message of a meeting to the next (rendezvous.md, 6); the last one again and again.
pub(super) const SCHEDULE: [Duration; 8] = [
    Duration::from_millis(50),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1400),
    Duration::from_secs(3),
];
/// So many addresses that peers say we have are told on, however many we know ourselves.
const SEEN_BY_PEERS: usize = 2;
/// So long a meeting is tried.
const MEETING: Duration = Duration::from_secs(40);
/// So long if there is no address of the internet to be tried: what private networks carry, they carry at once.
const MEETING_PRIVATE: Duration = Duration::from_secs(5);
/// The schedule of a meeting begins anew no more often: a member could make us send to others without end.
const ANEW: Duration = Duration::from_secs(5);
/// News of a member whom we are meeting already make us send out of turn no more often.
const SEND_GAP: Duration = Duration::from_millis(200);
/// A meeting that lasts so long without a session is told as hard.
const MEETING_HARD: Duration = Duration::from_secs(15);
/// Past a home's translator and a carrier's, and no farther: the next router ends it.
const OPENING_HOPS: u8 = 3;
/// From one introduction of a meeting to the next, twice as late each time.
const INTRODUCE_AGAIN: Duration = Duration::from_millis(500);
/// So long a server may hold its news of us back, and a little more: then we introduce ourselves.
const TOLD_WITHIN: Duration = Duration::from_millis(250);
/// From the end of a meeting that came to nothing to the next one, twice as late each time.
const MEET_AGAIN: Duration = Duration::from_secs(30);
const MEET_AGAIN_MAX: Duration = Duration::from_secs(600);
/// So soon after a relayed path a better one is sought: whoever is found by multicast is there by then.
const MEET_SOON: Duration = Duration::from_millis(300);
/// Answers to the introductions of one member are no closer together.
const ANSWER_GAP: Duration = Duration::from_millis(250);

/// The members that servers told us of.
#[derive(Debug, Default)]
pub(crate) struct Introductions {
    pub(super) members: BTreeMap<NodeId, Member>,
    /// The port of our router that leads to us.
    mapped: Option<SocketAddr>,
}

/// Both sides try to reach each other, for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meeting {
    pub(super) begun: Instant,
    /// When its schedule began anew last.
    anew: Instant,
    /// The other side sends as well: ours may go all the way.
    both: bool,
    /// How long it is tried.
    patience: Duration,
    /// When we introduced ourselves last, and how often.
    introduced: Option<(Instant, u32)>,
}

impl Meeting {
    /// How far a first message to `addr` goes.
    pub(super) fn hops(&self, addr: IpAddr) -> Option<u8> {
        (!self.both && is_public(addr)).then_some(OPENING_HOPS)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.since(self.begun) >= self.patience
    }
}

/// What the other one knows when a server tells us of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing, perhaps.
    Ours,
    /// It is told of us, by the server and within a moment. Until it has heard that, a packet of ours that came to its
    /// translator could spoil the port which it is about to use.
    Told,
    /// It was told of us before or at the same moment: whichever packet comes first took at least as long as that news.
    Both,
}

impl Node {
    /// A server told of a member.
    pub(super) fn heard_of_member(
        &mut self,
        presence: Presence,
        network: NetworkTag,
        place: Place,
        news: News,
    ) {
        let (id, boot) = (presence.id, presence.boot);
        if id == self.id {
            return;
        }
        let before = self.introductions.members.get(&id);
        let moved = before.is_some_and(|member| member.has_moved(place, &presence.candidates));
        self.note_member(presence, network, Some(place));
        // Whoever is across the internet and has other addresses than it had may be lost, and not know yet.
        let sure = |path: Route| !moved || !is_public(path.remote.ip());
        let reached =
            |peer: &crate::core::peers::Peer| peer.path.is_some_and(sure) && peer.boot == Some(boot);
        if !self.peers.get(&id).is_some_and(reached) {
            self.meet_by(id, news);
        }
    }

    /// The port of our router that leads to us, whenever it may be another one: members are told.
    pub fn handle_mapped(&mut self, addr: Option<SocketAddr>, now: Instant) {
        self.advance(now);
        if std::mem::replace(&mut self.introductions.mapped, addr) != addr {
            self.tell_whereabouts();
        }
    }

    /// Tries to reach a member wherever it may be.
    pub(super) fn meet(&mut self, id: NodeId, both: bool) {
        self.meet_by(id, if both { News::Both } else { News::Ours });
    }

    fn meet_by(&mut self, id: NodeId, news: News) {
        let Some(member) = self.introductions.members.get(&id) else { return };
        let network = member.network;
        let plain = member.candidates().filter(|candidate| candidate.kind != CandidateKind::Near);
        let usable = plain.map(|candidate| candidate.addr).filter(|addr| self.may_be_met_at(*addr));
        let addrs: Vec<_> = usable.take(CANDIDATES_MAX).collect();
        let now = self.now;
        self.ask_battery();
        let ways: Vec<_> = addrs.into_iter().flat_map(|addr| self.links.ways(Route::to(addr))).collect();
        let Some(prospect) = self.prospect(network, id, None) else { return };
        for way in ways.into_iter().rev() {
            prospect.candidates.add(way, Source::Introduced);
        }
        let begun = prospect.meeting.filter(|meeting| !meeting.is_over(now));
        let introduced = begun.and_then(|meeting| meeting.introduced);
        // Should the server's news be lost, we introduce ourselves later.
        let introduced = introduced.or_else(|| (news == News::Told).then_some((now, 0)));
        let both = news == News::Both || begun.is_some_and(|meeting| meeting.both);
        // News again and again do not make us send ever faster.
        let anew = begun.map(|meeting| meeting.anew).filter(|anew| now.since(*anew) < ANEW);
        let anew_now = anew.is_none();
        if anew_now {
            prospect.attempts = 0;
        }
        let (anew, begun) = (anew.unwrap_or(now), begun.map_or(now, |meeting| meeting.begun));
        let public = prospect.candidates.iter().any(|candidate| is_public(candidate.route.remote.ip()));
        let patience = if public { MEETING } else { MEETING_PRIVATE };
        prospect.meeting = Some(Meeting { begun, anew, both, patience, introduced });
        // Else the schedule goes on: many words about one member must not take the others' turn.
        if anew_now || prospect.last_sent.is_none_or(|sent| now.since(sent) >= SEND_GAP) {
            self.send_first_message(id);
        }
    }

    /// Introduces us to the member whom we try to reach, if it is time to.
    pub(super) fn introduce_again(&mut self, id: NodeId) {
        let now = self.now;
        let Some(meeting) = self.meeting_mut(&id) else { return };
        let pause = |times: u32| if times == 0 { TOLD_WITHIN } else { INTRODUCE_AGAIN * (1 << times.min(5)) };
        let due = meeting.introduced.is_none_or(|(at, times)| now.since(at) >= pause(times));
        // Whoever was told of us by the server itself begins without; should that have been lost, it is asked later.
        if meeting.both && meeting.introduced.is_none() {
            meeting.introduced = Some((now, 0));
        } else if due {
            let times = meeting.introduced.map_or(0, |(_, times)| times + 1);
            meeting.introduced = Some((now, times));
            self.introduce(id, Step::Meet);
        }
    }

    fn introduce(&mut self, id: NodeId, step: Step) {
        let Some(member) = self.introductions.members.get(&id) else { return };
        let places: Vec<_> = member.places().collect();
        let introduction = self.introduction_for(id, step);
        for place in places {
            let (nonce, seal_nonce) = (Nonce(self.random()), self.random());
            let Some((server, known)) = self.way_to(place) else { continue };
            let (Some(token), family) = (known.lease.token, known.family) else { continue };
            let (namespace, handle, network) = (*known.keys.namespace(), known.handle(), known.network);
            known.lease.last_intro = Some(nonce);
            let sealed = Sealed { namespace, from: handle, target: place.handle, nonce };
            let keys = self.config.network.of(network);
            let payload = keys.seal_introduction(&self.identity, &introduction, &sealed, seal_nonce);
            let intro = Intro { nonce, namespace, handle, token, target: place.handle, payload: &payload };
            self.ask_server(server, family, &FromNode::Intro(intro));
        }
    }

    /// A member introduces itself.
    pub(super) fn on_knock(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        knock: &Knock<'_>,
    ) -> Result<(), Dropped> {
        let is_it = |it: &Registration| it.family == family && it.is_named(knock.namespace);
        let known = self.answered(server, datagram, is_it)?;
        let (registration, network) = (known.id, known.network);
        let sealed = Sealed {
            namespace: *known.keys.namespace(),
            from: knock.from,
            target: known.handle(),
            nonce: knock.nonce,
        };
        let opened = self.config.network.of(network).open_introduction(knock.payload, &sealed);
        let Introduction { id, to, boot, step, flags, candidates } =
            opened.ok_or(Dropped::Unauthenticated)?;
        let (_, known) = self.registration_mut(registration).ok_or(Dropped::Unexpected)?;
        if !known.is_new_knock(knock.nonce) {
            return Err(Dropped::Replayed);
        }
        if to != self.id || id == self.id {
            return Err(Dropped::Unexpected);
        }
        debug!(peer = ?id, ?step, "introduced");
        let place = Place { registration, handle: knock.from };
        if !self.note_handle(place, id, 0) {
            return Err(Dropped::OverLimit);
        }
        self.note_member(Presence { id, boot, flags, candidates }, network, Some(place));
        let now = self.now;
        let Some(member) = self.introductions.members.get_mut(&id) else { return Err(Dropped::OverLimit) };
        member.knocked = Some(now);
        let answer = step == Step::Meet && member.answered.is_none_or(|at| now.since(at) >= ANSWER_GAP);
        if answer {
            member.answered = Some(now);
        }
        self.meet(id, true);
        if answer {
            self.introduce(id, Step::Sending);
        }
        self.try_ports_of(id);
        Ok(())
    }

    /// A member introduced itself: it may have opened ports for us that only guessing finds.
    fn try_ports_of(&mut self, id: NodeId) {
        let now = self.now;
        let Some(member) = self.introductions.members.get_mut(&id) else { return };
        if member.tried_near.is_some_and(|at| now.since(at) < ANSWER_GAP) {
            return;
        }
        member.tried_near = Some(now);
        self.try_near(id);
        self.try_guessing(id);
    }

    /// What we tell `id` of us now.
    fn introduction_for(&self, id: NodeId, step: Step) -> Introduction {
        let mut candidates = self.own_candidates();
        if let Some(fresh) = self.fresh_port_for(&id) {
            candidates.insert(0, fresh);
            candidates.truncate(CANDIDATES_MAX);
        }
        let mut flags = self.flags();
        if self.is_having_birthday_with(&id) {
            flags = flags.with(Flags::MANY_PORTS);
        }
        Introduction { id: self.id, to: id, boot: self.boot, step, flags, candidates }
    }

    /// Tells `id` where we are now, by whatever way there is.
    pub(super) fn tell_whereabouts_to(&mut self, id: NodeId) {
        if self.peers.get(&id).is_some_and(|peer| peer.is_online() && peer.current.is_some()) {
            self.tell_meeting(id, Step::Meet);
        } else {
            self.introduce(id, Step::Meet);
        }
    }

    /// A meeting came to nothing: the next one is later.
    pub(super) fn meet_later(&mut self, id: NodeId) {
        let Some(member) = self.introductions.members.get_mut(&id) else { return };
        let pause = (MEET_AGAIN * (1 << member.failures.min(5))).min(MEET_AGAIN_MAX);
        member.failures += 1;
        let pause = self.jittered(pause);
        self.timers.set(Timer::Meet(id), self.now + pause);
    }

    /// `id` is reached through a relay only: we say where we are, and look for another way.
    pub(super) fn meet_soon(&mut self, id: NodeId) {
        self.timers.set_sooner(Timer::Meet(id), self.now + MEET_SOON);
    }

    pub(crate) fn on_meet_timer(&mut self, id: NodeId) {
        let online = self.peers.get(&id).is_some_and(|peer| peer.is_online());
        let near = self.peers.get(&id).is_some_and(|peer| peer.is_near());
        if near || !online && !self.may_meet(&id) {
            return;
        }
        if online {
            // A second relay is prepared, and each failure of a meeting asks again.
            self.seek_relay(id, None);
            self.tell_meeting(id, Step::Meet);
        }
        if self.may_meet(&id) {
            self.meet(id, false);
        } else {
            self.meet_later(id);
        }
    }

    /// Introduces us through the relay by which the peer is reached.
    fn tell_meeting(&mut self, id: NodeId, step: Step) {
        let introduction = self.introduction_for(id, step);
        self.tell(id, &Record::Meet { introduction: &introduction.to_bytes() });
    }

    /// A peer introduces itself in our session with it, most likely through a relay.
    pub(crate) fn on_meet(&mut self, from: NodeId, introduction: &[u8]) {
        let parsed = Introduction::parse(introduction).filter(|it| it.id == from && it.to == self.id);
        let Some(Introduction { boot, step, flags, candidates, .. }) = parsed else {
            self.odd_records += 1;
            return;
        };
        let Some(peer) = self.peers.get(&from) else { return };
        if peer.is_near() {
            return;
        }
        let network = peer.network.unwrap_or_else(|| self.config.network.current().tag());
        self.note_member(Presence { id: from, boot, flags, candidates }, network, None);
        let now = self.now;
        let Some(member) = self.introductions.members.get_mut(&from) else { return };
        member.knocked = Some(now);
        if step == Step::Meet && member.answered.is_none_or(|at| now.since(at) >= ANSWER_GAP) {
            member.answered = Some(now);
            self.tell_meeting(from, Step::Sending);
        }
        self.meet(from, true);
        self.try_ports_of(from);
    }

    /// Whether we are trying to reach `id` through an introduction.
    pub(super) fn is_meeting(&self, id: &NodeId) -> bool {
        self.prospects.meeting(id).is_some()
    }

    /// Why a member has not been reached, as far as it is known.
    pub(super) fn why_apart(&self, id: &NodeId) -> Cow<'static, str> {
        let young = |meeting: &Meeting| self.now.since(meeting.begun) < MEETING_HARD;
        if self.prospects.meeting(id).is_some_and(young) {
            return "a rendezvous server introduces us".into();
        }
        let flags = self.flags_of_member(id);
        let relays = flags.has(Flags::RELAY) || !self.may_meet(id);
        let guesses = flags.has(Flags::GUESSES) && self.has_birthdays();
        let cause = match (self.has_varying_port(), flags.has(Flags::VARYING_PORT)) {
            _ if !self.shares_a_family(id) => {
                "it has addresses of IPv6 only and we of IPv4 only, or the other way round"
            }
            (true, false) | (false, true) if !guesses => {
                "one of our routers gives each destination another port, which is not guessed because one of us is on a \
                 battery or a metered network or has no_birthday_punch"
            }
            (true, true) => "its router and ours give each destination another port",
            (true, false) => {
                "our router gives each destination another port, which its router or firewall does not let in"
            }
            (false, true) => {
                "its router gives each destination another port, which ours or a firewall does not let in"
            }
            (false, false) => {
                "no answer at any address that it has: a router or firewall on the way drops it"
            }
        };
        let relay = if !self.config.relay {
            "this node uses no relay (no_relay)"
        } else if !relays {
            "it uses no relay (no_relay)"
        } else {
            "no peer of both relays between us"
        };
        format!("{cause}, and {relay}").into()
    }

    /// `id` was reached.
    pub(super) fn met(&mut self, id: NodeId) {
        self.timers.clear(Timer::Meet(id));
        self.end_birthday(id);
        if let Some(member) = self.introductions.members.get_mut(&id) {
            member.failures = 0;
        }
    }

    /// How peers across the internet see our usual port.
    pub(super) fn seen_by_peers(&self) -> impl Iterator<Item = SocketAddr> {
        let usual =
            |peer: &&crate::core::peers::Peer| peer.path.is_some_and(|path| path.port == OwnPort::USUAL);
        let seen = self.peers.iter().map(|(_, peer)| peer).filter(usual).filter_map(|peer| peer.sees_us);
        let mut distinct = BTreeSet::new();
        seen.filter(move |addr| distinct.insert(*addr))
    }

    /// Where we may be reached, the most telling first.
    pub(super) fn own_candidates(&self) -> Vec<Candidate> {
        // Open to all that come, unlike what servers see.
        let mapped = self.introductions.mapped;
        let mapped = mapped.map(|addr| Candidate { kind: CandidateKind::Mapped, addr });
        let seen = self.seen_by_servers();
        let seen = seen.into_iter().map(|addr| Candidate { kind: CandidateKind::Server, addr });
        let port = self.port();
        let own = self.links.addrs().iter().map(|own| own.addr.to_canonical());
        let own = own.filter(|ip| !ip.is_loopback() && !is_link_local(*ip));
        let own = own.map(|ip| Candidate { kind: CandidateKind::Own, addr: SocketAddr::new(ip, port) });
        let mut candidates: Vec<Candidate> = Vec::new();
        // Members can make them up: they take no place from what we know ourselves.
        let sure = usize::from(mapped.is_some()) + seen.len() + own.clone().count();
        let room = CANDIDATES_MAX.saturating_sub(sure).max(SEEN_BY_PEERS);
        let by_peers = self.seen_by_peers().take(room);
        let by_peers = by_peers.map(|addr| Candidate { kind: CandidateKind::Peer, addr });
        for candidate in mapped.into_iter().chain(seen).chain(by_peers).chain(own) {
            if candidates.len() < CANDIDATES_MAX
                && !candidates.iter().any(|known| known.addr == candidate.addr)
            {
                candidates.push(candidate);
            }
        }
        candidates
    }
}

pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Whether `ip` is one of the internet, behind our translator and perhaps theirs.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !ip.is_private() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unique_local() && !ip.is_unicast_link_local() && !is_relayed(ip.into()),
    }
}
