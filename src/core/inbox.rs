//! What one peer's numbered messages came to (protocol.md, 5.4).
//!
//! Each number has one fate, and is remembered while it is in the window, so a copy is answered and not delivered again. A
//! message that came before its predecessor is held back, until that one came or was given up by its sender. What finds no
//! room to be held is not lost: its sender has no fate of it and sends it again once its predecessor has one.

use std::collections::BTreeMap;

use crate::core::budget::Budget;
use crate::limits;
use crate::wire::message::{Fate, Heading};

/// The numbered messages of one peer, in one life of ours.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    highest: u64,
    /// Messages below this number have a fate at the sender's side, or were given up there.
    open: u64,
    /// Two bits a number of the window: zero, or one more than the fate.
    fates: Vec<u8>,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
}

/// A message that waits for the one before it.
#[derive(Debug)]
pub(crate) struct Held {
    after: u64,
    pub(crate) heading: Heading,
    pub(crate) payload: Vec<u8>,
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It was here before, and this became of it.
    Known(Fate),
    /// Its sender has given it up, or it is too old to know.
    Past,
    /// The one before it has not come yet.
    Early,
    /// It can be delivered.
    Due,
}

impl Inbox {
    /// What is to be done with `number`, which its sender wants after `after`.
    pub(crate) fn judge(&self, number: u64, after: u64) -> Judgement {
        if let Some(fate) = self.fate(number) {
            return Judgement::Known(fate);
        }
        let outside = number == 0 || number > NUMBER_MAX || number + limits::TRACKED_WINDOW <= self.highest;
        if outside || number < self.open {
            return Judgement::Past;
        }
        if self.is_awaited(number, after) { Judgement::Early } else { Judgement::Due }
    }

    pub(crate) fn is_awaited(&self, number: u64, after: u64) -> bool {
        after < number && after >= self.open && self.fate(after).is_none()
    }

    /// The sender waits for no number below this one any more.
    pub(crate) fn open_at(&mut self, number: u64) {
        if number > self.open {
            self.open = number;
            let dropped: Vec<_> = self.held.range(..number).map(|(number, _)| *number).collect();
            for number in dropped {
                self.unhold(number);
            }
        }
    }

    /// Keeps a message until it is due, if there is room for it here and in the `budget` of all peers; says whether there
    /// was.
    pub(crate) fn hold(
        &mut self,
        number: u64,
        after: u64,
        heading: Heading,
        payload: &[u8],
        budget: &Budget,
    ) -> bool {
        if self.held.contains_key(&number) {
            return true;
        }
        let bytes = held_bytes(payload);
        let has_room = self.held.len() < limits::HELD_MESSAGES
            && self.held_bytes + bytes <= limits::HELD_BYTES
            && budget.has_room(self.held_bytes, bytes);
        if has_room {
            self.held_bytes += bytes;
            self.held.insert(number, Held { after, heading, payload: payload.to_vec() });
        }
        has_room
    }

    /// Bytes that are held back, with what keeping them costs.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Nothing that was held back is kept: its sender repeats it.
    pub(crate) fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    fn unhold(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.held_bytes -= held_bytes(&held.payload);
        Some(held)
    }

    /// Takes a message that was held back and waits for nothing any more.
    pub(crate) fn take_due(&mut self) -> Option<(u64, Held)> {
        let due = self.held.iter().find(|(number, held)| !self.is_awaited(**number, held.after));
        let number = due.map(|(number, _)| *number)?;
        self.unhold(number).map(|held| (number, held))
    }

    fn fate(&self, number: u64) -> Option<Fate> {
        if number == 0 || number > self.highest || number + limits::TRACKED_WINDOW <= self.highest {
            return None;
        }
        let (at, shift) = place(number);
        match self.fates.get(at)? >> shift & 3 {
            0 => None,
            1 => Some(Fate::Delivered),
            2 => Some(Fate::NoListener),
            _ => Some(Fate::Busy),
        }
    }

    /// `number` has this fate from now on; a copy that was held back is dropped.
    pub(crate) fn record(&mut self, number: u64, fate: Fate) {
        self.unhold(number);
        if self.fates.is_empty() {
            // Four numbers a byte.
            self.fates = vec![0; (limits::TRACKED_WINDOW / 4) as usize];
        }
        if number > self.highest {
            let forgotten = number - self.highest;
            if forgotten >= limits::TRACKED_WINDOW {
                self.fates.fill(0);
            } else {
                for number in self.highest + 1..=number {
                    let (at, shift) = place(number);
                    self.fates[at] &= !(3 << shift);
                }
            }
            self.highest = number;
        }
        let (at, shift) = place(number);
        self.fates[at] |= (fate as u8 + 1) << shift;
    }
}

/// Bytes that keeping a message costs beside its payload: its place in the tree, and what the allocator adds.
const HELD_OVERHEAD: usize = 128;

const fn held_bytes(payload: &[u8]) -> usize {
    payload.len() + HELD_OVERHEAD
}

/// No sender gets this far in one life, at a million messages a second for eight years.
const NUMBER_MAX: u64 = 1 << 48;

fn place(number: u64) -> (usize, u32) {
    let slot = number % limits::TRACKED_WINDOW;
    ((slot / 4) as usize, (slot % 4) as u32 * 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TopicNumber;

    const TOPIC: Heading = Heading::Topic(TopicNumber(1));
    const BUDGET: Budget = Budget::new(limits::HELD_BYTES_IN_ALL);

    #[test]
    fn a_number_has_a_fate_once_and_for_all_while_it_is_in_the_window() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(1, 1), Judgement::Due);
        inbox.record(1, Fate::Busy);
        assert_eq!(inbox.judge(1, 1), Judgement::Known(Fate::Busy));
        inbox.record(limits::TRACKED_WINDOW, Fate::Delivered);
        assert_eq!(inbox.judge(1, 1), Judgement::Known(Fate::Busy));
        inbox.record(limits::TRACKED_WINDOW + 1, Fate::Delivered);
        assert_eq!(inbox.judge(1, 1), Judgement::Past);
        assert_eq!(inbox.judge(2, 2), Judgement::Due);
    }

    #[test]
    fn a_message_waits_for_the_one_before_it_unless_that_was_given_up() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(2, 1), Judgement::Early);
        inbox.hold(2, 1, TOPIC, b"two", &BUDGET);
        inbox.hold(3, 2, TOPIC, b"three", &BUDGET);
        assert!(inbox.take_due().is_none());
        inbox.open_at(2);
        assert_eq!(inbox.judge(1, 1), Judgement::Past, "given up: never delivered late");
        assert_eq!(inbox.take_due().unwrap().0, 2);
        inbox.record(2, Fate::Delivered);
        assert_eq!(inbox.take_due().unwrap().0, 3);
        assert_eq!(inbox.held_bytes, 0);
    }

    #[test]
    fn a_message_that_comes_again_without_its_predecessor_is_not_delivered_twice() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.judge(2, 1), Judgement::Early);
        inbox.hold(2, 1, TOPIC, b"two", &BUDGET);
        assert_eq!(inbox.judge(2, 2), Judgement::Due, "its sender gave the first one up");
        inbox.record(2, Fate::Delivered);
        assert!(inbox.take_due().is_none());
        assert_eq!(inbox.held_bytes, 0);
    }

    #[test]
    fn a_peer_that_numbers_wildly_costs_no_more_than_the_window() {
        proptest::proptest!(|(numbers: Vec<(u64, u64)>)| {
            let mut inbox = Inbox::default();
            for (number, after) in numbers {
                inbox.open_at(number.saturating_sub(after) % 1000);
                if inbox.judge(number.saturating_sub(1), after) == Judgement::Due {
                    inbox.record(number.saturating_sub(1), Fate::Delivered);
                }
                inbox.hold(number, after, TOPIC, &[0; 1000], &BUDGET);
                proptest::prop_assert!(inbox.held_bytes <= limits::HELD_BYTES);
                proptest::prop_assert!(inbox.held.len() <= limits::HELD_MESSAGES);
            }
            proptest::prop_assert!(inbox.fates.len() as u64 <= limits::TRACKED_WINDOW / 4);
        });
    }
}
