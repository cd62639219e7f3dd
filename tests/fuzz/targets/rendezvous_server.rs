//! Any datagrams at a rendezvous server, in any order and at any time: true ones of a few members, damaged ones,
//! repeated ones from anywhere, and garbage. None gets a longer answer, and nobody but those members is kept.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::Unstructured;
use atonce::crypto::namespace::{NamespaceKeys, ServerSecret};
use atonce::route::{OwnPort, Route};
use atonce::server::{Config, SECOND_PORT, Secrets, Server};
use atonce::time::Instant;
use atonce::wire::rendezvous::{Day, Kind, size};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use super::member::{Member, network};
use super::rig::{number, pause, piece};

const DAY: Day = Day(20_000);
const MEMBERS: u32 = 4;
/// Two networks: a public key costs more than all else here.
static KEYS: LazyLock<[NamespaceKeys; 2]> = LazyLock::new(|| {
    [1, 2].map(|n| NamespaceKeys::of_day(&network(n), &ServerSecret::new([5; 32]).public(), DAY).unwrap())
});

pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut rig = Rig::new();
    let member = |n: u32| Member::with_keys(KEYS[n as usize % 2].clone(), n, source(n as usize));
    let mut members: Vec<_> = (0..MEMBERS).map(member).collect();
    let handles: Vec<_> = members.iter().map(|member| member.handle).collect();
    while !input.is_empty() {
        let who = usize::from(number::<u8>(&mut input));
        match number::<u8>(&mut input) % 5 {
            0 => drop(rig.say(source(who), piece(&mut input, 1300))),
            1 => {
                let Some(mut datagram) = rig.said(who) else { continue };
                let at = usize::from(number::<u16>(&mut input)) % datagram.len().max(1);
                if let Some(byte) = datagram.get_mut(at) {
                    *byte ^= number::<u8>(&mut input);
                }
                drop(rig.say(source(number::<u8>(&mut input).into()), &datagram));
            }
            2 => rig.wait(pause(&mut input)),
            3 => {
                let Some(datagram) = rig.said(who) else { continue };
                drop(rig.say(source(number::<u8>(&mut input).into()), &datagram));
            }
            _ => {
                let member = &mut members[who % MEMBERS as usize];
                let room = usize::from(number::<u16>(&mut input)) % (size::MESSAGE_MAX + 1);
                let message = match number::<u8>(&mut input) % 8 {
                    0 => member.hail(),
                    1 => member.register(room),
                    2 => member.keep(room & 1 == 0),
                    3 => member.list(room),
                    4 => member.intro(
                        handles[room % handles.len()],
                        &[7; size::PAYLOAD_MAX][..room % (1 + size::PAYLOAD_MAX)],
                    ),
                    5 => member.bye(),
                    7 => member.ask_where(),
                    _ => member.probe(room as u16 % 200),
                };
                for answer in rig.say(member.addr, &message) {
                    member.hear(&answer);
                }
            }
        }
        assert!(rig.server.members() <= handles.len() && rig.server.namespaces() <= KEYS.len());
    }
    rig.wait(Duration::from_secs(300));
    assert_eq!((rig.server.members(), rig.server.namespaces(), rig.server.echoes()), (0, 0, 0));
}

struct Rig {
    server: Server,
    now: Instant,
    /// What was said to it and what it said, the latest first.
    said: Vec<Vec<u8>>,
}

impl Rig {
    fn new() -> Self {
        let now = Instant::from_origin(Duration::from_secs(1000));
        let secrets = Secrets { key: ServerSecret::new([5; 32]), tokens: [6; 32].into() };
        let rng = Box::new(ChaCha20Rng::from_seed([1; 32]));
        let mut server = Server::new(Config::default(), secrets, rng, now);
        server.handle_wall_clock(Duration::from_secs(u64::from(DAY.0) * 86_400), now);
        Self { server, now, said: Vec::new() }
    }

    fn said(&self, which: usize) -> Option<Vec<u8>> {
        self.said.get(which).cloned()
    }

    /// Says it, and returns what was sent back there.
    fn say(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
        // What is for the second port mostly comes to it, and so does what is not.
        let at_second = (Kind::of(datagram) == Some(Kind::Where)) != (datagram.len() % 31 == 7);
        let port = if at_second { SECOND_PORT } else { OwnPort::USUAL };
        let before = (self.server.members(), self.server.echoes());
        let _ = self.server.handle_datagram(Route { port, ..Route::to(from) }, datagram, self.now);
        assert!(!at_second || before == (self.server.members(), self.server.echoes()));
        self.said.insert(0, datagram.to_vec());
        let sent = self.drain();
        self.said.truncate(0x80);
        for (to, bytes) in &sent {
            assert!(bytes.len() <= datagram.len());
            assert!(*to == from || Kind::of(bytes) == Some(Kind::Knock));
        }
        sent.into_iter().filter(|(to, _)| *to == from).map(|(_, bytes)| bytes).collect()
    }

    fn wait(&mut self, pause: Duration) {
        let end = self.now + pause;
        while let Some((at, _)) = self.server.poll_timeout().filter(|(at, _)| *at <= end) {
            assert!(at > self.now);
            self.now = at;
            self.server.handle_timeout(at);
            for (_, bytes) in self.drain() {
                assert!(matches!(Kind::of(&bytes), Some(Kind::Event | Kind::Echo)));
                assert!(bytes.len() <= size::MESSAGE_MAX);
            }
        }
        self.now = end;
    }

    fn drain(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let (mut sent, mut buffer) = (Vec::new(), Vec::new());
        while let Some(route) = self.server.poll_transmit(&mut buffer) {
            self.said.insert(0, buffer.clone());
            sent.push((route.remote, buffer.clone()));
        }
        sent
    }
}

fn source(number: usize) -> SocketAddr {
    ([192, 0, 2, (number % 8) as u8], 28282).into()
}
