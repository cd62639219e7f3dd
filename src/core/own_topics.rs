//! What the apps of this node listen to (protocol.md, 5.3).
//!
//! A list has a version that counts its changes. A topic's number is the version at which it came, so it is never used
//! for another topic in this life of the node, and it is what messages carry. Who has just gone may come back: for a while
//! nobody is told that nobody listens to its topic.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::Node;
use crate::id::{ClientId, Topic, TopicNumber};
use crate::limits::{self, LISTENER_GRACE};
use crate::time::Instant;
use crate::wire::message::Heading;

/// What the apps of this node listen to.
#[derive(Debug, Default)]
pub(crate) struct LocalTopics {
    by_name: BTreeMap<Topic, LocalTopic>,
    by_number: BTreeMap<TopicNumber, Topic>,
    version: u64,
    /// Changes up to this version are forgotten: who has less starts anew.
    pub(crate) floor: u64,
}

#[derive(Debug)]
struct LocalTopic {
    number: TopicNumber,
    changed: u64,
    listeners: BTreeSet<ClientId>,
    /// When the last of them went.
    left: Option<Instant>,
}

impl LocalTopics {
    /// Whether an app may listen to `topic`, whose user has `own` of all topics.
    pub(crate) fn has_room(&self, topic: &Topic, own: usize) -> bool {
        self.listeners(topic).is_some() || limits::TOPIC_PLACES.has_one(self.listened().count(), own)
    }

    /// Adds a listener; says whether the list that others see changed.
    pub(crate) fn listen(&mut self, topic: &Topic, client: ClientId) -> bool {
        let next = self.version + 1;
        let entry = self.by_name.entry(topic.clone()).or_insert_with(|| LocalTopic {
            number: TopicNumber(next),
            changed: next,
            listeners: BTreeSet::new(),
            left: None,
        });
        entry.left = None;
        let first = entry.listeners.is_empty();
        entry.listeners.insert(client);
        if first {
            entry.changed = next;
            self.version = next;
            self.by_number.insert(entry.number, topic.clone());
        }
        first
    }

    /// Takes a listener away; says whether the list that others see changed.
    pub(crate) fn unlisten(&mut self, topic: &Topic, client: ClientId, now: Instant) -> bool {
        let Some(entry) = self.by_name.get_mut(topic) else { return false };
        let last = entry.listeners.remove(&client) && entry.listeners.is_empty();
        if last {
            self.version += 1;
            entry.changed = self.version;
            entry.left = Some(now);
            self.forget_oldest();
        }
        last
    }

    /// Topics without listeners are remembered so that others can be told, but not for ever.
    fn forget_oldest(&mut self) {
        let unheard = self.by_name.iter().filter(|(_, entry)| entry.listeners.is_empty());
        if unheard.clone().count() <= limits::TOPICS_OF_A_PEER {
            return;
        }
        let oldest = unheard.min_by_key(|(_, entry)| entry.changed).map(|(topic, _)| topic.clone());
        if let Some(entry) = oldest.and_then(|topic| self.by_name.remove(&topic)) {
            self.by_number.remove(&entry.number);
            self.floor = self.floor.max(entry.changed);
        }
    }

    /// The apps that listen to `topic`.
    pub(crate) fn listeners(&self, topic: &Topic) -> Option<&BTreeSet<ClientId>> {
        self.by_name.get(topic).map(|entry| &entry.listeners).filter(|listeners| !listeners.is_empty())
    }

    /// Every topic that an app listens to.
    pub(crate) fn listened(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.iter().filter(|(_, entry)| !entry.listeners.is_empty()).map(|(topic, _)| topic)
    }

    /// What others call `topic`, if an app listens to it.
    pub(crate) fn number(&self, topic: &str) -> Option<TopicNumber> {
        self.by_name.get(topic).filter(|entry| !entry.listeners.is_empty()).map(|entry| entry.number)
    }

    /// The topic that others call `number`, and the apps that listen to it.
    pub(crate) fn numbered(&self, number: TopicNumber) -> Option<(&Topic, &BTreeSet<ClientId>)> {
        let topic = self.by_number.get(&number)?;
        Some((topic, self.listeners(topic)?))
    }

    /// When the last app that listened to `topic` went, if none does now.
    fn left(&self, topic: &str) -> Option<Instant> {
        self.by_name.get(topic)?.left
    }

    /// The same of the topic that others call `number`.
    fn left_number(&self, number: TopicNumber) -> Option<Instant> {
        self.left(self.by_number.get(&number)?.as_str())
    }

    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// What changed after `since`, as much as fits `room`.
    pub(crate) fn changes(
        &self,
        since: u64,
        room: usize,
    ) -> (u64, Vec<(TopicNumber, &str)>, Vec<TopicNumber>) {
        let mut changed: Vec<_> = self.by_name.iter().filter(|(_, entry)| entry.changed > since).collect();
        changed.sort_by_key(|(_, entry)| entry.changed);
        let (mut added, mut removed, mut bytes, mut upto) = (Vec::new(), Vec::new(), 0, self.version);
        for (topic, entry) in changed {
            let cost = topic.as_str().len() + 10;
            if bytes + cost > room {
                upto = entry.changed - 1;
                break;
            }
            bytes += cost;
            if entry.listeners.is_empty() {
                removed.push(entry.number);
            } else {
                added.push((entry.number, topic.as_str()));
            }
        }
        (upto, added, removed)
    }
}

/// Our own apps.
impl Node {
    /// From when on it is true that nobody here listens to `topic`, if nobody does then.
    pub(crate) fn own_settles(&self, topic: &str) -> Instant {
        self.topics.left(topic).map_or(self.started, |left| left.max(self.started)) + LISTENER_GRACE
    }

    /// Until when somebody may be expected here who listens to `topic`, though nobody does.
    pub(crate) fn own_expected_until(&self, topic: &str) -> Option<Instant> {
        self.topics.left(topic).map(|left| left + LISTENER_GRACE)
    }

    /// Whether the app that a message is for has just gone, and may come back: its fate is open so long, and its sender
    /// repeats it.
    pub(crate) fn awaits_listener(&self, heading: Heading) -> bool {
        let (Heading::Topic(number) | Heading::Request { topic: number, .. }) = heading else { return false };
        let left = self.topics.left_number(number);
        left.is_some_and(|left| self.now < left + LISTENER_GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 900;

    fn topic(text: &str) -> Topic {
        text.parse().unwrap()
    }

    #[test]
    fn a_topic_keeps_its_number_while_it_is_remembered() {
        let mut topics = LocalTopics::default();
        assert!(topics.listen(&topic("a"), ClientId(1)));
        assert!(!topics.listen(&topic("a"), ClientId(2)));
        assert!(!topics.unlisten(&topic("a"), ClientId(1), Instant::default()));
        assert!(topics.unlisten(&topic("a"), ClientId(2), Instant::default()));
        assert!(topics.numbered(TopicNumber(1)).is_none());
        assert!(topics.listen(&topic("a"), ClientId(1)));
        assert_eq!(topics.numbered(TopicNumber(1)).unwrap().0, &topic("a"));
    }

    #[test]
    fn who_follows_in_pieces_ends_with_the_whole_list() {
        let mut topics = LocalTopics::default();
        let names: Vec<_> = (0..limits::TOPICS_OF_A_PEER).map(|n| topic(&format!("{n:063}"))).collect();
        for name in &names {
            topics.listen(name, ClientId(1));
        }
        let (mut have, mut seen, mut pieces) = (0, Vec::new(), 0);
        while have < topics.version() {
            let (upto, added, _) = topics.changes(have, ROOM);
            assert!(upto > have);
            seen.extend(added.into_iter().map(|(_, name)| name.to_owned()));
            have = upto;
            pieces += 1;
        }
        assert_eq!(seen.len(), names.len());
        assert!(pieces > 1);
    }

    #[test]
    fn topics_that_come_and_go_for_ever_do_not_pile_up() {
        let mut topics = LocalTopics::default();
        for n in 0..10_000 {
            let name = topic(&format!("t{n}"));
            topics.listen(&name, ClientId(1));
            topics.unlisten(&name, ClientId(1), Instant::default());
        }
        assert!(topics.by_name.len() <= limits::TOPICS_OF_A_PEER + 1);
        assert_eq!(topics.by_name.len(), topics.by_number.len());
        assert!(topics.floor > 9_000, "who is further behind begins with nothing");
    }
}
