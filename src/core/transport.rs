//! Packets with messages to and from one peer: when they leave, which of them came, and how large they may be
//! (protocol.md, 5.6 and 5.7).
//!
//! The figures stand in `flight`, `receipts` and `path_mtu`; here they meet the session, the path and the clock.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Destination, Route};
use crate::core::flight::Receipt;
use crate::core::outbox::{Outbox, Train, Way};
use crate::core::path_mtu::Sizes;
use crate::core::peers::Peer;
use crate::core::relays::is_relayed;
use crate::core::timers::Timer;
use crate::id::{NodeId, SessionIndex};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::{self, Record};
use crate::wire::packet::size;

/// No link of IP takes less (RFC 791).
const LEAST_MTU: u32 = 68;
/// A path on which something came this recently is not dead.
const ALIVE: Duration = Duration::from_secs(1);

impl Peer {
    /// The train of datagrams that is being filled, and what it needs to leave; none without a session.
    pub(crate) fn train<'a>(
        &'a mut self,
        outbox: &'a mut Outbox,
        now: Instant,
    ) -> Option<(&'a mut Train, Way<'a>)> {
        let (route, current) = (self.path?, self.current.as_mut()?);
        let way = Way {
            session: &mut current.session,
            route,
            outbox,
            backlog: self.delivery.has_backlog() || self.flight.has_losses(),
            flight: &mut self.flight,
            datagram_bytes: self.datagram_bytes,
            now,
        };
        Some((&mut self.train, way))
    }
}

impl Node {
    /// Tells `id` something that is not held to the pace of its path. Says whether there is a session.
    pub(crate) fn tell(&mut self, id: NodeId, record: &Record<'_>) -> bool {
        self.write(id, record, false)
    }

    /// Tells `id` a message, or a piece of one: it counts as under way until the peer says that it came.
    pub(crate) fn tell_message(&mut self, id: NodeId, record: &Record<'_>) -> bool {
        self.write(id, record, true)
    }

    fn write(&mut self, id: NodeId, record: &Record<'_>, counted: bool) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let begins = peer.train.is_empty();
        let Some((train, mut way)) = peer.train(&mut self.outbox, self.now) else { return false };
        if begins {
            self.unsent.push_back(id);
        }
        let told = train.push(record, counted, &mut way);
        if told.is_err() {
            self.lose(id, "session exhausted");
        }
        told.is_ok()
    }

    /// Bytes for a record to `id` in the datagram that is being filled, or in a new one if there are less than `wanted`.
    pub(crate) fn room(&mut self, id: NodeId, wanted: usize) -> usize {
        let Some(peer) = self.peers.get_mut(&id) else { return wanted };
        let usual = peer.datagram_bytes - size::DATA_OVERHEAD;
        peer.train(&mut self.outbox, self.now).map_or(usual, |(train, way)| train.room(wanted, &way))
    }

    /// Closes the datagrams that are being filled for `id`, with the receipts that it is owed.
    pub(crate) fn flush(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let now = self.now;
        let is_due = peer.receipts.is_due(now) || !peer.train.is_empty() && peer.receipts.is_owed();
        if is_due && peer.current.is_some() && peer.path.is_some() {
            let mut receipts = std::mem::take(&mut peer.receipts);
            receipts.tell(now, |record| {
                self.tell(id, record);
            });
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.receipts = receipts;
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.train.is_empty() {
            return;
        }
        let Some((train, mut way)) = peer.train(&mut self.outbox, now) else {
            peer.train.clear(&mut self.outbox, &mut peer.flight);
            return;
        };
        if train.flush(&mut way).is_err() {
            return self.lose(id, "session exhausted");
        }
        self.plan_flight(id);
    }

    /// A packet that came from `id` holds messages; `urgent`: their sender waits for an answer.
    pub(crate) fn owe_receipt(&mut self, id: NodeId, urgent: bool) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.receipts.owe(urgent, now);
        if peer.receipts.is_due(now) {
            if peer.train.is_empty() && !peer.receipts.queued {
                peer.receipts.queued = true;
                self.unsent.push_back(id);
            }
        } else if let Some(at) = peer.receipts.deadline()
            && !self.timers.is_set(Timer::Receipt(id))
        {
            self.timers.set(Timer::Receipt(id), at);
        }
    }

    pub(crate) fn on_receipt_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.receipts.is_due(now) {
            self.flush(id);
        } else if let Some(at) = peer.receipts.deadline() {
            self.timers.set(Timer::Receipt(id), at);
        }
    }

    /// The peer says which of our packets came.
    pub(crate) fn on_received(&mut self, id: NodeId, session: u32, upto: u64, ago: Duration, runs: &[u8]) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let receipt = Receipt { session: SessionIndex::from_bits(session), upto, ago, runs };
        let Peer { flight, delivery, round_trip, .. } = peer;
        flight
            .on_receipt(receipt, round_trip, now, |content| delivery.arrived(content.number, content.bytes));
        self.mind_hole(id);
        self.resume_delivery(id);
    }

    /// Sees to it that the next packet leaves when it may, and that what is lost is noticed.
    pub(crate) fn plan_flight(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let waits = peer.delivery.has_backlog() || peer.flight.has_losses();
        let opens = waits.then(|| peer.flight.opens_at(now)).flatten();
        if let Some(opens) = opens {
            self.timers.set_sooner(Timer::Flight(id), opens);
        } else if !self.timers.is_set(Timer::Flight(id))
            && let Some(deadline) = peer.flight.deadline(&peer.round_trip)
        {
            self.timers.set(Timer::Flight(id), deadline);
        }
    }

    pub(crate) fn on_flight_timer(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.flight.on_timer(&peer.round_trip, now) {
            self.doubt(id);
            self.mind_hole(id);
        }
        self.resume_delivery(id);
        let Some(peer) = self.peers.get(&id) else { return };
        if let Some(deadline) = peer.flight.deadline(&peer.round_trip) {
            self.timers.set_sooner(Timer::Flight(id), deadline);
        }
    }

    /// The path to `id` is another one: what is under way goes again, and nothing is known of the new one.
    pub(crate) fn path_changed(&mut self, id: NodeId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.flight.change_path(peer.datagram_bytes);
        self.timers.clear(Timer::Flight(id));
        self.resume_delivery(id);
    }

    /// Nothing is known of the path to `id` but what our own link takes.
    pub(crate) fn begin_mtu(&mut self, id: NodeId, route: Route) {
        let sizes = self.sizes(route);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.path_mtu = Default::default();
        peer.datagram_bytes = peer.path_mtu.datagram_bytes(sizes);
        peer.flight.begin_path(peer.datagram_bytes);
    }

    /// Our links are others: each path has datagrams of which its link takes as many bytes.
    pub(crate) fn follow_mtu(&mut self) {
        for id in self.peers.online() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.path_mtu.try_again();
            let (Some(route), before) = (peer.path, peer.datagram_bytes) else { continue };
            self.use_mtu(id, route);
            self.send_smaller(id, before);
        }
    }

    /// No packet of more than `mtu` bytes gets to `remote`.
    pub(crate) fn on_too_large(&mut self, remote: SocketAddr, mtu: u32, certain: bool) {
        if mtu < LEAST_MTU {
            // Old routers name no size: then it is found as where nobody says anything.
            return;
        }
        let there = |path: Route| {
            path.remote.ip() == remote.ip() && (remote.port() == 0 || remote.port() == path.remote.port())
        };
        let to: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some((*id, peer.path.filter(|path| there(*path))?)))
            .collect();
        for (id, route) in to {
            let (sizes, now) = (self.sizes(route), self.now);
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            let before = peer.datagram_bytes;
            if peer.path_mtu.on_too_large(sizes, mtu, certain, now) {
                self.use_mtu(id, route);
                self.send_smaller(id, before);
            }
        }
    }

    /// The datagrams of the path had `before` bytes: if they are smaller now, what is under way did not get through.
    fn send_smaller(&mut self, id: NodeId, before: usize) {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.datagram_bytes < before) else { return };
        peer.flight.change_path(peer.datagram_bytes);
        self.resume_delivery(id);
    }

    /// Asks whether the path to `id` carries larger datagrams, if that is to be asked.
    pub(crate) fn probe_mtu(&mut self, id: NodeId) {
        let now = self.now;
        let Some(route) = self.peers.get(&id).and_then(|peer| peer.path) else { return };
        let sizes = self.sizes(route);
        let token = self.rng.next_u64();
        let peers = self.acquaintances();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(bytes) = peer.path_mtu.probe(sizes, token, now) else { return };
        let Some(current) = peer.current.as_mut() else { return };
        let mut packet = self.outbox.buffer();
        packet.resize(size::DATA_HEADER, 0);
        let fits = message::push(&mut packet, bytes - size::DATA_OVERHEAD, &Record::Ping { token, peers });
        packet.resize(bytes - size::TAG, 0);
        if fits && current.session.seal(&mut packet, 0).is_ok() {
            self.outbox.push(Destination::One(route), &packet);
        }
        self.outbox.recycle(packet);
    }

    /// Whether the pong with `token` answers a probe of the path's datagrams; uses larger ones then.
    pub(crate) fn is_mtu_answer(&mut self, id: NodeId, via: Route, token: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        if !peer.path.is_some_and(|path| path.is_way_of(&via)) || !peer.path_mtu.on_pong(token) {
            return false;
        }
        self.use_mtu(id, via);
        // The next size, while there is something to send.
        self.probe_mtu(id);
        true
    }

    fn use_mtu(&mut self, id: NodeId, route: Route) {
        let sizes = self.sizes(route);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.datagram_bytes = peer.path_mtu.datagram_bytes(sizes);
        peer.flight.set_datagram(peer.datagram_bytes);
        debug!(peer = %id.short(), bytes = peer.datagram_bytes, "largest datagram of the path");
    }

    /// Goes back to smaller datagrams if the larger ones vanish.
    fn mind_hole(&mut self, id: NodeId) {
        let now = self.now;
        let Some(peer) = self.peers.get(&id) else { return };
        let (Some(route), before) = (peer.path, peer.datagram_bytes) else { return };
        // Datagrams of the usual size pass nearly everywhere: then rather the path is dead, unless something comes by it.
        let alive = before > limits::DATAGRAM_BYTES || now.since(peer.path_heard) < ALIVE;
        if before <= limits::SMALLEST_DATAGRAM_BYTES || !alive || !peer.flight.is_in_hole() {
            return;
        }
        let sizes = self.sizes(route);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.path_mtu.on_hole(sizes, now);
        self.use_mtu(id, route);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.flight.change_path(peer.datagram_bytes);
        }
    }

    fn sizes(&self, route: Route) -> Sizes {
        let remote = route.remote.ip().to_canonical();
        let link = self.links.of_link(route).and_then(|own| own.mtu);
        Sizes {
            on_link: self.links.on_link(remote),
            relayed: is_relayed(remote),
            ipv6: remote.is_ipv6(),
            link,
        }
    }
}
