//! Address translators and firewalls as they run: mapping, filtering, port assignment, expiry, hairpin.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use atonce::time::Instant;

#[path = "kinds.rs"]
mod kinds;
pub use kinds::*;

/// One router.
pub struct Nat {
    pub kind: Kind,
    pub wan: IpAddr,
    /// A mapping that nothing used for so long is gone.
    pub life: Duration,
    flows: Vec<Flow>,
    /// Who knocked at which port before anybody inside had sent.
    early: Vec<(SocketAddr, u16, Instant)>,
    next: u16,
}

/// What one inner address sends to one outer one.
#[derive(Clone, Copy)]
struct Flow {
    inner: SocketAddr,
    outer: SocketAddr,
    remote: SocketAddr,
    used: Instant,
}

impl Nat {
    pub fn new(kind: Kind, wan: IpAddr) -> Self {
        Self { kind, wan, life: Duration::from_secs(120), flows: Vec::new(), early: Vec::new(), next: 40_000 }
    }

    /// Power off and on: nothing is known any more.
    pub fn reboot(&mut self) {
        self.flows.clear();
        self.early.clear();
    }

    fn expire(&mut self, now: Instant) {
        let life = self.life;
        self.flows.retain(|flow| now.since(flow.used) < life);
        self.early.retain(|(_, _, at)| now.since(*at) < Duration::from_secs(30));
    }

    /// From where a datagram leaves that comes from the inside; `random` is any number.
    pub fn outgoing(
        &mut self,
        inner: SocketAddr,
        remote: SocketAddr,
        now: Instant,
        random: u64,
    ) -> Option<SocketAddr> {
        self.expire(now);
        if self.kind.blocked {
            return None;
        }
        let same = |flow: &&mut Flow| flow.inner == inner && flow.remote == remote;
        if let Some(flow) = self.flows.iter_mut().find(same) {
            flow.used = now;
            return Some(flow.outer);
        }
        let shares = |flow: &&Flow| {
            flow.inner == inner
                && match self.kind.mapping {
                    Mapping::EndpointIndependent => true,
                    Mapping::AddressDependent => flow.remote.ip() == remote.ip(),
                    Mapping::AddressAndPortDependent => false,
                }
        };
        let taken = self.kind.poisonable
            && self.early.iter().any(|(from, port, _)| *from == remote && *port == inner.port());
        let outer = match self.flows.iter().find(shares) {
            _ if self.kind.firewall => inner,
            Some(flow) if !taken => flow.outer,
            _ => SocketAddr::new(self.wan, self.free_port(inner.port(), taken, random)),
        };
        self.flows.push(Flow { inner, outer, remote, used: now });
        Some(outer)
    }

    fn free_port(&mut self, wanted: u16, taken: bool, random: u64) -> u16 {
        let is_free = |port: u16, flows: &[Flow]| !flows.iter().any(|flow| flow.outer.port() == port);
        let mut port = match self.kind.ports {
            Ports::Kept if !taken && is_free(wanted, &self.flows) => return wanted,
            Ports::Kept | Ports::Random => 1024 + (random % 64_000) as u16,
            Ports::Sequential => self.next,
        };
        while !is_free(port, &self.flows) {
            port = port.checked_add(1).unwrap_or(1024);
        }
        self.next = port + 1;
        port
    }

    /// Where a datagram goes that comes from outside.
    pub fn incoming(&mut self, remote: SocketAddr, outer: SocketAddr, now: Instant) -> Option<SocketAddr> {
        self.expire(now);
        if self.kind.blocked {
            return None;
        }
        if self.kind.firewall && self.kind.filtering == Filtering::EndpointIndependent {
            return Some(outer);
        }
        let passes = |flow: &&mut Flow| {
            flow.outer == outer
                && match self.kind.filtering {
                    Filtering::EndpointIndependent => true,
                    Filtering::AddressDependent => flow.remote.ip() == remote.ip(),
                    Filtering::AddressAndPortDependent => flow.remote == remote,
                }
        };
        let passed = self.flows.iter_mut().find(passes);
        if passed.is_none() {
            self.early.push((remote, outer.port(), now));
        }
        let flow = passed?;
        flow.used = now;
        Some(flow.inner)
    }

    /// Whether `addr` is to be looked for behind this router.
    pub fn is_at(&self, addr: SocketAddr) -> bool {
        !self.kind.firewall && addr.ip() == self.wan
    }
}
