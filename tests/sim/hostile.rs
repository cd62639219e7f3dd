//! Strangers, recordings, reflections and floods.

use std::net::SocketAddr;

use atonce::core::{Destination, Route};

use crate::world::{World, milliseconds, seconds};

#[test]
fn a_stranger_on_the_lan_of_a_private_network_gets_not_one_byte() {
    let mut world = World::new(1);
    let stranger = world.add("stranger", 0);
    for name in ["a", "b"] {
        let host = world.add(name, 0);
        world.hosts[host].secret = Some([7; 32]);
        world.start(host);
    }
    world.start(stranger);
    world.capture = Some(Vec::new());
    world.run(seconds(30));
    assert_eq!((world.online(1), world.online(2), world.online(stranger)), (1, 1, 0));
    let to_stranger = world.hosts[stranger].addr;
    let capture = world.capture.take().unwrap();
    let answered =
        capture.iter().any(|(_, to, _)| matches!(to, Destination::One(route) if route.remote == to_stranger));
    assert!(!answered);
}

#[test]
fn nothing_of_a_message_its_topic_or_a_name_is_readable_on_the_wire() {
    let mut world = World::new(2);
    for name in ["name-of-a", "name-of-b"] {
        let host = world.add(name, 0);
        world.hosts[host].secret = Some([7; 32]);
        world.start(host);
    }
    world.capture = Some(Vec::new());
    world.run(seconds(1));
    let listener = world.listener(1, "the-topic");
    world.run(seconds(1));
    let app = world.connect(0);
    world.send(0, app, 1, "name-of-b", "the-topic", "the-payload");
    world.run(seconds(1));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
    let ids = [world.id(0).0, world.id(1).0];
    for (_, _, bytes) in world.capture.take().unwrap() {
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        for needle in [&b"name-of"[..], b"the-topic", b"the-payload", &ids[0], &ids[1]] {
            assert!(!holds(needle));
        }
    }
}

#[test]
fn a_recording_of_everything_played_back_changes_nothing() {
    let mut world = World::lan(3, 2);
    world.capture = Some(Vec::new());
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    for id in 0..20 {
        world.send(0, app, id, "pi-1", "t", "x");
    }
    world.run(seconds(2));
    let watcher = world.watcher(1);
    let recording = world.capture.take().unwrap();
    let evil: SocketAddr = ([10, 0, 0, 66], 6666).into();
    for source in [None, Some(evil)] {
        for (from, to, bytes) in &recording {
            for host in 0..2 {
                if matches!(to, Destination::One(route) if route.remote == world.hosts[host].addr) {
                    let at = world.now + milliseconds(1);
                    world.inject(at, host, source.unwrap_or(*from), bytes);
                }
            }
        }
        world.run(seconds(20));
    }
    assert_eq!(world.heard(1, listener, "message").len(), 20);
    assert_eq!(world.heard(1, watcher, "exit").len() + world.heard(1, watcher, "path").len(), 0);
    world.send(0, app, 99, "pi-1", "t", "still");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 99), Some("delivered"));
}

#[test]
fn our_own_packets_reflected_to_us_are_dropped() {
    let mut world = World::lan(4, 2);
    world.capture = Some(Vec::new());
    let (nobody, now) = (SocketAddr::from(([10, 0, 0, 99], 28282)), world.now);
    world.with(0, |node| node.handle_static_peers(&[nobody], now));
    world.run(seconds(3));
    let sent = world.capture.take().unwrap();
    assert!(!sent.is_empty());
    for (from, _, bytes) in sent {
        let host = world.hosts.iter().position(|host| host.addr == from).unwrap();
        let other = world.hosts[1 - host].addr;
        let (mut bytes, now) = (bytes, world.now);
        let outcome = world.with(host, |node| node.handle_datagram(Route::to(other), &mut bytes, now));
        assert!(outcome.unwrap().is_err());
    }
    assert_eq!(world.online(0), 1);
}

#[test]
fn ten_thousand_adverts_of_nobody_cost_a_bounded_number_of_packets() {
    let mut world = World::lan(5, 2);
    world.run(seconds(5));
    let before = world.hosts[0].sent_packets;
    for n in 0..10_000_u32 {
        let mut key = [9; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let sighting = atonce::core::Sighting::Seen {
            label: format!("ghost {n}"),
            port: 1000 + (n % 50_000) as u16,
            txt: atonce::wire::txt::Txt::Open(atonce::id::NodeId(key)),
            addrs: vec![atonce::core::IpAddrScoped { addr: [10, 0, 0, 200].into(), scope: 0 }],
        };
        let now = world.now;
        world.with(0, |node| node.handle_sighting(sighting, now));
    }
    world.run(seconds(10));
    let sent = world.hosts[0].sent_packets - before;
    assert!(sent <= 32 + 10 * 100 + 100, "{sent} packets");
    assert_eq!(world.online(0), 1);
}

#[test]
fn a_peer_that_sends_garbage_after_a_valid_handshake_is_counted_and_survived() {
    // A bit of each packet is flipped after it was sealed: the tag refuses all of them.
    let mut world = World::lan(6, 2);
    world.run(seconds(1));
    world.capture = Some(Vec::new());
    world.run(seconds(10));
    for (from, to, bytes) in world.capture.take().unwrap() {
        let Destination::One(route) = to else { continue };
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            let host = world.hosts.iter().position(|host| host.addr == route.remote).unwrap();
            let now = world.now;
            let dropped = world.with(host, |node| node.handle_datagram(Route::to(from), &mut bytes, now));
            assert!(dropped.unwrap().is_err());
        }
    }
    assert_eq!(world.online(0), 1);
}

#[test]
fn a_recorded_hello_played_back_from_many_addresses_makes_nobody_forget_where_a_peer_is() {
    for private in [false, true] {
        let mut world = World::new(7);
        for name in ["alice", "bob"] {
            let host = world.add(name, 0);
            world.hosts[host].secret = private.then_some([7; 32]);
        }
        world.capture = Some(Vec::new());
        world.start(0);
        world.start(1);
        world.run(seconds(20));
        let bob = world.hosts[1].addr;
        let hello = world.capture.take().unwrap().into_iter();
        let is_hello = |bytes: &[u8]| bytes[0] == atonce::wire::packet::Kind::Hello as u8;
        let hello = hello.filter(|(from, ..)| *from == bob).find(|(.., bytes)| is_hello(bytes)).unwrap().2;
        world.stop(1);
        world.run(seconds(1));
        for n in 0..32 {
            let at = world.now + milliseconds(n);
            world.inject(at, 0, SocketAddr::from(([10, 0, 0, 100 + n as u8], bob.port())), &hello);
        }
        world.run(seconds(30));
        let known = world.with(0, |node| node.known_peers()).unwrap();
        assert_eq!(known.iter().map(|peer| peer.addrs.clone()).collect::<Vec<_>>(), [vec![bob]]);
        // It is found there again by a host that hears no multicast, also after a restart.
        world.stop(0);
        for host in [0, 1] {
            let known = &mut world.hosts[host];
            (known.hears, known.mdns, known.hello) = (false, false, false);
        }
        world.start(1);
        world.start(0);
        assert!(world.run_for(seconds(20), |world| world.all_have(1)), "private: {private}");
    }
}
