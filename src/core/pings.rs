//! The `ping` of apps: questions to a peer on its path, one after the other, and how long each answer took.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::Node;
use crate::core::api::Route;
use crate::core::timers::Timer;
use crate::id::{ClientId, NodeId, RequestId};
use crate::limits;
use crate::time::Instant;
use crate::wire::local::{Ending, ErrorCode, Event, Outcome, PathKind, PeerRef, RoundTrips};
use crate::wire::message::Record;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    by_number: BTreeMap<(ClientId, u64), Series>,
    last_number: u64,
}

/// The questions of one request.
#[derive(Debug)]
struct Series {
    id: Option<RequestId>,
    peer: NodeId,
    count: u32,
    interval: Duration,
    timeout: Duration,
    asked: u32,
    /// The question that is not answered yet.
    open: Option<Open>,
    next: Instant,
    answered: u64,
    took: Vec<Duration>,
}

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    began: Instant,
    /// The token that it was sent with last, and when it was sent first; none until it could be.
    sent: Option<(u64, Instant)>,
}

impl Series {
    fn answered(&mut self, took: Duration) {
        self.answered += 1;
        if self.took.len() < SAMPLES {
            self.took.push(took);
        }
    }
}

/// Round trips kept for the median; longer series keep the first ones.
const SAMPLES: usize = 10_000;
/// How often an unanswered question is sent again: one lost datagram is no lost peer.
const AGAIN: Duration = Duration::from_millis(250);

impl Pings {
    /// Whose series ask `peer`.
    pub(crate) fn of_peer(&self, peer: &NodeId) -> Vec<(ClientId, u64)> {
        let of_peer = self.by_number.iter().filter(|(_, series)| series.peer == *peer);
        of_peer.map(|(number, _)| *number).collect()
    }

    /// Whether an app waits for an answer of `peer`.
    pub(crate) fn await_peer(&self, peer: &NodeId) -> bool {
        self.by_number.values().any(|series| series.peer == *peer)
    }

    /// The series of one app.
    fn of(&self, client: ClientId) -> impl Iterator<Item = (ClientId, u64)> {
        self.by_number.range((client, 0)..=(client, u64::MAX)).map(|(key, _)| *key)
    }
}

impl Node {
    pub(crate) fn start_ping(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        peer: NodeId,
        count: u32,
        interval: Duration,
        timeout: Duration,
    ) {
        self.mean(peer);
        if self.pings.of(client).count() >= limits::PINGS_PER_CLIENT {
            let message = format!("one app may run {} pings at once", limits::PINGS_PER_CLIENT);
            return self.refuse(client, id, ErrorCode::Limit, message.into(), "wait for the end of one");
        }
        self.pings.last_number += 1;
        let number = self.pings.last_number;
        let series = Series {
            id,
            peer,
            count,
            interval,
            timeout,
            asked: 0,
            open: None,
            next: self.now,
            answered: 0,
            took: Vec::new(),
        };
        self.pings.by_number.insert((client, number), series);
        if let Some(known) = self.clients.get_mut(client) {
            known.owe(0);
        }
        self.on_ping_timer(client, number);
    }

    pub(crate) fn on_ping_timer(&mut self, client: ClientId, number: u64) {
        let now = self.now;
        let Some(series) = self.pings.by_number.get_mut(&(client, number)) else { return };
        if let Some(open) = series.open {
            if now.since(open.began) < series.timeout {
                return self.send_ping(client, number);
            }
            series.open = None;
            let (id, seq) = (series.id, u64::from(series.asked));
            let online = self.peers.get(&series.peer).is_some_and(|peer| peer.is_online());
            let error = Some(if online { Outcome::Timeout } else { Outcome::Unreachable });
            self.tell_pong(
                client,
                Event::Pong { id, peer: None, seq, rtt_us: None, path: None, addr: None, error },
            );
        }
        let Some(series) = self.pings.by_number.get_mut(&(client, number)) else { return };
        if series.asked >= series.count {
            return self.end_ping(client, number);
        }
        // Who does not read the answers is not asked more questions.
        let reads = self.clients.has_room_for_state(client);
        if now < series.next || !reads {
            let next = series.next.max(if reads { now } else { now + AGAIN });
            return self.timers.set(Timer::Ping(client, number), next);
        }
        series.asked += 1;
        series.open = Some(Open { began: now, sent: None });
        series.next = now + series.interval;
        self.send_ping(client, number);
    }

    fn send_ping(&mut self, client: ClientId, number: u64) {
        let now = self.now;
        let token = self.rng.next_u64();
        let own = self.id;
        let Some(series) = self.pings.by_number.get_mut(&(client, number)) else { return };
        let Some(open) = &mut series.open else { return };
        let (peer, deadline) = (series.peer, open.began + series.timeout);
        if peer == own {
            return self.on_own_ping(client, number);
        }
        if self.peers.get(&peer).is_some_and(|peer| peer.current.is_some()) {
            let first = open.sent.map_or(now, |(_, first)| first);
            open.sent = Some((token, first));
            let peers = self.acquaintances();
            self.tell(peer, &Record::Ping { token, peers });
        } else {
            self.seek(peer, None, None);
        }
        self.timers.set(Timer::Ping(client, number), deadline.min(now + AGAIN));
    }

    fn on_own_ping(&mut self, client: ClientId, number: u64) {
        let Some(series) = self.pings.by_number.get_mut(&(client, number)) else { return };
        series.open = None;
        series.answered(Duration::ZERO);
        let peer = Some(PeerRef { name: self.config.name.to_string().into(), id: self.id });
        let (id, seq, next) = (series.id, u64::from(series.asked), series.next);
        let path = Some(PathKind::Local);
        self.tell_pong(client, Event::Pong { id, peer, seq, rtt_us: Some(0), path, addr: None, error: None });
        self.after_pong(client, number, next);
    }

    /// The answer to a ping: of an app's, perhaps.
    pub(crate) fn on_ping_answer(&mut self, from: NodeId, via: Route, token: u64) {
        let now = self.now;
        let asked = |series: &Series| {
            series.peer == from && matches!(series.open, Some(Open { sent: Some((t, _)), .. }) if t == token)
        };
        let Some(((client, number), series)) =
            self.pings.by_number.iter_mut().find(|(_, series)| asked(series))
        else {
            return;
        };
        let (client, number) = (*client, *number);
        let Some(Open { sent: Some((_, sent)), .. }) = series.open.take() else { return };
        let took = now.since(sent);
        series.answered(took);
        let (id, seq, next) = (series.id, u64::from(series.asked), series.next);
        let name = self.peers.get(&from).map_or_else(|| from.short(), |peer| peer.name.to_string());
        let path = Some(self.links.kind(via.remote.ip()));
        let addr = Some(self.shown(via.remote));
        let peer = Some(PeerRef { name: name.into(), id: from });
        let rtt_us = Some(microseconds(took));
        self.tell_pong(client, Event::Pong { id, peer, seq, rtt_us, path, addr, error: None });
        self.after_pong(client, number, next);
    }

    fn after_pong(&mut self, client: ClientId, number: u64, next: Instant) {
        let Some(series) = self.pings.by_number.get(&(client, number)) else { return };
        if series.asked >= series.count {
            self.end_ping(client, number);
        } else {
            self.timers.set(Timer::Ping(client, number), next);
        }
    }

    fn tell_pong(&mut self, client: ClientId, event: Event<'_>) {
        if let Some(known) = self.clients.get_mut(client) {
            known.tell(&event);
        }
        self.tell_output(client);
    }

    pub(crate) fn end_ping(&mut self, client: ClientId, number: u64) {
        self.timers.clear(Timer::Ping(client, number));
        let Some(mut series) = self.pings.by_number.remove(&(client, number)) else { return };
        self.pay(client, 0);
        series.took.sort();
        let rtt_us = match series.took[..] {
            [] => None,
            [min, ..] => Some(RoundTrips {
                min: microseconds(min),
                p50: microseconds(series.took[series.took.len() / 2]),
                max: microseconds(series.took[series.took.len() - 1]),
            }),
        };
        let name = match self.peers.get(&series.peer) {
            Some(peer) => peer.name.to_string(),
            None => self.config.name.to_string(),
        };
        let peer = PeerRef { name: name.into(), id: series.peer };
        let (sent, received) = (u64::from(series.asked), series.answered);
        self.result(client, series.id, Ending::Ping { peer, sent, received, rtt_us });
    }

    pub(crate) fn forget_pings_of(&mut self, client: ClientId) {
        let numbers: Vec<_> = self.pings.of(client).collect();
        for (client, number) in numbers {
            self.pings.by_number.remove(&(client, number));
            self.timers.clear(Timer::Ping(client, number));
        }
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
