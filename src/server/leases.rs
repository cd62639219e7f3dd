//! When to look whether a member is still here: one list for each second, so that nothing is ever scanned as a whole.
//!
//! A member stands in one list at a time. One whose lease began anew meanwhile is put into a later list when its second
//! comes, so that a keep costs nothing here.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::members::MemberIndex;
use crate::time::Instant;

/// Looked at in one call; the rest waits a moment, so that a great dying does not hold up the living.
const AT_ONCE: usize = 1024;
/// That moment.
const MOMENT: Duration = Duration::from_millis(1);

/// A second since the clock's origin, but for the very first: so none at all takes no room. 32 bits are 136 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Second(NonZeroU32);

impl Second {
    /// The first whole second that is not before `at`.
    pub(super) fn after(at: Instant) -> Self {
        let since = at.since_origin();
        let whole = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
        let second = whole.saturating_add(u32::from(since.subsec_nanos() > 0));
        Self(NonZeroU32::new(second).unwrap_or(NonZeroU32::MIN))
    }

    fn instant(self) -> Instant {
        Instant::from_origin(Duration::from_secs(self.0.get().into()))
    }

    /// Whether it has come.
    pub(super) fn is_over(self, now: Instant) -> bool {
        self.instant() <= now
    }
}

/// All those lists.
#[derive(Debug, Default)]
pub(super) struct Leases {
    lists: BTreeMap<Second, Vec<MemberIndex>>,
    not_before: Instant,
}

impl Leases {
    pub(super) fn add(&mut self, at: Second, member: MemberIndex) {
        self.lists.entry(at).or_default().push(member);
    }

    /// The next one to look at, and for which second; none when `looked_at` is as many as may be at once.
    pub(super) fn pop(&mut self, now: Instant, looked_at: &mut usize) -> Option<(Second, MemberIndex)> {
        loop {
            let mut first = self.lists.first_entry()?;
            if !first.key().is_over(now) || now < self.not_before {
                return None;
            }
            if *looked_at >= AT_ONCE {
                self.not_before = now + MOMENT;
                return None;
            }
            let second = *first.key();
            match first.get_mut().pop() {
                Some(member) => {
                    *looked_at += 1;
                    return Some((second, member));
                }
                None => drop(first.remove()),
            }
        }
    }

    /// When there is one to be looked at.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lists.first_key_value().map(|(second, _)| second.instant().max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_great_dying_is_looked_at_in_pieces() {
        let mut leases = Leases::default();
        let mut now = Instant::from_origin(Duration::from_millis(9_500));
        for member in 0..3000 {
            leases.add(Second::after(now), MemberIndex(member));
        }
        assert_eq!(leases.pop(now, &mut 0), None);
        let mut pieces = Vec::new();
        while let Some(next) = leases.next() {
            assert!(next > now);
            now = next;
            let mut looked_at = 0;
            while leases.pop(now, &mut looked_at).is_some() {}
            pieces.push(looked_at);
        }
        assert_eq!(pieces, [1024, 1024, 952]);
    }
}
