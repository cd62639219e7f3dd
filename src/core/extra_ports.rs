//! Ports of ours beside the usual one, for address translators that the usual one does not get through
//! (rendezvous.md, 6.1).
//!
//! A translator may have spoilt our usual port for one destination, or give each destination another one. So a fresh port
//! is opened for a peer: a server says how it looks, we send to the peer from it, and tell the peer, who tries that port
//! and those near it. A translator that counts has given us the next one; one that keeps ports that very one.
//!
//! A session that was made by such a port stays on it. Ports that nothing needs any more are closed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Event, OwnPort, Route};
use crate::core::introductions::is_public;
use crate::core::paths::Source;
use crate::core::rendezvous::Family;
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::presence::{Candidate, CandidateKind, Flags};
use crate::wire::rendezvous::{FromNode, FromServer, Nonce};

/// With so many first messages a fresh port is tried: what the usual port can do is done by then.
const FRESH_AFTER: usize = 6;
/// Fresh ports at once. More members than that who cannot be met one by one wait for their turn.
const FRESH: usize = 32;
/// A server that did not answer a fresh port is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The ports tried around one that was told. A translator that counts has given a few to others in between; measured:
/// this range met such a one in 4 of 4 tries.
const NEAR: RangeInclusive<i32> = -2..=8;
/// Fresh ports of one member that are followed in one introduction.
const NEAR_MAX: usize = 2;
/// How often it is looked for ports that nothing needs.
const CLOSE_AGAIN: Duration = Duration::from_secs(5);
/// A port is not closed before: an answer to what was sent from it may be under way.
const YOUNG: Duration = Duration::from_secs(5);

/// The ports that are open.
#[derive(Debug, Default)]
pub(crate) struct ExtraPorts {
    open: BTreeMap<OwnPort, ExtraPort>,
    last: u16,
}

/// One of them.
#[derive(Debug)]
struct ExtraPort {
    used: Use,
    opened: Instant,
}

/// What a port is for.
#[derive(Debug)]
pub(super) enum Use {
    /// A fresh one for a peer.
    Fresh(NodeId, Fresh),
    /// One of many for a peer.
    OneOfMany(NodeId),
    /// To learn how long a mapping lives; who opened it closes it.
    Measurement,
}

impl Use {
    const fn peer(&self) -> Option<NodeId> {
        match self {
            Self::Fresh(peer, _) | Self::OneOfMany(peer) => Some(*peer),
            Self::Measurement => None,
        }
    }

    const fn fresh(&self) -> Option<(NodeId, &Fresh)> {
        match self {
            Self::Fresh(peer, fresh) => Some((*peer, fresh)),
            Self::OneOfMany(_) | Self::Measurement => None,
        }
    }
}

/// What is known of a fresh port.
#[derive(Debug)]
pub(super) struct Fresh {
    /// When servers were asked how they see it, and with what.
    asked: Instant,
    nonces: Vec<Nonce>,
    seen: Option<SocketAddr>,
}

impl ExtraPorts {
    fn fresh_of(&self, peer: &NodeId) -> Option<(OwnPort, &Fresh)> {
        let fresh = self.open.iter().filter_map(|(port, it)| Some((*port, it.used.fresh()?)));
        fresh.filter(|(_, (known, _))| known == peer).map(|(port, (_, fresh))| (port, fresh)).next()
    }

    fn fresh_mut(&mut self, port: OwnPort) -> Option<(NodeId, &mut Fresh)> {
        match &mut self.open.get_mut(&port)?.used {
            Use::Fresh(peer, fresh) => Some((*peer, fresh)),
            Use::OneOfMany(_) | Use::Measurement => None,
        }
    }

    fn fresh(&self) -> usize {
        self.open.values().filter(|it| it.used.fresh().is_some()).count()
    }
}

impl Node {
    /// `id` is being met and has not been with so many first messages: perhaps by another port.
    pub(super) fn try_fresh_port(&mut self, id: NodeId, attempts: usize) {
        let now = self.now;
        if let Some((port, fresh)) = self.extra_ports.fresh_of(&id) {
            if fresh.seen.is_none() && now.since(fresh.asked) >= ASK_AGAIN {
                self.ask_how_seen(port);
            }
            return;
        }
        let (ours_vary, theirs_vary) =
            (self.has_varying_port(), self.flags_of_member(&id).has(Flags::VARYING_PORT));
        // Whose port varies is not met by the usual one, and two such only by chance.
        let due = if ours_vary { 1 } else { FRESH_AFTER };
        if attempts < due || ours_vary && theirs_vary || self.extra_ports.fresh() >= FRESH {
            return;
        }
        if self.far_addrs_of_member(&id).next().is_none() || self.links_to_servers().is_empty() {
            return;
        }
        let fresh = Fresh { asked: now, nonces: Vec::new(), seen: None };
        if let Some(port) = self.open_port(Use::Fresh(id, fresh)) {
            self.ask_how_seen(port);
        }
    }

    pub(super) fn open_port(&mut self, used: Use) -> Option<OwnPort> {
        let ports = &mut self.extra_ports;
        let next = (1..=u16::MAX).find_map(|further| {
            let port = OwnPort::extra(NonZeroU16::new(ports.last.wrapping_add(further))?);
            (!ports.open.contains_key(&port)).then_some(port)
        })?;
        ports.last = next.number();
        ports.open.insert(next, ExtraPort { used, opened: self.now });
        self.events.push_back(Event::OpenPort(next));
        self.timers.set_sooner(Timer::Punch, self.now + CLOSE_AGAIN);
        Some(next)
    }

    /// Asks the servers how they see a fresh port. What is sent to the peer afterwards gets a port near what they say.
    fn ask_how_seen(&mut self, port: OwnPort) {
        let (now, servers) = (self.now, self.links_to_servers());
        for addr in servers {
            let nonce = Nonce(self.random());
            let Some((_, fresh)) = self.extra_ports.fresh_mut(port) else { return };
            fresh.asked = now;
            fresh.nonces.push(nonce);
            self.ask_server_by(Route { port, ..Route::to(addr) }, &FromNode::Hail(nonce));
        }
    }

    /// Asks a server something by an extra port.
    pub(super) fn ask_server_by(&mut self, route: Route, question: &FromNode<'_>) {
        let mut bytes = Vec::new();
        question.write(0, &mut bytes);
        self.outbox.push_cut(Destination::One(route), &bytes);
    }

    /// Where the servers are that answer, in IPv4: translators of IPv6 are none.
    pub(super) fn links_to_servers(&self) -> Vec<SocketAddr> {
        let links = self.rendezvous.servers.values().map(|server| server.link(Family::V4));
        links.filter(|link| link.seen.is_some()).filter_map(|link| link.addr).collect()
    }

    /// What came to an extra port from a server, or from somebody who poses as one.
    pub(super) fn on_rendezvous_at_extra_port(&mut self, via: Route, datagram: &[u8]) -> Result<(), Dropped> {
        let message = FromServer::parse(datagram).map_err(|_| Dropped::Malformed)?;
        let Some((peer, fresh)) = self.extra_ports.fresh_mut(via.port) else {
            return self.on_measured(via, &message);
        };
        let FromServer::Retry(retry) = message else { return Err(Dropped::Unexpected) };
        if !fresh.nonces.contains(&retry.nonce) || fresh.seen.is_some() || !is_far_v4(retry.seen) {
            return Err(Dropped::Unexpected);
        }
        fresh.seen = Some(retry.seen);
        debug!(?peer, addr = %retry.seen, "a fresh port");
        self.send_from_fresh_port(peer, via.port);
        self.tell_whereabouts_to(peer);
        Ok(())
    }

    /// Opens the translator for whom the port is meant, by the first message that goes out from it.
    fn send_from_fresh_port(&mut self, id: NodeId, port: OwnPort) {
        let routes: Vec<_> =
            self.far_addrs_of_member(&id).map(|addr| Route { port, ..Route::to(addr) }).collect();
        let Some(packet) = self.first_packet(id) else { return };
        for route in routes {
            if let Some(candidates) = self.candidates_of_prospect(&id) {
                candidates.add(route, Source::Introduced);
                self.send_opening(id, route, &packet);
            }
        }
    }

    /// How the fresh port for `id` looks from outside.
    pub(super) fn fresh_port_for(&self, id: &NodeId) -> Option<Candidate> {
        let addr = self.extra_ports.fresh_of(id)?.1.seen?;
        Some(Candidate { kind: CandidateKind::Near, addr })
    }

    /// A member told of fresh ports of its: tries them and those near them.
    pub(super) fn try_near(&mut self, id: NodeId) {
        let Some(member) = self.member(&id) else { return };
        let near = member.iter().filter(|it| it.kind == CandidateKind::Near && is_far_v4(it.addr));
        let near: Vec<_> = near.map(|it| it.addr).take(NEAR_MAX).collect();
        if near.is_empty() {
            return;
        }
        let Some(packet) = self.first_packet(id) else { return };
        for addr in near.into_iter().filter(|addr| self.may_be_met_at(*addr)).collect::<Vec<_>>() {
            for offset in NEAR {
                let port = u16::try_from(i32::from(addr.port()) + offset).ok().filter(|port| *port != 0);
                if let Some(port) = port
                    && self.may_guess()
                {
                    let route = Route::to(SocketAddr::new(addr.ip(), port));
                    self.outbox.push(Destination::One(route), &packet);
                }
            }
        }
    }

    /// Closes what nothing needs.
    pub(super) fn close_idle_ports(&mut self) {
        let now = self.now;
        let used: Vec<_> = self.peers.iter().filter_map(|(_, peer)| Some(peer.path?.port)).collect();
        let idle = |(port, it): &(&OwnPort, &ExtraPort)| {
            let Some(peer) = it.used.peer() else { return false };
            !used.contains(port)
                && now.since(it.opened) >= YOUNG
                && !self.is_meeting(&peer)
                && !self.is_having_birthday_with(&peer)
        };
        let idle: Vec<_> = self.extra_ports.open.iter().filter(idle).map(|(port, _)| *port).collect();
        self.close_ports(idle);
        if !self.extra_ports.open.is_empty() {
            self.timers.set_sooner(Timer::Punch, now + CLOSE_AGAIN);
        }
    }

    /// Closes those of many that were opened for `peer`, but the one that was met.
    pub(super) fn close_many_of(&mut self, peer: NodeId) {
        let path = self.peers.get(&peer).and_then(|known| known.path).map(|path| path.port);
        let many = |(port, it): &(&OwnPort, &ExtraPort)| {
            matches!(it.used, Use::OneOfMany(of) if of == peer) && Some(**port) != path
        };
        let many = self.extra_ports.open.iter().filter(many).map(|(port, _)| *port).collect();
        self.close_ports(many);
    }

    pub(super) fn close_ports(&mut self, ports: Vec<OwnPort>) {
        for port in ports {
            let Some(closed) = self.extra_ports.open.remove(&port) else { continue };
            self.events.push_back(Event::ClosePort(port));
            let Some(id) = closed.used.peer() else { continue };
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.candidates.forget(|candidate| candidate.route.port == port);
            }
            if let Some(candidates) = self.candidates_of_prospect(&id) {
                candidates.forget(|candidate| candidate.route.port == port);
            }
        }
    }
}

/// Whether it is an IPv4 address of the internet.
pub(super) fn is_far_v4(addr: SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V4(ip) if is_public(addr.ip()) && !ip.is_loopback()) && addr.port() != 0
}
