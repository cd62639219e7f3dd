//! A node, the time that passes for it, and what holds of every node at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use atonce::core::{Config, Destination, Event, InterfaceAddr, KnownPeer, Node, OwnPort, Owner, Route};
use atonce::crypto::identity::Identity;
use atonce::crypto::network::NetworkKeys;
use atonce::id::ClientId;
use atonce::limits;
use atonce::time::Instant;
use atonce::wire::local::frame::{Header, PREFACE, flag, kind};
use atonce::wire::local::{self, ReplyTo};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

/// Some keys, made once: a public key costs as much as a handshake.
pub static IDENTITIES: LazyLock<[Identity; 4]> =
    LazyLock::new(|| [1, 2, 3, 4].map(|n| Identity::from_secret([n; 32])));
/// Whose key the node under test has.
pub const OWN: usize = 0;
/// Where it is, and its link.
pub const ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The node under test.
pub struct Rig {
    pub node: Node,
    pub now: Instant,
    pub started: Instant,
    /// What each app read that is no whole line or frame yet.
    apps: BTreeMap<ClientId, Vec<u8>>,
    /// Those that speak in frames.
    in_frames: BTreeSet<ClientId>,
    /// What the last request that an app read may be replied to with.
    pub reply_to: Option<ReplyTo>,
    /// Those beside the usual one that are open.
    pub ports: BTreeSet<OwnPort>,
    /// Lines and frames that the apps have read.
    pub lines: usize,
    /// The apps read nothing.
    pub deaf: bool,
    buffer: Vec<u8>,
}

/// One datagram that the node sent.
pub struct Sent {
    pub to: Destination,
    pub bytes: Vec<u8>,
}

/// The network of those who know the secret of the fuzz targets.
pub fn private() -> NetworkKeys {
    static KEYS: LazyLock<NetworkKeys> = LazyLock::new(|| {
        let line = format!("atonce-secret-{}", "a".repeat(52));
        NetworkKeys::private(&line.parse().unwrap())
    });
    KEYS.clone()
}

impl Rig {
    pub fn new(network: NetworkKeys, known: Vec<KnownPeer>) -> Self {
        let now = Instant::from_origin(Duration::from_secs(1000));
        let config = Config {
            name: "own".parse().unwrap(),
            network: network.into(),
            network_source: None,
            udp: vec![SocketAddr::new(ADDR.into(), 28282)],
            rendezvous: vec!["192.0.2.1:28283".parse().unwrap()],
            known,
            mdns: true,
            hello: true,
            relay: true,
            birthday_punch: true,
            metered: false,
        };
        let rng = Box::new(ChaCha20Rng::seed_from_u64(7));
        let mut node = Node::new(config, IDENTITIES[OWN].clone(), rng, now);
        let link = InterfaceAddr {
            name: "eth0".to_owned(),
            index: 2,
            addr: ADDR.into(),
            prefix: 24,
            point_to_point: false,
            wireless: false,
            mtu: None,
        };
        node.handle_interfaces(&[link], now);
        let mut rig = Self {
            node,
            now,
            started: now,
            apps: BTreeMap::new(),
            in_frames: BTreeSet::new(),
            reply_to: None,
            ports: BTreeSet::new(),
            lines: 0,
            deaf: false,
            buffer: Vec::new(),
        };
        rig.drain();
        rig
    }

    pub fn connect(&mut self, client: ClientId) {
        self.node.handle_connect(client, Owner { uid: 0, admin: true }, self.now).unwrap();
        self.apps.insert(client, Vec::new());
    }

    /// An app that speaks in frames.
    pub fn connect_in_frames(&mut self, client: ClientId) {
        self.connect(client);
        self.in_frames.insert(client);
        self.node.handle_preface(client, self.now);
        self.drain();
        assert_eq!(self.apps.insert(client, Vec::new()), Some(PREFACE.to_vec()));
    }

    pub fn say(&mut self, client: ClientId, line: &str) {
        self.node.handle_request(client, local::Request::parse(line.as_bytes()), self.now);
    }

    /// Time passes, and what became due meanwhile is done at its end.
    pub fn wait(&mut self, duration: Duration) -> Vec<Sent> {
        self.now = self.now + duration;
        self.node.handle_timeout(self.now);
        let sent = self.drain();
        if let Some((at, reason)) = self.node.poll_timeout() {
            assert!(at > self.now, "{reason} is due at once again");
        }
        sent
    }

    /// Takes all that the node has to say, and holds it to its limits.
    pub fn drain(&mut self) -> Vec<Sent> {
        while let Some(event) = self.node.poll_event() {
            self.on_event(event);
        }
        let mut sent = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(&mut self.buffer) {
            assert!(self.buffer.len() <= limits::TRAIN_BYTES);
            assert!(self.buffer.len().div_ceil(transmit.segment_bytes) <= limits::TRAIN_DATAGRAMS);
            for datagram in self.buffer.chunks(transmit.segment_bytes) {
                assert!(datagram.len() <= limits::LARGE_DATAGRAM_BYTES);
                sent.push(Sent { to: transmit.to, bytes: datagram.to_vec() });
            }
        }
        while let Some(event) = self.node.poll_event() {
            self.on_event(event);
        }
        assert!(self.node.known_peers().len() <= limits::PEERS + limits::PINS_APART);
        sent
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Output(client) if self.deaf => {
                // A queue passes its limit by no more than the answers to what was asked before it was full.
                assert!(self.node.output(client).len() <= 2 * limits::CLIENT_QUEUE_BYTES);
            }
            Event::Output(client) => self.read(client),
            Event::Close(client) => {
                self.apps.remove(&client);
                self.node.handle_hangup(client, self.now);
            }
            Event::Announce(advert) => assert!(advert.label.len() <= limits::NAME_BYTES),
            Event::Network { client, id, .. } => {
                self.node.handle_network(client, id, Err("no disk".to_owned()), self.now);
            }
            Event::Invite { client, id } => {
                self.node.handle_invitation(client, id, Some("atonce-secret-"), self.now);
            }
            Event::Reload { client, id } => {
                self.node.handle_reload(client, id, Err("no disk".to_owned()), self.now);
            }
            Event::Resolve(name) => {
                let addr = name.parse().unwrap();
                self.node.handle_server_addrs(&name, &[addr], self.now);
            }
            Event::Withdraw
            | Event::Browse
            | Event::Ask
            | Event::StopBrowse
            | Event::Remember
            | Event::RememberServers
            | Event::AskBattery => {}
            Event::OpenPort(port) => assert!(self.ports.insert(port)),
            Event::ClosePort(port) => assert!(self.ports.remove(&port)),
        }
    }

    fn read(&mut self, client: ClientId) {
        let output = self.node.output(client).to_vec();
        self.node.handle_written(client, output.len(), self.now);
        let Some(partial) = self.apps.get_mut(&client) else { return };
        partial.extend_from_slice(&output);
        if self.in_frames.contains(&client) {
            while let Some((head, rest)) = partial.split_first_chunk() {
                let header = Header::from_bytes(head);
                let Some(body) = rest.get(..header.body_bytes as usize) else { break };
                assert!(body.len() <= limits::FRAME_BODY_BYTES, "a body of {} bytes", body.len());
                if let Some(reply_to) = read_frame(header, body) {
                    self.reply_to = Some(reply_to);
                }
                partial.drain(..Header::BYTES + header.body_bytes as usize);
                self.lines += 1;
            }
            return;
        }
        while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = partial.drain(..=end).collect();
            assert!(line.len() <= limits::LINE_BYTES, "a line of {} bytes", line.len());
            let event = serde_json::from_slice::<local::Event<'_>>(&line);
            assert!(event.is_ok(), "{event:?}: {}", String::from_utf8_lossy(&line));
            if let Ok(local::Event::Message { reply_to: Some(reply_to), .. }) = event {
                self.reply_to = Some(reply_to.parse().unwrap());
            }
            self.lines += 1;
        }
    }
}

/// A frame of the daemon is one that the document has; what it may be replied to with.
fn read_frame(header: Header, body: &[u8]) -> Option<ReplyTo> {
    let path = header.flags & !flag::REQUEST;
    match header.kind {
        kind::EVENT => {
            let event = serde_json::from_slice::<local::Event<'_>>(body);
            assert!(event.is_ok(), "{event:?}: {}", String::from_utf8_lossy(body));
        }
        kind::RESULT => assert!(body.len() == 48 && header.id != 0 && header.flags <= flag::REPLIES),
        kind::MESSAGE => {
            assert!(body.len() >= 8 && header.chan.0 != 0 && (1..=4).contains(&path));
            if header.flags & flag::REQUEST != 0 {
                return body[8..].first_chunk().map(ReplyTo::from_bytes);
            }
        }
        kind::REPLIED => assert!(body.len() >= 8 && header.chan.0 != 0 && header.id != 0),
        other => panic!("the daemon sends no frame of type {other}"),
    }
    None
}

/// The bytes that went to one address.
pub fn bytes_to(sent: &[Sent], addr: SocketAddr) -> usize {
    let there = |sent: &&Sent| matches!(sent.to, Destination::One(route) if route.remote == addr);
    sent.iter().filter(there).map(|sent| sent.bytes.len()).sum()
}

/// From `remote` to us.
pub fn from(remote: SocketAddr) -> Route {
    Route { local: Some(ADDR.into()), ..Route::to(remote) }
}

/// Some of the input, as long as its next two bytes say, at most `most`.
pub fn piece<'a>(input: &mut Unstructured<'a>, most: usize) -> &'a [u8] {
    let length = usize::from(number::<u16>(input)) % (most + 1);
    input.bytes(length.min(input.len())).unwrap()
}

/// The next number of the input; zero at its end.
pub fn number<'a, N: Arbitrary<'a>>(input: &mut Unstructured<'a>) -> N {
    input.arbitrary().unwrap()
}

/// A pause: short as a round trip, or longer than a session lives.
pub fn pause(input: &mut Unstructured<'_>) -> Duration {
    let pauses = [1, 30, 100, 300, 1000, 5000, 130_000, 600_000];
    Duration::from_millis(pauses[usize::from(number::<u8>(input)) % pauses.len()])
}
