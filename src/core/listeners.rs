//! Whether anybody listens to the topic of a message that waits, and when it is true that nobody does.
//!
//! A peer tells of changes by itself, so what waits for a listener goes as soon as there is one. That there is none is told
//! only after a question that was asked late enough: not before an app there has had the time to come back
//! ([`limits::LISTENER_GRACE`](crate::limits::LISTENER_GRACE)), and not after an answer that brought news, since there may
//! be more of it.

use crate::core::Node;
use crate::core::delivery::{Delivery, Item};
use crate::core::letters::{KeptAddress, Patience};
use crate::core::paths::ASK_AGAIN;
use crate::core::timers::Timer;
use crate::core::topics::RemoteTopics;
use crate::core::turns::Review;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::local::Outcome;

/// What a peer is asked about its topics on behalf of what waits.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    /// When the one was asked that has no answer yet.
    asked: Option<Instant>,
    /// When the next one is due.
    next: Option<Instant>,
}

impl Delivery {
    /// What the peer listens to is to be asked anew.
    pub(crate) const fn topics_forgotten(&mut self, now: Instant) {
        self.questions = Questions { asked: None, next: Some(now) };
    }

    /// A message stands aside from now on, since nobody is known to listen.
    pub(crate) fn ask_about(
        &mut self,
        address: &KeptAddress,
        patience: Patience,
        now: Instant,
        topics: &RemoteTopics,
    ) {
        self.ask_topics_at(question_about(address, patience, now, topics));
    }

    /// The peer is to be asked for its topics, at the latest then.
    pub(crate) fn ask_topics_at(&mut self, question: Option<Instant>) {
        self.questions.next = self.questions.next.into_iter().chain(question).min();
    }

    /// When something about its topics is to be done next; at `now` it was.
    pub(crate) fn next_question(&self, now: Instant) -> Option<Instant> {
        let next = self.questions.next.filter(|_| self.turns.has_aside())?;
        Some(if next > now { next } else { now + ASK_AGAIN })
    }

    /// Lets what stands aside and has somebody to go to line up, and returns what has nobody, if the peer was `asked` late
    /// enough to know.
    pub(crate) fn review(&mut self, topics: &RemoteTopics, asked: Option<Instant>) -> Vec<Item> {
        let mut next = None;
        let over = self.turns.review(|item| {
            let Item::Whole { parcel, address, patience, .. } = item else { return Review::Over };
            if address.as_address().heading(topics).is_some() {
                return Review::Ready;
            }
            let due = question_about(address, *patience, parcel.accepted, topics);
            if due.zip(asked).is_some_and(|(due, asked)| due <= asked) {
                return Review::Over;
            }
            next = next.into_iter().chain(due).min();
            Review::Wait
        });
        self.questions.next = next;
        over
    }
}

/// When to ask whether nobody listens to the topic of a message that its app gave us at `accepted`; never, if it waits until
/// its deadline anyway.
fn question_about(
    address: &KeptAddress,
    patience: Patience,
    accepted: Instant,
    topics: &RemoteTopics,
) -> Option<Instant> {
    let settles = |topic: &crate::id::Topic| topics.settles(topic.as_str()).max(accepted);
    match patience {
        Patience::None => Some(accepted),
        Patience::Grace => Some(address.topic().map_or(accepted, settles)),
        Patience::Deadline => None,
    }
}

impl Node {
    /// Asks what the peer listens to if the answer decides over something that waits.
    pub(crate) fn ask_for_topics(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(next) = peer.delivery.questions.next.filter(|_| peer.delivery.turns.has_aside()) else {
            return;
        };
        let questions = &mut peer.delivery.questions;
        if next > now {
            self.timers.set_sooner(Timer::Delivery(id), next);
        } else if questions.asked.is_none_or(|asked| now.since(asked) >= ASK_AGAIN) {
            questions.asked = Some(now);
            self.timers.set_sooner(Timer::Delivery(id), now + ASK_AGAIN);
            self.follow_cut_topics(id);
            self.ask_topics(id);
        }
    }

    /// The peer said what it listens to; `is_current`: nothing that we do not have. Then what has nobody to go to ends, if
    /// its app waits no longer.
    pub(crate) fn topics_answered(&mut self, id: NodeId, is_current: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let asked = peer.delivery.questions.asked.take().filter(|_| is_current);
        let over = peer.delivery.review(&peer.topics, asked);
        // Of a list that is cut nobody knows what else is in it.
        let outcome = if peer.topics.is_cut() { Outcome::Busy } else { Outcome::NoListener };
        for parcel in over.into_iter().filter_map(Item::into_parcel) {
            self.conclude(id, parcel, outcome, false);
        }
        self.resume_delivery(id);
    }
}
