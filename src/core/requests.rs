//! What apps ask: each request to its noun, and the outcome of what takes its time (socket.md, 3).

use std::borrow::Cow;

use data_encoding::BASE64;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, Route};
use crate::core::delivery::{Letter, Sender};
use crate::id::{ClientId, NodeId, RequestId, Topic, TopicNumber};
use crate::limits;
use crate::time::Instant;
use crate::wire::complaint;
use crate::wire::local::{
    BadLine, Ending, ErrorCode, Event, Hello, NetworkInfo, Op, Outcome, Outgoing, PathKind, PeerOutcome,
    PeerRef, Reloaded, Request, WhenFull,
};
use crate::wire::message::Fate;

/// Outcomes that one `result` of a publication names; with longer lists it would not be a legal line. The failures come
/// first, and the count of what was sent is always whole.
const OUTCOMES_NAMED: usize = 256;

/// A publication whose outcomes are awaited.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) client: ClientId,
    id: Option<RequestId>,
    bytes: usize,
    sent: u64,
    outcomes: Vec<(NodeId, Outcome)>,
}

impl Node {
    pub(crate) fn on_request(&mut self, client: ClientId, request: Result<Request<'_>, BadLine>) {
        match request {
            Ok(Request { id, op }) => self.on_op(client, id, op),
            Err(BadLine { id, code, message }) => {
                let is_object = matches!(code, ErrorCode::UnknownOp | ErrorCode::BadRequest);
                let hint = if is_object {
                    "docs/socket.md, 3 has all ops and their fields"
                } else {
                    "one JSON object a line; docs/socket.md has them all"
                };
                self.refuse(client, id, code, message.into(), hint);
            }
        }
    }

    fn on_op(&mut self, client: ClientId, id: Option<RequestId>, op: Op<'_>) {
        match op {
            Op::Hello => self.answer_hello(client, id),
            Op::Listen { topic } => self.listen(client, id, topic),
            Op::Unlisten { topic } => self.unlisten(client, id, &topic),
            Op::Send { to, message } => self.send(client, id, to.as_str(), &message),
            Op::Publish { message } => self.publish(client, id, &message),
            Op::Watch { own } => {
                self.ok(client, id);
                let online = self.peers.online();
                if let Some(known) = self.clients.get_mut(client) {
                    known.watch(online.into_iter(), own.then_some(self.id));
                }
                self.refill(client);
            }
            Op::Peers => {
                if let Some(known) = self.clients.get_mut(client) {
                    known.list(id);
                }
                self.refill(client);
            }
            Op::Status => self.answer_status(client, id),
            Op::Ping { to, count, interval, timeout } => {
                if let Some(peer) = self.resolve(client, id, to.as_str()) {
                    self.start_ping(client, id, peer, count, interval, timeout);
                }
            }
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

    /// Whom an app means by `to`: an exact name or id, ours included. Tells the app if nobody.
    pub(crate) fn resolve(&mut self, client: ClientId, id: Option<RequestId>, to: &str) -> Option<NodeId> {
        let by_id = || to.parse::<NodeId>().ok().filter(|id| *id == self.id || self.peers.is_known(id));
        let own = (to == self.config.name.as_str()).then_some(self.id);
        let found = own.or_else(|| self.peers.by_name(to)).or_else(by_id);
        if found.is_none() {
            let message = format!("no peer was ever called {}", complaint::word(to));
            self.refuse(
                client,
                id,
                ErrorCode::NoPeer,
                message.into(),
                "atonce peers --all lists everyone known",
            );
        }
        found
    }

    fn listen(&mut self, client: ClientId, id: Option<RequestId>, topic: Topic) {
        let Some(known) = self.clients.get_mut(client) else { return };
        let full = known.topics.len() >= limits::TOPICS_PER_CLIENT && !known.topics.contains(&topic);
        if full || !self.topics.has_room(&topic) {
            let (count, whose) =
                if full { (limits::TOPICS_PER_CLIENT, "app") } else { (limits::TOPICS_PER_NODE, "node") };
            let message = format!("one {whose} listens to at most {count} topics");
            self.refuse(client, id, ErrorCode::Limit, message.into(), "unlisten to some first");
            return;
        }
        known.topics.insert(topic.clone());
        if self.topics.listen(&topic, client) {
            self.topics_changed();
        }
        self.ok(client, id);
    }

    fn unlisten(&mut self, client: ClientId, id: Option<RequestId>, topic: &Topic) {
        let Some(known) = self.clients.get_mut(client) else { return };
        if known.topics.remove(topic) && self.topics.unlisten(topic, client) {
            self.topics_changed();
        }
        self.ok(client, id);
    }

    fn send(&mut self, client: ClientId, id: Option<RequestId>, to: &str, message: &Outgoing<'_>) {
        let Some(peer) = self.resolve(client, id, to) else { return };
        let sender = Sender { client, id, publication: None };
        let payload = message.payload.as_bytes();
        let topic = message.topic.as_str();
        if payload.len() > limits::PAYLOAD_BYTES {
            return self.end_send(sender, peer, Outcome::TooBig, None);
        }
        if peer == self.id {
            let outcome = self.deliver_here(topic, payload, None);
            return self.end_send(sender, peer, outcome, Some(std::time::Duration::ZERO));
        }
        // Owed before it is dispatched: it may be paid before that returns.
        self.owe(client, payload.len());
        if let Some(outcome) = self.dispatch(peer, self.letter(message), sender) {
            self.report(sender, peer, outcome, None, payload.len());
        }
    }

    fn publish(&mut self, client: ClientId, id: Option<RequestId>, message: &Outgoing<'_>) {
        let payload = message.payload.as_bytes();
        let topic = message.topic.as_str();
        let too_big = payload.len() > limits::PAYLOAD_BYTES;
        if too_big {
            let message =
                format!("a message has at most {} bytes, this one {}", limits::PAYLOAD_BYTES, payload.len());
            return self.refuse(client, id, ErrorCode::BadRequest, message.into(), "send it in pieces");
        }
        self.deliver_here(topic, payload, Some(client));
        let listening =
            |peer: &crate::core::peers::Peer| peer.is_online() && peer.topics.number(topic).is_some();
        let mut to = std::mem::take(&mut self.recipients);
        to.extend(self.peers.iter().filter(|(_, peer)| listening(peer)).map(|(id, _)| *id));
        let sent = to.len() as u64;
        let sender = if message.ack {
            let publication = Publication { client, id, bytes: payload.len(), sent, outcomes: Vec::new() };
            self.begin_publication(publication)
        } else {
            self.result(client, id, Ending::Publish { sent, outcomes: None, replies: None });
            Sender { client, id: None, publication: None }
        };
        let letter = self.letter(message);
        for peer in to.drain(..) {
            if !message.ack {
                self.owe(client, payload.len());
            }
            if let Some(outcome) = self.dispatch(peer, letter, sender) {
                self.report(sender, peer, outcome, None, payload.len());
            }
        }
        self.recipients = to;
    }

    fn begin_publication(&mut self, publication: Publication) -> Sender {
        let Publication { client, id, .. } = publication;
        let number = self.next_publication;
        if publication.sent == 0 {
            self.end_publication(publication);
        } else {
            self.next_publication += 1;
            self.owe(client, publication.bytes);
            self.publications.insert(number, publication);
        }
        Sender { client, id, publication: Some(number) }
    }

    fn letter<'a>(&self, message: &'a Outgoing<'_>) -> Letter<'a> {
        Letter {
            topic: message.topic.as_str(),
            payload: message.payload.as_bytes(),
            tracked: message.ack,
            deadline: self.now + message.timeout,
            may_wait: message.when_full == WhenFull::Wait,
        }
    }

    fn owe(&mut self, client: ClientId, bytes: usize) {
        if let Some(known) = self.clients.get_mut(client) {
            known.owe(bytes);
        }
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
        let Some(number) = sender.publication else {
            if let Some(known) = self.clients.get_mut(sender.client) {
                known.paid(bytes);
            }
            return self.end_send(sender, peer, outcome, took);
        };
        let Some(publication) = self.publications.get_mut(&number) else { return };
        publication.outcomes.push((peer, outcome));
        if publication.outcomes.len() as u64 >= publication.sent
            && let Some(publication) = self.publications.remove(&number)
        {
            if let Some(known) = self.clients.get_mut(sender.client) {
                known.paid(publication.bytes);
            }
            self.end_publication(publication);
        }
    }

    fn end_publication(&mut self, publication: Publication) {
        let Publication { client, id, sent, mut outcomes, .. } = publication;
        outcomes.sort_by_key(|(_, outcome)| *outcome == Outcome::Delivered);
        outcomes.truncate(OUTCOMES_NAMED);
        let named: Vec<_> = outcomes
            .into_iter()
            .map(|(peer, outcome)| {
                let name = self.peers.get(&peer).map_or_else(|| peer.short(), |peer| peer.name.to_string());
                PeerOutcome { peer: PeerRef { name: name.into(), id: peer }, outcome }
            })
            .collect();
        self.result(client, id, Ending::Publish { sent, outcomes: Some(named), replies: None });
    }

    fn end_send(
        &mut self,
        sender: Sender,
        peer: NodeId,
        outcome: Outcome,
        took: Option<std::time::Duration>,
    ) {
        let Self { clients, peers, config, links, .. } = self;
        let (Some(known), Some(_)) = (clients.get_mut(sender.client), sender.id) else { return };
        let (name, path) = match peers.get(&peer) {
            Some(peer) => (peer.name.as_str(), peer.path.map(|path| links.kind(path.remote.ip()))),
            None => (config.name.as_str(), Some(PathKind::Local)),
        };
        let ending = Ending::Send {
            outcome,
            peer: PeerRef { name: name.into(), id: peer },
            path,
            rtt_us: took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            replies: None,
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
        let admin = self.clients.get(client).is_some_and(|known| known.admin);
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

    /// Delivers a message of an app of this node to those that listen here, but not to its own connection when it was
    /// published.
    fn deliver_here(&mut self, topic: &str, payload: &[u8], publisher: Option<ClientId>) -> Outcome {
        let number = self.topics.number(topic);
        let Some(number) = number else { return Outcome::NoListener };
        match self.hand_over(number, self.id, PathKind::Local, payload, true, publisher) {
            Fate::Delivered => Outcome::Delivered,
            Fate::NoListener => Outcome::NoListener,
            Fate::Busy => Outcome::Busy,
        }
    }

    /// Delivers a message of a peer.
    pub(crate) fn deliver(
        &mut self,
        from: NodeId,
        via: Route,
        topic: TopicNumber,
        payload: &[u8],
        tracked: bool,
    ) -> Fate {
        let path = self.links.kind(via.remote.ip());
        self.hand_over(topic, from, path, payload, tracked, None)
    }

    fn hand_over(
        &mut self,
        topic: TopicNumber,
        from: NodeId,
        path: PathKind,
        payload: &[u8],
        tracked: bool,
        except: Option<ClientId>,
    ) -> Fate {
        let Some((topic, listeners)) = self.topics.numbered(topic) else { return Fate::NoListener };
        let name = self.peers.get(&from).map_or(&self.config.name, |peer| &peer.name);
        self.clock.write(self.now, &mut self.clock_text);
        let text = std::str::from_utf8(payload).ok();
        let data = match text {
            Some(_) => None,
            None => Some(BASE64.encode(payload)),
        };
        let event = Event::Message {
            from: PeerRef { name: name.as_str().into(), id: from },
            topic: topic.as_str().into(),
            text: text.map(Into::into),
            data: data.as_deref().map(Into::into),
            path,
            at: self.clock_text.as_str().into(),
            reply_to: None,
        };
        let (mut taken, mut full) = (false, 0);
        for client in listeners.iter().filter(|client| Some(**client) != except) {
            let Some(known) = self.clients.get_mut(*client) else { continue };
            if known.tell_message(&event) {
                taken = true;
                self.touched.push(*client);
            } else {
                full += 1;
            }
        }
        // Refused to its sender it is not lost; otherwise those that had no room are told.
        if full > 0 && (taken || !tracked) {
            for client in listeners.iter().filter(|client| Some(**client) != except) {
                if let Some(known) = self.clients.get_mut(*client)
                    && !self.touched.contains(client)
                {
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
