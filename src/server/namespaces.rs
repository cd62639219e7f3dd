//! The namespaces that have members: their keys, who is in them, and how often they changed.

use std::collections::VecDeque;
use std::mem;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use rand_core::CryptoRng;

use super::keyed::Keyed;
use super::moment::Moment;
use super::roll::Roll;
use super::slots;
use crate::crypto::namespace::NamespaceKeys;
use crate::limits;
use crate::wire::rendezvous::{Handle, Namespace};

/// By which a namespace is found at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamespaceIndex(pub(super) u32);

/// One namespace. It lives as long as it has members.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) keys: NamespaceKeys,
    pub(super) roll: Roll,
    pub(super) version: u64,
    /// The version that the last event told; if it is not the one of now, the next event is due.
    pub(super) told: u64,
    /// The next event is not told before this: nobody gets too many.
    pub(super) quiet_until: Moment,
    /// Most namespaces are small, and nobody has left them.
    left: Option<Box<Departures>>,
}

/// Who left, and the version that resulted, the oldest first.
#[derive(Debug, Default)]
struct Departures(VecDeque<(u64, Handle)>);

impl Record {
    fn new(keys: NamespaceKeys, version: u64) -> Self {
        Self {
            keys,
            roll: Roll::default(),
            version,
            told: version,
            quiet_until: Moment::default(),
            left: None,
        }
    }

    /// Remembers that a member left, among the last `most` that did.
    fn leave(&mut self, handle: Handle, most: usize) {
        self.version += 1;
        let Departures(left) = &mut **self.left.get_or_insert_default();
        left.push_back((self.version, handle));
        if left.len() > most {
            left.drain(..left.len() - most);
            left.shrink_to(most);
        }
    }

    /// How many departures are remembered.
    fn departures(&self) -> usize {
        self.left.as_deref().map_or(0, |Departures(left)| left.len())
    }

    /// Who left after `version`, the oldest first.
    pub(super) fn left_after(&self, version: u64) -> impl DoubleEndedIterator<Item = (u64, Handle)> {
        let left = self.left.as_deref().map(|Departures(left)| left);
        let start = left.map_or(0, |left| left.partition_point(|(left, _)| *left <= version));
        left.into_iter().flat_map(move |left| left.range(start..).copied())
    }
}

/// All namespaces.
pub(super) struct Namespaces {
    slots: Vec<Option<Box<Record>>>,
    free: Vec<NamespaceIndex>,
    keyed: Keyed,
    by_name: HashTable<NamespaceIndex>,
    /// Departures that all of them remember.
    departures: usize,
}

impl Namespaces {
    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        let (keyed, by_name) = (Keyed::new(rng), HashTable::new());
        Self { slots: Vec::new(), free: Vec::new(), keyed, by_name, departures: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// A member left this namespace. When all together remember as many as they may, the last few of each are enough to
    /// tell who is there at that time; the others see that they count more than there are.
    pub(super) fn leave(&mut self, index: NamespaceIndex, handle: Handle) {
        let full = self.departures >= limits::DEPARTURES_IN_ALL;
        let Some(record) = self.slots.get_mut(index.0 as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        let most = if full { limits::DEPARTURES_LEAST } else { record.roll.listed().max(limits::DEPARTURES) };
        self.departures -= record.departures();
        record.leave(handle, most);
        self.departures += record.departures();
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
            slots::add_one(&mut self.slots);
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
        self.departures -= record.departures();
        let hash = self.keyed.hash(&record.keys.namespace().0);
        if let Ok(place) = self.by_name.find_entry(hash, |other| *other == index) {
            place.remove();
        }
        self.free.push(index);
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::crypto::namespace::ServerSecret;

    #[test]
    fn a_namespace_is_small() {
        assert!(size_of::<Record>() <= 160, "{}", size_of::<Record>());
    }

    #[test]
    fn departures_of_all_together_are_bounded_and_each_still_remembers_its_last_ones() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut namespaces = Namespaces::new(&mut rng);
        let server = ServerSecret::new([5; 32]);
        let mut add = |namespaces: &mut Namespaces| {
            let mut name = [0; 32];
            rng.fill_bytes(&mut name);
            namespaces.insert(NamespaceKeys::of_server(&server, &Namespace(name)).unwrap(), 1)
        };
        let leave = |namespaces: &mut Namespaces, index, count: u8| {
            (0..count).for_each(|number| namespaces.leave(index, Handle([number; 16])));
            namespaces.get(index).unwrap().departures()
        };
        let first = add(&mut namespaces);
        assert_eq!(leave(&mut namespaces, first, 100), limits::DEPARTURES);
        while namespaces.departures < limits::DEPARTURES_IN_ALL {
            let index = add(&mut namespaces);
            leave(&mut namespaces, index, 64);
        }
        let last = add(&mut namespaces);
        assert_eq!(leave(&mut namespaces, last, 100), limits::DEPARTURES_LEAST);
        let told: Vec<_> = namespaces.get(last).unwrap().left_after(0).collect();
        assert_eq!(told, [(100, Handle([98; 16])), (101, Handle([99; 16]))]);
        // What is forgotten makes room.
        assert_eq!(leave(&mut namespaces, first, 1), limits::DEPARTURES_LEAST);
        assert_eq!(leave(&mut namespaces, last, 10), 12);
        let all: Vec<_> = (0..namespaces.len() as u32).map(NamespaceIndex).collect();
        all.into_iter().for_each(|index| namespaces.remove(index));
        assert_eq!((namespaces.len(), namespaces.departures), (0, 0));
    }
}
