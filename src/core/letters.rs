//! Messages as apps give them: to whom, who wants to know what became of them, and until when.

use std::sync::Arc;

use crate::core::topics::RemoteTopics;
use crate::id::{ClientId, ReplyToken, RequestId, Topic};
use crate::time::Instant;
use crate::wire::local::{Outgoing, WhenFull, WhenNoListener};
use crate::wire::message::{self, Heading};
use crate::wire::packet::size;

/// Who wants to know what became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) client: ClientId,
    pub(crate) id: Option<RequestId>,
    /// It is one copy of this publication.
    pub(crate) publication: Option<u64>,
    /// It asks for replies.
    pub(crate) ask: Option<ReplyToken>,
}

/// To whom a message is at the receiver's node, as its app says it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Address<'a> {
    /// Those who listen to a topic.
    Topic(&'a str),
    /// The same, and they may reply.
    Request(&'a str, ReplyToken),
    /// Who sent a request with this token.
    Reply(ReplyToken),
}

impl Address<'_> {
    /// Bytes that the record of a message adds to it at most.
    const fn overhead(self) -> usize {
        match self {
            Self::Topic(_) => message::MESSAGE_OVERHEAD,
            Self::Request(..) | Self::Reply(_) => message::PIECE_OVERHEAD,
        }
    }

    /// Whether a message of `bytes` fits one datagram of `datagram` bytes.
    pub(crate) const fn fits(self, bytes: usize, datagram: usize) -> bool {
        bytes + self.overhead() + size::DATA_OVERHEAD <= datagram
    }

    pub(crate) fn keep(self) -> Option<KeptAddress> {
        Some(match self {
            Self::Topic(topic) => KeptAddress::Topic(topic.parse().ok()?),
            Self::Request(topic, token) => KeptAddress::Request(topic.parse().ok()?, token),
            Self::Reply(token) => KeptAddress::Reply(token),
        })
    }

    /// What the peer calls it, if anybody is there.
    pub(crate) fn heading(self, topics: &RemoteTopics) -> Option<Heading> {
        Some(match self {
            Self::Topic(topic) => Heading::Topic(topics.number(topic)?),
            Self::Request(topic, token) => Heading::Request { topic: topics.number(topic)?, token },
            Self::Reply(token) => Heading::Reply(token),
        })
    }
}

/// An address of a message that waits.
#[derive(Clone, Debug)]
pub(crate) enum KeptAddress {
    Topic(Topic),
    Request(Topic, ReplyToken),
    Reply(ReplyToken),
}

impl KeptAddress {
    pub(crate) fn as_address(&self) -> Address<'_> {
        match self {
            Self::Topic(topic) => Address::Topic(topic.as_str()),
            Self::Request(topic, token) => Address::Request(topic.as_str(), *token),
            Self::Reply(token) => Address::Reply(*token),
        }
    }

    /// The topic to whose listeners it is.
    pub(crate) const fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Topic(topic) | Self::Request(topic, _) => Some(topic),
            Self::Reply(_) => None,
        }
    }
}

/// How long a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all: it leaves at once, or is dropped.
    None,
    /// Until it can leave; but while nobody listens only for as long as an app may just be restarting.
    Grace,
    /// Until its deadline, whatever it waits for.
    Deadline,
}

impl Patience {
    pub(crate) const fn of(message: &Outgoing<'_>) -> Self {
        match (message.when_full, message.when_no_listener) {
            (WhenFull::Drop, _) => Self::None,
            (WhenFull::Wait, WhenNoListener::End) => Self::Grace,
            (WhenFull::Wait, WhenNoListener::Wait) => Self::Deadline,
        }
    }
}

/// A message as its app gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) address: Address<'a>,
    pub(crate) payload: &'a [u8],
    /// Its outcome is to be reported.
    pub(crate) tracked: bool,
    pub(crate) deadline: Instant,
    pub(crate) patience: Patience,
}

/// A message on its way to one peer.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) sender: Sender,
    pub(crate) payload: Arc<Vec<u8>>,
    pub(crate) accepted: Instant,
    pub(crate) deadline: Instant,
    /// What it takes to wait for a listener once more, if it waits for one until its deadline.
    pub(crate) lasting: Option<Box<Lasting>>,
}

/// A message that waits for a listener until its deadline, although it has been sent.
#[derive(Debug)]
pub(crate) struct Lasting {
    pub(crate) address: KeptAddress,
    /// The number and the heading under which it was sent, and found nobody.
    pub(crate) refused: Option<(u64, Heading)>,
}

impl Lasting {
    /// Of a message to `address` that has such patience.
    pub(crate) fn of(address: KeptAddress, patience: Patience) -> Option<Box<Self>> {
        (patience == Patience::Deadline).then(|| Box::new(Self { address, refused: None }))
    }
}
