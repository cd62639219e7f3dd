//! What a state machine promises.

use atonce::server::Config;
use atonce::wire::rendezvous::size;

use crate::member::{Member, network};
use crate::world::{World, ms, seconds};

/// Whatever happens to a server within a few minutes; all that it said, and when.
fn story(world: &mut World) -> Vec<(u128, String, Vec<u8>)> {
    let network = network(1);
    let mut members: Vec<Member> = Vec::new();
    for number in 0..300 {
        members.push(world.joined(&network, number));
        world.wait(ms(u64::from(number % 7) * 10));
    }
    for round in 0..6 {
        world.wait(seconds(25));
        for (number, member) in members.iter_mut().enumerate().filter(|(number, _)| number % 3 != round) {
            let message = match (number + round) % 5 {
                0 => member.list(size::MESSAGE_MAX),
                1 => member.register(700),
                2 if number % 40 == 0 => member.bye(),
                _ => member.keep(number % 2 == 0),
            };
            world.ask(member, &message);
        }
    }
    world.wait(seconds(200));
    let told = |sent: &crate::world::Sent| {
        (sent.at.since_origin().as_millis(), sent.to.to_string(), sent.bytes.clone())
    };
    world.sent.iter().map(told).collect()
}

#[test]
fn equal_inputs_give_equal_outputs_byte_for_byte() {
    let first = story(&mut World::new());
    assert!(first.len() > 5000, "{}", first.len());
    assert!(story(&mut World::new()) == first);
    assert!(story(&mut World::with(Config::default(), 2)) != first);
}

#[test]
fn driven_at_its_deadlines_it_does_the_same_as_driven_every_10_ms() {
    let first = story(&mut World::new());
    let mut ticking = World::new();
    ticking.tick = Some(ms(10));
    assert!(story(&mut ticking) == first);
}
