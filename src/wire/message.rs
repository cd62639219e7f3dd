//! What travels inside a session: records, one after the other, under one tag (protocol.md, 5).
//!
//! ```text
//! plaintext = { length u16 | record }  [ 0x0000 padding ]
//! ```
//!
//! A record is a [`Record`] in postcard's encoding. The list of variants only ever grows at its end, and fields only at
//! the end of a record: a reader skips what it does not know by the length. A length of zero ends the packet; what
//! follows it is padding, which lets the datagrams of one train be equally long.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{MessageNumber, NodeId, ReplyToken, TopicNumber};
use crate::limits;

/// One thing that a node tells a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// Are you there, on this path? Answered on the path that it came by.
    Ping {
        /// Drawn at random, so that only who read it can answer.
        token: u64,
        /// The sender's acquaintances in one number, as in [`Record::About`].
        peers: u64,
    },
    /// Yes.
    Pong {
        /// The token of the ping.
        token: u64,
        /// The sender's acquaintances in one number, as in [`Record::About`].
        peers: u64,
    },
    /// I am leaving: forget the session.
    Goodbye,
    /// Who I am; the first record that the initiator sends in a new session.
    About {
        /// The name of the node.
        #[serde(borrow)]
        name: &'a str,
        /// A digest of whom the sender holds a session with (see `core::lan`).
        peers: u64,
        /// How far the sender's list of topics goes (see `core::topics`).
        topics: u64,
    },
    /// Others that the sender has a session with, and where: hints.
    Peers {
        /// Id and address of each.
        entries: Vec<(NodeId, SocketAddr)>,
    },
    /// The sender lost this peer; the receiver may look for itself.
    Suspect {
        /// Whom.
        peer: NodeId,
    },
    /// What changed in the sender's list of topics.
    Topics {
        /// The state to which these changes apply; zero: forget what you had.
        since: u64,
        /// The state that results.
        upto: u64,
        /// Topics with a listener, and their numbers.
        #[serde(borrow)]
        added: Vec<(TopicNumber, &'a str)>,
        /// Topics that nobody listens to any more.
        removed: Vec<TopicNumber>,
    },
    /// How far the sender has followed the receiver's list.
    TopicsHave {
        /// The state.
        upto: u64,
        /// Answer even if there is nothing new.
        ask: bool,
    },
    /// A message; nobody will say whether it arrived.
    Message {
        /// The receiver's number of the topic.
        topic: TopicNumber,
        /// What the app said.
        payload: &'a [u8],
    },
    /// A message whose outcome is reported.
    Tracked {
        /// Its number.
        number: MessageNumber,
        /// How far below `number` the message stands that has to be delivered before this one; zero: none.
        after: u64,
        /// How far below `number` the first message without an outcome stands.
        open: u64,
        /// The receiver's number of the topic.
        topic: TopicNumber,
        /// What the app said.
        payload: &'a [u8],
    },
    /// What became of a tracked message.
    Outcome {
        /// Which.
        number: MessageNumber,
        /// What.
        fate: Fate,
    },
    /// Let me reach this peer of yours through you.
    Relay {
        /// Whom.
        target: NodeId,
    },
    /// You may, or you may not any more.
    Relayed {
        /// Whom.
        target: NodeId,
        /// The sender's number of the receiver's end of the way; zero: there is none.
        channel: u32,
    },
    /// Where I may be reached without a relay: an introduction as by a rendezvous server (rendezvous.md, 5.2).
    Meet {
        /// The introduction in its own encoding.
        introduction: &'a [u8],
    },
    /// The sender sees the receiver at this address.
    YouAre {
        /// The address.
        addr: SocketAddr,
    },
    /// A message that says more than its topic, or a piece of one that no datagram holds.
    Piece {
        /// Which message.
        place: Place,
        /// To whom.
        heading: Heading,
        /// Bytes of the whole message.
        size: u32,
        /// Where in it these bytes begin.
        at: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Which packets of a session came here.
    Received {
        /// The session, by the name that the packets carry.
        session: u32,
        /// The highest counter.
        upto: u64,
        /// How long ago that packet came, in microseconds.
        ago_us: u32,
        /// From `upto` down: how many came in a row, how many did not, and so on, each as a varint; at least one.
        runs: &'a [u8],
    },
}

/// Which message of its sender a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// One whose outcome is reported, as in [`Record::Tracked`].
    Tracked {
        /// Its number.
        number: MessageNumber,
        /// How far below `number` the message stands that has to be delivered before this one; zero: none.
        after: u64,
        /// How far below `number` the first message without an outcome stands.
        open: u64,
    },
    /// One that nobody reports on; these have a count of their own.
    Untracked {
        /// Its number among these.
        number: u64,
    },
}

/// To whom a message is at the receiver's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heading {
    /// To those who listen to a topic, by the receiver's number of it.
    Topic(TopicNumber),
    /// The same, and the sender waits for replies.
    Request {
        /// The receiver's number of the topic.
        topic: TopicNumber,
        /// What a reply names.
        token: ReplyToken,
    },
    /// To who sent a request with this token.
    Reply(ReplyToken),
}

/// The topic that every node listens to by itself: what comes there is acknowledged and thrown away.
pub const DISCARD: TopicNumber = TopicNumber(0);

/// What the receiver did with a tracked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is in the queue of at least one listening app.
    Delivered,
    /// Nobody listens to the topic.
    NoListener,
    /// The queues of all who listen are full.
    Busy,
}

/// Why the inside of a packet could not be read: our peer's fault, since the tag was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRecord {
    /// A record is longer than what is left.
    #[error("a record is cut short")]
    Cut,
    /// A record of a known kind does not decode.
    #[error("a record does not decode")]
    Malformed,
}

/// The records of one packet.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

/// A record of the packet, or how it could not be read.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// A record.
    Record(Record<'a>),
    /// A kind from a later version: to be counted and passed over.
    Unknown,
}

impl<'a> Records<'a> {
    /// Reads the plaintext of a packet.
    pub const fn new(plaintext: &'a [u8]) -> Self {
        Self { rest: plaintext }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Read<'a>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length));
        if length == 0 {
            self.rest = &[];
            return None;
        }
        let Some((record, rest)) = rest.split_at_checked(length) else {
            self.rest = &[];
            return Some(Err(BadRecord::Cut));
        };
        self.rest = rest;
        if record[0] >= KINDS {
            return Some(Ok(Read::Unknown));
        }
        match postcard::take_from_bytes(record) {
            // An app is promised that no message is larger.
            Ok((Record::Message { payload, .. } | Record::Tracked { payload, .. }, _))
                if payload.len() > limits::PAYLOAD_BYTES =>
            {
                Some(Err(BadRecord::Malformed))
            }
            Ok((record, _later_fields)) => Some(Ok(Read::Record(record))),
            Err(_) => Some(Err(BadRecord::Malformed)),
        }
    }
}

/// How many variants [`Record`] has; they all have a one-byte number.
const KINDS: u8 = 17;

/// What a record costs beside its encoding.
const LENGTH_PREFIX: usize = 2;

/// What a message's record adds to its payload at most: prefix 2, kind 1, number 6, after 2, open 2, topic 5, length 2.
pub const MESSAGE_OVERHEAD: usize = 20;

/// What a piece's record adds to its bytes at most: the same, its heading, a token 10, size 3 and place 3.
pub const PIECE_OVERHEAD: usize = 40;

/// Appends `record` to `packet` if it fits in `room` bytes; says whether it did.
#[must_use]
pub fn push(packet: &mut Vec<u8>, room: usize, record: &Record<'_>) -> bool {
    let start = packet.len();
    packet.extend_from_slice(&[0; LENGTH_PREFIX]);
    let mut writer = Bounded { packet, end: start + room };
    if postcard::serialize_with_flavor(record, &mut writer).is_err() {
        packet.truncate(start);
        return false;
    }
    let length = packet.len() - start - LENGTH_PREFIX;
    match u16::try_from(length) {
        Ok(length) => packet[start..start + LENGTH_PREFIX].copy_from_slice(&length.to_le_bytes()),
        Err(_) => {
            packet.truncate(start);
            return false;
        }
    }
    true
}

/// Writes into a packet up to its end, without an allocation of its own.
struct Bounded<'a> {
    packet: &'a mut Vec<u8>,
    end: usize,
}

impl postcard::ser_flavors::Flavor for &mut Bounded<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.packet.len() + bytes.len() > self.end {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.packet.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::size;

    fn all() -> Vec<Record<'static>> {
        vec![
            Record::Ping { token: 1, peers: 3 },
            Record::Pong { token: u64::MAX, peers: 3 },
            Record::Goodbye,
            Record::About { name: "pi", peers: 3, topics: 4 },
            Record::Peers { entries: vec![(NodeId([9; 32]), ([192, 168, 1, 2], 28282).into())] },
            Record::Suspect { peer: NodeId([8; 32]) },
            Record::Topics {
                since: 1,
                upto: 2,
                added: vec![(TopicNumber(2), "chat")],
                removed: vec![TopicNumber(1)],
            },
            Record::TopicsHave { upto: 2, ask: true },
            Record::Message { topic: TopicNumber(2), payload: b"hi" },
            Record::Tracked {
                number: MessageNumber(300),
                after: 1,
                open: 2,
                topic: TopicNumber(2),
                payload: b"hi",
            },
            Record::Outcome { number: MessageNumber(300), fate: Fate::Busy },
            Record::Relay { target: NodeId([8; 32]) },
            Record::Relayed { target: NodeId([8; 32]), channel: 7 },
            Record::Meet { introduction: b"hi" },
            Record::YouAre { addr: "192.0.2.1:5".parse().unwrap() },
            Record::Piece {
                place: Place::Tracked { number: MessageNumber(300), after: 1, open: 2 },
                heading: Heading::Request { topic: TopicNumber(2), token: ReplyToken(7) },
                size: 3000,
                at: 1000,
                bytes: b"hi",
            },
            Record::Received { session: 7, upto: 300, ago_us: 5, runs: &[2, 1, 9] },
        ]
    }

    #[test]
    fn every_record_reads_back_as_itself() {
        let mut packet = Vec::new();
        for record in &all() {
            assert!(push(&mut packet, 1000, record));
        }
        packet.extend_from_slice(&[0; 7]);
        let read: Vec<_> = Records::new(&packet).map(Result::unwrap).collect();
        assert_eq!(read, all().into_iter().map(Read::Record).collect::<Vec<_>>());
        assert_eq!(all().len(), usize::from(KINDS));
    }

    #[test]
    fn the_bytes_of_every_record_are_the_ones_in_the_protocol_document() {
        let bytes: Vec<String> = all()
            .iter()
            .map(|record| {
                let mut packet = Vec::new();
                assert!(push(&mut packet, 1000, record));
                data_encoding::HEXLOWER.encode(&packet)
            })
            .collect();
        let document = include_str!("../../docs/protocol.md");
        for line in bytes {
            assert!(document.contains(&line), "docs/protocol.md, 5 lacks the example {line}");
        }
    }

    #[test]
    fn a_record_of_a_later_version_is_passed_over() {
        let mut packet = vec![3, 0, KINDS, 1, 2];
        assert!(push(&mut packet, 100, &Record::Goodbye));
        let read: Vec<_> = Records::new(&packet).collect();
        assert_eq!(read, [Ok(Read::Unknown), Ok(Read::Record(Record::Goodbye))]);
    }

    #[test]
    fn fields_that_a_later_version_adds_are_passed_over() {
        let packet = [4, 0, 2, 7, 7, 7];
        let read: Vec<_> = Records::new(&packet).collect();
        assert_eq!(read, [Ok(Read::Record(Record::Goodbye))]);
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_packet_as_it_was() {
        let mut packet = vec![1, 2, 3];
        assert!(!push(&mut packet, 8, &Record::Message { topic: TopicNumber(1), payload: &[0; 9] }));
        assert_eq!(packet, [1, 2, 3]);
    }

    #[test]
    fn a_payload_over_the_limit_is_no_record() {
        for (bytes, legal) in [(limits::PAYLOAD_BYTES, true), (limits::PAYLOAD_BYTES + 1, false)] {
            let payload = vec![1; bytes];
            let (number, topic, payload) = (MessageNumber(1), TopicNumber(1), &payload[..]);
            for record in [
                Record::Message { topic, payload },
                Record::Tracked { number, after: 0, open: 0, topic, payload },
            ] {
                let mut packet = Vec::new();
                assert!(push(&mut packet, 1 << 16, &record));
                let expected = if legal { Ok(Read::Record(record)) } else { Err(BadRecord::Malformed) };
                assert_eq!(Records::new(&packet).collect::<Vec<_>>(), [expected]);
            }
        }
    }

    #[test]
    fn the_largest_message_fits_one_datagram() {
        let payload = [0; limits::SMALL_PAYLOAD_BYTES];
        let largest = Record::Tracked {
            number: MessageNumber(1 << 41),
            after: limits::TRACKED_WINDOW,
            open: limits::TRACKED_WINDOW,
            topic: TopicNumber(1 << 34),
            payload: &payload,
        };
        let mut packet = Vec::new();
        assert!(push(&mut packet, limits::DATAGRAM_BYTES - size::DATA_OVERHEAD, &largest));
        assert!(packet.len() <= limits::SMALL_PAYLOAD_BYTES + MESSAGE_OVERHEAD);
    }

    #[test]
    fn no_piece_has_a_longer_header_than_is_counted_with() {
        let place = Place::Tracked {
            number: MessageNumber(1 << 41),
            after: limits::TRACKED_WINDOW,
            open: limits::TRACKED_WINDOW,
        };
        let heading = Heading::Request { topic: TopicNumber(1 << 34), token: ReplyToken(u64::MAX) };
        let size = u32::try_from(limits::PAYLOAD_BYTES).unwrap();
        let (bytes, mut packet) = ([0; 8000], Vec::new());
        assert!(push(&mut packet, 1 << 16, &Record::Piece { place, heading, size, at: size, bytes: &bytes }));
        assert!(packet.len() <= bytes.len() + PIECE_OVERHEAD, "{}", packet.len());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            for read in Records::new(&bytes) {
                let _ = read;
            }
        });
    }
}
