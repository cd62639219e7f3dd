//! What became of messages: fates that come back or are asked for, deadlines, and the end of a peer's life or of an app
//! (protocol.md, 5.4).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::core::Node;
use crate::core::delivery::{InFlight, Item};
use crate::core::flight::Flight;
use crate::core::inbox::Inbox;
use crate::core::letters::{Parcel, Patience};
use crate::core::paths::RETRY_MAX;
use crate::core::timers::Timer;
use crate::id::{ClientId, MessageNumber, NodeId};
use crate::limits;
use crate::wire::local::Outcome;
use crate::wire::message::Fate;

/// So often a piece of a message that has arrived is sent again to learn its fate, before the whole message is.
const ASKED_BY_PIECE: u32 = 2;

impl Node {
    /// Ends what has passed its deadline, and asks for the fate of what has arrived.
    pub(crate) fn on_delivery_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let online = peer.is_online();
        let late = |parcel: &Parcel| parcel.deadline <= now;
        let topics = &peer.topics;
        // All the time nobody has listened.
        let unheard =
            |item: &Item| online && topics.is_known() && !topics.is_cut() && item.heading(topics).is_none();
        let ended = peer.delivery.turns.take_all(|item| item.parcel().is_some_and(late));
        let ended: Vec<_> = ended.into_iter().map(|item| (unheard(&item), item)).collect();
        let unanswered: Vec<_> = take_all(&mut peer.delivery.in_flight, |message| late(&message.parcel));
        for (unheard, item) in ended {
            let Some(parcel) = item.into_parcel() else { continue };
            let outcome = match (online, unheard) {
                (true, true) => Outcome::NoListener,
                (true, false) => Outcome::Timeout,
                (false, _) => Outcome::Unreachable,
            };
            self.conclude(id, parcel, outcome, false);
        }
        let given_up = !unanswered.is_empty();
        for message in unanswered {
            self.end_rest(id, &message);
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
        let carries = self.may_carry_data(id);
        self.ask_fates(id, given_up, carries);
        if !carries && self.is_awaited(id) {
            self.seek(id, None, None);
        }
        self.resume_delivery(id);
        let Some(peer) = self.peers.get(&id) else { return };
        let fates = peer.delivery.in_flight.iter().map(|message| message.again.min(message.parcel.deadline));
        let deadlines = peer.delivery.turns.iter().filter_map(Item::parcel).map(|parcel| parcel.deadline);
        let ask = peer.delivery.next_question(now).filter(|_| peer.is_online());
        if let Some(next) = fates.chain(deadlines).chain(ask).min() {
            self.timers.set(Timer::Delivery(id), next);
        }
    }

    /// Sends something of each message again that has arrived and whose fate is due: its copy is answered by it.
    fn ask_fates(&mut self, id: NodeId, given_up: bool, carries: bool) {
        let now = self.now;
        let mut at = 0;
        while let Some(peer) = self.peers.get_mut(&id) {
            let base = peer.round_trip.retry_after();
            let is_first_of_stream = peer.delivery.before(at).is_none();
            let Some(message) = peer.delivery.in_flight.get_mut(at) else { return };
            // What was held back behind a message that is given up goes on at once: a copy tells the receiver so.
            let released = given_up && at == 0;
            at += 1;
            if message.again > now && !released {
                continue;
            }
            // What has not arrived is sent again when it is lost; then its fate may be lost as well.
            let is_due = released || message.has_arrived() && is_first_of_stream;
            if !carries || !is_due {
                message.again = now + base / 2;
                continue;
            }
            message.asked += 1;
            message.again = now + (base * 2_u32.saturating_pow(message.asked.min(16))).min(RETRY_MAX);
            let (number, bytes, sent) = (message.number, message.parcel.payload.len(), message.sent);
            let piece = limits::SMALL_PAYLOAD_BYTES.min(bytes);
            if bytes <= limits::SMALL_PAYLOAD_BYTES {
                self.send_piece(id, number, 0, bytes);
            } else if message.asked <= ASKED_BY_PIECE || sent < bytes {
                self.send_piece(id, number, sent.saturating_sub(piece), piece);
            } else {
                message.asked = 0;
                message.arrived = 0;
                peer.flight.send_again(number, 0, bytes);
            }
        }
    }

    /// The fate of one of our messages came back.
    pub(crate) fn on_outcome(&mut self, id: NodeId, number: MessageNumber, fate: Fate) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(at) = peer.delivery.find(number.0) else { return };
        let Some(message) = peer.delivery.in_flight.remove(at) else { return };
        self.in_use(id);
        self.end_rest(id, &message);
        // What an app that has gone would send does not wait.
        let is_there = self.clients.get(message.parcel.sender.client).is_some();
        if fate == Fate::NoListener && is_there && message.parcel.lasting.is_some() {
            self.wait_again(id, message);
        } else {
            if fate == Fate::Delivered {
                self.end_overtaken(id, &message);
            }
            self.conclude(id, message.parcel, fate.into(), true);
        }
        self.resume_delivery(id);
    }

    /// A message that is to wait for a listener until its deadline came when there was none: it waits before all that its
    /// app sent after it.
    fn wait_again(&mut self, id: NodeId, message: InFlight) {
        let InFlight { number, mut parcel, heading, .. } = message;
        let Some(lasting) = &mut parcel.lasting else { return };
        lasting.refused = Some((number, heading));
        let (address, client) = (lasting.address.clone(), parcel.sender.client);
        let app = (self.clients.uid_of(client), client);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.timers.set_sooner(Timer::Delivery(id), parcel.deadline);
        let item = Item::Whole { parcel, address, tracked: true, patience: Patience::Deadline };
        peer.delivery.turns.put_back(
            app,
            item,
            |other| other.refused().is_some_and(|(before, _)| before < number),
            |other| !matches!(other, Item::Whole { .. }),
        );
        // Who listens again may be known already.
        peer.delivery.review(&peer.topics, None);
    }

    /// One that was sent later is delivered: those of its stream that wait again would now come out of order.
    fn end_overtaken(&mut self, id: NodeId, message: &InFlight) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let client = message.parcel.sender.client;
        let overtaken = |item: &Item| {
            item.parcel().is_some_and(|parcel| parcel.sender.client == client)
                && item.refused().is_some_and(|(number, heading)| {
                    number < message.number && message.is_of_stream(heading, client)
                })
        };
        let overtaken = peer.delivery.turns.take_all(overtaken);
        for parcel in overtaken.into_iter().filter_map(Item::into_parcel) {
            self.conclude(id, parcel, Outcome::NoListener, true);
        }
    }

    /// What was not sent yet of a message that has its fate is not sent, and another one may take its place.
    fn end_rest(&mut self, id: NodeId, message: &InFlight) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.flight.resume_postponed();
        }
        if message.sent < message.parcel.payload.len()
            && let Some(peer) = self.peers.get_mut(&id)
        {
            let rest = |item: &Item| matches!(item, Item::Rest(number) if *number == message.number);
            peer.delivery.turns.take_all(rest);
        }
    }

    /// Ends a message: its sender is told, and its memory is used again.
    pub(crate) fn conclude(&mut self, id: NodeId, mut parcel: Parcel, outcome: Outcome, travelled: bool) {
        let bytes = parcel.payload.len();
        let took = self.now.since(parcel.accepted);
        if self.payloads.len() < limits::TRACKED_IN_FLIGHT
            && bytes <= limits::SMALL_PAYLOAD_BYTES
            && let Some(payload) = Arc::get_mut(&mut parcel.payload)
        {
            payload.clear();
            self.payloads.push(parcel.payload);
        }
        self.report(parcel.sender, id, outcome, travelled.then_some(took), bytes);
    }

    /// The peer has a new life: what was sent to the old one, in whole or in part, is never sent to the new one.
    pub(crate) fn end_numbered(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let lost = std::mem::take(&mut peer.delivery.in_flight);
        let parts = peer.delivery.turns.take_all(|item| !matches!(item, Item::Whole { .. }));
        peer.delivery.last_number = 0;
        peer.inbox = Inbox::default();
        peer.flight = Flight::default();
        self.forget_parts(id);
        for message in lost {
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
        for parcel in parts.into_iter().filter_map(Item::into_parcel) {
            self.conclude(id, parcel, Outcome::Timeout, true);
        }
    }

    /// Ends all messages to the peer: it is not waited for any more.
    pub(crate) fn end_messages(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let waiting = peer.delivery.turns.take_all(|_| true);
        let lost = std::mem::take(&mut peer.delivery.in_flight);
        self.timers.clear(Timer::Delivery(id));
        for parcel in waiting.into_iter().filter_map(Item::into_parcel) {
            self.conclude(id, parcel, Outcome::Unreachable, false);
        }
        for message in lost {
            self.conclude(id, message.parcel, Outcome::Timeout, true);
        }
    }

    /// An app went away: nobody waits for what it had not sent yet. What is under way still arrives.
    pub(crate) fn forget_waiting_of(&mut self, client: ClientId) {
        for (_, peer) in self.peers.iter_mut() {
            peer.delivery.turns.forget(client, |item| matches!(item, Item::Rest(_)));
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
