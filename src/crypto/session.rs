//! Data packets under a session's keys (protocol.md, 2).
//!
//! ```text
//! | 4 | receiver 3 | counter 8 | ciphertext | tag 16 |
//!   '--- associated data ---'
//! ```
//!
//! Each side has a key of its own and counts its packets from 0; the counter is the nonce. The receiver looks
//! at the counter first (cheap), then at the tag, and only then remembers the counter: a forgery moves
//! nothing.

use std::fmt;

use thiserror::Error;

use crate::crypto::aead::{Cipher, DataCipher};
use crate::crypto::handshake::SessionKeys;
use crate::crypto::replay::ReplayWindow;
use crate::id::{Channel, SessionIndex};
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

    /// Makes the next data packet of `packet[start..]`, in place: before, that is [`size::DATA_HEADER`] bytes
    /// of room and the plaintext; after, it is the packet, [`size::TAG`] bytes longer.
    ///
    /// # Panics
    ///
    /// If there is no room for the header.
    pub fn seal(&mut self, packet: &mut Vec<u8>, start: usize) -> Result<(), Exhausted> {
        self.seal_as(Kind::Data, packet, start)
    }

    /// Appends `inner`, a packet that a relay passes on, sealed for the next stop (protocol.md, 10).
    pub fn seal_relayed(
        &mut self,
        channel: Channel,
        inner: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let start = out.len();
        out.resize(start + size::DATA_HEADER, 0);
        out.extend_from_slice(&channel.0.to_le_bytes());
        out.extend_from_slice(inner);
        self.seal_as(Kind::Relayed, out, start)
    }

    fn seal_as(&mut self, kind: Kind, packet: &mut Vec<u8>, start: usize) -> Result<(), Exhausted> {
        if self.sent >= PACKETS {
            return Err(Exhausted);
        }
        let (header, text) = packet[start..].split_at_mut(size::DATA_HEADER);
        header[0] = kind as u8;
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
        self.open_counted(packet).map(|(_, text)| text)
    }

    /// The same, and which one of the session's packets it is.
    pub fn open_counted<'p>(&mut self, packet: &'p mut [u8]) -> Result<(u64, &'p [u8]), OpenError> {
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
        Ok((counter, text))
    }

    /// What the peer calls it.
    pub const fn remote(&self) -> SessionIndex {
        self.remote
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::tests_support::pair;
    use super::*;
    use crate::limits::REPLAY_WINDOW;

    fn sealed(session: &mut Session, text: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; size::DATA_HEADER];
        packet.extend_from_slice(text);
        session.seal(&mut packet, 0).unwrap();
        packet
    }

    #[test]
    fn what_one_side_seals_the_other_opens_in_both_directions() {
        let (mut alice, mut bob) = pair();
        for text in [&b""[..], b"a", &[7; 1172]] {
            let mut packet = sealed(&mut alice, text);
            assert_eq!(packet.len(), text.len() + size::DATA_OVERHEAD);
            assert_eq!(bob.open(&mut packet), Ok(text));
            let mut packet = sealed(&mut bob, text);
            assert_eq!(alice.open(&mut packet), Ok(text));
        }
        assert_eq!((alice.sent(), bob.sent()), (3, 3));
    }

    #[test]
    fn the_header_says_kind_and_receiver_and_counter() {
        let (mut alice, _) = pair();
        sealed(&mut alice, b"first");
        let packet = sealed(&mut alice, b"second");
        assert_eq!(packet[..size::DATA_HEADER], [4, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!packet.windows(6).any(|window| window == b"second"));
    }

    #[test]
    fn a_packet_is_sealed_behind_others_in_one_buffer() {
        let (mut alice, mut bob) = pair();
        let mut train = Vec::new();
        for text in [b"one", b"two"] {
            let start = train.len();
            train.resize(start + size::DATA_HEADER, 0);
            train.extend_from_slice(text);
            alice.seal(&mut train, start).unwrap();
        }
        let (one, two) = train.split_at_mut(size::DATA_OVERHEAD + 3);
        assert_eq!(bob.open(one), Ok(&b"one"[..]));
        assert_eq!(bob.open(two), Ok(&b"two"[..]));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_and_the_real_packet_is_taken_afterwards() {
        let (mut alice, mut bob) = pair();
        let mut packet = sealed(&mut alice, b"text");
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let counter_too_high = (10 * 8..12 * 8).contains(&bit);
            let error = if counter_too_high { OpenError::Replayed } else { OpenError::Tag };
            assert_eq!(bob.open(&mut forged), Err(error), "bit {bit}");
        }
        assert_eq!(bob.open(&mut packet), Ok(&b"text"[..]));
    }

    #[test]
    fn a_packet_is_taken_once_and_in_any_order_within_the_window() {
        let (mut alice, mut bob) = pair();
        let packets: Vec<_> = (0..REPLAY_WINDOW).map(|_| sealed(&mut alice, b"x")).collect();
        for expected in [Ok(&b"x"[..]), Err(OpenError::Replayed)] {
            for packet in packets.iter().rev() {
                assert_eq!(bob.open(&mut packet.clone()), expected);
            }
        }
    }

    #[test]
    fn a_packet_that_comes_later_than_a_whole_window_is_refused() {
        let (mut alice, mut bob) = pair();
        let (mut late, mut in_time) = (sealed(&mut alice, b"0"), sealed(&mut alice, b"1"));
        alice.sent = REPLAY_WINDOW;
        assert!(bob.open(&mut sealed(&mut alice, b"new")).is_ok());
        assert_eq!(bob.open(&mut late), Err(OpenError::Replayed));
        assert_eq!(bob.open(&mut in_time), Ok(&b"1"[..]));
    }

    #[test]
    fn a_forged_counter_does_not_move_the_window() {
        let (mut alice, mut bob) = pair();
        let mut real = sealed(&mut alice, b"real");
        let mut forged = real.clone();
        forged[field::COUNTER].copy_from_slice(&(PACKETS - 1).to_le_bytes());
        assert_eq!(bob.open(&mut forged), Err(OpenError::Tag));
        assert_eq!(bob.open(&mut real), Ok(&b"real"[..]));
    }

    #[test]
    fn our_own_packet_sent_back_to_us_is_refused() {
        let (mut alice, _) = pair();
        let mut packet = sealed(&mut alice, b"mirror");
        assert_eq!(alice.open(&mut packet), Err(OpenError::Tag));
    }

    #[test]
    fn after_the_last_packet_nothing_is_sealed_and_nothing_is_opened() {
        let (mut alice, mut bob) = pair();
        alice.sent = PACKETS - 1;
        assert_eq!(bob.open(&mut sealed(&mut alice, b"last")), Ok(&b"last"[..]));
        let mut packet = [&[0; size::DATA_HEADER][..], b"one too many"].concat();
        let before = packet.clone();
        assert_eq!(alice.seal(&mut packet, 0), Err(Exhausted));
        assert_eq!(packet, before);
        assert_eq!(alice.sent(), PACKETS);

        // A peer that does not stop, with the right key.
        let (header, text) = packet.split_at_mut(size::DATA_HEADER);
        header.copy_from_slice(&[4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0]);
        let tag = alice.send.seal(PACKETS, header, text);
        packet.extend_from_slice(&tag);
        assert_eq!(bob.open(&mut packet), Err(OpenError::Replayed));
    }

    #[test]
    fn a_packet_that_was_cut_off_is_refused_at_every_length() {
        let (mut alice, mut bob) = pair();
        let packet = sealed(&mut alice, b"text");
        for length in 0..packet.len() {
            let error = if length < size::DATA_OVERHEAD { OpenError::Length } else { OpenError::Tag };
            assert_eq!(bob.open(&mut packet[..length].to_vec()), Err(error), "{length}");
        }
    }

    #[test]
    fn sealing_and_opening_allocate_no_buffer() {
        let (mut alice, mut bob) = pair();
        let mut packet = Vec::with_capacity(size::DATA_OVERHEAD + 5);
        packet.resize(size::DATA_HEADER + 5, 0);
        let before = packet.as_ptr();
        alice.seal(&mut packet, 0).unwrap();
        assert_eq!(packet.as_ptr(), before);
        let opened = bob.open(&mut packet).unwrap().as_ptr();
        assert_eq!(opened, before.wrapping_add(size::DATA_HEADER));
    }

    #[test]
    fn a_session_prints_no_key() {
        assert_eq!(format!("{:?}", pair().0), "Session { remote: SessionIndex(66051), sent: 0, .. }");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_changes_nothing(mut garbage in proptest::collection::vec(0_u8.., 0..200)) {
            let (mut alice, mut bob) = pair();
            let mut packet = sealed(&mut alice, b"text");
            prop_assert!(bob.open(&mut garbage).is_err());
            prop_assert_eq!(bob.open(&mut packet), Ok(&b"text"[..]));
        }
    }
}
