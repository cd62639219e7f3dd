//! Deadlines with reasons: one ordered set, so that the next one costs no scan of the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::core::registrations::RegistrationId;
use crate::core::rendezvous::{Family, ServerId};
use crate::id::{ClientId, NodeId, ReplyToken};
use crate::time::Instant;

/// What becomes due. Each value has at most one deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Send our first message to this peer again, or give up.
    Handshake(NodeId),
    /// Renew or wipe the sessions of this peer.
    Session(NodeId),
    /// Ask this peer whether it is there, or judge that it is not.
    Liveness(NodeId),
    /// Send tracked messages to this peer again, or end those whose deadline has come.
    Delivery(NodeId),
    /// The pace lets the next packet to this peer leave, or packets are found to be lost.
    Flight(NodeId),
    /// Tell this peer which of its packets came.
    Receipt(NodeId),
    /// Forget messages of this peer that never became whole.
    Reassembly(NodeId),
    /// Seek this peer again, which stopped answering.
    Lost(NodeId),
    /// Tell this peer our topics again.
    Topics(NodeId),
    /// Tell apps of this peer what was not told because it changes all the time.
    Presence(NodeId),
    /// Ask again whether the machine lives whose place another one claims, or give it away.
    Contest(NodeId),
    /// Look whether another machine has our key.
    Copy,
    /// Ask this address who it is.
    Whois(SocketAddr),
    /// Send or await the next question of this app's ping.
    Ping(ClientId, u64),
    /// Judge whether this app reads.
    SlowConsumer(ClientId),
    /// Forget handshakes that never proved to be alive.
    HalfOpen,
    /// Draw a new cookie secret.
    Cookie,
    /// Greet everyone again.
    Hello,
    /// Look on for whom we miss.
    Look,
    /// Browse again, or stop.
    Browse,
    /// Look up the name of this rendezvous server.
    LookUp(ServerId),
    /// Ask this rendezvous server who it is, and how it sees us.
    Hail(ServerId, Family),
    /// Ask its second port how it sees us, or ask again.
    SecondPort(ServerId, Family),
    /// Keep what is registered there.
    Lease(RegistrationId),
    /// Register in the namespaces that count now.
    NewDay,
    /// Try again to reach this member, which a rendezvous server told us of.
    Meet(NodeId),
    /// Open the next ports, guess the next ones of others, or close those that nobody needs.
    Punch,
    /// Say in what we have registered where we are now.
    Whereabouts,
    /// Measure how long a mapping lives, or take an echo for lost.
    MappingLife,
    /// Look whether anything is to be written on disk.
    Remember,
    /// End what has waited long enough for somebody to come.
    Waiting,
    /// End this request, which waits for replies.
    Ask(ReplyToken),
}

impl Timer {
    /// The deadline's reason, for logs and traces.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Handshake(_) => "handshake",
            Self::Session(_) => "session",
            Self::Liveness(_) => "liveness",
            Self::Delivery(_) => "delivery",
            Self::Flight(_) => "flight",
            Self::Receipt(_) => "receipt",
            Self::Reassembly(_) => "reassembly",
            Self::Lost(_) => "lost",
            Self::Topics(_) => "topics",
            Self::Presence(_) => "presence",
            Self::Contest(_) => "contest",
            Self::Copy => "copy",
            Self::Whois(_) => "whois",
            Self::Ping(..) => "ping",
            Self::SlowConsumer(_) => "slow-consumer",
            Self::HalfOpen => "half-open",
            Self::Cookie => "cookie",
            Self::Hello => "hello",
            Self::Look => "look",
            Self::Browse => "browse",
            Self::LookUp(_) => "look-up",
            Self::Hail(..) => "hail",
            Self::SecondPort(..) => "second-port",
            Self::Lease(..) => "lease",
            Self::NewDay => "new-day",
            Self::Meet(_) => "meet",
            Self::Punch => "punch",
            Self::Whereabouts => "whereabouts",
            Self::MappingLife => "mapping-life",
            Self::Remember => "remember",
            Self::Waiting => "waiting",
            Self::Ask(_) => "ask",
        }
    }
}

/// All deadlines of a node.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    ordered: BTreeSet<(Instant, Timer)>,
    deadlines: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Makes `timer` due at `at`, whatever it was before.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        match self.deadlines.insert(timer, at) {
            Some(before) if before == at => return,
            Some(before) => {
                self.ordered.remove(&(before, timer));
            }
            None => {}
        }
        self.ordered.insert((at, timer));
    }

    /// Makes `timer` due at `at` unless it is due sooner.
    pub(crate) fn set_sooner(&mut self, timer: Timer, at: Instant) {
        if self.deadlines.get(&timer).is_none_or(|before| at < *before) {
            self.set(timer, at);
        }
    }

    /// Forgets `timer`.
    pub(crate) fn clear(&mut self, timer: Timer) {
        if let Some(at) = self.deadlines.remove(&timer) {
            self.ordered.remove(&(at, timer));
        }
    }

    /// Whether `timer` has a deadline.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.deadlines.contains_key(&timer)
    }

    /// Makes everything that was due before `at` due at `at`.
    pub(crate) fn postpone(&mut self, at: Instant) {
        let late: Vec<_> =
            self.ordered.iter().map_while(|(due, timer)| (*due < at).then_some(*timer)).collect();
        for timer in late {
            self.set(timer, at);
        }
    }

    /// Takes one that is due at `now`, the oldest first.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.ordered.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }

    /// The next deadline and its reason.
    pub(crate) fn next(&self) -> Option<(Instant, &'static str)> {
        self.ordered.first().map(|(at, timer)| (*at, timer.reason()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn a_timer_that_is_set_again_is_due_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Hello, at(1));
        timers.set(Timer::Hello, at(3));
        timers.set_sooner(Timer::Hello, at(4));
        timers.set_sooner(Timer::Hello, at(2));
        assert_eq!(timers.next(), Some((at(2), "hello")));
        assert_eq!(timers.pop(at(1)), None);
        assert_eq!(timers.pop(at(2)), Some(Timer::Hello));
        assert_eq!(timers.pop(at(9)), None);
        assert_eq!(timers.next(), None);
    }
}
