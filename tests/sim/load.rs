//! A node under load: first messages by the thousand, questions by the hundred, and somebody who has business there.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use atonce::core::Destination;
use atonce::crypto::cookie::open_cookie;
use atonce::crypto::handshake::{Initiator, set_mac2};
use atonce::crypto::identity::Identity;
use atonce::crypto::network::NetworkKeys;
use atonce::crypto::session::Session;
use atonce::id::{NodeId, SessionIndex};
use atonce::limits;
use atonce::wire::message::{Record, push};
use atonce::wire::packet::{Kind, field, size};

use crate::world::{World, milliseconds, seconds};

#[test]
fn who_floods_gets_cookies_instead_of_work_and_a_newcomer_gets_in() {
    let mut world = World::lan(1, 1);
    let newcomer = world.add("newcomer", 0);
    world.run(seconds(2));
    world.capture = Some(Vec::new());
    let mut asked = BTreeMap::<SocketAddr, usize>::new();
    for n in 0..2000_u32 {
        let source = SocketAddr::from(([10, 0, 0, 100 + (n % 100) as u8], 1000 + n as u16));
        let first = Ghost::new(n).first_message(world.id(0));
        *asked.entry(source).or_default() += first.len();
        let at = world.now;
        world.inject(at, 0, source, &first);
        if n == 500 {
            world.start(newcomer);
        }
        world.run(milliseconds(2));
        assert!(world.counter(0, "half-open-handshakes") <= limits::HALF_OPEN as u64);
    }
    assert_eq!((world.online(0), world.online(newcomer)), (1, 1));
    let mut kinds = BTreeMap::<u8, usize>::new();
    for (from, to, bytes) in world.capture.take().unwrap() {
        let Destination::One(route) = to else { continue };
        if from == world.hosts[0].addr && route.remote != world.hosts[newcomer].addr {
            *kinds.entry(bytes[0]).or_default() += 1;
            let room = asked.get_mut(&route.remote).unwrap();
            *room = room.checked_sub(bytes.len()).unwrap();
        }
    }
    let (answers, cookies) = (kinds[&(Kind::Response as u8)], kinds[&(Kind::Cookie as u8)]);
    assert!(answers < 1000 && cookies > 1000, "{answers} answers, {cookies} cookies");
    world.run(seconds(6));
    assert_eq!(world.counter(0, "half-open-handshakes"), 0);
}

#[test]
fn a_cookie_opens_the_door_from_the_address_that_it_was_given_to_and_from_no_other() {
    let mut world = World::lan(2, 1);
    world.run(seconds(2));
    for n in 0..200 {
        let first = Ghost::new(n).first_message(world.id(0));
        let at = world.now;
        world.inject(at, 0, SocketAddr::from(([10, 0, 0, 100 + (n % 100) as u8], 9)), &first);
    }
    world.run(milliseconds(1));
    let ours = SocketAddr::from(([10, 0, 0, 50], 5));
    let mut ghost = Ghost::new(1000);
    let mut first = ghost.first_message(world.id(0));
    let answer = answers(&mut world, ours, &first).remove(0);
    assert_eq!(answer[0], Kind::Cookie as u8);
    let mac1 = first[field::INITIATION_MAC1].try_into().unwrap();
    let cookie = open_cookie(&ghost.network, &world.id(0), &answer.try_into().unwrap(), &mac1).unwrap();
    set_mac2(&mut first, &cookie);
    let elsewhere = SocketAddr::from(([10, 0, 0, 51], 5));
    assert_eq!(answers(&mut world, elsewhere, &first)[0][0], Kind::Cookie as u8);
    assert_eq!(answers(&mut world, ours, &first)[0][0], Kind::Response as u8);
}

#[test]
fn who_is_impersonated_by_a_flood_gets_in_all_the_same() {
    let mut world = World::new(5);
    let hosts = ["asked", "victim"].map(|name| world.add(name, 0));
    for host in hosts {
        (world.hosts[host].mdns, world.hosts[host].hello) = (false, false);
    }
    world.start(hosts[0]);
    let source = world.hosts[hosts[1]].addr;
    let flood = |world: &mut World, n: u32| {
        let first = Ghost::new(n).first_message(world.id(0));
        let at = world.now;
        world.inject(at, 0, source, &first);
        world.run(milliseconds(30));
    };
    (0..30).for_each(|n| flood(&mut world, n));
    world.start(hosts[1]);
    let (asked, now) = (world.hosts[0].addr, world.now);
    world.with(hosts[1], |node| node.handle_static_peers(&[asked], now));
    let mut n = 100;
    while world.online(hosts[1]) == 0 {
        assert!(n < 200, "three seconds are enough");
        flood(&mut world, n);
        n += 1;
    }
}

#[test]
fn an_address_that_did_not_get_the_answer_is_not_sent_what_a_session_brings() {
    let mut world = World::lan(3, 1);
    world.run(seconds(2));
    let (own, victim) = (SocketAddr::from(([10, 0, 0, 50], 5)), SocketAddr::from(([10, 0, 0, 66], 6)));
    let mut ghost = Ghost::new(7);
    let first = ghost.first_message(world.id(0));
    let response = answers(&mut world, own, &first).remove(0);
    let hello = ghost.first_data(&response);
    world.capture = Some(Vec::new());
    let at = world.now;
    world.inject(at, 0, victim, &hello);
    world.run(seconds(20));
    assert_eq!(world.online(0), 0, "nobody answered");
    let sent = world.capture.take().unwrap();
    let to = |addr| {
        let there = move |to: &Destination| matches!(to, Destination::One(route) if route.remote == addr);
        sent.iter().filter(move |(_, to, _)| there(to)).map(|(_, _, bytes)| bytes.len()).sum::<usize>()
    };
    assert!(to(own) > to(victim), "{} to itself", to(own));
    assert!(to(victim) < 12 * hello.len(), "{} for {} bytes", to(victim), hello.len());
}

#[test]
fn who_is_there_is_told_to_members_and_once() {
    let mut world = World::new(4);
    let hosts = [0, 1, 2].map(|n| world.add(["asker", "asked", "stranger"][n], 0));
    for host in hosts {
        let known = &mut world.hosts[host];
        (known.mdns, known.hello) = (false, false);
        known.secret = (host != 2).then_some([7; 32]);
        world.start(host);
    }
    world.capture = Some(Vec::new());
    let (asked, now) = (world.hosts[1].addr, world.now);
    for host in [0, 2] {
        world.with(host, |node| node.handle_static_peers(&[asked], now));
    }
    world.run(seconds(3));
    assert_eq!((world.online(0), world.online(1), world.online(2)), (1, 1, 0));
    let sent = world.capture.take().unwrap();
    let (asker, stranger) = (world.hosts[0].addr, world.hosts[2].addr);
    let question =
        sent.iter().find(|(from, _, bytes)| *from == asker && bytes[0] == Kind::Whois as u8).unwrap();
    assert!(sent.iter().any(|(from, _, bytes)| *from == stranger && bytes[0] == Kind::Whois as u8));
    assert!(!sent.iter().any(|(_, to, _)| matches!(to, Destination::One(route) if route.remote == stranger)));
    for source in [asker, stranger] {
        assert!(
            !answers_of(&mut world, 1, source, &question.2)
                .iter()
                .any(|answer| answer[0] == Kind::HereIs as u8)
        );
    }
}

/// What host 0 sends to `source` within a millisecond after this datagram came from there.
pub fn answers(world: &mut World, source: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
    answers_of(world, 0, source, datagram)
}

fn answers_of(world: &mut World, host: usize, source: SocketAddr, datagram: &[u8]) -> Vec<Vec<u8>> {
    world.capture = Some(Vec::new());
    let at = world.now;
    world.inject(at, host, source, datagram);
    world.run(milliseconds(1));
    let sent = world.capture.take().unwrap().into_iter();
    sent.filter(|(_, to, _)| matches!(to, Destination::One(route) if route.remote == source))
        .map(|(_, _, bytes)| bytes)
        .collect()
}

/// Somebody with a key, and nothing behind it.
pub struct Ghost {
    pub identity: Identity,
    network: NetworkKeys,
    begun: Option<Initiator>,
}

impl Ghost {
    pub fn new(number: u32) -> Self {
        let mut key = [3; 32];
        // Not at the front: three bits there do not count (RFC 7748, 5).
        key[4..8].copy_from_slice(&number.to_le_bytes());
        Self { identity: Identity::from_secret(key), network: NetworkKeys::open(), begun: None }
    }

    pub fn first_message(&mut self, to: NodeId) -> [u8; size::INITIATION] {
        let mut payload = [0; size::INITIATION_PAYLOAD];
        payload[8] = 1;
        let index = SessionIndex::from_bits(1);
        let begun = Initiator::start(&self.identity, &self.network, &to, index, [9; 32], &payload);
        let (initiator, packet) = begun.unwrap();
        self.begun = Some(initiator);
        packet
    }

    /// The first data packet of the session that this response makes: an introduction.
    fn first_data(&self, response: &[u8]) -> Vec<u8> {
        said(&mut self.session(response), &introduction("ghost"))
    }

    /// Proves by a cookie that a first message comes from where it was sent to.
    pub fn prove(&self, first: &mut [u8; size::INITIATION], to: NodeId, cookie: &[u8]) {
        let mac1 = first[field::INITIATION_MAC1].try_into().unwrap();
        let cookie = open_cookie(&self.network, &to, cookie.try_into().unwrap(), &mac1);
        set_mac2(first, &cookie.unwrap());
    }

    /// The session that this response makes.
    pub fn session(&self, response: &[u8]) -> Session {
        let response = response.try_into().unwrap();
        let finished = self.begun.as_ref().unwrap().finish(&self.identity, &self.network, response);
        let sender = response[field::SENDER].try_into().unwrap();
        Session::new(finished.unwrap().0, SessionIndex::from_bytes(sender))
    }
}

/// What is said first in a session.
pub fn introduction(name: &str) -> Record<'_> {
    Record::About { name, peers: 0, topics: 0 }
}

/// A data packet with one record.
pub fn said(session: &mut Session, record: &Record<'_>) -> Vec<u8> {
    let mut packet = vec![0; size::DATA_HEADER];
    assert!(push(&mut packet, 1000, record));
    session.seal(&mut packet, 0).unwrap();
    packet
}

#[test]
fn a_newcomer_is_answered_at_once_or_at_its_next_try_while_seventy_addresses_that_proved_themselves_flood() {
    let mut world = World::new(6);
    for name in ["asked", "newcomer"] {
        let host = world.add(name, 0);
        (world.hosts[host].mdns, world.hosts[host].hello) = (false, false);
    }
    world.start(0);
    let to = world.id(0);
    let source = |n: u32| SocketAddr::from(([10, 0, 1, (n % 70) as u8], 1000 + (n / 70) as u16));
    // Load, so that the rest of them are asked for a proof: each port has its cookie, and floods with it from then on.
    let mut cookies = Vec::new();
    for n in 0..700 {
        let mut ghost = Ghost::new(n);
        let mut first = ghost.first_message(to);
        let answer = answers(&mut world, source(n), &first);
        if answer.first().is_some_and(|answer| answer[0] == Kind::Cookie as u8) {
            ghost.prove(&mut first, to, &answer[0]);
            let mac1 = first[field::INITIATION_MAC1].try_into().unwrap();
            let cookie = open_cookie(&ghost.network, &to, answer[0][..].try_into().unwrap(), &mac1);
            cookies.push((source(n), cookie.unwrap()));
        }
    }
    world.capture = None;
    let mut next = 1000;
    let mut flood = |world: &mut World| {
        // Ten in a millisecond.
        for _ in 0..10 {
            let (from, cookie) = &cookies[next as usize % cookies.len()];
            let mut first = Ghost::new(next).first_message(to);
            set_mac2(&mut first, cookie);
            let at = world.now;
            world.inject(at, 0, *from, &first);
            next += 1;
        }
        world.run(milliseconds(1));
        assert!(world.counter(0, "half-open-handshakes") <= limits::HALF_OPEN as u64);
    };
    (0..1000).for_each(|_| flood(&mut world));
    assert!(world.counter(0, "half-open-handshakes") > 900, "the table is full");
    world.start(1);
    let (asked, now) = (world.hosts[0].addr, world.now);
    world.with(1, |node| node.handle_static_peers(&[asked], now));
    for _ in 0..1000 {
        flood(&mut world);
        if world.hosts[1].node.as_ref().unwrap().online() == 1 {
            return;
        }
    }
    panic!("not within a second");
}
