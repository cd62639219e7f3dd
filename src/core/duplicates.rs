//! Two machines with the key of one peer: noticed, told, and kept from taking turns (protocol.md, 3.3).
//!
//! A peer that is there and another life of it at another address may be one machine that was started again, or two. The
//! old life is asked: if it answers there are two, the first one keeps its place, and the second one is not answered for
//! a while. If it does not answer, the place is the second one's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, warn};

use crate::core::Node;
use crate::core::api::{Dropped, Route};
use crate::core::handshakes::HalfOpen;
use crate::core::paths::Source;
use crate::core::timers::Timer;
use crate::id::{BootId, NodeId, SessionIndex};
use crate::time::Instant;
use crate::wire::local::{Health, HealthState};

/// How long the old life has to answer, or three round trips if that is longer: with five questions on the way a loss of
/// 20 % each way is mistaken for a death once in two hundred times.
const PATIENCE: Duration = Duration::from_millis(500);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A second machine is not answered for this long, twice as long after each time.
const BARRED: Duration = Duration::from_secs(60);
const BARRED_MAX: Duration = Duration::from_secs(3600);
/// `status` tells of it at least for so long after it was seen.
const TOLD: Duration = Duration::from_secs(600);

/// All peers of which there may be two.
#[derive(Debug, Default)]
pub(crate) struct Duplicates {
    contests: BTreeMap<NodeId, Contest>,
    found: BTreeMap<NodeId, Duplicate>,
}

/// A finished handshake that would take a peer's place.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(super) half: HalfOpen,
    pub(super) index: SessionIndex,
    pub(super) via: Route,
    /// The first data packet, opened.
    pub(super) packet: Vec<u8>,
}

/// A place that is claimed while its owner is asked.
#[derive(Debug)]
struct Contest {
    since: Instant,
    until: Instant,
    rival: Route,
    /// None if it answered a first message of ours, which can be sent again.
    claim: Option<Claim>,
}

/// A second machine that has the key of a peer.
#[derive(Debug)]
struct Duplicate {
    addr: SocketAddr,
    seen: Instant,
    pause: Duration,
    barred_until: Instant,
}

impl Duplicate {
    fn is_told(&self, now: Instant) -> bool {
        now < self.barred_until || now.since(self.seen) < TOLD
    }
}

impl Node {
    /// Whether the peer is there in another life, at another address: an address has room for one machine.
    pub(super) fn lives_elsewhere(&self, id: &NodeId, boot: BootId, via: Route) -> bool {
        let Some(peer) = self.peers.get(id) else { return false };
        let elsewhere = peer.path.is_some_and(|path| path.remote != via.remote);
        elsewhere && peer.boot.is_some_and(|known| known != boot)
    }

    /// Whether such a first message is not answered, because there is a second machine or may be one.
    pub(super) fn is_barred(&self, id: &NodeId, boot: BootId, via: Route) -> bool {
        let contested = self.duplicates.contests.contains_key(id);
        let barred = || self.duplicates.found.get(id).is_some_and(|found| self.now < found.barred_until);
        (contested || barred()) && self.lives_elsewhere(id, boot, via)
    }

    /// Asks the life that we know whether it is there, before another one takes its place.
    pub(super) fn contest(
        &mut self,
        id: NodeId,
        boot: BootId,
        rival: Route,
        claim: Option<Claim>,
    ) -> Result<(), Dropped> {
        if let Some(contest) = self.duplicates.contests.get(&id) {
            debug!(peer = %id.short(), rival = %contest.rival.remote, "still contested");
            self.drop_claim(claim);
            return Err(Dropped::Duplicate);
        }
        let Some(peer) = self.peers.get(&id) else { return Err(Dropped::Duplicate) };
        let patience = PATIENCE.max(peer.round_trip.smoothed().unwrap_or_default() * 3);
        debug!(peer = %id.short(), ?boot, rival = %rival.remote, "another life");
        let contest = Contest { since: self.now, until: self.now + patience, rival, claim };
        self.duplicates.contests.insert(id, contest);
        self.on_contest_timer(id);
        Ok(())
    }

    pub(crate) fn on_contest_timer(&mut self, id: NodeId) {
        let Some(contest) = self.duplicates.contests.get(&id) else { return };
        let (now, until) = (self.now, contest.until);
        let path = self.peers.get(&id).and_then(|peer| peer.path);
        if let Some(path) = path.filter(|_| now < until) {
            self.ask(id, path);
            return self.timers.set(Timer::Contest(id), until.min(now + ASK_AGAIN));
        }
        let Some(contest) = self.duplicates.contests.remove(&id) else { return };
        match contest.claim {
            // It was proved already; a table without room is the only thing that keeps it out, and is counted there.
            Some(claim) => drop(self.accept_claim(claim)),
            None => {
                self.lose(id, "restarted");
                self.seek(id, Some((contest.rival, Source::Seen)), None);
            }
        }
    }

    /// The peer answered a question that was asked at `asked`: if its place was contested then, it keeps it.
    pub(super) fn hold_place(&mut self, id: NodeId, asked: Instant) {
        if self.duplicates.contests.get(&id).is_none_or(|contest| asked < contest.since) {
            return;
        }
        let Some(contest) = self.duplicates.contests.remove(&id) else { return };
        self.timers.clear(Timer::Contest(id));
        self.drop_claim(contest.claim);
        self.raise_duplicate(id, contest.rival);
    }

    fn drop_claim(&mut self, claim: Option<Claim>) {
        if let Some(claim) = claim {
            self.handshakes.indices.remove(&claim.index);
        }
    }

    /// Two machines live with the key of `id`: the one that we know, and one at `rival`.
    pub(super) fn raise_duplicate(&mut self, id: NodeId, rival: Route) {
        let now = self.now;
        self.duplicates.found.retain(|_, found| found.is_told(now));
        let new = Duplicate { addr: rival.remote, seen: now, pause: BARRED / 2, barred_until: now };
        let found = self.duplicates.found.entry(id).or_insert(new);
        (found.addr, found.seen) = (rival.remote, now);
        if now >= found.barred_until {
            found.pause = (found.pause * 2).min(BARRED_MAX);
            found.barred_until = now + found.pause;
            warn!(peer = %id.short(), "duplicate-identity: two machines have the key of this peer");
            debug!(peer = %id.short(), rival = %rival.remote, "duplicate-identity");
        }
    }

    pub(super) fn forget_contests(&mut self) {
        for (id, contest) in std::mem::take(&mut self.duplicates.contests) {
            self.timers.clear(Timer::Contest(id));
            self.drop_claim(contest.claim);
        }
    }

    /// What `status` says of peers that there are two of.
    pub(super) fn duplicates_health(&self) -> Option<Health<'static>> {
        let mut told = self.duplicates.found.iter().filter(|(_, found)| found.is_told(self.now));
        let (id, found) = told.next()?;
        let peer = self.peers.get(id)?;
        let first = peer.path.map_or_else(|| "an address unknown".to_owned(), |path| path.remote.to_string());
        let more = match told.count() {
            0 => String::new(),
            count => format!(", and {count} more peers like this"),
        };
        let why = format!(
            "two machines have the key of {} ({}): messages go to the one at {first}, not to the one at {}{more}",
            peer.name,
            id.short(),
            found.addr
        );
        Some(Health {
            check: "duplicate-identity".into(),
            state: HealthState::Warn,
            why: why.into(),
            fix: FIX.into(),
        })
    }
}

/// What ends it.
pub(super) const FIX: &str = "on the machine that is the copy: stop atonced, remove identity.key from its state directory, start atonced again";
