//! How many members each source has in each namespace, at each of its levels.
//!
//! What is left of the server is shared out: once half of it is taken, each source may have less, in proportion to what is
//! free. So those who are many leave room for others however many places they come from; see [`Census::share`].

use std::array;
use std::collections::BTreeMap;

use super::namespaces::NamespaceIndex;
use crate::limits;
use crate::source::{LEVELS, Source};

/// A source and a namespace, in 12 bytes: there may be as many as members, at each level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place([u8; 12]);

impl Place {
    fn new(source: Source, namespace: NamespaceIndex) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&source.bytes());
        bytes[8..].copy_from_slice(&namespace.0.to_be_bytes());
        Self(bytes)
    }
}

/// The members of all places that have any, level by level.
#[derive(Debug)]
pub(super) struct Census([BTreeMap<Place, u16>; LEVELS]);

const _: () = assert!(limits::NAMESPACE_MEMBERS_PER_SOURCE[LEVELS - 1] <= u16::MAX as usize);

impl Default for Census {
    fn default() -> Self {
        Self(array::from_fn(|_| BTreeMap::new()))
    }
}

impl Census {
    /// Whether a member at `source` may be in this namespace (none: one that is not there yet).
    pub(super) fn admits(&self, source: Source, namespace: Option<NamespaceIndex>) -> bool {
        source.levels().all(|(level, source)| {
            namespace.is_some_and(|namespace| self.count(level, source, namespace) > 0)
                || self.counts_of(level, source).count() < limits::NAMESPACES_PER_SOURCE[level]
        })
    }

    /// Whether one member more may be at `source` in this namespace (none: one that is not there yet), while so many of
    /// the server's places are `free`, `of` all.
    pub(super) fn has_room(
        &self,
        source: Source,
        namespace: Option<NamespaceIndex>,
        free: usize,
        of: usize,
    ) -> bool {
        source.levels().all(|(level, source)| {
            let there = namespace.map_or(0, |namespace| self.count(level, source, namespace));
            let all: usize = self.counts_of(level, source).sum();
            there < limits::NAMESPACE_MEMBERS_PER_SOURCE[level] && all < Self::share(level, free, of)
        })
    }

    /// How many members one source may have: while half of the server is free as many as the limit says, then ever fewer,
    /// and never less than a home has.
    fn share(level: usize, free: usize, of: usize) -> usize {
        let most = limits::MEMBERS_PER_SOURCE[level];
        let share = most.saturating_mul(2).saturating_mul(free) / of.max(1);
        share.clamp(most / limits::SHARE_SHRINKS, most)
    }

    /// A member of this namespace is at `source` from now on.
    pub(super) fn arrive(&mut self, source: Source, namespace: NamespaceIndex) {
        for (level, source) in source.levels() {
            let count = self.0[level].entry(Place::new(source, namespace)).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// It is not any more.
    pub(super) fn depart(&mut self, source: Source, namespace: NamespaceIndex) {
        for (level, source) in source.levels() {
            let place = Place::new(source, namespace);
            if let Some(count) = self.0[level].get_mut(&place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.0[level].remove(&place);
                }
            }
        }
    }

    fn count(&self, level: usize, source: Source, namespace: NamespaceIndex) -> usize {
        self.0[level].get(&Place::new(source, namespace)).copied().unwrap_or(0).into()
    }

    /// Of each of its namespaces: at most 512, the limit of the highest level.
    fn counts_of(&self, level: usize, source: Source) -> impl Iterator<Item = usize> {
        let [first, last] = [0, u32::MAX].map(|index| Place::new(source, NamespaceIndex(index)));
        self.0[level].range(first..=last).map(|(_, count)| usize::from(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn sources_are_counted_each_for_itself_and_nothing_is_left_of_those_that_went() {
        let (one, next) = (source("192.0.2.1"), source("192.0.2.2"));
        let mut census = Census::default();
        for namespace in 0..64 {
            census.arrive(one, NamespaceIndex(namespace));
            census.arrive(one, NamespaceIndex(namespace));
        }
        assert!(!census.admits(one, None) && !census.admits(one, Some(NamespaceIndex(64))));
        assert!(census.admits(one, Some(NamespaceIndex(63))) && census.admits(next, None));
        census.depart(one, NamespaceIndex(63));
        assert!(!census.admits(one, None));
        census.depart(one, NamespaceIndex(63));
        assert!(census.admits(one, None));
        (0..63).for_each(|namespace| census.depart(one, NamespaceIndex(namespace)));
        (0..63).for_each(|namespace| census.depart(one, NamespaceIndex(namespace)));
        assert!(census.0.iter().all(BTreeMap::is_empty));
        for address in ["2001:db8:1:100::1", "2001:db8:1:101::1", "2001:db8:1:200::1"] {
            census.arrive(source(address), NamespaceIndex(1));
        }
        assert_eq!(census.0.each_ref().map(BTreeMap::len), [3, 2, 1]);
        for address in ["2001:db8:1:100::1", "2001:db8:1:101::1", "2001:db8:1:200::1"] {
            census.depart(source(address), NamespaceIndex(1));
        }
        assert!(census.0.iter().all(BTreeMap::is_empty));
    }

    /// So many sources take all that they get; tells how much of a server of a million stays free.
    fn left_by(sources: u32, source: impl Fn(u32) -> Source) -> usize {
        let of = limits::SERVER_MEMBERS;
        let (mut census, mut taken) = (Census::default(), 0);
        loop {
            let before = taken;
            for number in 0..sources {
                // As many networks as it needs for 64 members more.
                let namespace = NamespaceIndex(number * 8 + taken as u32 / 64 % 8);
                for _ in 0..64 {
                    if census.has_room(source(number), Some(namespace), of - taken, of) {
                        census.arrive(source(number), namespace);
                        taken += 1;
                    }
                }
            }
            if taken == before {
                return of - taken;
            }
        }
    }

    #[test]
    fn a_thousand_addresses_or_five_hundred_sites_together_leave_a_tenth_of_the_server_to_others() {
        let v4 = |number: u32| Source::of(std::net::Ipv4Addr::from_bits(0x6440_0000 + number).into());
        // A new link for each member: only the site counts.
        let v6 = |number: u32| source(&format!("2001:db8:{number:x}:{:x}::1", number % 7 * 256));
        for left in [left_by(1000, v4), left_by(500, v6)] {
            println!("{left} places are left");
            assert!(left > limits::SERVER_MEMBERS / 10, "{left}");
        }
        // Whoever comes then still finds room for a home.
        assert!(left_by(15_000, v4) >= 64);
    }

    #[test]
    fn a_place_is_small() {
        assert_eq!((size_of::<Place>(), align_of::<Place>()), (12, 1));
    }
}
