//! Leases: what keeps a registration at a rendezvous server (rendezvous.md, 3).
//!
//! ```text
//! none -- register --> asked -- welcome --> kept -- keep, kept ... --> kept
//!                        ^                    |
//!                        +---- retry ---------+  another address, or the server forgot us
//! ```

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::introductions::News;
use crate::core::mapping_life::UNKNOWN as KEEP;
use crate::core::registrations::{Registration, RegistrationId};
use crate::core::rendezvous::{Family, Server, ServerId};
use crate::core::timers::Timer;
use crate::limits;
use crate::time::Instant;
use crate::wire::rendezvous::{Bye, FromNode, Keep, Kept, Nonce, Nope, Register, Token, Welcome, size};

/// From one unanswered question to the next; after the last one the server is hailed again.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2)];
/// After so many registers without a token the next one is later.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// A refusal may be anybody's: it puts off the next question of a series by no more, and is believed with the last.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// Questions of which an answer is still taken: a series and those that a retry called forth.
const ASKED: usize = 8;
/// How often a server may want to hear of us, and how long it may make us wait, whatever it says.
const KEEP_SECONDS: RangeInclusive<u16> = 5..=60;
const AGAIN_SECONDS: RangeInclusive<u16> = 1..=600;
const REGISTER_AFTER_SECONDS_MAX: u16 = 120;
/// Each so many keeps an answer is wanted, so that a server that is gone is noticed. One that wishes longer pauses than
/// [`KEEP`] has half a million members and more: it has other work, and every other keep only holds the translator's mapping.
const ANSWER_EVERY: u32 = 1;
const ANSWER_EVERY_OF_BUSY: u32 = 2;
/// The network's word that nobody is at a server's address makes us ask no more often than so: anybody can forge it.
const ASK_REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// What the server knows us by, and what we asked it.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(super) token: Option<Token>,
    /// Of the questions that wait for an answer, the latest last.
    asked: VecDeque<Nonce>,
    /// Of the latest keep: a server that has news answers it whether we wanted that or not.
    pub(super) last_keep: Option<Nonce>,
    /// Of the latest introduction: that its token is refused is the first that we hear of our router's new address.
    pub(super) last_intro: Option<Nonce>,
    /// Questions without an answer.
    pub(super) unanswered: u32,
    pub(super) keeps: u32,
    /// The pause that the server wishes.
    pub(super) keep: Option<Duration>,
    /// The network says that nobody is at the server's address: the next keep wants an answer.
    pub(super) doubted: bool,
    /// When it said so and we asked.
    pub(super) doubted_at: Option<Instant>,
    /// Somebody says that the server lets us in no sooner.
    refused: Option<Duration>,
}

impl Lease {
    /// Whether the next keep wants an answer.
    fn wants_answer(&self) -> bool {
        let is_busy = self.keep.is_some_and(|keep| keep > KEEP);
        let every = if is_busy { ANSWER_EVERY_OF_BUSY } else { ANSWER_EVERY };
        self.is_asked() || self.doubted || self.keeps.is_multiple_of(every)
    }

    /// Whether a question waits for its answer.
    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    fn ask(&mut self, nonce: Nonce) {
        if self.asked.len() >= ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(nonce);
    }

    /// Whether `nonce` is that of a question that waits, or of a keep since which we asked nothing.
    pub(super) fn asked(&self, nonce: Nonce) -> bool {
        self.asked.contains(&nonce) || !self.is_asked() && self.last_keep == Some(nonce)
    }
}

impl Node {
    /// Says whether that is possible now: a server that is being hailed has not said yet how it sees us.
    pub(super) fn register(&mut self, id: RegistrationId) -> bool {
        self.take_another_handle_if_used_up(id);
        let (nonce, seal_nonce) = (Nonce(self.random()), self.random());
        let presence = self.presence();
        let Some((server, known)) = self.registration(id) else { return false };
        let (handle, network, family) = (known.handle(), known.network, known.family);
        let (seq, namespace, known_version) = (known.seq + 1, *known.keys.namespace(), known.version);
        let Some(reveal) = known.claim.reveal(seq) else { return false };
        let Some(link) = self.rendezvous.servers.get(&server).map(|it| it.link(family)) else { return false };
        let (Some(addr), Some(cookie), Some(seen)) = (link.addr, link.cookie, link.seen) else {
            return false;
        };
        let keys = self.config.network.of(network);
        let blob = keys.seal_presence(&self.identity, &presence, &namespace, handle, seq, seal_nonce);
        let mut message = Vec::with_capacity(size::MESSAGE_MAX);
        let register =
            Register { nonce, namespace, handle, cookie, reveal, seq, known: known_version, blob: &blob };
        // As long as the answer may be: the first members come with it.
        let answer_bytes = if known_version == 0 { size::MESSAGE_MAX } else { 0 };
        FromNode::Register(register).write(answer_bytes, &mut message);
        known.keys.finish_register(seen, &mut message);
        let Some((_, known)) = self.registration_mut(id) else { return false };
        known.seq = seq;
        let lease = &mut known.lease;
        lease.ask(nonce);
        let pause = AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1];
        lease.unanswered += 1;
        self.send_to_server(addr, &message);
        let again = self.jittered(pause);
        self.timers.set(Timer::Lease(id), self.now + again);
        true
    }

    /// A handle is good for a number of registers.
    fn take_another_handle_if_used_up(&mut self, id: RegistrationId) {
        let (nonce, seed) = (Nonce(self.random()), self.random());
        let Some((server, known)) = self.registration(id) else { return };
        if known.claim.reveal(known.seq + 1).is_some() {
            return;
        }
        let (namespace, handle, family) = (*known.keys.namespace(), known.handle(), known.family);
        if let Some(token) = known.lease.token {
            self.ask_server(server, family, &FromNode::Bye(Bye { nonce, namespace, handle, token }));
        }
        if let Some((_, known)) = self.registration_mut(id) {
            known.begin_anew(seed);
        }
    }

    pub(crate) fn on_lease_timer(&mut self, id: RegistrationId) {
        let Some((server, known)) = self.registration(id) else { return };
        let family = known.family;
        let is_reached = |known: &Server| known.link(family).cookie.is_some();
        if !self.rendezvous.servers.get(&server).is_some_and(is_reached) {
            // It goes on when the server has answered the hail: where we are now nobody is to see the handle before.
            return;
        }
        let Some((_, known)) = self.registration_mut(id) else { return };
        let lease = &mut known.lease;
        let (exhausted, token) = (lease.unanswered as usize >= AGAIN.len(), lease.token);
        match (token, lease.refused) {
            (None, Some(pause)) if exhausted => self.register_later(id, pause),
            _ if exhausted && lease.is_asked() => {
                debug!("a rendezvous server does not answer our questions any more");
                *lease = Lease::default();
                self.hail_soon(server, family);
            }
            (Some(token), _) => self.keep(id, token),
            (None, _) if exhausted => self.register_later(id, REFUSED_PAUSE),
            (None, _) => {
                self.register(id);
            }
        }
    }

    /// The server refused us again and again.
    fn register_later(&mut self, id: RegistrationId, pause: Duration) {
        debug!("a rendezvous server refuses us again and again");
        let Some((_, known)) = self.registration_mut(id) else { return };
        known.lease = Lease::default();
        let pause = self.jittered(pause);
        self.timers.set(Timer::Lease(id), self.now + pause);
    }

    /// A server has answered a hail: what was put off meanwhile goes on.
    pub(super) fn resume_leases(&mut self, server: ServerId, family: Family) {
        let known = self.rendezvous.servers.get(&server).into_iter().flat_map(|it| &it.registrations);
        let idle = known.filter(|it| it.family == family && it.is_kept());
        let timers: Vec<_> = idle.map(|it| Timer::Lease(it.id)).collect();
        for timer in timers {
            if !self.timers.is_set(timer) {
                self.timers.set(timer, self.now);
            }
        }
    }

    fn keep(&mut self, id: RegistrationId, token: Token) {
        let nonce = Nonce(self.random());
        let Some((server, known)) = self.registration_mut(id) else { return };
        let (namespace, handle, known_version) = (*known.keys.namespace(), known.handle(), known.version);
        let (family, lease) = (known.family, &mut known.lease);
        let answer = lease.wants_answer();
        lease.doubted = false;
        lease.keeps += 1;
        lease.last_keep = Some(nonce);
        let wished = lease.keep;
        let again = answer.then(|| AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1]);
        if answer {
            lease.unanswered += 1;
            lease.ask(nonce);
        }
        let message = Keep { nonce, namespace, handle, token, known: known_version, answer };
        self.ask_server(server, family, &FromNode::Keep(message));
        let again = match again {
            Some(again) => self.a_little_off(again),
            None => self.keep_pause(wished),
        };
        self.timers.set(Timer::Lease(id), self.now + again);
    }

    /// The network says that nobody is at `addr`. If that is a server's, what we have there is asked for at once: a hint, as
    /// any that nobody signed.
    pub(crate) fn server_refused(&mut self, addr: SocketAddr) {
        let now = self.now;
        let mut asking = Vec::new();
        for known in self.rendezvous.servers.values_mut() {
            for family in Family::ALL {
                if known.link(family).addr != Some(addr) {
                    continue;
                }
                for registration in known.registrations.iter_mut().filter(|it| it.family == family) {
                    let lease = &mut registration.lease;
                    let recently = lease.doubted_at.is_some_and(|at| now.since(at) < ASK_REFUSED_AGAIN);
                    if lease.token.is_some() && !lease.is_asked() && !recently {
                        (lease.doubted, lease.doubted_at) = (true, Some(now));
                        asking.push(Timer::Lease(registration.id));
                    }
                }
            }
        }
        for timer in asking {
            self.timers.set(timer, now);
        }
    }

    /// Until the next keep: what our translator bears, if that was measured, or what the server wishes.
    fn keep_pause(&mut self, wished: Option<Duration>) -> Duration {
        let pause = self.mapping_life.pause().or(wished).unwrap_or(KEEP);
        self.a_little_off(pause)
    }

    pub(super) fn on_welcome(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        welcome: &Welcome<'_>,
    ) -> Result<(), Dropped> {
        let asked = |it: &Registration| it.lease.asked(welcome.nonce);
        let keep = within(welcome.keep_seconds, &KEEP_SECONDS);
        let id = self.answered(server, datagram, asked)?.id;
        // First the others: this registration says it already, unless it was kept before.
        self.note_seen(server, family, welcome.seen);
        let (_, known) = self.registration_mut(id).ok_or(Dropped::Unexpected)?;
        let first = !known.is_kept() && known.version == 0;
        known.taken_at(welcome.seen.ip());
        known.lease = Lease { token: Some(welcome.token), keep: Some(keep), keeps: 1, ..Lease::default() };
        let pause = self.keep_pause(Some(keep));
        self.timers.set(Timer::Lease(id), self.now + pause);
        self.server_answers(server, family);
        // The others hear of us as well; a large namespace tells only some.
        let told = first && usize::from(welcome.members) <= limits::MEMBERS_TOLD;
        self.on_entries(id, welcome.entries, if told { News::Told } else { News::Ours });
        self.reached_version(id, welcome.upto, welcome.version);
        self.note_second_port(server, family, welcome.second_port);
        self.note_time(server, welcome.time);
        Ok(())
    }

    pub(super) fn on_kept(
        &mut self,
        server: ServerId,
        family: Family,
        datagram: &[u8],
        kept: &Kept,
    ) -> Result<(), Dropped> {
        let now = self.now;
        let asked = |it: &Registration| it.lease.asked(kept.nonce);
        let known = self.answered(server, datagram, asked)?;
        let (id, version) = (known.id, known.version);
        let keep = within(kept.keep_seconds, &KEEP_SECONDS);
        let lease = &mut known.lease;
        lease.asked.clear();
        (lease.token, lease.last_keep, lease.unanswered) = (Some(kept.token), None, 0);
        (lease.keep, lease.refused) = (Some(keep), None);
        let pause = match kept.register_after_seconds {
            Some(seconds) => {
                // The server does not know what we told it: as if we were new, at the time that it wishes.
                lease.token = None;
                Duration::from_secs(u64::from(seconds.min(REGISTER_AFTER_SECONDS_MAX)))
            }
            None => self.keep_pause(Some(keep)),
        };
        self.timers.set(Timer::Lease(id), now + pause);
        self.server_answers(server, family);
        self.reached_version(id, version, kept.version);
        self.note_seen(server, family, kept.seen);
        self.note_time(server, kept.time);
        Ok(())
    }

    /// Somebody says that the server does not let us in: the answer of the server itself is still taken, and asked for a few
    /// times.
    pub(super) fn on_nope(&mut self, server: ServerId, nope: &Nope) -> Result<(), Dropped> {
        let known = self.rendezvous.servers.get_mut(&server).ok_or(Dropped::Unexpected)?;
        let mut all = known.registrations.iter_mut();
        let refused = all.find(|it| it.lease.asked(nope.nonce)).ok_or(Dropped::Unexpected)?;
        debug!(reason = ?nope.refusal, "a rendezvous server refuses us");
        let (id, first) = (refused.id, refused.lease.refused.is_none());
        let pause = within(nope.again_seconds, &AGAIN_SECONDS);
        refused.lease.refused = Some(pause);
        if first || refused.lease.token.is_none() {
            let pause = self.jittered(pause.min(REFUSED_AGAIN));
            self.timers.set(Timer::Lease(id), self.now + pause);
        }
        Ok(())
    }
}

fn within(seconds: u16, range: &RangeInclusive<u16>) -> Duration {
    Duration::from_secs(u64::from(seconds.clamp(*range.start(), *range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the next four keeps want an answer.
    fn wanted(keep: u64) -> Vec<bool> {
        let mut lease = Lease { keep: Some(Duration::from_secs(keep)), keeps: 1, ..Lease::default() };
        let mut next = || {
            let wanted = lease.wants_answer();
            lease.keeps += 1;
            wanted
        };
        (0..4).map(|_| next()).collect()
    }

    #[test]
    fn every_keep_wants_an_answer_and_every_other_one_of_a_busy_server() {
        assert_eq!(wanted(25), [true; 4]);
        assert_eq!(wanted(50), [false, true, false, true]);
    }
}
