//! What is to be done in which second: one list for each, so that nothing is ever scanned as a whole.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::Instant;

/// Given in one call; the rest waits a moment, so that a great dying does not hold up the living.
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
#[derive(Debug)]
pub(super) struct Wheel<T> {
    lists: BTreeMap<Second, Vec<T>>,
    count: usize,
    not_before: Instant,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        Self { lists: BTreeMap::new(), count: 0, not_before: Instant::default() }
    }
}

impl<T> Wheel<T> {
    pub(super) fn add(&mut self, at: Second, item: T) {
        self.lists.entry(at).or_default().push(item);
        self.count += 1;
    }

    /// How many wait for their second.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The next one that is due, and its second; none when `given` is as many as may be at once.
    pub(super) fn pop(&mut self, now: Instant, given: &mut usize) -> Option<(Second, T)> {
        loop {
            let mut first = self.lists.first_entry()?;
            if !first.key().is_over(now) || now < self.not_before {
                return None;
            }
            if *given >= AT_ONCE {
                self.not_before = now + MOMENT;
                return None;
            }
            let second = *first.key();
            match first.get_mut().pop() {
                Some(item) => {
                    *given += 1;
                    self.count -= 1;
                    return Some((second, item));
                }
                None => drop(first.remove()),
            }
        }
    }

    /// When there is one that is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lists.first_key_value().map(|(second, _)| second.instant().max(self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_due_together_is_given_in_pieces() {
        let mut wheel = Wheel::default();
        let mut now = Instant::from_origin(Duration::from_millis(9_500));
        for item in 0..3000 {
            wheel.add(Second::after(now), item);
        }
        assert_eq!(wheel.pop(now, &mut 0), None);
        let mut pieces = Vec::new();
        while let Some(next) = wheel.next() {
            assert!(next > now);
            now = next;
            let mut given = 0;
            while wheel.pop(now, &mut given).is_some() {}
            pieces.push(given);
        }
        assert_eq!(pieces, [1024, 1024, 952]);
        assert_eq!(wheel.len(), 0);
    }
}
