//! A rate that several share, so that none of them can use it up.
//!
//! Whoever uses it owes what it used. All debts are paid off at the rate, in equal parts; who owes little is free sooner, and
//! its part goes to the others. One may owe a few times as much as nobody owes yet: so a single user has nearly all of the
//! burst, many have equal parts of it, and somebody new finds room as soon as a little is paid.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;

/// How many times as much as is left one may owe: a single user has three quarters of the burst, and beside eight that
/// take what they get a newcomer finds a twenty-fifth.
const SHARE: f64 = 3.0;
/// Debts are paid off no more often: that takes a look at each of them, and packets come far more often.
const PAID: Duration = Duration::from_millis(5);

/// What is used at one rate by several.
#[derive(Debug)]
pub(crate) struct FairPace<K> {
    burst: f64,
    a_second: f64,
    users: usize,
    debts: BTreeMap<K, f64>,
    owed: f64,
    paid: Instant,
}

impl<K: Ord + Copy> FairPace<K> {
    /// For at most so many users at once.
    pub(crate) fn new(burst: usize, a_second: usize, users: usize) -> Self {
        let (burst, a_second) = (burst as f64, a_second as f64);
        Self { burst, a_second, users, debts: BTreeMap::new(), owed: 0.0, paid: Instant::default() }
    }

    /// Takes the room of `count` for `user`, all or none; says whether there was so much for it.
    pub(crate) fn take(&mut self, user: K, count: usize, now: Instant) -> bool {
        let passed = now.since(self.paid);
        if passed >= PAID {
            self.pay(passed.as_secs_f64() * self.a_second);
            self.paid = now;
        }
        let debt = self.debts.get(&user).copied().unwrap_or_default() + count as f64;
        let left = self.burst - self.owed - count as f64;
        let is_new = debt == count as f64;
        if debt > SHARE * left || is_new && self.debts.len() >= self.users {
            return false;
        }
        self.debts.insert(user, debt);
        self.owed += count as f64;
        true
    }

    /// Pays `sum` in equal parts, the rest of small debts to the others.
    fn pay(&mut self, mut sum: f64) {
        while !self.debts.is_empty() && sum > 0.0 {
            let part = sum / self.debts.len() as f64;
            let before = self.debts.len();
            self.debts.retain(|_, debt| {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
