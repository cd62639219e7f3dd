//! Bringing messages over: numbers, retries and fates (protocol.md, 5.4).
//!
//! A tracked message gets a number, counted per life of its receiver, and what is lost of it is sent again until its
//! fate comes back or its deadline has passed. It names the one of its stream (one app, one topic) that must come before
//! it. What is larger than a datagram travels in pieces.
//!
//! What cannot leave yet waits in `turns`: for a session, for its turn, for the pace of the path (`flight`), for a place
//! among the messages under way, or for the number that the peer has given to the topic. Its app is not read further
//! when too much of its own waits.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::Node;
use crate::core::letters::{KeptAddress, Lasting, Letter, Parcel, Patience, Sender};
use crate::core::listeners::Questions;
use crate::core::timers::Timer;
use crate::core::topics::RemoteTopics;
use crate::core::turns::Turns;
use crate::id::{ClientId, MessageNumber, NodeId};
use crate::limits;
use crate::time::Instant;
use crate::wire::local::Outcome;
use crate::wire::message::{self, Heading, Place, Record};
use crate::wire::packet::size;

/// What is under way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) turns: Turns<Item>,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) last_number: u64,
    last_untracked: u64,
    pub(crate) questions: Questions,
}

/// The last numbers that were given to messages, with a report and without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbered {
    tracked: u64,
    untracked: u64,
}

impl Numbered {
    pub(crate) fn max(self, other: Self) -> Self {
        Self { tracked: self.tracked.max(other.tracked), untracked: self.untracked.max(other.untracked) }
    }
}

/// What has its turn.
#[derive(Debug)]
pub(crate) enum Item {
    /// A message of which nothing was sent.
    Whole { parcel: Parcel, address: KeptAddress, tracked: bool, patience: Patience },
    /// The rest of the tracked message with this number.
    Rest(u64),
    /// The rest of one that nobody reports on, from `at` on.
    Untracked { parcel: Parcel, heading: Heading, number: u64, at: usize },
}

impl Item {
    /// The message, if it is not among those under way.
    pub(crate) fn parcel(&self) -> Option<&Parcel> {
        match self {
            Self::Whole { parcel, .. } | Self::Untracked { parcel, .. } => Some(parcel),
            Self::Rest(_) => None,
        }
    }

    pub(crate) fn into_parcel(self) -> Option<Parcel> {
        match self {
            Self::Whole { parcel, .. } | Self::Untracked { parcel, .. } => Some(parcel),
            Self::Rest(_) => None,
        }
    }
}

impl Item {
    /// Under which number and heading it was sent and found nobody, if it waits again.
    pub(crate) fn refused(&self) -> Option<(u64, Heading)> {
        self.parcel()?.lasting.as_ref()?.refused
    }

    /// What the peer calls its destination, if anybody is there.
    pub(crate) fn heading(&self, topics: &RemoteTopics) -> Option<Heading> {
        match self {
            Self::Whole { address, .. } => address.as_address().heading(topics),
            Self::Untracked { heading, .. } => Some(*heading),
            Self::Rest(_) => None,
        }
    }

    /// The message, with what it takes to wait for a listener again if it finds none.
    fn into_lasting(self) -> Option<Parcel> {
        match self {
            Self::Whole { mut parcel, address, patience, .. } => {
                // One that was refused before keeps what is known of that.
                if parcel.lasting.is_none() {
                    parcel.lasting = Lasting::of(address, patience);
                }
                Some(parcel)
            }
            Self::Untracked { .. } | Self::Rest(_) => None,
        }
    }
}

/// A tracked message that has its number and not yet its fate.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) number: u64,
    pub(crate) parcel: Parcel,
    pub(crate) heading: Heading,
    /// How much was sent at least once, and how much arrived.
    pub(crate) sent: usize,
    pub(crate) arrived: usize,
    /// When its fate is asked for, and how often it was.
    pub(crate) again: Instant,
    pub(crate) asked: u32,
}

impl InFlight {
    pub(crate) fn has_arrived(&self) -> bool {
        self.sent >= self.parcel.payload.len() && self.arrived >= self.parcel.payload.len()
    }

    /// Whether it goes in one datagram of that size.
    fn fits(&self, datagram: usize) -> bool {
        let overhead = match self.heading {
            Heading::Topic(_) => message::MESSAGE_OVERHEAD,
            Heading::Request { .. } | Heading::Reply(_) => message::PIECE_OVERHEAD,
        };
        self.parcel.payload.len() + overhead + size::DATA_OVERHEAD <= datagram
    }

    /// Whether `other` is of the same app and topic, whose order is kept.
    pub(crate) fn is_of_stream(&self, heading: Heading, client: ClientId) -> bool {
        let topic = |heading: Heading| match heading {
            Heading::Topic(topic) | Heading::Request { topic, .. } => Ok(topic),
            Heading::Reply(token) => Err(token),
        };
        self.parcel.sender.client == client && topic(self.heading) == topic(heading)
    }
}

/// How far a turn got.
enum Step {
    Sent,
    /// Nothing that waits can leave.
    Blocked,
}

/// A piece is not worth its header below this.
const PIECE_MIN: usize = 200;
impl Delivery {
    pub(crate) const fn numbered(&self) -> Numbered {
        Numbered { tracked: self.last_number, untracked: self.last_untracked }
    }

    /// Messages get higher numbers than these.
    pub(crate) const fn number_after(&mut self, numbered: Numbered) {
        (self.last_number, self.last_untracked) = (numbered.tracked, numbered.untracked);
    }

    /// Whether nothing is on its way to the peer.
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.in_flight.is_empty()
    }

    /// How many messages are on their way to the peer.
    pub(crate) fn len(&self) -> usize {
        self.turns.iter().filter_map(Item::parcel).count() + self.in_flight.len()
    }

    /// Whether something waits for its turn.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.turns.is_idle()
    }

    fn open(&self) -> u64 {
        self.in_flight.front().map_or(self.last_number + 1, |first| first.number)
    }

    /// Whether one more message may be numbered: the receiver's window must cover all that have no fate.
    fn has_place(&self) -> bool {
        self.in_flight.len() < limits::TRACKED_IN_FLIGHT
            && self.last_number + 1 - self.open() < limits::TRACKED_WINDOW
    }

    /// Whether the receiver can put one more message of `bytes` together from pieces, with datagrams of `datagram` bytes.
    fn has_room_there(&self, bytes: usize, datagram: usize) -> bool {
        let untracked = self.turns.iter().filter_map(|item| match item {
            Item::Untracked { parcel, .. } => Some(parcel.payload.len()),
            Item::Whole { .. } | Item::Rest(_) => None,
        });
        can_be_put_together(self.in_pieces(self.in_flight.len(), datagram).chain(untracked), bytes)
    }

    /// Whether the message at `at` may go: in one datagram, or in pieces as one of the first that do. When a path
    /// carries less than before, many that were sent whole go in pieces.
    fn may_go(&self, at: usize, datagram: usize) -> bool {
        let Some(message) = self.in_flight.get(at) else { return false };
        message.fits(datagram)
            || can_be_put_together(self.in_pieces(at, datagram), message.parcel.payload.len())
    }

    /// The sizes of those before `at` that go in pieces.
    fn in_pieces(&self, at: usize, datagram: usize) -> impl Iterator<Item = usize> {
        let large = self.in_flight.iter().take(at).filter(move |message| !message.fits(datagram));
        large.map(|message| message.parcel.payload.len())
    }

    pub(crate) fn find(&self, number: u64) -> Option<usize> {
        self.in_flight.binary_search_by_key(&number, |message| message.number).ok()
    }

    /// A piece of a tracked message arrived.
    pub(crate) fn arrived(&mut self, number: u64, bytes: usize) {
        if let Some(message) = self.find(number).and_then(|at| self.in_flight.get_mut(at)) {
            message.arrived += bytes;
        }
    }

    /// The number of the message that must be delivered before the one at `at`.
    pub(crate) fn before(&self, at: usize) -> Option<u64> {
        let message = self.in_flight.get(at)?;
        let client = message.parcel.sender.client;
        let earlier = self.in_flight.iter().take(at).rev();
        earlier.into_iter().find(|it| it.is_of_stream(message.heading, client)).map(|it| it.number)
    }
}

impl Node {
    /// Whether an app waits for a session with `id`.
    pub(crate) fn is_awaited(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| !peer.delivery.is_empty()) || self.pings.await_peer(&id)
    }

    /// Sends a message to `id`, now or as soon as that is possible. `None`: its sender will be told later.
    pub(crate) fn dispatch(&mut self, id: NodeId, letter: Letter<'_>, sender: Sender) -> Option<Outcome> {
        let Letter { address, payload, tracked, deadline, patience } = letter;
        let now = self.now;
        self.in_use(id);
        let ready = self.may_carry_data(id);
        let peer = self.peers.get_mut(&id)?;
        let heading = address.heading(&peer.topics);
        let is_whole = address.fits(payload.len(), peer.datagram_bytes);
        let is_first = peer.delivery.turns.is_empty() && !peer.flight.has_losses();
        let has_place = !tracked || peer.delivery.has_place();
        let at_once = ready && is_first && has_place && peer.flight.may_send(now);
        if let (true, true, Some(heading)) = (at_once, is_whole, heading) {
            if !tracked {
                let told = self.tell_untracked(id, heading, payload);
                return Some(if told { Outcome::Sent } else { Outcome::Unreachable });
            }
            let payload = self.copy_of(payload);
            let lasting = match patience {
                Patience::Deadline => Lasting::of(address.keep()?, patience),
                Patience::None | Patience::Grace => None,
            };
            let parcel = Parcel { sender, payload, accepted: now, deadline, lasting };
            let number = self.number(id, parcel, heading)?;
            self.send_piece(id, number, 0, letter.payload.len());
            return None;
        }
        let is_online = peer.is_online();
        let would_leave = at_once && peer.delivery.has_room_there(payload.len(), peer.datagram_bytes);
        if patience == Patience::None && !would_leave {
            return Some(if is_online { Outcome::Busy } else { Outcome::Unreachable });
        }
        let address = address.keep()?;
        let parcel =
            Parcel { sender, payload: self.copy_of(payload), accepted: now, deadline, lasting: None };
        let app = (self.clients.uid_of(sender.client), sender.client);
        let peer = self.peers.get_mut(&id)?;
        if heading.is_none() {
            // Of what is behind another one of its app the question is planned when that one has its answer.
            peer.delivery.ask_about(&address, patience, now, &peer.topics);
        }
        let item = Item::Whole { parcel, address, tracked, patience };
        peer.delivery.turns.push(app, item, heading.is_none());
        self.timers.set_sooner(Timer::Delivery(id), deadline);
        if !ready {
            self.seek(id, None, None);
        }
        self.resume_delivery(id);
        None
    }

    /// The payload, to be kept: all copies of a publication share it.
    pub(crate) fn copy_of(&mut self, payload: &[u8]) -> Arc<Vec<u8>> {
        if let Some(shared) = self.published.as_ref().and_then(Option::as_ref) {
            return Arc::clone(shared);
        }
        let mut copy = self.payloads.pop().unwrap_or_default();
        match Arc::get_mut(&mut copy) {
            Some(bytes) => bytes.extend_from_slice(payload),
            None => copy = Arc::new(payload.to_vec()),
        }
        if let Some(published) = &mut self.published {
            *published = Some(Arc::clone(&copy));
        }
        copy
    }

    fn tell_untracked(&mut self, id: NodeId, heading: Heading, payload: &[u8]) -> bool {
        if let Heading::Topic(topic) = heading {
            return self.tell_message(id, &Record::Message { topic, payload });
        }
        let place = Place::Untracked { number: 0 };
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.tell_message(id, &Record::Piece { place, heading, size, at: 0, bytes: payload })
    }

    /// Gives a tracked message its number.
    fn number(&mut self, id: NodeId, parcel: Parcel, heading: Heading) -> Option<u64> {
        let peer = self.peers.get_mut(&id)?;
        peer.delivery.last_number += 1;
        let number = peer.delivery.last_number;
        let again = self.now + peer.round_trip.retry_after();
        let due = again.min(parcel.deadline);
        let message = InFlight { number, parcel, heading, sent: 0, arrived: 0, again, asked: 0 };
        peer.delivery.in_flight.push_back(message);
        self.timers.set_sooner(Timer::Delivery(id), due);
        Some(number)
    }

    /// Sends `bytes` of a tracked message from `from` on, in as many pieces as it takes.
    pub(crate) fn send_piece(&mut self, id: NodeId, number: u64, from: usize, bytes: usize) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let open = peer.delivery.open();
        let Some(index) = peer.delivery.find(number) else { return };
        let after = peer.delivery.before(index).map_or(0, |before| number - before);
        let Some(message) = peer.delivery.in_flight.get_mut(index) else { return };
        let heading = message.heading;
        let end = (from + bytes).min(message.parcel.payload.len());
        message.sent = message.sent.max(end);
        let payload = Arc::clone(&message.parcel.payload);
        let (open, message_number) = (number - open, MessageNumber(number));
        let mut at = from;
        loop {
            let whole = at == 0 && end == payload.len();
            let room = self.room_for_message(id);
            let fits = end - at + message::MESSAGE_OVERHEAD <= room;
            let (record, sent) = match heading {
                Heading::Topic(topic) if whole && fits => {
                    let payload = &payload[..];
                    (Record::Tracked { number: message_number, after, open, topic, payload }, end)
                }
                Heading::Topic(_) | Heading::Request { .. } | Heading::Reply(_) => {
                    let piece_end = end.min(at + room.saturating_sub(message::PIECE_OVERHEAD).max(1));
                    let place = Place::Tracked { number: message_number, after, open };
                    (piece_of(place, heading, &payload, at, piece_end), piece_end)
                }
            };
            let told = self.tell_message(id, &record);
            let Some(peer) = self.peers.get_mut(&id) else { break };
            if told {
                peer.flight.put(number, at, sent - at);
            } else {
                // The session has ended under our hands: the next one brings it over.
                peer.flight.send_again(number, at, sent - at);
            }
            // Delivered once however often it comes, so it need not wait until it is known which way is dead.
            if let Some(other) = self.other_way(id) {
                self.tell_on(id, other, &record);
            }
            at = sent;
            if at >= end {
                break;
            }
        }
    }

    /// Sends what waits and can leave now.
    pub(crate) fn resume_delivery(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.delivery.turns.is_empty() && !peer.flight.has_losses() || !self.may_carry_data(id) {
            return;
        }
        while let Some(peer) =
            self.peers.get_mut(&id).filter(|peer| peer.current.is_some() && peer.is_online())
        {
            if let Some(lost) = peer.flight.next_again(self.now) {
                match peer.delivery.find(lost.number) {
                    Some(at) if peer.delivery.may_go(at, peer.datagram_bytes) => {
                        self.send_piece(id, lost.number, lost.at, lost.bytes);
                    }
                    Some(_) => peer.flight.postpone(lost),
                    // Of a message that has its fate nothing is missed any more.
                    None => {}
                }
                continue;
            }
            if peer.delivery.turns.is_idle() || !peer.flight.may_send(self.now) {
                break;
            }
            if let Step::Blocked = self.send_next(id) {
                break;
            }
        }
        self.ask_for_topics(id);
        self.plan_flight(id);
    }

    /// Sends something of the app whose turn it is, or of the next one that can send.
    fn send_next(&mut self, id: NodeId) -> Step {
        let round = self.peers.get(&id).map_or(0, |peer| peer.delivery.turns.round());
        for _ in 0..round {
            let Some(peer) = self.peers.get_mut(&id) else { return Step::Blocked };
            let datagram = peer.datagram_bytes;
            let Some((_, first)) = peer.delivery.turns.first() else { return Step::Blocked };
            match first {
                Item::Rest(number) => {
                    let number = *number;
                    self.send_rest(id, number);
                    return Step::Sent;
                }
                Item::Untracked { .. } => {
                    self.send_untracked_rest(id);
                    return Step::Sent;
                }
                Item::Whole { parcel, address, tracked, .. } => {
                    let (tracked, bytes) = (*tracked, parcel.payload.len());
                    let Some(heading) = address.as_address().heading(&peer.topics) else {
                        peer.delivery.turns.set_aside();
                        peer.delivery.ask_topics_at(Some(self.now));
                        continue;
                    };
                    let is_whole = address.as_address().fits(bytes, datagram);
                    let blocked = tracked && !peer.delivery.has_place()
                        || !is_whole && !peer.delivery.has_room_there(bytes, datagram);
                    if blocked {
                        peer.delivery.turns.next_turn();
                        continue;
                    }
                    self.begin(id, heading, is_whole);
                    return Step::Sent;
                }
            }
        }
        Step::Blocked
    }

    /// Begins to send the first message of the app whose turn it is.
    fn begin(&mut self, id: NodeId, heading: Heading, is_whole: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(Item::Whole { parcel, tracked, .. }) = peer.delivery.turns.first().map(|(_, item)| item)
        else {
            return;
        };
        let (bytes, tracked, deadline) = (parcel.payload.len(), *tracked, parcel.deadline);
        if !is_whole {
            self.probe_mtu(id);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match (tracked, is_whole) {
            (false, true) => {
                let Some(parcel) = peer.delivery.turns.take_first(bytes).and_then(Item::into_parcel) else {
                    return;
                };
                let told = self.tell_untracked(id, heading, &parcel.payload);
                self.conclude(id, parcel, if told { Outcome::Sent } else { Outcome::Unreachable }, false);
            }
            (false, false) => {
                peer.delivery.last_untracked += 1;
                let number = peer.delivery.last_untracked;
                if let Some((_, item)) = peer.delivery.turns.first()
                    && let Item::Whole { parcel, .. } = item
                {
                    let (sender, accepted) = (parcel.sender, parcel.accepted);
                    let payload = Arc::clone(&parcel.payload);
                    let parcel = Parcel { sender, payload, accepted, deadline, lasting: None };
                    *item = Item::Untracked { parcel, heading, number, at: 0 };
                }
                self.send_untracked_rest(id);
            }
            (true, true) => {
                let Some(parcel) = peer.delivery.turns.take_first(bytes).and_then(Item::into_lasting) else {
                    return;
                };
                if let Some(number) = self.number(id, parcel, heading) {
                    self.send_piece(id, number, 0, bytes);
                }
            }
            (true, false) => {
                let next = peer.delivery.last_number + 1;
                let Some((_, item)) = peer.delivery.turns.first() else { return };
                let Some(parcel) = std::mem::replace(item, Item::Rest(next)).into_lasting() else { return };
                if let Some(number) = self.number(id, parcel, heading) {
                    self.send_rest(id, number);
                }
            }
        }
    }

    /// Sends the next piece of a tracked message whose turn it is.
    fn send_rest(&mut self, id: NodeId, number: u64) {
        let room = self.room_for_message(id).saturating_sub(message::PIECE_OVERHEAD).max(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let message = peer.delivery.find(number).and_then(|at| peer.delivery.in_flight.get(at));
        let Some((sent, all)) = message.map(|message| (message.sent, message.parcel.payload.len())) else {
            // It has its fate: given up, or nobody listens.
            peer.delivery.turns.take_first(0);
            return;
        };
        let bytes = room.min(all - sent);
        if sent + bytes >= all {
            peer.delivery.turns.take_first(bytes);
        } else {
            peer.delivery.turns.spend(bytes);
        }
        self.send_piece(id, number, sent, bytes);
    }

    /// Sends the next piece of a message that nobody reports on and whose turn it is.
    fn send_untracked_rest(&mut self, id: NodeId) {
        let room = self.room_for_message(id).saturating_sub(message::PIECE_OVERHEAD).max(1);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some((_, Item::Untracked { parcel, heading, number, at })) = peer.delivery.turns.first() else {
            return;
        };
        let (heading, from, place) = (*heading, *at, Place::Untracked { number: *number });
        let end = (from + room).min(parcel.payload.len());
        *at = end;
        let payload = Arc::clone(&parcel.payload);
        if end < payload.len() {
            peer.delivery.turns.spend(end - from);
            self.tell_message(id, &piece_of(place, heading, &payload, from, end));
            return;
        }
        let whole = peer.delivery.turns.take_first(end - from).and_then(Item::into_parcel);
        self.tell_message(id, &piece_of(place, heading, &payload, from, end));
        drop(payload);
        if let Some(parcel) = whole {
            self.conclude(id, parcel, Outcome::Sent, false);
        }
    }

    /// Bytes for a record of a message, in the datagram that is being filled or in a new one.
    fn room_for_message(&mut self, id: NodeId) -> usize {
        self.room(id, message::PIECE_OVERHEAD + PIECE_MIN)
    }

    /// `id` is perhaps reached only by another way: the first `count` that were not answered go at once.
    pub(crate) fn hurry_delivery(&mut self, id: NodeId, count: usize) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.flight.ask_again(count);
            self.resume_delivery(id);
        }
    }
}

/// Whether the receiver can put one more message of `bytes` together beside those of these sizes.
fn can_be_put_together(others: impl Iterator<Item = usize>, bytes: usize) -> bool {
    let (messages, held) = others.fold((0, 0), |(messages, held), size| (messages + 1, held + size));
    messages < limits::REASSEMBLED_MESSAGES && held + bytes <= limits::REASSEMBLED_BYTES
}

fn piece_of(place: Place, heading: Heading, payload: &[u8], at: usize, end: usize) -> Record<'_> {
    let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Record::Piece { place, heading, size: number(payload.len()), at: number(at), bytes: &payload[at..end] }
}
