//! What we have registered with rendezvous servers: one registration per server, namespace, day and address family, kept by a
//! lease (`leases.rs`), and what servers tell of the others there (rendezvous.md, 3).
//!
//! To the server and to whoever listens each registration is somebody else: it has a handle of its own, and a new one wherever
//! we are seen at another address.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::introductions::News;
use crate::core::leases::Lease;
use crate::core::pace::Pace;
use crate::core::rendezvous::{Family, ServerId};
use crate::core::timers::Timer;
use crate::crypto::claim::Claim;
use crate::crypto::namespace::NamespaceKeys;
use crate::crypto::network::{NetworkKeys, NetworkTag};
use crate::id::NodeId;
use crate::limits;
use crate::wire::presence::{Flags, Presence};
use crate::wire::rendezvous::{
    Bye, Day, Entry, Event, FromNode, Handle, List, NamespaceTag, Nonce, Page, size,
};

/// Lists that leave at once and a second: a server may not make us ask without end.
const LISTS_AT_ONCE: u32 = 64;
const LISTS_A_SECOND: u32 = 20;
/// That we are elsewhere than before is told so often at once, and then once a second: a server may say it with every answer.
pub(super) const TOLD_AT_ONCE: u32 = 4;
pub(super) const TOLD_A_SECOND: u32 = 1;
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Knocks remembered, so that a repeated one counts once.
const KNOCKS: usize = 64;

/// By which timers name a registration; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RegistrationId(u32);

/// Where a member is to be found: in which registration of ours, and by which handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(super) registration: RegistrationId,
    pub(super) handle: Handle,
}

/// One namespace of one server, in one address family.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) id: RegistrationId,
    pub(super) network: NetworkTag,
    day: Day,
    pub(super) family: Family,
    pub(super) keys: NamespaceKeys,
    /// Our handle, and how often it was registered.
    pub(super) claim: Claim,
    pub(super) seq: u32,
    /// Where the server saw us when it took it.
    pub(super) seen: Option<IpAddr>,
    /// Who we were before somebody said that we are elsewhere, which the server has not confirmed.
    before: Option<Before>,
    /// How far we know the others, by the server's answers.
    pub(super) version: u64,
    /// How far events went on from there: anybody may have written them who belongs to the network.
    heard: u64,
    /// Of the list that waits for its page.
    listing: Option<Nonce>,
    lists: Pace,
    members: BTreeMap<Handle, Known>,
    pub(super) lease: Lease,
    knocks: VecDeque<Nonce>,
}

/// A handle that a server took.
#[derive(Debug)]
struct Before {
    claim: Claim,
    seq: u32,
    seen: IpAddr,
}

/// Whose a handle is, and how often it was registered.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: NodeId,
    seq: u32,
}

impl Registration {
    /// Whether the server knows us there.
    pub(super) fn is_kept(&self) -> bool {
        self.lease.token.is_some()
    }

    /// The members that we know there.
    pub(super) fn members(&self) -> impl Iterator<Item = NodeId> {
        self.members.values().map(|known| known.id)
    }

    /// By which the server calls us.
    pub(super) const fn handle(&self) -> Handle {
        self.claim.handle()
    }

    /// As somebody whom neither the server nor anybody else has seen before.
    pub(super) fn begin_anew(&mut self, seed: [u8; 16]) {
        self.claim = Claim::from_seed(self.keys.namespace(), seed);
        (self.seq, self.seen, self.version, self.heard) = (0, None, 0, 0);
        (self.listing, self.lease, self.before) = (None, Lease::default(), None);
    }

    /// The same because we are said to be elsewhere: until the server confirms that, it may be taken back.
    fn begin_elsewhere(&mut self, seed: [u8; 16]) {
        let before = self.seen.map(|seen| Before { claim: self.claim.clone(), seq: self.seq, seen });
        self.begin_anew(seed);
        self.before = before;
    }

    /// The server took our handle where it sees us now.
    pub(super) fn taken_at(&mut self, ip: IpAddr) {
        (self.seen, self.before) = (Some(ip), None);
    }

    /// Whether `nonce` is that of a question of ours, or of the latest list or introduction: those may be refused too.
    pub(super) fn asked(&self, nonce: Nonce) -> bool {
        self.lease.asked(nonce) || self.lease.last_intro == Some(nonce) || self.listing == Some(nonce)
    }

    /// A retry says that our token is worth nothing any more; says whether to register at once. A register that was refused
    /// is repeated at its time, as if there had been no answer: a translator that changes our port with every packet
    /// would make us and the server talk without a pause.
    pub(super) fn refused(&mut self) -> bool {
        let had_token = self.lease.token.take().is_some();
        if had_token {
            self.lease.unanswered = 0;
        }
        (self.lease.last_keep, self.lease.last_intro) = (None, None);
        had_token
    }

    /// Whether this knock is the first one of its kind.
    pub(super) fn is_new_knock(&mut self, nonce: Nonce) -> bool {
        if self.knocks.contains(&nonce) {
            return false;
        }
        if self.knocks.len() >= KNOCKS {
            self.knocks.pop_front();
        }
        self.knocks.push_back(nonce);
        true
    }
}

impl Node {
    pub(super) fn registration(&self, id: RegistrationId) -> Option<(ServerId, &Registration)> {
        let all = self.rendezvous.servers.iter();
        all.flat_map(|(server, known)| known.registrations.iter().map(|it| (*server, it)))
            .find(|(_, known)| known.id == id)
    }

    pub(super) fn registration_mut(&mut self, id: RegistrationId) -> Option<(ServerId, &mut Registration)> {
        let all = self.rendezvous.servers.iter_mut();
        all.flat_map(|(server, known)| known.registrations.iter_mut().map(|it| (*server, it)))
            .find(|(_, known)| known.id == id)
    }

    /// By which registration of ours a member in `place` hears us: the one in which we heard of it, or that of the other family.
    pub(super) fn way_to(&mut self, place: Place) -> Option<(ServerId, &mut Registration)> {
        let (server, known) = self.registration(place.registration)?;
        let namespace = *known.keys.namespace();
        let there = &mut self.rendezvous.servers.get_mut(&server)?.registrations;
        let is_kept = |it: &Registration| it.is_kept() && *it.keys.namespace() == namespace;
        let first = there.iter().position(|it| is_kept(it) && it.id == place.registration);
        let at = first.or_else(|| there.iter().position(is_kept))?;
        Some((server, &mut there[at]))
    }

    /// Registers wherever members of our networks are to be found now, and nowhere else.
    pub(crate) fn update_registrations(&mut self) {
        let now = self.now;
        let mut wanted = Vec::new();
        let mut change = None;
        if self.is_registering() {
            let network = &self.config.network;
            for keys in std::iter::once(network.current()).chain(network.before()) {
                for server in self.servers_of(keys) {
                    let Some(known) = self.rendezvous.servers.get(&server) else { continue };
                    let (days, until) = known.days(now);
                    let both = |day| Family::ALL.map(|family| (server, keys.tag(), day, family));
                    wanted.extend(days.into_iter().flat_map(both));
                    change = change.into_iter().chain([until]).min();
                }
            }
        }
        let mut unwanted = Vec::new();
        for (server, known) in &self.rendezvous.servers {
            let is_wanted = |it: &&Registration| wanted.contains(&(*server, it.network, it.day, it.family));
            unwanted.extend(known.registrations.iter().filter(|it| !is_wanted(it)).map(|it| it.id));
        }
        for id in unwanted {
            self.leave_registration(id);
        }
        for (server, network, day, family) in wanted {
            self.register_on(server, network, day, family);
        }
        if let Some(until) = change {
            // Not all at the very second in which the day ends.
            let spread = self.jittered(Duration::from_secs(60));
            self.timers.set(Timer::NewDay, now + until + spread);
        }
    }

    fn register_on(&mut self, server: ServerId, network: NetworkTag, day: Day, family: Family) {
        let seed = self.random();
        let keys = self.config.network.of(network);
        let Some(known) = self.rendezvous.servers.get_mut(&server) else { return };
        let (Some(key), true) = (&known.key, known.link(family).cookie.is_some()) else { return };
        let is_it = |it: &&Registration| (it.network, it.day, it.family) == (network, day, family);
        if let Some(there) = known.registrations.iter().find(is_it) {
            let id = there.id;
            if !there.is_kept() && !self.timers.is_set(Timer::Lease(id)) {
                self.register(id);
            }
            return;
        }
        let Some(keys) = NamespaceKeys::of_day(keys, key, day) else { return };
        let id = RegistrationId(self.rendezvous.next_registration);
        self.rendezvous.next_registration += 1;
        known.registrations.push(Registration {
            id,
            network,
            day,
            family,
            claim: Claim::from_seed(keys.namespace(), seed),
            keys,
            seq: 0,
            seen: None,
            before: None,
            version: 0,
            heard: 0,
            listing: None,
            lists: Pace::new(LISTS_AT_ONCE, LISTS_A_SECOND),
            members: BTreeMap::new(),
            lease: Lease::default(),
            knocks: VecDeque::new(),
        });
        self.register(id);
    }

    /// A server sees us at `ip`: what was registered elsewhere is left to its lease. A bye would come from here, and so
    /// tell whoever hears it who we were there.
    pub(super) fn move_registrations(&mut self, server: ServerId, family: Family, ip: IpAddr) {
        let known = self.rendezvous.servers.get(&server).into_iter().flat_map(|it| &it.registrations);
        let elsewhere = known.filter(|it| it.family == family && it.seen.is_some_and(|seen| seen != ip));
        let ids: Vec<_> = elsewhere.map(|it| it.id).collect();
        for id in ids {
            let seed = self.random();
            self.timers.clear(Timer::Lease(id));
            if let Some((_, known)) = self.registration_mut(id) {
                known.begin_elsewhere(seed);
            }
        }
    }

    /// Of several answers to one hail a later one says that we are still at `ip`: who was somebody else by an earlier one is
    /// who it was. Else whoever answers before the server could make ever new members of us.
    pub(super) fn move_registrations_back(&mut self, server: ServerId, family: Family, ip: IpAddr) {
        let Some(known) = self.rendezvous.servers.get_mut(&server) else { return };
        let of_family = known.registrations.iter_mut().filter(|it| it.family == family);
        for known in of_family {
            if let Some(Before { claim, seq, seen }) = known.before.take_if(|before| before.seen == ip) {
                // It may register at once: whatever waits for an answer is of somebody who never was.
                self.timers.clear(Timer::Lease(known.id));
                (known.claim, known.seq, known.seen) = (claim, seq, Some(seen));
                known.lease = Lease::default();
            }
        }
    }

    /// Says in what we have registered where we are now, since that is not what it was; soon, if that was said just now.
    pub(crate) fn tell_whereabouts(&mut self) {
        if !self.rendezvous.told.take(self.now) {
            return self.timers.set_sooner(Timer::Whereabouts, self.now + TELL_AGAIN);
        }
        self.timers.clear(Timer::Whereabouts);
        let all = self.rendezvous.servers.values().flat_map(|server| &server.registrations);
        let ids: Vec<_> = all.filter(|it| it.is_kept()).map(|it| it.id).collect();
        for id in ids {
            if !self.register(id) {
                self.timers.set_sooner(Timer::Whereabouts, self.now + TELL_AGAIN);
            }
        }
    }

    /// Asks what needs no registration, or one that is known where we are now: from elsewhere its handle is not to be seen.
    pub(super) fn ask_server(&mut self, server: ServerId, family: Family, message: &FromNode<'_>) {
        let Some(known) = self.rendezvous.servers.get_mut(&server) else { return };
        let link = known.link(family);
        let may = link.cookie.is_some() || matches!(message, FromNode::Hail(_));
        let Some(addr) = link.addr.filter(|_| may) else { return };
        let mut bytes = Vec::new();
        message.write(size::MESSAGE_MAX, &mut bytes);
        self.send_to_server(addr, &bytes);
    }

    /// The registration at `server` in which a question with `nonce` waits for its answer, if it is the server that
    /// answers.
    pub(super) fn answered(
        &mut self,
        server: ServerId,
        datagram: &[u8],
        asked: impl Fn(&Registration) -> bool,
    ) -> Result<&mut Registration, Dropped> {
        let known = self.rendezvous.servers.get_mut(&server).ok_or(Dropped::Unexpected)?;
        let registration = known.registrations.iter_mut().find(|it| asked(it)).ok_or(Dropped::Unexpected)?;
        if !registration.keys.check(datagram) {
            return Err(Dropped::Unauthenticated);
        }
        Ok(registration)
    }

    pub(super) fn on_page(
        &mut self,
        server: ServerId,
        datagram: &[u8],
        page: &Page<'_>,
    ) -> Result<(), Dropped> {
        let known = self.answered(server, datagram, |it| it.listing == Some(page.nonce))?;
        known.listing = None;
        known.lease.unanswered = 0;
        known.heard = 0;
        let id = known.id;
        self.on_entries(id, page.entries, News::Ours);
        self.reached_version(id, page.upto, page.version);
        Ok(())
    }

    /// Every member could have written an event, and knows when: so it is a hint. What it tells of members they have signed;
    /// of who left, and how far we know the others now, only answers tell.
    pub(super) fn on_server_event(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        event: &Event<'_>,
    ) -> Result<(), Dropped> {
        let is_it = |it: &Registration| it.family == family && it.is_named(event.namespace);
        let known = self.answered(server, datagram, is_it)?;
        let (id, reached) = (known.id, known.version.max(known.heard));
        if event.since <= reached {
            known.heard = reached.max(event.upto);
        }
        // Whoever came was told of us at once.
        let here = event.entries.filter(|entry| entry.blob.is_some());
        self.on_entries(id, here, News::Both);
        if event.since > reached {
            self.list(id);
        }
        Ok(())
    }

    /// We know the namespace up to `upto`, and the server up to `version`: asks for the rest.
    pub(super) fn reached_version(&mut self, id: RegistrationId, upto: u64, version: u64) {
        let Some((_, known)) = self.registration_mut(id) else { return };
        known.version = known.version.max(upto);
        if known.version < version {
            self.list(id);
        }
    }

    fn list(&mut self, id: RegistrationId) {
        let (nonce, now) = (Nonce(self.random()), self.now);
        let Some((server, known)) = self.registration_mut(id) else { return };
        let Some(token) = known.lease.token else { return };
        if !known.lists.take(now) {
            // The next answer to a keep tells us again that we lack some.
            return;
        }
        known.listing = Some(nonce);
        let (namespace, handle, family) = (*known.keys.namespace(), known.handle(), known.family);
        let list = List { nonce, namespace, handle, token, known: known.version };
        self.ask_server(server, family, &FromNode::List(list));
    }

    /// The server told of members.
    pub(super) fn on_entries<'a>(
        &mut self,
        id: RegistrationId,
        entries: impl Iterator<Item = Entry<'a>>,
        news: News,
    ) {
        for entry in entries {
            let Some((_, known)) = self.registration_mut(id) else { return };
            let place = Place { registration: id, handle: entry.handle };
            let Some(blob) = entry.blob else {
                if let Some(left) = known.members.remove(&entry.handle) {
                    self.member_left(left.id, place);
                }
                continue;
            };
            let is_old = |known: &Known| entry.seq < known.seq;
            if entry.handle == known.handle() || known.members.get(&entry.handle).is_some_and(is_old) {
                continue;
            }
            let (namespace, network) = (*known.keys.namespace(), known.network);
            let keys: &NetworkKeys = self.config.network.of(network);
            let Some(presence) = keys.open_presence(blob, &namespace, entry.handle, entry.seq) else {
                continue;
            };
            // Ourselves in the other family, or where we were before.
            if presence.id != self.id && self.note_handle(place, presence.id, entry.seq) {
                self.heard_of_member(presence, network, place, news);
            }
        }
    }

    /// In this place is `id`, and nobody else any more; says whether there is room for it.
    pub(super) fn note_handle(&mut self, place: Place, id: NodeId, seq: u32) -> bool {
        let Some((_, known)) = self.registration_mut(place.registration) else { return false };
        if known.members.len() >= limits::PEERS && !known.members.contains_key(&place.handle) {
            return false;
        }
        let before = known.members.get(&place.handle).copied();
        let seq = before.map_or(seq, |before| before.seq.max(seq));
        known.members.insert(place.handle, Known { id, seq });
        // One handle with ever other names would fill our memory with them.
        if let Some(before) = before.filter(|before| before.id != id) {
            self.member_left(before.id, place);
        }
        true
    }

    /// What the others are to know of us.
    pub(super) fn presence(&self) -> Presence {
        Presence { id: self.id, boot: self.boot, flags: self.flags(), candidates: self.own_candidates() }
    }

    pub(super) fn flags(&self) -> Flags {
        let all = [
            (self.config.relay, Flags::RELAY),
            (self.has_varying_port(), Flags::VARYING_PORT),
            (self.has_birthdays(), Flags::GUESSES),
        ];
        let none = Flags::default();
        all.into_iter().fold(none, |flags, (is, flag)| if is { flags.with(flag) } else { flags })
    }

    pub(super) fn leave_registration(&mut self, id: RegistrationId) {
        let nonce = Nonce(self.random());
        let Some((server, known)) = self.registration(id) else { return };
        let (namespace, handle, family) = (*known.keys.namespace(), known.handle(), known.family);
        if let Some(token) = known.lease.token {
            self.ask_server(server, family, &FromNode::Bye(Bye { nonce, namespace, handle, token }));
        }
        self.timers.clear(Timer::Lease(id));
        if let Some(server) = self.rendezvous.servers.get_mut(&server) {
            server.registrations.retain(|it| it.id != id);
        }
        self.forget_place(id);
    }

    /// Takes back what we have registered with a server.
    pub(super) fn leave_server(&mut self, server: ServerId) {
        let known = self.rendezvous.servers.get(&server).into_iter().flat_map(|it| &it.registrations);
        let ids: Vec<_> = known.map(|it| it.id).collect();
        for id in ids {
            self.leave_registration(id);
        }
        for family in Family::ALL {
            self.timers.clear(Timer::Hail(server, family));
            self.timers.clear(Timer::SecondPort(server, family));
        }
        self.timers.clear(Timer::LookUp(server));
    }

    /// Takes back all.
    pub(crate) fn leave_servers(&mut self) {
        let ids: Vec<_> = self.rendezvous.servers.keys().copied().collect();
        for id in ids {
            self.leave_server(id);
        }
    }
}

impl Registration {
    pub(super) fn is_named(&self, tag: NamespaceTag) -> bool {
        self.keys.namespace().tag() == tag
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn place(registration: u32, handle: u8) -> Place {
        Place { registration: RegistrationId(registration), handle: Handle([handle; 16]) }
    }
}
