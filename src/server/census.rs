//! How many members each source has in each namespace.

use std::collections::BTreeMap;

use super::namespaces::NamespaceIndex;
use crate::limits;
use crate::source::Source;

/// A source and a namespace, in 12 bytes: there may be as many as members.
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

/// The members of all places that have any.
#[derive(Debug, Default)]
pub(super) struct Census(BTreeMap<Place, u16>);

const _: () = assert!(limits::NAMESPACE_MEMBERS_PER_SOURCE <= u16::MAX as usize);

impl Census {
    /// Whether a member at `source` may be in this namespace (none: one that is not there yet).
    pub(super) fn admits(&self, source: Source, namespace: Option<NamespaceIndex>) -> bool {
        namespace.is_some_and(|namespace| self.count(source, namespace) > 0)
            || self.counts_of(source).count() < limits::NAMESPACES_PER_SOURCE
    }

    /// Whether one member more may be at `source` in this namespace (none: one that is not there yet).
    pub(super) fn has_room(&self, source: Source, namespace: Option<NamespaceIndex>) -> bool {
        let there = namespace.map_or(0, |namespace| self.count(source, namespace));
        let all: usize = self.counts_of(source).sum();
        there < limits::NAMESPACE_MEMBERS_PER_SOURCE && all < limits::MEMBERS_PER_SOURCE
    }

    /// A member of this namespace is at `source` from now on.
    pub(super) fn arrive(&mut self, source: Source, namespace: NamespaceIndex) {
        let count = self.0.entry(Place::new(source, namespace)).or_default();
        *count = count.saturating_add(1);
    }

    /// It is not any more.
    pub(super) fn depart(&mut self, source: Source, namespace: NamespaceIndex) {
        let place = Place::new(source, namespace);
        if let Some(count) = self.0.get_mut(&place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(&place);
            }
        }
    }

    fn count(&self, source: Source, namespace: NamespaceIndex) -> usize {
        self.0.get(&Place::new(source, namespace)).copied().unwrap_or(0).into()
    }

    /// Of each of its namespaces: at most 64.
    fn counts_of(&self, source: Source) -> impl Iterator<Item = usize> {
        let [first, last] = [0, u32::MAX].map(|index| Place::new(source, NamespaceIndex(index)));
        self.0.range(first..=last).map(|(_, count)| usize::from(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_counted_each_for_itself_and_nothing_is_left_of_those_that_went() {
        let source = |text: &str| Source::of(text.parse().unwrap());
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
        assert!(census.0.is_empty());
    }

    #[test]
    fn a_place_is_small() {
        assert_eq!((size_of::<Place>(), align_of::<Place>()), (12, 1));
    }
}
