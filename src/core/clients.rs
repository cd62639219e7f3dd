//! The local apps: what each listens to, and what waits to be read by it (socket.md, 6).
//!
//! What an app has to read is bounded: when it does not read, acknowledged messages are refused to their sender, others
//! are dropped and counted, and the count is the next thing that the app reads. Presence is never dropped but merged:
//! what changed is noted per peer and written when there is room again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, Route};
use crate::core::encoder::{Channels, Encoder, Incoming};
use crate::core::peers::Peer;
use crate::core::queue::{Kind, Queue};
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, NodeName, RequestId, Topic};
use crate::limits;
use crate::wire::local::{ErrorCode, Event, PathKind, PeerRef, frame};

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
    encoder: Encoder,
    queue: Queue,
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
    name: NodeName,
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
        self.queue.output()
    }

    /// Whether more may be read from it. An answer that it did not read yet is none.
    pub(crate) const fn accepts(&self) -> bool {
        !self.closing
            && self.unanswered + self.queue.answers() < limits::CLIENT_QUEUE_MESSAGES
            && self.unanswered_bytes < limits::CLIENT_QUEUE_BYTES
            && self.queue.len() < limits::CLIENT_QUEUE_BYTES
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.unanswered == 0 && self.listings.is_empty() && self.output().is_empty()
    }

    /// From now on both sides speak in frames.
    pub(crate) fn speak_frames(&mut self) {
        self.encoder = Encoder::Frames(Box::default());
        self.queue.append(Kind::State, |out| out.extend_from_slice(&frame::PREFACE));
    }

    /// Its channels, if it speaks in frames.
    pub(crate) fn channels(&mut self) -> Option<&mut Channels> {
        match &mut self.encoder {
            Encoder::Lines => None,
            Encoder::Frames(channels) => Some(channels),
        }
    }

    pub(crate) const fn speaks_lines(&self) -> bool {
        !self.encoder.is_frames()
    }

    /// Whether one more message may be queued for it.
    fn has_room(&self) -> bool {
        !self.closing
            && self.queue.messages() < limits::CLIENT_QUEUE_MESSAGES
            && self.queue.len() < limits::CLIENT_QUEUE_BYTES
    }

    /// Whether what can wait should: half of the queue is kept for messages and answers.
    pub(crate) fn has_room_for_state(&self) -> bool {
        !self.closing && self.queue.len() < limits::CLIENT_QUEUE_BYTES / 2
    }

    /// Appends what answers the app or tells it of presence.
    pub(crate) fn tell(&mut self, event: &Event<'_>) {
        if self.closing {
            return;
        }
        let is_answer = matches!(
            event,
            Event::Ok { .. } | Event::Error { .. } | Event::Result { .. } | Event::Invitation { .. }
        );
        let kind = if is_answer { Kind::Answer } else { Kind::State };
        self.queue.append(kind, |out| self.encoder.write(event, out));
    }

    /// Appends a message if there is room; says whether there was. `event` is the same for who speaks lines.
    pub(crate) fn tell_message(&mut self, incoming: &Incoming<'_>, event: Option<&Event<'_>>) -> bool {
        if !self.has_room() {
            return false;
        }
        self.tell_lost();
        self.queue.append(Kind::Message, |out| self.encoder.write_incoming(incoming, event, out));
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
            self.tell(&Event::Lost { messages, bytes });
        }
    }

    /// The first `bytes` of the output were written.
    fn wrote(&mut self, bytes: usize) {
        self.queue.wrote(bytes);
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
            // It has another way or another name: of the second there is no event of its own.
            Some(before)
                if now.path != PathKind::Local && (before.path, &before.name) != (now.path, &now.name) =>
            {
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

    /// What waits for it has a secret in it.
    pub(crate) const fn keep_secret(&mut self) {
        self.queue.keep_secret();
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

    pub(crate) fn on_unheard(&mut self, client: ClientId) {
        self.end_asks_of(client);
        let Some(known) = self.clients.get_mut(client) else { return };
        let mut changed = false;
        for topic in std::mem::take(&mut known.topics) {
            changed |= self.topics.unlisten(&topic, client);
        }
        if changed {
            self.topics_changed();
        }
    }

    pub(crate) fn on_hangup(&mut self, client: ClientId) {
        let Some(gone) = self.clients.remove(client) else { return };
        self.timers.clear(Timer::SlowConsumer(client));
        self.told_output.remove(&client);
        self.forget_waiting_of(client);
        self.forget_pings_of(client);
        self.forget_asks_of(client);
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
            let now = if id == self.id {
                let (name, topics) = (config.name.clone(), topics.listened().cloned().collect());
                Some(Told { name, path: PathKind::Local, topics })
            } else {
                let peer = peers.get(&id);
                let kind = |path: Route| links.kind(path.remote.ip());
                let topics = |peer: &Peer| peer.topics.names().cloned().collect();
                let told = |peer: &Peer, path| Told {
                    name: peer.name.clone(),
                    path: kind(path),
                    topics: topics(peer),
                };
                let now = peer.and_then(|peer| peer.path.map(|path| told(peer, path)));
                if let (None, Some(before)) = (&now, &before) {
                    // It may be forgotten by now, and its name with it.
                    let path = peer.map_or(before.path, |peer| peer.last_kind);
                    let name = peer.map_or(&before.name, |peer| &peer.name);
                    known.tell(&Event::Exit { peer: PeerRef { name: name.as_str().into(), id }, path });
                }
                now
            };
            let Some(now) = now else { continue };
            known.tell_changes(&PeerRef { name: now.name.as_str().into(), id }, before, &now, snapshot);
            if let Some(watch) = &mut known.watch {
                watch.told.insert(id, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::encoder::{Subject, Words};
    use crate::id::TopicNumber;

    fn tell(client: &mut Client, text: &str) -> bool {
        let name = "pi".parse().unwrap();
        let incoming = Incoming {
            from: NodeId([1; 32]),
            name: &name,
            subject: Subject::Topic { number: TopicNumber(1), topic: &"t".parse().unwrap(), reply_to: None },
            path: PathKind::Lan,
            at: Duration::ZERO,
            payload: text.as_bytes(),
        };
        let mut words = Words::default();
        let event = incoming.event(&mut words);
        client.tell_message(&incoming, Some(&event))
    }

    #[test]
    fn what_was_lost_is_told_before_the_next_message_with_the_true_count() {
        let mut client = Client::default();
        for _ in 0..limits::CLIENT_QUEUE_MESSAGES {
            assert!(tell(&mut client, "x"));
        }
        for _ in 0..7 {
            assert!(!tell(&mut client, "x"));
            client.lose(10);
        }
        let all = client.output().len();
        client.wrote(all - 1);
        let rest = String::from_utf8(client.output().to_vec()).unwrap();
        assert_eq!(rest, "\n{\"ev\":\"lost\",\"messages\":7,\"bytes\":70}\n");
    }

    #[test]
    fn the_queue_of_large_messages_passes_its_bytes_by_one_message_at_most_in_both_modes() {
        for frames in [false, true] {
            let mut client = Client::default();
            if frames {
                client.speak_frames();
            }
            let large = "x".repeat(61_440);
            let mut taken = 0;
            while tell(&mut client, &large) {
                taken += 1;
            }
            assert_eq!(taken, limits::CLIENT_QUEUE_BYTES / 61_440 + 1);
            assert!(client.output().len() < limits::CLIENT_QUEUE_BYTES + 62_000);
        }
    }

    #[test]
    fn an_app_that_reads_no_answers_is_not_read_from_though_they_are_few_bytes() {
        for frames in [false, true] {
            let mut client = Client::default();
            if frames {
                client.speak_frames();
            }
            let ok =
                Event::Ok { id: Some(RequestId(1)), hello: None, status: None, network: None, reload: None };
            for _ in 0..limits::CLIENT_QUEUE_MESSAGES {
                assert!(client.accepts());
                client.tell(&ok);
            }
            assert!(!client.accepts());
            client.wrote(100);
            assert!(client.accepts());
        }
    }
}
