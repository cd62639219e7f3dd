//! Whether our address translator gives each destination another port, by the word of one server (rendezvous.md, 3.3).
//!
//! ```text
//! usual port -- register --> the server's port         welcome: so I see you; my second port is that one
//!            -- where -----> the server's second port  here: so I see you
//! ```
//!
//! It is asked as soon as the first one told how it sees us, so that both speak of one moment. What does not answer,
//! because a firewall lets nothing through to it, leaves unknown what we cannot know. Like all that servers say it is a hint: it
//! decides how we try to reach others, never whom we trust.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Dropped, Route};
use crate::core::pace::Pace;
use crate::core::rendezvous::{Family, Link, ServerId};
use crate::core::timers::Timer;
use crate::time::Instant;
use crate::wire::rendezvous::{FromNode, FromServer, Nonce};

/// From one unanswered question to the next; after the last one the port is taken for one that nothing gets to.
const AGAIN: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// A welcome makes us compare anew after this time, even where the first port sees us as before.
const COMPARE_AGAIN: Duration = Duration::from_secs(60);
/// However often servers see us elsewhere, or have another port: so many questions at once, and then so many a second.
const AT_ONCE: u32 = 8;
const A_SECOND: u32 = 1;
/// A question for which there was no room is asked after this time.
const LATER: Duration = Duration::from_secs(1);

pub(super) fn pace() -> Pace {
    Pace::new(AT_ONCE, A_SECOND)
}

/// What the second port of a server says of us, in one family.
#[derive(Debug, Default)]
pub(crate) struct SecondPort {
    port: Option<NonZeroU16>,
    asked: Option<Asked>,
    /// How both ports saw us at one time, the first one first.
    seen: Option<[SocketAddr; 2]>,
}

/// A question, and when it was asked first.
#[derive(Debug)]
struct Asked {
    at: Instant,
    nonce: Nonce,
    /// How the first port saw us then.
    first: SocketAddr,
    times: usize,
    answered: bool,
}

impl Link {
    /// Where the second port is.
    fn second_addr(&self) -> Option<SocketAddr> {
        let (mut addr, port) = (self.addr?, self.second.port?.get());
        let is_other = addr.port() != port;
        addr.set_port(port);
        Some(addr).filter(|_| is_other)
    }

    /// Whether its two ports see us at different ports of one address; what they said of an earlier address of ours does
    /// not count.
    fn varies(&self) -> bool {
        let now = |[first, _]: &[SocketAddr; 2]| self.seen == Some(*first);
        self.second
            .seen
            .filter(now)
            .is_some_and(|[first, second]| first.ip() == second.ip() && first.port() != second.port())
    }
}

impl Node {
    /// A server says which second port it has.
    pub(super) fn note_second_port(&mut self, id: ServerId, family: Family, port: Option<NonZeroU16>) {
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let second = &mut server.link_mut(family).second;
        if second.port != port {
            *second = SecondPort { port, ..SecondPort::default() };
        }
        if second.asked.as_ref().is_none_or(|asked| now.since(asked.at) >= COMPARE_AGAIN) {
            self.compare_ports(id, family);
        }
    }

    /// The second port is to say how it sees us now, since the first one just did.
    pub(super) fn compare_ports(&mut self, id: ServerId, family: Family) {
        let nonce = Nonce(self.random());
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        let (Some(first), Some(_)) = (link.seen, link.second_addr()) else { return };
        link.second.asked = Some(Asked { at: self.now, nonce, first, times: 0, answered: false });
        self.timers.set(Timer::SecondPort(id, family), self.now);
    }

    pub(crate) fn on_second_port_timer(&mut self, id: ServerId, family: Family) {
        if !self.is_registering() {
            return;
        }
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        let Some(to) = link.second_addr() else { return };
        let Some(asked) = link.second.asked.as_mut().filter(|asked| !asked.answered) else { return };
        let Some(again) = AGAIN.get(asked.times) else { return };
        if !self.rendezvous.compared.take(now) {
            return self.timers.set(Timer::SecondPort(id, family), now + LATER);
        }
        asked.times += 1;
        let question = FromNode::Where(asked.nonce);
        self.ask_server_by(Route::to(to), &question);
        let again = self.jittered(*again);
        self.timers.set(Timer::SecondPort(id, family), now + again);
    }

    /// What came to our usual port, and from no first port of a server.
    pub(super) fn on_second_port(&mut self, via: Route, datagram: &[u8]) -> Result<(), Dropped> {
        let family = Family::of(via.remote);
        let varied = self.has_varying_port();
        let mut links = self.rendezvous.servers.values_mut().map(|server| server.link_mut(family));
        let link = links.find(|link| link.second_addr() == Some(via.remote)).ok_or(Dropped::Unexpected)?;
        let FromServer::Here(here) = FromServer::parse(datagram).map_err(|_| Dropped::Malformed)? else {
            return Err(Dropped::Unexpected);
        };
        let waits = |asked: &&mut Asked| asked.nonce == here.nonce && !asked.answered;
        let asked = link.second.asked.as_mut().filter(waits).ok_or(Dropped::Unexpected)?;
        asked.answered = true;
        link.second.seen = Some([asked.first, here.seen]);
        debug!(addr = %here.seen, "a rendezvous server sees us there by its second port");
        if self.has_varying_port() != varied {
            self.tell_whereabouts();
        }
        Ok(())
    }

    /// Whether one server alone knows that our translator gives each destination another port.
    pub(super) fn varies_by_one_server(&self) -> bool {
        let mut servers = self.rendezvous.servers.values();
        servers.any(|server| Family::ALL.iter().any(|family| server.link(*family).varies()))
    }
}
