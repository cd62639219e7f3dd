//! The namespaces that have members: their keys, who is in them, and how often they changed.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use rand_core::CryptoRng;

use super::keyed::Keyed;
use super::members::MemberIndex;
use super::source::Source;
use crate::crypto::namespace::NamespaceKeys;
use crate::limits;
use crate::time::Instant;
use crate::wire::rendezvous::{Handle, Namespace};

/// By which a namespace is found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamespaceIndex(pub(super) u32);

/// One namespace. It lives as long as it has members.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) keys: NamespaceKeys,
    pub(super) members: Vec<MemberIndex>,
    /// How many of them the others hear of.
    pub(super) listed: usize,
    pub(super) version: u64,
    /// The version that the last event told.
    pub(super) told: u64,
    /// When the next event is due, if one is.
    pub(super) event_at: Option<Instant>,
    /// Not before this: nobody gets too many.
    pub(super) quiet_until: Instant,
    /// Who left, and the version that resulted, the oldest first.
    left: VecDeque<(u64, Handle)>,
}

impl Record {
    fn new(keys: NamespaceKeys, version: u64) -> Self {
        Self {
            keys,
            members: Vec::new(),
            listed: 0,
            version,
            told: version,
            event_at: None,
            quiet_until: Instant::default(),
            left: VecDeque::new(),
        }
    }

    /// Remembers that a member left.
    pub(super) fn leave(&mut self, handle: Handle) {
        self.version += 1;
        self.left.push_back((self.version, handle));
        while self.left.len() > self.listed.max(limits::DEPARTURES) {
            self.left.pop_front();
        }
    }

    /// Who left after `version`, the oldest first.
    pub(super) fn left_after(&self, version: u64) -> impl DoubleEndedIterator<Item = (u64, Handle)> {
        let start = self.left.partition_point(|(left, _)| *left <= version);
        self.left.range(start..).copied()
    }
}

/// All namespaces.
pub(super) struct Namespaces {
    slots: Vec<Option<Box<Record>>>,
    free: Vec<NamespaceIndex>,
    keyed: Keyed,
    by_name: HashTable<NamespaceIndex>,
    /// How many members of each namespace are at a source.
    by_source: BTreeMap<(Source, NamespaceIndex), u32>,
}

impl Namespaces {
    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            keyed: Keyed::new(rng),
            by_name: HashTable::new(),
            by_source: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn get(&self, index: NamespaceIndex) -> Option<&Record> {
        self.slots.get(index.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, index: NamespaceIndex) -> Option<&mut Record> {
        self.slots.get_mut(index.0 as usize)?.as_deref_mut()
    }

    pub(super) fn find(&self, name: &Namespace) -> Option<NamespaceIndex> {
        let is =
            |index: &NamespaceIndex| self.get(*index).is_some_and(|record| record.keys.namespace() == name);
        self.by_name.find(self.keyed.hash(&name.0), is).copied()
    }

    /// Adds one that is not there yet, and is going to have a member.
    pub(super) fn insert(&mut self, keys: NamespaceKeys, version: u64) -> NamespaceIndex {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            NamespaceIndex(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        let hash = self.keyed.hash(&keys.namespace().0);
        self.slots[index.0 as usize] = Some(Box::new(Record::new(keys, version)));
        let (keyed, slots) = (self.keyed, &self.slots);
        let rehash = |index: &NamespaceIndex| {
            let record = slots[index.0 as usize].as_ref();
            record.map_or(0, |record| keyed.hash(&record.keys.namespace().0))
        };
        if let Slot::Vacant(place) = self.by_name.entry(hash, |_| false, rehash) {
            place.insert(index);
        }
        index
    }

    pub(super) fn remove(&mut self, index: NamespaceIndex) {
        let Some(record) = self.slots.get_mut(index.0 as usize).and_then(mem::take) else { return };
        let hash = self.keyed.hash(&record.keys.namespace().0);
        if let Ok(place) = self.by_name.find_entry(hash, |other| *other == index) {
            place.remove();
        }
        self.free.push(index);
    }

    /// Whether a member at `source` may be in this namespace (none: one that is not there yet).
    pub(super) fn admits(&self, source: Source, index: Option<NamespaceIndex>) -> bool {
        if index.is_some_and(|index| self.by_source.contains_key(&(source, index))) {
            return true;
        }
        let range = (source, NamespaceIndex(0))..=(source, NamespaceIndex(u32::MAX));
        self.by_source.range(range).take(limits::NAMESPACES_PER_SOURCE).count()
            < limits::NAMESPACES_PER_SOURCE
    }

    /// Whether one member more may be at `source` in this namespace (none: one that is not there yet).
    pub(super) fn has_room(&self, source: Source, index: Option<NamespaceIndex>) -> bool {
        let range = (source, NamespaceIndex(0))..=(source, NamespaceIndex(u32::MAX));
        let there = index.and_then(|index| self.by_source.get(&(source, index))).copied().unwrap_or(0);
        let all: u32 = self.by_source.range(range).map(|(_, count)| count).sum();
        (there as usize) < limits::NAMESPACE_MEMBERS_PER_SOURCE && (all as usize) < limits::MEMBERS_PER_SOURCE
    }

    /// A member of this namespace is at `source` from now on.
    pub(super) fn arrive(&mut self, source: Source, index: NamespaceIndex) {
        *self.by_source.entry((source, index)).or_default() += 1;
    }

    /// It is not any more.
    pub(super) fn depart(&mut self, source: Source, index: NamespaceIndex) {
        if let Some(count) = self.by_source.get_mut(&(source, index)) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&(source, index));
            }
        }
    }
}
