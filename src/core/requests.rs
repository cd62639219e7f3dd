//! What apps ask: each request to its noun, and the outcome of what takes its time (socket.md, 3).

use std::borrow::Cow;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, Route};
use crate::core::asks::{Ask, Message};
use crate::core::clients::Client;
use crate::core::encoder::{self, Incoming};
use crate::core::letters::{Address, Letter, Patience, Sender};
use crate::id::{ClientId, NodeId, ReplyToken, RequestId, Topic, TopicNumber};
use crate::limits;
use crate::time::Instant;
use crate::wire::complaint;
use crate::wire::local::{
    BadLine, Ending, ErrorCode, Event, Hello, NetworkInfo, Op, Outcome, Outgoing, PathKind, PeerOutcome,
    PeerRef, Reloaded, ReplyTo, Request, Subject,
};
use crate::wire::message::{DISCARD, Fate, Heading};

/// Outcomes that one `result` of a publication names; with longer lists it would not be a legal line. The failures come
/// first, and the count of what was sent is always whole.
pub(crate) const OUTCOMES_NAMED: usize = 256;
/// Bytes of a copy on its way to one peer, and of its outcome: they count among what an app has no answer to.
pub(crate) const COPY_BYTES: usize = 256;

/// A publication whose outcomes are awaited.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) client: ClientId,
    pub(crate) id: Option<RequestId>,
    pub(crate) bytes: usize,
    pub(crate) sent: u64,
    pub(crate) outcomes: Vec<(NodeId, Outcome)>,
    /// Copies may still be added.
    pub(crate) open: bool,
    /// Its app has the result; it counts for it until all copies have ended.
    pub(crate) told: bool,
}

/// Which of the apps that listen here get a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience {
    All,
    /// All but the one that published it.
    AllBut(ClientId),
    Only(ClientId),
}

impl Audience {
    fn has(self, client: ClientId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(publisher) => client != publisher,
            Self::Only(one) => client == one,
        }
    }
}

impl Node {
    pub(crate) fn on_request(&mut self, client: ClientId, request: Result<Request<'_>, BadLine>) {
        match request {
            Ok(Request { id, op }) => self.on_op(client, id, op),
            Err(BadLine { id, code, message }) => {
                let is_object = matches!(code, ErrorCode::UnknownOp | ErrorCode::BadRequest);
                let hint = if self.clients.get(client).is_some_and(|known| !known.speaks_lines()) {
                    "docs/socket.md, 9 has all frames and what is in them"
                } else if is_object {
                    "docs/socket.md, 3 has all ops and their fields"
                } else {
                    "one JSON object a line; docs/socket.md has them all"
                };
                self.refuse(client, id, code, message.into(), hint);
            }
        }
    }

    fn on_op(&mut self, client: ClientId, id: Option<RequestId>, op: Op<'_>) {
        let only_administers = self.clients.get(client).is_some_and(|known| known.only_administers);
        if only_administers && is_of_an_app(&op) {
            let message = "all places for apps are taken: this connection may only administer the daemon";
            let hint = "end some of this user's apps, and connect again";
            return self.refuse(client, id, ErrorCode::Limit, message.into(), hint);
        }
        match op {
            Op::Hello => self.answer_hello(client, id),
            Op::Listen { topic } => self.listen(client, id, topic),
            Op::Unlisten { topic } => self.unlisten(client, id, &topic),
            Op::Send { to, subject, message } => self.send(client, id, to.as_str(), &subject, &message),
            Op::Publish { subject, message } => self.publish(client, id, &subject, &message),
            Op::Reply { reply_to, message } => self.reply(client, id, reply_to, &message),
            Op::Watch { own } => {
                self.ok(client, id);
                self.watch(client, own);
                self.refill(client);
            }
            Op::Peers { settled: true } if self.is_young() => self.list_when_settled(client, id),
            Op::Peers { .. } => self.list_peers(client, id),
            Op::Status => self.answer_status(client, id),
            Op::Ping { to, count, interval, timeout } => match self.find(to.as_str()) {
                Some(peer) => self.start_ping(client, id, peer, count, interval, timeout),
                None => self.ping_when_known(client, id, to.as_str(), (count, interval, timeout)),
            },
            Op::Forget { to } => self.forget(client, id, to.as_str()),
            Op::Network(op) => self.network(client, id, op),
            Op::Invite => self.invite(client, id),
            Op::Reload => {
                if self.may_administer(client, id, "reading the configuration again") {
                    self.events.push_back(NodeEvent::Reload { client, id });
                }
            }
        }
    }

    /// Whom an app means by `to`: an exact name or id, ours included.
    pub(crate) fn find(&self, to: &str) -> Option<NodeId> {
        let by_id = || to.parse::<NodeId>().ok().filter(|id| *id == self.id || self.peers.is_known(id));
        let own = (to == self.config.name.as_str()).then_some(self.id);
        own.or_else(|| self.peers.by_name(to)).or_else(by_id)
    }

    /// Tells an app that nobody is meant by `to`.
    pub(crate) fn refuse_unknown(&mut self, client: ClientId, id: Option<RequestId>, to: &str) {
        let message = format!("no peer was ever called {}", complaint::word(to));
        self.refuse(client, id, ErrorCode::NoPeer, message.into(), "atonce peers --all lists everyone known");
    }

    fn listen(&mut self, client: ClientId, id: Option<RequestId>, topic: Topic) {
        if topic.is_reserved() {
            let message = format!("{} is a topic of the daemon's own", topic.as_str());
            return self.refuse(client, id, ErrorCode::BadRequest, message.into(), "choose another name");
        }
        let Some(known) = self.clients.get_mut(client) else { return };
        let full = known.topics.len() >= limits::TOPICS_PER_CLIENT && !known.topics.contains(&topic);
        let uid = known.owner.uid;
        if full || !self.topics.has_room(&topic, self.clients.topics_of(uid)) {
            let message = if full {
                format!("one app listens to at most {} topics", limits::TOPICS_PER_CLIENT)
            } else {
                let (all, few) = (limits::TOPICS_PER_NODE, limits::TOPIC_PLACES.few);
                format!(
                    "the apps of this node listen to {all} topics, and those of this user to {few} or more"
                )
            };
            self.refuse(client, id, ErrorCode::Limit, message.into(), "unlisten to some first");
            return;
        }
        let Some(known) = self.clients.get_mut(client) else { return };
        known.topics.insert(topic.clone());
        if self.topics.listen(&topic, client) {
            self.topics_changed();
        }
        self.ok(client, id);
        self.listener_came(client, &topic);
    }

    fn unlisten(&mut self, client: ClientId, id: Option<RequestId>, topic: &Topic) {
        let Some(known) = self.clients.get_mut(client) else { return };
        if known.topics.remove(topic) && self.topics.unlisten(topic, client, self.now) {
            self.topics_changed();
        }
        self.ok(client, id);
    }

    pub(crate) fn send(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        to: &str,
        subject: &Subject<'_>,
        message: &Outgoing<'_>,
    ) {
        match self.find(to) {
            Some(peer) => self.send_to(client, id, peer, subject, message),
            None => self.send_when_known(client, id, to, subject, message),
        }
    }

    /// The same to a node that is known.
    pub(crate) fn send_to(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        peer: NodeId,
        subject: &Subject<'_>,
        message: &Outgoing<'_>,
    ) {
        self.mean(peer);
        let mut sender = Sender { client, id, publication: None, ask: None };
        let payload = message.payload.as_bytes();
        let topic = subject.topic.as_str();
        if payload.len() > limits::PAYLOAD_BYTES {
            let replies = subject.replies.map(|_| 0);
            return self.end_send(sender, peer, Outcome::TooBig, None, replies);
        }
        // Owed before it is dispatched: it may be paid before that returns.
        if let (Some(wanted), Some(id)) = (subject.replies, id) {
            let token = self.draw_token();
            let (asked, bytes) = (vec![peer], payload.len());
            let sent = Message::Sent { peer, outcome: None };
            let (accepted, deadline) = (self.now, self.now + message.timeout);
            let open = false;
            let ask =
                Ask { client, id, message: sent, asked, open, wanted, came: 0, accepted, deadline, bytes };
            self.begin_ask(token, ask);
            sender.ask = Some(token);
        } else if peer != self.id {
            self.owe(client, payload.len());
        }
        if peer == self.id {
            let fate = self.deliver_here(topic, payload, message.ack, Audience::All, sender.ask);
            let deadline = self.now + message.timeout;
            let patience = Patience::of(message);
            if fate == Fate::NoListener
                && self.keep_here(sender, topic, payload, message.ack, patience, deadline)
            {
                return;
            }
            return self.end_here(sender, fate);
        }
        if let Some(outcome) = self.dispatch(peer, self.letter(subject, message, sender.ask), sender) {
            self.report(sender, peer, outcome, None, payload.len());
        }
    }

    pub(crate) fn keep_publication(&mut self, publication: Publication) -> u64 {
        let number = self.next_publication;
        self.next_publication += 1;
        self.publications.insert(number, publication);
        number
    }

    pub(crate) fn letter<'a>(
        &self,
        subject: &'a Subject<'_>,
        message: &'a Outgoing<'_>,
        ask: Option<ReplyToken>,
    ) -> Letter<'a> {
        let topic = subject.topic.as_str();
        Letter {
            address: ask.map_or(Address::Topic(topic), |token| Address::Request(topic, token)),
            payload: message.payload.as_bytes(),
            tracked: message.ack,
            deadline: self.now + message.timeout,
            patience: Patience::of(message),
        }
    }

    pub(crate) fn owe(&mut self, client: ClientId, bytes: usize) {
        if let Some(known) = self.clients.get_mut(client) {
            known.owe(bytes);
        }
        self.clients.settle(client);
    }

    /// What an app owed it has its answer to.
    pub(crate) fn pay(&mut self, client: ClientId, bytes: usize) {
        if let Some(known) = self.clients.get_mut(client) {
            known.paid(bytes);
        }
        self.clients.settle(client);
    }

    /// What became of a message that took its time.
    pub(crate) fn report(
        &mut self,
        sender: Sender,
        peer: NodeId,
        outcome: Outcome,
        took: Option<std::time::Duration>,
        bytes: usize,
    ) {
        if let Some(number) = sender.publication {
            self.report_copy(number, sender, peer, outcome);
        } else if sender.ask.is_none() || sender.id.is_none() {
            // Of a request to one peer the ask is paid, when it ends.
            self.pay(sender.client, bytes);
        }
        match sender.ask {
            Some(token) => self.ask_reported(token, peer, outcome, took),
            None if sender.publication.is_none() => self.end_send(sender, peer, outcome, took, None),
            None => {}
        }
    }

    /// One copy of a publication has its outcome. With the last one it ends, unless it waits for replies too.
    fn report_copy(&mut self, number: u64, sender: Sender, peer: NodeId, outcome: Outcome) {
        let Some(publication) = self.publications.get_mut(&number) else { return };
        publication.outcomes.push((peer, outcome));
        let complete = !publication.open && publication.outcomes.len() as u64 >= publication.sent;
        if complete
            && (sender.ask.is_none() || publication.told)
            && let Some(publication) = self.publications.remove(&number)
        {
            self.pay(sender.client, publication.bytes);
            if !publication.told {
                self.end_publication(publication);
            }
        }
    }

    /// The request that a publication was has ended. Says whether copies of it are still under way: then `bytes` count
    /// for its app until they have ended.
    pub(crate) fn outlive_ask(&mut self, number: u64, bytes: usize) -> bool {
        let Some(publication) = self.publications.get_mut(&number) else { return false };
        (publication.told, publication.bytes) = (true, bytes);
        (publication.outcomes.len() as u64) < publication.sent
    }

    /// What is known of the copies of such a publication.
    pub(crate) fn outcomes_so_far(&mut self, number: u64) -> Option<Vec<PeerOutcome<'static>>> {
        let publication = self.publications.get_mut(&number)?;
        let outcomes = publication.outcomes.clone();
        if outcomes.len() as u64 >= publication.sent {
            self.publications.remove(&number);
        }
        Some(self.outcomes_named(outcomes))
    }

    pub(crate) fn end_publication(&mut self, publication: Publication) {
        let Publication { client, id, sent, outcomes, .. } = publication;
        let outcomes = Some(self.outcomes_named(outcomes));
        self.result(client, id, Ending::Publish { sent, outcomes, replies: None });
    }

    /// The outcomes as they are told: the failures first, and no more than fit a line.
    pub(crate) fn outcomes_named(&self, mut outcomes: Vec<(NodeId, Outcome)>) -> Vec<PeerOutcome<'static>> {
        outcomes.sort_by_key(|(_, outcome)| *outcome == Outcome::Delivered);
        outcomes.truncate(OUTCOMES_NAMED);
        let named = outcomes.into_iter().map(|(peer, outcome)| {
            let name = self.peers.get(&peer).map_or_else(|| peer.short(), |peer| peer.name.to_string());
            PeerOutcome { peer: PeerRef { name: name.into(), id: peer }, outcome }
        });
        named.collect()
    }

    /// Tells an app how its message to one peer ended, and how many replies came if it asked for some.
    pub(crate) fn end_send(
        &mut self,
        sender: Sender,
        peer: NodeId,
        outcome: Outcome,
        took: Option<std::time::Duration>,
        replies: Option<u32>,
    ) {
        let Self { clients, peers, config, links, id: own, .. } = self;
        let (Some(known), Some(_)) = (clients.get_mut(sender.client), sender.id) else { return };
        let short;
        let (name, path) = match peers.get(&peer) {
            Some(peer) => (peer.name.as_str(), peer.path.map(|path| links.kind(path.remote.ip()))),
            None if peer == *own => (config.name.as_str(), Some(PathKind::Local)),
            None => {
                short = peer.short();
                (short.as_str(), None)
            }
        };
        let ending = Ending::Send {
            outcome,
            peer: PeerRef { name: name.into(), id: peer },
            path,
            rtt_us: took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            replies,
        };
        known.tell(&Event::Result { id: sender.id, ending });
        self.tell_output(sender.client);
    }

    pub(crate) fn result(&mut self, client: ClientId, id: Option<RequestId>, ending: Ending<'_>) {
        if let (Some(known), Some(_)) = (self.clients.get_mut(client), id) {
            known.tell(&Event::Result { id, ending });
            self.tell_output(client);
        }
    }

    pub(crate) fn ok(&mut self, client: ClientId, id: Option<RequestId>) {
        self.answer(client, id, None, None);
    }

    pub(crate) fn answer(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        hello: Option<Hello<'_>>,
        network: Option<NetworkInfo<'_>>,
    ) {
        if let (Some(known), Some(_)) = (self.clients.get_mut(client), id) {
            known.tell(&Event::Ok { id, hello, status: None, network, reload: None });
        }
    }

    pub(crate) fn refuse(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        code: ErrorCode,
        message: Cow<'_, str>,
        hint: &str,
    ) {
        if let Some(known) = self.clients.get_mut(client) {
            known.tell(&Event::Error { id, code, message, hint: hint.into() });
        }
    }

    fn answer_hello(&mut self, client: ClientId, id: Option<RequestId>) {
        let name = self.config.name.to_string();
        let hello = Hello {
            v: 1,
            version: env!("CARGO_PKG_VERSION").into(),
            node: PeerRef { name: name.into(), id: self.id },
            payload_bytes: limits::PAYLOAD_BYTES as u64,
            line_bytes: limits::LINE_BYTES as u64,
        };
        self.answer(client, id, Some(hello), None);
    }

    /// Whether this app may do such a thing; tells it if not.
    pub(crate) fn may_administer(&mut self, client: ClientId, id: Option<RequestId>, what: &str) -> bool {
        let admin = self.clients.get(client).is_some_and(|known| known.owner.admin);
        if !admin {
            let message = format!("{what} needs root or the daemon's own user");
            self.refuse(client, id, ErrorCode::Denied, message.into(), "try again with sudo");
        }
        admin
    }

    /// What came of an [`NodeEvent::Reload`]: what has changed, or why nothing has.
    pub fn handle_reload(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        outcome: Result<Reloaded<'_>, String>,
        now: Instant,
    ) {
        self.advance(now);
        match outcome {
            Ok(reload) => {
                if let (Some(known), Some(_)) = (self.clients.get_mut(client), id) {
                    let reload = Some(reload);
                    known.tell(&Event::Ok { id, hello: None, status: None, network: None, reload });
                }
            }
            Err(reason) => {
                let hint = "correct it; nothing has changed yet";
                self.refuse(client, id, ErrorCode::Internal, complaint::one_line(&reason).into(), hint);
            }
        }
        self.tell_output(client);
    }

    /// Delivers a message of an app of this node to those that listen here.
    pub(crate) fn deliver_here(
        &mut self,
        topic: &str,
        payload: &[u8],
        tracked: bool,
        audience: Audience,
        ask: Option<ReplyToken>,
    ) -> Fate {
        if topic == Topic::DISCARD {
            return Fate::Delivered;
        }
        let Some(topic) = self.topics.number(topic) else { return Fate::NoListener };
        self.hand_over(topic, ask, self.id, PathKind::Local, payload, tracked, audience)
    }

    /// Delivers a message of a peer.
    pub(crate) fn deliver(
        &mut self,
        from: NodeId,
        via: Route,
        heading: Heading,
        payload: &[u8],
        tracked: bool,
    ) -> Fate {
        let path = self.links.kind(via.remote.ip());
        let (topic, ask) = match heading {
            Heading::Topic(topic) => (topic, None),
            Heading::Request { topic, token } => (topic, Some(token)),
            Heading::Reply(token) => return self.on_reply(from, path, token, payload, tracked),
        };
        if topic == DISCARD {
            return Fate::Delivered;
        }
        self.hand_over(topic, ask, from, path, payload, tracked, Audience::All)
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of a message")]
    pub(crate) fn hand_over(
        &mut self,
        number: TopicNumber,
        ask: Option<ReplyToken>,
        from: NodeId,
        path: PathKind,
        payload: &[u8],
        tracked: bool,
        audience: Audience,
    ) -> Fate {
        let Some((topic, listeners)) = self.topics.numbered(number) else { return Fate::NoListener };
        let name = self.peers.get(&from).map_or(&self.config.name, |peer| &peer.name);
        let reply_to = ask.map(|token| ReplyTo { node: from, token });
        let at = self.clock.since_1970(self.now);
        let subject = encoder::Subject::Topic { number, topic, reply_to };
        let incoming = Incoming { from, name, subject, path, at, payload };
        let others = || listeners.iter().filter(|client| audience.has(**client));
        let clients = &mut self.clients;
        let in_lines = others().any(|client| clients.get(*client).is_some_and(Client::speaks_lines));
        let event = in_lines.then(|| incoming.event(&mut self.words));
        let mut full = 0;
        for client in others() {
            match clients.with_room(*client) {
                Some(known) => {
                    known.tell_message(&incoming, event.as_ref());
                    self.touched.push(*client);
                }
                None => full += 1,
            }
        }
        let taken = !self.touched.is_empty();
        // Refused to its sender it is not lost; otherwise those that had no room are told.
        if full > 0 && (taken || !tracked) {
            for client in others().filter(|client| !self.touched.contains(client)) {
                if let Some(known) = clients.get_mut(*client) {
                    known.lose(payload.len());
                }
            }
        }
        while let Some(client) = self.touched.pop() {
            self.tell_output(client);
        }
        match (taken, full) {
            (true, _) => Fate::Delivered,
            (false, 0) => Fate::NoListener,
            (false, _) => Fate::Busy,
        }
    }
}

/// Whether only apps ask this: it takes part in what apps share, for as long as they like.
const fn is_of_an_app(op: &Op<'_>) -> bool {
    match op {
        Op::Listen { .. } | Op::Send { .. } | Op::Publish { .. } | Op::Reply { .. } | Op::Watch { .. } => {
            true
        }
        Op::Hello
        | Op::Unlisten { .. }
        | Op::Peers { .. }
        | Op::Status
        | Op::Ping { .. }
        | Op::Forget { .. }
        | Op::Network(_)
        | Op::Invite
        | Op::Reload => false,
    }
}

impl From<Fate> for Outcome {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Delivered => Self::Delivered,
            Fate::NoListener => Self::NoListener,
            Fate::Busy => Self::Busy,
        }
    }
}
