//! Answers that are to come later: by them a node learns how long its translator keeps a mapping that nobody uses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::wheel::{Second, Wheel};
use crate::limits;
use crate::source::{LEVELS, Source};
use crate::time::Instant;
use crate::wire::rendezvous::{Nonce, address_bytes, address_from};

/// One that is owed. There may be thousands: no field is wider than it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    nonce: Nonce,
    to: [u8; 18],
    /// The number of our address that was asked.
    pub(super) local: u8,
}

impl Owed {
    pub(super) fn new(nonce: Nonce, to: SocketAddr, local: u8) -> Self {
        Self { nonce, to: address_bytes(to), local }
    }

    pub(super) const fn nonce(&self) -> Nonce {
        self.nonce
    }

    pub(super) fn to(&self) -> SocketAddr {
        address_from(self.to)
    }
}

/// All that are owed.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    wheel: Wheel<Owed>,
    /// How many wait at each source, level by level.
    by_source: [BTreeMap<Source, u8>; LEVELS],
}

const _: () = assert!(limits::ECHOES_PER_SOURCE[LEVELS - 1] <= u8::MAX as usize);

impl Echoes {
    pub(super) const fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Owes one more, if there is room for it.
    pub(super) fn add(&mut self, at: Second, owed: Owed) -> bool {
        if self.len() >= limits::ECHOES {
            return false;
        }
        let source = Source::of(owed.to().ip());
        let waiting =
            |(level, source): (usize, Source)| self.by_source[level].get(&source).copied().unwrap_or(0);
        if source.levels().any(|at| usize::from(waiting(at)) >= limits::ECHOES_PER_SOURCE[at.0]) {
            return false;
        }
        for (level, source) in source.levels() {
            *self.by_source[level].entry(source).or_default() += 1;
        }
        self.wheel.add(at, owed);
        true
    }

    /// The next one that is due; none when `given` is as many as may be at once.
    pub(super) fn pop(&mut self, now: Instant, given: &mut usize) -> Option<Owed> {
        let (_, owed) = self.wheel.pop(now, given)?;
        let source = Source::of(owed.to().ip());
        for (level, source) in source.levels() {
            if let Some(waiting) = self.by_source[level].get_mut(&source) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.by_source[level].remove(&source);
                }
            }
        }
        Some(owed)
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wheel.next()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_has_four_and_all_have_65_536_and_what_was_given_makes_room() {
        let mut echoes = Echoes::default();
        let now = Instant::from_origin(Duration::from_secs(5));
        let owed = |number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            Owed::new(Nonce([1; 8]), ([a, b, c, d], 7).into(), 0)
        };
        for number in 0..limits::ECHOES as u32 {
            assert!(echoes.add(Second::after(now), owed(number / 4)));
            assert!(number % 4 < 3 || !echoes.add(Second::after(now), owed(number / 4)));
        }
        assert!(!echoes.add(Second::after(now), owed(99_999)));
        let first = echoes.pop(now, &mut 0).unwrap();
        assert!(echoes.add(Second::after(now), owed(99_999)));
        assert!(!echoes.add(Second::after(now), first));
        while echoes.pop(now + Duration::from_secs(1000), &mut 0).is_some() {}
        assert!(
            echoes.len() == 0 && echoes.by_source.iter().all(BTreeMap::is_empty) && echoes.next().is_none()
        );
    }

    #[test]
    fn one_that_is_owed_is_small() {
        assert_eq!(size_of::<Owed>(), 27);
    }
}
