//! Who listens to what: our own topics, and how far each peer and we follow each other's (protocol.md, 5.3).
//!
//! A list has a version that counts its changes. A topic's number is the version at which it came, so it is never used
//! for another topic in this life of the node, and it is what messages carry. Who follows a list names the version that
//! it has and is sent what changed since; a lost update is sent again until it is confirmed.
//!
//! The names that peers make us remember share one budget. Of a list for which there was no room it is known that it is
//! cut, so that nobody is told that a topic has no listener there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::core::Node;
use crate::core::budget::Budget;
use crate::core::pace::Pace;
use crate::core::presence::Stamp;
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, Topic, TopicNumber};
use crate::limits;
use crate::wire::message::{DISCARD, Record};

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
/// Records of one peer's topics that are read at once, and a second: a list of all topics takes twenty, and what is not
/// read is told again until it is confirmed.
const RECORDS_AT_ONCE: u32 = 64;
const RECORDS_A_SECOND: u32 = 20;
/// Names that went and that somebody still has to be told of; beyond, they are told that the peer went and came.
const GONE: usize = 256;
/// See [`name_bytes`].
const NAME_OVERHEAD: usize = 80;
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
        });
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
    pub(crate) fn unlisten(&mut self, topic: &Topic, client: ClientId) -> bool {
        let Some(entry) = self.by_name.get_mut(topic) else { return false };
        let last = entry.listeners.remove(&client) && entry.listeners.is_empty();
        if last {
            self.version += 1;
            entry.changed = self.version;
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
#[derive(Debug)]
pub(crate) struct RemoteTopics {
    by_name: BTreeMap<Topic, RemoteTopic>,
    /// What nobody listens to any more, as long as an app that watches was told that somebody does.
    gone: Vec<GoneTopic>,
    /// Who was told of less than this cannot be told what changed since: it is forgotten.
    floor: Stamp,
    /// Bytes of names, with what keeping them costs.
    bytes: usize,
    /// There was no room for all names.
    is_cut: bool,
    /// Of the peer's records.
    pace: Pace,
    have: u64,
    /// Our version that it confirmed.
    confirmed: u64,
    /// Removals up to this version of ours cannot matter to it: it began with nothing when they were forgotten.
    cleared: u64,
    retries: usize,
}

#[derive(Debug)]
struct RemoteTopic {
    number: TopicNumber,
    since: Stamp,
}

#[derive(Debug)]
struct GoneTopic {
    topic: Topic,
    since: Stamp,
    until: Stamp,
}

impl Default for RemoteTopics {
    fn default() -> Self {
        Self {
            by_name: BTreeMap::new(),
            gone: Vec::new(),
            floor: Stamp::default(),
            bytes: 0,
            is_cut: false,
            pace: Pace::new(RECORDS_AT_ONCE, RECORDS_A_SECOND),
            have: 0,
            confirmed: 0,
            cleared: 0,
            retries: 0,
        }
    }
}

impl RemoteTopics {
    /// What the peer calls `topic`, if somebody there listens.
    pub(crate) fn number(&self, topic: &str) -> Option<TopicNumber> {
        if topic == Topic::DISCARD { Some(DISCARD) } else { self.by_name.get(topic).map(|it| it.number) }
    }

    /// The names with a listener there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Topic> {
        self.by_name.keys()
    }

    /// Whether there are more than we have room for.
    pub(crate) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// The names that had a listener there at `stamp`, as far as that is remembered.
    pub(crate) fn names_at(&self, stamp: Stamp) -> impl Iterator<Item = &Topic> {
        let there = self.by_name.iter().filter(move |(_, topic)| topic.since <= stamp);
        let gone = self.gone.iter().filter(move |gone| gone.was_there(stamp));
        there.map(|(name, _)| name).chain(gone.map(|gone| &gone.topic))
    }

    /// The names whose last listener went between two moments, and those that got one. None: too much has changed since.
    pub(crate) fn changes(&self, from: Stamp, upto: Stamp) -> Option<(Vec<&Topic>, Vec<&Topic>)> {
        if from < self.floor {
            return None;
        }
        let is_between = |since: Stamp| from < since && since <= upto;
        let left = self.gone.iter().filter(|gone| gone.was_there(from) && gone.until <= upto);
        let came = self.by_name.iter().filter(|(_, topic)| is_between(topic.since)).map(|(name, _)| name);
        let stayed = self.gone.iter().filter(|gone| is_between(gone.since) && gone.until > upto);
        let came: Vec<_> = came.chain(stayed.map(|gone| &gone.topic)).collect();
        let left: Vec<_> = left.map(|gone| &gone.topic).collect();
        // What went and came back is what it was.
        let went = left.iter().filter(|name| !came.contains(name)).copied().collect();
        let new = came.iter().filter(|name| !left.contains(name)).copied().collect();
        Some((went, new))
    }

    /// Nobody has to be told any more of what went before `stamp`.
    pub(crate) fn forget_gone(&mut self, stamp: Stamp, budget: &mut Budget) {
        self.floor = stamp;
        let before = self.bytes;
        self.bytes -= self.gone.drain(..).map(|gone| name_bytes(&gone.topic)).sum::<usize>();
        budget.changed(before, self.bytes);
    }

    /// Takes away those of which `which` says so; `stamp` is the time of that.
    fn remove(&mut self, stamp: Stamp, mut which: impl FnMut(TopicNumber) -> bool) -> bool {
        let before = self.by_name.len();
        for (topic, was) in self.by_name.extract_if(.., |_, topic| which(topic.number)) {
            self.gone.push(GoneTopic { topic, since: was.since, until: stamp });
        }
        self.by_name.len() != before
    }

    /// Adds a name, if there is room for it.
    fn add(&mut self, topic: Topic, number: TopicNumber, stamp: Stamp, budget: &mut Budget) -> bool {
        if let Some(known) = self.by_name.get_mut(&topic) {
            known.number = number;
            return false;
        }
        let more = name_bytes(&topic);
        let has_room = self.by_name.len() < limits::TOPICS_OF_A_PEER && budget.has_room(self.bytes, more);
        self.is_cut |= !has_room;
        if has_room {
            budget.changed(self.bytes, self.bytes + more);
            self.bytes += more;
            self.by_name.insert(topic, RemoteTopic { number, since: stamp });
        }
        has_room
    }
}

impl GoneTopic {
    fn was_there(&self, stamp: Stamp) -> bool {
        self.since <= stamp && stamp < self.until
    }
}

/// Bytes that keeping a name costs: its text, its place in the tree, and what the allocator adds.
fn name_bytes(topic: &Topic) -> usize {
    topic.as_str().len() + NAME_OVERHEAD
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
        let Some(peer) = self.peers.get(&id) else { return };
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
        let stamp = self.presence.next_stamp();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let topics = &mut peer.topics;
        if added.len() + removed.len() > limits::TOPICS_OF_A_PEER {
            // No list has so many, and each is a look at all.
            self.odd_records += 1;
            return;
        }
        if !topics.pace.take(now) {
            self.paced_records += 1;
            return;
        }
        let begins_anew = since == 0 && upto == 0;
        if begins_anew || since <= topics.have && upto > topics.have {
            let budget = &mut self.budgets.topics;
            topics.is_cut &= !begins_anew;
            let mut changed = topics.remove(stamp, |number| begins_anew || removed.contains(&number));
            for (number, name) in added {
                if let Ok(topic) = name.parse::<Topic>() {
                    changed |= topics.add(topic, *number, stamp, budget);
                }
            }
            topics.have = upto;
            if topics.gone.len() > GONE {
                topics.forget_gone(stamp, budget);
            }
            if changed {
                self.presence_changed(id);
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let have = peer.topics.have;
        self.tell(id, &Record::TopicsHave { upto: have, ask: false });
        self.topics_answered(id);
    }

    /// The peer is gone or has a new life: what it listened to is not known any more.
    pub(crate) fn forget_remote_topics(&mut self, id: NodeId) {
        let stamp = self.presence.next_stamp();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.budgets.topics.changed(peer.topics.bytes, 0);
        // A peer that comes and goes has no more records than one that stays.
        let pace = std::mem::replace(&mut peer.topics.pace, Pace::new(0, 0));
        peer.topics = RemoteTopics { floor: stamp, pace, ..RemoteTopics::default() };
        peer.delivery.topics_forgotten();
    }

    /// There was no room for all that the peer listens to: it tells all again.
    pub(crate) fn follow_cut_topics(&mut self, id: NodeId) {
        let stamp = self.presence.next_stamp();
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.topics.is_cut) else { return };
        // It names what is there, and not what went before.
        peer.topics.remove(stamp, |_| true);
        (peer.topics.have, peer.topics.is_cut) = (0, false);
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
        assert!(!topics.unlisten(&topic("a"), ClientId(1)));
        assert!(topics.unlisten(&topic("a"), ClientId(2)));
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
            topics.unlisten(&name, ClientId(1));
        }
        assert!(topics.by_name.len() <= limits::TOPICS_OF_A_PEER + 1);
        assert_eq!(topics.by_name.len(), topics.by_number.len());
        assert!(topics.floor > 9_000, "who is further behind begins with nothing");
    }
}
