//! Data packets under a session's keys (protocol.md, 2).
//!
//! ```text
//! | 4 | receiver 3 | counter 8 | ciphertext | tag 16 |
//!   '--- associated data ---'
//! ```
//!
//! Each side has a key of its own and counts its packets from 0; the counter is the nonce. The receiver looks at the
//! counter first (cheap), then at the tag, and only then remembers the counter: a forgery moves nothing.

use std::fmt;

use thiserror::Error;

use crate::crypto::aead::{Cipher, DataCipher};
use crate::crypto::handshake::SessionKeys;
use crate::crypto::replay::ReplayWindow;
use crate::id::SessionIndex;
use crate::wire::packet::{Kind, field, size};

/// Packets of one direction: so many that no session lives to send them, so few that no counter can overflow.
const PACKETS: u64 = 1 << 48;

/// The keys agreed with one peer, and the counters that go with them.
pub struct Session {
    send: DataCipher,
    receive: DataCipher,
    remote: SessionIndex,
    sent: u64,
    window: ReplayWindow,
}

/// The session has sealed all packets that it may: it must be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a session that has sent 2^48 packets")]
pub struct Exhausted;

/// Why a data packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Its counter was seen, is too old to tell, or is none that a session may use.
    #[error("a data packet that was seen before, or is too old to tell")]
    Replayed,
    /// It is forged, altered, or of another session.
    #[error("a data packet whose seal is broken")]
    Tag,
    /// It is too short to be one.
    #[error("a data packet that is shorter than its header and tag")]
    Length,
}

impl Session {
    /// The session with the keys of a handshake; the peer calls it `remote`.
    pub fn new(keys: SessionKeys, remote: SessionIndex) -> Self {
        let SessionKeys { send, receive } = keys;
        Self { send: send.into(), receive: receive.into(), remote, sent: 0, window: ReplayWindow::default() }
    }

    /// Makes the next data packet of `packet[start..]`, in place: before, that is [`size::DATA_HEADER`] bytes of room
    /// and the plaintext; after, it is the packet, [`size::TAG`] bytes longer.
    ///
    /// # Panics
    ///
    /// If there is no room for the header.
    pub fn seal(&mut self, packet: &mut Vec<u8>, start: usize) -> Result<(), Exhausted> {
        if self.sent >= PACKETS {
            return Err(Exhausted);
        }
        let (header, text) = packet[start..].split_at_mut(size::DATA_HEADER);
        header[0] = Kind::Data as u8;
        header[field::RECEIVER].copy_from_slice(&self.remote.to_bytes());
        header[field::COUNTER].copy_from_slice(&self.sent.to_le_bytes());
        let tag = self.send.seal(self.sent, header, text);
        packet.extend_from_slice(&tag);
        self.sent += 1;
        Ok(())
    }

    /// Opens the data packet `packet`, in place, and gives its plaintext.
    ///
    /// After an error nothing has changed but the bytes of `packet`, which are of no use then.
    pub fn open<'p>(&mut self, packet: &'p mut [u8]) -> Result<&'p [u8], OpenError> {
        let (header, rest) = packet.split_at_mut_checked(size::DATA_HEADER).ok_or(OpenError::Length)?;
        let (text, tag) = rest.split_last_chunk_mut().ok_or(OpenError::Length)?;
        let mut counter = [0; 8];
        counter.copy_from_slice(&header[field::COUNTER]);
        let counter = u64::from_le_bytes(counter);
        if counter >= PACKETS || !self.window.would_accept(counter) {
            return Err(OpenError::Replayed);
        }
        self.receive.open(counter, header, text, tag).map_err(|_| OpenError::Tag)?;
        self.window.commit(counter);
        Ok(text)
    }

    /// The packets sealed so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { remote, sent, .. } = self;
        f.debug_struct("Session").field("remote", remote).field("sent", sent).finish_non_exhaustive()
    }
}

/// Sessions for the tests of other modules.
#[cfg(test)]
pub(crate) mod tests_support {
    use super::*;
    use crate::crypto::hash::Key;

    /// Both ends of one session.
    pub(crate) fn pair() -> (Session, Session) {
        let keys =
            |send, receive| SessionKeys { send: Key::new([send; 32]), receive: Key::new([receive; 32]) };
        let (ours, theirs) = (SessionIndex::from_bits(0x0a0b0c), SessionIndex::from_bits(0x010203));
        (Session::new(keys(1, 2), theirs), Session::new(keys(2, 1), ours))
    }
}
