//! Any TXT record and any advert around it: what parses reads back, and a node takes it as a hint at most.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Unstructured;
use atonce::core::{IpAddrScoped, Sighting};
use atonce::crypto::network::NetworkKeys;
use atonce::id::NodeId;
use atonce::limits;
use atonce::wire::packet::size;
use atonce::wire::txt::Txt;

use super::rig::{Rig, number, pause, piece, private};

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mode: u8 = number(&mut input);
    let network = if mode & 1 == 0 { NetworkKeys::open() } else { private() };
    let mut rig = Rig::new(network.clone(), Vec::new());
    while !input.is_empty() {
        let label = String::from_utf8_lossy(piece(&mut input, 70)).into_owned();
        let port = number(&mut input);
        let made = match number::<u8>(&mut input) % 4 {
            0 => Some(Txt::Open(NodeId(number(&mut input)))),
            1 => Some(Txt::Sealed(network.seal_txt(&NodeId([5; 32]), [6; size::NONCE], &label, port))),
            2 => read(piece(&mut input, 400)),
            _ => {
                rig.node.handle_sighting(Sighting::Lost { label: label.clone() }, rig.now);
                None
            }
        };
        let mut sent = rig.drain();
        if let Some(txt) = made {
            let addrs = (0..number::<u8>(&mut input) % 16).map(|_| address(&mut input)).collect();
            rig.node.handle_sighting(Sighting::Seen { label, port, txt, addrs }, rig.now);
            sent.extend(rig.drain());
            // At most one first message to each address that is looked at.
            let most = limits::LEARNT_CANDIDATES * limits::LEARNT_CANDIDATES;
            assert!(sent.len() <= most, "{} packets", sent.len());
        }
        assert!(sent.iter().all(|sent| (sent.bytes[0], sent.bytes.len()) == (1, size::INITIATION)));
        rig.wait(pause(&mut input));
    }
    assert!(rig.node.known_peers().is_empty());
}

/// The bytes as `key=value` lines.
fn read(bytes: &[u8]) -> Option<Txt> {
    let text = std::str::from_utf8(bytes).ok()?;
    let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let txt =
        Txt::parse(|key| pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)).ok()?;
    let written = txt.properties();
    let again =
        Txt::parse(|key| written.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str()));
    assert_eq!(again, Ok(txt.clone()));
    Some(txt)
}

fn address(input: &mut Unstructured<'_>) -> IpAddrScoped {
    let scope = u32::from(number::<u8>(input));
    let addr = match number::<u8>(input) {
        host @ ..0x80 => IpAddr::from(Ipv4Addr::new(10, 0, 0, host)),
        0x80..0xc0 => IpAddr::from(Ipv4Addr::from_bits(number(input))),
        host @ 0xc0..0xe0 => IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into())),
        _ => IpAddr::from(Ipv6Addr::from_bits(number(input))),
    };
    IpAddrScoped { addr, scope }
}
