//! Asking an address without a known key who it is, and answering (protocol.md, 8).
//!
//! Only members of the network are answered, each question once, and never with more bytes than it had.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::core::api::{Destination, Dropped, Route};
use crate::core::fair::FairPace;
use crate::core::looking::SELDOM;
use crate::core::origin::Origin;
use crate::core::paths::Source;
use crate::core::prospects::{ATTEMPTS, RETRY};
use crate::core::timers::Timer;
use crate::core::{Node, random};
use crate::crypto::network::NetworkTag;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::packet::size;

/// Whois questions that were answered or are our own; a repeated one gets silence.
const WHOIS_REMEMBERED: usize = 1024;
/// Whois answers a second, and at once: each origin has its part of them.
const WHOIS_A_SECOND: usize = 100;
/// Origins whose part is remembered.
const ORIGINS: usize = 10 * WHOIS_A_SECOND;

/// What was asked, and what was answered.
#[derive(Debug)]
pub(crate) struct Whois {
    pace: FairPace<Origin>,
    asked: BTreeMap<SocketAddr, Question>,
    seen: VecDeque<[u8; size::NONCE]>,
}

impl Default for Whois {
    fn default() -> Self {
        let pace = FairPace::new(WHOIS_A_SECOND, WHOIS_A_SECOND, ORIGINS);
        Self { pace, asked: BTreeMap::new(), seen: VecDeque::new() }
    }
}

impl Whois {
    fn remember(&mut self, nonce: [u8; size::NONCE]) {
        self.seen.push_back(nonce);
        if self.seen.len() > WHOIS_REMEMBERED {
            self.seen.pop_front();
        }
    }
}

#[derive(Debug)]
struct Question {
    nonce: [u8; size::NONCE],
    network: NetworkTag,
    attempts: usize,
    /// Since when it is asked in vain.
    since: Instant,
    /// Who answered last.
    who: Option<NodeId>,
}

impl Node {
    /// Asks the address of a configured peer who it is.
    pub(crate) fn ask_whois(&mut self, addr: SocketAddr) {
        if !self.handshakes.whois.asked.contains_key(&addr) {
            let nonce = self.random();
            let network = self.config.network.current().tag();
            self.handshakes
                .whois
                .asked
                .insert(addr, Question { nonce, network, attempts: 0, since: self.now, who: None });
            self.on_whois_timer(addr);
        }
    }

    /// Configured peers that are no longer configured are no longer asked.
    pub(crate) fn stop_whois(&mut self, keep: &[SocketAddr]) {
        let gone: Vec<_> =
            self.handshakes.whois.asked.keys().filter(|addr| !keep.contains(addr)).copied().collect();
        for addr in gone {
            self.handshakes.whois.asked.remove(&addr);
            self.timers.clear(Timer::Whois(addr));
        }
    }

    /// Something changed: who is missed of the configured peers is asked at once, and often for a while.
    pub(super) fn ask_configured_anew(&mut self) {
        let now = self.now;
        for (addr, question) in &mut self.handshakes.whois.asked {
            (question.attempts, question.since) = (0, now);
            self.timers.set_sooner(Timer::Whois(*addr), now + RETRY[0]);
        }
    }

    /// Whether there is nobody whom we reach at one of the configured addresses.
    pub(super) fn misses_configured(&self) -> bool {
        self.handshakes.whois.asked.iter().any(|(addr, question)| !self.is_reached(addr, question.who))
    }

    /// Whether somebody is reached at `addr`, or who answered there is reached otherwise.
    fn is_reached(&self, addr: &SocketAddr, who: Option<NodeId>) -> bool {
        who.and_then(|who| self.peers.get(&who)).is_some_and(|peer| peer.is_online())
            || self.peers.iter().any(|(_, peer)| peer.path.is_some_and(|path| path.remote == *addr))
    }

    pub(crate) fn on_whois_timer(&mut self, addr: SocketAddr) {
        let nonce = self.random();
        let Some(question) = self.handshakes.whois.asked.get(&addr) else { return };
        let reached = self.is_reached(&addr, question.who);
        let (now, longest) = (self.now, self.longest_pause(question.since));
        let Some(question) = self.handshakes.whois.asked.get_mut(&addr) else { return };
        let mut step = SELDOM;
        if reached {
            (question.attempts, question.since) = (0, now);
        } else {
            // As for a first message, and then twice as late each time.
            let last = question.attempts.min(ATTEMPTS - 1);
            let later = u32::try_from(question.attempts - last).unwrap_or(u32::MAX).min(8);
            step = (RETRY[last] * 2_u32.pow(later)).min(longest);
            question.attempts += 1;
            // A new nonce each time: the other side stays silent to a question that it knows.
            question.nonce = nonce;
            let current = self.config.network.current().tag();
            question.network = self.config.network.turn(current, question.attempts - 1);
            let packet = self.config.network.of(question.network).ask_whois(nonce);
            // Thrown back at us it would draw an answer.
            self.handshakes.whois.remember(nonce);
            for way in self.links.ways(Route::to(addr)) {
                self.outbox.push(Destination::One(way), &packet);
            }
        }
        let retry = self.a_little_off(step);
        self.timers.set(Timer::Whois(addr), self.now + retry);
    }

    pub(crate) fn on_whois(&mut self, via: Route, packet: &[u8; size::WHOIS]) -> Result<(), Dropped> {
        let asked = self.config.network.find(|keys| keys.check_whois(packet));
        let (nonce, network) = asked.ok_or(Dropped::Unauthenticated)?;
        self.check_address(via.remote.ip())?;
        if self.handshakes.whois.seen.contains(&nonce) {
            return Err(Dropped::Replayed);
        }
        let origin = Origin::of(via.remote.ip(), &self.links);
        if !self.handshakes.whois.pace.take(origin, 1, self.now) {
            return Err(Dropped::OverLimit);
        }
        self.handshakes.whois.remember(nonce);
        let answer = self.config.network.of(network).answer_whois(&nonce, &self.id, random(&mut *self.rng));
        self.outbox.push(Destination::One(via), &answer);
        Ok(())
    }

    pub(crate) fn on_here_is(&mut self, via: Route, packet: &[u8; size::HERE_IS]) -> Result<(), Dropped> {
        let question = self.handshakes.whois.asked.get(&via.remote).ok_or(Dropped::Unexpected)?;
        let network = question.network;
        let keys = self.config.network.of(network);
        let id = keys.open_here_is(packet, &question.nonce).ok_or(Dropped::Unauthenticated)?;
        if id == self.id {
            return Err(Dropped::Unexpected);
        }
        if let Some(question) = self.handshakes.whois.asked.get_mut(&via.remote) {
            question.who = Some(id);
        }
        let online = self.peers.get(&id).is_some_and(|peer| peer.is_online());
        if !online {
            self.seek_in(network, id, Some((via, Source::Configured)), None);
        }
        Ok(())
    }
}
