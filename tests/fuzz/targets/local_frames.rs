//! Any bytes of an app in binary mode, cut anywhere: frames, requests, and answers that are frames themselves.

use std::net::SocketAddr;

use arbitrary::Unstructured;
use atonce::core::KnownPeer;
use atonce::crypto::network::NetworkKeys;
use atonce::edge::frames::{Cut, Frames};
use atonce::id::{AppChannel, ClientId};
use atonce::limits;
use atonce::wire::local::BadLine;
use atonce::wire::local::frame::{Frame, Header, kind};

use super::rig::{IDENTITIES, Rig, number, pause, piece};

const APP: ClientId = ClientId(1);
/// Another one, in lines, to whom everything is told too.
const LISTENER: ClientId = ClientId(2);

pub fn run(data: &[u8]) {
    let addrs = vec![SocketAddr::from(([10, 0, 0, 2], 28282))];
    let name = "pi".parse().unwrap();
    let known = KnownPeer { id: IDENTITIES[1].id(), name, pinned: true, addrs, last_seen: None };
    let mut rig = Rig::new(NetworkKeys::open(), vec![known]);
    rig.connect_in_frames(APP);
    rig.connect(LISTENER);
    rig.say(LISTENER, r#"{"op":"listen","topic":"t"}"#);
    let mut input = Unstructured::new(data);
    let (mut frames, mut kept) = (Frames::new(), Vec::new());
    while !input.is_empty() {
        match number::<u8>(&mut input) % 8 {
            // A long body in few bytes.
            0 => {
                let length = usize::from(number::<u8>(&mut input)) * 600;
                kept.resize(kept.len() + length, number::<u8>(&mut input));
            }
            1 => {
                rig.deaf = !rig.deaf;
                rig.node.handle_written(APP, 0, rig.now);
                rig.node.handle_written(LISTENER, 0, rig.now);
            }
            2 => drop(rig.wait(pause(&mut input))),
            3 => kept.extend_from_slice(piece(&mut input, 0xffff)),
            4 => {
                if let Some(reply_to) = rig.reply_to {
                    let body = [&reply_to.to_bytes()[..], &[0; 4], piece(&mut input, 0xff)].concat();
                    kept.extend(frame(kind::REPLY, number(&mut input), 0, 1, &body));
                }
            }
            // A right header, so that the bytes behind it are a body.
            _ => {
                let (kind, flags): (u8, u8) = (number(&mut input), number(&mut input));
                let (chan, id) = (number::<u8>(&mut input), number::<u8>(&mut input));
                let body = piece(&mut input, 0xffff);
                kept.extend(frame(kind % 8, flags % 8, chan.into(), id.into(), body));
            }
        }
        // What it reads makes room for what it asked.
        rig.drain();
        loop {
            let used = hand_over(&mut rig, &mut frames, &kept);
            kept.drain(..used);
            rig.drain();
            if used == 0 {
                break;
            }
        }
        assert!(kept.len() < Header::BYTES + limits::FRAME_BODY_BYTES || !rig.node.accepts(APP));
    }
}

fn frame(kind: u8, flags: u8, chan: u16, id: u64, body: &[u8]) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).unwrap();
    let header = Header { body_bytes, kind, flags, chan: AppChannel(chan), id };
    assert_eq!(Header::from_bytes(&header.to_bytes()), header);
    [&header.to_bytes()[..], body].concat()
}

/// As `edge::local` does it.
fn hand_over(rig: &mut Rig, frames: &mut Frames, data: &[u8]) -> usize {
    let mut at = 0;
    while rig.node.accepts(APP) {
        let frame = match frames.next(data, &mut at) {
            Some(Cut::Whole(header, body)) => {
                assert!(body.len() <= limits::FRAME_BODY_BYTES && body.len() == header.body_bytes as usize);
                Frame::parse(header, body)
            }
            Some(Cut::TooLong(header)) => Err(BadLine::long_body(header)),
            None => break,
        };
        rig.node.handle_frame(APP, frame, rig.now);
    }
    at
}
