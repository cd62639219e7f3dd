//! Whom a reply is for: the node that asked, and the number that it drew for the request.
//!
//! It holds all that is needed, so whoever has it can reply, over any connection and as often as it likes. Apps hand it
//! back as they got it: a text in JSON mode, 40 bytes in binary mode.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::id::{NodeId, ReplyToken};

/// Whom a reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Who asked.
    pub node: NodeId,
    /// Its name for the request.
    pub token: ReplyToken,
}

/// What was handed back is not what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("\"reply_to\" is none that a message had")]
pub struct BadReplyTo;

impl ReplyTo {
    /// Bytes of it in a frame.
    pub const BYTES: usize = 40;

    /// As a frame has it: the node's key, then the token, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (node, token) = bytes.split_at_mut(32);
        node.copy_from_slice(&self.node.0);
        token.copy_from_slice(&self.token.0.to_le_bytes());
        bytes
    }

    /// The other way.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (mut node, mut token) = ([0; 32], [0; 8]);
        node.copy_from_slice(&bytes[..32]);
        token.copy_from_slice(&bytes[32..]);
        Self { node: NodeId(node), token: ReplyToken(u64::from_le_bytes(token)) }
    }
}

impl fmt::Display for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.token.0)
    }
}

impl FromStr for ReplyTo {
    type Err = BadReplyTo;

    fn from_str(text: &str) -> Result<Self, BadReplyTo> {
        let (node, token) = text.split_once('.').ok_or(BadReplyTo)?;
        if token.len() != 16 || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadReplyTo);
        }
        let token = u64::from_str_radix(token, 16).map_err(|_| BadReplyTo)?;
        Ok(Self { node: node.parse().map_err(|_| BadReplyTo)?, token: ReplyToken(token) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_itself_from_text_and_from_bytes() {
        let reply_to = ReplyTo { node: NodeId([7; 32]), token: ReplyToken(0xab) };
        let text = reply_to.to_string();
        assert_eq!(text.parse(), Ok(reply_to));
        assert!(text.len() <= 128 && text.ends_with(".00000000000000ab"), "{text}");
        assert_eq!(ReplyTo::from_bytes(&reply_to.to_bytes()), reply_to);
    }

    #[test]
    fn what_was_never_given_is_refused() {
        let node = NodeId([7; 32]).to_string();
        let tokens = ["", "ab", "00000000000000abc", "+0000000000000ab", "00000000000000aé"];
        for text in tokens.map(|token| format!("{node}.{token}")) {
            assert_eq!(text.parse::<ReplyTo>(), Err(BadReplyTo), "{text}");
        }
        for text in ["", ".", "x.00000000000000ab", node.as_str()] {
            assert_eq!(text.parse::<ReplyTo>(), Err(BadReplyTo), "{text}");
        }
    }
}
