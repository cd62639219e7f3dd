//! How long keys are kept.

use crate::world::{HostId, World, milliseconds, seconds};

/// Lets time pass and says how old the oldest keys at a host ever were.
fn oldest(world: &mut World, host: HostId, duration: u64, mut each: impl FnMut(&mut World, u64)) -> u64 {
    let mut oldest = 0;
    for second in 0..duration {
        world.run(seconds(1));
        each(world, second);
        oldest = oldest.max(world.counter(host, "oldest-session-key-seconds"));
    }
    oldest
}

#[test]
fn no_keys_of_an_idle_session_are_older_than_540_seconds_nor_those_of_the_one_before() {
    let mut world = World::lan(1, 3);
    world.run(seconds(2));
    let oldest = oldest(&mut world, 0, 3000, |_, _| {});
    assert!((480..=540).contains(&oldest), "{oldest}");
    assert_eq!(world.online(0), 2);
}

#[test]
fn no_keys_of_a_session_in_use_are_older_than_540_seconds_whenever_it_was_renewed() {
    let mut world = World::lan(2, 2);
    world.run(seconds(2));
    world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    // Used for a while after each renewal of an idle session: then the one before is old when it is replaced.
    let mut id = 0;
    let oldest = oldest(&mut world, 0, 3000, |world, second| {
        if second % 700 > 470 && second % 700 < 640 {
            id += 1;
            world.send(0, app, id, "pi-1", "t", "x");
        }
    });
    assert!(oldest <= 540, "{oldest}");
}

#[test]
fn no_keys_of_a_session_that_is_lost_or_never_finished_are_kept() {
    let mut world = World::lan(3, 2);
    world.run(seconds(2));
    let first = crate::load::Ghost::new(1).first_message(world.id(0));
    let at = world.now;
    world.inject(at, 0, ([10, 0, 0, 77], 7).into(), &first);
    world.crash(1);
    world.run(milliseconds(100));
    assert_eq!(world.counter(0, "half-open-handshakes"), 1);
    let oldest = oldest(&mut world, 0, 700, |_, _| {});
    assert!(oldest <= 20, "{oldest}");
}

#[test]
fn no_keys_of_peers_beyond_those_with_whom_sessions_are_kept_are_older_than_540_seconds() {
    let mut world = World::lan(4, 140);
    assert!(world.run_for(seconds(60), |world| world.all_have(139)));
    let mut oldest = 0;
    for _ in 0..120 {
        world.run(seconds(10));
        oldest = oldest.max(world.counter(0, "oldest-session-key-seconds"));
    }
    assert!(oldest <= 540, "{oldest}");
    assert!(world.counter(0, "sessions") < 128);
}
