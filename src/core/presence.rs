//! What apps that watch are told: who is there, by what kind of path, and who listens to what (socket.md, 4).
//!
//! One table holds what every app that has read all believes. What an app has not been told yet is merged: for each peer
//! that changed meanwhile it keeps what it was told last, and is told the difference when it has room. So apps that read
//! cost nothing, and those that do not cost little, however much changes. The state that an app finds when it begins is
//! told in the order of ids, as it reads.
//!
//! A peer that changes all the time is told of at a pace: not each change, and in the end what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Node;
use crate::core::clients::Client;
use crate::core::pace::Pace;
use crate::core::peers::Peers;
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, NodeName, Topic};
use crate::limits;
use crate::wire::local::{Event, PathKind, PeerRef};

/// Changes of one peer that are told at once, and a second: more than a restart of all its apps makes.
const TOLD_AT_ONCE: u32 = 32;
const TOLD_A_SECOND: u32 = 2;
/// When there was no room for a change, it is told after this time, with what came meanwhile.
const TOLD_AGAIN: Duration = Duration::from_millis(500);

/// A moment in the order of all changes of topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(u64);

/// What those believe that have read all.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// The peers that are there.
    shown: BTreeMap<NodeId, Arc<Shown>>,
    stamp: Stamp,
}

/// What is believed of a peer that is there.
#[derive(Debug)]
struct Shown {
    name: NodeName,
    path: PathKind,
    /// Its topics are those of this moment.
    topics: Stamp,
}

/// An app that watches.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The topics of our own node that it was told of, if it wants them.
    own: Option<BTreeSet<Topic>>,
    own_changed: bool,
    /// It is being told of the state that it found.
    begun: bool,
    snapshot: Option<Bound<NodeId>>,
    /// What it was told of each peer that has changed since.
    behind: BTreeMap<NodeId, Option<Arc<Shown>>>,
}

/// The pace at which changes of one peer are told.
pub(crate) fn pace() -> Pace {
    Pace::new(TOLD_AT_ONCE, TOLD_A_SECOND)
}

impl Presence {
    /// The moment of a change that happens now.
    pub(crate) const fn next_stamp(&mut self) -> Stamp {
        self.stamp.0 += 1;
        self.stamp
    }
}

impl Watch {
    /// Of how many peers it has to be told something that has changed.
    pub(crate) fn behind(&self) -> usize {
        self.behind.len()
    }

    /// Whether it has been told of that peer, or that it is not there.
    fn is_past(&self, id: &NodeId) -> bool {
        match &self.snapshot {
            None => true,
            Some(Bound::Excluded(last)) => id <= last,
            Some(Bound::Included(_) | Bound::Unbounded) => false,
        }
    }
}

impl Node {
    /// An app wants to know who is there, and what changes; `own`: our own topics too.
    pub(crate) fn watch(&mut self, client: ClientId, own: bool) {
        if self.clients.watchers().next().is_none() {
            let seen = self.peers.iter().filter_map(|(id, _)| Some((*id, self.seen(*id)?)));
            self.presence.shown = seen.collect();
        }
        if let Some(known) = self.clients.get_mut(client) {
            known.watch = Some(Watch {
                own: own.then(BTreeSet::new),
                own_changed: own,
                begun: false,
                snapshot: Some(Bound::Unbounded),
                behind: BTreeMap::new(),
            });
        }
    }

    /// What there is to be seen of a peer now.
    fn seen(&self, id: NodeId) -> Option<Arc<Shown>> {
        let peer = self.peers.get(&id)?;
        let path = self.links.kind(peer.path?.remote.ip());
        Some(Arc::new(Shown { name: peer.name.clone(), path, topics: self.presence.stamp }))
    }

    /// Something of a node's presence changed: who watches is told, now, at its pace, or when it has room.
    pub(crate) fn presence_changed(&mut self, id: NodeId) {
        if self.clients.watchers().next().is_none() {
            self.presence.shown.clear();
            return self.forget_gone_topics(id);
        }
        if id == self.id {
            for (_, watch) in self.clients.watchers() {
                watch.own_changed |= watch.own.is_some();
            }
            return self.refill_watchers();
        }
        let now = self.now;
        let is_due = self.peers.get_mut(&id).is_none_or(|peer| peer.presence_pace.take(now));
        if !is_due {
            return self.timers.set_sooner(Timer::Presence(id), now + TOLD_AGAIN);
        }
        self.show(id);
    }

    pub(crate) fn on_presence_timer(&mut self, id: NodeId) {
        self.presence_changed(id);
    }

    fn show(&mut self, id: NodeId) {
        let seen = self.seen(id);
        let before = match &seen {
            Some(seen) => self.presence.shown.insert(id, Arc::clone(seen)),
            None => self.presence.shown.remove(&id),
        };
        if seen.is_none() && before.is_none() {
            return;
        }
        for (_, watch) in self.clients.watchers() {
            if watch.is_past(&id) {
                watch.behind.entry(id).or_insert_with(|| before.clone());
            }
        }
        self.refill_watchers();
        self.forget_gone_topics(id);
        self.close_who_is_too_far_behind();
    }

    fn refill_watchers(&mut self) {
        let watchers: Vec<_> = self.clients.watchers().map(|(client, _)| client).collect();
        for client in watchers {
            self.refill(client);
            self.tell_output(client);
        }
    }

    /// What went is remembered for as long as somebody has to be told of it.
    fn forget_gone_topics(&mut self, id: NodeId) {
        if self.clients.watchers().any(|(_, watch)| watch.behind.contains_key(&id)) {
            return;
        }
        // What is not shown yet is still to be told.
        let shown = self.presence.shown.get(&id).map_or(self.presence.stamp, |shown| shown.topics);
        if let Some(peer) = self.peers.get_mut(&id)
            && shown == self.presence.stamp
        {
            peer.topics.forget_gone(shown, &mut self.budgets.topics);
        }
    }

    /// What is kept for those that do not read is bounded: who is furthest behind is closed.
    fn close_who_is_too_far_behind(&mut self) {
        loop {
            let behind = || self.clients.iter().map(|(id, client)| (client.behind(), id));
            let Some((most, client)) = behind().max() else { return };
            if most == 0 || behind().map(|(behind, _)| behind).sum::<usize>() <= limits::CHANGES_KEPT {
                return;
            }
            self.close_slow_consumer(client, "it did not read while too many peers changed");
        }
    }

    /// Tells a watching app as much as it has room for.
    pub(crate) fn refill_presence(&mut self, client: ClientId) {
        self.refill_own(client);
        loop {
            self.clients.settle(client);
            if !self.clients.has_room_for_state(client) {
                return;
            }
            let Self { clients, peers, presence, .. } = self;
            let Some(known) = clients.get_mut(client) else { return };
            let Some(watch) = &mut known.watch else { return };
            if let Some((id, before)) = watch.behind.pop_first() {
                tell_difference(known, peers, id, before.as_deref(), presence.shown.get(&id).map(|it| &**it));
                continue;
            }
            let Some(from) = watch.snapshot else { return };
            let next = presence.shown.range((from, Bound::Unbounded)).next();
            watch.snapshot = next.map(|(id, _)| Bound::Excluded(*id));
            let Some((id, shown)) = next else { return };
            tell_entered(known, peers, *id, shown, true);
        }
    }

    /// Our own node never comes or goes: only its topics are told.
    fn refill_own(&mut self, client: ClientId) {
        if !self.clients.has_room_for_state(client) {
            return;
        }
        let Self { clients, topics, config, .. } = self;
        let Some(known) = clients.get_mut(client) else { return };
        let Some(watch) = known.watch.as_mut().filter(|watch| watch.own_changed) else { return };
        let snapshot = !std::mem::replace(&mut watch.begun, true);
        watch.own_changed = false;
        let Some(told) = &mut watch.own else { return };
        let went: Vec<_> = told.extract_if(.., |topic| topics.listeners(topic).is_none()).collect();
        let came: Vec<_> = topics.listened().filter(|topic| !told.contains(*topic)).cloned().collect();
        told.extend(came.iter().cloned());
        let peer = PeerRef { name: config.name.as_str().into(), id: self.id };
        for topic in &went {
            known.tell(&Event::Unlisten { peer: peer.clone(), topic: topic.as_str().into() });
        }
        for topic in &came {
            known.tell(&Event::Listen { peer: peer.clone(), topic: topic.as_str().into(), snapshot });
        }
    }
}

/// Tells an app what makes `before` to `now`.
fn tell_difference(
    known: &mut Client,
    peers: &Peers,
    id: NodeId,
    before: Option<&Shown>,
    now: Option<&Shown>,
) {
    let (before, now) = match (before, now) {
        (None, None) => return,
        (None, Some(now)) => return tell_entered(known, peers, id, now, false),
        (Some(before), None) => return tell_left(known, id, before),
        (Some(before), Some(now)) => (before, now),
    };
    let changes = peers.get(&id).and_then(|peer| peer.topics.changes(before.topics, now.topics));
    let Some((went, came)) = changes else {
        // It came back meanwhile as another one, or changed too much to tell what.
        tell_left(known, id, before);
        return tell_entered(known, peers, id, now, false);
    };
    let peer = PeerRef { name: now.name.as_str().into(), id };
    // It has another way or another name: of the second there is no event of its own.
    if (before.path, &before.name) != (now.path, &now.name) {
        known.tell(&Event::Path { peer: peer.clone(), path: now.path });
    }
    for topic in went {
        known.tell(&Event::Unlisten { peer: peer.clone(), topic: topic.as_str().into() });
    }
    for topic in came {
        known.tell(&Event::Listen { peer: peer.clone(), topic: topic.as_str().into(), snapshot: false });
    }
}

fn tell_entered(known: &mut Client, peers: &Peers, id: NodeId, now: &Shown, snapshot: bool) {
    let peer = PeerRef { name: now.name.as_str().into(), id };
    known.tell(&Event::Enter { peer: peer.clone(), path: now.path, snapshot });
    let topics = peers.get(&id).map(|peer| peer.topics.names_at(now.topics));
    for topic in topics.into_iter().flatten() {
        known.tell(&Event::Listen { peer: peer.clone(), topic: topic.as_str().into(), snapshot });
    }
}

fn tell_left(known: &mut Client, id: NodeId, before: &Shown) {
    let peer = PeerRef { name: before.name.as_str().into(), id };
    known.tell(&Event::Exit { peer, path: before.path });
}
