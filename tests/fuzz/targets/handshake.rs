//! Forged and damaged handshake packets, for both sides: a refused one changes nothing, and the true one counts still.

use arbitrary::Unstructured;
use atonce::crypto::handshake::{Initiator, Received, check_mac1};
use atonce::crypto::network::NetworkKeys;
use atonce::crypto::session::Session;
use atonce::id::SessionIndex;
use atonce::wire::packet::{field, size};

use super::rig::{IDENTITIES, OWN, number, piece};
use super::stranger::set_mac1;

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let network = NetworkKeys::open();
    let (own, other) = (&IDENTITIES[OWN], &IDENTITIES[1]);
    let (index, back) = (SessionIndex::from_bits(number(&mut input)), SessionIndex::from_bits(5));
    let question: [u8; size::INITIATION_PAYLOAD] = number(&mut input);
    let (initiator, initiation) =
        Initiator::start(other, &network, &own.id(), index, [3; 32], &question).unwrap();

    let mut forged = initiation;
    damage(&mut input, &mut forged);
    if number(&mut input) {
        set_mac1(&mut forged);
    }
    let door = check_mac1(&network, &own.id(), &forged);
    let body = field::INITIATION_EPHEMERAL.start..field::INITIATION_PAYLOAD.end;
    let read = Received::read(own, &forged);
    assert_eq!(read.is_ok(), forged[body.clone()] == initiation[body]);
    let mut sealed = forged;
    set_mac1(&mut sealed);
    assert_eq!(door, sealed == forged);

    let received = Received::read(own, &initiation).unwrap();
    assert_eq!((received.payload, received.initiator, received.sender), (question, other.id(), index));
    let (keys, response) = received.respond(&network, back, [4; 32], &number(&mut input)).unwrap();
    let mut ours = Session::new(keys, index);

    let mut forged = response;
    damage(&mut input, &mut forged);
    let mac2 = field::RESPONSE_MAC2;
    let whole = forged[..mac2.start] == response[..mac2.start];
    assert_eq!(initiator.finish(other, &network, &forged).is_ok(), whole);
    if let Ok(any) = piece(&mut input, size::RESPONSE).try_into() {
        assert!(initiator.finish(other, &network, any).is_err() || *any == response);
    }
    let (keys, _) = initiator.finish(other, &network, &response).unwrap();
    let mut theirs = Session::new(keys, back);

    let mut packet = vec![0; size::DATA_HEADER];
    packet.extend_from_slice(piece(&mut input, 100));
    let text = packet[size::DATA_HEADER..].to_vec();
    theirs.seal(&mut packet, 0).unwrap();
    let mut forged = packet.clone();
    damage(&mut input, &mut forged);
    if forged != packet {
        assert!(ours.open(&mut forged).is_err());
    }
    assert!(ours.open(&mut input.take_rest().to_vec()).is_err());
    let mut again = packet.clone();
    assert_eq!(ours.open(&mut packet), Ok(&text[..]));
    assert!(ours.open(&mut again).is_err());
}

/// Changes bytes at places that the input names.
fn damage(input: &mut Unstructured<'_>, packet: &mut [u8]) {
    for _ in 0..number::<u8>(input) % 4 {
        let at = usize::from(number::<u8>(input)) % packet.len();
        packet[at] ^= number::<u8>(input);
    }
}
