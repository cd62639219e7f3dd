//! What every connection begins with: `hello`, and what the app asked for before, which the daemon forgets with the
//! connection.

use std::collections::{BTreeMap, BTreeSet};

use super::request::Line;
use crate::id::RequestId;

/// What the app wants to be told, for as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) topics: BTreeSet<String>,
    pub(super) watch: Option<Watch>,
}

/// Of whose presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Of all others.
    Peers,
    /// Of the topics of this node's own apps too.
    All,
}

impl Watch {
    pub(super) fn line(self) -> Line<'static> {
        let own = (self == Self::All).then_some(true);
        Line { own, ..Line::op("watch") }
    }
}

/// What was said to a new connection and is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Greeting(BTreeMap<RequestId, Said>);

#[derive(Debug)]
pub(super) enum Said {
    Hello,
    Listen(String),
    Watch(Watch),
}

impl Greeting {
    /// All that is said, numbered from after `last_id` on.
    pub(super) fn new(wishes: &Wishes, last_id: &mut u64) -> Self {
        let topics = wishes.topics.iter().map(|topic| Said::Listen(topic.clone()));
        let all = std::iter::once(Said::Hello).chain(topics).chain(wishes.watch.map(Said::Watch));
        let numbered = all.map(|said| {
            *last_id += 1;
            (RequestId(*last_id), said)
        });
        Self(numbered.collect())
    }

    /// The lines, in their order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.0.iter().map(|(id, said)| {
            let line = match said {
                Said::Hello => Line::op("hello"),
                Said::Listen(topic) => Line { topic: Some(topic), ..Line::op("listen") },
                Said::Watch(watch) => watch.line(),
            };
            Line { id: Some(*id), ..line }
        })
    }

    pub(super) fn awaits(&self, id: RequestId) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn answered(&mut self, id: RequestId) -> Option<Said> {
        self.0.remove(&id)
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}
