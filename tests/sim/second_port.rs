//! One server with two ports tells whether a router gives each destination another port.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use atonce::core::Destination;
use atonce::wire::rendezvous::{FromNode, FromServer, Here, Kind as Message, is_rendezvous};

use crate::meeting::{apart, peers};
use crate::world::internet::{Parcel, Stop};
use crate::world::nat::Kind;
use crate::world::{HostId, World, milliseconds, seconds};

/// How many questions to its second port, and registers, the server got.
fn asked(world: &World) -> [usize; 2] {
    let received = &world.internet.servers[0].received;
    [Message::Where, Message::Register]
        .map(|kind| received.iter().filter(|(_, bytes)| Message::of(bytes) == Some(kind)).count())
}

/// Whether a host takes its router for one that gives each destination another port: then it says so where it cannot meet.
fn is_known_to_vary(world: &mut World, other: HostId) -> bool {
    let told = peers(world, other);
    told.iter()
        .any(|peer| peer["why"].as_str().is_some_and(|why| why.contains("its router gives each destination")))
}

#[test]
fn a_router_with_random_ports_is_met_by_the_word_of_one_server() {
    for kind in [Kind::HOME, Kind::FIREWALL] {
        for seed in 0..5 {
            let (mut world, hosts) = apart(seed, [kind, Kind::RANDOM]);
            hosts.into_iter().for_each(|host| world.start(host));
            let both = |world: &mut World| hosts.iter().all(|host| world.online(*host) == 1);
            assert!(world.run_for(seconds(40), both), "{seed} {:#}", world.status(hosts[0]));
        }
    }
}

#[test]
fn a_node_whose_port_is_always_the_same_asks_once_and_registers_no_more_often_for_it() {
    let registers = [true, false].map(|second| {
        let (mut world, [one, _]) = apart(3, [Kind::HOME, Kind::HOME]);
        if !second {
            world.internet.servers[0].second = None;
            world.start_server(0);
        }
        world.start(one);
        world.run(seconds(600));
        let [questions, registers] = asked(&world);
        assert_eq!(questions, usize::from(second));
        registers
    });
    assert_eq!(registers[0], registers[1]);
}

#[test]
fn a_second_port_that_nothing_gets_to_is_asked_three_times_and_then_it_is_as_if_there_were_none() {
    let (mut world, hosts) = apart(4, [Kind::HOME, Kind::RANDOM]);
    world.internet.servers[0].second_is_shut = true;
    world.capture = Some(Vec::new());
    hosts.into_iter().for_each(|host| world.start(host));
    world.run(seconds(50));
    let questions = world.capture.as_ref().unwrap().iter().filter(|(_, to, bytes)| {
        matches!(to, Destination::One(_))
            && is_rendezvous(bytes)
            && Message::of(bytes) == Some(Message::Where)
    });
    assert_eq!(questions.count(), 2 * 3);
    assert_eq!([world.online(hosts[0]), world.online(hosts[1])], [0, 0]);
    assert_eq!(world.status(hosts[0])["rendezvous"][0]["state"], "registered");
    assert!(!is_known_to_vary(&mut world, hosts[0]));
}

#[test]
fn a_lost_question_or_answer_is_asked_again() {
    for seed in 0..10 {
        let (mut world, hosts) = apart(seed, [Kind::HOME, Kind::RANDOM]);
        // As if lost: the way is shut for less time than the questions go on.
        world.internet.servers[0].second_is_shut = true;
        hosts.into_iter().for_each(|host| world.start(host));
        world.run(milliseconds(600));
        world.internet.servers[0].second_is_shut = false;
        let both = |world: &mut World| hosts.iter().all(|host| world.online(*host) == 1);
        assert!(world.run_for(seconds(40), both), "{seed}");
    }
}

#[test]
fn who_comes_behind_another_router_learns_what_that_one_does() {
    let (mut world, hosts) = apart(6, [Kind::FIREWALL, Kind::HOME]);
    hosts.into_iter().for_each(|host| world.start(host));
    let both = |world: &mut World| hosts.iter().all(|host| world.online(*host) == 1);
    assert!(world.run_for(seconds(5), both));
    for kind in [Kind::RANDOM, Kind::HOME, Kind::RANDOM] {
        let before = asked(&world)[0];
        let wan = if kind == Kind::HOME { "198.51.100.2" } else { "198.51.100.77" };
        world.router(2, kind, wan, None);
        assert!(world.run_for(seconds(120), |world| asked(world)[0] > before), "{kind:?}");
        assert!(world.run_for(seconds(120), both), "{kind:?} {:#}", world.status(hosts[0]));
    }
}

#[test]
fn an_answer_counts_only_from_the_port_that_was_asked_and_with_its_nonce() {
    let (mut world, [one, two]) = apart(7, [Kind::OPEN, Kind::RANDOM]);
    world.internet.servers[0].second_is_shut = true;
    world.capture = Some(Vec::new());
    world.start(one);
    let nonce = |world: &World| {
        let sent = world.capture.as_ref().unwrap().iter();
        sent.filter_map(|(_, _, bytes)| match FromNode::parse(bytes) {
            Ok(FromNode::Where(nonce)) => Some(nonce),
            _ => None,
        })
        .next()
    };
    assert!(world.run_for(seconds(2), |world| nonce(world).is_some()));
    let (nonce, to) = (nonce(&world).unwrap(), world.hosts[one].addr);
    let says = |world: &mut World, from: &str, nonce| {
        let mut bytes = Vec::new();
        FromServer::Here(Here { nonce, seen: SocketAddr::new(to.ip(), 9) }).write(&mut bytes);
        let parcel = Parcel { from: from.parse().unwrap(), to, hops: 64, bytes };
        world.carry(Stop::Host(one), parcel, milliseconds(1));
        world.run(milliseconds(10));
    };
    let registers = |world: &World| asked(world)[1];
    let before = registers(&world);
    let mut other = nonce;
    other.0[0] ^= 1;
    for (from, nonce) in [
        ("203.0.113.1:28283", nonce),
        ("203.0.113.1:28285", nonce),
        ("203.0.113.2:28284", nonce),
        ("203.0.113.1:28284", other),
    ] {
        says(&mut world, from, nonce);
        assert_eq!(registers(&world), before, "{from}");
    }
    // The right one: all are told that the port varies, once.
    says(&mut world, "203.0.113.1:28284", nonce);
    says(&mut world, "203.0.113.1:28284", nonce);
    world.run(seconds(1));
    assert_eq!(registers(&world), before + 1);
    let _ = two;
}

#[test]
fn a_server_whose_second_port_is_its_first_one_is_not_asked() {
    let (mut world, [one, _]) = apart(8, [Kind::HOME, Kind::HOME]);
    world.internet.servers[0].second = NonZeroU16::new(28283);
    world.start_server(0);
    world.start(one);
    world.run(seconds(60));
    assert_eq!(asked(&world)[0], 0);
}
