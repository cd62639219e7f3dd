//! Bringing messages over: numbers, retries and fates (protocol.md, 5.4).
//!
//! A tracked message gets a number, counted per life of its receiver, and is sent again with back-off until its fate
//! comes back or its deadline has passed. The receiver remembers the fate of each number in its window, so a copy is
//! answered and not delivered again. A message names the one of its stream (one app, one topic) that must come before
//! it; until that one came it is held back.
//!
//! What cannot leave yet waits: for a session, for a place among the messages under way, or for the number that the
//! peer has given to the topic.

use std::collections::VecDeque;

use crate::core::Node;
use crate::core::api::Route;
use crate::core::inbox::{Inbox, Judgement};
use crate::core::paths::{ASK_AGAIN, RETRY_MAX};
use crate::core::timers::Timer;
use crate::core::topics::RemoteTopics;
use crate::id::{ClientId, MessageNumber, NodeId, ReplyToken, RequestId, Topic};
use crate::limits;
use crate::time::Instant;
use crate::wire::local::Outcome;
use crate::wire::message::{Fate, Heading, Place, Record};

/// How a tracked record names its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub(crate) number: MessageNumber,
    /// How far below `number` its predecessor stands; zero: none.
    pub(crate) after: u64,
    /// How far below `number` the first message without a fate stands.
    pub(crate) open: u64,
}

/// Who wants to know what became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) client: ClientId,
    pub(crate) id: Option<RequestId>,
    /// It is one copy of this publication.
    pub(crate) publication: Option<u64>,
    /// It asks for replies.
    pub(crate) ask: Option<ReplyToken>,
}

/// To whom a message is at the receiver's node, as its app says it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Address<'a> {
    /// Those who listen to a topic.
    Topic(&'a str),
    /// The same, and they may reply.
    Request(&'a str, ReplyToken),
    /// Who sent a request with this token.
    Reply(ReplyToken),
}

impl Address<'_> {
    fn keep(self) -> Option<KeptAddress> {
        Some(match self {
            Self::Topic(topic) => KeptAddress::Topic(topic.parse().ok()?),
            Self::Request(topic, token) => KeptAddress::Request(topic.parse().ok()?, token),
            Self::Reply(token) => KeptAddress::Reply(token),
        })
    }

    /// What the peer calls it, if anybody is there.
    fn heading(self, topics: &RemoteTopics) -> Option<Heading> {
        Some(match self {
            Self::Topic(topic) => Heading::Topic(topics.number(topic)?),
            Self::Request(topic, token) => Heading::Request { topic: topics.number(topic)?, token },
            Self::Reply(token) => Heading::Reply(token),
        })
    }
}

/// An address of a message that waits.
#[derive(Clone, Debug)]
enum KeptAddress {
    Topic(Topic),
    Request(Topic, ReplyToken),
    Reply(ReplyToken),
}

impl KeptAddress {
    fn as_address(&self) -> Address<'_> {
        match self {
            Self::Topic(topic) => Address::Topic(topic.as_str()),
            Self::Request(topic, token) => Address::Request(topic.as_str(), *token),
            Self::Reply(token) => Address::Reply(*token),
        }
    }
}

/// A message as its app gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) address: Address<'a>,
    pub(crate) payload: &'a [u8],
    /// Its outcome is to be reported.
    pub(crate) tracked: bool,
    pub(crate) deadline: Instant,
    /// It may be kept until it can leave.
    pub(crate) may_wait: bool,
}

/// A message on its way to one peer.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) sender: Sender,
    pub(crate) payload: Vec<u8>,
    pub(crate) accepted: Instant,
    pub(crate) deadline: Instant,
}

/// What is under way to and from one peer.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    waiting: VecDeque<Waiting>,
    in_flight: VecDeque<InFlight>,
    last_number: u64,
    /// When the peer was asked for its topics on behalf of what waits.
    topics_asked: Option<Instant>,
    inbox: Inbox,
}

#[derive(Debug)]
struct Waiting {
    parcel: Parcel,
    address: KeptAddress,
    tracked: bool,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    parcel: Parcel,
    heading: Heading,
    sent: Instant,
    tries: u32,
    again: Instant,
}

impl Delivery {
    /// Whether nothing is on its way to the peer.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// How many messages are on their way to the peer.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// What the peer listens to is to be asked anew.
    pub(crate) fn topics_forgotten(&mut self) {
        self.topics_asked = None;
    }

    fn open(&self) -> u64 {
        self.in_flight.front().map_or(self.last_number + 1, |first| first.number)
    }

    /// Whether one more message may be numbered: the receiver's window must cover all that have no fate.
    fn has_place(&self) -> bool {
        self.in_flight.len() < limits::TRACKED_IN_FLIGHT
            && self.last_number + 1 - self.open() < limits::TRACKED_WINDOW
    }
}

impl Node {
    /// Whether an app waits for a session with `id`.
    pub(crate) fn is_awaited(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| !peer.delivery.is_empty()) || self.pings.await_peer(&id)
    }

    /// Sends a message to `id`, now or as soon as that is possible. `None`: its sender will be told later.
    pub(crate) fn dispatch(&mut self, id: NodeId, letter: Letter<'_>, sender: Sender) -> Option<Outcome> {
        let Letter { address, payload, tracked, deadline, may_wait } = letter;
        let now = self.now;
        self.in_use(id);
        let ready = self.may_carry_data(id);
        let peer = self.peers.get_mut(&id)?;
        let heading = address.heading(&peer.topics);
        let blocked = !peer.delivery.waiting.is_empty() || tracked && !peer.delivery.has_place();
        if let (true, false, Some(heading)) = (ready, blocked, heading) {
            if !tracked {
                let told = self.tell_untracked(id, heading, payload);
                return Some(if told { Outcome::Sent } else { Outcome::Unreachable });
            }
            let mut copy = self.payloads.pop().unwrap_or_default();
            copy.extend_from_slice(payload);
            let parcel = Parcel { sender, payload: copy, accepted: now, deadline };
            self.send_numbered(id, parcel, heading);
            return None;
        }
        if !may_wait || peer.delivery.waiting.len() >= limits::WAITING_MESSAGES {
            return Some(if peer.is_online() { Outcome::Busy } else { Outcome::Unreachable });
        }
        let address = address.keep()?;
        let parcel = Parcel { sender, payload: payload.to_vec(), accepted: now, deadline };
        peer.delivery.waiting.push_back(Waiting { parcel, address, tracked });
        self.timers.set_sooner(Timer::Delivery(id), deadline);
        if !ready {
            self.seek(id, None, None);
        }
        self.resume_delivery(id);
        None
    }

    fn tell_untracked(&mut self, id: NodeId, heading: Heading, payload: &[u8]) -> bool {
        if let Heading::Topic(topic) = heading {
            return self.tell(id, &Record::Message { topic, payload });
        }
        let place = Place::Untracked { number: 0 };
        let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.tell(id, &Record::Piece { place, heading, size, at: 0, bytes: payload })
    }

    fn send_numbered(&mut self, id: NodeId, parcel: Parcel, heading: Heading) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.delivery.last_number += 1;
        let number = peer.delivery.last_number;
        let again = now + peer.round_trip.retry_after();
        let due = again.min(parcel.deadline);
        peer.delivery.in_flight.push_back(InFlight { number, parcel, heading, sent: now, tries: 1, again });
        let last = peer.delivery.in_flight.len() - 1;
        self.timers.set_sooner(Timer::Delivery(id), due);
        self.transmit(id, last);
    }

    /// Writes the message at `at` of those under way to `id`.
    fn transmit(&mut self, id: NodeId, at: usize) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let open = peer.delivery.open();
        let Some(message) = peer.delivery.in_flight.get(at) else { return };
        let same_stream = |earlier: &&InFlight| {
            earlier.heading == message.heading && earlier.parcel.sender.client == message.parcel.sender.client
        };
        let after = peer.delivery.in_flight.iter().take(at).rev().find(same_stream);
        let after = after.map_or(0, |earlier| message.number - earlier.number);
        let number = message.number;
        // The record borrows the payload, and telling needs the whole peer: it is put aside meanwhile.
        let heading = message.heading;
        let Some(message) = peer.delivery.in_flight.get_mut(at) else { return };
        let payload = std::mem::take(&mut message.parcel.payload);
        let number_of = MessageNumber(number);
        let open = number - open;
        let record = match heading {
            Heading::Topic(topic) => {
                Record::Tracked { number: number_of, after, open, topic, payload: &payload }
            }
            Heading::Request { .. } | Heading::Reply(_) => Record::Piece {
                place: Place::Tracked { number: number_of, after, open },
                heading,
                size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
                at: 0,
                bytes: &payload,
            },
        };
        self.tell(id, &record);
        // Delivered once however often it comes, so it need not wait until it is known which way is dead.
        if let Some(other) = self.other_way(id) {
            self.tell_on(id, other, &record);
        }
        let back = self.peers.get_mut(&id).and_then(|peer| peer.delivery.in_flight.get_mut(at));
        if let Some(message) = back.filter(|message| message.number == number) {
            message.parcel.payload = payload;
        }
    }

    /// Sends what waited and can leave now.
    pub(crate) fn resume_delivery(&mut self, id: NodeId) {
        let now = self.now;
        if self.peers.get(&id).is_none_or(|peer| peer.delivery.waiting.is_empty()) || !self.may_carry_data(id)
        {
            return;
        }
        let mut at = 0;
        let mut unknown = false;
        while let Some(peer) = self.peers.get_mut(&id) {
            let Some(first) = peer.delivery.waiting.get(at) else { break };
            let Some(heading) = first.address.as_address().heading(&peer.topics) else {
                unknown = true;
                at += 1;
                continue;
            };
            if first.tracked && !peer.delivery.has_place() {
                break;
            }
            let Some(Waiting { parcel, tracked, .. }) = peer.delivery.waiting.remove(at) else { break };
            if tracked {
                self.send_numbered(id, parcel, heading);
            } else {
                let told = self.tell_untracked(id, heading, &parcel.payload);
                self.conclude(id, parcel, if told { Outcome::Sent } else { Outcome::Unreachable }, false);
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let asked_lately = peer.delivery.topics_asked.is_some_and(|asked| now.since(asked) < ASK_AGAIN);
        if unknown && !asked_lately {
            peer.delivery.topics_asked = Some(now);
            self.timers.set_sooner(Timer::Delivery(id), now + ASK_AGAIN);
            self.ask_topics(id);
        }
    }

    /// The peer said what it listens to: what waited for a topic that is not there has nobody to go to.
    pub(crate) fn topics_answered(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(asked) = peer.delivery.topics_asked.take() {
            let mut at = 0;
            while let Some(peer) = self.peers.get_mut(&id) {
                let Some(waiting) = peer.delivery.waiting.get(at) else { break };
                let nobody = waiting.address.as_address().heading(&peer.topics).is_none()
                    && waiting.parcel.accepted <= asked;
                if !nobody {
                    at += 1;
                    continue;
                }
                let Some(waiting) = peer.delivery.waiting.remove(at) else { break };
                self.conclude(id, waiting.parcel, Outcome::NoListener, false);
            }
        }
        self.resume_delivery(id);
    }

    /// Sends again what was not answered, and ends what has passed its deadline.
    pub(crate) fn on_delivery_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (online, base) = (peer.is_online(), peer.round_trip.retry_after());
        let late = |parcel: &Parcel| parcel.deadline <= now;
        let ended: Vec<_> = take_all(&mut peer.delivery.waiting, |waiting| late(&waiting.parcel));
        let unanswered: Vec<_> = take_all(&mut peer.delivery.in_flight, |message| late(&message.parcel));
        for waiting in ended {
            let outcome = if online { Outcome::Timeout } else { Outcome::Unreachable };
            self.conclude(id, waiting.parcel, outcome, false);
        }
        let given_up = !unanswered.is_empty();
        for message in unanswered {
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
        let carries = self.may_carry_data(id);
        if self.peers.get(&id).is_some_and(|peer| peer.delivery.in_flight.iter().any(|it| it.again <= now)) {
            self.doubt(id);
        }
        let mut at = 0;
        while let Some(message) = self.peers.get_mut(&id).and_then(|peer| peer.delivery.in_flight.get_mut(at))
        {
            // What was held back behind a message that is given up goes on at once: its copy tells the receiver so.
            if message.again <= now || given_up && at == 0 {
                let pause = (base * 2_u32.saturating_pow(message.tries.min(16))).min(RETRY_MAX);
                message.tries += 1;
                message.again = now + pause;
                if carries {
                    self.transmit(id, at);
                }
            }
            at += 1;
        }
        if !carries && self.is_awaited(id) {
            self.seek(id, None, None);
        }
        self.resume_delivery(id);
        let Some(peer) = self.peers.get(&id) else { return };
        let retries =
            peer.delivery.in_flight.iter().map(|message| message.again.min(message.parcel.deadline));
        let deadlines = peer.delivery.waiting.iter().map(|waiting| waiting.parcel.deadline);
        let ask = (online && !peer.delivery.waiting.is_empty()).then(|| now + ASK_AGAIN);
        if let Some(next) = retries.chain(deadlines).chain(ask).min() {
            self.timers.set(Timer::Delivery(id), next);
        }
    }

    /// `id` is reached by another way, or perhaps only by that: the first `count` that were not answered go at once.
    pub(crate) fn hurry_delivery(&mut self, id: NodeId, count: usize) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.delivery.in_flight.is_empty() {
            return;
        }
        for message in peer.delivery.in_flight.iter_mut().take(count) {
            message.again = message.again.min(now);
        }
        self.timers.set(Timer::Delivery(id), now);
    }

    /// The fate of one of our messages came back.
    pub(crate) fn on_outcome(&mut self, id: NodeId, number: MessageNumber, fate: Fate) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Ok(at) = peer.delivery.in_flight.binary_search_by_key(&number.0, |message| message.number) else {
            return;
        };
        let Some(message) = peer.delivery.in_flight.remove(at) else { return };
        // An answer to a message that was sent more than once says nothing of the way's length (Karn's rule).
        if message.tries == 1 {
            peer.round_trip.sample(now.since(message.sent));
        }
        self.in_use(id);
        self.conclude(id, message.parcel, fate.into(), true);
        self.resume_delivery(id);
    }

    /// Ends a message: its sender is told, and its memory is used again.
    fn conclude(&mut self, id: NodeId, mut parcel: Parcel, outcome: Outcome, travelled: bool) {
        let bytes = parcel.payload.len();
        let took = self.now.since(parcel.accepted);
        parcel.payload.clear();
        if self.payloads.len() < limits::TRACKED_IN_FLIGHT {
            self.payloads.push(parcel.payload);
        }
        self.report(parcel.sender, id, outcome, travelled.then_some(took), bytes);
    }

    /// The peer has a new life: what was sent to the old one is never sent to the new one.
    pub(crate) fn end_numbered(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let lost = std::mem::take(&mut peer.delivery.in_flight);
        peer.delivery.last_number = 0;
        peer.delivery.inbox = Inbox::default();
        for message in lost {
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
    }

    /// Ends all messages to the peer: it is not waited for any more.
    pub(crate) fn end_messages(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let waiting = std::mem::take(&mut peer.delivery.waiting);
        let lost = std::mem::take(&mut peer.delivery.in_flight);
        self.timers.clear(Timer::Delivery(id));
        for waiting in waiting {
            self.conclude(id, waiting.parcel, Outcome::Unreachable, false);
        }
        for message in lost {
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
    }

    /// An app went away: nobody waits for what it had not sent yet. What is under way still arrives.
    pub(crate) fn forget_waiting_of(&mut self, client: ClientId) {
        for (_, peer) in self.peers.iter_mut() {
            peer.delivery.waiting.retain(|waiting| waiting.parcel.sender.client != client);
        }
    }

    /// A message that nobody reports on.
    pub(crate) fn on_message(&mut self, from: NodeId, via: Route, heading: Heading, payload: &[u8]) {
        self.in_use(from);
        if self.deliver(from, via, heading, payload, false) != Fate::Delivered {
            self.unheard += 1;
        }
    }

    /// A message whose fate is reported.
    pub(crate) fn on_tracked(
        &mut self,
        from: NodeId,
        via: Route,
        place: Numbered,
        heading: Heading,
        payload: &[u8],
    ) {
        self.in_use(from);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let number = place.number.0;
        peer.delivery.inbox.open_at(number.saturating_sub(place.open));
        let after = number.saturating_sub(place.after);
        match peer.delivery.inbox.judge(number, after) {
            Judgement::Known(fate) => {
                self.tell(from, &Record::Outcome { number: place.number, fate });
            }
            Judgement::Past => {}
            Judgement::Early => peer.delivery.inbox.hold(number, after, heading, payload),
            Judgement::Due => {
                self.accept(from, via, number, heading, payload);
                self.release(from, via);
            }
        }
    }

    fn accept(&mut self, from: NodeId, via: Route, number: u64, heading: Heading, payload: &[u8]) {
        let fate = self.deliver(from, via, heading, payload, true);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.delivery.inbox.record(number, fate);
        self.tell(from, &Record::Outcome { number: MessageNumber(number), fate });
    }

    /// Delivers what was held back and is due.
    fn release(&mut self, from: NodeId, via: Route) {
        while let Some(peer) = self.peers.get_mut(&from) {
            let Some((number, held)) = peer.delivery.inbox.take_due() else { return };
            self.accept(from, via, number, held.heading, &held.payload);
        }
    }
}

fn take_all<T>(queue: &mut VecDeque<T>, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
    if !queue.iter().any(&mut which) {
        return Vec::new();
    }
    let mut taken = Vec::new();
    for item in std::mem::take(queue) {
        if which(&item) { taken.push(item) } else { queue.push_back(item) }
    }
    taken
}
