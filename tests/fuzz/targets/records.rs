//! Any records from a peer with a true session: what a member of the network may do to another one.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::Unstructured;
use atonce::crypto::network::NetworkKeys;
use atonce::id::ClientId;
use atonce::limits;
use atonce::wire::message::{Read, Records};
use atonce::wire::packet::size;

use super::rig::{Rig, Sent, bytes_to, from, number, pause, piece};
use super::stranger::Stranger;

const APP: ClientId = ClientId(1);
const ROOM: usize = limits::DATAGRAM_BYTES - size::DATA_OVERHEAD;
/// A datagram from an address that proved nothing draws at most a question there and one answer.
const OFF_PATH_FACTOR: usize = 3;

pub fn run(data: &[u8]) {
    let path: SocketAddr = ([10, 0, 0, 2], 28282).into();
    let aside: SocketAddr = ([10, 0, 0, 66], 6666).into();
    let mut rig = Rig::new(NetworkKeys::open(), Vec::new());
    rig.connect(APP);
    for line in [r#"{"op":"listen","topic":"t"}"#, r#"{"op":"watch"}"#] {
        rig.say(APP, line);
    }
    let mut peer = Stranger::new(1, NetworkKeys::open());
    let initiation = &mut peer.begin(&[1; size::INITIATION_PAYLOAD]);
    rig.node.handle_datagram(from(path), initiation, rig.now).unwrap();
    assert!(rig.drain().iter().any(|sent| peer.finish(&sent.bytes)));
    let first = &mut peer.seal(&[]).unwrap();
    rig.node.handle_datagram(from(path), first, rig.now).unwrap();
    readable(&mut peer, rig.drain());

    let mut input = Unstructured::new(data);
    while !input.is_empty() {
        let sent = match number::<u8>(&mut input) % 8 {
            op @ 0..=4 => {
                let remote = if op == 4 { aside } else { path };
                let mut packet = peer.seal(piece(&mut input, ROOM)).unwrap();
                let length = packet.len();
                let _ = rig.node.handle_datagram(from(remote), &mut packet, rig.now);
                let sent = rig.drain();
                assert!(op != 4 || bytes_to(&sent, aside) <= OFF_PATH_FACTOR * length);
                sent
            }
            5 => rig.wait(pause(&mut input)),
            6 => {
                let (ack, full) = (number::<bool>(&mut input), number::<bool>(&mut input));
                let when_full = if full { "drop" } else { "wait" };
                let text = "x".repeat(number::<u16>(&mut input).into());
                let rest =
                    format!(r#""topic":"t","text":"{text}","ack":{ack},"when_full":"{when_full}","id":1}}"#);
                rig.say(APP, &format!(r#"{{"op":"send","to":"{}",{rest}"#, peer.id()));
                rig.say(APP, &format!(r#"{{"op":"publish",{rest}"#));
                rig.drain()
            }
            _ => {
                rig.deaf = !rig.deaf;
                rig.node.handle_written(APP, 0, rig.now);
                rig.drain()
            }
        };
        readable(&mut peer, sent);
    }
    rig.deaf = false;
    rig.say(APP, r#"{"op":"status","id":1}"#);
    rig.say(APP, r#"{"op":"peers","id":2}"#);
    rig.wait(Duration::from_secs(1));
}

/// All that it is told in its session, it can read.
fn readable(peer: &mut Stranger, sent: Vec<Sent>) {
    for mut sent in sent.into_iter().filter(|sent| sent.bytes[0] == 4) {
        let plaintext = peer.session.as_mut().unwrap().open(&mut sent.bytes).unwrap();
        assert!(Records::new(plaintext).all(|read| matches!(read, Ok(Read::Record(_)))));
    }
}
