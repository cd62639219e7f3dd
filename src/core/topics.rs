//! How far each peer and we follow each other's lists of topics (protocol.md, 5.3; for our own see `own_topics`).
//!
//! Who follows a list names the version that it has and is sent what changed since; a lost update is sent again until it is
//! confirmed.
//!
//! The names that peers make us remember share one budget. Of a list for which there was no room it is known that it is
//! cut, so that nobody is told that a topic has no listener there.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::core::Node;
use crate::core::budget::Budget;
use crate::core::pace::Pace;
use crate::core::presence::Stamp;
use crate::core::timers::Timer;
use crate::id::{NodeId, Topic, TopicNumber};
use crate::limits::{self, LISTENER_GRACE};
use crate::time::Instant;
use crate::wire::message::{DISCARD, Record};
use crate::wire::packet::size;

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
/// What the longest name takes.
const NAME_ROOM: usize = 63 + NAME_OVERHEAD;
/// Bytes of names in one record: with the numbers it stays well within a datagram.
const CHUNK_BYTES: usize = 900;
/// Bytes of such a record that are no names.
const CHUNK_OVERHEAD: usize = 32;

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
            met: Instant::default(),
            told: None,
            left: VecDeque::new(),
        }
    }
}

impl RemoteTopics {
    /// What the peer calls `topic`, if somebody there listens.
    pub(crate) fn number(&self, topic: &str) -> Option<TopicNumber> {
        if topic == Topic::DISCARD { Some(DISCARD) } else { self.by_name.get(topic).map(|it| it.number) }
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

    /// Takes away those of which `which` says so; `stamp` is the time of that, `left` when their last listener went, if that
    /// is why.
    fn remove(
        &mut self,
        stamp: Stamp,
        left: Option<Instant>,
        mut which: impl FnMut(TopicNumber) -> bool,
    ) -> bool {
        let before = self.by_name.len();
        for (topic, was) in self.by_name.extract_if(.., |_, topic| which(topic.number)) {
            if let Some(now) = left {
                Self::note_left(&mut self.left, &topic, now);
            }
            self.gone.push(GoneTopic { topic, since: was.since, until: stamp });
        }
        self.by_name.len() != before
    }

    fn has_room(&self, more: usize, budget: &Budget) -> bool {
        self.by_name.len() < limits::TOPICS_OF_A_PEER && budget.has_room(self.bytes, more)
    }

    /// Adds a name, if there is room for it.
    fn add(&mut self, topic: Topic, number: TopicNumber, stamp: Stamp, budget: &mut Budget) -> bool {
        if let Some(known) = self.by_name.get_mut(&topic) {
            known.number = number;
            return false;
        }
        let more = name_bytes(&topic);
        let has_room = self.has_room(more, budget);
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
        // What was not answered may have been too large for the path.
        let largest =
            if peer.topics.retries > 1 { limits::SMALLEST_DATAGRAM_BYTES } else { peer.datagram_bytes };
        let room = CHUNK_BYTES.min(largest - size::DATA_OVERHEAD - CHUNK_OVERHEAD);
        if since == 0 {
            peer.topics.cleared = floor;
        } else if since > version || since < floor && peer.topics.cleared < floor {
            // It may hold a topic whose removal is forgotten: it has to begin with nothing.
            self.tell(id, &Record::Topics { since: 0, upto: 0, added: vec![], removed: vec![] });
            return;
        }
        // The record borrows from the list, and telling needs the whole node: the list is put aside meanwhile.
        let topics = std::mem::take(&mut self.topics);
        let (upto, added, removed) = topics.changes(since, room);
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
        // An answer to what we have now; one to what we had before says nothing of what came since.
        let is_current = since == topics.have && upto == topics.have;
        if begins_anew || since <= topics.have && upto > topics.have {
            let budget = &mut self.budgets.topics;
            topics.is_cut &= !begins_anew;
            let is_removed = |number| begins_anew || removed.contains(&number);
            let mut changed = topics.remove(stamp, Some(now), is_removed);
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
        self.publish_late(id);
        self.topics_answered(id, is_current);
    }

    /// The peer is gone or has a new life: what it listened to is not known any more.
    pub(crate) fn forget_remote_topics(&mut self, id: NodeId) {
        let stamp = self.presence.next_stamp();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        self.budgets.topics.changed(peer.topics.bytes, 0);
        peer.topics.remove(stamp, Some(self.now), |_| true);
        let left = std::mem::take(&mut peer.topics.left);
        // A peer that comes and goes has no more records than one that stays.
        let pace = std::mem::replace(&mut peer.topics.pace, Pace::new(0, 0));
        peer.topics = RemoteTopics { floor: stamp, pace, left, ..RemoteTopics::default() };
        peer.delivery.topics_forgotten(self.now);
    }
}

/// What there was no room for.
impl Node {
    /// There was no room for all that the peer listens to: if there is now, it tells all again.
    pub(crate) fn follow_cut_topics(&mut self, id: NodeId) {
        let stamp = self.presence.next_stamp();
        let budget = &mut self.budgets.topics;
        let is_to_grow = |topics: &RemoteTopics| topics.is_cut && topics.has_room(NAME_ROOM, budget);
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| is_to_grow(&peer.topics)) else { return };
        // It names what is there, and not what went before; and the room of these is for the same again.
        peer.topics.remove(stamp, None, |_| true);
        peer.topics.forget_gone(stamp, budget);
        (peer.topics.have, peer.topics.is_cut) = (0, false);
    }
}
