//! A rate that several share, so that none of them can use it up.
//!
//! Whoever uses it owes what it used. All debts are paid off at the rate, in equal parts; who owes little is free sooner, and
//! its part goes to the others. One may owe a few times as much as nobody owes yet: so a single user has nearly all of the
//! burst, many have equal parts of it, and somebody new finds room as soon as a little is paid. Users may lie within wider
//! ones: these share the burst in the same way, and those within one share what it may owe.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;

/// How many times as much as is left one may owe: a single user has three quarters of the burst, and beside eight that
/// take what they get a newcomer finds a twenty-fifth.
const SHARE: f64 = 3.0;
/// Debts are paid off no more often: that takes a look at each of them, and packets come far more often.
const PAID: Duration = Duration::from_millis(5);

/// Somebody who uses a rate, and may lie within something wider that shares it with others of its kind.
pub(crate) trait Nested: Sized {
    /// What it lies within.
    fn wider(self) -> Option<Self> {
        None
    }
}

impl Nested for NodeId {}

/// What is used at one rate by several.
#[derive(Debug)]
pub(crate) struct FairPace<K> {
    burst: f64,
    a_second: f64,
    users: usize,
    debts: BTreeMap<K, f64>,
    /// Of all within something wider, together.
    around: BTreeMap<K, f64>,
    owed: f64,
    paid: Instant,
}

impl<K: Ord + Copy + Nested> FairPace<K> {
    /// For at most so many users at once.
    pub(crate) fn new(burst: usize, a_second: usize, users: usize) -> Self {
        let (burst, a_second) = (burst as f64, a_second as f64);
        let (debts, around) = (BTreeMap::new(), BTreeMap::new());
        Self { burst, a_second, users, debts, around, owed: 0.0, paid: Instant::default() }
    }

    /// Takes the room of `count` for `user`, all or none; says whether there was so much for it.
    pub(crate) fn take(&mut self, user: K, count: usize, now: Instant) -> bool {
        let passed = now.since(self.paid);
        if passed >= PAID {
            self.pay(passed.as_secs_f64() * self.a_second);
            self.paid = now;
        }
        let is_new = !self.debts.contains_key(&user);
        let left = self.burst - self.owed - count as f64;
        if self.left_within(user, count as f64, left) < 0.0 || is_new && self.debts.len() >= self.users {
            return false;
        }
        *self.debts.entry(user).or_default() += count as f64;
        self.owe_around(user, count as f64);
        self.owed += count as f64;
        true
    }

    /// What those within `user` may still owe once it owes `count` more, where `left` is what nobody owes.
    fn left_within(&self, user: K, count: f64, left: f64) -> f64 {
        let left = user.wider().map_or(left, |wider| self.left_within(wider, count, left));
        let debt = self.debts.get(&user).or_else(|| self.around.get(&user)).copied().unwrap_or_default();
        // What is not there cannot be shared, and debts do not make it more.
        if left < 0.0 { left } else { SHARE * left - (debt + count) }
    }

    /// How many owe something directly within each wider one, and how many of the widest do; none if nobody is within another.
    fn siblings(&self) -> BTreeMap<Option<K>, usize> {
        let mut siblings = BTreeMap::new();
        if self.around.is_empty() {
            return siblings;
        }
        for user in self.debts.keys() {
            for around in std::iter::successors(Some(*user), |user| user.wider()).map(Nested::wider) {
                let count = siblings.entry(around).or_insert(0);
                *count += 1;
                if *count > 1 {
                    break;
                }
            }
        }
        siblings
    }

    fn owe_around(&mut self, user: K, count: f64) {
        for wider in std::iter::successors(user.wider(), |wider| wider.wider()) {
            *self.around.entry(wider).or_default() += count;
        }
    }

    /// Pays `sum` in equal parts to the widest that owe, and each part so to those within; the rest of small debts to the
    /// others.
    fn pay(&mut self, mut sum: f64) {
        while !self.debts.is_empty() && sum > 0.0 {
            let (all, before, siblings) = (sum, self.debts.len(), self.siblings());
            self.debts.retain(|user, debt| {
                let around = std::iter::successors(Some(*user), |user| user.wider()).map(Nested::wider);
                let parts = around.map(|wider| siblings.get(&wider).copied().unwrap_or(before));
                let part = parts.fold(all, |part, count| part / count as f64);
                let paid = part.min(*debt);
                *debt -= paid;
                sum -= paid;
                *debt > 0.0
            });
            if self.debts.len() == before {
                break;
            }
        }
        // Summed anew: small errors must not grow for as long as the node lives.
        self.owed = self.debts.values().sum();
        self.around.clear();
        let within: Vec<_> = self
            .debts
            .iter()
            .filter(|(user, _)| user.wider().is_some())
            .map(|(user, debt)| (*user, *debt))
            .collect();
        within.into_iter().for_each(|(user, debt)| self.owe_around(user, debt));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Nested for u8 {}

    /// A house in a street.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Place {
        Street(u16),
        House(u16, u16),
    }

    impl Nested for Place {
        fn wider(self) -> Option<Self> {
            match self {
                Self::House(street, _) => Some(Self::Street(street)),
                Self::Street(_) => None,
            }
        }
    }

    #[test]
    fn a_street_of_many_greedy_houses_leaves_room_to_others_and_a_greedy_house_to_its_street() {
        let mut pace = FairPace::new(1000, 100, 10_000);
        let mut got = BTreeMap::<Place, usize>::new();
        for now in 0..20_000 {
            for house in 0..50 {
                let greedy = Place::House(1, (now % 20) as u16 * 50 + house);
                *got.entry(Place::Street(1)).or_default() += usize::from(pace.take(greedy, 1, at(now)));
            }
            let single = Place::House(2, 1);
            while pace.take(single, 1, at(now)) {
                *got.entry(single).or_default() += 1;
            }
            // Each wants one a second, once those before it have paid what they took of the burst when it was all there.
            for wish in [Place::House(2, 2), Place::House(3, 1)] {
                if now >= 5000 && now % 1000 == 0 {
                    *got.entry(wish).or_default() += usize::from(pace.take(wish, 1, at(now)));
                }
            }
        }
        assert_eq!((got[&Place::House(2, 2)], got[&Place::House(3, 1)]), (15, 15), "{got:?}");
        assert!(pace.owed <= 1000.0);
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(milliseconds))
    }

    /// What each user got of all that it tried to take, in pieces of `piece` each millisecond, in so many seconds.
    fn got(pace: &mut FairPace<u8>, wishes: &[(u8, usize)], from: u64, seconds: u64) -> Vec<usize> {
        let mut got = vec![0; wishes.len()];
        for now in from * 1000..(from + seconds) * 1000 {
            for (at_wish, (user, piece)) in wishes.iter().enumerate() {
                if pace.take(*user, *piece, at(now)) {
                    got[at_wish] += piece;
                }
            }
        }
        got
    }

    #[test]
    fn a_single_user_has_most_of_the_burst_at_once_and_then_the_whole_rate() {
        let mut pace = FairPace::new(1000, 100, 10);
        let at_once = (0..1000).filter(|_| pace.take(1, 1, at(0))).count();
        assert_eq!(at_once, 750);
        let all = got(&mut pace, &[(1, 1)], 0, 10)[0];
        assert!((990..=1001).contains(&all), "{all}");
    }

    #[test]
    fn users_that_take_what_they_get_have_equal_parts_and_one_that_takes_little_has_all_of_it() {
        let mut pace = FairPace::new(10_000, 10_000, 10);
        // One tries ten times as often as the other, the third wants a tenth of the rate.
        let wishes = [(1, 100), (2, 10), (3, 1)];
        got(&mut pace, &wishes, 0, 5);
        let got = got(&mut pace, &wishes, 5, 20);
        assert_eq!(got[2], 20_000, "{got:?}");
        assert!(got[0].abs_diff(90_000) < 3000 && got[1].abs_diff(90_000) < 3000, "{got:?}");
    }

    #[test]
    fn somebody_new_soon_finds_room_beside_any_number_of_greedy_ones_and_all_together_never_pass_the_burst() {
        let mut pace = FairPace::new(100_000, 100_000, 100);
        for user in 1..=50_u8 {
            let now = 20 * u64::from(user);
            assert!((0..20).any(|more| pace.take(user, 1000, at(now + more))), "{user}");
            // Who was there takes all that it gets.
            for user in 1..=user {
                while pace.take(user, 100, at(now + 20)) {}
            }
            assert!(pace.owed <= 100_000.0, "{}", pace.owed);
        }
    }

    #[test]
    fn it_remembers_no_more_users_than_it_may_and_none_that_owes_nothing() {
        let mut pace = FairPace::new(1000, 10, 2);
        assert_eq!([1, 2, 3].map(|user| pace.take(user, 10, at(0))), [true, true, false]);
        assert!(pace.take(3, 10, at(2000)));
        assert_eq!(pace.debts.len(), 1);
    }
}
