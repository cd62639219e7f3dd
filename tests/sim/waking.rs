//! Machines that sleep, and machines that are resumed from a snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use atonce::core::Destination;

use crate::world::{World, milliseconds, seconds};

/// The type byte of data packets, and where they name their session (protocol.md, 2).
const DATA: u8 = 4;

#[test]
fn who_wakes_after_any_time_is_with_the_others_again_at_once() {
    for (seed, minutes) in [0, 1, 5, 20, 600].into_iter().enumerate() {
        let mut world = World::lan(seed as u64, 4);
        world.run(seconds(2));
        world.suspend(1, Duration::from_secs(minutes * 60 + 20));
        let everybody = |world: &mut World| (0..4).all(|host| world.online(host) == 3);
        assert!(world.run_for(milliseconds(300), everybody), "after {minutes} minutes");
        let (listener, app) = (world.listener(2, "t"), world.connect(1));
        world.send(1, app, 1, "pi-2", "t", "good morning");
        world.run(milliseconds(100));
        assert_eq!(world.outcome(1, app, 1), Some("delivered"), "after {minutes} minutes");
        assert_eq!(world.heard(2, listener, "message").len(), 1);
    }
}

#[test]
fn a_short_nap_is_no_exit() {
    let mut world = World::lan(7, 2);
    world.run(seconds(2));
    let watchers = [0, 1].map(|host| world.watcher(host));
    world.suspend(1, seconds(2));
    world.run(seconds(10));
    for (host, watcher) in watchers.into_iter().enumerate() {
        assert!(world.heard(host, watcher, "exit").is_empty(), "{host}");
    }
}

#[test]
fn after_a_jump_of_the_clock_no_key_of_before_is_used_again() {
    let mut world = World::lan(8, 3);
    let today = seconds(1_795_449_600);
    let set_clock = |world: &mut World, ahead: Duration| {
        let now = world.now;
        world.with(0, |node| node.handle_wall_clock(today + now.since_origin() + ahead, now));
    };
    set_clock(&mut world, Duration::ZERO);
    world.capture = Some(Vec::new());
    world.run(seconds(2));
    set_clock(&mut world, seconds(1));
    let (listener, app) = (world.listener(1, "t"), world.connect(0));
    world.run(seconds(1));
    world.send(0, app, 1, "pi-1", "t", "before");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"), "a second is no jump");
    let before = sessions_used(&mut world);

    world.send(0, app, 2, "pi-1", "t", "on its way");
    set_clock(&mut world, seconds(3600));
    world.capture = Some(Vec::new());
    assert!(world.run_for(milliseconds(400), |world| (0..3).all(|host| world.online(host) == 2)));
    world.send(0, app, 3, "pi-1", "t", "after");
    world.run(seconds(6));
    assert_eq!(world.outcome(0, app, 3), Some("delivered"));
    assert!(sessions_used(&mut world).is_disjoint(&before));
    // Nobody can know whether what was under way came: its outcome says so.
    assert_eq!(world.outcome(0, app, 2), Some("timeout"));
    assert!(world.heard(1, listener, "message").len() <= 3);
}

#[test]
fn a_clock_that_is_set_back_ten_years_changes_nothing() {
    let mut world = World::lan(9, 2);
    let now = world.now;
    world.with(0, |node| node.handle_wall_clock(seconds(1_795_449_600), now));
    world.run(seconds(2));
    let watcher = world.watcher(1);
    let now = world.now;
    world.with(0, |node| node.handle_wall_clock(seconds(1_795_449_600 - 10 * 365 * 86_400), now));
    world.run(seconds(600));
    assert!(world.heard(1, watcher, "exit").is_empty());
}

/// The sessions in which host 0 sent data since the recording began, as their receivers call them.
fn sessions_used(world: &mut World) -> BTreeSet<Vec<u8>> {
    let from = world.hosts[0].addr;
    let capture = world.capture.take().unwrap();
    let data = capture.into_iter().filter(|(source, to, bytes)| {
        *source == from && matches!(to, Destination::One(_)) && bytes[0] == DATA
    });
    data.map(|(_, _, bytes)| bytes[1..4].to_vec()).collect()
}
