//! Paths that carry less than the usual datagram, and people who say that a path does.

use std::net::SocketAddr;

use atonce::core::Destination;

use crate::world::{World, milliseconds, seconds};

/// Two hosts, a listener on the second and an app on the first.
fn pair(seed: u64) -> (World, atonce::id::ClientId) {
    let mut world = World::lan(seed, 2);
    world.run(seconds(2));
    world.listener(1, "t");
    let app = world.connect(0);
    world.run(seconds(1));
    (world, app)
}

/// Sends a short and the longest message; both are delivered.
fn deliver(world: &mut World, app: atonce::id::ClientId, id: u64, case: &str) {
    for (id, bytes) in [(id, 10), (id + 1, 60 * 1024)] {
        world.send(0, app, id, "pi-1", "t", &"x".repeat(bytes));
        let done = |world: &mut World| world.outcome(0, app, id).is_some();
        world.run_for(seconds(6), done);
        assert_eq!(world.outcome(0, app, id), Some("delivered"), "{case}: {bytes} bytes");
    }
}

/// The longest datagram that the first host sends to one address from now on, while `act` goes on.
fn longest(world: &mut World, act: impl FnOnce(&mut World)) -> usize {
    world.capture = Some(Vec::new());
    let here = world.hosts[0].addr;
    act(world);
    let sent = world.capture.take().unwrap();
    let to_one = |(from, to, _): &&(SocketAddr, Destination, Vec<u8>)| {
        *from == here && matches!(to, Destination::One(_))
    };
    sent.iter().filter(to_one).map(|(_, _, bytes)| bytes.len()).max().unwrap()
}

#[test]
fn a_path_that_swallows_what_is_longer_than_it_carries_is_got_through_whatever_that_is() {
    for carries in [548, 600, 971, 972, 1000, 1199, 1200, 1399] {
        for both in [false, true] {
            let (mut world, app) = pair(carries as u64);
            world.narrow.insert((0, 1), carries);
            if both {
                world.narrow.insert((1, 0), carries);
            }
            let case = format!("{carries} bytes, both ways: {both}");
            deliver(&mut world, app, 0, &case);
            deliver(&mut world, app, 2, &case);
        }
    }
}

#[test]
fn what_our_own_system_refuses_is_sent_smaller_at_once() {
    let (mut world, app) = pair(1);
    deliver(&mut world, app, 0, "before");
    let (there, now) = (world.hosts[1].addr, world.now);
    // The system names no port.
    let there = SocketAddr::new(there.ip(), 0);
    world.with(0, |node| node.handle_too_large(there, 1000, true, now));
    let longest = longest(&mut world, |world| deliver(world, app, 2, "after"));
    assert!(longest <= 972 && longest > 900, "{longest}");
}

#[test]
fn a_refused_message_is_sent_again_smaller_and_not_waited_for() {
    let (mut world, app) = pair(2);
    world.narrow.insert((0, 1), 548);
    world.send(0, app, 0, "pi-1", "t", &"x".repeat(1100));
    let (there, now) = (world.hosts[1].addr, world.now);
    world.with(0, |node| node.handle_too_large(there, 576, true, now));
    world.run(milliseconds(5));
    assert_eq!(world.outcome(0, app, 0), Some("delivered"));
}

#[test]
fn who_says_falsely_that_a_path_carries_little_makes_datagrams_no_smaller_than_the_least_and_not_for_long() {
    let (mut world, app) = pair(3);
    deliver(&mut world, app, 0, "before");
    let there = world.hosts[1].addr;
    for (id, mtu) in [(2, 0), (4, 68), (6, 576), (8, 1000)] {
        let now = world.now;
        let sent = longest(&mut world, |world| {
            world.with(0, |node| node.handle_too_large(there, mtu, false, now));
            deliver(world, app, id, "lied to");
            deliver(world, app, 100 + id, "lied to");
        });
        assert!(sent > 1400, "{mtu}: {sent}");
    }
}
