//! What outlives this run, and when it is to be written.
//!
//! A memory card wears out by writes, and strangers come and go at will. So nothing is written for who is only passing. Whose
//! name is pinned to whom is worth a write soon, since a kill or a power cut must not lose it, but only so often; whatever
//! else changes waits for the next one. The edge writes once more at the end.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::core::Node;
use crate::core::api::{Event, KnownPeer};
use crate::core::peers::{FRIENDSHIP, Peer};
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::time::Instant;

/// From one write to the next, if it is not for a name: 144 a day.
const PAUSE: Duration = Duration::from_secs(600);
/// So many writes for names may come sooner, and one more after each [`PAUSE`]: the first evening with new devices.
const SOON: u32 = 6;
/// Who has stayed is noticed so long after it came: a little later than it has.
const NOTICED: Duration = FRIENDSHIP.saturating_add(Duration::from_secs(1));

/// What was told to be written, and when.
#[derive(Debug)]
pub(crate) struct Remembering {
    /// Of whose name is whose.
    names: u64,
    /// Of everything but when each was seen.
    all: u64,
    last: Option<Instant>,
    soon: u32,
    refilled: Instant,
}

impl Remembering {
    /// With what was read at the start.
    pub(crate) fn new(known: &[KnownPeer], now: Instant) -> Self {
        let (names, all) = digests(known);
        Self { names, all, last: None, soon: SOON, refilled: now }
    }

    /// Whether there is a write left for names.
    fn may_hurry(&mut self, now: Instant) -> bool {
        while self.soon < SOON && now.since(self.refilled) >= PAUSE {
            (self.soon, self.refilled) = (self.soon + 1, self.refilled + PAUSE);
        }
        if self.soon == SOON {
            self.refilled = now;
        }
        self.soon > 0
    }
}

/// In the order of ids, since that of seniority is no change.
fn digests(known: &[KnownPeer]) -> (u64, u64) {
    let mut sorted: Vec<_> = known.iter().collect();
    sorted.sort_by_key(|peer| peer.id);
    let (mut names, mut all) = (SipHasher13::new(), SipHasher13::new());
    for peer in sorted {
        let mut addrs = peer.addrs.clone();
        addrs.sort();
        (peer.id.0, peer.name.as_str(), peer.pinned, addrs).hash(&mut all);
        if peer.pinned {
            (peer.id.0, peer.name.as_str()).hash(&mut names);
        }
    }
    (names.finish(), all.finish())
}

impl Node {
    /// The peers to be remembered on disk, those first that are known longest and that apps address.
    pub fn known_peers(&self) -> Vec<KnownPeer> {
        // Who came for a moment is not worth a place on disk, nor a name.
        self.known_peers_of(|peer| peer.has_stayed(self.now) || peer.is_online())
    }

    fn known_peers_of(&self, stays: impl Fn(&Peer) -> bool) -> Vec<KnownPeer> {
        let of_table = |(id, peer): (&NodeId, &Peer)| {
            let known = KnownPeer {
                id: *id,
                name: peer.name.clone(),
                pinned: self.peers.is_pinned(id),
                addrs: peer.candidates.proved().collect(),
                last_seen: peer.heard.map(|heard| self.clock.since_1970(heard)).or(peer.seen_before),
            };
            (!peer.used, peer.seniority, known)
        };
        let apart = self.peers.apart_after(None).map(|(id, name, apart)| {
            let (id, name) = (*id, name.clone());
            let known = KnownPeer { id, name, pinned: true, addrs: Vec::new(), last_seen: apart.last_seen };
            (true, apart.seniority, known)
        });
        let mut known: Vec<_> =
            self.peers.known().filter(|(_, peer)| stays(peer)).map(of_table).chain(apart).collect();
        known.sort_by_key(|(unused, seniority, _)| (*unused, *seniority));
        known.into_iter().map(|(.., known)| known).collect()
    }

    /// Something of what is remembered changed, or will have when whoever came has stayed.
    pub(crate) fn remember(&mut self) {
        self.timers.set_sooner(Timer::Remember, self.now + NOTICED);
    }

    /// A person changed it: that is written now.
    pub(crate) fn remember_now(&mut self) {
        let known = self.known_peers_of(|peer| peer.has_stayed(self.now));
        (self.remembering.names, self.remembering.all) = digests(&known);
        self.remembering.last = Some(self.now);
        self.events.push_back(Event::Remember);
    }

    pub(crate) fn on_remember_timer(&mut self) {
        let now = self.now;
        let known = self.known_peers_of(|peer| peer.has_stayed(now));
        let (names, all) = digests(&known);
        let due = self.remembering.last.map(|last| last + PAUSE).filter(|due| *due > now);
        if all == self.remembering.all {
            // What changed is as it was.
        } else if names != self.remembering.names && self.remembering.may_hurry(now) {
            self.remembering.soon -= 1;
            self.remember_now();
        } else if let Some(due) = due {
            return self.timers.set(Timer::Remember, due);
        } else {
            self.remember_now();
        }
        let passing = |peer: &Peer| peer.is_online() && !peer.has_stayed(now);
        if self.peers.iter().any(|(_, peer)| passing(peer)) {
            self.remember();
        }
    }
}
