//! Messages of peers on their way to our apps: put together, in order, once (protocol.md, 5.4 and 5.5).

use crate::core::Node;
use crate::core::api::Route;
use crate::core::inbox::Judgement;
use crate::core::reassembly::{Added, Part, Piece};
use crate::core::timers::Timer;
use crate::id::{MessageNumber, NodeId};
use crate::limits;
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
            Some(Judgement::Early) => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.inbox.hold(place.number.0, place.after(), heading, payload);
                }
            }
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
                (Part::Tracked(number.0), place.after(), judgement == Some(Judgement::Due))
            }
            Place::Untracked { .. } if is_whole => return self.on_message(from, via, heading, bytes),
            Place::Untracked { number } => (Part::Untracked(number), 0, true),
        };
        let piece = Piece { part, heading, after, due, size: size as usize, at: at as usize, bytes };
        let added = self.reassemble(from, piece);
        if let (Part::Untracked(_), Added::Whole) = (part, added) {
            if let Some((heading, payload)) = self.take_part(from, part) {
                self.on_message(from, via, heading, &payload);
            }
        } else {
            self.release(from, via);
        }
    }

    /// What is to be done with a tracked message; answers at once for one that has its fate.
    fn judge(&mut self, from: NodeId, place: Numbered) -> Option<Judgement> {
        self.in_use(from);
        let peer = self.peers.get_mut(&from)?;
        peer.inbox.open_at(place.open());
        let before = peer.reassembly.bytes();
        peer.reassembly.open_at(place.open());
        self.reassembled -= before - peer.reassembly.bytes();
        let judgement = peer.inbox.judge(place.number.0, place.after());
        if let Judgement::Known(fate) = judgement {
            self.tell(from, &Record::Outcome { number: place.number, fate });
        }
        Some(judgement)
    }

    fn reassemble(&mut self, from: NodeId, piece: Piece<'_>) -> Added {
        let now = self.now;
        if self.reassembled + piece.size > limits::REASSEMBLED_BYTES_IN_ALL {
            self.drop_part_of_the_greediest();
        }
        let room = limits::REASSEMBLED_BYTES_IN_ALL.saturating_sub(self.reassembled);
        let Some(peer) = self.peers.get_mut(&from) else { return Added::Overflow };
        let before = peer.reassembly.bytes();
        let (added, dropped) = peer.reassembly.add(piece, room, now);
        self.reassembled = self.reassembled + peer.reassembly.bytes() - before;
        self.parts_dropped += dropped;
        match added {
            Added::Overflow => self.parts_refused += 1,
            Added::Malformed => self.odd_records += 1,
            Added::Partly | Added::Whole => {}
        }
        if !self.timers.is_set(Timer::Reassembly(from)) {
            self.timers.set(Timer::Reassembly(from), now + limits::REASSEMBLY_LIFE);
        }
        added
    }

    /// When all that is put together is too much, who has most of it gives way.
    fn drop_part_of_the_greediest(&mut self) {
        let greediest =
            self.peers.iter_mut().map(|(_, peer)| peer).max_by_key(|peer| peer.reassembly.bytes());
        let Some(peer) = greediest else { return };
        let before = peer.reassembly.bytes();
        peer.reassembly.drop_idlest();
        self.reassembled -= before - peer.reassembly.bytes();
        self.parts_dropped += 1;
    }

    fn take_part(&mut self, from: NodeId, part: Part) -> Option<(Heading, Vec<u8>)> {
        let peer = self.peers.get_mut(&from)?;
        let taken = peer.reassembly.take(part)?;
        self.reassembled -= taken.1.len();
        Some(taken)
    }

    /// Nothing of what has come in part from `id` is waited for any more.
    pub(crate) fn forget_parts(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.reassembled -= peer.reassembly.bytes();
        peer.reassembly = Default::default();
        self.timers.clear(Timer::Reassembly(id));
    }

    pub(crate) fn on_reassembly_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.reassembly.bytes();
        let (dropped, next) = peer.reassembly.expire(now);
        self.reassembled -= before - peer.reassembly.bytes();
        self.parts_dropped += dropped;
        if let Some(next) = next {
            self.timers.set(Timer::Reassembly(id), next);
        }
    }

    fn accept(&mut self, from: NodeId, via: Route, number: u64, heading: Heading, payload: &[u8]) {
        let fate = self.deliver(from, via, heading, payload, true);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        // What was held back of it, whole or in pieces, is a copy now.
        peer.inbox.record(number, fate);
        let before = peer.reassembly.bytes();
        peer.reassembly.drop_part(Part::Tracked(number));
        self.reassembled -= before - peer.reassembly.bytes();
        self.tell(from, &Record::Outcome { number: MessageNumber(number), fate });
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
