//! The local apps: what each listens to, and what waits to be read by it (socket.md, 6).
//!
//! An app's output is one buffer of finished lines, from which the edge writes. It is bounded: when an app does not
//! read, acknowledged messages are refused to their sender, others are dropped and counted, and the count is the next
//! thing that the app reads. Presence is never dropped but merged: what changed is noted per peer and written when there
//! is room again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, Route};
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, RequestId, Topic};
use crate::limits;
use crate::wire::local::{ErrorCode, Event, PathKind, PeerRef};

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_id: BTreeMap<ClientId, Client>,
}

/// There are as many apps as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there are already {} apps", limits::CLIENTS)]
pub struct TooManyClients;

/// One app.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// It may change the network.
    pub(crate) admin: bool,
    pub(crate) topics: BTreeSet<Topic>,
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
    /// Where the first line starts that has not been written whole.
    line: usize,
    /// The lengths of the lines from there on, and whether each is a message.
    lines: VecDeque<(usize, bool)>,
    messages: usize,
    lost: Lost,
    /// What it asked and has no answer yet.
    unanswered: usize,
    unanswered_bytes: usize,
    /// Lists of peers that it asked for and that are not complete.
    listings: VecDeque<Listing>,
    watch: Option<Watch>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lost {
    messages: u64,
    bytes: u64,
}

/// A list of peers that is written as the app reads it.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) id: Option<RequestId>,
    /// The last peer that was written.
    pub(crate) after: Option<NodeId>,
}

/// What an app that watches has been told.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// It wants to know the topics of our own node too.
    own: bool,
    /// Nodes that it believes to be there.
    told: BTreeMap<NodeId, Told>,
    /// Nodes of which it has to be told something; true: as a part of the state that it found.
    pending: BTreeMap<NodeId, bool>,
}

/// What an app believes of a node.
#[derive(Debug)]
struct Told {
    path: PathKind,
    topics: BTreeSet<Topic>,
}

impl Clients {
    pub(crate) fn connect(&mut self, id: ClientId, admin: bool) -> Result<(), TooManyClients> {
        if self.by_id.len() >= limits::CLIENTS {
            return Err(TooManyClients);
        }
        self.by_id.insert(id, Client { admin, ..Client::default() });
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        self.by_id.remove(&id)
    }

    pub(crate) fn get(&self, id: ClientId) -> Option<&Client> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The apps that watch.
    fn watchers(&mut self) -> impl Iterator<Item = (ClientId, &mut Watch)> {
        self.by_id.iter_mut().filter_map(|(id, client)| client.watch.as_mut().map(|watch| (*id, watch)))
    }
}

impl Client {
    pub(crate) fn output(&self) -> &[u8] {
        &self.output[self.written..]
    }

    pub(crate) const fn accepts(&self) -> bool {
        !self.closing
            && self.unanswered < limits::CLIENT_QUEUE_MESSAGES
            && self.unanswered_bytes < limits::CLIENT_QUEUE_BYTES
            && self.output.len() - self.written < limits::CLIENT_QUEUE_BYTES
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unanswered == 0 && self.listings.is_empty() && self.output().is_empty()
    }

    /// Whether one more message may be queued for it.
    fn has_room(&self) -> bool {
        !self.closing
            && self.messages < limits::CLIENT_QUEUE_MESSAGES
            && self.output.len() - self.written < limits::CLIENT_QUEUE_BYTES
    }

    /// Whether what can wait should: half of the queue is kept for messages and answers.
    pub(crate) fn has_room_for_state(&self) -> bool {
        !self.closing && self.output.len() - self.written < limits::CLIENT_QUEUE_BYTES / 2
    }

    /// Appends a line that answers the app or tells it of presence.
    pub(crate) fn tell(&mut self, event: &Event<'_>) {
        self.append(event, false);
    }

    /// Appends a message if there is room; says whether there was.
    pub(crate) fn tell_message(&mut self, event: &Event<'_>) -> bool {
        if !self.has_room() {
            return false;
        }
        self.tell_lost();
        self.append(event, true);
        true
    }

    /// A message of `bytes` did not find room.
    pub(crate) fn lose(&mut self, bytes: usize) {
        self.lost.messages += 1;
        self.lost.bytes += bytes as u64;
    }

    fn tell_lost(&mut self) {
        if self.lost.messages > 0 {
            let Lost { messages, bytes } = std::mem::take(&mut self.lost);
            self.append(&Event::Lost { messages, bytes }, false);
        }
    }

    fn append(&mut self, event: &Event<'_>, is_message: bool) {
        if self.closing {
            return;
        }
        let start = self.output.len();
        // Nothing in an event fails to be JSON, and a Vec takes all.
        let written = serde_json::to_writer(&mut self.output, event);
        debug_assert!(written.is_ok());
        self.output.push(b'\n');
        self.lines.push_back((self.output.len() - start, is_message));
        self.messages += usize::from(is_message);
    }

    /// The first `bytes` of the output were written.
    fn wrote(&mut self, bytes: usize) {
        self.written += bytes.min(self.output.len() - self.written);
        while let Some((length, is_message)) = self.lines.front().copied()
            && self.line + length <= self.written
        {
            self.line += length;
            self.messages -= usize::from(is_message);
            self.lines.pop_front();
        }
        // Moving the rest to the front costs no more than what was written since the last time.
        if self.line >= self.output.len() / 2 {
            self.output.drain(..self.line);
            self.written -= self.line;
            self.line = 0;
        }
        if self.has_room() {
            self.tell_lost();
        }
    }

    /// The app asked for something that takes its time.
    pub(crate) fn owe(&mut self, bytes: usize) {
        self.unanswered += 1;
        self.unanswered_bytes += bytes;
    }

    /// It has its answer.
    pub(crate) fn paid(&mut self, bytes: usize) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.unanswered_bytes = self.unanswered_bytes.saturating_sub(bytes);
    }

    pub(crate) fn list(&mut self, id: Option<RequestId>) {
        self.owe(0);
        self.listings.push_back(Listing { id, after: None });
    }

    pub(crate) fn listing(&mut self) -> Option<&mut Listing> {
        self.listings.front_mut()
    }

    pub(crate) fn listed(&mut self) {
        self.listings.pop_front();
        self.paid(0);
    }

    /// Begins to watch the `nodes` that are there, and what comes; `own` is our node, if the app wants its topics too.
    pub(crate) fn watch(&mut self, nodes: impl Iterator<Item = NodeId>, own: Option<NodeId>) {
        let pending = nodes.chain(own).map(|id| (id, true)).collect();
        self.watch = Some(Watch { own: own.is_some(), told: BTreeMap::new(), pending });
    }

    /// Writes what makes `before` to `now`. Of our own node only the topics are told: it never comes or goes.
    fn tell_changes(&mut self, node: &PeerRef<'_>, before: Option<Told>, now: &Told, snapshot: bool) {
        let peer = || node.clone();
        match &before {
            None if now.path != PathKind::Local => {
                self.tell(&Event::Enter { peer: peer(), path: now.path, snapshot });
            }
            Some(before) if before.path != now.path => {
                self.tell(&Event::Path { peer: peer(), path: now.path });
            }
            _ => {}
        }
        let before = before.map(|before| before.topics).unwrap_or_default();
        for topic in before.difference(&now.topics) {
            self.tell(&Event::Unlisten { peer: peer(), topic: topic.as_str().into() });
        }
        for topic in now.topics.difference(&before) {
            self.tell(&Event::Listen { peer: peer(), topic: topic.as_str().into(), snapshot });
        }
    }

    /// Nothing more is accepted or told.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }
}

impl Node {
    /// Tells the edge that there is something to write for `client`.
    pub(crate) fn tell_output(&mut self, client: ClientId) {
        let Some(known) = self.clients.get(client) else { return };
        if known.output().is_empty() {
            return;
        }
        if !known.has_room() && !self.timers.is_set(Timer::SlowConsumer(client)) {
            self.timers.set(Timer::SlowConsumer(client), self.now + limits::SLOW_CONSUMER);
        }
        if self.told_output.insert(client) {
            self.events.push_back(NodeEvent::Output(client));
        }
    }

    pub(crate) fn on_written(&mut self, client: ClientId, bytes: usize) {
        let Some(known) = self.clients.get_mut(client) else { return };
        if bytes > 0 {
            known.wrote(bytes);
            self.timers.clear(Timer::SlowConsumer(client));
        }
        self.told_output.remove(&client);
        self.refill(client);
        self.tell_output(client);
    }

    /// The app has taken no byte for as long as its queue has been full.
    pub(crate) fn on_slow_consumer_timer(&mut self, client: ClientId) {
        let Some(known) = self.clients.get_mut(client) else { return };
        tracing::info!(reason = "slow-consumer", "an app did not read for 10 s and is closed");
        known.tell(&Event::Error {
            id: None,
            code: ErrorCode::SlowConsumer,
            message: "nothing was read for 10 s while the queue was full".into(),
            hint: "read all the time, and work on what you read elsewhere".into(),
        });
        known.close();
        self.events.push_back(NodeEvent::Close(client));
    }

    pub(crate) fn on_hangup(&mut self, client: ClientId) {
        let Some(gone) = self.clients.remove(client) else { return };
        self.timers.clear(Timer::SlowConsumer(client));
        self.told_output.remove(&client);
        self.forget_waiting_of(client);
        self.forget_pings_of(client);
        self.publications.retain(|_, publication| publication.client != client);
        let mut changed = false;
        for topic in &gone.topics {
            changed |= self.topics.unlisten(topic, client);
        }
        if changed {
            self.topics_changed();
        }
    }

    /// Something of a node's presence changed: who watches is told, now or when it has room.
    pub(crate) fn presence_changed(&mut self, id: NodeId) {
        let mut waiting = Vec::new();
        for (client, watch) in self.clients.watchers() {
            if id != self.id || watch.own {
                watch.pending.entry(id).or_insert(false);
                waiting.push(client);
            }
        }
        for client in waiting {
            self.refill(client);
            self.tell_output(client);
        }
    }

    /// Writes of the lists and of the presence that an app waits for as much as it has room for.
    pub(crate) fn refill(&mut self, client: ClientId) {
        self.refill_listing(client);
        let Self { clients, peers, links, topics, config, .. } = self;
        let Some(known) = clients.get_mut(client) else { return };
        while known.has_room_for_state() {
            let Some(watch) = &mut known.watch else { return };
            let Some((id, snapshot)) = watch.pending.pop_first() else { return };
            let before = watch.told.remove(&id);
            let (name, now) = if id == self.id {
                let topics = topics.listened().cloned().collect();
                (config.name.as_str(), Some(Told { path: PathKind::Local, topics }))
            } else {
                let Some(peer) = peers.get(&id) else { continue };
                let kind = |path: Route| links.kind(path.remote.ip());
                let told = |path| Told { path: kind(path), topics: peer.topics.names().cloned().collect() };
                if let (None, Some(_)) = (peer.path, &before) {
                    let reference = PeerRef { name: peer.name.as_str().into(), id };
                    known.tell(&Event::Exit { peer: reference, path: peer.last_kind });
                }
                (peer.name.as_str(), peer.path.map(told))
            };
            let Some(now) = now else { continue };
            known.tell_changes(&PeerRef { name: name.into(), id }, before, &now, snapshot);
            if let Some(watch) = &mut known.watch {
                watch.told.insert(id, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Event<'_> {
        Event::Message {
            from: PeerRef { name: "pi".into(), id: NodeId([1; 32]) },
            topic: "t".into(),
            text: Some(text.into()),
            data: None,
            path: PathKind::Lan,
            at: "".into(),
            reply_to: None,
        }
    }

    #[test]
    fn what_was_lost_is_told_before_the_next_message_with_the_true_count() {
        let mut client = Client::default();
        for _ in 0..limits::CLIENT_QUEUE_MESSAGES {
            assert!(client.tell_message(&message("x")));
        }
        for _ in 0..7 {
            assert!(!client.tell_message(&message("x")));
            client.lose(10);
        }
        let all = client.output().len();
        client.wrote(all - 1);
        let rest = String::from_utf8(client.output().to_vec()).unwrap();
        assert_eq!(rest, "\n{\"ev\":\"lost\",\"messages\":7,\"bytes\":70}\n");
    }

    #[test]
    fn lines_are_counted_right_however_they_are_written() {
        proptest::proptest!(|(steps in proptest::collection::vec((0..3_usize, 0..400_usize), 1..200))| {
            let mut client = Client::default();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (messages, bytes) in steps {
                for n in 0..messages {
                    let text = "y".repeat(n * 13);
                    client.tell_message(&message(&text));
                    serde_json::to_writer(&mut expected, &message(&text)).unwrap();
                    expected.push(b'\n');
                }
                let taken = bytes.min(client.output().len());
                got.extend_from_slice(&client.output()[..taken]);
                client.wrote(taken);
                proptest::prop_assert_eq!(client.messages, client.lines.iter().filter(|line| line.1).count());
            }
            got.extend_from_slice(client.output());
            let rest = client.output().len();
            client.wrote(rest);
            proptest::prop_assert_eq!(got, expected);
            proptest::prop_assert!(client.lines.is_empty() && client.messages == 0);
        });
    }
}
