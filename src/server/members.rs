//! Who is registered: each member once, found by its handle, in the order of its changes, or by its place.

use std::collections::BTreeMap;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use rand_core::CryptoRng;

use super::credit::Credit;
use super::keyed::Keyed;
use super::leases::Second;
use super::limits::Bucket;
use super::namespaces::NamespaceIndex;
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
    pub(super) boot: u64,
    /// Its last change; zero: it has told no blob since the server started, and nobody hears of it.
    pub(super) version: u64,
    pub(super) intros: Bucket,
    pub(super) knocks: Bucket,
    pub(super) blob: Box<[u8]>,
    v6: Reach<16>,
    v4: Reach<4>,
    pub(super) namespace: NamespaceIndex,
    pub(super) seq: u32,
    /// Where it stands in its namespace's list.
    pub(super) position: u32,
    /// For which second it waits to be looked at.
    pub(super) look_at: Option<Second>,
    heard_v6: bool,
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
    /// Until when; none: it is not reached in this family.
    until: Option<Second>,
}

impl<const N: usize> Reach<N> {
    fn nowhere() -> Self {
        Self { ip: [0; N], port: 0, credit: Credit::default(), local: Locals::UNKNOWN, until: None }
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
            boot: 0,
            version: 0,
            intros: Bucket::default(),
            knocks: Bucket::default(),
            blob: Box::default(),
            v6: Reach::nowhere(),
            v4: Reach::nowhere(),
            namespace,
            seq: 0,
            position: 0,
            look_at: None,
            heard_v6: false,
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
        self.heard_v6 = addr.is_ipv6();
        let mut credit = if stayed { *self.credit() } else { Credit::default() };
        credit.earn(bytes);
        match addr.ip() {
            IpAddr::V4(ip) => self.v4 = Reach { ip: ip.octets(), port, credit, local, until },
            IpAddr::V6(ip) => self.v6 = Reach { ip: ip.octets(), port, credit, local, until },
        }
    }

    /// What may go unasked to where it was heard last.
    pub(super) const fn credit(&mut self) -> &mut Credit {
        if self.heard_v6 { &mut self.v6.credit } else { &mut self.v4.credit }
    }

    /// The way to where it was heard last.
    pub(super) fn route(&self, locals: &Locals) -> Option<Route> {
        let (v4, v6) = (self.v4.addr(), self.v6.addr());
        let (remote, local) = if self.heard_v6 { (v6?, self.v6.local) } else { (v4?, self.v4.local) };
        Some(Route { remote, local: locals.get(local) })
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
    by_version: BTreeMap<(NamespaceIndex, u64), MemberIndex>,
}

impl Members {
    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            keyed: Keyed::new(rng),
            by_handle: HashTable::new(),
            by_version: BTreeMap::new(),
        }
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
            self.slots.push(None);
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
        self.by_version.remove(&(member.namespace, member.version));
        self.free.push(index);
        Some(member)
    }

    /// The member changed: it is the latest of its namespace now.
    pub(super) fn set_version(&mut self, index: MemberIndex, version: u64) {
        let Some(member) = self.slots.get_mut(index.0 as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        self.by_version.remove(&(member.namespace, member.version));
        member.version = version;
        self.by_version.insert((member.namespace, version), index);
    }

    /// Those of a namespace that changed after `version`, the oldest change first.
    pub(super) fn changed_after(
        &self,
        namespace: NamespaceIndex,
        version: u64,
    ) -> impl DoubleEndedIterator<Item = &Member> {
        let range = (namespace, version.saturating_add(1))..=(namespace, u64::MAX);
        self.by_version.range(range).filter_map(|(_, index)| self.get(*index))
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

    fn get(&self, number: u8) -> Option<IpAddr> {
        self.0.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_small() {
        assert!(size_of::<Member>() <= 128, "{}", size_of::<Member>());
    }
}
