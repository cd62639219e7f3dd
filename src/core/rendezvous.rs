//! The rendezvous servers that introduce us to members elsewhere (rendezvous.md).
//!
//! ```text
//! server -- one link per address family: hail, retry, how the server sees us
//!        -- one registration per namespace and family: today's, and at its edges the neighbour day's; one for each secret
//!           that counts: register, welcome, then keep, kept
//! ```
//!
//! What has no mac is a hint, since whoever hears our questions can forge it: it makes us ask, and no question that waits
//! for its answer ends by it.
//!
//! This file is about servers and links; `registrations.rs` about what is registered there, `introductions.rs` about the
//! members that we hear of. Only a private network is registered, and nothing is decided by what a server says: it is one
//! more who gives hints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Event, OwnPort, RendezvousServer, Route};
use crate::core::leases::Lease;
use crate::core::pace::Pace;
use crate::core::registrations::{Registration, TOLD_A_SECOND, TOLD_AT_ONCE};
use crate::core::second_port::{self, SecondPort};
use crate::core::server_clock::{ServerClock, is_a_time};
use crate::core::timers::Timer;
use crate::crypto::hash;
use crate::crypto::network::{NetworkKeys, NetworkKind};
use crate::id::ServerKey;
use crate::time::Instant;
use crate::wire::local::RendezvousInfo;
use crate::wire::rendezvous::{Cookie, Day, FromNode, FromServer, Nonce, Retry, ServerTime};

/// From one hail to the next (rendezvous.md, 3.3).
const HAIL_AGAIN: [Duration; 9] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
    Duration::from_secs(60),
];
/// A network that changes again and again does not hail more often than four times in this time.
const HAILS_AT_ONCE: u32 = 4;
const HAILS_PERIOD: Duration = Duration::from_secs(10);
/// After so many hails without an answer the server's name is looked up again.
const LOOK_UP_AFTER: u32 = 5;
/// A name without an address is looked up again after this time, and so is one whose server is silent.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);
/// A server is another one than we know if a wrong key answers so many hails in a row, and the right one none of them: one
/// wrong answer may be anybody's.
const WRONG_KEYS: u32 = 4;
/// Then it is left alone for so long.
const WRONG_KEY_PAUSE: Duration = Duration::from_secs(600);
/// On how many servers a network is registered, of those that are configured.
const SERVERS_USED: usize = 2;
/// Answers to one hail that are taken, each with a register: the server's own is among them, if not each comes from
/// somebody who answers more often.
const RETRIES: u32 = 4;

/// By which timers and registrations name a server; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerId(u32);

/// An address family: servers are spoken to in each, since each has its own translators and firewalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(addr: SocketAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// All servers.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    pub(super) servers: BTreeMap<ServerId, Server>,
    next: u32,
    pub(super) next_registration: u32,
    /// Of registers that say where we are now.
    pub(super) told: Pace,
    /// Of questions to second ports.
    pub(super) compared: Pace,
}

impl Default for Rendezvous {
    fn default() -> Self {
        let told = Pace::new(TOLD_AT_ONCE, TOLD_A_SECOND);
        let compared = second_port::pace();
        Self { servers: BTreeMap::new(), next: 0, next_registration: 0, told, compared }
    }
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    /// `host:port`, as it was configured.
    pub(super) name: String,
    pub(super) key: Option<ServerKey>,
    /// The key is configured, or an answer was made with it: no other one takes its place.
    is_pinned: bool,
    /// An answer was made with the key.
    is_proved: bool,
    /// It was told that it does not answer, and that it is another one.
    silent: bool,
    strange: bool,
    pub(super) clock: ServerClock,
    pub(super) links: [Link; 2],
    pub(super) registrations: Vec<Registration>,
}

/// The server in one address family.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(super) addr: Option<SocketAddr>,
    /// Of the latest hail.
    nonce: Option<Nonce>,
    attempts: u32,
    /// How many answers of the right key, and of a wrong one, this hail got.
    retries: u32,
    wrong: u32,
    /// The wrong key that answered so many hails in a row.
    impostor: Option<(ServerKey, u32)>,
    /// The key of who answers there, if that is not the one that we know.
    stranger: Option<ServerKey>,
    /// When the hails of this period began, and how many there were.
    period: (Instant, u32),
    pub(super) cookie: Option<Cookie>,
    /// How the server sees us, by the last word.
    pub(super) seen: Option<SocketAddr>,
    /// What the others were told of that.
    told: Option<SocketAddr>,
    /// And by its second port.
    pub(super) second: SecondPort,
}

impl Server {
    pub(super) fn link(&self, family: Family) -> &Link {
        &self.links[family as usize]
    }

    pub(super) fn link_mut(&mut self, family: Family) -> &mut Link {
        &mut self.links[family as usize]
    }

    /// Whether it has been asked often enough, and answers nowhere.
    pub(super) fn is_gone(&self) -> bool {
        let asked = |link: &Link| link.attempts >= LOOK_UP_AFTER;
        self.links.iter().all(|link| link.cookie.is_none()) && self.links.iter().any(asked)
    }

    /// In which namespaces a member is to be found now, and until when that is so.
    pub(super) fn days(&self, now: Instant) -> (Vec<Day>, Duration) {
        self.clock.days(now)
    }

    /// The key of who answers in its place, and it answers nowhere.
    pub(super) fn stranger(&self) -> Option<ServerKey> {
        let answers = self.links.iter().any(|link| link.cookie.is_some());
        self.links.iter().filter(|_| !answers).find_map(|link| link.stranger)
    }
}

impl Node {
    /// The configured servers, complete, at start and whenever they change.
    pub fn handle_servers(&mut self, servers: &[RendezvousServer], now: Instant) {
        self.advance(now);
        // One with another key than it had is another one.
        let stays = |server: &Server, named: &RendezvousServer| {
            named.name == server.name
                && named.key.is_none_or(|key| server.key.is_none_or(|known| known == key))
        };
        let gone = |server: &Server| !servers.iter().any(|named| stays(server, named));
        let ids: Vec<_> =
            self.rendezvous.servers.iter().filter(|(_, s)| gone(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.leave_server(id);
            self.rendezvous.servers.remove(&id);
        }
        for named in servers {
            let mut known = self.rendezvous.servers.values_mut();
            if let Some(known) = known.find(|known| known.name == named.name) {
                known.key = named.key.or(known.key);
                known.is_pinned |= named.key.is_some();
                continue;
            }
            let id = ServerId(self.rendezvous.next);
            self.rendezvous.next += 1;
            let server = Server {
                name: named.name.clone(),
                key: named.key,
                is_pinned: named.key.is_some(),
                is_proved: false,
                silent: false,
                strange: false,
                clock: ServerClock::default(),
                links: Default::default(),
                registrations: Vec::new(),
            };
            self.rendezvous.servers.insert(id, server);
            self.look_up(id);
        }
        self.update_registrations();
    }

    /// The addresses of the server that is called so: none if it has none now.
    pub fn handle_server_addrs(&mut self, name: &str, addrs: &[SocketAddr], now: Instant) {
        self.advance(now);
        let servers = &mut self.rendezvous.servers;
        let Some((id, server)) = servers.iter_mut().find(|(_, server)| server.name == name) else { return };
        let id = *id;
        for family in Family::ALL {
            let of_family: Vec<_> = addrs.iter().filter(|addr| Family::of(**addr) == family).collect();
            let link = server.link_mut(family);
            // One that answers is kept, whatever else the name means now.
            let keep = link.addr.is_some_and(|addr| of_family.contains(&&addr) || link.cookie.is_some());
            if !keep && let Some(addr) = of_family.first() {
                *link = Link { addr: Some(**addr), ..Link::default() };
                self.timers.set(Timer::Hail(id, family), now);
            }
        }
        if server.links.iter().all(|link| link.addr.is_none()) {
            self.timers.set(Timer::LookUp(id), now + LOOK_UP_AGAIN);
        }
    }

    fn look_up(&mut self, id: ServerId) {
        let Some(server) = self.rendezvous.servers.get(&id) else { return };
        self.events.push_back(Event::Resolve(server.name.clone()));
    }

    pub(crate) fn on_look_up_timer(&mut self, id: ServerId) {
        self.look_up(id);
    }

    /// Whether anything leaves the LAN: members elsewhere are to find us by a rendezvous server.
    pub fn is_on_internet(&self) -> bool {
        self.is_registering() && !self.rendezvous.servers.is_empty()
    }

    /// Whether we let ourselves be introduced: the open network never does.
    pub(super) fn is_registering(&self) -> bool {
        self.config.network.current().kind() == NetworkKind::Private
    }

    /// Our addresses, our network or the time may not be what they were: every server is asked how it sees us now.
    pub(crate) fn hail_all(&mut self) {
        let ids: Vec<_> = self.rendezvous.servers.keys().copied().collect();
        for id in ids {
            for family in Family::ALL {
                self.hail_soon(id, family);
            }
        }
    }

    /// Begins with a server anew, in one family.
    pub(super) fn hail_soon(&mut self, id: ServerId, family: Family) {
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        (link.cookie, link.attempts, link.nonce) = (None, 0, None);
        (link.impostor, link.stranger) = (None, None);
        if now.since(link.period.0) >= HAILS_PERIOD {
            link.period = (now, 0);
        }
        link.period.1 += 1;
        let at = if link.period.1 <= HAILS_AT_ONCE { now } else { link.period.0 + HAILS_PERIOD };
        self.timers.set(Timer::Hail(id, family), at);
    }

    pub(crate) fn on_hail_timer(&mut self, id: ServerId, family: Family) {
        if !self.is_registering() {
            return;
        }
        let nonce = Nonce(self.random());
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        if link.addr.is_none() {
            return;
        }
        if link.wrong == 0 && link.attempts > 0 {
            (link.impostor, link.stranger) = (None, None);
        }
        link.wrong = 0;
        let stranger = link.impostor.filter(|(_, hails)| *hails >= WRONG_KEYS).map(|(key, _)| key);
        if stranger.is_some() && link.stranger.is_none() {
            link.stranger = stranger;
            if !std::mem::replace(&mut server.strange, true) {
                warn!(server = %server.name, reason = "wrong-key", "this rendezvous server has another key than the known one");
            }
            self.timers.set(Timer::Hail(id, family), self.now + WRONG_KEY_PAUSE);
            return self.update_registrations();
        }
        (link.nonce, link.cookie, link.retries) = (Some(nonce), None, 0);
        let pause = match link.stranger {
            Some(_) => WRONG_KEY_PAUSE,
            None => HAIL_AGAIN[HAIL_AGAIN.len().min(link.attempts as usize + 1) - 1],
        };
        link.attempts += 1;
        let (look_up, is_lost) = (link.attempts % LOOK_UP_AFTER == 0, link.attempts == LOOK_UP_AFTER);
        if server.is_gone() && server.stranger().is_none() && !std::mem::replace(&mut server.silent, true) {
            warn!(server = %server.name, reason = "no-answer", "this rendezvous server does not answer");
        }
        if is_lost {
            // What waits for an answer to a hail waits no more.
            for lost in server.registrations.iter_mut().filter(|it| it.family == family) {
                lost.lease = Lease::default();
                self.timers.clear(Timer::Lease(lost.id));
            }
        }
        self.ask_server(id, family, &FromNode::Hail(nonce));
        let again = self.jittered(pause);
        self.timers.set(Timer::Hail(id, family), self.now + again);
        if look_up {
            self.look_up(id);
        }
    }

    pub(super) fn send_to_server(&mut self, addr: SocketAddr, message: &[u8]) {
        self.outbox.push_cut(Destination::One(Route::to(addr)), message);
    }

    /// A message of a rendezvous server, or of somebody who poses as one.
    pub(crate) fn on_rendezvous(&mut self, via: Route, datagram: &[u8]) -> Result<(), Dropped> {
        if via.port != OwnPort::USUAL {
            return self.on_rendezvous_at_extra_port(via, datagram);
        }
        let family = Family::of(via.remote);
        let mut servers = self.rendezvous.servers.iter();
        let at = |server: &Server| server.link(family).addr == Some(via.remote);
        let Some(id) = servers.find(|(_, server)| at(server)).map(|(id, _)| *id) else {
            return self.on_second_port(via, datagram);
        };
        match FromServer::parse(datagram).map_err(|_| Dropped::Malformed)? {
            FromServer::Retry(retry) => self.on_retry(id, family, &retry),
            FromServer::Welcome(welcome) => self.on_welcome(id, family, datagram, &welcome),
            FromServer::Kept(kept) => self.on_kept(id, family, datagram, &kept),
            FromServer::Page(page) => self.on_page(id, datagram, &page),
            FromServer::Event(event) => self.on_server_event(id, family, datagram, &event),
            FromServer::Knock(knock) => self.on_knock(id, family, datagram, &knock),
            FromServer::Nope(nope) => self.on_nope(id, &nope),
            // The one is asked for from another port of ours, the other from another port of the server.
            FromServer::Echo(_) | FromServer::Here(_) => Err(Dropped::Unexpected),
        }
    }

    fn on_retry(&mut self, id: ServerId, family: Family, retry: &Retry) -> Result<(), Dropped> {
        let now = self.now;
        let server = self.rendezvous.servers.get_mut(&id).ok_or(Dropped::Unexpected)?;
        let hailed = server.link(family).nonce == Some(retry.nonce);
        let of_family = |known: &&Registration| known.family == family;
        let asked = server.registrations.iter().filter(of_family).find(|known| known.asked(retry.nonce));
        let asked = asked.map(|known| known.id);
        if !hailed && asked.is_none() {
            return Err(Dropped::Unexpected);
        }
        if !is_a_time(retry.time) {
            return Err(Dropped::Malformed);
        }
        if server.key.is_some_and(|key| key != retry.server) && (server.is_pinned || !hailed) {
            // Whoever hears the question can answer so: it goes on waiting for the right key.
            let link = server.link_mut(family);
            if hailed && link.cookie.is_none() && link.wrong == 0 {
                let hails = link.impostor.map_or(0, |(_, hails)| hails);
                link.impostor = Some((retry.server, hails + 1));
            }
            link.wrong += u32::from(hailed);
            return Err(Dropped::Unauthenticated);
        }
        let link = server.link_mut(family);
        let again = hailed && link.cookie.is_some();
        if hailed {
            link.retries += 1;
            if link.retries > RETRIES
                || again && (link.cookie, link.seen) == (Some(retry.cookie), Some(retry.seen))
            {
                return Err(Dropped::Unexpected);
            }
        }
        (link.cookie, link.attempts) = (Some(retry.cookie), 0);
        (link.impostor, link.stranger) = (None, None);
        self.timers.clear(Timer::Hail(id, family));
        if server.key != Some(retry.server) {
            // Not proved yet: it is only known to be right when an answer comes that was made with it.
            let left: Vec<_> = server.registrations.iter().map(|known| known.id).collect();
            server.key = Some(retry.server);
            left.into_iter().for_each(|registration| self.leave_registration(registration));
        }
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return Ok(()) };
        server.strange = false;
        server.clock.hint(retry.time, now);
        // Elsewhere we are somebody else, but not twice by one hail; where the handle was heard already, it may stay.
        if again {
            self.move_registrations_back(id, family, retry.seen.ip());
        } else if hailed {
            self.move_registrations(id, family, retry.seen.ip());
        }
        let refused = asked.filter(|asked| self.registration_mut(*asked).is_some_and(|(_, it)| it.refused()));
        if hailed {
            self.note_seen(id, family, retry.seen);
        } else if let Some(server) = self.rendezvous.servers.get_mut(&id) {
            // For the next register only: whoever hears all our questions could make us tell the others without end.
            server.link_mut(family).seen = Some(retry.seen);
        }
        let known = self.rendezvous.servers.get(&id).into_iter().flat_map(|it| &it.registrations);
        let of_family = known.filter(|known| known.family == family);
        let waiting: Vec<_> = of_family
            .filter(|known| Some(known.id) == refused || again && !known.is_kept() && known.lease.is_asked())
            .map(|known| known.id)
            .collect();
        self.update_registrations();
        for registration in waiting {
            self.register(registration);
        }
        if hailed {
            self.resume_leases(id, family);
        }
        Ok(())
    }

    /// A server says what time it has: perhaps members are to be found elsewhere than we thought.
    pub(super) fn note_time(&mut self, id: ServerId, time: ServerTime) {
        let now = self.now;
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        if server.clock.hear(time, now) {
            self.update_registrations();
        }
    }

    /// What we have registered at a server is known there.
    pub(super) fn server_answers(&mut self, id: ServerId, family: Family) {
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        server.link_mut(family).nonce = None;
        if !std::mem::replace(&mut server.is_proved, true) {
            self.events.push_back(Event::RememberServers);
        }
        if let (false, Some(key)) = (std::mem::replace(&mut server.is_pinned, true), server.key) {
            info!(server = %server.name, %key, "this is the key of the rendezvous server from now on");
        }
        if std::mem::take(&mut server.silent) {
            info!(server = %server.name, reason = "registered", "this rendezvous server answers again");
        }
    }

    /// How a server sees us: the others are told when it is not as before.
    pub(super) fn note_seen(&mut self, id: ServerId, family: Family, seen: SocketAddr) {
        let Some(server) = self.rendezvous.servers.get_mut(&id) else { return };
        let link = server.link_mut(family);
        link.seen = Some(seen);
        let before = link.told.replace(seen);
        if before.map(|before| before.ip()) != Some(seen.ip()) && seen.is_ipv4() {
            self.is_elsewhere();
        }
        if before != Some(seen) {
            debug!(addr = %seen, "a rendezvous server sees us there");
            self.compare_ports(id, family);
            self.tell_whereabouts();
        }
    }

    /// The servers that a network is registered on: the same two for all members that have the same list.
    pub(super) fn servers_of(&self, network: &NetworkKeys) -> Vec<ServerId> {
        let weight = |key: &ServerKey| hash::mac(&**network.namespace(), &[b"which server", &key.0]).bytes();
        let known = self.rendezvous.servers.iter().filter(|(_, server)| server.stranger().is_none());
        let mut known: Vec<_> = known.filter_map(|(id, server)| Some((weight(&server.key?), *id))).collect();
        known.sort();
        known.into_iter().rev().take(SERVERS_USED).map(|(_, id)| id).collect()
    }

    /// How servers see us, each address once.
    pub(super) fn seen_by_servers(&self) -> Vec<SocketAddr> {
        let links = self.rendezvous.servers.values().flat_map(|server| &server.links);
        let mut seen: Vec<_> = links.filter_map(|link| link.seen).collect();
        seen.sort();
        seen.dedup();
        seen
    }

    /// Whether our translator gives each destination another port: two who are elsewhere, servers or peers, or two ports of
    /// one server, see us at different ports of one address.
    pub(super) fn has_varying_port(&self) -> bool {
        if self.varies_by_one_server() {
            return true;
        }
        let mut seen = self.seen_by_servers();
        seen.extend(self.seen_by_peers().filter(|addr| addr.is_ipv4()));
        seen.sort();
        seen.dedup();
        seen.windows(2).any(|pair| pair[0].ip() == pair[1].ip())
    }

    /// The servers whose keys were seen to be theirs, to be known again after a restart.
    pub fn proved_servers(&self) -> Vec<RendezvousServer> {
        let proved = self.rendezvous.servers.values().filter(|server| server.is_proved);
        proved.map(|server| RendezvousServer { name: server.name.clone(), key: server.key }).collect()
    }

    /// The servers in use, each with the key that is configured or was proved.
    pub fn known_servers(&self) -> Vec<RendezvousServer> {
        let known = self.rendezvous.servers.values();
        let key = |server: &Server| server.key.filter(|_| server.is_pinned);
        known.map(|server| RendezvousServer { name: server.name.clone(), key: key(server) }).collect()
    }

    pub(crate) fn rendezvous_info(&self) -> Vec<RendezvousInfo<'static>> {
        let info = |server: &Server| {
            let registered = server.registrations.iter().any(Registration::is_kept);
            let state = if !self.is_registering() {
                "open-network"
            } else if server.stranger().is_some() {
                "wrong-key"
            } else if registered {
                "registered"
            } else if server.links.iter().all(|link| link.addr.is_none()) {
                "no-address"
            } else if server.links.iter().any(|link| link.cookie.is_some()) {
                "registering"
            } else {
                "connecting"
            };
            let members: BTreeSet<_> = server.registrations.iter().flat_map(Registration::members).collect();
            RendezvousInfo {
                server: server.name.clone().into(),
                state: state.into(),
                reflexive: server.links.iter().find_map(|link| link.seen),
                members: members.len() as u64,
            }
        };
        self.rendezvous.servers.values().map(info).collect()
    }
}
