//! The names of things: one newtype for each number or string that could be mistaken for another.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits;

/// A node's X25519 public key: what it is, wherever it is and whatever it is called.
///
/// Written as base32 in lower case without padding, 52 characters; [`NodeId::short`] is the first 8 of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The first 8 characters, for people.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }

    /// The first 8 bytes as a number: what a digest of many ids is made of (protocol.md, 8.3).
    #[cfg(feature = "daemon")]
    pub(crate) fn digest(&self) -> u64 {
        self.0.first_chunk().copied().map_or(0, u64::from_le_bytes)
    }

    /// Where it stands on the ring of ids: in their order, as far as eight bytes tell them apart.
    #[cfg(feature = "daemon")]
    pub(crate) fn place(&self) -> u64 {
        self.0.first_chunk().copied().map_or(0, u64::from_be_bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every message names its sender: no allocation here.
        // Every message that is delivered names its sender: written without an allocation.
        let mut text = [0; 52];
        BASE32_NOPAD.encode_mut(&self.0, &mut text);
        text.make_ascii_lowercase();
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for NodeId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bytes = base32_32(text).ok_or(BadName::NodeId)?;
        Ok(Self(bytes))
    }
}

/// One end of a way through a relay, as the relay numbers it. The highest bit says that the packet has passed the relay
/// (protocol.md, 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(pub u32);

impl Channel {
    /// The bits of the number.
    pub const MASK: u32 = 0x7fff_ffff;

    /// The same in a packet from the relay to the end.
    pub const fn to_end(self) -> Self {
        Self(self.0 | !Self::MASK)
    }

    /// The number, and whether the packet has passed the relay.
    pub const fn parts(self) -> (Self, bool) {
        (Self(self.0 & Self::MASK), self.0 > Self::MASK)
    }
}

/// A rendezvous server's X25519 public key: what stands behind `#` in its address, written like a [`NodeId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey(pub [u8; 32]);

impl ServerKey {
    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32(&self.0))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServerKey {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        base32_32(text).map(Self).ok_or(BadName::ServerKey)
    }
}

/// 32 bytes as 52 characters of lower-case base32.
pub(crate) fn base32(bytes: &[u8; 32]) -> String {
    let mut text = BASE32_NOPAD.encode(bytes);
    text.make_ascii_lowercase();
    text
}

/// The 32 bytes that 52 characters of base32 stand for, in either case.
pub(crate) fn base32_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 52 {
        return None;
    }
    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()?.try_into().ok()
}

/// What apps listen on: 1 to 63 bytes of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Topic(String);

impl Topic {
    /// What every node listens to by itself: it acknowledges what comes there and throws it away.
    pub const DISCARD: &str = "atonce.discard";

    /// Whether apps cannot listen to it: it belongs to the daemon.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("atonce.")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` may be a topic.
    pub fn check(text: &str) -> Result<(), BadName> {
        let legal = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        match text.len() {
            0 => Err(BadName::TopicEmpty),
            1..=limits::NAME_BYTES if text.bytes().all(legal) => Ok(()),
            1..=limits::NAME_BYTES => Err(BadName::TopicCharacters),
            _ => Err(BadName::TopicLong),
        }
    }
}

impl FromStr for Topic {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::check(text).map(|()| Self(text.to_owned()))
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What people call a node: 1 to 63 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeName(String);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        match text.len() {
            _ if text.trim().is_empty() => Err(BadName::NameEmpty),
            1..=limits::NAME_BYTES if !text.chars().any(unprintable) => Ok(Self(text.to_owned())),
            1..=limits::NAME_BYTES => Err(BadName::NameCharacters),
            _ => Err(BadName::NameLong),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Characters that would let a name steer a terminal or pose as another name: controls, and the marks that turn the
/// direction of text or have no width (Unicode 9.9, "bidirectional ordering controls", and 23.2).
pub(crate) fn unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Why a text is not a name of the kind that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadName {
    /// Not 52 characters of base32.
    #[error("a node id has 52 characters of a-z and 2-7")]
    NodeId,
    /// Not 52 characters of base32.
    #[error("a rendezvous server's key has 52 characters of a-z and 2-7")]
    ServerKey,
    /// Nothing at all.
    #[error("a topic has at least one character")]
    TopicEmpty,
    /// Over the limit.
    #[error("a topic has at most 63 characters")]
    TopicLong,
    /// Something outside the allowed set.
    #[error("a topic has only the characters a-z 0-9 . _ -")]
    TopicCharacters,
    /// Nothing at all.
    #[error("a name has at least one character")]
    NameEmpty,
    /// Over the limit.
    #[error("a name has at most 63 bytes")]
    NameLong,
    /// Something that would steer a terminal.
    #[error("a name has no control characters or invisible marks")]
    NameCharacters,
}

/// One connection of a local app; never used twice in one run of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What an app calls its request; echoed in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// In binary mode: a destination as an app numbers it, or a source of messages as the daemon numbers it for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppChannel(pub u16);

/// What the receiver calls a session, 24 bits: the only thing that a data packet says in clear beside its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(u32);

impl SessionIndex {
    /// The low 24 bits of `bits`.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0x00ff_ffff)
    }

    /// As a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Little-endian, as on the wire.
    pub const fn to_bytes(self) -> [u8; 3] {
        let [a, b, c, _] = self.0.to_le_bytes();
        [a, b, c]
    }

    /// Little-endian, as on the wire.
    pub const fn from_bytes(bytes: [u8; 3]) -> Self {
        Self(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
    }
}

/// One life of a node: drawn at each start, so that numbers of an earlier life are never mistaken for this one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub u64);

/// What a receiver calls one of its topics during one boot; never used for another topic in that boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicNumber(pub u64);

/// The number of an acknowledged message: counted per receiver boot id, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageNumber(pub u64);

/// What a reply names: drawn by who asked, for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplyToken(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_back_as_itself_in_either_case() {
        let id = NodeId([7; 32]);
        let text = id.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        assert_eq!("abc".parse::<NodeId>(), Err(BadName::NodeId));
        assert_eq!("!".repeat(52).parse::<NodeId>(), Err(BadName::NodeId));
        assert_eq!(text.parse().map(|ServerKey(bytes)| NodeId(bytes)), Ok(id));
        assert_eq!(ServerKey([7; 32]).to_string(), text);
        assert_eq!("abc".parse::<ServerKey>(), Err(BadName::ServerKey));
    }

    #[test]
    fn a_topic_is_refused_for_the_reason_that_it_breaks() {
        assert!("a".repeat(63).parse::<Topic>().is_ok());
        assert_eq!("".parse::<Topic>(), Err(BadName::TopicEmpty));
        assert_eq!("a".repeat(64).parse::<Topic>(), Err(BadName::TopicLong));
        assert_eq!("Sensor".parse::<Topic>(), Err(BadName::TopicCharacters));
        assert_eq!("a b".parse::<Topic>(), Err(BadName::TopicCharacters));
    }

    #[test]
    fn a_name_cannot_carry_a_terminal_escape_or_turn_the_text_round() {
        assert!("Küche 🍳".parse::<NodeName>().is_ok());
        assert_eq!("\u{1b}[31mred".parse::<NodeName>(), Err(BadName::NameCharacters));
        assert_eq!("a\u{202e}b".parse::<NodeName>(), Err(BadName::NameCharacters));
        assert_eq!("é".repeat(32).parse::<NodeName>(), Err(BadName::NameLong));
    }
}
