//! The second port: how does it see me?

use std::net::SocketAddr;
use std::num::NonZeroU16;

use atonce::route::Route;
use atonce::server::{Config, Dropped, SECOND_PORT};
use atonce::wire::rendezvous::{FromServer, Kind, size};

use crate::member::{Member, network};
use crate::world::{LOCAL, World, seconds, v4, v6};

/// What left, and where from and to.
type Sent = Vec<(Route, Vec<u8>)>;

/// Sends a datagram to the second port; tells what came back, with where it left from.
fn ask(world: &mut World, from: SocketAddr, datagram: &[u8]) -> (Result<(), Dropped>, Sent) {
    let route = Route { local: Some(LOCAL.into()), port: SECOND_PORT, ..Route::to(from) };
    let outcome = world.server.handle_datagram(route, datagram, world.now);
    let (mut sent, mut buffer) = (Vec::new(), Vec::new());
    while let Some(to) = world.server.poll_transmit(&mut buffer) {
        sent.push((to, buffer.clone()));
    }
    (outcome, sent)
}

#[test]
fn whoever_asks_is_told_where_the_question_came_from_in_as_many_bytes_and_nothing_is_kept() {
    let mut world = World::new();
    for from in [v4(1), v6(1)] {
        let mut member = world.member(&network(1), 1);
        member.addr = from;
        for _ in 0..10_000 {
            let question = member.ask_where();
            let (outcome, sent) = ask(&mut world, from, &question);
            assert_eq!(outcome, Ok(()));
            let [(to, answer)] = &sent[..] else { panic!("{} answers", sent.len()) };
            assert_eq!((to.remote, to.local, to.port), (from, Some(LOCAL.into()), SECOND_PORT));
            assert_eq!((answer.len(), question.len()), (size::HERE, size::WHERE));
            let Ok(FromServer::Here(here)) = FromServer::parse(answer) else { panic!("{answer:?}") };
            assert_eq!((here.seen, &here.nonce.0[..]), (from, &question[4..12]));
        }
    }
    assert_eq!((world.server.members(), world.server.poll_timeout()), (0, None));
}

#[test]
fn a_question_in_ipv6_dress_of_an_ipv4_address_is_told_the_ipv4_address() {
    let mut world = World::new();
    let question = world.member(&network(1), 1).ask_where();
    let from: SocketAddr = "[::ffff:192.0.2.7]:9".parse().unwrap();
    let (_, sent) = ask(&mut world, from, &question);
    let Ok(FromServer::Here(here)) = FromServer::parse(&sent[0].1) else { panic!("no answer") };
    assert_eq!(here.seen, ([192, 0, 2, 7], 9).into());
}

#[test]
fn nothing_else_is_done_at_the_second_port_and_this_is_not_done_at_the_first_one() {
    let mut world = World::new();
    let network = network(1);
    let (mut one, two) = (world.joined(&network, 1), world.joined(&network, 2));
    let all = [
        one.hail(),
        one.register(size::MESSAGE_MAX),
        one.keep(true),
        one.list(size::MESSAGE_MAX),
        one.intro(two.handle, b"x"),
        one.probe(1),
        one.bye(),
    ];
    for message in &all {
        let (outcome, sent) = ask(&mut world, one.addr, message);
        assert_eq!((outcome, sent.len()), (Err(Dropped::Port), 0), "{:?}", Kind::of(message));
    }
    assert_eq!((world.server.members(), world.server.echoes()), (2, 0));
    // What it is asked may be of the right length only.
    let question = one.ask_where();
    for wrong in [&question[..29], &[&question[..], &[0]].concat()] {
        assert_eq!(ask(&mut world, one.addr, wrong), (Err(Dropped::Length), Vec::new()));
    }
    let from = world.sent.len();
    assert_eq!(world.say(one.addr, &question), Err(Dropped::Port));
    assert_eq!(world.sent.len(), from);
    // Nor does it prolong a lease.
    for _ in 0..13 {
        world.wait(seconds(10));
        let (outcome, _) = ask(&mut world, one.addr, &question);
        assert_eq!(outcome, Ok(()));
    }
    assert_eq!(world.server.members(), 0);
}

#[test]
fn members_are_told_which_port_it_is_and_of_none_where_there_is_none() {
    for second_port in [None, NonZeroU16::new(28284), NonZeroU16::new(65535)] {
        let mut world = World::with(Config { second_port, ..Config::default() }, 1);
        let mut member: Member = world.member(&network(1), 1);
        world.join(&mut member);
        assert_eq!(member.second_port, second_port);
    }
}
