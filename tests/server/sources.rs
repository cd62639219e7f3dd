//! How much one source, member, namespace or server may have.

use atonce::crypto::namespace::NamespaceKeys;
use atonce::limits;
use atonce::server::{Config, Dropped};
use atonce::wire::rendezvous::{Kind, Refusal, size};

use crate::member::{Member, network};
use crate::world::{DAY, World, ms, seconds, v4, v6};

#[test]
fn one_source_registers_64_times_in_a_burst_and_16_times_a_second() {
    let mut world = World::new();
    let network = network(1);
    let tries = |world: &mut World, first: u32| {
        let taken = |number: u32, world: &mut World| {
            // Behind one translator: one address, many ports.
            let mut member = world.member(&network, first + number);
            member.addr = v4(1);
            member.addr.set_port(number as u16);
            let hail = member.hail();
            world.ask(&mut member, &hail);
            let register = member.register(size::REGISTER);
            world.ask(&mut member, &register).contains(&Kind::Welcome)
        };
        (0..200).filter(|number| taken(*number, world)).count()
    };
    assert_eq!(tries(&mut world, 0), 64);
    assert_eq!(world.refusal(), Some(Refusal::Address));
    world.wait(seconds(1));
    assert_eq!(tries(&mut world, 1000), 16);
    // Others are not concerned.
    world.joined(&network, 5000);
    let mut six = world.member(&network, 6000);
    six.addr = v6(1);
    world.join(&mut six);
}

#[test]
fn ten_thousand_namespaces_of_one_source_are_64_and_another_source_still_has_its_own() {
    let mut world = World::new();
    let server = world.server.key();
    let mut refused = 0;
    for number in 0..10_000_u32 {
        let keys = network(number.into());
        let mut member = Member::new(&keys, &server, DAY, number, v4(1));
        let hail = member.hail();
        world.ask(&mut member, &hail);
        let register = member.register(size::REGISTER);
        refused += usize::from(world.ask(&mut member, &register) == [Kind::Nope]);
        world.sent.clear();
        // Slow enough for the other limit, fast enough for the leases.
        if number < 200 {
            world.wait(ms(100));
        }
    }
    assert!(world.server.namespaces() <= limits::NAMESPACES_PER_SOURCE[0]);
    assert_eq!(refused, 10_000 - limits::NAMESPACES_PER_SOURCE[0]);
    world.joined(&network(77_777), 2);
    // What left makes room.
    world.wait(seconds(125));
    assert_eq!(world.server.namespaces(), 0);
    world.joined(&network(88_888), 1);
}

#[test]
fn a_source_that_all_its_members_left_for_another_one_may_have_others() {
    let mut world = World::new();
    let mut members: Vec<_> = (0..64).map(|number| world.member(&network(number.into()), number)).collect();
    for number in [1, 2] {
        for member in &mut members {
            member.addr = v4(number);
            world.join(member);
        }
    }
    let mut newcomer = world.member(&network(777), 777);
    newcomer.addr = v4(1);
    world.wait(seconds(1));
    world.join(&mut newcomer);
    assert_eq!(world.server.namespaces(), 65);
}

#[test]
fn the_4097th_member_of_a_namespace_is_told_that_it_is_full() {
    let mut world = World::new();
    let server = world.server.key();
    let keys = NamespaceKeys::of_day(&network(1), &server, DAY).unwrap();
    for number in 0..limits::NAMESPACE_MEMBERS as u32 {
        let mut member = Member::with_keys(keys.clone(), number, v4(number));
        world.join(&mut member);
    }
    let mut last = Member::with_keys(keys, 9999, v4(9999));
    let hail = last.hail();
    world.ask(&mut last, &hail);
    let register = last.register(size::REGISTER);
    assert_eq!(world.ask(&mut last, &register), [Kind::Nope]);
    assert_eq!(world.refusal(), Some(Refusal::Namespace));
    assert_eq!(world.server.members(), limits::NAMESPACE_MEMBERS);
    // Other networks are not concerned.
    world.joined(&network(2), 10_000);
}

#[test]
fn a_full_server_says_so_to_members_and_takes_them_when_others_left() {
    let mut world = World::with(Config { members_max: 3, ..Config::default() }, 1);
    let network = network(1);
    let mut first = world.joined(&network, 0);
    for number in 1..3 {
        world.joined(&network, number);
    }
    let mut last = world.member(&network, 3);
    let hail = last.hail();
    world.ask(&mut last, &hail);
    let register = last.register(size::REGISTER);
    assert_eq!(world.ask(&mut last, &register), [Kind::Nope]);
    assert_eq!(world.refusal(), Some(Refusal::Server));
    let bye = first.bye();
    world.ask(&mut first, &bye);
    let register = last.register(size::REGISTER);
    assert_eq!(world.ask(&mut last, &register), [Kind::Welcome]);
}

#[test]
fn a_member_sends_64_intros_in_a_burst_and_one_a_second_and_gets_four_knocks_a_second() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..5).map(|number| world.joined(&network, number)).collect();
    world.wait(seconds(1));
    let target = members.pop().unwrap().handle;
    let knocks = |world: &mut World, member: &mut Member| {
        let intro = |_: &i32| {
            let intro = member.intro(target, b"x");
            let outcome = world.say(member.addr, &intro);
            assert!(matches!(outcome, Ok(()) | Err(Dropped::OverLimit)), "{outcome:?}");
            outcome.is_ok()
        };
        (0..200).filter(intro).count()
    };
    assert_eq!(knocks(&mut world, &mut members[0]), 64);
    assert_eq!(knocks(&mut world, &mut members[1]), 0, "the target has had its share");
    world.wait(seconds(8));
    assert_eq!(knocks(&mut world, &mut members[0]), 8);
    assert_eq!(knocks(&mut world, &mut members[2]), 24);
}

/// A register of a namespace that is nobody's, with a cookie that is right.
fn guess(world: &mut World, member: &mut Member, namespace: u32) -> Result<(), Dropped> {
    let mut register = member.register(size::REGISTER);
    register[12..16].copy_from_slice(&namespace.to_le_bytes());
    register[40] = 9;
    world.say(member.addr, &register)
}

#[test]
fn whoever_guesses_namespaces_gets_one_key_exchange_a_second_and_cannot_tell_those_that_are_there() {
    let mut told = Vec::new();
    for there in [false, true] {
        let mut world = World::new();
        let keys = network(1);
        if there {
            world.joined(&keys, 1);
        }
        let mut stranger = world.member(&network(2), 2);
        let hail = stranger.hail();
        world.ask(&mut stranger, &hail);
        let namespace = *world.member(&keys, 1).keys.namespace();
        let (mut forged, from) = (0, world.sent.len());
        for _ in 0..1000 {
            let mut register = stranger.register(size::REGISTER);
            register[12..44].copy_from_slice(&namespace.0);
            forged += usize::from(world.say(stranger.addr, &register) == Err(Dropped::Forged));
            world.wait(ms(10));
        }
        assert!(there || (13..=14).contains(&forged), "{forged} key exchanges in ten seconds");
        told.push(world.sent.drain(from..).map(|sent| (sent.at, sent.bytes)).collect::<Vec<_>>());
        // Whoever sits at the same address is not concerned where it is known, and elsewhere not for long.
        world.wait(seconds(1));
        let mut neighbour = world.member(&keys, 3);
        neighbour.addr = stranger.addr;
        neighbour.addr.set_port(7);
        world.join(&mut neighbour);
    }
    assert!(told[0] == told[1] && told[0].len() > 700, "{}", told[0].len());
}

#[test]
fn however_many_sources_guess_in_a_network_that_is_there_its_members_get_in() {
    let mut world = World::new();
    let network = network(1);
    let member = world.joined(&network, 1);
    // More than there are buckets, so that each of these is met.
    for number in 10_000..310_000 {
        let mut stranger = Member::with_keys(member.keys.clone(), number, v4(number));
        let hail = stranger.hail();
        world.ask(&mut stranger, &hail);
        let mut register = stranger.register(size::REGISTER);
        *register.last_mut().unwrap() ^= 1;
        assert_eq!(world.say(stranger.addr, &register), Err(Dropped::Forged));
        world.sent.clear();
    }
    for number in 100..200 {
        world.joined(&network, number);
    }
}

#[test]
fn however_many_sources_guess_there_are_4000_key_exchanges_a_second_and_members_do_not_notice() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..2).map(|number| world.joined(&network, number)).collect();
    world.wait(seconds(2));
    let mut guesses = 0;
    for number in 0..6000 {
        let mut stranger = world.member(&network, 10_000 + number);
        let hail = stranger.hail();
        world.ask(&mut stranger, &hail);
        let from = world.sent.len();
        let outcome = guess(&mut world, &mut stranger, number);
        guesses += usize::from(outcome == Err(Dropped::Forged));
        assert!(matches!(outcome, Err(Dropped::Forged | Dropped::OverLimit)), "{outcome:?}");
        assert_eq!(world.sent.len(), from, "both are silent, so nobody learns by it what is there");
    }
    assert_eq!(guesses, 4096);
    // Who is there, and who joins those, needs none.
    for member in &mut members {
        let keep = member.keep(true);
        assert_eq!(world.ask(member, &keep), [Kind::Kept]);
    }
    world.joined(&network, 77);
    // A new network gets in as soon as the others have paused.
    world.wait(ms(1));
    world.joined(&crate::member::network(2), 78);
}

#[test]
fn after_a_restart_tokens_bring_back_more_namespaces_than_strangers_may_try() {
    let mut world = World::new();
    let mut members: Vec<_> =
        (0..6000).map(|number| world.member(&network(u64::from(number)), number)).collect();
    for member in &mut members {
        world.join(member);
        world.wait(ms(1));
    }
    world.restart();
    for member in &mut members {
        let keep = member.keep(false);
        assert_eq!(world.ask(member, &keep), [Kind::Kept]);
    }
    assert_eq!(world.server.namespaces(), 6000);
}
