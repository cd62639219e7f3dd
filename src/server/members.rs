//! Who is registered: each member once, found by its handle or by its place.

use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use rand_core::CryptoRng;

use super::credit::Credit;
use super::keyed::Keyed;
use super::limits::Bucket;
use super::namespaces::NamespaceIndex;
use super::slots;
use super::wheel::Second;
use crate::limits;
use crate::route::Route;
use crate::time::Instant;
use crate::wire::rendezvous::Handle;

/// How long a member stays that keeps silent.
pub(super) const LEASE: Duration = Duration::from_secs(120);

/// By which a member is found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberIndex(pub(super) u32);

/// One member of one namespace. There may be a million: no field is wider than it must be.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) handle: Handle,
    /// Its last change; zero: it has told no blob since the server started, and nobody hears of it.
    pub(super) version: u64,
    pub(super) intros: Bucket,
    pub(super) knocks: Bucket,
    pub(super) blob: Box<[u8]>,
    v6: Reach<16>,
    v4: Reach<4>,
    pub(super) namespace: NamespaceIndex,
    /// The number of its last register; of one that has told no blob, the second in which it is to.
    pub(super) seq: u32,
    /// For which second it waits to be looked at.
    pub(super) look_at: Option<Second>,
}

/// Where a member is reached in one family.
#[derive(Clone, Copy, Debug)]
struct Reach<const N: usize> {
    ip: [u8; N],
    port: u16,
    /// What may go there unasked.
    credit: Credit,
    /// Which of our addresses it speaks to.
    local: u8,
    /// It was heard here last.
    is_latest: bool,
    /// Until when; none: it is not reached in this family.
    until: Option<Second>,
}

impl<const N: usize> Reach<N> {
    fn nowhere() -> Self {
        Self {
            ip: [0; N],
            port: 0,
            credit: Credit::default(),
            local: Locals::UNKNOWN,
            is_latest: false,
            until: None,
        }
    }

    fn addr(&self) -> Option<SocketAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        self.until.map(|_| SocketAddr::new(IpAddr::from(self.ip), self.port))
    }

    fn expire(&mut self, now: Instant) -> Option<SocketAddr>
    where
        IpAddr: From<[u8; N]>,
    {
        let over = self.until.is_some_and(|until| until.is_over(now));
        let addr = self.addr().filter(|_| over);
        if over {
            self.until = None;
        }
        addr
    }
}

impl Member {
    pub(super) fn new(handle: Handle, namespace: NamespaceIndex) -> Self {
        Self {
            handle,
            version: 0,
            intros: Bucket::default(),
            knocks: Bucket::default(),
            blob: Box::default(),
            v6: Reach::nowhere(),
            v4: Reach::nowhere(),
            namespace,
            seq: 0,
            look_at: None,
        }
    }

    /// Whether the others hear of it.
    pub(super) const fn is_listed(&self) -> bool {
        self.version != 0
    }

    /// Its address in the family of `addr`.
    pub(super) fn addr_like(&self, addr: SocketAddr) -> Option<SocketAddr> {
        if addr.is_ipv4() { self.v4.addr() } else { self.v6.addr() }
    }

    /// Its addresses, at most one of each family.
    pub(super) fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.v4.addr().into_iter().chain(self.v6.addr())
    }

    /// A question of so many bytes came from `addr`, at our address `local`: the member is reached there, and its lease
    /// begins anew.
    pub(super) fn hear(&mut self, addr: SocketAddr, local: u8, bytes: usize, now: Instant) {
        let (port, until) = (addr.port(), Some(Second::after(now + LEASE)));
        // What was earned at one address is not spent at another.
        let stayed = self.addr_like(addr) == Some(addr);
        let mut credit = match addr {
            _ if !stayed => Credit::default(),
            SocketAddr::V4(_) => self.v4.credit,
            SocketAddr::V6(_) => self.v6.credit,
        };
        credit.earn(bytes);
        (self.v4.is_latest, self.v6.is_latest) = (false, false);
        let is_latest = true;
        match addr.ip() {
            IpAddr::V4(ip) => self.v4 = Reach { ip: ip.octets(), port, credit, local, is_latest, until },
            IpAddr::V6(ip) => self.v6 = Reach { ip: ip.octets(), port, credit, local, is_latest, until },
        }
    }

    /// What may go unasked to where it was heard last.
    pub(super) const fn credit(&mut self) -> &mut Credit {
        if self.v6.is_latest { &mut self.v6.credit } else { &mut self.v4.credit }
    }

    /// The way to where it was heard last.
    pub(super) fn route(&self, locals: &Locals) -> Option<Route> {
        let (v4, v6) = (self.v4.addr(), self.v6.addr());
        let (remote, local) = if self.v6.is_latest { (v6?, self.v6.local) } else { (v4?, self.v4.local) };
        Some(Route { local: locals.get(local), ..Route::to(remote) })
    }

    /// Takes away the addresses whose lease is over and tells which.
    pub(super) fn expire(&mut self, now: Instant) -> impl Iterator<Item = SocketAddr> + use<> {
        self.v4.expire(now).into_iter().chain(self.v6.expire(now))
    }

    /// When the first of its leases is over; none: it has none left.
    pub(super) fn lease(&self) -> Option<Second> {
        [self.v4.until, self.v6.until].into_iter().flatten().min()
    }
}

/// All members.
pub(super) struct Members {
    slots: Vec<Option<Box<Member>>>,
    free: Vec<MemberIndex>,
    keyed: Keyed,
    by_handle: HashTable<MemberIndex>,
}

impl Members {
    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), keyed: Keyed::new(rng), by_handle: HashTable::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_handle.len()
    }

    pub(super) fn get(&self, index: MemberIndex) -> Option<&Member> {
        self.slots.get(index.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: MemberIndex) -> Option<&mut Member> {
        self.slots.get_mut(index.0 as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, namespace: NamespaceIndex, handle: Handle) -> Option<MemberIndex> {
        let hash = self.hash(namespace, handle);
        self.by_handle.find(hash, |index| self.is(*index, namespace, handle)).copied()
    }

    /// Adds one that is not there yet.
    pub(super) fn insert(&mut self, member: Member) -> MemberIndex {
        let (namespace, handle) = (member.namespace, member.handle);
        let index = self.free.pop().unwrap_or_else(|| {
            slots::add_one(&mut self.slots);
            MemberIndex(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        self.slots[index.0 as usize] = Some(Box::new(member));
        let (keyed, slots) = (self.keyed, &self.slots);
        let rehash = |index: &MemberIndex| {
            let member = slots[index.0 as usize].as_ref();
            member.map_or(0, |member| hash_of(keyed, member.namespace, member.handle))
        };
        let hash = hash_of(keyed, namespace, handle);
        if let Slot::Vacant(place) = self.by_handle.entry(hash, |_| false, rehash) {
            place.insert(index);
        }
        index
    }

    pub(super) fn remove(&mut self, index: MemberIndex) -> Option<Box<Member>> {
        let member = self.slots.get_mut(index.0 as usize).and_then(mem::take)?;
        let hash = self.hash(member.namespace, member.handle);
        if let Ok(place) = self.by_handle.find_entry(hash, |other| *other == index) {
            place.remove();
        }
        self.free.push(index);
        Some(member)
    }

    /// The last change of a member; zero: nobody hears of it.
    pub(super) fn version(&self, index: MemberIndex) -> u64 {
        self.get(index).map_or(0, |member| member.version)
    }

    fn is(&self, index: MemberIndex, namespace: NamespaceIndex, handle: Handle) -> bool {
        self.get(index).is_some_and(|member| member.namespace == namespace && member.handle == handle)
    }

    fn hash(&self, namespace: NamespaceIndex, handle: Handle) -> u64 {
        hash_of(self.keyed, namespace, handle)
    }
}

fn hash_of(keyed: Keyed, namespace: NamespaceIndex, handle: Handle) -> u64 {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&handle.0);
    bytes[16..].copy_from_slice(&namespace.0.to_le_bytes());
    keyed.hash(&bytes)
}

/// Our own addresses to which members speak: what we send unasked must come from there, or their translators drop it.
#[derive(Debug, Default)]
pub(super) struct Locals(Vec<IpAddr>);

impl Locals {
    const UNKNOWN: u8 = 0xff;

    /// The number of an address; the kernel chooses for those of no number.
    pub(super) fn number(&mut self, local: Option<IpAddr>) -> u8 {
        let Some(local) = local else { return Self::UNKNOWN };
        let known = self.0.iter().position(|known| *known == local);
        let number = known.unwrap_or_else(|| {
            if self.0.len() < limits::SERVER_ADDRS {
                self.0.push(local);
                self.0.len() - 1
            } else {
                usize::from(Self::UNKNOWN)
            }
        });
        u8::try_from(number).unwrap_or(Self::UNKNOWN)
    }

    pub(super) fn get(&self, number: u8) -> Option<IpAddr> {
        self.0.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_small() {
        assert!(size_of::<Member>() <= 112, "{}", size_of::<Member>());
    }
}
