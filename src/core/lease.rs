//! A lease: what is registered at a server, in one address family (rendezvous.md, 3.3).
//!
//! It is kept by a keep every so often. That most keeps want an answer is how we notice that the server is gone, and how it
//! tells us that the token is worth nothing any more.

use std::net::SocketAddr;
use std::time::Duration;

use crate::core::Node;
use crate::core::rendezvous::Family;
use crate::core::timers::Timer;
use crate::time::Instant;
use crate::wire::rendezvous::{Nonce, Token};

/// Until a server says how often it wants to hear of us: half of the shortest mapping that home routers keep.
pub(super) const KEEP: Duration = Duration::from_secs(25);
/// Each so many keeps an answer is wanted, so that a server that is gone is noticed. One that wishes longer pauses than
/// [`KEEP`] has half a million members and more: it has other work, and every other keep only holds the translator's mapping.
const ANSWER_EVERY: u32 = 1;
const ANSWER_EVERY_OF_BUSY: u32 = 2;
/// The network's word that nobody is at a server's address makes us ask no more often than so: anybody can forge it.
const ASK_REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// A registration in one address family.
#[derive(Debug, Default)]
pub(super) struct Lease {
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
    pub(super) fn wants_answer(&self) -> bool {
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
