//! Leases: what keeps a registration at a rendezvous server, one in each address family (rendezvous.md, 3).
//!
//! ```text
//! none -- register --> asked -- welcome --> kept -- keep, kept ... --> kept
//!                        ^                    |
//!                        +---- retry ---------+  another address, or the server forgot us
//! ```

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::introductions::News;
use crate::core::mapping_life::UNKNOWN as KEEP;
use crate::core::registrations::{Registration, RegistrationId};
use crate::core::rendezvous::{Family, ServerId};
use crate::core::timers::Timer;
use crate::limits;
use crate::time::Instant;
use crate::wire::rendezvous::{FromNode, Handle, Keep, Kept, Nonce, Nope, Register, Token, Welcome, size};

/// From one unanswered question to the next; after the last one the server is hailed again.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2)];
/// After so many registers that were refused the next one is later.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
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

/// A registration in one address family.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(super) token: Option<Token>,
    /// Of the question that waits for its answer.
    pub(super) nonce: Option<Nonce>,
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
    pub(super) refused: Option<Instant>,
}

impl Lease {
    /// Whether the next keep wants an answer.
    fn wants_answer(&self) -> bool {
        let is_busy = self.keep.is_some_and(|keep| keep > KEEP);
        let every = if is_busy { ANSWER_EVERY_OF_BUSY } else { ANSWER_EVERY };
        self.nonce.is_some() || self.doubted || self.keeps.is_multiple_of(every)
    }

    /// Whether `nonce` is that of the question that waits, or of a keep since which we asked nothing.
    pub(super) fn asked(&self, nonce: Nonce) -> bool {
        self.nonce.or(self.last_keep) == Some(nonce)
    }
}

impl Node {
    pub(super) fn register(&mut self, id: RegistrationId, family: Family) {
        let (nonce, seal_nonce) = (Nonce(self.random()), self.random());
        let presence = self.presence();
        let Some((server, known)) = self.registration_mut(id) else { return };
        known.seq += 1;
        let (seq, handle, namespace, network) =
            (known.seq, known.handle, *known.keys.namespace(), known.network);
        let known_version = known.version;
        let lease = &mut known.leases[family as usize];
        lease.nonce = Some(nonce);
        let pause = AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1];
        lease.unanswered += 1;
        let blob =
            self.config.network.of(network).seal_presence(&presence, &namespace, handle, seq, seal_nonce);
        let Some(link) = self.rendezvous.servers.get(&server).map(|it| it.link(family)) else { return };
        let (Some(addr), Some(cookie), Some(seen)) = (link.addr, link.cookie, link.seen) else { return };
        let mut message = Vec::with_capacity(size::MESSAGE_MAX);
        let register = Register {
            nonce,
            namespace,
            handle,
            cookie,
            boot: self.boot.0,
            seq,
            known: known_version,
            blob: &blob,
        };
        // As long as the answer may be: the first members come with it.
        let answer_bytes = if known_version == 0 { size::MESSAGE_MAX } else { 0 };
        FromNode::Register(register).write(answer_bytes, &mut message);
        if let Some((_, known)) = self.registration(id) {
            known.keys.finish_register(seen, &mut message);
        }
        self.send_to_server(addr, &message);
        let again = self.jittered(pause);
        self.timers.set(Timer::Lease(id, family), self.now + again);
    }

    pub(crate) fn on_lease_timer(&mut self, id: RegistrationId, family: Family) {
        let Some((server, known)) = self.registration_mut(id) else { return };
        let lease = &mut known.leases[family as usize];
        let (exhausted, token) = (lease.unanswered as usize >= AGAIN.len(), lease.token);
        if exhausted && lease.nonce.is_some() {
            debug!("a rendezvous server does not answer our keeps any more");
            *lease = Lease::default();
            return self.hail_soon(server, family);
        }
        match token {
            _ if self.is_strange(server) => {}
            Some(token) => self.keep(id, family, token),
            None if exhausted => self.register_later(id, family),
            None => self.register(id, family),
        }
    }

    /// The server refused us again and again: perhaps somebody else has taken our handle.
    fn register_later(&mut self, id: RegistrationId, family: Family) {
        debug!("a rendezvous server refuses us again and again");
        let handle = Handle(self.random());
        let Some((_, known)) = self.registration_mut(id) else { return };
        (known.handle, known.seq, known.version) = (handle, 0, 0);
        known.leases[family as usize] = Lease::default();
        let pause = self.jittered(REFUSED_PAUSE);
        self.timers.set(Timer::Lease(id, family), self.now + pause);
    }

    fn keep(&mut self, id: RegistrationId, family: Family, token: Token) {
        let nonce = Nonce(self.random());
        let Some((server, known)) = self.registration_mut(id) else { return };
        let (namespace, handle, known_version) = (*known.keys.namespace(), known.handle, known.version);
        let lease = &mut known.leases[family as usize];
        let answer = lease.wants_answer();
        lease.doubted = false;
        lease.keeps += 1;
        lease.last_keep = Some(nonce);
        let wished = lease.keep;
        let again = answer.then(|| AGAIN[AGAIN.len().min(lease.unanswered as usize + 1) - 1]);
        if answer {
            lease.unanswered += 1;
            lease.nonce = Some(nonce);
        }
        let message = Keep { nonce, namespace, handle, token, known: known_version, answer };
        self.ask_server(server, family, &FromNode::Keep(message));
        let again = match again {
            Some(again) => self.a_little_off(again),
            None => self.keep_pause(wished),
        };
        self.timers.set(Timer::Lease(id, family), self.now + again);
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
                for registration in &mut known.registrations {
                    let lease = &mut registration.leases[family as usize];
                    let recently = lease.refused.is_some_and(|at| now.since(at) < ASK_REFUSED_AGAIN);
                    if lease.token.is_some() && lease.nonce.is_none() && !recently {
                        (lease.doubted, lease.refused) = (true, Some(now));
                        asking.push(Timer::Lease(registration.id, family));
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
        let asked = |it: &Registration| it.leases[family as usize].nonce == Some(welcome.nonce);
        let keep = within(welcome.keep_seconds, &KEEP_SECONDS);
        let known = self.answered(server, datagram, asked)?;
        let id = known.id;
        let first = !known.is_kept() && known.version == 0;
        let lease = &mut known.leases[family as usize];
        *lease = Lease { token: Some(welcome.token), keep: Some(keep), keeps: 1, ..Lease::default() };
        let pause = self.keep_pause(Some(keep));
        self.timers.set(Timer::Lease(id, family), self.now + pause);
        self.server_answers(server);
        // The others hear of us as well; a large namespace tells only some.
        let told = first && usize::from(welcome.members) <= limits::MEMBERS_TOLD;
        self.on_entries(id, welcome.entries, if told { News::Told } else { News::Ours });
        self.reached_version(id, welcome.upto, welcome.version);
        self.note_seen(server, family, welcome.seen);
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
        let asked = |it: &Registration| it.leases[family as usize].asked(kept.nonce);
        let known = self.answered(server, datagram, asked)?;
        let (id, version) = (known.id, known.version);
        let keep = within(kept.keep_seconds, &KEEP_SECONDS);
        let lease = &mut known.leases[family as usize];
        (lease.token, lease.nonce, lease.last_keep, lease.unanswered) = (Some(kept.token), None, None, 0);
        lease.keep = Some(keep);
        let pause = match kept.register_after_seconds {
            Some(seconds) => {
                // The server does not know what we told it: as if we were new, at the time that it wishes.
                lease.token = None;
                Duration::from_secs(u64::from(seconds.min(REGISTER_AFTER_SECONDS_MAX)))
            }
            None => self.keep_pause(Some(keep)),
        };
        self.timers.set(Timer::Lease(id, family), now + pause);
        self.server_answers(server);
        self.reached_version(id, version, kept.version);
        self.note_seen(server, family, kept.seen);
        self.note_time(server, kept.time);
        Ok(())
    }

    pub(super) fn on_nope(&mut self, server: ServerId, family: Family, nope: &Nope) -> Result<(), Dropped> {
        let known = self.rendezvous.servers.get_mut(&server).ok_or(Dropped::Unexpected)?;
        let mut all = known.registrations.iter_mut();
        let asked = |it: &&mut Registration| it.leases[family as usize].nonce == Some(nope.nonce);
        let refused = all.find(asked).ok_or(Dropped::Unexpected)?;
        debug!(reason = ?nope.refusal, "a rendezvous server refuses us");
        let id = refused.id;
        refused.leases[family as usize] = Lease::default();
        let pause = within(nope.again_seconds, &AGAIN_SECONDS);
        let pause = self.jittered(pause);
        self.timers.set(Timer::Lease(id, family), self.now + pause);
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
