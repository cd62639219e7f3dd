//! What the server did, in numbers: no address and no namespace is in them.

use thiserror::Error;

use crate::wire::rendezvous::{BadMessage, Kind};

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages taken, by kind.
    received: [u64; Kind::ALL.len()],
    /// Messages sent, by kind.
    sent: [u64; Kind::ALL.len()],
    /// Messages dropped, by reason.
    dropped: [u64; Dropped::ALL.len()],
    /// Bytes of all datagrams that came.
    pub bytes_in: u64,
    /// Bytes of all datagrams that went.
    pub bytes_out: u64,
    /// Events of which a member got a hint at most, since it or its source had its share.
    pub events_withheld: u64,
}

impl Counts {
    /// How many messages of this kind came.
    pub const fn received(&self, kind: Kind) -> u64 {
        self.received[kind as usize - 1]
    }

    /// How many messages of this kind went.
    pub const fn sent(&self, kind: Kind) -> u64 {
        self.sent[kind as usize - 1]
    }

    /// How many messages were dropped for this reason.
    pub const fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    pub(super) const fn count_received(&mut self, kind: Kind) {
        self.received[kind as usize - 1] += 1;
    }

    pub(super) const fn count_sent(&mut self, kind: Kind, bytes: usize) {
        self.sent[kind as usize - 1] += 1;
        self.bytes_out += bytes as u64;
    }

    pub(super) const fn count_dropped(&mut self, reason: Dropped) {
        self.dropped[reason as usize] += 1;
    }
}

/// Why a datagram had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Dropped {
    /// No message, or none of a node.
    #[error("no message of a node")]
    Kind,
    /// Its length does not fit.
    #[error("a message whose length does not fit")]
    Length,
    /// It has no cookie of ours; if it is a register, it was told how to get one.
    #[error("a wrong cookie")]
    Cookie,
    /// Its token is none of ours, or of another address; it was told to register again.
    #[error("a wrong token")]
    Token,
    /// Its namespace can be nobody's, or its mac is wrong.
    #[error("no member of its namespace")]
    Forged,
    /// It was here already.
    #[error("a repetition")]
    Repeated,
    /// Too many of its address, its namespace or the server.
    #[error("over a limit")]
    OverLimit,
    /// Whom it is for is not here.
    #[error("nobody is there")]
    Nobody,
    /// It is not what the port is for that it came to.
    #[error("not for this port")]
    Port,
    /// The edge does not take what is to be sent.
    #[error("no room to answer")]
    NoRoom,
}

impl Dropped {
    /// All of them, in their order.
    pub const ALL: [Self; 10] = [
        Self::Kind,
        Self::Length,
        Self::Cookie,
        Self::Token,
        Self::Forged,
        Self::Repeated,
        Self::OverLimit,
        Self::Nobody,
        Self::Port,
        Self::NoRoom,
    ];

    /// One word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Length => "length",
            Self::Cookie => "cookie",
            Self::Token => "token",
            Self::Forged => "forged",
            Self::Repeated => "repeated",
            Self::OverLimit => "over-limit",
            Self::Nobody => "nobody",
            Self::Port => "port",
            Self::NoRoom => "no-room",
        }
    }
}

impl From<BadMessage> for Dropped {
    fn from(bad: BadMessage) -> Self {
        match bad {
            BadMessage::Kind => Self::Kind,
            BadMessage::Length => Self::Length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let mut counts = Counts::default();
        for (times, reason) in (1..).zip(Dropped::ALL) {
            (0..times).for_each(|_| counts.count_dropped(reason));
        }
        for (times, reason) in (1..).zip(Dropped::ALL) {
            assert_eq!(counts.dropped(reason), times, "{}", reason.as_str());
        }
    }
}
