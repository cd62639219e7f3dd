//! Messages of peers on their way to our apps: put together, in order, once (protocol.md, 5.4 and 5.5).

use crate::core::Node;
use crate::core::api::Route;
use crate::core::inbox::Judgement;
use crate::core::reassembly::{Added, Part, Piece};
use crate::core::timers::Timer;
use crate::id::{MessageNumber, NodeId};
use crate::limits;
use crate::wire::message::{DISCARD, Fate, Heading, Place, Record};

/// How a tracked record names its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbered {
    pub(crate) number: MessageNumber,
    /// How far below `number` its predecessor stands; zero: none.
    pub(crate) after: u64,
    /// How far below `number` the first message without a fate stands.
    pub(crate) open: u64,
}

impl Numbered {
    const fn after(self) -> u64 {
        self.number.0.saturating_sub(self.after)
    }

    const fn open(self) -> u64 {
        self.number.0.saturating_sub(self.open)
    }
}

impl Node {
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
        match self.judge(from, place) {
            // Without a fate its sender repeats it.
            Some(Judgement::Due) if self.awaits_listener(heading) => {}
            Some(Judgement::Due) => self.accept(from, via, place.number.0, heading, payload),
            // What nobody here waits for is not kept: it has its fate whatever comes before it.
            Some(Judgement::Early) if !self.may_have_addressee(from, heading) => {
                self.accept(from, via, place.number.0, heading, payload);
            }
            Some(Judgement::Early) => self.hold(from, place, heading, payload),
            Some(Judgement::Known(_) | Judgement::Past) | None => {}
        }
        // What it says of those before it may have been what others waited for.
        self.release(from, via);
    }

    /// A piece of a message, or one that says more than its topic.
    pub(crate) fn on_piece(
        &mut self,
        from: NodeId,
        via: Route,
        place: Place,
        heading: Heading,
        (size, at): (u32, u32),
        bytes: &[u8],
    ) {
        let is_whole = at == 0 && bytes.len() == size as usize;
        let (part, after, due) = match place {
            Place::Tracked { number, after, open } => {
                let place = Numbered { number, after, open };
                if is_whole {
                    return self.on_tracked(from, via, place, heading, bytes);
                }
                let judgement = self.judge(from, place);
                if !matches!(judgement, Some(Judgement::Due | Judgement::Early)) {
                    return self.release(from, via);
                }
                if !self.may_have_addressee(from, heading) {
                    self.decide(from, number, Fate::NoListener);
                    return self.release(from, via);
                }
                (Part::Tracked(number.0), place.after(), judgement == Some(Judgement::Due))
            }
            Place::Untracked { .. } if is_whole => return self.on_message(from, via, heading, bytes),
            Place::Untracked { .. } if !self.has_addressee(from, heading) => {
                self.unheard += u64::from(at == 0);
                return;
            }
            Place::Untracked { number } => (Part::Untracked(number), 0, true),
        };
        let piece = Piece { part, heading, after, due, size: size as usize, at: at as usize, bytes };
        let added = self.reassemble(from, piece);
        if let (Part::Untracked(_), Added::Whole) = (part, added) {
            if let Some((heading, payload)) = self.take_part(from, part) {
                self.on_message(from, via, heading, &payload);
            }
        } else {
            if let (Place::Tracked { number, .. }, Added::Refused) = (place, added) {
                // There is no room for it as long as others fill it: its sender shall not wait for that.
                self.decide(from, number, Fate::Busy);
            }
            self.release(from, via);
        }
    }

    /// Whether somebody here may be waiting for such a message.
    fn has_addressee(&self, from: NodeId, heading: Heading) -> bool {
        match heading {
            Heading::Topic(topic) | Heading::Request { topic, .. } => {
                topic == DISCARD || self.topics.numbered(topic).is_some()
            }
            Heading::Reply(token) => self.asks.awaits(token, from),
        }
    }

    /// The same, or who waited for it has just gone and may come back.
    fn may_have_addressee(&self, from: NodeId, heading: Heading) -> bool {
        self.has_addressee(from, heading) || self.awaits_listener(heading)
    }

    /// Keeps a message until the one before it came, if there is room.
    fn hold(&mut self, from: NodeId, place: Numbered, heading: Heading, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        if !peer.inbox.hold(place.number.0, place.after(), heading, payload, &self.budgets.held) {
            self.unheld += 1;
        }
        self.count_memory(from);
    }

    /// Counts anew what the messages of `id` take that cannot be delivered yet.
    pub(crate) fn count_memory(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.budgets.count(&mut peer.held, peer.inbox.held_bytes(), peer.reassembly.memory());
    }

    /// What is to be done with a tracked message; answers at once for one that has its fate.
    fn judge(&mut self, from: NodeId, place: Numbered) -> Option<Judgement> {
        self.in_use(from);
        let peer = self.peers.get_mut(&from)?;
        peer.inbox.open_at(place.open());
        peer.reassembly.open_at(place.open());
        self.budgets.count(&mut peer.held, peer.inbox.held_bytes(), peer.reassembly.memory());
        let judgement = peer.inbox.judge(place.number.0, place.after());
        if let Judgement::Known(fate) = judgement {
            self.tell(from, &Record::Outcome { number: place.number, fate });
        }
        Some(judgement)
    }

    fn reassemble(&mut self, from: NodeId, piece: Piece<'_>) -> Added {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&from) else { return Added::Refused };
        let (own, cost) = (peer.reassembly.memory(), peer.reassembly.cost(piece.part, piece.size));
        if cost > 0 && !self.make_room_for_parts(own, cost) {
            self.parts_refused += 1;
            return Added::Refused;
        }
        let Some(peer) = self.peers.get_mut(&from) else { return Added::Refused };
        let (added, dropped) = peer.reassembly.add(piece, now);
        self.count_memory(from);
        self.parts_dropped += dropped;
        match added {
            Added::Refused | Added::Overflow => self.parts_refused += 1,
            Added::Malformed => self.odd_records += 1,
            Added::Partly | Added::Whole => {}
        }
        if !self.timers.is_set(Timer::Reassembly(from)) {
            self.timers.set(Timer::Reassembly(from), now + limits::REASSEMBLY_LIFE);
        }
        added
    }

    /// Whether one who holds `own` bytes of unfinished messages may hold `more`. When all of them are too much, who has
    /// most gives way to who will have less.
    fn make_room_for_parts(&mut self, own: usize, more: usize) -> bool {
        let now = self.now;
        while !self.budgets.parts.has_room(own, more) {
            // Finding out who has most is a look at all peers.
            if !self.parts_pace.take(now) {
                return false;
            }
            let greediest = self.peers.iter_mut().max_by_key(|(_, peer)| peer.reassembly.memory());
            let Some((_, peer)) = greediest.filter(|(_, peer)| peer.reassembly.memory() > own + more) else {
                return self.budgets.parts.fits(more);
            };
            peer.reassembly.drop_idlest();
            self.budgets.count(&mut peer.held, peer.inbox.held_bytes(), peer.reassembly.memory());
            self.parts_dropped += 1;
        }
        true
    }

    fn take_part(&mut self, from: NodeId, part: Part) -> Option<(Heading, Vec<u8>)> {
        let peer = self.peers.get_mut(&from)?;
        let taken = peer.reassembly.take(part)?;
        self.count_memory(from);
        Some(taken)
    }

    /// Nothing of what has come in part from `id` is waited for any more.
    pub(crate) fn forget_parts(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.reassembly = Default::default();
        self.count_memory(id);
        self.timers.clear(Timer::Reassembly(id));
    }

    pub(crate) fn on_reassembly_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (dropped, next) = peer.reassembly.expire(now);
        self.count_memory(id);
        self.parts_dropped += dropped;
        if let Some(next) = next {
            self.timers.set(Timer::Reassembly(id), next);
        }
    }

    fn accept(&mut self, from: NodeId, via: Route, number: u64, heading: Heading, payload: &[u8]) {
        let fate = self.deliver(from, via, heading, payload, true);
        self.decide(from, MessageNumber(number), fate);
    }

    /// A message of `from` has its fate, which it is told.
    fn decide(&mut self, from: NodeId, number: MessageNumber, fate: Fate) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        // What was held back of it, whole or in pieces, is a copy now.
        peer.inbox.record(number.0, fate);
        peer.reassembly.drop_part(Part::Tracked(number.0));
        self.budgets.count(&mut peer.held, peer.inbox.held_bytes(), peer.reassembly.memory());
        self.tell(from, &Record::Outcome { number, fate });
    }

    /// Delivers what waited for one before it and is due.
    fn release(&mut self, from: NodeId, via: Route) {
        while let Some(peer) = self.peers.get_mut(&from) {
            if let Some((number, held)) = peer.inbox.take_due() {
                if !self.awaits_listener(held.heading) {
                    self.accept(from, via, number, held.heading, &held.payload);
                }
                continue;
            }
            let Some(peer) = self.peers.get(&from) else { return };
            let due = |(number, after, heading): &(u64, u64, Heading)| {
                !peer.inbox.is_awaited(*number, *after) && !self.awaits_listener(*heading)
            };
            let Some((number, ..)) = peer.reassembly.whole_tracked().find(due) else { return };
            let Some((heading, payload)) = self.take_part(from, Part::Tracked(number)) else { return };
            self.accept(from, via, number, heading, &payload);
        }
    }
}
