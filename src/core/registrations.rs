//! What we have registered with rendezvous servers: one registration per server, namespace and day, with a lease in each
//! address family (`leases.rs`), and what servers tell of the others there (rendezvous.md, 3).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::introductions::News;
use crate::core::leases::Lease;
use crate::core::pace::Pace;
use crate::core::rendezvous::{Family, ServerId};
use crate::core::timers::Timer;
use crate::crypto::namespace::NamespaceKeys;
use crate::crypto::network::{NetworkKeys, NetworkTag};
use crate::id::NodeId;
use crate::limits;
use crate::wire::presence::{Flags, Presence};
use crate::wire::rendezvous::{
    Bye, Day, Entries, Event, FromNode, Handle, List, NamespaceTag, Nonce, Page, Token, size,
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

/// One namespace of one server.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) id: RegistrationId,
    pub(super) network: NetworkTag,
    day: Day,
    pub(super) keys: NamespaceKeys,
    pub(super) handle: Handle,
    pub(super) seq: u32,
    /// How far we know the others.
    pub(super) version: u64,
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

    /// Says in what we have registered where we are now, since that is not what it was; soon, if that was said just now.
    pub(crate) fn tell_whereabouts(&mut self) {
        if !self.rendezvous.told.take(self.now) {
            return self.timers.set_sooner(Timer::Whereabouts, self.now + TELL_AGAIN);
        }
        self.timers.clear(Timer::Whereabouts);
        let all = self.rendezvous.servers.values().flat_map(|server| &server.registrations);
        let ids: Vec<_> = all.filter_map(|it| Some((it.id, it.token()?.0))).collect();
        for (id, family) in ids {
            self.register(id, family);
        }
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

    /// We know the namespace up to `upto`, and the server up to `version`: asks for the rest.
    pub(super) fn reached_version(&mut self, id: RegistrationId, upto: u64, version: u64) {
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
    pub(super) fn on_entries(&mut self, id: RegistrationId, entries: Entries<'_>, news: News) {
        for entry in entries {
            let Some((_, known)) = self.registration_mut(id) else { return };
            let Some(blob) = entry.blob else {
                if let Some(left) = known.members.remove(&entry.handle) {
                    self.member_left(left, Place { registration: id, handle: entry.handle });
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
            if self.note_handle(place, presence.id) {
                self.heard_of_member(presence, network, place, news);
            }
        }
    }

    /// In this place is `id`, and nobody else any more; says whether there is room for it.
    pub(super) fn note_handle(&mut self, place: Place, id: NodeId) -> bool {
        let Some((_, known)) = self.registration_mut(place.registration) else { return false };
        if known.members.len() >= limits::PEERS && !known.members.contains_key(&place.handle) {
            return false;
        }
        // One handle with ever other names would fill our memory with them.
        if let Some(before) = known.members.insert(place.handle, id).filter(|before| *before != id) {
            self.member_left(before, place);
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
