//! A server that ended and came back has lost nobody.

use std::collections::BTreeMap;

use atonce::wire::rendezvous::{Kind, size};

use crate::member::network;
use crate::world::{World, seconds};

#[test]
fn after_a_restart_all_are_introduced_and_register_again_at_once() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..50).map(|number| world.joined(&network, number)).collect();
    let from = world.sent.len();
    world.wait(seconds(1));
    world.tell(&mut members, from);
    let version = members.iter().map(|member| member.known).max().unwrap();
    world.restart();
    assert_eq!(world.server.members(), 0);

    for member in &mut members {
        let keep = member.keep(false);
        assert_eq!(world.ask(member, &keep), [Kind::Kept], "without a wish for an answer: it is news");
        assert_eq!(member.register_after, Some(0));
    }
    assert_eq!((world.server.members(), world.server.namespaces()), (50, 1));
    let target = members[49].handle;
    let intro = members[0].intro(target, b"come");
    assert_eq!(world.say(members[0].addr, &intro), Ok(()));
    assert_eq!(world.sent.last().unwrap().to, members[49].addr);

    for member in &mut members {
        let register = member.register(size::REGISTER);
        assert_eq!(world.ask(member, &register), [Kind::Retry], "the cookies of before are void");
        let register = member.register(size::REGISTER);
        assert_eq!(world.ask(member, &register), [Kind::Welcome]);
        assert!(member.known > version, "a version is higher than all of before");
    }
    let keep = members[0].keep(true);
    world.ask(&mut members[0], &keep);
    assert_eq!(members[0].register_after, None);
}

#[test]
fn after_a_restart_a_million_register_again_within_a_minute_and_no_twenty_thousand_in_one_second() {
    let mut world = World::new();
    let mut member = world.joined(&network(1), 1);
    world.restart();
    let mut turns = BTreeMap::<u16, u32>::new();
    // It does not register, as a million others that have not either.
    for _ in 0..1_300_000 {
        let keep = member.keep(false);
        world.ask(&mut member, &keep);
        *turns.entry(member.register_after.unwrap()).or_default() += 1;
    }
    assert!(turns.iter().all(|(second, count)| *second == 60 || *count <= 20_000), "{turns:?}");
    assert_eq!(turns.keys().max(), Some(&60));
}

#[test]
fn a_member_lists_and_introduces_itself_at_a_server_that_has_just_forgotten_it() {
    let mut world = World::new();
    let network = network(1);
    let (mut left, mut right) = (world.joined(&network, 1), world.joined(&network, 2));
    world.restart();
    let list = left.list(size::LIST);
    assert_eq!(world.ask(&mut left, &list), [Kind::Page]);
    let keep = right.keep(false);
    world.ask(&mut right, &keep);
    let intro = left.intro(right.handle, b"come");
    assert_eq!(world.say(left.addr, &intro), Ok(()));
}

#[test]
fn a_token_lives_for_one_hour_and_less_than_two() {
    let mut world = World::new();
    let network = network(1);
    let mut member = world.joined(&network, 1);
    // Its hour has begun 1600 s ago.
    let token = member.token;
    world.wait(seconds(2 * 3600 - 1600 - 2));
    let keep = member.keep(true);
    assert_eq!(world.ask(&mut member, &keep), [Kind::Kept]);
    assert_ne!(member.token, token);
    member.token = token;
    world.wait(seconds(3));
    let keep = member.keep(true);
    assert_eq!(world.ask(&mut member, &keep), [Kind::Retry]);
}
