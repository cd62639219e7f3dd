//! What a peer tells us in a session: each record to its noun.

use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Route;
use crate::core::arrivals::Numbered;
use crate::id::{Channel, NodeId, NodeName};
use crate::wire::message::{Heading, Place, Read, Record, Records};

/// Receipts that are read in one datagram.
const RECEIPTS: usize = 2;

/// Whether a record is a message, and whether its sender waits for an answer now.
const fn kind_of(record: &Record<'_>) -> (bool, bool) {
    match record {
        Record::Message { .. } => (true, false),
        Record::Tracked { .. } => (true, true),
        Record::Piece { place: Place::Tracked { .. }, size, at, bytes, .. } => {
            (true, *at as usize + bytes.len() == *size as usize)
        }
        Record::Piece { .. } => (true, false),
        Record::Ping { .. }
        | Record::Pong { .. }
        | Record::Goodbye
        | Record::About { .. }
        | Record::Peers { .. }
        | Record::Suspect { .. }
        | Record::Topics { .. }
        | Record::TopicsHave { .. }
        | Record::Outcome { .. }
        | Record::Relay { .. }
        | Record::Relayed { .. }
        | Record::Meet { .. }
        | Record::YouAre { .. }
        | Record::Received { .. } => (false, false),
    }
}

impl Node {
    /// The records of a packet whose tag was right.
    pub(crate) fn on_records(&mut self, from: NodeId, via: Route, plaintext: &[u8]) {
        let (mut asked, mut receipts) = (false, 0);
        // Whether it holds messages, and whether their sender waits for an answer.
        let (mut messages, mut urgent) = (false, false);
        for record in Records::new(plaintext) {
            match record {
                // A datagram full of questions from a forged address would be a weapon: only the first is answered.
                Ok(Read::Record(Record::Ping { .. })) if asked && !self.is_on_path(from, via) => {}
                // An honest peer tells of two sessions at most, and each costs a walk through all that is under way.
                Ok(Read::Record(Record::Received { .. })) if receipts >= RECEIPTS => self.odd_records += 1,
                Ok(Read::Record(record)) => {
                    receipts += usize::from(matches!(record, Record::Received { .. }));
                    asked |= matches!(record, Record::Ping { .. });
                    let (is_message, is_urgent) = kind_of(&record);
                    messages |= is_message;
                    urgent |= is_urgent;
                    self.on_record(from, via, record);
                }
                Ok(Read::Unknown) => self.odd_records += 1,
                Err(reason) => {
                    self.odd_records += 1;
                    debug!(peer = %from.short(), %reason, "unreadable record");
                    break;
                }
            }
        }
        if messages {
            self.owe_receipt(from, urgent);
        }
    }

    fn on_record(&mut self, from: NodeId, via: Route, record: Record<'_>) {
        match record {
            Record::Ping { token, peers } => {
                self.on_ping(from, via, token);
                self.rest(from);
                self.compare_acquaintances(from, peers);
            }
            Record::Pong { token, peers } => {
                if !self.is_mtu_answer(from, via, token) {
                    self.on_pong(from, via, token);
                }
                self.on_ping_answer(from, via, token);
                self.rest(from);
                self.compare_acquaintances(from, peers);
            }
            Record::Goodbye => self.on_goodbye(from),
            Record::About { name, peers, topics } => self.on_about(from, name, peers, topics),
            Record::Peers { entries } => self.on_introductions(from, via, &entries),
            Record::Suspect { peer } => self.on_verdict(from, peer),
            Record::Topics { since, upto, added, removed } => {
                self.on_topics(from, since, upto, &added, &removed)
            }
            Record::TopicsHave { upto, ask } => self.on_topics_have(from, upto, ask),
            Record::Message { topic, payload } => {
                self.on_message(from, via, Heading::Topic(topic), payload);
            }
            Record::Tracked { number, after, open, topic, payload } => {
                self.on_tracked(from, via, Numbered { number, after, open }, Heading::Topic(topic), payload);
            }
            Record::Piece { place, heading, size, at, bytes } => {
                self.on_piece(from, via, place, heading, (size, at), bytes);
            }
            Record::Received { session, upto, ago_us, runs } => {
                self.on_received(from, session, upto, Duration::from_micros(ago_us.into()), runs);
            }
            Record::Outcome { number, fate } => self.on_outcome(from, number, fate),
            Record::Relay { target } => self.on_relay(from, target),
            Record::Relayed { target, channel } => {
                let channel = Some(Channel(channel)).filter(|channel| channel.0 != 0 && !channel.parts().1);
                self.on_relayed_record(from, target, channel);
            }
            Record::Meet { introduction } => self.on_meet(from, introduction),
            Record::YouAre { addr } => self.on_you_are(from, addr),
        }
    }

    /// Answers on the way that the question came by.
    fn on_ping(&mut self, from: NodeId, via: Route, token: u64) {
        let answer = Record::Pong { token, peers: self.acquaintances() };
        if self.is_on_path(from, via) {
            self.tell(from, &answer);
        } else {
            self.tell_on(from, via, &answer);
        }
    }

    fn is_on_path(&self, from: NodeId, via: Route) -> bool {
        self.peers.get(&from).and_then(|peer| peer.path).is_some_and(|path| path.is_way_of(&via))
    }

    fn on_about(&mut self, from: NodeId, name: &str, peers: u64, topics: u64) {
        match name.parse::<NodeName>() {
            Ok(name) => {
                let now = self.now;
                let known = self.peers.get(&from).is_some_and(|peer| peer.name == name);
                // Whose a name is then is a look at all peers.
                if !known && !self.peers.get_mut(&from).is_none_or(|peer| peer.renames.take(now)) {
                    self.paced_records += 1;
                } else if !known {
                    self.peers.admit(from, Some(&name));
                    self.remember();
                    self.presence_changed(from);
                    self.names_changed();
                } else {
                    self.peers.admit(from, Some(&name));
                }
            }
            Err(_) => self.odd_records += 1,
        }
        self.compare_acquaintances(from, peers);
        self.follow_topics(from, topics);
    }
}
