//! The UDP datagram: what kind it is and for which session (protocol.md, 2).
//!
//! ```text
//! initiation | 1 | sender 3 | ephemeral 32 | static 32+16 | payload 32+16 | mac1 16 | mac2 16 |           164
//! response   | 2 | sender 3 | receiver 3 | 0 | ephemeral 32 | payload 72+16 | mac1 16 | mac2 16 |         160
//! cookie     | 3 | receiver 3 | nonce 24 | cookie 16+16 |                                                  60
//! data       | 4 | receiver 3 | counter 8 | ciphertext 0.. | tag 16 |                                   28 + n
//! hello      | 5 | 0 | port 2 | nonce 24 | id 32+16 |                                                      76
//! whois      | 6 | 0 0 0 | nonce 24 | padding 32 | mac 16 |                                                76
//! here-is    | 7 | 0 0 0 | nonce 24 | id 32+16 |                                                           76
//! relayed    | 8 | receiver 3 | counter 8 | ciphertext of (channel 4 | a packet) | tag 16 |            32 + packet
//! ```
//!
//! `n+16` is `n` bytes sealed and their tag. Numbers are little-endian. No answer is longer than its question.

use std::ops::{Range, RangeInclusive};

use thiserror::Error;

use crate::id::SessionIndex;
use crate::limits;

/// The size of every packet of fixed size, and of the parts of a data packet.
pub mod size {
    /// The first message of a handshake.
    pub const INITIATION: usize = 164;
    /// What the initiation carries sealed, without its tag.
    pub const INITIATION_PAYLOAD: usize = 32;
    /// The answer to it.
    pub const RESPONSE: usize = 160;
    /// What the response carries sealed, without its tag.
    pub const RESPONSE_PAYLOAD: usize = 72;
    /// The answer under load: prove your address first.
    pub const COOKIE: usize = 60;
    /// "I am here", by multicast.
    pub const HELLO: usize = 76;
    /// "Who are you?", to an address without a known key.
    pub const WHOIS: usize = 76;
    /// The answer to it.
    pub const HERE_IS: usize = 76;
    /// Before the ciphertext of a data packet.
    pub const DATA_HEADER: usize = 12;
    /// An AEAD's tag.
    pub const TAG: usize = 16;
    /// What a data packet adds to the records inside it.
    pub const DATA_OVERHEAD: usize = DATA_HEADER + TAG;
    /// The channel before a relayed packet.
    pub const CHANNEL: usize = 4;
    /// What a relay's packet adds to the packet in it.
    pub const RELAY_OVERHEAD: usize = DATA_OVERHEAD + CHANNEL;
    /// A keyed hash at the end of a packet.
    pub const MAC: usize = 16;
    /// An XChaCha20-Poly1305 nonce.
    pub const NONCE: usize = 24;
}

/// Where the fields of each packet stand.
pub mod field {
    use super::Range;

    /// Initiation and response: what its sender calls the session.
    pub const SENDER: Range<usize> = 1..4;
    /// Initiation: the ephemeral key.
    pub const INITIATION_EPHEMERAL: Range<usize> = 4..36;
    /// Initiation: the sealed static key.
    pub const INITIATION_STATIC: Range<usize> = 36..84;
    /// Initiation: the sealed payload.
    pub const INITIATION_PAYLOAD: Range<usize> = 84..132;
    /// Initiation: proves the membership.
    pub const INITIATION_MAC1: Range<usize> = 132..148;
    /// Initiation: proves the address.
    pub const INITIATION_MAC2: Range<usize> = 148..164;
    /// Response: what the initiator calls the session.
    pub const RESPONSE_RECEIVER: Range<usize> = 4..7;
    /// Response: the ephemeral key.
    pub const RESPONSE_EPHEMERAL: Range<usize> = 8..40;
    /// Response: the sealed payload.
    pub const RESPONSE_PAYLOAD: Range<usize> = 40..128;
    /// Response: proves the membership.
    pub const RESPONSE_MAC1: Range<usize> = 128..144;
    /// Response: proves the address.
    pub const RESPONSE_MAC2: Range<usize> = 144..160;
    /// Cookie and data: what the receiver calls the session.
    pub const RECEIVER: Range<usize> = 1..4;
    /// Cookie, hello, whois and here-is: the nonce.
    pub const NONCE: Range<usize> = 4..28;
    /// Cookie: the sealed cookie.
    pub const COOKIE: Range<usize> = 28..60;
    /// Data: the packet's number in its session.
    pub const COUNTER: Range<usize> = 4..12;
    /// Hello: the UDP port of its sender.
    pub const HELLO_PORT: Range<usize> = 2..4;
    /// Hello and here-is: the sealed node id.
    pub const SEALED_ID: Range<usize> = 28..76;
    /// Whois: the keyed hash of all before it.
    pub const WHOIS_MAC: Range<usize> = 60..76;
}

/// What kind a datagram is; the value is its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first message of a handshake.
    Initiation = 1,
    /// The second message of a handshake.
    Response = 2,
    /// Prove your address first.
    Cookie = 3,
    /// Records under a session's keys.
    Data = 4,
    /// I am here.
    Hello = 5,
    /// Who are you?
    Whois = 6,
    /// The answer to whois.
    HereIs = 7,
    /// A packet on its way through a relay.
    Relayed = 8,
}

/// A datagram whose kind and length fit each other; nothing in it is proved.
#[derive(Debug)]
pub enum Packet<'a> {
    /// The first message of a handshake.
    Initiation(&'a [u8; size::INITIATION]),
    /// The second message of a handshake.
    Response(&'a [u8; size::RESPONSE]),
    /// Prove your address first.
    Cookie(&'a [u8; size::COOKIE]),
    /// Records under a session's keys.
    Data {
        /// What we call the session.
        receiver: SessionIndex,
        /// The whole datagram, to be opened in place.
        packet: &'a mut [u8],
    },
    /// I am here.
    Hello(&'a [u8; size::HELLO]),
    /// Who are you?
    Whois(&'a [u8; size::WHOIS]),
    /// The answer to whois.
    HereIs(&'a [u8; size::HERE_IS]),
    /// A packet on its way through a relay, under a session's keys.
    Relayed {
        /// What we call the session.
        receiver: SessionIndex,
        /// The whole datagram, to be opened in place.
        packet: &'a mut [u8],
    },
}

/// Why a datagram is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPacket {
    /// Its first byte names no kind.
    #[error("a datagram of no known kind")]
    Kind,
    /// Too short or too long for its kind.
    #[error("a datagram whose length does not fit its kind")]
    Length,
}

impl<'a> Packet<'a> {
    /// Which packet `datagram` is.
    pub fn parse(datagram: &'a mut [u8]) -> Result<Self, BadPacket> {
        match datagram.first().copied() {
            None => Err(BadPacket::Length),
            Some(1) => exact(datagram).map(Self::Initiation),
            Some(2) => exact(datagram).map(Self::Response),
            Some(3) => exact(datagram).map(Self::Cookie),
            Some(4) => match *datagram {
                [_, a, b, c, ..]
                    if (size::DATA_OVERHEAD..=limits::LARGE_DATAGRAM_BYTES).contains(&datagram.len()) =>
                {
                    Ok(Self::Data { receiver: SessionIndex::from_bytes([a, b, c]), packet: datagram })
                }
                _ => Err(BadPacket::Length),
            },
            Some(5) => exact(datagram).map(Self::Hello),
            Some(6) => exact(datagram).map(Self::Whois),
            Some(7) => exact(datagram).map(Self::HereIs),
            Some(8) => match *datagram {
                [_, a, b, c, ..] if RELAYED_BYTES.contains(&datagram.len()) => {
                    Ok(Self::Relayed { receiver: SessionIndex::from_bytes([a, b, c]), packet: datagram })
                }
                _ => Err(BadPacket::Length),
            },
            Some(_) => Err(BadPacket::Kind),
        }
    }
}

/// A relay's packet holds another one, and that no third.
const RELAYED_BYTES: RangeInclusive<usize> =
    size::RELAY_OVERHEAD + size::DATA_OVERHEAD..=size::RELAY_OVERHEAD + limits::DATAGRAM_BYTES;

fn exact<const N: usize>(datagram: &[u8]) -> Result<&[u8; N], BadPacket> {
    datagram.try_into().map_err(|_| BadPacket::Length)
}

/// The three bytes of a session index at `range`.
pub(crate) fn index_at(packet: &[u8], range: Range<usize>) -> SessionIndex {
    let mut bytes = [0; 3];
    bytes.copy_from_slice(&packet[range]);
    SessionIndex::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_longer_than_its_question() {
        const { assert!(size::RESPONSE <= size::INITIATION) };
        const { assert!(size::COOKIE <= size::INITIATION) };
        const { assert!(size::HERE_IS <= size::WHOIS) };
    }

    #[test]
    fn the_fields_of_each_packet_end_where_the_packet_ends() {
        assert_eq!(field::INITIATION_MAC2.end, size::INITIATION);
        assert_eq!(field::RESPONSE_MAC2.end, size::RESPONSE);
        assert_eq!(field::COOKIE.end, size::COOKIE);
        assert_eq!(field::SEALED_ID.end, size::HELLO);
        assert_eq!(field::WHOIS_MAC.end, size::WHOIS);
        assert_eq!(field::INITIATION_PAYLOAD.len(), size::INITIATION_PAYLOAD + size::TAG);
        assert_eq!(field::RESPONSE_PAYLOAD.len(), size::RESPONSE_PAYLOAD + size::TAG);
    }

    #[test]
    fn a_data_packet_longer_than_any_that_is_sent_is_refused() {
        for (length, taken) in
            [(limits::LARGE_DATAGRAM_BYTES, true), (limits::LARGE_DATAGRAM_BYTES + 1, false)]
        {
            assert_eq!(Packet::parse(&mut vec![4; length]).is_ok(), taken, "{length}");
        }
    }

    #[test]
    fn a_datagram_of_another_length_than_its_kind_is_refused() {
        for length in [59, 60, 1232, 1233] {
            assert_eq!(
                Packet::parse(&mut vec![8; length]).is_ok(),
                (60..=1232).contains(&length),
                "{length}"
            );
        }
        for kind in 1..=7_u8 {
            for length in (1..200).filter(|length| ![164, 160, 60, 76].contains(length)) {
                let mut datagram = vec![0; length];
                datagram[0] = kind;
                let parsed = Packet::parse(&mut datagram);
                assert_eq!(parsed.is_ok(), kind == 4 && length >= size::DATA_OVERHEAD, "{kind} {length}");
            }
        }
        assert_eq!(Packet::parse(&mut []).err(), Some(BadPacket::Length));
        assert_eq!(Packet::parse(&mut [0]).err(), Some(BadPacket::Kind));
    }
}
