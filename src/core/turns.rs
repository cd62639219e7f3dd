//! Messages that wait for their turn to one peer: each app has a queue of its own, and they take turns by bytes.
//!
//! So a burst of one app does not hold up the single message of another. What names a topic of which the peer has not
//! said whether anybody listens stands aside, and what the same app sends after it, so that its order stays.

use std::collections::{BTreeMap, VecDeque};

use crate::id::ClientId;

/// The queues of one peer.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    by_app: BTreeMap<ClientId, VecDeque<T>>,
    /// Whose turn it is, and who comes then; all who have something.
    turns: VecDeque<ClientId>,
    /// Bytes that the first of them has sent in this turn.
    spent: usize,
    aside: VecDeque<(ClientId, T)>,
    len: usize,
}

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
    pub(crate) fn push(&mut self, app: ClientId, item: T, aside: bool) {
        self.len += 1;
        if aside || self.aside.iter().any(|(of, _)| *of == app) {
            self.aside.push_back((app, item));
        } else {
            self.line_up(app, item);
        }
    }

    fn line_up(&mut self, app: ClientId, item: T) {
        let queue = self.by_app.entry(app).or_default();
        if queue.is_empty() {
            self.turns.push_back(app);
        }
        queue.push_back(item);
    }

    /// The first one of the app whose turn it is.
    pub(crate) fn first(&mut self) -> Option<(ClientId, &mut T)> {
        let app = *self.turns.front()?;
        self.by_app.get_mut(&app)?.front_mut().map(|item| (app, item))
    }

    /// Takes that one, for which so many bytes of its turn are spent.
    pub(crate) fn take_first(&mut self, bytes: usize) -> Option<T> {
        let app = *self.turns.front()?;
        let queue = self.by_app.get_mut(&app)?;
        let item = queue.pop_front()?;
        self.len -= 1;
        if queue.is_empty() {
            self.by_app.remove(&app);
            self.turns.pop_front();
            self.spent = 0;
        } else {
            self.spend(bytes);
        }
        Some(item)
    }

    /// Puts the app whose turn it is aside: nobody is known to listen to what it sends first.
    pub(crate) fn set_aside(&mut self) {
        let Some(app) = self.turns.pop_front() else { return };
        self.spent = 0;
        let queue = self.by_app.remove(&app).unwrap_or_default();
        self.aside.extend(queue.into_iter().map(|item| (app, item)));
    }

    /// Puts one aside again that had its turn before, behind those of its app that stand `before` it. What `began` to leave
    /// goes on.
    pub(crate) fn put_back(
        &mut self,
        app: ClientId,
        item: T,
        before: impl Fn(&T) -> bool,
        began: impl Fn(&T) -> bool,
    ) {
        self.len += 1;
        let mut mine = VecDeque::new();
        if let Some(queue) = self.by_app.remove(&app) {
            let (stay, go): (VecDeque<T>, VecDeque<T>) = queue.into_iter().partition(began);
            mine = go;
            if stay.is_empty() {
                if self.turns.front() == Some(&app) {
                    self.spent = 0;
                }
                self.turns.retain(|of| *of != app);
            } else {
                self.by_app.insert(app, stay);
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
        self.turns.rotate_left(usize::from(!self.turns.is_empty()));
    }

    /// How many apps have something to send.
    pub(crate) fn apps(&self) -> usize {
        self.turns.len()
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
        let by_app = &self.by_app;
        self.turns.retain(|app| by_app.contains_key(app));
        self.len -= taken.len();
        taken
    }

    /// Forgets what an app has in it, but for what it must `keep`.
    pub(crate) fn forget(&mut self, app: ClientId, keep: impl Fn(&T) -> bool) {
        let before = self.aside.len();
        self.aside.retain(|(of, _)| *of != app);
        self.len -= before - self.aside.len();
        let Some(queue) = self.by_app.get_mut(&app) else { return };
        let before = queue.len();
        queue.retain(keep);
        self.len -= before - queue.len();
        if queue.is_empty() {
            self.by_app.remove(&app);
            self.turns.retain(|of| *of != app);
        }
    }
}

/// What is to be done with one that stands aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Review {
    Ready,
    Wait,
    Over,
}
