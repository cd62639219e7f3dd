//! What is between the segments of a world: routers that translate addresses, and the internet with its rendezvous
//! servers.
//!
//! Each router and each server is one link away from the middle of the internet, and that is two hops wide: what is to
//! end after three hops opens two translators in a row and reaches nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use atonce::core::{OwnPort, RendezvousServer, Route};
use atonce::crypto::namespace::ServerSecret;
use atonce::server::{Config, SECOND_PORT, Secrets, Server};
use atonce::time::Instant;
use rand_core::CryptoRng;

use super::nat::{Kind, Nat};
use super::{Host, HostId, World};

/// How far the ends of the internet are from its middle, in routers.
const WIDTH: u8 = 1;
/// The wall clock of servers when a world begins: the middle of a day.
pub const NOON: Duration = Duration::from_secs(20_780 * 86_400 + 43_200);

/// What joins the segments.
#[derive(Default)]
pub struct Internet {
    pub routers: BTreeMap<usize, Router>,
    pub servers: Vec<ServerHost>,
    /// From a router or a server to the middle.
    pub link: Duration,
    /// Addresses that are farther away than that, by how much.
    pub far: BTreeMap<IpAddr, Duration>,
    /// What is sent from one address to another one is lost.
    pub blocked: BTreeSet<(IpAddr, IpAddr)>,
}

/// The way out of a segment.
pub struct Router {
    pub nat: Nat,
    /// Into which segment; none: the internet.
    pub outside: Option<usize>,
}

/// A rendezvous server.
pub struct ServerHost {
    pub server: Option<Server>,
    pub addr: SocketAddr,
    /// Its second port; the next start tells of it.
    pub second: Option<NonZeroU16>,
    /// A firewall in front of it drops what is for the second port.
    pub second_is_shut: bool,
    secret: [u8; 32],
    pub wake: Option<Instant>,
    /// Every datagram that it sent or received.
    pub sent: Vec<(SocketAddr, Vec<u8>)>,
    pub received: Vec<(SocketAddr, Vec<u8>)>,
}

/// A datagram, and how far it may go.
#[derive(Clone)]
pub struct Parcel {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub hops: u8,
    pub bytes: Vec<u8>,
}

/// Where a datagram is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Host(HostId),
    /// The router of a segment, from the inside.
    Out(usize),
    /// The router of a segment, from the outside.
    In(usize),
    Server(usize),
}

impl Internet {
    /// The way out of a segment, if it has one.
    pub fn out_of(&self, segment: usize) -> Option<Stop> {
        self.routers.contains_key(&segment).then_some(Stop::Out(segment))
    }
}

impl ServerHost {
    /// Which of its ports this address is.
    fn port_at(&self, addr: SocketAddr) -> Option<OwnPort> {
        if addr == self.addr {
            return Some(OwnPort::USUAL);
        }
        let is_there = |second: &NonZeroU16| SocketAddr::new(self.addr.ip(), second.get()) == addr;
        self.second.filter(is_there).filter(|_| !self.second_is_shut).map(|_| SECOND_PORT)
    }
}

impl World {
    /// The way out of `segment`: a router of that kind, with that address outside.
    pub fn router(&mut self, segment: usize, kind: Kind, wan: &str, outside: Option<usize>) {
        let nat = Nat::new(kind, wan.parse().unwrap());
        self.internet.routers.insert(segment, Router { nat, outside });
    }

    /// A rendezvous server on the internet; what to write into the configuration of its nodes.
    pub fn add_server(&mut self) -> RendezvousServer {
        let n = self.internet.servers.len() as u8 + 1;
        let addr = SocketAddr::from(([203, 0, 113, n], 28283));
        let host = ServerHost {
            server: None,
            addr,
            second: NonZeroU16::new(28284),
            second_is_shut: false,
            secret: [n; 32],
            wake: None,
            sent: Vec::new(),
            received: Vec::new(),
        };
        let key = ServerSecret::new(host.secret).public();
        self.internet.servers.push(host);
        self.start_server(usize::from(n) - 1);
        RendezvousServer { name: addr.to_string(), key: Some(key) }
    }

    /// Its secrets are those of before: they are on its disk.
    pub fn start_server(&mut self, server: usize) {
        let rng: Box<dyn CryptoRng + Send> = Box::new(self.fork_rng());
        let now = self.now;
        let wall = NOON + now.since_origin();
        let host = &mut self.internet.servers[server];
        let tokens = zeroize::Zeroizing::new(host.secret);
        let secrets = Secrets { key: ServerSecret::new(host.secret), tokens };
        let mut started =
            Server::new(Config { second_port: host.second, ..Config::default() }, secrets, rng, now);
        started.handle_wall_clock(wall, now);
        host.server = Some(started);
    }

    pub fn stop_server(&mut self, server: usize) {
        self.internet.servers[server].server = None;
        self.plan_server(server);
    }

    /// How many members a server has.
    pub fn members(&self, server: usize) -> usize {
        self.internet.servers[server].server.as_ref().unwrap().members()
    }

    pub(crate) fn serve(&mut self, server: usize, input: impl FnOnce(&mut Server, Instant)) {
        let now = self.now;
        let host = &mut self.internet.servers[server];
        let Some(running) = host.server.as_mut() else { return };
        input(running, now);
        let (mut buffer, mut parcels) = (Vec::new(), Vec::new());
        while let Some(route) = running.poll_transmit(&mut buffer) {
            host.sent.push((route.remote, buffer.clone()));
            let mut from = host.addr;
            if route.port == SECOND_PORT {
                from.set_port(host.second.map_or(0, NonZeroU16::get));
            }
            parcels.push(Parcel { from, to: route.remote, hops: 64, bytes: buffer.clone() });
        }
        for parcel in parcels {
            let to = atonce::core::Destination::One(atonce::core::Route::to(parcel.to));
            self.note_sent(parcel.from, to, &parcel.bytes);
            self.across(parcel);
        }
        self.plan_server(server);
    }

    fn plan_server(&mut self, server: usize) {
        let host = &self.internet.servers[server];
        let wake = host.server.as_ref().and_then(Server::poll_timeout).map(|(at, _)| at);
        let before = std::mem::replace(&mut self.internet.servers[server].wake, wake);
        self.plan_wake(server, before, wake);
    }

    /// From one end of the internet to another.
    fn across(&mut self, mut parcel: Parcel) {
        let far = [parcel.from.ip(), parcel.to.ip()].map(|end| self.internet.far.get(&end).copied());
        let delay = self.internet.link * 2 + far.into_iter().flatten().sum::<Duration>();
        let servers = &self.internet.servers;
        let stop = match servers.iter().position(|server| server.port_at(parcel.to).is_some()) {
            Some(server) => Some(Stop::Server(server)),
            None => self.behind(None, parcel.to),
        };
        if self.internet.blocked.contains(&(parcel.from.ip(), parcel.to.ip())) {
            return;
        }
        parcel.hops = parcel.hops.saturating_sub(2 * WIDTH);
        if let Some(stop) = stop.filter(|_| parcel.hops > 0)
            && !self.is_lost()
        {
            self.carry(stop, parcel, delay);
        }
    }

    /// The router or host in a realm that has this address; the realm of none is the internet.
    fn behind(&self, outside: Option<usize>, addr: SocketAddr) -> Option<Stop> {
        let in_realm = |(segment, router): (&usize, &Router)| {
            let host = self.hosts.iter().any(|host| host.segment == *segment && host.port_at(addr).is_some());
            let here = router.nat.is_at(addr) || router.nat.kind.firewall && host;
            (router.outside == outside && here).then_some(Stop::In(*segment))
        };
        self.internet.routers.iter().find_map(in_realm).or_else(|| {
            let host = |host: &Host| host.port_at(addr).is_some() && Some(host.segment) == outside;
            self.hosts.iter().position(host).map(Stop::Host)
        })
    }

    pub(crate) fn at_stop(&mut self, stop: Stop, mut parcel: Parcel) {
        let now = self.now;
        match stop {
            Stop::Host(host) => self.arrive(host, parcel),
            Stop::Server(server) => {
                self.internet.servers[server].received.push((parcel.from, parcel.bytes.clone()));
                let Some(port) = self.internet.servers[server].port_at(parcel.to) else { return };
                self.serve(server, |running, now| {
                    let route = Route { port, ..Route::to(parcel.from) };
                    let _ = running.handle_datagram(route, &parcel.bytes, now);
                });
            }
            Stop::Out(segment) => {
                parcel.hops = parcel.hops.saturating_sub(1);
                let random = self.below(u64::MAX);
                let Some(router) = self.internet.routers.get_mut(&segment).filter(|_| parcel.hops > 0) else {
                    return;
                };
                let Some(outer) = router.nat.outgoing(parcel.from, parcel.to, now, random) else { return };
                parcel.from = outer;
                if router.nat.is_at(parcel.to) {
                    // Around its own corner.
                    if router.nat.kind.hairpin {
                        self.carry(Stop::In(segment), parcel, Duration::from_micros(100));
                    }
                    return;
                }
                match router.outside {
                    None => self.across(parcel),
                    Some(realm) => {
                        let stop = self.behind(Some(realm), parcel.to).unwrap_or(Stop::Out(realm));
                        self.carry(stop, parcel, Duration::from_micros(100));
                    }
                }
            }
            Stop::In(segment) => {
                parcel.hops = parcel.hops.saturating_sub(1);
                let Some(router) = self.internet.routers.get_mut(&segment).filter(|_| parcel.hops > 0) else {
                    return;
                };
                let Some(inner) = router.nat.incoming(parcel.from, parcel.to, now) else { return };
                parcel.to = inner;
                if let Some(stop) = self.behind(Some(segment), inner) {
                    self.carry(stop, parcel, Duration::from_micros(100));
                }
            }
        }
    }

    /// The router forgets all, and its hosts do not know.
    pub fn reboot_router(&mut self, segment: usize) {
        self.internet.routers.get_mut(&segment).unwrap().nat.reboot();
    }

    /// An address of the internet.
    pub fn wan(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }
}
