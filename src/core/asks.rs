//! Requests that wait for replies (socket.md, 3): who may reply, how many did, and when it ends.
//!
//! Each has a token drawn at random, which travels with the message. A reply names it, and counts if it comes from a
//! node to which the request went. A request ends once: with the last reply that it waits for, at its deadline, or when
//! nobody is left who could reply.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::core::Node;
use crate::core::encoder::{Incoming, Subject};
use crate::core::letters::{Address, Letter, Patience, Sender};
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, ReplyToken, RequestId};
use crate::limits;
use crate::time::Instant;
use crate::wire::local::{Ending, ErrorCode, Outcome, Outgoing, PathKind, ReplyTo};
use crate::wire::message::Fate;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    by_token: BTreeMap<ReplyToken, Ask>,
}

/// One request that waits.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) client: ClientId,
    pub(crate) id: RequestId,
    pub(crate) message: Message,
    /// Who may reply, by id.
    pub(crate) asked: Vec<NodeId>,
    /// Others may still be asked.
    pub(crate) open: bool,
    pub(crate) wanted: NonZeroU32,
    pub(crate) came: u32,
    pub(crate) accepted: Instant,
    pub(crate) deadline: Instant,
    /// For how much it counts among what its app has no answer to.
    pub(crate) bytes: usize,
}

/// The message that asks.
#[derive(Debug)]
pub(crate) enum Message {
    /// It was sent to one peer, and this became of it.
    Sent { peer: NodeId, outcome: Option<(Outcome, Option<Duration>)> },
    /// It was published to so many peers; the publication has the outcomes, if they are awaited.
    Published { sent: u64, publication: Option<u64> },
}

impl Asks {
    /// Whether a request with `token` waits for a reply of `node`.
    pub(crate) fn awaits(&self, token: ReplyToken, node: NodeId) -> bool {
        self.by_token.get(&token).is_some_and(|ask| ask.asked.binary_search(&node).is_ok())
    }
}

impl Node {
    /// A token that no request has.
    pub(crate) fn draw_token(&mut self) -> ReplyToken {
        loop {
            let token = ReplyToken(self.rng.next_u64());
            if !self.asks.by_token.contains_key(&token) {
                return token;
            }
        }
    }

    /// A request waits from now on; it ends at once if nobody was asked.
    pub(crate) fn begin_ask(&mut self, token: ReplyToken, mut ask: Ask) {
        ask.asked.sort();
        self.owe(ask.client, ask.bytes);
        self.timers.set(Timer::Ask(token), ask.deadline);
        let nobody = ask.asked.is_empty() && !ask.open;
        self.asks.by_token.insert(token, ask);
        if nobody {
            self.end_ask(token);
        }
    }

    /// What became of the message, or of its copy for `peer`.
    pub(crate) fn ask_reported(
        &mut self,
        token: ReplyToken,
        peer: NodeId,
        outcome: Outcome,
        took: Option<Duration>,
    ) {
        let Some(ask) = self.asks.by_token.get_mut(&token) else { return };
        if let Message::Sent { outcome: known, .. } = &mut ask.message {
            *known = Some((outcome, took));
        }
        // After a restart there its app may still have the message, and reply: so a `timeout` is no last word.
        if !matches!(outcome, Outcome::Delivered | Outcome::Sent | Outcome::Timeout) {
            if let Ok(at) = ask.asked.binary_search(&peer) {
                ask.asked.remove(at);
            }
            if ask.asked.is_empty() && !ask.open {
                self.end_ask(token);
            }
        }
    }

    /// A reply came. It counts if its sender was asked, and the request waits for more.
    pub(crate) fn on_reply(
        &mut self,
        from: NodeId,
        path: PathKind,
        token: ReplyToken,
        payload: &[u8],
        tracked: bool,
    ) -> Fate {
        let Some(ask) = self.asks.by_token.get_mut(&token) else { return Fate::NoListener };
        if ask.asked.binary_search(&from).is_err() {
            return Fate::NoListener;
        }
        let client = ask.client;
        if self.clients.get(client).is_none() {
            return Fate::NoListener;
        }
        let name = self.peers.get(&from).map_or(&self.config.name, |peer| &peer.name);
        let at = self.clock.since_1970(self.now);
        let incoming = Incoming { from, name, subject: Subject::ReplyTo(ask.id), path, at, payload };
        let Some(known) = self.clients.with_room(client) else {
            if let Some(known) = self.clients.get_mut(client).filter(|_| !tracked) {
                known.lose(payload.len());
            }
            return Fate::Busy;
        };
        let event = known.speaks_lines().then(|| incoming.event(&mut self.words));
        known.tell_message(&incoming, event.as_ref());
        ask.came += 1;
        if ask.came >= ask.wanted.get() {
            self.end_ask(token);
        }
        self.tell_output(client);
        Fate::Delivered
    }

    /// One more was asked.
    pub(crate) fn ask_also(&mut self, token: ReplyToken, peer: NodeId) {
        let Some(ask) = self.asks.by_token.get_mut(&token) else { return };
        if let Err(at) = ask.asked.binary_search(&peer) {
            ask.asked.insert(at, peer);
        }
        if let Message::Published { sent, .. } = &mut ask.message
            && peer != self.id
        {
            *sent += 1;
        }
    }

    /// Nobody else will be asked.
    pub(crate) fn close_ask(&mut self, token: ReplyToken) {
        let Some(ask) = self.asks.by_token.get_mut(&token) else { return };
        ask.open = false;
        if ask.asked.is_empty() {
            self.end_ask(token);
        }
    }

    pub(crate) fn on_ask_timer(&mut self, token: ReplyToken) {
        self.end_ask(token);
    }

    /// The request waits no more: its app has the result.
    fn end_ask(&mut self, token: ReplyToken) {
        let Some(ask) = self.asks.by_token.remove(&token) else { return };
        self.timers.clear(Timer::Ask(token));
        self.publish_no_more(token);
        let is_under_way = match ask.message {
            Message::Published { publication: Some(number), .. } => self.outlive_ask(number, ask.bytes),
            Message::Published { publication: None, .. } | Message::Sent { .. } => false,
        };
        if !is_under_way {
            self.pay(ask.client, ask.bytes);
        }
        let (client, id, replies) = (ask.client, Some(ask.id), Some(ask.came));
        match ask.message {
            Message::Sent { peer, outcome } => {
                let online = || self.peers.get(&peer).is_some_and(|peer| peer.is_online());
                let (outcome, took) = match outcome {
                    Some(known) => known,
                    // The reply overtook the word that the request was delivered.
                    None if ask.came > 0 => (Outcome::Delivered, Some(self.now.since(ask.accepted))),
                    None if online() => (Outcome::Timeout, None),
                    None => (Outcome::Unreachable, None),
                };
                let sender = Sender { client, id, publication: None, ask: None };
                self.end_send(sender, peer, outcome, took, replies);
            }
            Message::Published { sent, publication } => {
                let outcomes = publication.and_then(|number| self.outcomes_so_far(number));
                self.result(client, id, Ending::Publish { sent, outcomes, replies });
            }
        }
    }

    /// Nobody reads replies to what an app asked.
    pub(crate) fn end_asks_of(&mut self, client: ClientId) {
        let asks = self.asks.by_token.iter().filter(|(_, ask)| ask.client == client);
        for token in asks.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.end_ask(token);
        }
    }

    /// An app went away: nobody waits for the replies to what it asked.
    pub(crate) fn forget_asks_of(&mut self, client: ClientId) {
        let timers = &mut self.timers;
        self.asks.by_token.retain(|token, ask| {
            let stays = ask.client != client;
            if !stays {
                timers.clear(Timer::Ask(*token));
            }
            stays
        });
    }

    /// Tells an app that it replies to a node which was never heard of.
    pub(crate) fn refuse_reply(&mut self, client: ClientId, id: Option<RequestId>, node: NodeId) {
        let message = format!("no node with the id {node} was ever heard of");
        let hint = "hand reply_to back to the daemon that it came from";
        self.refuse(client, id, ErrorCode::NoPeer, message.into(), hint);
    }

    /// An app replies to a request.
    pub(crate) fn reply(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        reply_to: ReplyTo,
        message: &Outgoing<'_>,
    ) {
        let ReplyTo { node, token } = reply_to;
        if node != self.id && !self.peers.is_known(&node) {
            return self.reply_when_known(client, id, reply_to, message);
        }
        let sender = Sender { client, id, publication: None, ask: None };
        let payload = message.payload.as_bytes();
        if payload.len() > limits::PAYLOAD_BYTES {
            return self.end_send(sender, node, Outcome::TooBig, None, None);
        }
        if node == self.id {
            let fate = self.on_reply(node, PathKind::Local, token, payload, message.ack);
            return self.end_send(sender, node, fate.into(), Some(Duration::ZERO), None);
        }
        let letter = Letter {
            address: Address::Reply(token),
            payload,
            tracked: message.ack,
            deadline: self.now + message.timeout,
            patience: Patience::of(message),
        };
        self.owe(client, payload.len());
        if let Some(outcome) = self.dispatch(node, letter, sender) {
            self.report(sender, node, outcome, None, payload.len());
        }
    }
}
