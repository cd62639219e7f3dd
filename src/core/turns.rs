//! Messages that wait for their turn to one peer: each app has a queue of its own. Users take turns by bytes, and in the
//! turns of a user its apps.
//!
//! So a burst of one app does not hold up the single message of another, nor a user with many apps one who has a single
//! one. What names a topic of which the peer has not
//! said whether anybody listens stands aside, and what the same app sends after it, so that its order stays.

use std::collections::{BTreeMap, VecDeque};

use crate::id::ClientId;

/// The queues of one peer.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    by_app: BTreeMap<ClientId, VecDeque<T>>,
    /// Whose turn it is, and who comes then: the users, and the apps of each; all who have something.
    turns: VecDeque<(u32, VecDeque<ClientId>)>,
    /// Bytes that the first of them has sent in this turn.
    spent: usize,
    aside: VecDeque<(App, T)>,
    len: usize,
}

/// An app, and the user whose it is.
pub(crate) type App = (u32, ClientId);

/// What one app may send before another one has its turn.
const TURN_BYTES: usize = 1200;

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { by_app: BTreeMap::new(), turns: VecDeque::new(), spent: 0, aside: VecDeque::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    /// Whether nothing waits, aside or in turn.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether nothing waits for its turn.
    pub(crate) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// Appends what an app sends; `aside`: it cannot have its turn yet.
    pub(crate) fn push(&mut self, app: App, item: T, aside: bool) {
        self.len += 1;
        if aside || self.aside.iter().any(|(of, _)| *of == app) {
            self.aside.push_back((app, item));
        } else {
            self.line_up(app, item);
        }
    }

    fn line_up(&mut self, (user, app): App, item: T) {
        let queue = self.by_app.entry(app).or_default();
        if queue.is_empty() {
            match self.turns.iter_mut().find(|(of, _)| *of == user) {
                Some((_, apps)) => apps.push_back(app),
                None => self.turns.push_back((user, [app].into())),
            }
        }
        queue.push_back(item);
    }

    /// Whose turn it is.
    fn turn(&self) -> Option<App> {
        let (user, apps) = self.turns.front()?;
        apps.front().map(|app| (*user, *app))
    }

    /// The app whose turn it is has nothing more.
    fn end_turns(&mut self) {
        self.spent = 0;
        if let Some((user, mut apps)) = self.turns.pop_front() {
            apps.pop_front();
            if !apps.is_empty() {
                self.turns.push_back((user, apps));
            }
        }
    }

    /// The first one of the app whose turn it is.
    pub(crate) fn first(&mut self) -> Option<(ClientId, &mut T)> {
        let (_, app) = self.turn()?;
        self.by_app.get_mut(&app)?.front_mut().map(|item| (app, item))
    }

    /// Takes that one, for which so many bytes of its turn are spent.
    pub(crate) fn take_first(&mut self, bytes: usize) -> Option<T> {
        let (_, app) = self.turn()?;
        let queue = self.by_app.get_mut(&app)?;
        let item = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.by_app.remove(&app);
            self.end_turns();
        } else {
            self.spend(bytes);
        }
        Some(item)
    }

    /// Puts the app whose turn it is aside: nobody is known to listen to what it sends first.
    pub(crate) fn set_aside(&mut self) {
        let Some(app) = self.turn() else { return };
        self.end_turns();
        let queue = self.by_app.remove(&app.1).unwrap_or_default();
        self.aside.extend(queue.into_iter().map(|item| (app, item)));
    }

    /// Puts one aside again that had its turn before, behind those of its app that stand `before` it. What `began` to leave
    /// goes on.
    pub(crate) fn put_back(
        &mut self,
        app: App,
        item: T,
        before: impl Fn(&T) -> bool,
        began: impl Fn(&T) -> bool,
    ) {
        self.len += 1;
        let mut mine = VecDeque::new();
        if let Some(queue) = self.by_app.remove(&app.1) {
            let (stay, go): (VecDeque<T>, VecDeque<T>) = queue.into_iter().partition(began);
            mine = go;
            if stay.is_empty() {
                self.forget_idle();
            } else {
                self.by_app.insert(app.1, stay);
            }
        }
        let (of_app, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.aside).into_iter().partition(|(of, _)| *of == app);
        mine.extend(of_app.into_iter().map(|(_, item)| item));
        let at = mine.iter().position(|other| !before(other)).unwrap_or(mine.len());
        mine.insert(at, item);
        self.aside = others;
        self.aside.extend(mine.into_iter().map(|item| (app, item)));
    }

    /// The app whose turn it is has sent so much.
    pub(crate) fn spend(&mut self, bytes: usize) {
        self.spent += bytes;
        if self.spent >= TURN_BYTES {
            self.next_turn();
        }
    }

    /// The next one has its turn.
    pub(crate) fn next_turn(&mut self) {
        self.spent = 0;
        if let Some((user, mut apps)) = self.turns.pop_front() {
            apps.rotate_left(1);
            self.turns.push_back((user, apps));
        }
    }

    /// After how many turns each app with something to send has had one.
    pub(crate) fn round(&self) -> usize {
        let most = self.turns.iter().map(|(_, apps)| apps.len()).max();
        self.turns.len() * most.unwrap_or_default()
    }

    /// Lets those that stand aside line up for which `judge` says so; removes those that it says are over.
    pub(crate) fn review(&mut self, mut judge: impl FnMut(&T) -> Review) -> Vec<T> {
        let (mut over, mut held) = (Vec::new(), Vec::new());
        for (app, item) in std::mem::take(&mut self.aside) {
            match judge(&item) {
                Review::Over => {
                    self.len -= 1;
                    over.push(item);
                }
                Review::Ready if !held.contains(&app) => self.line_up(app, item),
                Review::Ready | Review::Wait => {
                    held.push(app);
                    self.aside.push_back((app, item));
                }
            }
        }
        over
    }

    /// Whether somebody stands aside.
    pub(crate) fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// All that wait.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_app.values().flatten().chain(self.aside.iter().map(|(_, item)| item))
    }

    /// Takes all for which `which` says so.
    pub(crate) fn take_all(&mut self, mut which: impl FnMut(&T) -> bool) -> Vec<T> {
        if !self.iter().any(&mut which) {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let apps = std::mem::take(&mut self.by_app);
        let aside = std::mem::take(&mut self.aside);
        for (app, queue) in apps {
            let (gone, stay): (VecDeque<T>, VecDeque<T>) = queue.into_iter().partition(&mut which);
            taken.extend(gone);
            if !stay.is_empty() {
                self.by_app.insert(app, stay);
            }
        }
        for (app, item) in aside {
            if which(&item) { taken.push(item) } else { self.aside.push_back((app, item)) }
        }
        self.forget_idle();
        self.len -= taken.len();
        taken
    }

    /// Forgets what an app has in it, but for what it must `keep`.
    pub(crate) fn forget(&mut self, app: ClientId, keep: impl Fn(&T) -> bool) {
        let before = self.aside.len();
        self.aside.retain(|((_, of), _)| *of != app);
        self.len -= before - self.aside.len();
        let Some(queue) = self.by_app.get_mut(&app) else { return };
        let before = queue.len();
        queue.retain(keep);
        self.len -= before - queue.len();
        if queue.is_empty() {
            self.by_app.remove(&app);
            self.forget_idle();
        }
    }

    /// Who has nothing to send has no turn.
    fn forget_idle(&mut self) {
        let by_app = &self.by_app;
        self.turns.retain_mut(|(_, apps)| {
            apps.retain(|app| by_app.contains_key(app));
            !apps.is_empty()
        });
    }
}

/// What is to be done with one that stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    Ready,
    Wait,
    Over,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_take_turns_however_many_apps_one_of_them_has() {
        let mut turns = Turns::default();
        for n in 0..20 {
            for app in 1..=9 {
                turns.push((1000, ClientId(app)), n, false);
            }
            turns.push((2000, ClientId(10)), n, false);
        }
        let mut sent = BTreeMap::<u64, usize>::new();
        for _ in 0..36 {
            let (app, _) = turns.first().unwrap();
            turns.take_first(TURN_BYTES);
            *sent.entry(app.0).or_default() += 1;
        }
        assert_eq!(sent[&10], 18, "{sent:?}");
        assert!((1..=9).all(|app| sent[&app] == 2), "{sent:?}");
    }

    #[test]
    fn everyone_has_had_a_turn_after_a_round() {
        let mut turns = Turns::default();
        for (user, app) in [(1000, 1), (1000, 2), (1000, 3), (2000, 4), (3000, 5)] {
            turns.push((user, ClientId(app)), (), false);
        }
        let mut had: Vec<u64> = Vec::new();
        for _ in 0..turns.round() {
            had.extend(turns.first().map(|(app, _)| app.0));
            turns.next_turn();
        }
        assert!((1..=5).all(|app| had.contains(&app)), "{had:?}");
    }

    #[test]
    fn what_waits_of_each_app_leaves_in_its_order_and_nothing_stays() {
        let mut turns = Turns::default();
        for n in 0..10 {
            turns.push(((n % 5 % 2) as u32, ClientId(n % 5)), n, false);
        }
        turns.forget(ClientId(4), |_| false);
        let mut left = BTreeMap::<u64, Vec<u64>>::new();
        while let Some((app, _)) = turns.first() {
            left.entry(app.0).or_default().extend(turns.take_first(500));
        }
        assert!(turns.is_empty() && turns.is_idle());
        assert_eq!(left, [(0, vec![0, 5]), (1, vec![1, 6]), (2, vec![2, 7]), (3, vec![3, 8])].into());
    }
}
