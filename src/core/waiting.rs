//! What waits for somebody who is not known yet, but may come: names that nobody has, and messages to listeners on this
//! node.
//!
//! Apps come back to a restarted daemon before it has met its peers, and before one another. So until
//! [`limits::LISTENER_GRACE`] is over, or the deadline, nobody is told that there is nobody: what was asked waits here, and
//! counts as unanswered for its app, so it is bounded with all that the app has no answer to. Messages to a peer that is
//! known wait in `delivery`.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::core::Node;
use crate::core::letters::{Patience, Sender};
use crate::core::requests::Audience;
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, RequestId, Topic};
use crate::limits::{self, LISTENER_GRACE};
use crate::time::Instant;
use crate::wire::local::{Outcome, Outgoing, Payload, ReplyTo, Subject, Text, WhenFull, WhenNoListener};
use crate::wire::message::Fate;

/// All of it, in the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    errands: VecDeque<Errand>,
}

/// What an app asked.
#[derive(Debug)]
struct Errand {
    client: ClientId,
    id: Option<RequestId>,
    /// When its app is told that nobody is there.
    due: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Send {
        to: String,
        topic: Topic,
        replies: Option<NonZeroU32>,
        message: Kept,
    },
    Reply {
        reply_to: ReplyTo,
        message: Kept,
    },
    Ping {
        to: String,
        series: (u32, Duration, Duration),
    },
    /// A message to those who listen on this node.
    Here {
        sender: Sender,
        topic: Topic,
        payload: Vec<u8>,
        tracked: bool,
    },
    /// The list of peers.
    Peers,
}

/// A message as its app gave it.
#[derive(Debug)]
struct Kept {
    payload: Vec<u8>,
    ack: bool,
    deadline: Instant,
    when_full: WhenFull,
    when_no_listener: WhenNoListener,
}

impl Kept {
    fn of(message: &Outgoing<'_>, now: Instant) -> Self {
        Self {
            payload: message.payload.as_bytes().to_vec(),
            ack: message.ack,
            deadline: now + message.timeout,
            when_full: message.when_full,
            when_no_listener: message.when_no_listener,
        }
    }

    /// With the time that is left to it.
    fn outgoing(&self, now: Instant) -> Outgoing<'_> {
        Outgoing {
            payload: Payload::Raw(&self.payload),
            ack: self.ack,
            timeout: self.deadline.since(now),
            when_full: self.when_full,
            when_no_listener: self.when_no_listener,
        }
    }
}

impl Errand {
    /// Bytes for which it counts.
    fn bytes(&self) -> usize {
        match &self.what {
            What::Send { message, .. } | What::Reply { message, .. } => message.payload.len(),
            // With replies the request counts for it.
            What::Here { payload, .. } => payload.len(),
            What::Ping { .. } | What::Peers => 0,
        }
    }

    /// Whether it counts for its app by itself.
    const fn is_owed(&self) -> bool {
        !matches!(self.what, What::Here { sender: Sender { ask: Some(_), .. }, .. })
    }
}

impl Waiting {
    /// When the first of it is due.
    fn next(&self) -> Option<Instant> {
        self.errands.iter().map(|errand| errand.due).min()
    }

    /// An app went away: nobody waits for what it asked.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.errands.retain(|errand| errand.client != client);
    }

    pub(crate) fn len(&self) -> usize {
        self.errands.len()
    }

    /// Takes the first one for which `which` says so.
    fn take(&mut self, which: impl Fn(&Errand) -> bool) -> Option<Errand> {
        let at = self.errands.iter().position(which)?;
        self.errands.remove(at)
    }
}

impl Node {
    /// Whether this daemon has just started, and does not know yet whom it will meet.
    pub(crate) fn is_young(&self) -> bool {
        self.now < self.started + LISTENER_GRACE
    }

    /// Until when somebody called `to` may be expected, though nobody is known to be; none: nobody is.
    fn expected_until(&self, to: &str, deadline: Instant) -> Option<Instant> {
        if to.is_empty() || to.len() > limits::NAME_BYTES {
            return None;
        }
        let young = self.started + LISTENER_GRACE;
        let until = if to.parse::<NodeId>().is_ok_and(|id| self.is_heard_of(&id)) {
            deadline
        } else if self.is_young() {
            young
        } else if self.prospects.has_newcomer(|id| self.peers.is_known(id)) {
            self.now + LISTENER_GRACE
        } else {
            return None;
        };
        Some(until.min(deadline))
    }

    /// Whether somebody with that id is said to be there, who has not proved it yet.
    fn is_heard_of(&self, id: &NodeId) -> bool {
        self.prospects.has_hint_of(id) || self.may_meet(id)
    }

    fn wait(&mut self, client: ClientId, id: Option<RequestId>, due: Instant, what: What) {
        let errand = Errand { client, id, due, what };
        if errand.is_owed() {
            self.owe(client, errand.bytes());
        }
        self.waiting.errands.push_back(errand);
        self.timers.set_sooner(Timer::Waiting, due);
    }

    /// A message to a name or id that nobody has.
    pub(crate) fn send_when_known(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        to: &str,
        subject: &Subject<'_>,
        message: &Outgoing<'_>,
    ) {
        let until = self.expected_until(to, self.now + message.timeout);
        let until = until.filter(|_| message.when_full == WhenFull::Wait);
        let (Some(due), Ok(topic)) = (until, subject.topic.as_str().parse()) else {
            return self.refuse_unknown(client, id, to);
        };
        let message = Kept::of(message, self.now);
        let what = What::Send { to: to.to_owned(), topic, replies: subject.replies, message };
        self.wait(client, id, due, what);
        self.look_for(to);
    }

    /// A reply to a node that was never heard of.
    pub(crate) fn reply_when_known(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        reply_to: ReplyTo,
        message: &Outgoing<'_>,
    ) {
        let to = reply_to.node.to_string();
        let until = self.expected_until(&to, self.now + message.timeout);
        let Some(due) = until.filter(|_| message.when_full == WhenFull::Wait) else {
            return self.refuse_reply(client, id, reply_to.node);
        };
        let message = Kept::of(message, self.now);
        self.wait(client, id, due, What::Reply { reply_to, message });
        self.look_for(&to);
    }

    /// Pings to a name or id that nobody has: how many, how far apart, and how long each is waited for.
    pub(crate) fn ping_when_known(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        to: &str,
        series: (u32, Duration, Duration),
    ) {
        let Some(due) = self.expected_until(to, self.now + series.2) else {
            return self.refuse_unknown(client, id, to);
        };
        self.wait(client, id, due, What::Ping { to: to.to_owned(), series });
        self.look_for(to);
    }

    /// The list of peers, when this node has looked around for the first time.
    pub(crate) fn list_when_settled(&mut self, client: ClientId, id: Option<RequestId>) {
        self.wait(client, id, self.started + LISTENER_GRACE, What::Peers);
    }

    fn look_for(&mut self, to: &str) {
        if let Ok(id) = to.parse::<NodeId>()
            && self.may_meet(&id)
        {
            self.seek(id, None, None);
        }
    }

    /// A message to those who listen here, of whom there are none. Says whether it waits for one.
    pub(crate) fn keep_here(
        &mut self,
        sender: Sender,
        topic: &str,
        payload: &[u8],
        tracked: bool,
        patience: Patience,
        deadline: Instant,
    ) -> bool {
        let due = match patience {
            Patience::None => return false,
            Patience::Grace => self.own_settles(topic).min(deadline),
            Patience::Deadline => deadline,
        };
        let Ok(topic) = topic.parse() else { return false };
        if due <= self.now {
            return false;
        }
        let what = What::Here { sender, topic, payload: payload.to_vec(), tracked };
        self.wait(sender.client, sender.id, due, what);
        true
    }

    /// Tells an app what became of its message to this node.
    pub(crate) fn end_here(&mut self, sender: Sender, fate: Fate) {
        let took = Some(Duration::ZERO);
        match sender.ask {
            Some(token) => self.ask_reported(token, self.id, fate.into(), took),
            None => self.end_send(sender, self.id, fate.into(), took, None),
        }
    }

    /// An app of this node listens to `topic` now.
    pub(crate) fn listener_came(&mut self, client: ClientId, topic: &Topic) {
        self.publish_late_here(client, topic);
        let is_for =
            |errand: &Errand| matches!(&errand.what, What::Here { topic: awaited, .. } if awaited == topic);
        while let Some(errand) = self.waiting.take(is_for) {
            self.pay_errand(&errand);
            let What::Here { sender, payload, tracked, .. } = errand.what else { return };
            let fate = self.deliver_here(topic.as_str(), &payload, tracked, Audience::All, sender.ask);
            self.end_here(sender, fate);
        }
    }

    /// Somebody was met, or is called otherwise: does what was asked of such a one.
    pub(crate) fn names_changed(&mut self) {
        let mut at = 0;
        while let Some(errand) = self.waiting.errands.get(at) {
            let is_known = match &errand.what {
                What::Send { to, .. } | What::Ping { to, .. } => self.find(to).is_some(),
                What::Reply { reply_to, .. } => self.peers.is_known(&reply_to.node),
                What::Here { .. } | What::Peers => false,
            };
            if !is_known {
                at += 1;
                continue;
            }
            if let Some(errand) = self.waiting.errands.remove(at) {
                self.run_errand(errand);
            }
        }
    }

    fn pay_errand(&mut self, errand: &Errand) {
        if errand.is_owed() {
            self.pay(errand.client, errand.bytes());
        }
    }

    fn run_errand(&mut self, errand: Errand) {
        self.pay_errand(&errand);
        let (client, id, now) = (errand.client, errand.id, self.now);
        match errand.what {
            What::Send { to, topic, replies, message } => {
                let Some(peer) = self.find(&to) else { return self.refuse_unknown(client, id, &to) };
                let subject = Subject { topic: Text(topic.as_str().into()), replies };
                self.send_to(client, id, peer, &subject, &message.outgoing(now));
            }
            What::Reply { reply_to, message } => self.reply(client, id, reply_to, &message.outgoing(now)),
            What::Ping { to, series: (count, interval, timeout) } => match self.find(&to) {
                Some(peer) => self.start_ping(client, id, peer, count, interval, timeout),
                None => self.refuse_unknown(client, id, &to),
            },
            What::Here { sender, .. } => self.end_here(sender, Fate::NoListener),
            What::Peers => self.list_peers(client, id),
        }
        self.tell_output(client);
    }

    /// Ends what has waited for long enough: nobody came.
    pub(crate) fn on_waiting_timer(&mut self) {
        self.close_publications();
        while let Some(errand) = self.waiting.take(|errand| errand.due <= self.now) {
            self.give_errand_up(errand);
        }
        let next = self.waiting.next().into_iter().chain(self.open_publications.next()).min();
        if let Some(next) = next {
            self.timers.set(Timer::Waiting, next);
        }
    }

    fn give_errand_up(&mut self, errand: Errand) {
        let (client, id) = (errand.client, errand.id);
        // Who is said to be there and did not come is not unknown.
        let heard_of = |to: &str| to.parse::<NodeId>().ok().filter(|id| self.is_heard_of(id));
        match &errand.what {
            What::Send { to, replies, .. } => {
                let unreached = heard_of(to);
                self.pay_errand(&errand);
                match unreached {
                    Some(peer) => {
                        let sender = Sender { client, id, publication: None, ask: None };
                        self.end_send(sender, peer, Outcome::Unreachable, None, replies.map(|_| 0));
                    }
                    None => self.refuse_unknown(client, id, to),
                }
            }
            What::Reply { reply_to, .. } => {
                self.pay_errand(&errand);
                self.refuse_reply(client, id, reply_to.node);
            }
            What::Ping { to, .. } => {
                self.pay_errand(&errand);
                self.refuse_unknown(client, id, to);
            }
            What::Here { .. } | What::Peers => return self.run_errand(errand),
        }
        self.tell_output(client);
    }
}
