//! Finding and being found on the LAN: adverts, hellos, introductions (protocol.md, 7 and 8).
//!
//! Whatever is heard here is a hint: it makes us send a first message, and nothing else. Whoever hears first acts, so
//! one direction of multicast is enough. A start, a changed network and a lost session are kicks: each greets everyone
//! four times within 1.4 s and browses for a few seconds. Whom that does not find is looked for on and on, ever more
//! seldom (`looking.rs`); when nobody is missed the LAN is quiet.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Advert, Destination, Dropped, Event, IpAddrScoped, Route, Sighting};
use crate::core::heard::Channel;
use crate::core::pace::Pace;
use crate::core::paths::Source;
use crate::core::relays::is_relayed;
use crate::core::timers::Timer;
use crate::crypto::network::{NetworkKeys, NetworkKind, NetworkTag};
use crate::id::{NodeId, NodeName};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::Record;
use crate::wire::packet::{field, size};
use crate::wire::txt::Txt;

/// When a kick greets again, counted from the greeting before: at 0, 0.2, 0.6 and 1.4 s. A single multicast frame is
/// lost on Wi-Fi as a matter of course.
const HELLO_STEPS: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(800)];
/// A kick so soon after another joins it.
const KICK_GAP: Duration = Duration::from_millis(1500);
/// How long a kick browses: until the third query of the schedule of RFC 6762, 5.2.
const BROWSE: Duration = Duration::from_secs(5);
/// How long we browse for one question: the second one of that schedule is due a second after the first.
const BROWSE_BRIEFLY: Duration = Duration::from_millis(900);
/// How often we browse without a reason, times half the number of peers: on the whole LAN about once in this time.
const BROWSE_AGAIN: Duration = Duration::from_secs(600);
/// Introductions in one record: 20 addresses fit one datagram.
const INTRODUCTIONS: usize = 20;
/// Bytes of one of them at most, in a record of them.
const INTRODUCTION_BYTES: usize = 56;
/// Peers introduced at once; a larger network is introduced by more than one peer.
const INTRODUCED: usize = 128;
/// Records of introductions that leave in a burst, and a second, to all peers together: when many nodes start at once,
/// each new session of each would bring all it knows else, and most of it would be known.
const INTRODUCTIONS_BURST: u32 = 64;
const INTRODUCTIONS_A_SECOND: u32 = 32;
/// Introductions are told to one peer no more often than this, and while nothing changes, twice as late each time.
const COMPARE: Duration = Duration::from_secs(1);
const COMPARE_MAX: Duration = Duration::from_secs(600);
/// A difference that is older is not one of a network that was parted for a moment.
const PARTED: Duration = Duration::from_secs(60);
/// A teller of so many hints that led nowhere is ignored for a while.
const FAILED_HINTS: u32 = 32;
/// Hints of one teller that are followed at once.
const UNPROVED_HINTS: usize = 32;
const IGNORED: Duration = Duration::from_secs(600);

/// What we do to find others.
#[derive(Debug)]
pub(crate) struct Lan {
    hellos_left: usize,
    kicked: Option<Instant>,
    browsing: Option<Browse>,
    /// When we browse again without a reason.
    browse_again: Instant,
    static_peers: Vec<SocketAddr>,
    /// The nonces of our last hellos: networks send them back.
    greeted: VecDeque<[u8; size::NONCE]>,
    /// Who is behind each advert that we see: mDNS names only the label when one vanishes.
    seen: BTreeMap<String, NodeId>,
    /// Of records of introductions.
    introductions: Pace,
}

impl Default for Lan {
    fn default() -> Self {
        Self {
            hellos_left: 0,
            kicked: None,
            browsing: None,
            browse_again: Instant::default(),
            static_peers: Vec::new(),
            greeted: VecDeque::new(),
            seen: BTreeMap::new(),
            introductions: Pace::new(INTRODUCTIONS_BURST, INTRODUCTIONS_A_SECOND),
        }
    }
}

/// For how long we browse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Browse {
    /// All who are here have the time to answer.
    Long,
    /// One question: what comes is a hint, and what does not come says nothing.
    Brief,
}

/// A difference between whom a peer knows and whom we know.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Theirs and ours.
    digests: (u64, u64),
    /// Since when they have been these.
    begun: Instant,
    /// From when on it may be told again.
    again: Instant,
    pause: Duration,
}

impl Lan {
    /// Whether a configured peer is at `addr`.
    pub(crate) fn is_static(&self, addr: IpAddr) -> bool {
        self.static_peers.iter().any(|known| known.ip() == addr)
    }
}

impl Node {
    /// Makes us known and looks who is there: at start and when the network changed.
    pub(crate) fn appear(&mut self) {
        if self.config.mdns {
            let advert = self.advert();
            self.events.push_back(Event::Announce(advert));
        }
        if !self.timers.is_set(Timer::Cookie) {
            self.on_cookie_timer();
        }
        self.kick("start");
    }

    /// Nothing of the network before is to be seen in the one that we belong to now.
    pub(crate) fn change_network(&mut self) {
        self.lan.kicked = None;
        self.lan.seen.clear();
        self.forget_heard();
        self.appear();
        self.seek_remembered();
        self.update_registrations();
        self.hail_all();
        let configured = self.lan.static_peers.clone();
        self.stop_whois(&[]);
        self.ask_static(&configured);
    }

    pub(crate) fn port(&self) -> u16 {
        self.config.udp.first().map_or(0, SocketAddr::port)
    }

    /// In the open network the name and the key, in a private one nothing that a stranger could recognise.
    fn advert(&mut self) -> Advert {
        let port = self.port();
        match self.config.network.current().kind() {
            NetworkKind::Open => {
                let short = self.id.short();
                let label = open_label(self.config.name.as_str(), &short);
                Advert { label, host: short, port, txt: Txt::Open(self.id) }
            }
            NetworkKind::Private => {
                let mut label = crate::id::base32(&self.random());
                let mut host = crate::id::base32(&self.random());
                label.truncate(13);
                host.truncate(13);
                let nonce = self.random();
                let sealed = self.config.network.current().seal_txt(&self.id, nonce, &label, port);
                Advert { label, host, port, txt: Txt::Sealed(sealed) }
            }
        }
    }

    /// Greets everyone and browses, for a while.
    pub(crate) fn kick(&mut self, reason: &'static str) {
        let recent = self.lan.kicked.is_some_and(|kicked| self.now.since(kicked) < KICK_GAP);
        if recent {
            return;
        }
        debug!(reason, "looking for peers");
        self.lan.kicked = Some(self.now);
        if self.config.hello {
            self.lan.hellos_left = HELLO_STEPS.len();
            self.greet();
        }
        if self.config.mdns {
            self.browse();
        }
        self.ask_configured_anew();
        self.look_anew();
    }

    fn browse(&mut self) {
        self.lan.browsing = Some(Browse::Long);
        self.note_browse_began();
        self.events.push_back(Event::Browse);
        self.timers.set(Timer::Browse, self.now + BROWSE);
    }

    /// Asks once by multicast DNS, unless we browse anyway.
    pub(super) fn browse_briefly(&mut self) {
        if self.lan.browsing.is_none() {
            self.lan.browsing = Some(Browse::Brief);
            // Our own answer to our question would cost as much as the question.
            self.events.push_back(if self.config.hello { Event::Ask } else { Event::Browse });
            self.timers.set(Timer::Browse, self.now + BROWSE_BRIEFLY);
        }
    }

    fn greet(&mut self) {
        self.say_hello(Destination::Everyone);
        let step = HELLO_STEPS.len() - self.lan.hellos_left.min(HELLO_STEPS.len());
        if let Some(pause) = HELLO_STEPS.get(step) {
            self.lan.hellos_left -= 1;
            self.timers.set(Timer::Hello, self.now + *pause);
        }
    }

    pub(super) fn say_hello(&mut self, to: Destination) {
        let nonce = self.random();
        if self.lan.greeted.len() > HELLO_STEPS.len() {
            self.lan.greeted.pop_front();
        }
        self.lan.greeted.push_back(nonce);
        let port = self.port();
        let hello = self.config.network.current().seal_hello(&self.id, nonce, port);
        self.outbox.push(to, &hello);
    }

    pub(crate) fn on_hello_timer(&mut self) {
        self.greet();
    }

    pub(crate) fn on_browse_timer(&mut self) {
        let Some(browse) = self.lan.browsing.take() else {
            // Who is alone asks with each look.
            return if self.is_alone() { self.browse_later() } else { self.browse() };
        };
        self.events.push_back(Event::StopBrowse);
        if browse == Browse::Long {
            self.note_browse_ended();
            self.browse_later();
        } else {
            let again = self.lan.browse_again.max(self.now + BROWSE_BRIEFLY);
            self.timers.set(Timer::Browse, again);
        }
    }

    fn browse_later(&mut self) {
        let (online, _) = self.peers.counts();
        let factor = u32::try_from(online.div_ceil(2)).unwrap_or(u32::MAX).max(1);
        self.lan.browse_again = self.now + self.jittered(BROWSE_AGAIN * factor);
        self.timers.set(Timer::Browse, self.lan.browse_again);
    }

    /// Our addresses changed: everyone is to know, and what we used may not work any more.
    pub(crate) fn on_links_changed(&mut self) {
        self.lan.kicked = None;
        let links = &self.links;
        for (_, peer) in self.peers.iter_mut() {
            peer.candidates.follow(links);
        }
        self.prospects.follow(links);
        if self.config.network.current().kind() == NetworkKind::Private {
            // The label and the nonce of the old network would link us to it.
            self.appear();
        } else {
            self.kick("network changed");
        }
        for id in self.peers.online() {
            let Some(peer) = self.peers.get(&id) else { continue };
            let (is_suspect, path) = (peer.liveness.is_suspect(), peer.path);
            if self.leave_lost_interface(id) || is_suspect {
                // Perhaps it was our own network that was silent.
                self.question(id, 0);
            } else if let Some(path) = path {
                // Also tells the peer where we are now.
                self.ask(id, Route { local: None, ..path });
            }
        }
        self.follow_mtu();
        self.seek_remembered();
        self.hail_all();
    }

    pub(crate) fn on_hello(&mut self, via: Route, packet: &[u8; size::HELLO]) -> Result<(), Dropped> {
        let opened = self.config.network.find(|keys| keys.open_hello(packet));
        let ((id, port), network) = opened.ok_or(Dropped::Unauthenticated)?;
        if self.lan.greeted.iter().any(|nonce| *nonce == packet[field::NONCE]) {
            return Err(Dropped::Unexpected);
        }
        if port != via.remote.port()
            || !self.links.on_link(via.remote.ip())
            || !self.may_be_a_peer(via.remote)
        {
            return Err(Dropped::ForeignAddress);
        }
        if id == self.id {
            self.look_for_copy(Route { local: None, ..via });
            return Ok(());
        }
        // It came to the hello port: the answer leaves from the session's.
        self.note_heard(id, Channel::Hello, via.remote);
        self.sighted(id, Route { local: None, ..via }, network);
        Ok(())
    }

    pub(crate) fn on_sighting(&mut self, hint: Sighting) {
        match hint {
            Sighting::Seen { label, port, txt, addrs } => {
                let opened = self.config.network.find(|keys| advertised(keys, &label, port, &txt));
                let Some((id, network)) = opened else { return };
                if id == self.id {
                    let foreign =
                        |addr: &&IpAddrScoped| self.links.on_link(addr.addr) && !self.links.is_own(addr.addr);
                    if let Some(addr) = addrs.iter().find(foreign) {
                        self.look_for_copy(Route::to(socket_addr(*addr, port)));
                    }
                    return;
                }
                if self.lan.seen.len() >= limits::PEERS {
                    // Somebody makes them up: what is lost is a hint that one vanished.
                    self.lan.seen.clear();
                }
                self.lan.seen.insert(label, id);
                for addr in addrs.iter().take(limits::LEARNT_CANDIDATES) {
                    let remote = socket_addr(*addr, port);
                    if self.links.on_link(addr.addr) && self.may_be_a_peer(remote) {
                        self.note_heard(id, Channel::Mdns, remote);
                        self.sighted(id, Route::to(remote), network);
                    }
                }
            }
            Sighting::Lost { label } => {
                if let Some(id) = self.lan.seen.remove(&label) {
                    self.suspect(id);
                }
            }
        }
    }

    /// Somebody says that `id` is at `route`. A peer that we have a session with is only asked: it may have restarted. A
    /// dormant one is asked at a new address only: it tells its neighbours if it restarted, and they bring us together.
    /// It spoke with the secret of `network`.
    fn sighted(&mut self, id: NodeId, route: Route, network: NetworkTag) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return self.seek_in(network, id, Some((route, Source::Seen)), None);
        };
        let mut new = Vec::new();
        for way in self.links.ways(route) {
            if !peer.candidates.iter().any(|candidate| candidate.route.is_way_of(&way)) {
                new.push(way);
            }
            peer.candidates.add(way, Source::Seen);
        }
        let known = new.is_empty();
        self.try_other_interfaces(id, new);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.is_online() {
            if peer.liveness.is_suspect() && peer.current.is_some() {
                // Its next question may come too late, or never.
                self.challenge(id, route);
            } else if peer.current.is_some() || !known {
                self.suspect(id);
            }
        } else {
            self.seek_in(network, id, Some((route, Source::Seen)), None);
        }
    }

    /// The addresses of the configured peers, complete.
    pub(crate) fn ask_static(&mut self, addrs: &[SocketAddr]) {
        self.lan.static_peers = addrs.to_vec();
        self.stop_whois(addrs);
        for addr in addrs {
            self.ask_whois(*addr);
        }
        self.look_on();
    }

    /// The first thing that is told in a new session: who we are, whom we know, what we listen to.
    pub(crate) fn introduce_ourselves(&mut self, id: NodeId) {
        let peers = self.acquaintances();
        let topics = self.topics.version();
        let name = self.config.name.clone();
        self.tell(id, &Record::About { name: name.as_str(), peers, topics });
        // Whoever commits first must be heard at once: the other side only believes us then.
        self.flush(id);
        self.tell_topics(id);
    }

    /// We are called otherwise from now on: everybody is told, those online and who looks by mDNS.
    pub(crate) fn rename(&mut self, name: NodeName) {
        if name == self.config.name {
            return;
        }
        self.config.name = name;
        // In a private network nothing that is announced has the name in it.
        if self.config.mdns && self.config.network.current().kind() == NetworkKind::Open {
            let advert = self.advert();
            self.events.push_back(Event::Announce(advert));
        }
        let (peers, topics) = (self.acquaintances(), self.topics.version());
        let name = self.config.name.clone();
        for id in self.peers.online() {
            if self.peers.get(&id).is_some_and(|peer| peer.current.is_some()) {
                self.tell(id, &Record::About { name: name.as_str(), peers, topics });
            }
        }
        self.presence_changed(self.id);
    }

    /// A digest of who is online, ourselves included: equal on two members of a full mesh.
    pub(super) fn acquaintances(&self) -> u64 {
        self.peers.digest() ^ self.id.digest()
    }

    /// The peer says whom it knows, in one number. If we know others it is told whom, and where; and less and less often
    /// while nothing changes, since some can never meet.
    pub(crate) fn compare_acquaintances(&mut self, id: NodeId, theirs: u64) {
        let (now, ours) = (self.now, self.acquaintances());
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let before = peer.comparison.take().filter(|_| theirs != ours);
        let same = before.as_ref().filter(|before| before.digests == (theirs, ours));
        let begun = same.map_or(now, |before| before.begun);
        let pause = match before {
            Some(before) if now < before.again => {
                peer.comparison = Some(before);
                return;
            }
            // For a while the two may only be parted, and the first chance to meet again shall not be missed.
            Some(before) if before.digests == (theirs, ours) && now.since(before.begun) >= PARTED => {
                (before.pause * 2).min(COMPARE_MAX)
            }
            Some(_) | None => COMPARE,
        };
        if theirs != ours {
            peer.comparison = Some(Comparison { digests: (theirs, ours), begun, again: now + pause, pause });
            self.introduce_others(id);
        }
    }

    fn introduce_others(&mut self, id: NodeId) {
        let Some(to) = self.peers.get(&id).and_then(|peer| peer.path) else { return };
        if self.lan.introductions.room(self.now) == 0 {
            // Who is to be told is a look at all peers.
            return;
        }
        let mut entries = Vec::new();
        for (other, peer) in self.peers.iter().filter(|(other, _)| **other != id) {
            if let Some(path) = peer.path.filter(|_| peer.is_near())
                && (!path.remote.ip().is_loopback() || to.remote.ip().is_loopback())
            {
                entries.push((*other, without_scope(path.remote)));
            }
        }
        let room = INTRODUCED.min(self.lan.introductions.room(self.now) * INTRODUCTIONS);
        if entries.len() > room {
            // Others than the last time, so that who needs them all gets them all.
            let first = self.rng.next_u64() % entries.len() as u64;
            entries.rotate_left(first as usize);
            entries.truncate(room);
        }
        let room = self.peers.get(&id).map_or(0, |peer| peer.datagram_bytes);
        let fitting = (room.saturating_sub(size::DATA_OVERHEAD) / INTRODUCTION_BYTES).clamp(1, INTRODUCTIONS);
        for chunk in entries.chunks(fitting) {
            self.lan.introductions.take(self.now);
            self.tell(id, &Record::Peers { entries: chunk.to_vec() });
        }
    }

    pub(crate) fn on_introductions(&mut self, from: NodeId, via: Route, entries: &[(NodeId, SocketAddr)]) {
        let now = self.now;
        if self.peers.get(&from).is_none_or(|teller| now < teller.hints_ignored_until) {
            return;
        }
        for (id, addr) in entries.iter().take(INTRODUCED) {
            let online = self.peers.get(id).is_some_and(|peer| peer.is_online());
            let loopback = addr.ip().is_loopback() && !via.remote.ip().is_loopback();
            if online || loopback || !self.may_be_a_peer(*addr) || *id == self.id {
                continue;
            }
            if self.prospects.told_by(from) >= UNPROVED_HINTS {
                return;
            }
            let route = Route::to(with_scope_of(*addr, via.remote));
            self.seek(*id, Some((route, Source::Hearsay)), Some(from));
        }
    }

    /// Whether a hint to this address may be followed: no group, no broadcast, and in the open network no address of
    /// the internet. A hint is not worth more than who may give it.
    fn may_be_a_peer(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        let group = ip.is_unspecified() || ip.is_multicast() || self.links.is_broadcast(ip) || is_relayed(ip);
        let open = self.config.network.current().kind() == NetworkKind::Open;
        addr.port() != 0 && !group && (!open || self.links.is_local_network(ip))
    }

    /// A hint of `teller` led nowhere.
    pub(crate) fn blame(&mut self, teller: NodeId) {
        let until = self.now + IGNORED;
        let Some(teller) = self.peers.get_mut(&teller) else { return };
        teller.failed_hints += 1;
        if teller.failed_hints >= FAILED_HINTS {
            teller.failed_hints = 0;
            teller.hints_ignored_until = until;
        }
    }
}

fn advertised(network: &NetworkKeys, label: &str, port: u16, txt: &Txt) -> Option<NodeId> {
    match (network.kind(), txt) {
        (NetworkKind::Open, Txt::Open(id)) => Some(*id),
        (NetworkKind::Private, Txt::Sealed(sealed)) => network.open_txt(sealed, label, port),
        (NetworkKind::Open, Txt::Sealed(_)) | (NetworkKind::Private, Txt::Open(_)) => None,
    }
}

/// `name (short id)`, the name cut so that the whole is a DNS label.
fn open_label(name: &str, short: &str) -> String {
    let room = limits::NAME_BYTES - short.len() - " ()".len();
    let mut end = room.min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ({short})", &name[..end])
}

fn socket_addr(addr: IpAddrScoped, port: u16) -> SocketAddr {
    match addr.addr {
        IpAddr::V4(v4) => (v4, port).into(),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, addr.scope).into(),
        IpAddr::V6(v6) => (v6, port).into(),
    }
}

/// An interface's number means nothing to another host.
fn without_scope(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => SocketAddrV6::new(*v6.ip(), v6.port(), 0, 0).into(),
    }
}

/// A link-local address that a neighbour told is on the link on which we reach the neighbour.
fn with_scope_of(addr: SocketAddr, teller: SocketAddr) -> SocketAddr {
    match (addr, teller) {
        (SocketAddr::V6(v6), SocketAddr::V6(teller)) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, teller.scope_id()).into()
        }
        _ => without_scope(addr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_so_that_the_label_stays_a_label() {
        assert_eq!(open_label("pi-attic", "k7q3m2fd"), "pi-attic (k7q3m2fd)");
        let label = open_label(&"é".repeat(31), "k7q3m2fd");
        assert!(label.len() <= limits::NAME_BYTES);
        assert!(label.ends_with(" (k7q3m2fd)"));
    }

    #[test]
    fn a_link_local_address_that_was_told_gets_the_interface_of_the_teller() {
        let told: SocketAddr = "[fe80::2%9]:5".parse().unwrap();
        let teller: SocketAddr = "[fe80::1%3]:5".parse().unwrap();
        assert_eq!(with_scope_of(told, teller), "[fe80::2%3]:5".parse().unwrap());
        let elsewhere: SocketAddr = "10.0.0.1:5".parse().unwrap();
        assert_eq!(with_scope_of(told, elsewhere), "[fe80::2]:5".parse().unwrap());
    }
}
