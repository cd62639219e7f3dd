//! What we have registered with rendezvous servers: one registration per server, namespace and day, with a lease in each
//! address family (rendezvous.md, 3).
//!
//! ```text
//! lease:  none -- register --> asked -- welcome --> kept -- keep, kept ... --> kept
//!                                ^                    |
//!                                +---- retry ---------+  another address, or the server forgot us
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::introductions::News;
use crate::core::lease::{KEEP, Lease};
use crate::core::pace::Pace;
use crate::core::rendezvous::{Family, ServerId};
use crate::core::timers::Timer;
use crate::crypto::namespace::NamespaceKeys;
use crate::crypto::network::{NetworkKeys, NetworkTag};
use crate::id::NodeId;
use crate::limits;
use crate::wire::presence::{Flags, Presence};
use crate::wire::rendezvous::{
    Bye, Day, Entries, Event, FromNode, Handle, Keep, Kept, List, NamespaceTag, Nonce, Nope, Page, Register,
    Token, Welcome, size,
};

/// From one unanswered question to the next; after the last one the server is hailed again.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2)];
/// After so many registers that were refused the next one is later.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// Lists that leave at once and a second: a server may not make us ask without end.
const LISTS_AT_ONCE: u32 = 64;
const LISTS_A_SECOND: u32 = 20;
/// How often a server may want to hear of us, and how long it may make us wait, whatever it says.
const KEEP_SECONDS: RangeInclusive<u16> = 5..=60;
const AGAIN_SECONDS: RangeInclusive<u16> = 1..=600;
const REGISTER_AFTER_SECONDS_MAX: u16 = 120;
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

/// One namespace of one server.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) id: RegistrationId,
    pub(super) network: NetworkTag,
    day: Day,
    pub(super) keys: NamespaceKeys,
    pub(super) handle: Handle,
    seq: u32,
    /// How far we know the others.
    version: u64,
    /// Of the list that waits for its page.
    listing: Option<Nonce>,
    lists: Pace,
    members: BTreeMap<Handle, NodeId>,
    pub(super) leases: [Lease; 2],
    knocks: VecDeque<Nonce>,
}

impl Registration {
    /// Whether the server knows us there.
    pub(super) fn is_kept(&self) -> bool {
        self.leases.iter().any(|lease| lease.token.is_some())
    }

    /// How many members we know there.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Whether `nonce` is that of a question of ours, or of the latest list or introduction: those may be refused too.
    pub(super) fn asked(&self, family: Family, nonce: Nonce) -> bool {
        let lease = &self.leases[family as usize];
        lease.asked(nonce) || lease.last_intro == Some(nonce) || self.listing == Some(nonce)
    }

    /// The server answered the question with `nonce` by a retry: our token is worth nothing any more. A refused register
    /// is repeated at its time, as if there had been no answer: a translator that changes our port with every packet
    /// would make us and the server talk without a pause.
    pub(super) fn refused(&mut self, family: Family, nonce: Nonce) {
        if self.asked(family, nonce) {
            let lease = &mut self.leases[family as usize];
            if lease.token.take().is_some() {
                lease.unanswered = 0;
            }
            (lease.nonce, lease.last_keep, lease.last_intro) = (None, None, None);
        }
    }

    /// What proves to the server that we are registered, and in which family it counts.
    pub(super) fn token(&self) -> Option<(Family, Token)> {
        Family::ALL.into_iter().find_map(|family| Some((family, self.leases[family as usize].token?)))
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
    fn registration(&self, id: RegistrationId) -> Option<(ServerId, &Registration)> {
        let all = self.rendezvous.servers.iter();
        all.flat_map(|(server, known)| known.registrations.iter().map(|it| (*server, it)))
            .find(|(_, known)| known.id == id)
    }

    pub(super) fn registration_mut(&mut self, id: RegistrationId) -> Option<(ServerId, &mut Registration)> {
        let all = self.rendezvous.servers.iter_mut();
        all.flat_map(|(server, known)| known.registrations.iter_mut().map(|it| (*server, it)))
            .find(|(_, known)| known.id == id)
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
                    wanted.extend(days.into_iter().map(|day| (server, keys.tag(), day)));
                    change = change.into_iter().chain([until]).min();
                }
            }
        }
        let mut unwanted = Vec::new();
        for (server, known) in &self.rendezvous.servers {
            let is_wanted = |it: &&Registration| wanted.contains(&(*server, it.network, it.day));
            unwanted.extend(known.registrations.iter().filter(|it| !is_wanted(it)).map(|it| it.id));
        }
        for id in unwanted {
            self.leave_registration(id);
        }
        for (server, network, day) in wanted {
            self.register_on(server, network, day);
        }
        if let Some(until) = change {
            // Not all at the very second in which the day ends.
            let spread = self.jittered(Duration::from_secs(60));
            self.timers.set(Timer::NewDay, now + until + spread);
        }
    }

    fn register_on(&mut self, server: ServerId, network: NetworkTag, day: Day) {
        let handle = Handle(self.random());
        let keys = self.config.network.of(network);
        let Some(known) = self.rendezvous.servers.get_mut(&server) else { return };
        let Some(key) = &known.key else { return };
        let there = known.registrations.iter().find(|it| it.network == network && it.day == day);
        let id = if let Some(there) = there {
            there.id
        } else {
            let Some(keys) = NamespaceKeys::of_day(keys, key, day) else { return };
            let id = RegistrationId(self.rendezvous.next_registration);
            self.rendezvous.next_registration += 1;
            known.registrations.push(Registration {
                id,
                network,
                day,
                keys,
                handle,
                seq: 0,
                version: 0,
                listing: None,
                lists: Pace::new(LISTS_AT_ONCE, LISTS_A_SECOND),
                members: BTreeMap::new(),
                leases: Default::default(),
                knocks: VecDeque::new(),
            });
            id
        };
        for family in Family::ALL {
            let Some((server, known)) = self.registration(id) else { return };
            let lease = &known.leases[family as usize];
            let idle = lease.token.is_none() && lease.nonce.is_none() && lease.unanswered == 0;
            let reached =
                self.rendezvous.servers.get(&server).is_some_and(|it| it.link(family).cookie.is_some());
            if idle && reached {
                self.register(id, family);
            }
        }
    }

    /// Says in what we have registered where we are now, since that is not what it was.
    pub(crate) fn tell_whereabouts(&mut self) {
        let all = self.rendezvous.servers.values().flat_map(|server| &server.registrations);
        let ids: Vec<_> = all.filter_map(|it| Some((it.id, it.token()?.0))).collect();
        for (id, family) in ids {
            self.register(id, family);
        }
    }

    fn register(&mut self, id: RegistrationId, family: Family) {
        let (nonce, seal_nonce) = (Nonce(self.random()), self.random());
        let presence = self.presence();
        let Some((server, known)) = self.registration_mut(id) else { return };
        known.seq += 1;
        let (seq, handle, namespace, network) =
            (known.seq, known.handle, *known.keys.namespace(), known.network);
        let known_version = known.version;
        let lease = &mut known.leases[family as usize];
        lease.nonce = Some(nonce);
        let pause = AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1];
        lease.unanswered += 1;
        let blob =
            self.config.network.of(network).seal_presence(&presence, &namespace, handle, seq, seal_nonce);
        let Some(link) = self.rendezvous.servers.get(&server).map(|it| it.link(family)) else { return };
        let (Some(addr), Some(cookie), Some(seen)) = (link.addr, link.cookie, link.seen) else { return };
        let mut message = Vec::with_capacity(size::MESSAGE_MAX);
        let register = Register {
            nonce,
            namespace,
            handle,
            cookie,
            boot: self.boot.0,
            seq,
            known: known_version,
            blob: &blob,
        };
        // As long as the answer may be: the first members come with it.
        let answer_bytes = if known_version == 0 { size::MESSAGE_MAX } else { 0 };
        FromNode::Register(register).write(answer_bytes, &mut message);
        if let Some((_, known)) = self.registration(id) {
            known.keys.finish_register(seen, &mut message);
        }
        self.send_to_server(addr, &message);
        let again = self.jittered(pause);
        self.timers.set(Timer::Lease(id, family), self.now + again);
    }

    pub(crate) fn on_lease_timer(&mut self, id: RegistrationId, family: Family) {
        let Some((server, known)) = self.registration_mut(id) else { return };
        let lease = &mut known.leases[family as usize];
        let (exhausted, token) = (lease.unanswered as usize >= AGAIN.len(), lease.token);
        if exhausted && lease.nonce.is_some() {
            debug!("a rendezvous server does not answer our keeps any more");
            *lease = Lease::default();
            return self.hail_soon(server, family);
        }
        match token {
            _ if self.is_strange(server) => {}
            Some(token) => self.keep(id, family, token),
            None if exhausted => self.register_later(id, family),
            None => self.register(id, family),
        }
    }

    /// The server refused us again and again: perhaps somebody else has taken our handle.
    fn register_later(&mut self, id: RegistrationId, family: Family) {
        debug!("a rendezvous server refuses us again and again");
        let handle = Handle(self.random());
        let Some((_, known)) = self.registration_mut(id) else { return };
        (known.handle, known.seq, known.version) = (handle, 0, 0);
        known.leases[family as usize] = Lease::default();
        let pause = self.jittered(REFUSED_PAUSE);
        self.timers.set(Timer::Lease(id, family), self.now + pause);
    }

    fn keep(&mut self, id: RegistrationId, family: Family, token: Token) {
        let nonce = Nonce(self.random());
        let Some((server, known)) = self.registration_mut(id) else { return };
        let (namespace, handle, known_version) = (*known.keys.namespace(), known.handle, known.version);
        let lease = &mut known.leases[family as usize];
        let answer = lease.wants_answer();
        lease.doubted = false;
        lease.keeps += 1;
        lease.last_keep = Some(nonce);
        let mut pause = lease.keep.unwrap_or(KEEP);
        if answer {
            pause = AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1];
            lease.unanswered += 1;
            lease.nonce = Some(nonce);
        }
        let message = Keep { nonce, namespace, handle, token, known: known_version, answer };
        self.ask_server(server, family, &FromNode::Keep(message));
        let again = self.a_little_off(pause);
        self.timers.set(Timer::Lease(id, family), self.now + again);
    }

    pub(super) fn ask_server(&mut self, server: ServerId, family: Family, message: &FromNode<'_>) {
        let Some(known) = self.rendezvous.servers.get_mut(&server) else { return };
        let Some(addr) = known.link(family).addr else { return };
        if let FromNode::Intro(intro) = message
            && let Some(known) =
                known.registrations.iter_mut().find(|it| *it.keys.namespace() == intro.namespace)
        {
            known.leases[family as usize].last_intro = Some(intro.nonce);
        }
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

    pub(super) fn on_welcome(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        welcome: &Welcome<'_>,
    ) -> Result<(), Dropped> {
        let asked = |it: &Registration| it.leases[family as usize].nonce == Some(welcome.nonce);
        let keep = within(welcome.keep_seconds, &KEEP_SECONDS);
        let known = self.answered(server, datagram, asked)?;
        let id = known.id;
        let first = !known.is_kept() && known.version == 0;
        let lease = &mut known.leases[family as usize];
        *lease = Lease { token: Some(welcome.token), keep: Some(keep), keeps: 1, ..Lease::default() };
        let pause = self.a_little_off(keep);
        self.timers.set(Timer::Lease(id, family), self.now + pause);
        self.server_answers(server);
        // The others hear of us as well; a large namespace tells only some.
        let told = first && usize::from(welcome.members) <= limits::MEMBERS_TOLD;
        self.on_entries(id, welcome.entries, if told { News::Told } else { News::Ours });
        self.reached_version(id, welcome.upto, welcome.version);
        self.note_seen(server, family, welcome.seen);
        self.note_time(server, welcome.time);
        Ok(())
    }

    pub(super) fn on_kept(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        kept: &Kept,
    ) -> Result<(), Dropped> {
        let now = self.now;
        let asked = |it: &Registration| it.leases[family as usize].asked(kept.nonce);
        let known = self.answered(server, datagram, asked)?;
        let (id, version) = (known.id, known.version);
        let keep = within(kept.keep_seconds, &KEEP_SECONDS);
        let lease = &mut known.leases[family as usize];
        (lease.token, lease.nonce, lease.last_keep, lease.unanswered) = (Some(kept.token), None, None, 0);
        lease.keep = Some(keep);
        let pause = match kept.register_after_seconds {
            Some(seconds) => {
                // The server does not know what we told it: as if we were new, at the time that it wishes.
                lease.token = None;
                Duration::from_secs(u64::from(seconds.min(REGISTER_AFTER_SECONDS_MAX)))
            }
            None => self.a_little_off(keep),
        };
        self.timers.set(Timer::Lease(id, family), now + pause);
        self.server_answers(server);
        self.reached_version(id, version, kept.version);
        self.note_seen(server, family, kept.seen);
        self.note_time(server, kept.time);
        Ok(())
    }

    pub(super) fn on_page(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        page: &Page<'_>,
    ) -> Result<(), Dropped> {
        let known = self.answered(server, datagram, |it| it.listing == Some(page.nonce))?;
        known.listing = None;
        known.leases[family as usize].unanswered = 0;
        let id = known.id;
        self.on_entries(id, page.entries, News::Ours);
        self.reached_version(id, page.upto, page.version);
        Ok(())
    }

    pub(super) fn on_server_event(
        &mut self,
        server: ServerId,
        datagram: &[u8],
        event: &Event<'_>,
    ) -> Result<(), Dropped> {
        let known = self.answered(server, datagram, |it| it.is_named(event.namespace))?;
        let (id, version) = (known.id, known.version);
        if event.upto <= version {
            return Err(Dropped::Replayed);
        }
        // Whoever came was told of us at once.
        self.on_entries(id, event.entries, News::Both);
        let reached = if event.since <= version { event.upto } else { version };
        self.reached_version(id, reached, event.upto);
        Ok(())
    }

    pub(super) fn on_nope(&mut self, server: ServerId, family: Family, nope: &Nope) -> Result<(), Dropped> {
        let known = self.rendezvous.servers.get_mut(&server).ok_or(Dropped::Unexpected)?;
        let mut all = known.registrations.iter_mut();
        let asked = |it: &&mut Registration| it.leases[family as usize].nonce == Some(nope.nonce);
        let refused = all.find(asked).ok_or(Dropped::Unexpected)?;
        debug!(reason = ?nope.refusal, "a rendezvous server refuses us");
        let id = refused.id;
        refused.leases[family as usize] = Lease::default();
        let pause = within(nope.again_seconds, &AGAIN_SECONDS);
        let pause = self.jittered(pause);
        self.timers.set(Timer::Lease(id, family), self.now + pause);
        Ok(())
    }

    /// We know the namespace up to `upto`, and the server up to `version`: asks for the rest.
    fn reached_version(&mut self, id: RegistrationId, upto: u64, version: u64) {
        let (nonce, now) = (Nonce(self.random()), self.now);
        let Some((server, known)) = self.registration_mut(id) else { return };
        known.version = known.version.max(upto);
        if known.version >= version {
            return;
        }
        let Some((family, token)) = known.token() else { return };
        if !known.lists.take(now) {
            // The next answer to a keep tells us again that we lack some.
            return;
        }
        known.listing = Some(nonce);
        let (namespace, handle) = (*known.keys.namespace(), known.handle);
        let list = List { nonce, namespace, handle, token, known: known.version };
        self.ask_server(server, family, &FromNode::List(list));
    }

    /// The server told of members.
    fn on_entries(&mut self, id: RegistrationId, entries: Entries<'_>, news: News) {
        for entry in entries {
            let Some((_, known)) = self.registration_mut(id) else { return };
            let Some(blob) = entry.blob else {
                if let Some(left) = known.members.remove(&entry.handle) {
                    self.member_left(left, id);
                }
                continue;
            };
            if entry.handle == known.handle {
                continue;
            }
            let (namespace, network) = (*known.keys.namespace(), known.network);
            let keys: &NetworkKeys = self.config.network.of(network);
            let Some(presence) = keys.open_presence(blob, &namespace, entry.handle, entry.seq) else {
                continue;
            };
            let place = Place { registration: id, handle: entry.handle };
            let Some((_, known)) = self.registration_mut(id) else { return };
            if known.members.len() >= limits::PEERS && !known.members.contains_key(&entry.handle) {
                continue;
            }
            known.members.insert(entry.handle, presence.id);
            self.heard_of_member(presence, network, place, news);
        }
    }

    /// What the others are to know of us.
    fn presence(&self) -> Presence {
        Presence { id: self.id, boot: self.boot, flags: self.flags(), candidates: self.own_candidates() }
    }

    pub(super) fn flags(&self) -> Flags {
        if self.has_varying_port() { Flags::VARYING_PORT } else { Flags::default() }
    }

    fn leave_registration(&mut self, id: RegistrationId) {
        let nonce = Nonce(self.random());
        let Some((server, known)) = self.registration(id) else { return };
        let (namespace, handle) = (*known.keys.namespace(), known.handle);
        if let Some((family, token)) = known.token() {
            self.ask_server(server, family, &FromNode::Bye(Bye { nonce, namespace, handle, token }));
        }
        for family in Family::ALL {
            self.timers.clear(Timer::Lease(id, family));
        }
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

fn within(seconds: u16, range: &RangeInclusive<u16>) -> Duration {
    Duration::from_secs(u64::from(seconds.clamp(*range.start(), *range.end())))
}
