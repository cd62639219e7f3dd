//! Waking up: what a machine that slept does, and one that may be a copy of another (protocol.md, 6.2).
//!
//! A deadline that is long overdue says that we slept: others may have given us up, so everyone is asked and greeted at
//! once. A wall clock that runs ahead of the time that passed, sleep included, says that the machine may have been
//! resumed from a snapshot: then another copy may hold the same session keys, and none of them is used again.

use std::time::Duration;

use tracing::info;

use crate::core::Node;
use crate::core::timers::Timer;
use crate::id::BootId;
use crate::time::Instant;

/// A deadline this much overdue was slept through: no load delays a loop that long, and our peers need not much longer
/// to give us up.
const OVERSLEPT: Duration = Duration::from_secs(5);
/// A wall clock this much ahead was not merely corrected: NTP clients slew or step by less once they are in step.
const CLOCK_JUMP: Duration = Duration::from_secs(10);

impl Node {
    /// Time goes on, at least to `now`; says whether we slept meanwhile.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let overdue = self.timers.next().map(|(deadline, _)| self.now.since(deadline));
        if let Some(slept) = overdue.filter(|overdue| *overdue >= OVERSLEPT) {
            self.on_slept(slept);
        }
    }

    fn on_slept(&mut self, slept: Duration) {
        info!(seconds = slept.as_secs(), "slept");
        for id in self.peers.online() {
            // Questions from before the sleep say nothing.
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.liveness.begin_anew(self.now);
            }
            self.timers.set(Timer::Liveness(id), self.now);
            // A peer that gave us up has no session any more, and answers nothing else.
            self.seek(id, None, None);
        }
        // Overdue no more, so that this is done once.
        self.timers.postpone(self.now);
        self.kick("slept");
        self.hail_all();
    }

    pub(super) fn on_wall_clock(&mut self, since_1970: Duration) {
        let ahead = self.clock.set(since_1970, self.now);
        if ahead >= CLOCK_JUMP {
            info!(seconds = ahead.as_secs(), "the clock jumped");
            self.begin_new_life("the clock jumped");
        }
    }

    /// Nothing that a copy of us may know is used again, not even for a goodbye.
    pub(super) fn begin_new_life(&mut self, reason: &'static str) {
        info!(reason, "new life");
        for id in self.peers.online() {
            self.exit(id, reason);
        }
        let ids: Vec<_> = self.peers.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.end_numbered(id);
        }
        self.forget_handshakes();
        self.on_cookie_timer();
        self.boot = BootId(self.rng.next_u64());
        self.change_network();
    }
}
