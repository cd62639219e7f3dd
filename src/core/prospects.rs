//! Whom we want a session with, and what we send for it (protocol.md, 3 and 4).
//!
//! A [`Prospect`] is somebody whom a hint named, or a peer whose keys are old. It gets one first message, the same bytes
//! to all addresses at which it may be, and again with growing pauses.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Destination, Dropped, OwnPort, Route};
use crate::core::first_messages::{FIRST_MESSAGE_LIFE, FirstMessage};
use crate::core::handshakes::Owner;
use crate::core::introductions::{Meeting, SCHEDULE};
use crate::core::links::Links;
use crate::core::pace::Pace;
use crate::core::paths::{Candidate, Candidates, Source};
use crate::core::relays::is_relayed;
use crate::core::sessions::Established;
use crate::core::timers::Timer;
use crate::crypto::network::NetworkTag;
use crate::crypto::session::Session;
use crate::id::{BootId, NodeId, NodeName};
use crate::time::Instant;
use crate::wire::message::Record;
use crate::wire::packet::{field, index_at, size};

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
/// How whom we only miss is tried, for as long as one first message is used.
pub(super) const GLANCE: [Duration; 1] = [FIRST_MESSAGE_LIFE];
/// With so many first messages a relay is sought: a quarter of a second is more than a neighbour needs, and most of those
/// who meet across the internet have met within a second.
const RELAY_AFTER: usize = 2;
const RELAY_AFTER_MEETING: usize = 6;
/// The length of [`RETRY`]: who has not answered in this time is told as silent, also if hints make us go on.
const SERIES: Duration = Duration::from_millis(12_750);
/// Who crashed is told of by others for as long as they have not noticed that, some six seconds; who is still heard of
/// after this time is there.
const STILL_TOLD: Duration = Duration::from_secs(8);
/// How many we seek at once; hints beyond that wait for the next time that they are heard.
pub(super) const PROSPECTS: usize = 1024;
/// First messages that leave in a burst, and a second, counted as datagrams: thirty peers with three addresses each at
/// once, and then 16 kB/s, which no network minds.
const FIRST_MESSAGE_BURST: u32 = 96;
const FIRST_MESSAGES_A_SECOND: u32 = 100;
/// Different prospects may not send first messages to one address faster: hearsay must not become a weapon.
const ONE_ADDRESS: Duration = Duration::from_secs(1);
/// Nor to more ports of one host in that time: more daemons than that on one host take a little longer.
const ONE_HOST: usize = 8;
/// A first message for which there is no room now is tried again after this time.
pub(crate) const KNOCK_PAUSE: Duration = Duration::from_millis(100);
/// A peer that stopped answering is sought again after as long as it has been away: when a network that was cut is
/// mended and nobody saw that, it is whole again after at most twice the time.
const SEEK_LOST_MIN: Duration = Duration::from_secs(5);
const SEEK_LOST_MAX: Duration = Duration::from_secs(600);

/// Everybody whom we seek.
#[derive(Debug)]
pub(crate) struct Prospects {
    pub(super) by_id: BTreeMap<NodeId, Prospect>,
    /// Of first messages.
    pace: Pace,
    addressed: BTreeMap<IpAddr, Vec<Addressed>>,
    pub(super) counter: u64,
}

/// A first message that went to an address which had not proved anything.
#[derive(Debug)]
struct Addressed {
    at: Instant,
    port: u16,
    prospect: NodeId,
}

/// Somebody whom we want a session with.
#[derive(Debug)]
pub(super) struct Prospect {
    pub(super) candidates: Candidates,
    /// Whose secret it was heard with, or else ours: the first guess.
    pub(super) network: NetworkTag,
    /// How often it was tried since that guess: by turns in each of our networks.
    pub(super) turns: usize,
    /// It spoke with our current secret.
    has_current: bool,
    /// The pauses after each of its first messages: it is given up with their end.
    pub(super) series: &'static [Duration],
    pub(super) attempts: usize,
    /// It tries to reach us as well, behind address translators.
    pub(super) meeting: Option<Meeting>,
    pub(super) first_message: Option<FirstMessage>,
    /// Who told us of it, if it was another peer.
    teller: Option<NodeId>,
    since: Instant,
    /// When it was heard of last.
    heard_of: Option<Instant>,
    pub(super) last_sent: Option<Instant>,
}

impl Prospect {
    pub(super) fn is_glance(&self) -> bool {
        self.series.len() == GLANCE.len()
    }

    /// Whether it was heard of again when it had been asked for a while.
    fn is_still_told(&self) -> bool {
        self.heard_of.is_some_and(|heard_of| heard_of.since(self.since) >= STILL_TOLD)
    }

    /// There is a reason to believe that it is there: it gets a whole series.
    pub(super) fn seek_in_earnest(&mut self, now: Instant) {
        (self.series, self.attempts, self.since) = (&RETRY, 0, now);
    }
}

impl Default for Prospects {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            pace: Pace::new(FIRST_MESSAGE_BURST, FIRST_MESSAGES_A_SECOND),
            addressed: BTreeMap::new(),
            counter: 0,
        }
    }
}

impl Prospects {
    /// Our networks are these now.
    pub(crate) fn follow(&mut self, links: &Links) {
        self.by_id.values_mut().for_each(|prospect| prospect.candidates.follow(links));
    }

    /// Whether we seek `peer`.
    pub(crate) fn seeks(&self, peer: &NodeId) -> bool {
        self.by_id.contains_key(peer)
    }

    /// Whether we seek `peer` because of something that was heard, and not only where it was once.
    pub(crate) fn has_hint_of(&self, peer: &NodeId) -> bool {
        let hint = |candidate: &Candidate| candidate.source != Source::Proved;
        let sought = self.by_id.get(peer).filter(|prospect| !prospect.is_glance());
        sought.is_some_and(|prospect| prospect.candidates.iter().any(hint))
    }

    /// Whether we seek somebody because of something that was heard who is not `known`.
    pub(crate) fn has_newcomer(&self, known: impl Fn(&NodeId) -> bool) -> bool {
        self.by_id.keys().any(|id| !known(id) && self.has_hint_of(id))
    }

    /// How we try to meet `peer`, if it tries as well.
    pub(super) fn meeting(&self, peer: &NodeId) -> Option<&Meeting> {
        self.by_id.get(peer)?.meeting.as_ref()
    }

    /// Where all of them may be.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.by_id.values().flat_map(|prospect| prospect.candidates.iter())
    }

    /// When the oldest first message was made that still waits for its answer.
    pub(super) fn oldest_key(&self) -> Option<Instant> {
        self.by_id.values().filter_map(|prospect| Some(prospect.first_message.as_ref()?.made)).min()
    }

    /// How many we seek because `teller` named them.
    pub(crate) fn told_by(&self, teller: NodeId) -> usize {
        self.by_id.values().filter(|prospect| prospect.teller == Some(teller)).count()
    }

    /// Only what is not answered counts against an address: the next device may have it at once.
    fn answered(&mut self, prospect: NodeId) {
        self.addressed
            .values_mut()
            .for_each(|there| there.retain(|addressed| addressed.prospect != prospect));
    }

    fn may_address(&mut self, addr: SocketAddr, prospect: NodeId, now: Instant) -> bool {
        let recent = |addressed: &Addressed| now.since(addressed.at) < ONE_ADDRESS;
        if self.addressed.len() >= PROSPECTS {
            self.addressed.retain(|_, there| there.iter().any(recent));
        }
        if self.addressed.len() >= PROSPECTS && !self.addressed.contains_key(&addr.ip()) {
            return false;
        }
        let there = self.addressed.entry(addr.ip()).or_default();
        there.retain(recent);
        let same = there.iter().find(|addressed| addressed.port == addr.port());
        let free = match same {
            Some(addressed) => addressed.prospect == prospect,
            None => there.len() < ONE_HOST,
        };
        if free && same.is_none() {
            there.push(Addressed { at: now, port: addr.port(), prospect });
        }
        free
    }
}

impl Node {
    /// Wants a session with `id`, which may be at `route`. With `route` none, at the addresses known of it.
    pub(crate) fn seek(&mut self, id: NodeId, route: Option<(Route, Source)>, teller: Option<NodeId>) {
        self.seek_in(self.config.network.current().tag(), id, route, teller);
    }

    /// The same of somebody who spoke with the secret of `network`.
    pub(crate) fn seek_in(
        &mut self,
        network: NetworkTag,
        id: NodeId,
        route: Option<(Route, Source)>,
        teller: Option<NodeId>,
    ) {
        let unreached =
            !self.peers.get(&id).is_some_and(|peer| peer.is_online() && !peer.liveness.is_suspect());
        if route.is_none() && unreached && self.may_meet(&id) {
            return self.meet(id, false);
        }
        let now = self.now;
        if self.prospect(network, id, teller).is_none() {
            return;
        }
        let (links, Some(prospect)) = (&self.links, self.prospects.by_id.get_mut(&id)) else { return };
        if prospect.is_glance() {
            prospect.seek_in_earnest(now);
        }
        let mut fresh = prospect.attempts == 0;
        if let Some((route, source)) = route {
            prospect.heard_of = Some(now);
            let ways: Vec<_> = links.ways(route).collect();
            let known = |way: &Route| prospect.candidates.iter().any(|known| known.route.is_way_of(way));
            fresh |= !ways.iter().all(known);
            // Back-off must not make us deaf: a hint after a while says that the way may be open again.
            fresh |= prospect.last_sent.is_some_and(|sent| now.since(sent) >= ONE_ADDRESS);
            ways.into_iter().rev().for_each(|way| prospect.candidates.add(way, source));
            // A newly seen address is worth a new series.
            if fresh && source < Source::Hearsay {
                prospect.attempts = 0;
                (prospect.network, prospect.turns) = (network, 0);
            }
        }
        if prospect.candidates.is_empty() {
            self.give_up(id, "no address");
        } else if fresh {
            self.send_first_message(id);
        }
    }

    /// The prospect `id`, new if it is not sought yet; none if there is no room, or it is ourselves.
    pub(super) fn prospect(
        &mut self,
        network: NetworkTag,
        id: NodeId,
        teller: Option<NodeId>,
    ) -> Option<&mut Prospect> {
        if id == self.id {
            return None;
        }
        if !self.prospects.by_id.contains_key(&id) {
            let prospects = &self.prospects.by_id;
            if prospects.len() >= PROSPECTS {
                // The newest hints come first: the oldest that came from others makes room.
                let oldest =
                    prospects.iter().filter(|(id, _)| !self.peers.get(id).is_some_and(|p| p.is_online()));
                let oldest = oldest.min_by_key(|(_, prospect)| prospect.since).map(|(id, _)| *id)?;
                self.give_up(oldest, "too many prospects");
            }
            let known = self.peers.get(&id).map(|peer| {
                let mut known = peer.candidates.clone();
                // However many addresses were heard since.
                peer.path.into_iter().for_each(|path| known.add(path, Source::Proved));
                known
            });
            let prospect = Prospect {
                candidates: known.unwrap_or_default(),
                network,
                turns: 0,
                has_current: false,
                series: &RETRY,
                attempts: 0,
                meeting: None,
                first_message: None,
                teller,
                since: self.now,
                heard_of: None,
                last_sent: None,
            };
            self.prospects.by_id.insert(id, prospect);
        }
        self.prospects.by_id.get_mut(&id)
    }

    pub(super) fn meeting_mut(&mut self, id: &NodeId) -> Option<&mut Meeting> {
        self.prospects.by_id.get_mut(id)?.meeting.as_mut()
    }

    /// Sends our first message to all addresses at which the prospect may be, and awaits the answer.
    pub(super) fn send_first_message(&mut self, id: NodeId) {
        let now = self.now;
        if !self.may_knock(id) {
            self.timers.set(Timer::Handshake(id), now + KNOCK_PAUSE);
            return;
        }
        let promised = self.is_promised(id);
        let relayed = self.peers.get(&id).is_some_and(|peer| peer.is_online() && !peer.is_near());
        let only_direct = relayed && !self.is_renewal_due(id);
        let Some(packet) = self.first_packet(id) else { return };
        let Some(prospect) = self.prospects.by_id.get_mut(&id) else { return };
        let steps = if prospect.meeting.is_some() { &SCHEDULE[..] } else { prospect.series };
        let step = steps[prospect.attempts.min(steps.len() - 1)];
        let meeting = prospect.meeting;
        prospect.attempts += 1;
        let (attempts, teller) = (prospect.attempts, prospect.teller);
        let silent = meeting.is_none() && now.since(prospect.since) >= SERIES;
        prospect.turns += 1;
        prospect.last_sent = Some(now);
        let mut candidates: Vec<_> = prospect.candidates.iter().copied().collect();
        if only_direct {
            // What is sought is another way.
            candidates.retain(|candidate| !is_relayed(candidate.route.remote.ip()));
        }
        for candidate in candidates {
            let trusted = candidate.source <= Source::Relayed;
            // One token a datagram: what finds none waits for the next attempt.
            let promised = promised.is_some_and(|path| path.is_way_of(&candidate.route));
            if (trusted || self.prospects.may_address(candidate.route.remote, id, now))
                && (self.prospects.pace.take(now) || promised)
            {
                if candidate.source == Source::Introduced {
                    self.send_opening(id, candidate.route, &packet);
                } else {
                    self.outbox.push(Destination::One(candidate.route), &packet);
                }
            }
        }
        if meeting.is_some() {
            self.introduce_again(id);
            if !self.is_met(&id) {
                self.try_fresh_port(id, attempts);
                self.try_birthday(id, attempts);
            }
        }
        let unreached = !self.peers.get(&id).is_some_and(|peer| peer.is_online());
        if unreached && attempts >= if meeting.is_some() { RELAY_AFTER_MEETING } else { RELAY_AFTER } {
            self.seek_relay(id, teller);
        }
        if silent {
            self.note_silent(id);
        }
        let retry = self.jittered(step);
        self.timers.set(Timer::Handshake(id), now + retry);
    }

    /// Sends our first message to where a member says it is, as far as the meeting with it has come.
    pub(super) fn send_opening(&mut self, id: NodeId, route: Route, packet: &[u8]) {
        let Some(meeting) = self.prospects.meeting(&id) else { return };
        // Where our usual port varies the other side cannot have sent to it, so there is nothing to be spoilt.
        let far = route.port == OwnPort::USUAL && self.has_varying_port();
        let hops = meeting.hops(route.remote.ip()).filter(|_| !far);
        self.outbox.push_as_far_as(Destination::One(route), hops, packet);
    }

    pub(super) fn candidates_of_prospect(&mut self, id: &NodeId) -> Option<&mut Candidates> {
        Some(&mut self.prospects.by_id.get_mut(id)?.candidates)
    }

    /// Whether a first message for `id` may leave now.
    pub(crate) fn may_knock(&mut self, id: NodeId) -> bool {
        self.prospects.pace.room(self.now) > 0 || self.is_promised(id).is_some()
    }

    /// The path of an online peer that an app waits for: a publication goes to all who listen, and its handshakes are no
    /// more than its messages.
    fn is_promised(&self, id: NodeId) -> Option<Route> {
        self.peers.get(&id)?.path.filter(|_| self.is_awaited(id))
    }

    /// Asks a dormant peer by our first message whether it is there.
    pub(crate) fn knock(&mut self, id: NodeId) {
        match self.prospects.by_id.get(&id) {
            // That just happened, for another of its addresses.
            Some(prospect) if prospect.last_sent == Some(self.now) => {}
            Some(_) => self.send_first_message(id),
            None => self.seek(id, None, None),
        }
    }

    /// Whom we seek speaks with the secret of `network`: the next try does too. The secret of before says nothing more
    /// of who has spoken with the current one: it tries both by turns, as we do.
    pub(super) fn prospect_speaks(&mut self, id: NodeId, network: NetworkTag) {
        let is_current = network == self.config.network.current().tag();
        if let Some(prospect) = self.prospects.by_id.get_mut(&id)
            && (is_current || !prospect.has_current)
        {
            (prospect.network, prospect.turns, prospect.has_current) = (network, 0, is_current);
        }
    }

    /// Forgets everybody whom we seek, for another network.
    pub(super) fn forget_prospects(&mut self) {
        let ids: Vec<_> = self.prospects.by_id.keys().copied().collect();
        for id in ids {
            self.forget_first_message(id);
            self.timers.clear(Timer::Handshake(id));
        }
        self.prospects.by_id.clear();
    }

    pub(crate) fn on_handshake_timer(&mut self, id: NodeId) {
        let Some(prospect) = self.prospects.by_id.get(&id) else { return };
        let goes_on = match prospect.meeting {
            Some(meeting) => !meeting.is_over(self.now),
            None => prospect.attempts < prospect.series.len(),
        };
        if goes_on || self.is_awaited(id) {
            self.send_first_message(id);
        } else {
            let teller = self.prospects.by_id.get(&id).and_then(|prospect| prospect.teller);
            self.note_silent(id);
            self.give_up(id, "no answer");
            if self.is_dormant(id) {
                self.condemn(id);
            }
            if let Some(teller) = teller.filter(|_| self.is_crowded_ring()) {
                // It may not have heard that this one left.
                self.tell(teller, &Record::Suspect { peer: id });
            }
        }
    }

    /// `id` has not answered a whole series: if it is there, `status` says so. A peer of before may be away.
    fn note_silent(&mut self, id: NodeId) {
        let is_there = match self.peers.get(&id) {
            Some(peer) => {
                !peer.is_online() && self.prospects.by_id.get(&id).is_some_and(Prospect::is_still_told)
            }
            None => true,
        };
        if is_there {
            self.note_unanswered(id);
        }
    }

    /// Stops seeking `id`.
    pub(crate) fn give_up(&mut self, id: NodeId, reason: &'static str) {
        self.forget_first_message(id);
        self.timers.clear(Timer::Handshake(id));
        let Some(prospect) = self.prospects.by_id.remove(&id) else { return };
        debug!(peer = ?id, reason, "no session");
        if let Some(teller) = prospect.teller {
            self.blame(teller);
        }
        if prospect.meeting.is_some() {
            self.meet_later(id);
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && !peer.is_online()
        {
            peer.why = "no answer at any address that is known of it";
            if let Some(lost) = peer.lost {
                let pause = self.now.since(lost).clamp(SEEK_LOST_MIN, SEEK_LOST_MAX);
                let pause = self.jittered(pause);
                // Tries in between do not put it off.
                self.timers.set_sooner(Timer::Lost(id), self.now + pause);
            }
        }
    }

    pub(crate) fn on_lost_timer(&mut self, id: NodeId) {
        if self.peers.get(&id).is_some_and(|peer| peer.lost.is_some()) {
            self.seek(id, None, None);
        }
    }

    pub(crate) fn on_response(&mut self, via: Route, packet: &[u8; size::RESPONSE]) -> Result<(), Dropped> {
        let index = index_at(packet, field::RESPONSE_RECEIVER);
        let peer = match self.handshakes.indices.get(&index).copied() {
            Some(Owner::Prospect(peer)) => peer,
            Some(Owner::Copy) => return self.on_copy_response(via, packet),
            Some(Owner::HalfOpen | Owner::Peer(_)) | None => return Err(Dropped::UnknownSession),
        };
        let prospect = self.prospects.by_id.get(&peer).ok_or(Dropped::UnknownSession)?;
        let first = prospect.first_message.as_ref().ok_or(Dropped::UnknownSession)?;
        let finished = first.initiator.finish(&self.identity, self.config.network.of(first.network), packet);
        let (keys, payload) = finished.map_err(|_| Dropped::Unauthenticated)?;
        let (boot, name) = boot_and_name(&payload).ok_or(Dropped::Malformed)?;
        if self.peers.get(&peer).is_some_and(|known| known.past_boots.contains(&boot)) {
            // It answers a question of now, so an earlier life goes on beside the one that we know.
            if self.peers.get(&peer).is_some_and(|known| known.is_online()) {
                self.raise_duplicate(peer, via);
            }
            return Err(Dropped::Duplicate);
        }
        if self.lives_elsewhere(&peer, boot, via) {
            return self.contest(peer, boot, via, None);
        }
        let (asked, network) = (first.made, first.network);
        let once = prospect.last_sent == Some(asked);
        let remote = index_at(packet, field::SENDER);
        let established = Established {
            session: Session::new(keys, remote),
            network,
            index,
            since: self.now,
            initiator: true,
            used: false,
        };
        // The index goes over to the session: it must not be freed with the first message.
        if let Some(prospect) = self.prospects.by_id.get_mut(&peer) {
            prospect.first_message = None;
        }
        if !self.establish(peer, established, boot, None, Some(&name), via) {
            return Err(Dropped::OverLimit);
        }
        // The answer to a message that was sent more than once says nothing of the way's length (Karn's rule).
        if let Some(known) = self.peers.get_mut(&peer).filter(|_| once) {
            known.round_trip.sample(self.now.since(asked));
        }
        self.introduce_ourselves(peer);
        Ok(())
    }

    /// A session with `peer` is made: nothing more is to be sought, and what was learnt on the way is kept.
    pub(crate) fn prospect_met(&mut self, peer: NodeId) -> Candidates {
        self.forget_first_message(peer);
        self.timers.clear(Timer::Handshake(peer));
        let met = self.prospects.by_id.remove(&peer);
        self.prospects.answered(peer);
        if met.as_ref().is_some_and(|prospect| prospect.meeting.is_some()) {
            // Should the session have been made through a relay, another way is sought on.
            self.meet_later(peer);
        }
        if let Some(teller) = met.as_ref().and_then(|prospect| prospect.teller)
            && let Some(teller) = self.peers.get_mut(&teller)
        {
            teller.failed_hints = 0;
        }
        met.map(|prospect| prospect.candidates).unwrap_or_default()
    }

    /// Whether our first messages to `peer` have not gone as far as where it sends from.
    pub(super) fn falls_short(&self, peer: &NodeId, via: Route) -> bool {
        let Some(prospect) = self.prospects.by_id.get(peer) else { return false };
        let known = prospect.candidates.iter().find(|known| known.route.is_way_of(&via));
        prospect.meeting.is_some_and(|meeting| meeting.hops(via.remote.ip()).is_some())
            && known.is_none_or(|known| known.source == Source::Introduced)
    }
}

pub(super) fn boot_and_name(payload: &[u8; size::RESPONSE_PAYLOAD]) -> Option<(BootId, NodeName)> {
    let (boot, rest) = payload.split_first_chunk::<8>()?;
    let (length, name) = rest.split_first()?;
    let name = std::str::from_utf8(name.get(..usize::from(*length))?).ok()?;
    Some((BootId(u64::from_le_bytes(*boot)), name.parse().ok()?))
}
