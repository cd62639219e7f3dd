//! A server that ended and came back has lost nobody.

use std::collections::{BTreeMap, BTreeSet};

use atonce::crypto::namespace::NamespaceKeys;
use atonce::server::Dropped;
use atonce::wire::rendezvous::{Kind, size};

use crate::member::{Member, network};
use crate::world::{DAY, World, ms, seconds, v4};

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
        // With room for one of the others, by which the version is known.
        let register = member.register(size::WELCOME + size::ENTRY + member.blob_bytes);
        assert_eq!(world.ask(member, &register), [Kind::Welcome]);
        assert!(member.known > version, "a version is higher than all of before");
    }
    let keep = members[0].keep(true);
    world.ask(&mut members[0], &keep);
    assert_eq!(members[0].register_after, None);
}

/// What a member of the great restart does next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Keep,
    Register,
}

#[test]
fn of_a_hundred_thousand_each_is_introduced_within_a_keep_after_a_restart_and_20_000_a_second_register() {
    const NETWORKS: u32 = 1000;
    const EACH: u32 = 100;
    let mut world = World::new();
    let server = world.server.key();
    let mut members = Vec::new();
    for number in 0..NETWORKS * EACH {
        if number % EACH == 0 {
            let keys = NamespaceKeys::of_day(&network(number.into()), &server, DAY).unwrap();
            members.push(Member::with_keys(keys, number, v4(number)));
        } else {
            let keys: &Member = members.last().unwrap();
            members.push(Member::with_keys(keys.keys.clone(), number, v4(number)));
        }
        world.join(members.last_mut().unwrap());
        world.sent.clear();
    }
    world.wait(ms(400));
    world.restart();
    assert_eq!((world.server.members(), world.server.namespaces()), (0, 0));

    // Half of them come within half a second, since something else made them; the others within their 25 s.
    let began = world.now;
    let total = NETWORKS * EACH;
    let when = |number: u32| if number.is_multiple_of(2) { number / 200 } else { number / 4 };
    let mut acts: BTreeSet<_> =
        (0..total).map(|number| (began + ms(when(number).into()), number, Act::Keep)).collect();
    let mut registered = BTreeMap::<u64, u32>::new();
    let mut last = began;
    while let Some((at, number, act)) = acts.pop_first() {
        world.wait(at.since(world.now));
        let member = &mut members[number as usize];
        if act == Act::Keep {
            let keep = member.keep(false);
            assert_eq!(world.ask(member, &keep), [Kind::Kept]);
            let after = member.register_after.unwrap();
            acts.insert((at + seconds(after.into()), number, Act::Register));
        } else {
            world.join(member);
            *registered.entry(at.since_origin().as_secs()).or_default() += 1;
            last = at;
        }
        world.sent.clear();
    }
    assert!(last.since(began) <= seconds(27), "{:?}", last.since(began));
    assert!(registered.values().all(|count| *count <= 20_000), "{registered:?}");
    assert!(registered.values().max() >= Some(&19_000), "the rate was not tried: {registered:?}");

    // One keep, with what it may be late by, and everybody reaches everybody who was there.
    assert!(world.now.since(began) <= seconds(28));
    assert_eq!(world.server.members(), total as usize);
    for number in 0..total {
        let next = number / EACH * EACH + (number + 1) % EACH;
        let (target, to) = (members[next as usize].handle, members[next as usize].addr);
        let member = &mut members[number as usize];
        let intro = member.intro(target, b"come");
        assert_eq!(world.say(member.addr, &intro), Ok(()));
        let sent = world.sent.pop().unwrap();
        assert_eq!((sent.kind(), sent.to), (Kind::Knock, to));
        members[next as usize].hear(&sent.bytes);
        world.sent.clear();
    }
    for first in (0..total).step_by(EACH as usize) {
        let member = &mut members[first as usize];
        let list = member.list(size::LIST);
        world.ask(member, &list);
        assert_eq!(u32::from(member.members), EACH);
        world.sent.clear();
    }
}

#[test]
fn right_after_a_restart_an_introduction_needs_a_keep_of_the_target_only() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..3).map(|number| world.joined(&network, number)).collect();
    world.restart();
    let target = members[1].handle;
    let intro = members[0].intro(target, b"come");
    assert_eq!(world.say(members[0].addr, &intro), Err(Dropped::Nobody));
    let keep = members[1].keep(false);
    world.ask(&mut members[1], &keep);
    let intro = members[2].intro(target, b"come");
    assert_eq!(world.say(members[2].addr, &intro), Ok(()));
    assert_eq!(world.sent.last().unwrap().to, members[1].addr);
}

#[test]
fn a_member_has_one_turn_to_register_again_however_often_it_keeps() {
    let mut world = World::new();
    let network = network(1);
    let (mut member, mut other) = (world.joined(&network, 1), world.joined(&network, 2));
    world.restart();
    for _ in 0..50_000 {
        let keep = member.keep(false);
        world.ask(&mut member, &keep);
        assert_eq!(member.register_after, Some(0));
        world.sent.clear();
    }
    let keep = other.keep(false);
    world.ask(&mut other, &keep);
    assert_eq!(other.register_after, Some(0), "the turns of the others are theirs");
    // A turn that was missed is given again.
    world.wait(seconds(25));
    let keep = member.keep(false);
    world.ask(&mut member, &keep);
    assert_eq!(member.register_after, Some(0));
    world.join(&mut member);
    let keep = member.keep(true);
    world.ask(&mut member, &keep);
    assert_eq!(member.register_after, None);
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
