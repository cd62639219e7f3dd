//! The members of one namespace in one list: first those that have told no blob yet, then the others, the oldest change
//! first.
//!
//! A place is found by halving, and a change moves the numbers behind it. Those are four bytes each, of at most 4096
//! members: less work than the hash of a message, and no member needs the node of a tree.

use super::members::MemberIndex;

/// Who is in a namespace. Versions are asked for, since the members themselves know them.
#[derive(Debug, Default)]
pub(super) struct Roll {
    members: Vec<MemberIndex>,
    listed: u32,
}

impl Roll {
    /// All members.
    pub(super) fn all(&self) -> &[MemberIndex] {
        &self.members
    }

    /// How many of them the others hear of.
    pub(super) const fn listed(&self) -> usize {
        self.listed as usize
    }

    /// One that has told nothing yet.
    pub(super) fn enter(&mut self, member: MemberIndex) {
        self.members.insert(self.unlisted(), member);
    }

    /// It changes, and is going to have the highest version; its last one is still `version` (zero: none).
    pub(super) fn change(
        &mut self,
        member: MemberIndex,
        version: u64,
        version_of: impl Fn(MemberIndex) -> u64,
    ) {
        self.leave(member, version, version_of);
        self.members.push(member);
        self.listed += 1;
    }

    /// It is not there any more; its last version is still `version`.
    pub(super) fn leave(
        &mut self,
        member: MemberIndex,
        version: u64,
        version_of: impl Fn(MemberIndex) -> u64,
    ) {
        let unlisted = self.unlisted();
        let place = if version == 0 {
            self.members[..unlisted].iter().position(|other| *other == member)
        } else {
            let before = self.members[unlisted..].partition_point(|other| version_of(*other) < version);
            Some(unlisted + before).filter(|place| self.members.get(*place) == Some(&member))
        };
        if let Some(place) = place {
            self.members.remove(place);
            self.listed -= u32::from(version != 0);
        }
    }

    /// Those that changed after `version`, the oldest change first.
    pub(super) fn changed_after(
        &self,
        version: u64,
        version_of: impl Fn(MemberIndex) -> u64,
    ) -> &[MemberIndex] {
        let listed = &self.members[self.unlisted()..];
        &listed[listed.partition_point(|member| version_of(*member) <= version)..]
    }

    fn unlisted(&self) -> usize {
        self.members.len() - self.listed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whoever_comes_changes_and_leaves_stands_where_its_version_says(
            acts in prop::collection::vec((0_u32..12, 0_u8..3), 0..200),
        ) {
            let mut roll = Roll::default();
            let mut versions = BTreeMap::<u32, u64>::new();
            let mut last = 1000;
            for (number, act) in acts {
                let member = MemberIndex(number);
                let version_of = |versions: &BTreeMap<u32, u64>, member: MemberIndex| versions[&member.0];
                match (versions.get(&number).copied(), act) {
                    (None, _) => {
                        roll.enter(member);
                        versions.insert(number, 0);
                    }
                    (Some(version), 0) => {
                        roll.leave(member, version, |member| version_of(&versions, member));
                        versions.remove(&number);
                    }
                    (Some(version), _) => {
                        roll.change(member, version, |member| version_of(&versions, member));
                        last += 1;
                        versions.insert(number, last);
                    }
                }
                let mut expected: Vec<_> =
                    versions.iter().filter(|(_, version)| **version > 0).map(|(n, v)| (*v, *n)).collect();
                expected.sort_unstable();
                prop_assert_eq!(roll.all().len(), versions.len());
                prop_assert_eq!(roll.listed(), expected.len());
                for after in [0, last.saturating_sub(3), last - 1, last] {
                    let changed = roll.changed_after(after, |member| version_of(&versions, member));
                    let changed: Vec<_> = changed.iter().map(|member| member.0).collect();
                    let expected = expected.iter().filter(|(version, _)| *version > after);
                    prop_assert_eq!(changed, expected.map(|(_, number)| *number).collect::<Vec<_>>());
                }
            }
        }
    }
}
