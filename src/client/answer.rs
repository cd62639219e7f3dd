//! What the daemon answers, and why it may not.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::wire::local;
use crate::wire::local::{ErrorCode, Outcome, PathKind, PeerOutcome, PeerRef, RoundTrips};

/// What became of a message to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// The outcome. A message that was not delivered is no [`enum@Error`].
    pub outcome: Outcome,
    /// To whom it was.
    pub peer: PeerRef<'static>,
    /// How it went, if it did.
    pub path: Option<PathKind>,
    /// From its first departure to the answer, in microseconds.
    pub rtt_us: Option<u64>,
    /// How many replies came, if it waited for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replies: Option<u32>,
}

impl Sent {
    pub(super) fn of(event: local::Event<'_>) -> Result<Self, Error> {
        let local::Event::Result {
            ending: local::Ending::Send { outcome, peer, path, rtt_us, replies }, ..
        } = event
        else {
            return Err(unfit(&event));
        };
        Ok(Self { outcome, peer: owned(peer), path, rtt_us, replies })
    }
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// How many peers it was sent to; apps of this node are not counted.
    pub sent: u64,
    /// What became of each copy, if [`SendOptions::ack`](super::SendOptions::ack) asked for it; the failures first, and of a very long list only
    /// the beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcomes: Option<Vec<PeerOutcome<'static>>>,
    /// How many replies came, if it waited for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replies: Option<u32>,
}

impl Published {
    pub(super) fn of(event: local::Event<'_>) -> Result<Self, Error> {
        let local::Event::Result { ending: local::Ending::Publish { sent, outcomes, replies }, .. } = event
        else {
            return Err(unfit(&event));
        };
        let each = |copy: PeerOutcome<'_>| PeerOutcome { peer: owned(copy.peer), outcome: copy.outcome };
        let outcomes = outcomes.map(|all| all.into_iter().map(each).collect());
        Ok(Self { sent, outcomes, replies })
    }
}

/// One answer to a ping, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pong {
    /// Who answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<PeerRef<'static>>,
    /// Which question, from 1.
    pub seq: u64,
    /// How long it took, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How it went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathKind>,
    /// The far address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<SocketAddr>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Outcome>,
}

/// All answers to a ping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinged {
    /// Whom we asked.
    pub peer: PeerRef<'static>,
    /// How many questions.
    pub sent: u64,
    /// How many answers.
    pub received: u64,
    /// How long they took, if any came.
    pub rtt_us: Option<RoundTrips>,
}

/// Why something could not be had from the daemon.
#[derive(Debug, Error)]
pub enum Error {
    /// Nobody answers at the socket. The kind of `source` says why: not found, permission denied, connection refused.
    #[error("cannot reach the daemon at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon refused.
    #[error("{message}")]
    Refused {
        /// What kind of trouble.
        code: ErrorCode,
        /// What failed and why.
        message: String,
        /// What to try.
        hint: String,
    },
    /// The message cannot be sent in one piece.
    #[error("a message has at most {most} bytes, this one has {bytes}")]
    TooBig {
        /// Bytes of the message.
        bytes: usize,
        /// Bytes that a message may have.
        most: usize,
    },
    /// The connection ended before the daemon answered. It may have done what was asked, or may not, so it is not asked
    /// again.
    #[error("the daemon closed the connection before it answered")]
    Closed,
    /// The daemon said nothing for that long.
    #[error("the daemon did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// What the daemon says is not our protocol.
    #[error("the daemon said something that is not understood: {0}")]
    Protocol(String),
    /// A message was to be delivered, and was not: see [`Sent::checked`].
    #[error("the message was not delivered: {}", _0.words())]
    NotDelivered(Outcome),
    /// There are [`PRESENCE_KEPT`](super::PRESENCE_KEPT) unread changes of presence, or outcomes that nobody asked for.
    #[error("too many events wait to be read")]
    Behind,
}

const fn checked(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Delivered | Outcome::Sent => Ok(()),
        Outcome::NoListener | Outcome::Busy | Outcome::TooBig | Outcome::Unreachable | Outcome::Timeout => {
            Err(Error::NotDelivered(outcome))
        }
    }
}

impl Sent {
    /// The same, or an [`Error::NotDelivered`]: for those who do not want to look at the outcome.
    pub fn checked(self) -> Result<Self, Error> {
        checked(self.outcome).map(|()| self)
    }
}

impl Published {
    /// The same, or the first [`Error::NotDelivered`] of its outcomes.
    pub fn checked(self) -> Result<Self, Error> {
        self.outcomes.iter().flatten().try_for_each(|copy| checked(copy.outcome))?;
        Ok(self)
    }
}

/// What the daemon says is no answer to what was asked.
pub(super) fn unfit(event: &local::Event<'_>) -> Error {
    let shown: String = format!("{event:?}").chars().take(80).collect();
    Error::Protocol(format!("this does not answer what was asked: {shown}"))
}

pub(super) fn odd(error: serde_json::Error) -> Error {
    Error::Protocol(error.to_string())
}

pub(super) fn owned(peer: PeerRef<'_>) -> PeerRef<'static> {
    PeerRef { name: Cow::Owned(peer.name.into_owned()), id: peer.id }
}
