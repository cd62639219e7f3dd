//! Two packets that make a session: `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` in WireGuard's shape
//! (protocol.md, 3).
//!
//! ```text
//! Initiator::start  -- initiation -->  check_mac1, Received::read
//!                                          | who is it, may it?
//! Initiator::finish <-- response ---   Received::respond
//! ```
//!
//! mac1 is keyed by the network and the receiver's id: a stranger's packet costs two short hashes and draws
//! no answer. mac2 is keyed by a cookie and asked for under load only ([`cookie`](crate::crypto::cookie)).
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

/// An initiation that was read: its sender holds the key of `initiator`, or recorded the packet from who
/// does.
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
    pub fn read(identity: &Identity, packet: &[u8; size::INITIATION]) -> Result<Self, HandshakeError> {
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

/// Writes the proof of our address, keyed by the `cookie` that the receiver gave us, into an initiation or a
/// response.
///
/// # Panics
///
/// If `packet` is shorter than either.
pub fn set_mac2(packet: &mut [u8], cookie: &[u8; size::MAC]) {
    let (body, mac2) = packet.split_last_chunk_mut().expect("a handshake packet ends in its macs");
    *mac2 = hash::mac(cookie, &[body]).bytes();
}

fn set_mac1(packet: &mut [u8], network: &NetworkKeys, receiver: &NodeId) {
    let (body, _, _) = split_macs(packet);
    let mac1 = hash::mac(&*network.mac1_key(receiver), &[body]);
    let at = packet.len() - 2 * size::MAC;
    packet[at..at + size::MAC].copy_from_slice(&mac1.bytes());
}

/// What mac1 covers, mac1 and mac2.
fn split_macs(packet: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (body, macs) = packet.split_at(packet.len() - 2 * size::MAC);
    let (mac1, mac2) = macs.split_at(size::MAC);
    (body, mac1, mac2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::aead::{Cipher, DataCipher};
    use crate::crypto::network::NetworkSecret;

    const PROTOCOL: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
    const QUESTION: [u8; size::INITIATION_PAYLOAD] = [0x51; size::INITIATION_PAYLOAD];
    const ANSWER: [u8; size::RESPONSE_PAYLOAD] = [0xa5; size::RESPONSE_PAYLOAD];
    const ALICE_EPHEMERAL: [u8; 32] = [3; 32];
    const BOB_EPHEMERAL: [u8; 32] = [4; 32];

    fn alice() -> Identity {
        Identity::from_secret([1; 32])
    }

    fn bob() -> Identity {
        Identity::from_secret([2; 32])
    }

    fn network() -> NetworkKeys {
        NetworkKeys::private(&format!("atonce-secret-{}", "a".repeat(52)).parse::<NetworkSecret>().unwrap())
    }

    fn index(bits: u32) -> SessionIndex {
        SessionIndex::from_bits(bits)
    }

    fn start() -> (Initiator, [u8; size::INITIATION]) {
        Initiator::start(&alice(), &network(), &bob().id(), index(0x030201), ALICE_EPHEMERAL, &QUESTION)
            .unwrap()
    }

    fn respond(initiation: &[u8; size::INITIATION]) -> (SessionKeys, [u8; size::RESPONSE]) {
        let received = Received::read(&bob(), initiation).unwrap();
        received.respond(&network(), index(0x060504), BOB_EPHEMERAL, &ANSWER).unwrap()
    }

    fn finish(
        initiator: &Initiator,
        response: &[u8; size::RESPONSE],
    ) -> Result<[u8; size::RESPONSE_PAYLOAD], HandshakeError> {
        initiator.finish(&alice(), &network(), response).map(|(_, payload)| payload)
    }

    fn oracle<'a>(s: &'a [u8], e: &'a [u8], network: &'a NetworkKeys) -> snow::Builder<'a> {
        let builder = snow::Builder::new(PROTOCOL.parse().unwrap()).fixed_ephemeral_key_for_testing_only(e);
        builder.prologue(PROLOGUE).unwrap().local_private_key(s).unwrap().psk(2, network.psk()).unwrap()
    }

    /// What `cipher` seals without associated data, snow opens, and the other way round.
    fn talks_with(keys: SessionKeys, oracle: &snow::StatelessTransportState) {
        for counter in [0, 1, 1 << 40] {
            let mut sealed = *b"to the oracle";
            let tag = DataCipher::from(keys.send.clone()).seal(counter, &[], &mut sealed);
            let mut opened = [0; 13];
            oracle.read_message(counter, &[&sealed[..], &tag].concat(), &mut opened).unwrap();
            assert_eq!(&opened, b"to the oracle");

            let mut sealed = [0; 15 + size::TAG];
            oracle.write_message(counter, b"from the oracle", &mut sealed).unwrap();
            let (text, tag) = sealed.split_last_chunk_mut().unwrap();
            DataCipher::from(keys.receive.clone()).open(counter, &[], text, tag).unwrap();
            assert_eq!(text, b"from the oracle");
        }
    }

    #[test]
    fn both_sides_get_the_payloads_and_the_same_keys() {
        let (initiator, initiation) = start();
        assert!(check_mac1(&network(), &bob().id(), &initiation));
        let received = Received::read(&bob(), &initiation).unwrap();
        assert_eq!(received.initiator, alice().id());
        assert_eq!(received.payload, QUESTION);
        assert_eq!(received.sender, initiator.sender());
        let (bobs, response) = received.respond(&network(), index(0x060504), BOB_EPHEMERAL, &ANSWER).unwrap();
        let (alices, payload) = initiator.finish(&alice(), &network(), &response).unwrap();
        assert_eq!(payload, ANSWER);
        assert_eq!(alices.send, bobs.receive);
        assert_eq!(alices.receive, bobs.send);
        assert_ne!(alices.send, alices.receive);
        assert_eq!(initiation[..4], [1, 1, 2, 3]);
        assert_eq!(response[..8], [2, 4, 5, 6, 1, 2, 3, 0]);
    }

    #[test]
    fn snow_answers_us_with_our_own_bytes_and_the_same_keys() {
        let (initiator, initiation) = start();
        let (_, ours) = respond(&initiation);

        let (secret, network) = (bob().secret_bytes(), network());
        let mut snow = oracle(&*secret, &BOB_EPHEMERAL, &network).build_responder().unwrap();
        let mut payload = [0; size::INITIATION_PAYLOAD];
        snow.read_message(&initiation[INITIATION_MESSAGE], &mut payload).unwrap();
        assert_eq!(payload, QUESTION);
        assert_eq!(snow.get_remote_static().unwrap(), alice().id().as_bytes());
        let mut response = ours;
        response[RESPONSE_MESSAGE].fill(0);
        snow.write_message(&ANSWER, &mut response[RESPONSE_MESSAGE]).unwrap();
        assert_eq!(response, ours);

        let (keys, payload) = initiator.finish(&alice(), &network, &response).unwrap();
        assert_eq!(payload, ANSWER);
        talks_with(keys, &snow.into_stateless_transport_mode().unwrap());
    }

    #[test]
    fn snow_asks_us_with_our_own_bytes_and_the_same_keys() {
        let (_, ours) = start();

        let (secret, network, responder) = (alice().secret_bytes(), network(), bob().id());
        let builder = oracle(&*secret, &ALICE_EPHEMERAL, &network);
        let mut snow = builder.remote_public_key(responder.as_bytes()).unwrap().build_initiator().unwrap();
        let mut initiation = ours;
        initiation[INITIATION_MESSAGE].fill(0);
        snow.write_message(&QUESTION, &mut initiation[INITIATION_MESSAGE]).unwrap();
        assert_eq!(initiation, ours);

        let (keys, response) = respond(&initiation);
        let mut payload = [0; size::RESPONSE_PAYLOAD];
        snow.read_message(&response[RESPONSE_MESSAGE], &mut payload).unwrap();
        assert_eq!(payload, ANSWER);
        talks_with(keys, &snow.into_stateless_transport_mode().unwrap());
    }

    #[test]
    fn a_flipped_bit_before_mac2_is_refused_by_mac1() {
        let (initiator, initiation) = start();
        let (_, response) = respond(&initiation);
        for bit in 0..field::INITIATION_MAC2.start * 8 {
            let mut forged = initiation;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!check_mac1(&network(), &bob().id(), &forged), "bit {bit} of the initiation");
        }
        for bit in 0..field::RESPONSE_MAC2.start * 8 {
            let mut forged = response;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(finish(&initiator, &forged), Err(HandshakeError::Mac), "bit {bit} of the response");
        }
        assert_eq!(finish(&initiator, &response), Ok(ANSWER));
    }

    #[test]
    fn a_flipped_bit_under_a_members_mac1_is_refused_and_the_real_response_is_taken_afterwards() {
        let (initiator, initiation) = start();
        let (_, response) = respond(&initiation);
        for bit in INITIATION_MESSAGE.start * 8..INITIATION_MESSAGE.end * 8 {
            let mut forged = initiation;
            forged[bit / 8] ^= 1 << (bit % 8);
            let read = Received::read(&bob(), &forged);
            assert_eq!(read.err(), Some(HandshakeError::Tag), "bit {bit} of the initiation");
        }
        for bit in RESPONSE_MESSAGE.start * 8..RESPONSE_MESSAGE.end * 8 {
            let mut forged = response;
            forged[bit / 8] ^= 1 << (bit % 8);
            set_mac1(&mut forged, &network(), &alice().id());
            assert_eq!(finish(&initiator, &forged), Err(HandshakeError::Tag), "bit {bit} of the response");
        }
        assert_eq!(finish(&initiator, &response), Ok(ANSWER));
        assert_eq!(finish(&initiator, &response), Ok(ANSWER));
    }

    #[test]
    fn a_response_to_another_initiation_of_ours_is_refused() {
        let (initiator, initiation) = start();
        let (_, response) = respond(&initiation);
        let (other, _) =
            Initiator::start(&alice(), &network(), &bob().id(), index(9), [5; 32], &QUESTION).unwrap();
        assert_eq!(finish(&other, &response), Err(HandshakeError::Index));
        // Even if both had the same index: the keys are others.
        let (same, _) =
            Initiator::start(&alice(), &network(), &bob().id(), initiator.sender(), [5; 32], &QUESTION)
                .unwrap();
        assert_eq!(finish(&same, &response), Err(HandshakeError::Tag));
    }

    #[test]
    fn mac1_is_for_one_network_and_one_receiver_and_for_handshake_packets_only() {
        let (_, initiation) = start();
        let (_, response) = respond(&initiation);
        assert!(check_mac1(&network(), &bob().id(), &initiation));
        assert!(check_mac1(&network(), &alice().id(), &response));
        assert!(!check_mac1(&NetworkKeys::open(), &bob().id(), &initiation));
        assert!(!check_mac1(&NetworkKeys::open(), &alice().id(), &response));
        assert!(!check_mac1(&network(), &alice().id(), &initiation));
        assert!(!check_mac1(&network(), &bob().id(), &response));
        for length in 0..size::INITIATION {
            assert!(!check_mac1(&network(), &bob().id(), &initiation[..length]), "{length}");
        }
    }

    #[test]
    fn an_initiation_for_somebody_else_is_refused() {
        let (_, initiation) = start();
        let carol = Identity::from_secret([9; 32]);
        assert_eq!(Received::read(&carol, &initiation).err(), Some(HandshakeError::Tag));
    }

    #[test]
    fn a_responder_of_another_network_who_passes_mac1_has_the_wrong_psk() {
        let (initiator, initiation) = start();
        let received = Received::read(&bob(), &initiation).unwrap();
        let (_, mut response) =
            received.respond(&NetworkKeys::open(), index(1), BOB_EPHEMERAL, &ANSWER).unwrap();
        assert_eq!(finish(&initiator, &response), Err(HandshakeError::Mac));
        set_mac1(&mut response, &network(), &alice().id());
        assert_eq!(finish(&initiator, &response), Err(HandshakeError::Tag));
    }

    #[test]
    fn a_key_of_zeros_is_refused_wherever_it_stands() {
        let nobody = NodeId([0; 32]);
        assert!(
            Initiator::start(&alice(), &network(), &nobody, index(1), ALICE_EPHEMERAL, &QUESTION).is_none()
        );
        let (initiator, initiation) = start();
        let (_, mut response) = respond(&initiation);
        let mut forged = initiation;
        forged[field::INITIATION_EPHEMERAL].fill(0);
        assert_eq!(Received::read(&bob(), &forged).err(), Some(HandshakeError::Key));
        response[field::RESPONSE_EPHEMERAL].fill(0);
        set_mac1(&mut response, &network(), &alice().id());
        assert_eq!(finish(&initiator, &response), Err(HandshakeError::Key));
    }

    #[test]
    fn mac2_changes_nothing_but_itself() {
        let (_, initiation) = start();
        assert_eq!(initiation[field::INITIATION_MAC2], [0; size::MAC]);
        let (_, response) = respond(&initiation);
        assert_eq!(response[field::RESPONSE_MAC2], [0; size::MAC]);
        let mut proved = initiation;
        set_mac2(&mut proved, &[1; size::MAC]);
        assert_eq!(proved[..field::INITIATION_MAC2.start], initiation[..field::INITIATION_MAC2.start]);
        assert_ne!(proved[field::INITIATION_MAC2], initiation[field::INITIATION_MAC2]);
        assert!(check_mac1(&network(), &bob().id(), &proved));
    }

    #[test]
    fn nothing_that_is_printed_tells_a_key() {
        let (initiator, initiation) = start();
        let received = Received::read(&bob(), &initiation).unwrap();
        let id = alice().id().short();
        assert_eq!(
            format!("{received:?}"),
            format!("Received {{ initiator: {id}, sender: SessionIndex(197121), .. }}")
        );
        assert_eq!(format!("{initiator:?}"), "Initiator { sender: SessionIndex(197121), .. }");
        let (keys, _) = received.respond(&network(), index(1), BOB_EPHEMERAL, &ANSWER).unwrap();
        assert_eq!(format!("{keys:?}"), "SessionKeys { .. }");
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_the_real_response_is_taken_afterwards(
            initiation in proptest::collection::vec(0_u8.., size::INITIATION),
            response in proptest::collection::vec(0_u8.., size::RESPONSE),
            any_length in proptest::collection::vec(0_u8.., 0..300),
        ) {
            prop_assert!(!check_mac1(&network(), &bob().id(), &any_length));
            prop_assert!(!check_mac1(&network(), &bob().id(), &initiation));
            prop_assert!(Received::read(&bob(), &initiation.try_into().unwrap()).is_err());
            let (initiator, ours) = start();
            let mut response: [u8; size::RESPONSE] = response.try_into().unwrap();
            prop_assert_eq!(finish(&initiator, &response), Err(HandshakeError::Mac));
            response[field::RESPONSE_RECEIVER].copy_from_slice(&initiator.sender().to_bytes());
            set_mac1(&mut response, &network(), &alice().id());
            prop_assert_eq!(finish(&initiator, &response), Err(HandshakeError::Tag));
            prop_assert_eq!(finish(&initiator, &respond(&ours).1), Ok(ANSWER));
        }
    }
}
