//! Memory that many share: how much is held in all, and how much more one of them may hold.
//!
//! Nobody has a fixed part. One may hold a few times as much as is still free (the dynamic threshold of shared buffers in
//! switches: Choudhury and Hahne, 1998): so one alone has most of it, many have equal parts, and somebody new always finds
//! room, however much the others want.

use crate::limits;

/// How many times as much as is left one may hold: one alone has three quarters.
const SHARE: usize = 3;

/// So many bytes, for all together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    limit: usize,
    held: usize,
}

impl Budget {
    /// At most so many bytes.
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, held: 0 }
    }

    /// How many bytes all hold.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Whether one who holds `own` bytes of it may hold `more`.
    pub(crate) const fn has_room(&self, own: usize, more: usize) -> bool {
        let left = self.limit.saturating_sub(self.held + more);
        own + more <= SHARE * left
    }

    /// Whether `more` bytes are free at all.
    pub(crate) const fn fits(&self, more: usize) -> bool {
        self.held + more <= self.limit
    }

    /// What a group that holds `own` bytes has for its members, whatever the other groups hold.
    pub(crate) const fn of_group(&self, own: usize) -> Self {
        let others = self.held.saturating_sub(own);
        Self { limit: self.limit.saturating_sub(others) * SHARE / (SHARE + 1), held: own }
    }

    /// Somebody held `before` bytes and holds `now`.
    pub(crate) const fn changed(&mut self, before: usize, now: usize) {
        self.held = self.held.saturating_sub(before) + now;
    }
}

/// All budgets of a node that its peers share.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// Messages that wait for one before them.
    pub(crate) held: Budget,
    /// Messages of which not all pieces have come.
    pub(crate) parts: Budget,
    /// Names of topics.
    pub(crate) topics: Budget,
}

/// What one peer holds of the first two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Holdings {
    held: usize,
    parts: usize,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            held: Budget::new(limits::HELD_BYTES_IN_ALL),
            parts: Budget::new(limits::REASSEMBLED_BYTES_IN_ALL),
            topics: Budget::new(limits::REMOTE_TOPIC_BYTES_IN_ALL),
        }
    }
}

impl Budgets {
    /// Takes note of how much one peer holds now.
    pub(crate) const fn count(&mut self, holdings: &mut Holdings, held: usize, parts: usize) {
        self.held.changed(holdings.held, held);
        self.parts.changed(holdings.parts, parts);
        *holdings = Holdings { held, parts };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of `count` holds when all take whatever they get, in pieces of 100 bytes.
    fn fill(budget: &mut Budget, count: usize) -> Vec<usize> {
        let mut held = vec![0; count];
        let mut growing = true;
        while growing {
            growing = false;
            for own in &mut held {
                if budget.has_room(*own, 100) {
                    budget.changed(*own, *own + 100);
                    *own += 100;
                    growing = true;
                }
            }
        }
        held
    }

    #[test]
    fn one_alone_has_three_quarters_and_many_have_equal_parts() {
        assert_eq!(fill(&mut Budget::new(40_000), 1), [30_000]);
        for count in [2, 10, 50] {
            let mut budget = Budget::new(1_000_000);
            let held = fill(&mut budget, count);
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 100, "{held:?}");
            assert_eq!(budget.held(), held.iter().sum::<usize>());
            assert!(budget.held() <= 1_000_000);
        }
    }

    #[test]
    fn somebody_new_finds_room_at_once_for_a_fifth_of_what_each_of_the_greedy_has() {
        let mut budget = Budget::new(1_000_000);
        let held = fill(&mut budget, 20);
        assert!(budget.has_room(0, held[0] / 5), "{held:?}");
    }

    #[test]
    fn a_group_of_many_leaves_as_much_to_another_group_as_a_single_one_would() {
        let mut budget = Budget::new(1_000_000);
        let mut held = [0; 30];
        for _ in 0..10_000 {
            for own in &mut held {
                let group: usize = budget.held();
                if budget.of_group(group).has_room(*own, 100) {
                    budget.changed(*own, *own + 100);
                    *own += 100;
                }
            }
        }
        assert!(held.iter().all(|own| own.abs_diff(held[0]) <= 100), "{held:?}");
        assert!(budget.held() <= 750_000);
        assert!(budget.of_group(0).has_room(0, 100_000));
    }
}
