//! What is written on disk, and how often.

use std::net::SocketAddr;

use atonce::wire::message::Record;

use crate::load::{Ghost, answers, introduction, said};
use crate::world::{World, milliseconds, seconds};

/// A stranger comes from that address, and leaves at once.
fn passes(world: &mut World, number: u32, addr: SocketAddr) {
    let mut ghost = Ghost::new(number);
    let first = ghost.first_message(world.id(0));
    let response = answers(world, addr, &first).remove(0);
    let mut session = ghost.session(&response);
    for record in [introduction("ghost"), Record::Goodbye] {
        let packet = said(&mut session, &record);
        let at = world.now;
        world.inject(at, 0, addr, &packet);
    }
}

#[test]
fn strangers_that_come_and_go_each_second_have_nothing_written() {
    let mut world = World::lan(1, 1);
    world.run(seconds(2));
    for n in 0..600 {
        passes(&mut world, n, ([10, 0, 1, (n % 250) as u8], 1000 + n as u16).into());
        world.run(milliseconds(999));
    }
    assert_eq!(world.hosts[0].remembered, 0);
}

#[test]
fn one_that_comes_and_goes_at_ever_other_addresses_costs_a_write_in_ten_minutes() {
    let mut world = World::lan(2, 2);
    world.run(seconds(60));
    let before = world.hosts[0].remembered;
    let hour = 360;
    for n in 0..hour {
        if n % 2 == 0 {
            world.stop(1);
            world.renumber(1, [10, 0, 1, (n % 250) as u8].into());
        } else {
            world.start(1);
        }
        world.run(seconds(10));
    }
    let writes = world.hosts[0].remembered - before;
    assert!((3..=7).contains(&writes), "{writes} in an hour");
}

#[test]
fn a_crowd_of_new_keys_that_stay_costs_few_writes_more() {
    let mut world = World::lan(3, 1);
    for n in 0..60 {
        world.add(&format!("new-{n}"), 0);
    }
    for n in 1..=60 {
        world.start(n);
        world.run(seconds(60));
    }
    // One in ten minutes, and six that were saved for names.
    let writes = world.hosts[0].remembered;
    assert!((6..=13).contains(&writes), "{writes} in an hour");
}

#[test]
fn a_name_is_kept_within_seconds_of_its_owner_having_stayed_and_nothing_is_written_while_nothing_changes() {
    let mut world = World::lan(4, 3);
    world.run(seconds(15));
    assert_eq!(world.hosts[0].remembered, 1, "both at once");
    world.run(seconds(7200));
    assert_eq!(world.hosts[0].remembered, 1);
    // What a person does is written at once.
    let app = world.connect(0);
    world.stop(2);
    world.say(0, app, r#"{"op":"forget","id":1,"to":"pi-2"}"#);
    assert_eq!(world.hosts[0].remembered, 2);
}
