//! Any datagrams from anywhere, in any order and at any time: true ones, forged ones, and those of a node that is
//! scripted by the input. None makes a node send much, and none that is dropped changes it.

use std::net::SocketAddr;

use arbitrary::Unstructured;
use atonce::core::{Destination, Dropped};
use atonce::crypto::network::{NetworkKeys, NetworkKind};
use atonce::id::NodeId;
use atonce::limits;
use atonce::wire::packet::{field, size};

use super::rig::{IDENTITIES, Rig, Sent, bytes_to, from, number, pause, piece, private};
use super::stranger::{Stranger, set_mac1};

/// Where datagrams come from: two on our link, one behind a router, one of the internet, this host, the configured one.
const SOURCES: [([u8; 4], u16); 6] = [
    ([10, 0, 0, 2], 28282),
    ([10, 0, 0, 66], 6666),
    ([10, 0, 1, 2], 28282),
    ([8, 8, 8, 8], 28282),
    ([127, 0, 0, 1], 9),
    ([10, 0, 0, 3], 28282),
];
const CONFIGURED: usize = 5;
/// A hello draws a first message: the only answer that is longer than what it answers.
const FACTOR: usize = size::INITIATION.div_ceil(size::HELLO);

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let network = if number(&mut input) { NetworkKeys::open() } else { private() };
    let mut rig = Rig::new(network.clone(), Vec::new());
    rig.node.handle_static_peers(&[SOURCES[CONFIGURED].into()], rig.now);
    let mut world = World {
        strangers: [1, 2, 3].map(|who| Stranger::new(who, NetworkKeys::open())),
        sent: rig.drain(),
        heard: Vec::new(),
        proved: Vec::new(),
        initiations: 0,
    };
    while !input.is_empty() {
        if number::<u8>(&mut input).is_multiple_of(8) {
            let sent = rig.wait(pause(&mut input));
            world.keep(&rig, sent);
            continue;
        }
        let remote = SocketAddr::from(SOURCES[usize::from(number::<u8>(&mut input)) % SOURCES.len()]);
        let Some(datagram) = world.make(&mut input, remote) else { continue };
        let kind = datagram.first().copied().unwrap_or(0);
        world.heard.push(datagram.clone());
        let (known, due) = (rig.node.known_peers(), rig.node.poll_timeout());
        let outcome = rig.node.handle_datagram(from(remote), &mut datagram.clone(), rig.now);
        let sent = rig.drain();
        if outcome.is_err() {
            assert_eq!(rig.node.known_peers(), known);
            // Two refusals are answers too: a cookie under load, and our own first message where both sides begin.
            let answered = matches!(outcome, Err(Dropped::OverLimit | Dropped::Unexpected)) && kind == 1;
            assert!(answered || sent.is_empty() && rig.node.poll_timeout() == due, "{outcome:?}");
        }
        if network.kind() == NetworkKind::Private {
            assert!(outcome.is_err() && sent.is_empty(), "a stranger was answered");
        }
        if outcome.is_ok() && matches!(kind, 2 | 4) {
            world.proved.push(remote);
        }
        if !world.proved.contains(&remote) && remote != SOURCES[CONFIGURED].into() {
            let factor = if kind == 5 { FACTOR } else { 1 };
            assert!(bytes_to(&sent, remote) <= factor * datagram.len());
        }
        world.keep(&rig, sent);
    }
}

struct World {
    strangers: [Stranger; 3],
    /// The last datagrams that the node sent, and those that it was sent.
    sent: Vec<Sent>,
    heard: Vec<Vec<u8>>,
    proved: Vec<SocketAddr>,
    initiations: usize,
}

impl World {
    /// A datagram from `remote`.
    fn make(&mut self, input: &mut Unstructured<'_>, remote: SocketAddr) -> Option<Vec<u8>> {
        let open = NetworkKeys::open();
        let kind: u8 = number(input);
        let who = usize::from(number::<u8>(input));
        let stranger = &mut self.strangers[who % 3];
        let chosen = if who < 0x80 { self.sent.get(who) } else { None }.map(|sent| &sent.bytes[..]);
        Some(match kind % 12 {
            0 => piece(input, limits::DATAGRAM_BYTES + 100).to_vec(),
            1 => {
                let mut packet = vec![1; size::INITIATION];
                packet[1..field::INITIATION_MAC1.start].copy_from_slice(&number::<[u8; 131]>(input));
                set_mac1(&mut packet);
                packet
            }
            2 => stranger.begin(&number(input)).to_vec(),
            3 => {
                let answers = self.sent.iter().map(|sent| &sent.bytes[..]);
                let response = answers.filter(|bytes| bytes[0] == 2).find(|bytes| stranger.finish(bytes));
                response.and_then(|_| stranger.seal(piece(input, 1200)))?
            }
            4 => stranger.seal(piece(input, 1200))?,
            5 => {
                let payload: [[u8; 36]; 2] = number(input);
                let mut asked = self.sent.iter().filter(|sent| sent.bytes[0] == 1);
                let payload = payload.concat().try_into().unwrap();
                asked.find_map(|sent| stranger.answer(&sent.bytes, &payload))?.to_vec()
            }
            6 => {
                let id = if who < 0x80 { stranger.id() } else { NodeId(number(input)) };
                let port = if number(input) { remote.port() } else { number(input) };
                open.seal_hello(&id, number(input), port).to_vec()
            }
            7 => open.ask_whois(number(input)).to_vec(),
            8 => {
                let asked = self.sent.iter().find(|sent| sent.bytes[0] == 6)?;
                let nonce = asked.bytes[field::NONCE].try_into().unwrap();
                open.answer_whois(&nonce, &stranger.id(), number(input)).to_vec()
            }
            9 => self.heard.get(who)?.clone(),
            10 => chosen?.to_vec(),
            _ => {
                let mut packet = chosen.or_else(|| self.heard.get(who).map(|heard| &heard[..]))?.to_vec();
                let at = usize::from(number::<u16>(input)) % packet.len().max(1);
                *packet.get_mut(at)? ^= number::<u8>(input);
                packet
            }
        })
    }

    /// Remembers what the node sent, and counts its first messages (protocol.md, 3.4).
    fn keep(&mut self, rig: &Rig, sent: Vec<Sent>) {
        let seconds = rig.now.since(rig.started).as_secs() as usize + 1;
        let first = |sent: &&Sent| sent.bytes[0] == 1 && matches!(sent.to, Destination::One(_));
        self.initiations += sent.iter().filter(first).count();
        assert!(self.initiations <= (32 + 100 * seconds) * (limits::LEARNT_CANDIDATES + 1));
        self.sent.splice(0..0, sent);
        self.sent.truncate(0x80);
        assert!(IDENTITIES.len() + self.heard.len() >= rig.node.known_peers().len());
    }
}
