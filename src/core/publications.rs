//! Messages to all who listen to a topic, and those that stay open for a while (socket.md, 3).
//!
//! A publication goes to those who listen when it is made. When it is not true yet that nobody else does, because this
//! daemon has just started, or because a listener has just gone whose outcome is awaited, it stays open: whoever is found
//! to listen until [`limits::LISTENER_GRACE`] is over gets a copy, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::core::Node;
use crate::core::asks::{Ask, Message};
use crate::core::letters::{Address, Letter, Patience, Sender};
use crate::core::requests::{Audience, COPY_BYTES, Publication};
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, ReplyToken, RequestId, Topic};
use crate::limits::{self, LISTENER_GRACE};
use crate::time::Instant;
use crate::wire::local::{Ending, ErrorCode, Outgoing, Subject};
use crate::wire::message::Fate;

/// Those that stay open, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct OpenPublications {
    by_number: BTreeMap<u64, Open>,
    last_number: u64,
}

#[derive(Debug)]
struct Open {
    sender: Sender,
    /// Of the request.
    id: Option<RequestId>,
    topic: Topic,
    payload: Arc<Vec<u8>>,
    tracked: bool,
    patience: Patience,
    deadline: Instant,
    until: Instant,
    /// Who has a copy: peers, and apps of this node.
    to: BTreeSet<NodeId>,
    here: BTreeSet<ClientId>,
}

impl Open {
    /// Its outcomes or replies are awaited, so it is worth waiting for one who may come back.
    const fn is_awaited(&self) -> bool {
        self.tracked || self.sender.ask.is_some()
    }

    /// Nobody else waits for its end than its app for the count.
    const fn is_plain(&self) -> bool {
        self.sender.publication.is_none() && self.sender.ask.is_none()
    }
}

impl OpenPublications {
    /// When the first of them is over.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_number.values().map(|open| open.until).min()
    }

    /// An app went away: nobody waits for what it had not sent yet.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.by_number.retain(|_, open| open.sender.client != client);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }
}

impl Node {
    pub(crate) fn publish(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        subject: &Subject<'_>,
        message: &Outgoing<'_>,
    ) {
        let payload = message.payload.as_bytes();
        let topic = subject.topic.as_str();
        if payload.len() > limits::PAYLOAD_BYTES {
            let message =
                format!("a message has at most {} bytes, this one {}", limits::PAYLOAD_BYTES, payload.len());
            return self.refuse(client, id, ErrorCode::BadRequest, message.into(), "send it in pieces");
        }
        let token = subject.replies.map(|_| self.draw_token());
        // Nobody is told what becomes of it here, so what finds no room is lost, and that is told there.
        let here = self.deliver_here(topic, payload, false, Audience::AllBut(client), token);
        let listening =
            |peer: &crate::core::peers::Peer| peer.is_online() && peer.topics.number(topic).is_some();
        let mut to = std::mem::take(&mut self.recipients);
        to.extend(self.peers.iter().filter(|(_, peer)| listening(peer)).map(|(id, _)| *id));
        let sent = to.len() as u64;
        let (accepted, deadline) = (self.now, self.now + message.timeout);
        let is_heard = sent > 0 || here != Fate::NoListener;
        let until = match Patience::of(message) {
            Patience::None => None,
            Patience::Deadline if !is_heard => Some(deadline),
            Patience::Deadline | Patience::Grace => {
                self.listeners_expected_until(topic, message.ack || token.is_some())
            }
        };
        let open = until.is_some();
        let mut sender = Sender { client, id: None, publication: None, ask: None };
        let outcomes_bytes = if message.ack { to.len() * COPY_BYTES } else { 0 };
        let bytes = payload.len() + outcomes_bytes;
        let publication = Publication { client, id, bytes, sent, outcomes: Vec::new(), open, told: false };
        if let (Some(wanted), Some(token), Some(id)) = (subject.replies, token, id) {
            let own = (here == Fate::Delivered).then_some(self.id);
            let asked: Vec<NodeId> = to.iter().copied().chain(own).collect();
            let number = message.ack.then(|| self.keep_publication(Publication { bytes: 0, ..publication }));
            let bytes = bytes + asked.len() * size_of::<NodeId>();
            let message = Message::Published { sent, publication: number };
            sender = Sender { publication: number, ask: Some(token), ..sender };
            let ask = Ask { client, id, message, asked, open, wanted, came: 0, accepted, deadline, bytes };
            self.begin_ask(token, ask);
        } else if message.ack && sent == 0 && !open {
            self.end_publication(publication);
        } else if message.ack {
            self.owe(client, bytes);
            sender.publication = Some(self.keep_publication(publication));
        } else if open {
            self.owe(client, payload.len());
        } else {
            self.result(client, id, Ending::Publish { sent, outcomes: None, replies: None });
        }
        self.published = Some(None);
        if let Some(until) = until {
            self.keep_open(subject, message, sender, id, until.min(deadline), &to);
        }
        let letter = self.letter(subject, message, sender.ask);
        for peer in to.drain(..) {
            if !message.ack {
                self.owe(client, payload.len());
            }
            if let Some(outcome) = self.dispatch(peer, letter, sender) {
                self.report(sender, peer, outcome, None, payload.len());
            }
        }
        self.published = None;
        self.recipients = to;
    }

    /// Until when somebody may be expected who listens to `topic` and is not known to yet; none: nobody is.
    fn listeners_expected_until(&self, topic: &str, is_awaited: bool) -> Option<Instant> {
        let young = self.started + LISTENER_GRACE;
        if !is_awaited {
            return (young > self.now).then_some(young);
        }
        let silent = |peer: &&crate::core::peers::Peer| {
            !(peer.forgotten || peer.is_online() && peer.topics.number(topic).is_some())
        };
        let peers = self.peers.iter().map(|(_, peer)| peer).filter(silent);
        let peers = peers.filter_map(|peer| peer.topics.expected_until(topic, peer.is_online()));
        let here = self.own_expected_until(topic);
        peers.chain(here).chain([young]).filter(|until| *until > self.now).max()
    }

    fn keep_open(
        &mut self,
        subject: &Subject<'_>,
        message: &Outgoing<'_>,
        sender: Sender,
        id: Option<RequestId>,
        until: Instant,
        to: &[NodeId],
    ) {
        let Ok(topic) = subject.topic.as_str().parse::<Topic>() else { return };
        let here = self.topics.listeners(&topic).cloned().unwrap_or_default();
        let open = Open {
            sender,
            id,
            topic,
            payload: self.copy_of(message.payload.as_bytes()),
            tracked: message.ack,
            patience: Patience::of(message),
            deadline: self.now + message.timeout,
            until,
            to: to.iter().copied().collect(),
            here,
        };
        self.open_publications.last_number += 1;
        let number = self.open_publications.last_number;
        self.open_publications.by_number.insert(number, open);
        self.timers.set_sooner(Timer::Waiting, until);
    }

    /// The list of `id` has changed: it gets the publications that are open and that it listens to now.
    pub(crate) fn publish_late(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.is_online()) else { return };
        let is_late =
            |open: &Open| !open.to.contains(&id) && peer.topics.number(open.topic.as_str()).is_some();
        let open = self.open_publications.by_number.iter();
        let late: Vec<u64> = open.filter(|(_, open)| is_late(open)).map(|(number, _)| *number).collect();
        for number in late {
            let Some(open) = self.open_publications.by_number.get_mut(&number) else { continue };
            open.to.insert(id);
            let (sender, topic, payload) = (open.sender, open.topic.clone(), Arc::clone(&open.payload));
            let (tracked, deadline, patience) = (open.tracked, open.deadline, open.patience);
            if let Some(publication) = sender.publication.and_then(|of| self.publications.get_mut(&of)) {
                publication.sent += 1;
            }
            if let Some(token) = sender.ask {
                self.ask_also(token, id);
            }
            if !tracked {
                self.owe(sender.client, payload.len());
            }
            let topic_name = topic.as_str();
            let address =
                sender.ask.map_or(Address::Topic(topic_name), |token| Address::Request(topic_name, token));
            let letter = Letter { address, payload: &payload, tracked, deadline, patience };
            self.published = Some(Some(Arc::clone(&payload)));
            if let Some(outcome) = self.dispatch(id, letter, sender) {
                self.report(sender, id, outcome, None, payload.len());
            }
            self.published = None;
            self.review_open(number);
        }
    }

    /// An app of this node listens to `topic` now: it gets the publications that are open.
    pub(crate) fn publish_late_here(&mut self, client: ClientId, topic: &Topic) {
        let is_late = |open: &Open| {
            open.topic == *topic && open.sender.client != client && !open.here.contains(&client)
        };
        let open = self.open_publications.by_number.iter();
        let late: Vec<u64> = open.filter(|(_, open)| is_late(open)).map(|(number, _)| *number).collect();
        for number in late {
            let Some(open) = self.open_publications.by_number.get_mut(&number) else { continue };
            open.here.insert(client);
            let (token, payload) = (open.sender.ask, Arc::clone(&open.payload));
            let fate = self.deliver_here(topic.as_str(), &payload, false, Audience::Only(client), token);
            if let (Some(token), Fate::Delivered) = (token, fate) {
                self.ask_also(token, self.id);
            }
            self.review_open(number);
        }
    }

    /// It went to somebody: it waits for the others who may be expected, and no longer.
    fn review_open(&mut self, number: u64) {
        let Some(open) = self.open_publications.by_number.get(&number) else { return };
        let expected = self.listeners_expected_until(open.topic.as_str(), open.is_awaited());
        let Some(open) = self.open_publications.by_number.get_mut(&number) else { return };
        match expected {
            Some(until) => open.until = until.min(open.deadline),
            None => self.close_publication(number),
        }
    }

    /// Ends those that are over.
    pub(crate) fn close_publications(&mut self) {
        let over = |open: &&Open| open.until <= self.now;
        let open = self.open_publications.by_number.iter();
        let over: Vec<u64> = open.filter(|(_, open)| over(open)).map(|(number, _)| *number).collect();
        for number in over {
            self.close_publication(number);
        }
    }

    /// Nobody else gets a copy. Its app has the result, unless outcomes or replies are awaited.
    fn close_publication(&mut self, number: u64) {
        let Some(open) = self.open_publications.by_number.remove(&number) else { return };
        let client = open.sender.client;
        if open.is_plain() {
            self.pay(client, open.payload.len());
            let sent = open.to.len() as u64;
            return self.result(client, open.id, Ending::Publish { sent, outcomes: None, replies: None });
        }
        self.seal(open.sender);
        if let Some(token) = open.sender.ask {
            self.close_ask(token);
        }
    }

    /// No copies are added to the publication of `sender`; it ends if all that it has have their outcomes.
    fn seal(&mut self, sender: Sender) {
        let Some(number) = sender.publication else { return };
        let Some(publication) = self.publications.get_mut(&number) else { return };
        publication.open = false;
        let complete = publication.outcomes.len() as u64 >= publication.sent;
        if !complete || sender.ask.is_some() && !publication.told {
            return;
        }
        let Some(publication) = self.publications.remove(&number) else { return };
        self.pay(sender.client, publication.bytes);
        if !publication.told {
            self.end_publication(publication);
        }
    }

    /// The request that a publication was has ended.
    pub(crate) fn publish_no_more(&mut self, token: ReplyToken) {
        let of_token = |open: &Open| open.sender.ask == Some(token);
        let open = &mut self.open_publications.by_number;
        let Some(number) = open.iter().find(|(_, open)| of_token(open)).map(|(number, _)| *number) else {
            return;
        };
        if let Some(open) = open.remove(&number) {
            self.seal(open.sender);
        }
    }
}
