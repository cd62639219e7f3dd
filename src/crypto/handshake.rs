//! Two packets that make a session: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` in WireGuard's shape (protocol.md, 3).
//!
//! ```text
//! Initiator::start  -- initiation -->  check_mac1, Received::read
//!                                          | who is it, may it?
//! Initiator::finish <-- response ---   Received::respond
//! ```
//!
//! mac1 is keyed by the network and the receiver's id: a stranger's packet costs one hash and draws no answer. mac2 is
//! keyed by a cookie and asked for under load only ([`cookie`](crate::crypto::cookie)).
//!
//! Neither side changes by a packet that is not verified: [`Initiator::finish`] takes `&self`, and what
//! [`Received::read`] found is a value of its own.

use std::fmt;

use thiserror::Error;

use crate::crypto::aead::BadTag;
use crate::crypto::hash::{self, Key};
use crate::crypto::identity::Identity;
use crate::crypto::keypair::KeyPair;
use crate::crypto::network::NetworkKeys;
use crate::crypto::noise::{self, Message1, SymmetricState};
use crate::id::{NodeId, SessionIndex};
use crate::wire::packet::{Kind, field, index_at, size};

/// Ties the handshake to this version of the protocol: with another one the first tag fails.
const PROLOGUE: &[u8] = b"atonce 1";
/// The Noise message inside an initiation.
const INITIATION_MESSAGE: std::ops::Range<usize> =
    field::INITIATION_EPHEMERAL.start..field::INITIATION_PAYLOAD.end;
/// The Noise message inside a response.
const RESPONSE_MESSAGE: std::ops::Range<usize> = field::RESPONSE_EPHEMERAL.start..field::RESPONSE_PAYLOAD.end;

const _: () = {
    let initiation = INITIATION_MESSAGE.end - INITIATION_MESSAGE.start;
    assert!(initiation == size::INITIATION_PAYLOAD + noise::MESSAGE_1_OVERHEAD);
    let response = RESPONSE_MESSAGE.end - RESPONSE_MESSAGE.start;
    assert!(response == size::RESPONSE_PAYLOAD + noise::MESSAGE_2_OVERHEAD);
};

/// Why a handshake packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// mac1 is wrong: a stranger's, or for somebody else.
    #[error("a handshake packet that no member of our network made for us")]
    Mac,
    /// It answers another initiation than this one.
    #[error("a response to another initiation")]
    Index,
    /// A sealed part is forged, or for another key, network or protocol version.
    #[error("a handshake packet whose seal is broken")]
    Tag,
    /// A key in it is none: the key exchange with it would have no secret result.
    #[error("a handshake packet with a public key that is none")]
    Key,
}

impl From<BadTag> for HandshakeError {
    fn from(_: BadTag) -> Self {
        Self::Tag
    }
}

/// The keys that a handshake made; a [`Session`](crate::crypto::session::Session) uses them.
pub struct SessionKeys {
    pub(crate) send: Key,
    pub(crate) receive: Key,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKeys").finish_non_exhaustive()
    }
}

/// The side that sent an initiation and waits for the response.
pub struct Initiator {
    state: SymmetricState,
    ephemeral: KeyPair,
    sender: SessionIndex,
}

impl Initiator {
    /// Makes the initiation to `responder`; the response and the data packets come to `sender`.
    ///
    /// `ephemeral` is 32 fresh random bytes, never used again. None if `responder` is no key.
    pub fn start(
        identity: &Identity,
        network: &NetworkKeys,
        responder: &NodeId,
        sender: SessionIndex,
        ephemeral: [u8; 32],
        payload: &[u8; size::INITIATION_PAYLOAD],
    ) -> Option<(Self, [u8; size::INITIATION])> {
        let ephemeral = KeyPair::from_secret(ephemeral);
        let mut packet = [0; size::INITIATION];
        packet[0] = Kind::Initiation as u8;
        packet[field::SENDER].copy_from_slice(&sender.to_bytes());
        let state = noise::write_message_1(
            PROLOGUE,
            identity.key_pair(),
            responder.as_bytes(),
            &ephemeral,
            payload,
            &mut packet[INITIATION_MESSAGE],
        )?;
        set_mac1(&mut packet, network, responder);
        Some((Self { state, ephemeral, sender }, packet))
    }

    /// Reads the response. Whatever `packet` is, this side stays able to take the real one.
    pub fn finish(
        &self,
        identity: &Identity,
        network: &NetworkKeys,
        packet: &[u8; size::RESPONSE],
    ) -> Result<(SessionKeys, [u8; size::RESPONSE_PAYLOAD]), HandshakeError> {
        if !check_mac1(network, &identity.id(), packet) {
            return Err(HandshakeError::Mac);
        }
        if index_at(packet, field::RESPONSE_RECEIVER) != self.sender {
            return Err(HandshakeError::Index);
        }
        let mut payload = [0; size::RESPONSE_PAYLOAD];
        let state = noise::read_message_2(
            &self.state,
            identity.key_pair(),
            &self.ephemeral,
            network.psk(),
            &packet[RESPONSE_MESSAGE],
            &mut payload,
        )?;
        let [send, receive] = state.split();
        Ok((SessionKeys { send, receive }, payload))
    }

    /// What this side calls the session.
    pub fn sender(&self) -> SessionIndex {
        self.sender
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("sender", &self.sender).finish_non_exhaustive()
    }
}

/// An initiation that was read: its sender holds the key of `initiator`, or recorded the packet from who does.
pub struct Received {
    /// Who made it.
    pub initiator: NodeId,
    /// What it carried.
    pub payload: [u8; size::INITIATION_PAYLOAD],
    /// What the initiator calls the session.
    pub sender: SessionIndex,
    message: Message1,
}

impl Received {
    /// Reads an initiation that passed [`check_mac1`].
    pub fn read(
        identity: &Identity,
        _network: &NetworkKeys,
        packet: &[u8; size::INITIATION],
    ) -> Result<Self, HandshakeError> {
        let mut payload = [0; size::INITIATION_PAYLOAD];
        let message =
            noise::read_message_1(PROLOGUE, identity.key_pair(), &packet[INITIATION_MESSAGE], &mut payload)?;
        Ok(Self { initiator: NodeId(message.rs), payload, sender: index_at(packet, field::SENDER), message })
    }

    /// Makes the response; the data packets to us come to `index`. mac2 is left zero.
    ///
    /// `ephemeral` is 32 fresh random bytes, never used again.
    pub fn respond(
        self,
        network: &NetworkKeys,
        index: SessionIndex,
        ephemeral: [u8; 32],
        payload: &[u8; size::RESPONSE_PAYLOAD],
    ) -> Result<(SessionKeys, [u8; size::RESPONSE]), HandshakeError> {
        let ephemeral = KeyPair::from_secret(ephemeral);
        let mut packet = [0; size::RESPONSE];
        packet[0] = Kind::Response as u8;
        packet[field::SENDER].copy_from_slice(&index.to_bytes());
        packet[field::RESPONSE_RECEIVER].copy_from_slice(&self.sender.to_bytes());
        let out = &mut packet[RESPONSE_MESSAGE];
        let state = noise::write_message_2(&self.message, &ephemeral, network.psk(), payload, out)
            .ok_or(HandshakeError::Key)?;
        set_mac1(&mut packet, network, &self.initiator);
        let [receive, send] = state.split();
        Ok((SessionKeys { send, receive }, packet))
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initiator, sender, .. } = self;
        f.debug_struct("Received")
            .field("initiator", initiator)
            .field("sender", sender)
            .finish_non_exhaustive()
    }
}

/// Whether a member of our network made `packet`, an initiation or a response, for the node `own`.
///
/// It says nothing of which member, nor of when: that is the handshake's work, and this its door.
pub fn check_mac1(network: &NetworkKeys, own: &NodeId, packet: &[u8]) -> bool {
    if packet.len() != size::INITIATION && packet.len() != size::RESPONSE {
        return false;
    }
    let (body, mac1, _) = split_macs(packet);
    hash::verify(&*network.mac1_key(own), &[body], mac1)
}

/// Writes the proof of our address, keyed by the `cookie` that the receiver gave us, into an initiation or a response.
///
/// # Panics
///
/// If `packet` is shorter than either.
pub fn set_mac2(packet: &mut [u8], cookie: &[u8; size::MAC]) {
    let (body, mac2) = packet.split_last_chunk_mut().expect("a handshake packet ends in its macs");
    *mac2 = hash::mac(cookie, &[body]);
}

fn set_mac1(packet: &mut [u8], network: &NetworkKeys, receiver: &NodeId) {
    let (body, _, _) = split_macs(packet);
    let mac1 = hash::mac(&*network.mac1_key(receiver), &[body]);
    let at = packet.len() - 2 * size::MAC;
    packet[at..at + size::MAC].copy_from_slice(&mac1);
}

/// What mac1 covers, mac1 and mac2.
fn split_macs(packet: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (body, macs) = packet.split_at(packet.len() - 2 * size::MAC);
    let (mac1, mac2) = macs.split_at(size::MAC);
    (body, mac1, mac2)
}
