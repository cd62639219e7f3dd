//! What a message costs: no allocation on its way from app to app in either mode of the socket, and few datagrams.
//!
//! Two nodes, wired to each other without a network; the allocator counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use allocation_counter::measure;
use atonce::core::{Config, Destination, Event, InterfaceAddr, Node, Owner, Route};
use atonce::crypto::identity::Identity;
use atonce::crypto::network::NetworkKeys;
use atonce::id::{AppChannel, ClientId};
use atonce::limits::LISTENER_GRACE;
use atonce::time::Instant;
use atonce::wire::local::Request;
use atonce::wire::local::frame::{Frame, Header, flag, kind};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

const APP: ClientId = ClientId(1);
const SEND: &[u8] = br#"{"op":"send","id":7,"to":"b","topic":"sensor","text":"21.5 degrees"}"#;
const SEND_NO_ACK: &[u8] = br#"{"op":"send","to":"b","topic":"sensor","text":"21.5 degrees","ack":false}"#;
const PUBLISH: &[u8] = br#"{"op":"publish","topic":"sensor","text":"21.5 degrees"}"#;

#[test]
fn an_acknowledged_message_allocates_nothing_from_app_to_app_and_back() {
    let mut pair = Pair::connected();
    pair.warm_up(SEND);
    let before = pair.delivered;
    let info = measure(|| (0..1000).for_each(|_| pair.say(SEND)));
    assert_eq!(pair.delivered - before, 1000);
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn an_unacknowledged_message_allocates_nothing_from_app_to_app() {
    let mut pair = Pair::connected();
    pair.warm_up(SEND_NO_ACK);
    let before = pair.delivered;
    let info = measure(|| (0..1000).for_each(|_| pair.say(SEND_NO_ACK)));
    assert_eq!(pair.delivered - before, 1000);
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn a_publication_allocates_nothing_from_app_to_app() {
    let mut pair = Pair::connected();
    pair.warm_up(PUBLISH);
    let before = pair.delivered;
    let info = measure(|| (0..1000).for_each(|_| pair.say(PUBLISH)));
    assert_eq!(pair.delivered - before, 1000);
    assert_eq!(info.count_total, 0, "{info:?}");
}

/// Type, flags, channel and id of a frame, and its body.
type AppFrame = ((u8, u8, u16, u64), &'static [u8]);

const TO_B: AppFrame = ((kind::OPEN, 0, 1, 0), br#"{"to":"b","topic":"sensor"}"#);
const TO_ALL: AppFrame = ((kind::OPEN, 0, 2, 0), br#"{"topic":"sensor"}"#);
const LISTEN: AppFrame = ((kind::REQUEST, 0, 0, 0), br#"{"op":"listen","topic":"sensor"}"#);

#[test]
fn a_message_in_frames_allocates_nothing_from_app_to_app_and_back_acknowledged_or_not() {
    for (flags, chan, id) in [(flag::ACK, 1, 7), (0, 1, 7), (flag::DROP, 1, 0), (0, 2, 7), (0, 2, 0)] {
        let mut pair = Pair::connected();
        pair.put_preface(0);
        pair.put_preface(1);
        pair.put(1, LISTEN);
        pair.put(0, TO_B);
        pair.put(0, TO_ALL);
        let send: AppFrame = ((kind::SEND, flags, chan, id), b"\xff 21.5 degrees");
        for _ in 0..1000 {
            pair.put(0, send);
            pair.settle();
        }
        let before = pair.delivered;
        let info = measure(|| {
            for _ in 0..1000 {
                pair.put(0, send);
                pair.settle();
            }
        });
        assert_eq!(pair.delivered - before, 1000);
        assert_eq!(info.count_total, 0, "{send:?} {info:?}");
    }
}

#[test]
fn bytes_that_are_no_text_allocate_nothing_in_base64() {
    let mut pair = Pair::connected();
    pair.put_preface(0);
    pair.put(0, TO_B);
    let send: AppFrame = ((kind::SEND, flag::ACK, 1, 7), b"\xff\xfe\xfd");
    let say = |pair: &mut Pair| {
        pair.put(0, send);
        pair.settle();
    };
    (0..1000).for_each(|_| say(&mut pair));
    let before = pair.delivered;
    let info = measure(|| (0..1000).for_each(|_| say(&mut pair)));
    assert_eq!(pair.delivered - before, 1000);
    assert_eq!(info.count_total, 0, "{info:?}");
}

#[test]
fn messages_that_are_read_together_share_datagrams() {
    let mut pair = Pair::connected();
    pair.warm_up(SEND_NO_ACK);
    let (delivered, datagrams) = (pair.delivered, pair.datagrams);
    for _ in 0..256 {
        pair.request(SEND_NO_ACK);
    }
    pair.settle();
    assert_eq!(pair.delivered - delivered, 256);
    assert!(pair.datagrams - datagrams <= 8, "{} datagrams", pair.datagrams - datagrams);
}

/// Node `a` with an app that sends, node `b` with an app that listens to `sensor`.
struct Pair {
    nodes: [Node; 2],
    now: Instant,
    buffer: Vec<u8>,
    flying: VecDeque<(usize, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    delivered: usize,
    datagrams: usize,
    in_frames: [bool; 2],
}

impl Pair {
    fn connected() -> Self {
        let now = Instant::from_origin(Duration::from_secs(1000));
        let nodes = [0, 1].map(|which| {
            let config = Config {
                name: ["a", "b"][which].parse().unwrap(),
                network: NetworkKeys::open().into(),
                network_source: None,
                udp: vec![addr(which)],
                rendezvous: Vec::new(),
                known: Vec::new(),
                mdns: false,
                hello: true,
                relay: true,
                birthday_punch: true,
                metered: false,
            };
            let seed = u64::try_from(which).unwrap();
            let rng = ChaCha20Rng::seed_from_u64(seed);
            let identity = Identity::generate(&mut ChaCha20Rng::seed_from_u64(seed + 10));
            let mut node = Node::new(config, identity, Box::new(rng), now);
            let eth0 = InterfaceAddr {
                name: "eth0".into(),
                index: 2,
                addr: addr(which).ip(),
                prefix: 24,
                point_to_point: false,
                wireless: false,
                mtu: None,
            };
            node.handle_interfaces(&[eth0], now);
            node.handle_connect(APP, Owner { uid: 0, admin: true }, now).unwrap();
            node
        });
        let (flying, spare, buffer) = (VecDeque::new(), Vec::new(), Vec::new());
        let in_frames = [false; 2];
        let mut pair = Self { nodes, now, buffer, flying, spare, delivered: 0, datagrams: 0, in_frames };
        let listen = Request::parse(br#"{"op":"listen","topic":"sensor"}"#);
        pair.nodes[1].handle_request(APP, listen, now);
        // The hello repeats for 1.4 s; afterwards both know each other and their topics. And when nobody else is expected
        // any more, no publication is kept for those who may come.
        let settled = pair.now + LISTENER_GRACE + Duration::from_millis(500);
        while pair.now < settled {
            pair.now = pair.now + Duration::from_millis(10);
            for node in &mut pair.nodes {
                node.handle_timeout(pair.now);
            }
            pair.settle();
        }
        pair
    }

    /// Lets every buffer and pool grow to the size that it needs.
    fn warm_up(&mut self, line: &[u8]) {
        (0..1000).for_each(|_| self.say(line));
    }

    /// The app of `a` writes a line, and everything that follows happens.
    fn say(&mut self, line: &[u8]) {
        self.request(line);
        self.settle();
    }

    fn request(&mut self, line: &[u8]) {
        self.nodes[0].handle_request(APP, Request::parse(line), self.now);
    }

    /// The app of that node speaks in frames from now on.
    fn put_preface(&mut self, which: usize) {
        self.in_frames[which] = true;
        self.nodes[which].handle_preface(APP, self.now);
        self.settle();
    }

    fn put(&mut self, which: usize, (head, body): AppFrame) {
        let (kind, flags, chan, id) = head;
        let header = Header { body_bytes: body.len() as u32, kind, flags, chan: AppChannel(chan), id };
        self.nodes[which].handle_frame(APP, Frame::parse(header, body), self.now);
    }

    fn settle(&mut self) {
        loop {
            for which in 0..2 {
                self.drain(which);
            }
            let Some((to, mut datagram)) = self.flying.pop_front() else { return };
            self.now = self.now + Duration::from_micros(100);
            let via = Route { local: Some(addr(to).ip()), ..Route::to(addr(1 - to)) };
            let _ = self.nodes[to].handle_datagram(via, &mut datagram, self.now);
            self.spare.push(datagram);
        }
    }

    fn drain(&mut self, which: usize) {
        let node = &mut self.nodes[which];
        while let Some(event) = node.poll_event() {
            if let Event::Output(client) = event {
                let output = node.output(client);
                if which == 1 && self.in_frames[1] {
                    self.delivered += messages_in_frames(output);
                } else if which == 1 {
                    self.delivered +=
                        output.split(|byte| *byte == b'\n').filter(|line| is_message(line)).count();
                }
                let bytes = output.len();
                node.handle_written(client, bytes, self.now);
            }
        }
        while let Some(transmit) = node.poll_transmit(&mut self.buffer) {
            for datagram in self.buffer.chunks(transmit.segment_bytes) {
                let is_for_us = match transmit.to {
                    Destination::One(route) => route.remote == addr(1 - which),
                    Destination::Everyone | Destination::Groups => true,
                };
                if is_for_us {
                    let mut copy = self.spare.pop().unwrap_or_default();
                    copy.clear();
                    copy.extend_from_slice(datagram);
                    self.flying.push_back((1 - which, copy));
                    self.datagrams += 1;
                }
            }
        }
    }
}

fn addr(which: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, [1, 2][which]], 28282))
}

fn is_message(line: &[u8]) -> bool {
    line.starts_with(br#"{"ev":"message""#)
}

/// How many of these whole frames are messages.
fn messages_in_frames(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((head, rest)) = bytes.split_first_chunk() {
        let header = Header::from_bytes(head);
        count += usize::from(header.kind == kind::MESSAGE);
        bytes = &rest[header.body_bytes as usize..];
    }
    count
}
