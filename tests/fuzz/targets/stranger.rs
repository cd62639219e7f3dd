//! Another node, by hand: it makes the packets of a handshake and of a session, right or wrong as it is told.

use atonce::crypto::handshake::{Initiator, Received};
use atonce::crypto::network::NetworkKeys;
use atonce::crypto::session::Session;
use atonce::id::{NodeId, SessionIndex};
use atonce::wire::packet::{field, size};
use blake2::digest::consts::{U16, U32};
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2sMac, digest};

use super::rig::{IDENTITIES, OWN};

/// One of [`IDENTITIES`], as the other side of the node under test.
pub struct Stranger {
    who: usize,
    network: NetworkKeys,
    begun: Option<Initiator>,
    pub session: Option<Session>,
}

impl Stranger {
    pub fn new(who: usize, network: NetworkKeys) -> Self {
        Self { who, network, begun: None, session: None }
    }

    pub fn id(&self) -> NodeId {
        IDENTITIES[self.who].id()
    }

    /// A right initiation with any payload.
    pub fn begin(&mut self, payload: &[u8; size::INITIATION_PAYLOAD]) -> [u8; size::INITIATION] {
        let index = SessionIndex::from_bits(self.who as u32);
        let own = IDENTITIES[OWN].id();
        let begun = Initiator::start(&IDENTITIES[self.who], &self.network, &own, index, [9; 32], payload);
        let (initiator, packet) = begun.unwrap();
        self.begun = Some(initiator);
        packet
    }

    /// Takes the response, if it is one to us.
    pub fn finish(&mut self, packet: &[u8]) -> bool {
        let (Some(begun), Ok(response)) = (&self.begun, packet.try_into()) else { return false };
        let finished = begun.finish(&IDENTITIES[self.who], &self.network, response);
        let Ok((keys, _)) = finished else { return false };
        self.session = Some(Session::new(keys, index_at(packet)));
        true
    }

    /// A right response with any payload, if the initiation is to us.
    pub fn answer(
        &mut self,
        packet: &[u8],
        payload: &[u8; size::RESPONSE_PAYLOAD],
    ) -> Option<[u8; size::RESPONSE]> {
        let initiation = packet.try_into().ok()?;
        let received = Received::read(&IDENTITIES[self.who], initiation).ok()?;
        let remote = received.sender;
        let index = SessionIndex::from_bits(self.who as u32);
        let (keys, response) = received.respond(&self.network, index, [8; 32], payload).ok()?;
        self.session = Some(Session::new(keys, remote));
        Some(response)
    }

    /// A data packet with any inside, once there is a session.
    pub fn seal(&mut self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let session = self.session.as_mut()?;
        let mut packet = vec![0; size::DATA_HEADER];
        packet.extend_from_slice(plaintext);
        session.seal(&mut packet, 0).ok()?;
        Some(packet)
    }
}

/// Which session of its sender a response names.
fn index_at(packet: &[u8]) -> SessionIndex {
    let mut bytes = [0; 3];
    bytes.copy_from_slice(&packet[field::SENDER]);
    SessionIndex::from_bytes(bytes)
}

/// Writes a right mac1 of the open network for the node under test (protocol.md, 1.1 and 3.5): the door is passed,
/// whatever is behind it.
pub fn set_mac1(packet: &mut [u8]) {
    let key = derive(&derive(b"atonce open network known to all", b"atonce 1 mac1"), &IDENTITIES[OWN].id().0);
    let at = packet.len() - 2 * size::MAC;
    let mut mac = Blake2sMac::<U16>::new_from_slice(&key).unwrap();
    digest::Update::update(&mut mac, &packet[..at]);
    packet[at..at + size::MAC].copy_from_slice(&mac.finalize().into_bytes());
}

fn derive(key: &[u8; 32], label: &[u8]) -> [u8; 32] {
    let mut mac = Blake2sMac::<U32>::new(key.into());
    digest::Update::update(&mut mac, label);
    mac.finalize().into_bytes().into()
}
