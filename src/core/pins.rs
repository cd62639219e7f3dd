//! Whom messages by each name go to: the key that had the name first.
//!
//! Pins are kept apart from the table of peers. While a peer is in the table its pin stays, and when a known one has to make
//! room there its pin stays too, alone: so no number of strangers makes this node give a name to another key. Of these the
//! ones that were made last make room for each other, so that what was there before a flood outlives it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use crate::id::{NodeId, NodeName};
use crate::limits;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    by_name: BTreeMap<NodeName, NodeId>,
    by_id: BTreeMap<NodeId, NodeName>,
    apart: BTreeMap<NodeId, Apart>,
}

/// A pin whose owner is not in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    /// The smaller, the longer is its owner known.
    pub(crate) seniority: u64,
    /// When its owner was heard last, as the time since 1970.
    pub(crate) last_seen: Option<Duration>,
}

impl Pins {
    /// Whose name it is.
    pub(crate) fn owner(&self, name: &str) -> Option<NodeId> {
        self.by_name.get(name).copied()
    }

    /// The name that is pinned to `id`.
    pub(crate) fn name_of(&self, id: &NodeId) -> Option<&NodeName> {
        self.by_id.get(id)
    }

    /// Gives a name that nobody has to `id`, which has none.
    pub(crate) fn pin(&mut self, name: &NodeName, id: NodeId) {
        if !self.by_name.contains_key(name.as_str()) && !self.by_id.contains_key(&id) {
            self.by_name.insert(name.clone(), id);
            self.by_id.insert(id, name.clone());
        }
    }

    /// The name of `id` is nobody's any more.
    pub(crate) fn free(&mut self, id: &NodeId) -> Option<NodeName> {
        self.apart.remove(id);
        let name = self.by_id.remove(id)?;
        self.by_name.remove(name.as_str());
        Some(name)
    }

    /// The owner leaves the table, its pin stays. With too many such the pin made last goes.
    pub(crate) fn part(&mut self, id: NodeId, apart: Apart) {
        if !self.by_id.contains_key(&id) {
            return;
        }
        self.apart.insert(id, apart);
        if self.apart.len() > limits::PINS_APART {
            let last = self.apart.iter().max_by_key(|(_, apart)| apart.seniority).map(|(id, _)| *id);
            last.and_then(|id| self.free(&id));
        }
    }

    /// The owner comes into the table.
    pub(crate) fn rejoin(&mut self, id: &NodeId) -> Option<Apart> {
        self.apart.remove(id)
    }

    pub(crate) fn is_apart(&self, id: &NodeId) -> bool {
        self.apart.contains_key(id)
    }

    /// How many owners are not in the table.
    pub(crate) fn count_apart(&self) -> usize {
        self.apart.len()
    }

    /// The owners that are not in the table and come after `id`, in the order of ids.
    pub(crate) fn apart_after(
        &self,
        id: Option<NodeId>,
    ) -> impl Iterator<Item = (&NodeId, &NodeName, &Apart)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        let apart = self.apart.range((start, Bound::Unbounded));
        apart.filter_map(|(id, apart)| Some((id, self.by_id.get(id)?, apart)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> NodeId {
        let mut bytes = [5; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        NodeId(bytes)
    }

    fn name(number: usize) -> NodeName {
        format!("pi-{number}").parse().unwrap()
    }

    #[test]
    fn of_too_many_pins_without_a_peer_the_ones_made_last_make_room() {
        let mut pins = Pins::default();
        let count = limits::PINS_APART + 100;
        for number in 0..count {
            pins.pin(&name(number), id(number));
            pins.part(id(number), Apart { seniority: number as u64, last_seen: None });
        }
        assert_eq!((pins.count_apart(), pins.by_name.len()), (limits::PINS_APART, limits::PINS_APART));
        assert_eq!(pins.owner("pi-0"), Some(id(0)));
        assert_eq!(pins.owner(name(count - 1).as_str()), None);
    }

    #[test]
    fn a_name_has_one_owner_and_an_owner_one_name() {
        let mut pins = Pins::default();
        pins.pin(&name(1), id(1));
        pins.pin(&name(1), id(2));
        pins.pin(&name(2), id(1));
        assert_eq!((pins.owner("pi-1"), pins.owner("pi-2")), (Some(id(1)), None));
        assert_eq!(pins.free(&id(1)), Some(name(1)));
        assert_eq!((pins.owner("pi-1"), pins.name_of(&id(1))), (None, None));
    }
}
