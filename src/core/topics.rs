//! Who listens to what: our own topics, and how far each peer and we follow each other's (protocol.md, 5.3).
//!
//! A list has a version that counts its changes. A topic's number is the version at which it came, so it is never used
//! for another topic in this life of the node, and it is what messages carry. Who follows a list names the version that
//! it has and is sent what changed since; a lost update is sent again until it is confirmed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::core::Node;
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, Topic, TopicNumber};
use crate::limits::{self, LISTENER_GRACE};
use crate::time::Instant;
use crate::wire::message::{DISCARD, Heading, Record};

/// From one telling to the next, while it is not confirmed.
const RETRY: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// With this telling a handshake is begun.
const HANDSHAKE_WITH: usize = 4;
/// Bytes of names in one record: with the numbers it stays well within a datagram.
const CHUNK_BYTES: usize = 900;

/// What the apps of this node listen to.
#[derive(Debug, Default)]
pub(crate) struct LocalTopics {
    by_name: BTreeMap<Topic, LocalTopic>,
    by_number: BTreeMap<TopicNumber, Topic>,
    version: u64,
    /// Changes up to this version are forgotten: who has less starts anew.
    floor: u64,
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
    /// Whether one more app may listen to `topic`.
    pub(crate) fn has_room(&self, topic: &Topic) -> bool {
        self.listeners(topic).is_some() || self.listened().count() < limits::TOPICS_PER_NODE
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
        if unheard.clone().count() <= limits::TOPICS_PER_NODE {
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

    /// What changed after `since`, as much as fits one datagram.
    fn changes(&self, since: u64) -> (u64, Vec<(TopicNumber, &str)>, Vec<TopicNumber>) {
        let mut changed: Vec<_> = self.by_name.iter().filter(|(_, entry)| entry.changed > since).collect();
        changed.sort_by_key(|(_, entry)| entry.changed);
        let (mut added, mut removed, mut bytes, mut upto) = (Vec::new(), Vec::new(), 0, self.version);
        for (topic, entry) in changed {
            let cost = topic.as_str().len() + 10;
            if bytes + cost > CHUNK_BYTES {
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

/// What the apps of a peer listen to, and how far it follows our list.
#[derive(Debug, Default)]
pub(crate) struct RemoteTopics {
    numbers: BTreeMap<Topic, TopicNumber>,
    have: u64,
    /// Our version that it confirmed.
    confirmed: u64,
    /// Removals up to this version of ours cannot matter to it: it began with nothing when they were forgotten.
    cleared: u64,
    retries: usize,
    /// When the peer came, and how far its list went then, as it says.
    met: Instant,
    told: Option<u64>,
    /// Digests of topics whose last listener went a moment ago, and when.
    left: VecDeque<(u64, Instant)>,
}

/// What stands for a topic's name. That another one has the same only makes us wait a little for it.
fn digest(topic: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}

impl RemoteTopics {
    /// What the peer calls `topic`, if somebody there listens.
    pub(crate) fn number(&self, topic: &str) -> Option<TopicNumber> {
        if topic == Topic::DISCARD { Some(DISCARD) } else { self.numbers.get(topic).copied() }
    }

    /// Whether the list that the peer had when it came is here.
    pub(crate) fn is_known(&self) -> bool {
        self.told.is_some_and(|told| self.have >= told)
    }

    /// From when on it is true that nobody listens to `topic` there, if its list says so then: before, an app may just be
    /// restarting, alone or with its daemon.
    pub(crate) fn settles(&self, topic: &str) -> Instant {
        self.left(topic).map_or(self.met, |left| left.max(self.met)) + LISTENER_GRACE
    }

    /// Until when somebody may be expected who listens to `topic` there, though nobody is known to: the list is not here
    /// yet, or somebody has just gone.
    pub(crate) fn expected_until(&self, topic: &str, is_online: bool) -> Option<Instant> {
        let unknown = (is_online && !self.is_known()).then_some(self.met);
        unknown.max(self.left(topic)).map(|since| since + LISTENER_GRACE)
    }

    fn left(&self, topic: &str) -> Option<Instant> {
        if self.left.is_empty() {
            return None;
        }
        let digest = digest(topic);
        self.left.iter().rev().find(|(of, _)| *of == digest).map(|(_, left)| *left)
    }

    fn note_left(left: &mut VecDeque<(u64, Instant)>, topic: &Topic, now: Instant) {
        let digest = digest(topic.as_str());
        left.retain(|(of, at)| *of != digest && now.since(*at) < LISTENER_GRACE);
        if left.len() >= limits::RECENT_TOPICS {
            left.pop_front();
        }
        left.push_back((digest, now));
    }

    /// The peer is there, and its list is not known yet.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.met, self.told) = (now, None);
    }

    /// The names with a listener there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Topic> {
        self.numbers.keys()
    }
}

impl Node {
    /// Our list changed: everyone is told, when all inputs at hand have been taken.
    pub(crate) fn topics_changed(&mut self) {
        self.presence_changed(self.id);
        self.topics_untold = true;
    }

    /// Tells everyone of a list that has changed.
    pub(crate) fn spread_topics(&mut self) {
        if !std::mem::take(&mut self.topics_untold) {
            return;
        }
        for id in self.peers.online() {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.topics.retries = 0;
            }
            self.tell_topics(id);
        }
    }

    /// Tells `id` what changed since the version that it confirmed, and again until it confirms.
    pub(crate) fn tell_topics(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.topics.confirmed == self.topics.version() {
            self.timers.clear(Timer::Topics(id));
            return;
        }
        let since = peer.topics.confirmed;
        let step = RETRY[peer.topics.retries.min(RETRY.len() - 1)];
        peer.topics.retries += 1;
        // Without a session, or in one that it has wiped, nothing comes over: a new one brings the rest.
        let (dormant, unanswered) = (peer.current.is_none(), peer.topics.retries == HANDSHAKE_WITH);
        if dormant || unanswered && self.is_crowded_ring() {
            self.seek(id, None, None);
        }
        self.send_topics(id, since);
        let again = self.jittered(step);
        self.timers.set(Timer::Topics(id), self.now + again);
    }

    fn send_topics(&mut self, id: NodeId, since: u64) {
        let floor = self.topics.floor;
        let version = self.topics.version();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if since == 0 {
            peer.topics.cleared = floor;
        } else if since > version || since < floor && peer.topics.cleared < floor {
            // It may hold a topic whose removal is forgotten: it has to begin with nothing.
            self.tell(id, &Record::Topics { since: 0, upto: 0, added: vec![], removed: vec![] });
            return;
        }
        // The record borrows from the list, and telling needs the whole node: the list is put aside meanwhile.
        let topics = std::mem::take(&mut self.topics);
        let (upto, added, removed) = topics.changes(since);
        self.tell(id, &Record::Topics { since, upto, added, removed });
        self.topics = topics;
    }

    pub(crate) fn on_topics_timer(&mut self, id: NodeId) {
        self.tell_topics(id);
    }

    /// The peer's list is at `version`: asks for what we lack.
    pub(crate) fn follow_topics(&mut self, id: NodeId, version: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.topics.told.get_or_insert(version);
        let upto = peer.topics.have;
        if upto != version {
            self.tell(id, &Record::TopicsHave { upto, ask: true });
        }
    }

    /// Asks the peer whether anything is new; it will answer in any case.
    pub(crate) fn ask_topics(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let upto = peer.topics.have;
        self.tell(id, &Record::TopicsHave { upto, ask: true });
    }

    pub(crate) fn on_topics_have(&mut self, id: NodeId, upto: u64, ask: bool) {
        let version = self.topics.version();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let moved = upto != peer.topics.confirmed;
        peer.topics.confirmed = upto.min(version);
        if moved {
            peer.topics.retries = 0;
        }
        if upto == version {
            self.timers.clear(Timer::Topics(id));
        }
        if ask {
            self.send_topics(id, upto);
        } else if upto != version && (moved || !self.timers.is_set(Timer::Topics(id))) {
            self.tell_topics(id);
        }
    }

    pub(crate) fn on_topics(
        &mut self,
        id: NodeId,
        since: u64,
        upto: u64,
        added: &[(TopicNumber, &str)],
        removed: &[TopicNumber],
    ) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let topics = &mut peer.topics;
        let begins_anew = since == 0 && upto == 0;
        // An answer to what we have now; one to what we had before says nothing of what came since.
        let is_current = since == topics.have && upto == topics.have;
        if begins_anew || since <= topics.have && upto > topics.have {
            let before: BTreeSet<Topic> = topics.numbers.keys().cloned().collect();
            let left = &mut topics.left;
            topics.numbers.retain(|topic, number| {
                let stays = !begins_anew && !removed.contains(number);
                if !stays {
                    RemoteTopics::note_left(left, topic, now);
                }
                stays
            });
            for (number, name) in added {
                if let Ok(topic) = name.parse::<Topic>()
                    && (topics.numbers.len() < limits::TOPICS_PER_NODE || topics.numbers.contains_key(&topic))
                {
                    topics.numbers.insert(topic, *number);
                }
            }
            topics.have = upto;
            if !topics.numbers.keys().eq(before.iter()) {
                self.presence_changed(id);
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let have = peer.topics.have;
        self.tell(id, &Record::TopicsHave { upto: have, ask: false });
        self.publish_late(id);
        self.topics_answered(id, is_current);
    }

    /// The peer is gone or has a new life: what it listened to is not known any more.
    pub(crate) fn forget_remote_topics(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let RemoteTopics { numbers, mut left, .. } = std::mem::take(&mut peer.topics);
        for topic in numbers.keys() {
            RemoteTopics::note_left(&mut left, topic, self.now);
        }
        peer.topics.left = left;
        peer.delivery.topics_forgotten(self.now);
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
        let names: Vec<_> = (0..limits::TOPICS_PER_NODE).map(|n| topic(&format!("{n:063}"))).collect();
        for name in &names {
            topics.listen(name, ClientId(1));
        }
        let (mut have, mut seen, mut pieces) = (0, Vec::new(), 0);
        while have < topics.version() {
            let (upto, added, _) = topics.changes(have);
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
        assert!(topics.by_name.len() <= limits::TOPICS_PER_NODE + 1);
        assert_eq!(topics.by_name.len(), topics.by_number.len());
        assert!(topics.floor > 9_000, "who is further behind begins with nothing");
    }
}
