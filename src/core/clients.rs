//! The local apps: what each listens to, and what waits to be read by it (socket.md, 6).
//!
//! What an app has to read is bounded: when it does not read, acknowledged messages are refused to their sender, others
//! are dropped and counted, and the count is the next thing that the app reads. Presence is never dropped but merged
//! (`presence`).
//!
//! Each app has a little memory of its own; beyond that all share a budget, in equal parts for each user and then for each
//! app of a user. Of the places for apps and topics some are kept for users who have few, and of those for apps a few more
//! for whoever administers the daemon: whatever apps do, it can be asked how it is and told what to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, Owner};
use crate::core::budget::Budget;
use crate::core::encoder::{Channels, Encoder, Incoming};
use crate::core::presence::Watch;
use crate::core::queue::{Kind, Queue};
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, RequestId, Topic};
use crate::limits;
use crate::wire::local::{ErrorCode, Event, frame};

/// All of them.
#[derive(Debug)]
pub(crate) struct Clients {
    by_id: BTreeMap<ClientId, Client>,
    /// What they hold beyond what each has of its own.
    budget: Budget,
    /// The same for each user.
    users: BTreeMap<u32, usize>,
}

/// There are as many apps as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TooManyClients {
    /// For this user.
    #[error("there are already {taken} apps, {own} of them of the user {uid}")]
    OfUser {
        /// All apps.
        taken: usize,
        /// Those of the user.
        own: usize,
        /// Who that is.
        uid: u32,
    },
}

/// Bytes that a request without an answer costs beside its payload: its place in the queues, and of its packets.
const REQUEST_OVERHEAD: usize = 256;
/// Bytes of what an app is told of a peer later.
const BEHIND_BYTES: usize = 64;

/// One app.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// It has one of the places that are kept for administration, and does nothing else.
    pub(crate) only_administers: bool,
    /// For how much it counts in the budget of all.
    counted: usize,
    pub(crate) topics: BTreeSet<Topic>,
    encoder: Encoder,
    queue: Queue,
    lost: Lost,
    /// What it asked and has no answer yet.
    unanswered: usize,
    unanswered_bytes: usize,
    /// Lists of peers that it asked for and that are not complete.
    listings: VecDeque<Listing>,
    pub(crate) watch: Option<Watch>,
    closing: bool,
}

impl Default for Clients {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), budget: Budget::new(limits::APP_BYTES_IN_ALL), users: BTreeMap::new() }
    }
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

impl Clients {
    /// An app has connected. Who administers finds a place whatever the others do.
    pub(crate) fn connect(&mut self, id: ClientId, owner: Owner) -> Result<(), TooManyClients> {
        let apps = || self.by_id.values().filter(|client| !client.only_administers);
        let (taken, own) = (apps().count(), apps().filter(|client| client.owner.uid == owner.uid).count());
        let only_administers = !limits::APP_PLACES.has_one(taken, own);
        if only_administers {
            let same = |client: &&Client| client.only_administers && client.owner.uid == owner.uid;
            let room = self.by_id.values().filter(same).count() < limits::ADMIN_PLACES
                && self.by_id.len() < limits::CONNECTIONS;
            if !owner.admin || !room {
                return Err(TooManyClients::OfUser { taken, own, uid: owner.uid });
            }
        }
        self.by_id.insert(id, Client { owner, only_administers, ..Client::default() });
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let gone = self.by_id.remove(&id)?;
        self.count(gone.owner.uid, gone.counted, 0);
        Some(gone)
    }

    /// Takes note of how much an app holds now.
    pub(crate) fn settle(&mut self, id: ClientId) {
        let Some(client) = self.by_id.get_mut(&id) else { return };
        let now = client.memory().saturating_sub(limits::APP_BYTES);
        let before = std::mem::replace(&mut client.counted, now);
        let uid = client.owner.uid;
        if before != now {
            self.count(uid, before, now);
        }
    }

    fn count(&mut self, uid: u32, before: usize, now: usize) {
        self.budget.changed(before, now);
        let user = self.users.entry(uid).or_default();
        *user = user.saturating_sub(before) + now;
        if *user == 0 {
            self.users.remove(&uid);
        }
    }

    /// How much all hold beyond what each has of its own.
    pub(crate) const fn held(&self) -> usize {
        self.budget.held()
    }

    /// Whether an app may hold more than it does.
    fn has_room(&self, client: &Client) -> bool {
        let of_user = || self.users.get(&client.owner.uid).copied().unwrap_or_default();
        client.memory() < limits::APP_BYTES || self.budget.of_group(of_user()).has_room(client.counted, 0)
    }

    /// Whether more may be read from an app. An answer that it did not read yet is none.
    pub(crate) fn accepts(&self, id: ClientId) -> bool {
        self.by_id.get(&id).is_some_and(|client| client.accepts() && self.has_room(client))
    }

    /// Whether an app has room for what can wait.
    pub(crate) fn has_room_for_state(&self, id: ClientId) -> bool {
        self.by_id.get(&id).is_some_and(|client| client.has_room_for_state() && self.has_room(client))
    }

    /// An app, if a message may be queued for it.
    pub(crate) fn with_room(&mut self, id: ClientId) -> Option<&mut Client> {
        let client = self.by_id.get(&id)?;
        if client.has_room() && self.has_room(client) { self.by_id.get_mut(&id) } else { None }
    }

    /// The user whose an app is.
    pub(crate) fn uid_of(&self, id: ClientId) -> u32 {
        self.by_id.get(&id).map_or(0, |client| client.owner.uid)
    }

    /// How many topics the apps of a user listen to.
    pub(crate) fn topics_of(&self, uid: u32) -> usize {
        let own = self.by_id.values().filter(|client| client.owner.uid == uid);
        own.flat_map(|client| &client.topics).collect::<BTreeSet<_>>().len()
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.by_id.iter().map(|(id, client)| (*id, client))
    }

    /// The apps that watch.
    pub(crate) fn watchers(&mut self) -> impl Iterator<Item = (ClientId, &mut Watch)> {
        self.by_id.iter_mut().filter_map(|(id, client)| client.watch.as_mut().map(|watch| (*id, watch)))
    }
}

impl Client {
    pub(crate) fn output(&self) -> &[u8] {
        self.queue.output()
    }

    /// Bytes that it makes us keep.
    fn memory(&self) -> usize {
        let channels = match &self.encoder {
            Encoder::Lines => 0,
            Encoder::Frames(channels) => channels.memory(),
        };
        self.queue.memory()
            + self.unanswered_bytes
            + self.unanswered * REQUEST_OVERHEAD
            + channels
            + self.behind() * BEHIND_BYTES
    }

    /// Of how many peers it has to be told later.
    pub(crate) fn behind(&self) -> usize {
        self.watch.as_ref().map_or(0, Watch::behind)
    }

    const fn accepts(&self) -> bool {
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
    const fn has_room(&self) -> bool {
        !self.closing
            && self.queue.messages() < limits::CLIENT_QUEUE_MESSAGES
            && self.queue.len() < limits::CLIENT_QUEUE_BYTES
    }

    /// Whether what can wait should: half of the queue is kept for messages and answers.
    const fn has_room_for_state(&self) -> bool {
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

    /// Appends a message, for which there is room (see [`Clients::with_room`]). `event` is the same for who speaks lines.
    pub(crate) fn tell_message(&mut self, incoming: &Incoming<'_>, event: Option<&Event<'_>>) {
        self.tell_lost();
        self.queue.append(Kind::Message, |out| self.encoder.write_incoming(incoming, event, out));
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

    /// What waits for it has a secret in it.
    pub(crate) const fn keep_secret(&mut self) {
        self.queue.keep_secret();
    }

    /// Nothing more is accepted or told.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        self.watch = None;
    }
}

impl Node {
    /// Tells the edge that there is something to write for `client`.
    pub(crate) fn tell_output(&mut self, client: ClientId) {
        self.clients.settle(client);
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
        self.close_slow_consumer(client, "nothing was read for 10 s while the queue was full");
    }

    /// Sends away an app that does not read.
    pub(crate) fn close_slow_consumer(&mut self, client: ClientId, why: &str) {
        let Some(known) = self.clients.get_mut(client) else { return };
        tracing::info!(reason = "slow-consumer", why, "an app did not read and is closed");
        known.tell(&Event::Error {
            id: None,
            code: ErrorCode::SlowConsumer,
            message: why.into(),
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
            changed |= self.topics.unlisten(&topic, client, self.now);
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
        self.waiting.forget(client);
        self.open_publications.forget(client);
        self.forget_pings_of(client);
        self.forget_asks_of(client);
        self.publications.retain(|_, publication| publication.client != client);
        let mut changed = false;
        for topic in &gone.topics {
            changed |= self.topics.unlisten(topic, client, self.now);
        }
        if changed {
            self.topics_changed();
        }
    }

    /// Writes of the lists and of the presence that an app waits for as much as it has room for.
    pub(crate) fn refill(&mut self, client: ClientId) {
        self.refill_listing(client);
        self.refill_presence(client);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::core::encoder::{Subject, Words};
    use crate::id::TopicNumber;
    use crate::wire::local::PathKind;

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
        let has_room = client.has_room();
        if has_room {
            client.tell_message(&incoming, Some(&event));
        }
        has_room
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
