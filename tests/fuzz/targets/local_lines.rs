//! Any bytes of an app, cut anywhere: lines, requests, and answers that are lines themselves.

use std::net::SocketAddr;

use arbitrary::Unstructured;
use atonce::core::KnownPeer;
use atonce::crypto::network::NetworkKeys;
use atonce::edge::lines::{Line, Lines};
use atonce::id::ClientId;
use atonce::limits;
use atonce::wire::local::{BadLine, Request};

use super::rig::{IDENTITIES, Rig, number, pause, piece};

const APP: ClientId = ClientId(1);

pub fn run(data: &[u8]) {
    let addrs = vec![SocketAddr::from(([10, 0, 0, 2], 28282))];
    let name = "pi".parse().unwrap();
    let known = KnownPeer { id: IDENTITIES[1].id(), name, pinned: true, addrs, last_seen: None };
    let mut rig = Rig::new(NetworkKeys::open(), vec![known]);
    rig.connect(APP);
    let mut input = Unstructured::new(data);
    let (mut lines, mut kept) = (Lines::new(), Vec::new());
    while !input.is_empty() {
        match number::<u8>(&mut input) % 8 {
            // A long line in few bytes.
            0 => {
                let length = usize::from(number::<u8>(&mut input)) * 600;
                kept.resize(kept.len() + length, number::<u8>(&mut input));
            }
            1 => {
                rig.deaf = !rig.deaf;
                rig.node.handle_written(APP, 0, rig.now);
            }
            2 => drop(rig.wait(pause(&mut input))),
            3 if rig.reply_to.is_some() => {
                let reply_to = rig.reply_to.unwrap();
                kept.extend_from_slice(format!("{{\"op\":\"reply\",\"reply_to\":\"{reply_to}\",").as_bytes());
                kept.extend_from_slice(b"\"text\":\"\",\"id\":1}\n");
            }
            _ => kept.extend_from_slice(piece(&mut input, 0xffff)),
        }
        // What it reads makes room for what it asked.
        rig.drain();
        loop {
            let used = hand_over(&mut rig, &mut lines, &kept);
            kept.drain(..used);
            rig.drain();
            if used == 0 {
                break;
            }
        }
        assert!(kept.len() < limits::LINE_BYTES || !rig.node.accepts(APP));
    }
}

/// As `edge::local` does it.
fn hand_over(rig: &mut Rig, lines: &mut Lines, data: &[u8]) -> usize {
    let mut at = 0;
    while rig.node.accepts(APP) {
        let request = match lines.next(data, &mut at) {
            Some(Line::Whole(line)) => {
                assert!(!line.is_empty() && line.len() < limits::LINE_BYTES && !line.contains(&b'\n'));
                Request::parse(line)
            }
            Some(Line::TooLong) => Err(BadLine::too_long()),
            None => break,
        };
        rig.node.handle_request(APP, request, rig.now);
    }
    at
}
