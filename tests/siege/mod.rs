//! A real node and members of its network that do what they like: each has its own key and a right session, and sends
//! whatever records a test wants. Nothing here reads a clock.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use atonce::core::{Config, Destination, Event, InterfaceAddr, Node, Owner, Route};
use atonce::crypto::handshake::Initiator;
use atonce::crypto::identity::Identity;
use atonce::crypto::network::NetworkKeys;
use atonce::crypto::session::Session;
use atonce::id::{ClientId, NodeId, SessionIndex};
use atonce::time::Instant;
use atonce::wire::local::Request;
use atonce::wire::message::{self, Read, Record, Records};
use atonce::wire::packet::{field, size};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

/// Where the node is.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// One member. It lies in a table that is made beforehand, so that its memory does not count as the node's.
pub struct Member {
    identity: Identity,
    pub addr: SocketAddr,
    session: Option<Session>,
    counter: u64,
}

/// The node and those around it.
pub struct Siege {
    pub node: Node,
    pub now: Instant,
    keys: NetworkKeys,
    by_addr: BTreeMap<SocketAddr, usize>,
    buffer: Vec<u8>,
    /// What each app has read; the others read nothing.
    pub read: BTreeMap<ClientId, Vec<u8>>,
    /// The records that the node sent, if a test wants them.
    pub heard: Option<Vec<String>>,
    /// Bytes of datagrams that the node sent.
    pub sent: usize,
}

/// So many members, each at an address of its own.
pub fn members(count: usize) -> Vec<Member> {
    (0..count as u32)
        .map(|n| {
            let mut secret = [3; 32];
            secret[8..12].copy_from_slice(&n.to_le_bytes());
            let addr = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 0)) + n);
            let addr = SocketAddr::new(addr.into(), 28282);
            Member { identity: Identity::from_secret(secret), addr, session: None, counter: 0 }
        })
        .collect()
}

impl Member {
    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// A datagram with these records.
    fn seal(&mut self, records: &[Record<'_>]) -> Vec<u8> {
        let mut packet = vec![0; size::DATA_HEADER];
        for record in records {
            assert!(message::push(&mut packet, 8900, record), "{record:?}");
        }
        self.session.as_mut().unwrap().seal(&mut packet, 0).unwrap();
        packet
    }
}

impl Siege {
    pub fn new(members: &[Member]) -> Self {
        let now = Instant::from_origin(Duration::from_secs(1000));
        let config = Config {
            name: "own".parse().unwrap(),
            network: NetworkKeys::open().into(),
            network_source: None,
            udp: vec![SocketAddr::new(NODE.into(), 28282)],
            rendezvous: vec![],
            known: vec![],
            mdns: true,
            hello: true,
            relay: true,
            birthday_punch: true,
            metered: false,
        };
        let rng = Box::new(ChaCha20Rng::seed_from_u64(7));
        let mut node = Node::new(config, Identity::from_secret([1; 32]), rng, now);
        let link = InterfaceAddr {
            name: "eth0".into(),
            index: 2,
            addr: NODE.into(),
            prefix: 8,
            point_to_point: false,
            wireless: false,
            mtu: None,
        };
        node.handle_interfaces(&[link], now);
        let by_addr = members.iter().enumerate().map(|(n, member)| (member.addr, n)).collect();
        Self {
            node,
            now,
            keys: NetworkKeys::open(),
            by_addr,
            buffer: Vec::new(),
            read: BTreeMap::new(),
            heard: None,
            sent: 0,
        }
    }

    /// A member makes a session with the node, or a new one.
    pub fn join(&mut self, members: &mut [Member], n: usize) {
        let member = &mut members[n];
        member.counter += 1;
        let mut payload = [0; size::INITIATION_PAYLOAD];
        payload[..8].copy_from_slice(&9_u64.to_le_bytes());
        payload[8..16].copy_from_slice(&member.counter.to_le_bytes());
        let mut ephemeral = [5; 32];
        ephemeral[..8].copy_from_slice(&(n as u64).to_le_bytes());
        ephemeral[8..16].copy_from_slice(&member.counter.to_le_bytes());
        let index = SessionIndex::from_bits(n as u32 + 1);
        let id = self.node.id();
        let begun = Initiator::start(&member.identity, &self.keys, &id, index, ephemeral, &payload);
        let (initiator, mut packet) = begun.unwrap();
        let via = via(member.addr);
        self.node.handle_datagram(via, &mut packet, self.now).unwrap();
        let mut answer = None;
        while let Some(transmit) = self.node.poll_transmit(&mut self.buffer) {
            let to_it = matches!(transmit.to, Destination::One(route) if route.remote == member.addr);
            if to_it && self.buffer.len() == size::RESPONSE {
                answer = Some(self.buffer.clone());
            }
        }
        let answer = answer.expect("the first message is answered");
        let response = answer.as_slice().try_into().unwrap();
        let (session, _) = initiator.finish(&member.identity, &self.keys, response).unwrap();
        let mut remote = [0; 3];
        remote.copy_from_slice(&answer[field::SENDER]);
        member.session = Some(Session::new(session, SessionIndex::from_bytes(remote)));
        let name = format!("member-{n:056}");
        self.tell(members, n, &[Record::About { name: &name, peers: 0, topics: 0 }]);
        assert!(members[n].session.is_some());
    }

    /// A member sends a datagram with these records.
    pub fn tell(&mut self, members: &mut [Member], n: usize, records: &[Record<'_>]) {
        let from = members[n].addr;
        self.tell_from(members, n, from, records);
    }

    /// The same, from another address.
    pub fn tell_from(&mut self, members: &mut [Member], n: usize, from: SocketAddr, records: &[Record<'_>]) {
        let mut packet = members[n].seal(records);
        let _ = self.node.handle_datagram(via(from), &mut packet, self.now);
        self.drain(members);
    }

    /// An app that reads what there is for it, if it `reads`.
    pub fn connect(&mut self, client: u64, uid: u32, reads: bool) -> ClientId {
        let client = ClientId(client);
        connect(&mut self.node, client, uid, self.now);
        if reads {
            self.read.insert(client, Vec::new());
        }
        client
    }

    pub fn say(&mut self, members: &mut [Member], client: ClientId, line: &str) {
        self.node.handle_request(client, Request::parse(line.as_bytes()), self.now);
        self.drain(members);
    }

    /// Time passes, in small steps.
    pub fn wait(&mut self, members: &mut [Member], duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let next = self.node.poll_timeout().map_or(end, |(at, _)| at);
            self.now =
                next.clamp(self.now + Duration::from_millis(1), end.max(self.now + Duration::from_millis(1)));
            self.node.handle_timeout(self.now);
            self.drain(members);
        }
    }

    /// Takes what the node has to say. The members answer questions, so that they stay.
    pub fn drain(&mut self, members: &mut [Member]) {
        loop {
            while let Some(event) = self.node.poll_event() {
                if let Event::Output(client) = event {
                    let Some(read) = self.read.get_mut(&client) else { continue };
                    let output = self.node.output(client).to_vec();
                    self.node.handle_written(client, output.len(), self.now);
                    read.extend_from_slice(&output);
                } else if let Event::Close(client) = event {
                    self.node.handle_hangup(client, self.now);
                }
            }
            let Some(transmit) = self.node.poll_transmit(&mut self.buffer) else { return };
            self.sent += self.buffer.len();
            let Destination::One(route) = transmit.to else { continue };
            let Some(n) = self.by_addr.get(&route.remote).copied() else { continue };
            let mut answers = Vec::new();
            let member = &mut members[n];
            for datagram in self.buffer.chunks_mut(transmit.segment_bytes) {
                let Some(session) = &mut member.session else { continue };
                let Ok(plaintext) = session.open(datagram) else { continue };
                for record in Records::new(plaintext) {
                    let Ok(Read::Record(record)) = record else { continue };
                    if let Some(heard) = &mut self.heard {
                        heard.push(format!("{n} {record:?}"));
                    }
                    if let Record::Ping { token, .. } = record {
                        answers.push(Record::Pong { token, peers: 0 });
                    } else if let Record::Topics { upto, .. } = record {
                        answers.push(Record::TopicsHave { upto, ask: false });
                    }
                }
            }
            if !answers.is_empty() {
                let mut packet = member.seal(&answers);
                let _ = self.node.handle_datagram(via(route.remote), &mut packet, self.now);
            }
        }
    }

    /// A counter of `status`.
    pub fn counter(&mut self, members: &mut [Member], name: &str) -> u64 {
        let client = self.connect(u64::MAX, 0, true);
        self.say(members, client, r#"{"op":"status","id":1}"#);
        let line: serde_json::Value = serde_json::from_slice(&self.read[&client]).unwrap();
        self.node.handle_hangup(client, self.now);
        self.read.remove(&client);
        let counters = line["status"]["counters"].as_array().unwrap();
        counters.iter().find(|counter| counter[0] == name).map_or(0, |counter| counter[1].as_u64().unwrap())
    }

    /// The events of one kind that an app has read.
    pub fn events(&self, client: ClientId, ev: &str) -> Vec<serde_json::Value> {
        let lines = self.read[&client].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
        events.filter(|event| event["ev"] == ev).collect()
    }
}

fn connect(node: &mut Node, client: ClientId, uid: u32, now: Instant) {
    node.handle_connect(client, Owner { uid, admin: uid == 0 }, now).unwrap();
}

fn via(from: SocketAddr) -> Route {
    Route { local: Some(NODE.into()), ..Route::to(from) }
}
