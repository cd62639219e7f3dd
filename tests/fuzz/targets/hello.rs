//! Any hello from anywhere: at most one first message to where it came from, and none for strangers.

use std::net::SocketAddr;

use arbitrary::Unstructured;
use atonce::core::Destination;
use atonce::crypto::network::NetworkKeys;
use atonce::id::NodeId;
use atonce::wire::packet::size;

use super::rig::{IDENTITIES, OWN, Rig, from, number, private};

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mode: u8 = number(&mut input);
    let network = if mode & 1 == 0 { NetworkKeys::open() } else { private() };
    let sender = if mode & 2 == 0 { NetworkKeys::open() } else { private() };
    let member = network.kind() == sender.kind();
    let ip = [[10, 0, 0, 2], [10, 0, 1, 2], [8, 8, 8, 8], [127, 0, 0, 1]][usize::from(mode >> 2) % 4];
    let near = ip != [10, 0, 1, 2] && ip != [8, 8, 8, 8];
    let remote = SocketAddr::from((ip, 28282));

    let id = if mode & 16 == 0 { NodeId(number(&mut input)) } else { IDENTITIES[OWN].id() };
    let port = if mode & 32 == 0 { 28282 } else { number(&mut input) };
    let mut packet = sender.seal_hello(&id, number(&mut input), port);
    assert_eq!(network.open_hello(&packet), member.then_some((id, port)));
    let damage: [u8; size::HELLO] = number(&mut input);
    for (byte, damage) in packet.iter_mut().zip(damage) {
        *byte ^= damage;
    }

    let mut rig = Rig::new(network, Vec::new());
    let (known, due) = (rig.node.known_peers(), rig.node.poll_timeout());
    let heard = rig.node.handle_datagram(from(remote), &mut packet, rig.now);
    let sent = rig.drain();
    let right = member && near && id != IDENTITIES[OWN].id() && port == 28282;
    let whole = damage == [0; size::HELLO];
    assert_eq!(heard.is_ok(), right && whole, "{heard:?}");
    assert_eq!(rig.node.known_peers(), known);
    if heard.is_err() {
        assert!(sent.is_empty() && rig.node.poll_timeout() == due);
    }
    assert!(sent.len() <= 1);
    for sent in sent {
        assert_eq!((sent.bytes[0], sent.bytes.len()), (1, size::INITIATION));
        assert!(matches!(sent.to, Destination::One(route) if route.remote == remote));
    }
}
