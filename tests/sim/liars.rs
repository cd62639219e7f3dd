//! Members of a network that lie about others: in their names, by their handles, and as if the server said it.

use std::net::SocketAddr;

use atonce::core::Destination;
use atonce::crypto::claim::Claim;
use atonce::crypto::identity::Identity;
use atonce::crypto::namespace::{Meeting, NamespaceKeys};
use atonce::crypto::network::NetworkKeys;
use atonce::id::{BootId, NodeId};
use atonce::wire::presence::{Candidate, CandidateKind, Flags, Introduction, Presence, Step};
use atonce::wire::rendezvous::{
    Cookie, Entries, Entry, Event, FromNode, FromServer, Handle, Intro, Nonce, Register, Token,
};

use crate::meeting::apart;
use crate::world::internet::{Parcel, Stop};
use crate::world::nat::Kind;
use crate::world::{HostId, World, seconds, secret_of};

/// A member of a network by hand, with an address of its own.
struct Liar {
    identity: Identity,
    addr: SocketAddr,
    network: NetworkKeys,
    namespace: NamespaceKeys,
    claim: Claim,
    seq: u32,
    cookie: Cookie,
    token: Token,
}

impl Liar {
    /// In the network of `host`, number `number` of them.
    fn new(world: &mut World, host: HostId, number: u8) -> Self {
        let network = NetworkKeys::private(&secret_of(world.hosts[host].secret.unwrap()));
        let key = world.hosts[host].rendezvous[0].key.unwrap();
        let addr = SocketAddr::from(([203, 0, 113, 100 + number], 1));
        let mut hail = Vec::new();
        FromNode::Hail(Nonce([number; 8])).write(0, &mut hail);
        let answer = say(world, addr, hail);
        let Ok(FromServer::Retry(retry)) = FromServer::parse(&answer) else { panic!("no retry") };
        let namespace = NamespaceKeys::of_day(&network, &key, retry.time.day).unwrap();
        Self {
            identity: Identity::from_secret([200 + number % 50; 32]),
            addr,
            claim: Claim::from_seed(namespace.namespace(), [number; 16]),
            network,
            namespace,
            seq: 0,
            cookie: retry.cookie,
            token: Token::default(),
        }
    }

    /// Registers as whom it says.
    fn register(&mut self, world: &mut World, id: NodeId, at: &[SocketAddr]) {
        self.seq += 1;
        let (namespace, handle) = (*self.namespace.namespace(), self.claim.handle());
        let presence = Presence { id, boot: BootId(1), flags: Flags::default(), candidates: candidates(at) };
        let blob =
            self.network.seal_presence(&self.identity, &presence, &namespace, handle, self.seq, [7; 24]);
        let register = Register {
            nonce: Nonce([2; 8]),
            namespace,
            handle,
            cookie: self.cookie,
            reveal: self.claim.reveal(self.seq).unwrap(),
            seq: self.seq,
            known: 0,
            blob: &blob,
        };
        let mut bytes = Vec::new();
        FromNode::Register(register).write(0, &mut bytes);
        self.namespace.finish_register(self.addr, &mut bytes);
        let answer = say(world, self.addr, bytes);
        let Ok(FromServer::Welcome(welcome)) = FromServer::parse(&answer) else { panic!("no welcome") };
        self.token = welcome.token;
    }

    /// Introduces `id` to the node by that handle.
    fn introduce(&self, world: &mut World, id: NodeId, to: NodeId, target: Handle, at: &[SocketAddr]) {
        let (namespace, handle, nonce) = (*self.namespace.namespace(), self.claim.handle(), Nonce([9; 8]));
        let introduction = Introduction {
            id,
            to,
            boot: BootId(1),
            step: Step::Meet,
            flags: Flags::default(),
            candidates: candidates(at),
        };
        let meeting = Meeting { namespace, from: handle, target, nonce };
        let payload = self.network.seal_introduction(&self.identity, &introduction, &meeting, [9; 24]);
        let intro = Intro { nonce, namespace, handle, token: self.token, target, payload: &payload };
        let mut bytes = Vec::new();
        FromNode::Intro(intro).write(0, &mut bytes);
        let to = world.internet.servers[0].addr;
        world.at_stop(Stop::Server(0), Parcel { from: self.addr, to, hops: 64, bytes });
    }

    /// An event as the server writes it, for the host behind router 1.
    fn forge_event(&self, world: &mut World, entries: &[Entry<'_>], upto: u64) {
        let mut listed = Vec::new();
        entries.iter().for_each(|entry| entry.push(&mut listed));
        let namespace = self.namespace.namespace().tag();
        let entries = Entries::parse(&listed).unwrap();
        let mut bytes = Vec::new();
        FromServer::Event(Event { namespace, since: 0, upto, entries }).write(&mut bytes);
        self.namespace.finish(&mut bytes);
        let (from, to) = (world.internet.servers[0].addr, SocketAddr::new(World::wan(1), 28282));
        world.carry(Stop::In(1), Parcel { from, to, hops: 64, bytes }, seconds(0));
    }
}

fn candidates(addrs: &[SocketAddr]) -> Vec<Candidate> {
    addrs.iter().map(|addr| Candidate { kind: CandidateKind::Server, addr: *addr }).collect()
}

/// Says something to the server; what it answers.
fn say(world: &mut World, from: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    let to = world.internet.servers[0].addr;
    world.at_stop(Stop::Server(0), Parcel { from, to, hops: 64, bytes });
    world.internet.servers[0].sent.iter().rev().find(|(to, _)| *to == from).unwrap().1.clone()
}

/// The handle and the latest blob of the host behind a router.
fn registered(world: &World, router: u8) -> (Handle, u32, Vec<u8>) {
    let received = world.internet.servers[0].received.iter().rev();
    let mut of_host = received.filter(|(from, _)| from.ip() == World::wan(router));
    let register = of_host.find_map(|(_, bytes)| match FromNode::parse(bytes) {
        Ok(FromNode::Register(register)) => Some(register),
        _ => None,
    });
    let register = register.unwrap();
    (register.handle, register.seq, register.blob.to_vec())
}

/// How many packets were sent to `addr` since the world is captured.
fn sent_to(world: &World, addr: SocketAddr) -> usize {
    let sent = world.capture.as_ref().unwrap().iter();
    sent.filter(|(_, to, _)| matches!(to, Destination::One(route) if route.remote == addr)).count()
}

/// Two members, of which the second one has just vanished without a word, so that the first one looks for it where it was.
fn seeking(seed: u64) -> (World, HostId, NodeId, SocketAddr) {
    let (mut world, [one, two]) = apart(seed, [Kind::HOME, Kind::HOME]);
    world.start(two);
    world.run(seconds(2));
    let id = world.id(two);
    world.crash(two);
    world.start(one);
    world.run(seconds(1));
    world.capture = Some(Vec::new());
    (world, one, id, SocketAddr::new(World::wan(2), 28282))
}

fn false_addrs(liar: u8) -> Vec<SocketAddr> {
    (0..8).map(|n| SocketAddr::from(([192, 0, 2, liar * 8 + n], 443))).collect()
}

#[test]
fn who_lies_in_the_name_of_a_member_by_however_many_handles_neither_silences_it_nor_places_it_elsewhere() {
    let undisturbed = {
        let (mut world, _, _, addr) = seeking(400);
        world.run(seconds(50));
        sent_to(&world, addr)
    };
    assert!(undisturbed >= 8, "{undisturbed}");
    let (mut world, one, two, addr) = seeking(400);
    for number in 0..20 {
        let mut liar = Liar::new(&mut world, one, number);
        liar.register(&mut world, two, &false_addrs(number));
    }
    world.run(seconds(50));
    assert_eq!(sent_to(&world, addr), undisturbed);
    for addr in (0..20).flat_map(false_addrs) {
        assert_eq!(sent_to(&world, addr), 0, "{addr}");
    }
}

#[test]
fn nobody_introduces_another_member_or_takes_back_where_it_is() {
    let (mut world, one, two, addr) = seeking(401);
    let (to, (target, ..)) = (world.id(one), registered(&world, 1));
    let mut liar = Liar::new(&mut world, one, 1);
    let own = liar.identity.id();
    liar.register(&mut world, own, &[]);
    liar.introduce(&mut world, two, to, target, &false_addrs(1));
    world.run(seconds(40));
    assert!(sent_to(&world, addr) >= 8);
    assert!(false_addrs(1).iter().all(|addr| sent_to(&world, *addr) == 0));
}

#[test]
fn an_introduction_by_oneself_is_taken() {
    let (mut world, one, _, _) = seeking(402);
    let (to, (target, ..)) = (world.id(one), registered(&world, 1));
    let mut liar = Liar::new(&mut world, one, 1);
    let own = liar.identity.id();
    liar.register(&mut world, own, &[]);
    liar.introduce(&mut world, own, to, target, &false_addrs(1)[..1]);
    world.run(seconds(1));
    assert!(sent_to(&world, false_addrs(1)[0]) > 0);
}

#[test]
fn events_that_a_member_forges_part_nobody_and_hide_nobody() {
    for seed in 0..4 {
        let (mut world, one, _, addr) = seeking(410 + seed);
        let (handle, ..) = registered(&world, 2);
        let liar = Liar::new(&mut world, one, 1);
        liar.forge_event(&mut world, &[Entry { handle, seq: 0, blob: None }], u64::MAX);
        world.run(seconds(35));
        assert!(sent_to(&world, addr) >= 8, "{}", sent_to(&world, addr));
        world.router(3, Kind::HOME, &World::wan(3).to_string(), None);
        let newcomer = world.add("host-3", 3);
        world.hosts[newcomer].secret = world.hosts[one].secret;
        world.hosts[newcomer].rendezvous = world.hosts[one].rendezvous.clone();
        world.start(newcomer);
        assert!(world.run_for(seconds(5), |world| world.online(one) == 1));
    }
}

/// A member says where it is, and then that it is elsewhere; how often each of both places was sent to in two minutes if
/// somebody repeats its first word `times` times.
fn sent_to_old_and_new(times: u32) -> [usize; 2] {
    let (mut world, one, _, _) = seeking(420);
    let mut other = Liar::new(&mut world, one, 7);
    let own = other.identity.id();
    let (before, now) = (false_addrs(7), false_addrs(8));
    other.register(&mut world, own, &before[..1]);
    let recorded = {
        let received = &world.internet.servers[0].received;
        let Ok(FromNode::Register(register)) = FromNode::parse(&received.last().unwrap().1) else {
            panic!("no register")
        };
        (register.handle, register.seq, register.blob.to_vec())
    };
    other.register(&mut world, own, &now[..1]);
    world.run(seconds(20));
    for at in 0..10 {
        let entry = Entry { handle: recorded.0, seq: recorded.1, blob: Some(&recorded.2) };
        if at < times {
            other.forge_event(&mut world, &[entry], u64::MAX);
        }
        world.run(seconds(10));
    }
    [before[0], now[0]].map(|addr| sent_to(&world, addr))
}

#[test]
fn what_a_member_said_before_does_not_take_the_place_of_what_it_says_now() {
    let undisturbed = sent_to_old_and_new(0);
    assert!(undisturbed[1] > undisturbed[0], "{undisturbed:?}");
    assert_eq!(sent_to_old_and_new(10), undisturbed);
}
