//! The clauses of the contract of `core`.

use atonce::core::Route;

use crate::world::{Weather, World, milliseconds, seconds};

/// Five hosts, some traffic, a crash and a restart.
fn busy(seed: u64, restless: bool) -> World {
    let mut world = World::new(seed);
    world.restless = restless;
    world.weather = Weather::STORM;
    for n in 0..5 {
        let host = world.add(&format!("pi-{n}"), 0);
        world.start(host);
    }
    world.run(seconds(2));
    world.listener(1, "t");
    let app = world.connect(0);
    for id in 0..50 {
        world.send(0, app, id, "pi-1", "t", "hello");
        world.run(milliseconds(20));
    }
    world.crash(3);
    world.run(seconds(8));
    world.start(3);
    world.run(seconds(3));
    world
}

#[test]
fn equal_seeds_give_equal_traces_and_other_seeds_give_others() {
    assert_eq!(busy(7, false).trace(), busy(7, false).trace());
    assert_ne!(busy(7, false).trace(), busy(8, false).trace());
}

#[test]
fn driving_every_ten_milliseconds_changes_nothing() {
    for seed in 0..5 {
        assert_eq!(busy(seed, false).trace(), busy(seed, true).trace(), "seed {seed}");
    }
}

#[test]
fn inputs_may_be_given_in_any_number_before_the_outputs_are_taken() {
    let sent = |batched: bool| {
        let mut world = World::lan(3, 2);
        world.run(seconds(1));
        let listener = world.listener(1, "t");
        world.run(seconds(1));
        let app = world.connect(0);
        let now = world.now;
        for id in 0..200 {
            let line = format!(r#"{{"op":"send","id":{id},"to":"pi-1","topic":"t","text":"{id}"}}"#);
            let request = || atonce::wire::local::Request::parse(line.as_bytes());
            if batched {
                world.with_undrained(0, |node| node.handle_request(app, request(), now));
            } else {
                world.with(0, |node| node.handle_request(app, request(), now));
            }
        }
        world.drain(0);
        world.run(seconds(1));
        let texts: Vec<_> =
            world.heard(1, listener, "message").iter().map(|line| line["text"].clone()).collect();
        (texts, world.hosts[0].sent_packets)
    };
    let (one_by_one, many_packets) = sent(false);
    let (batched, few_packets) = sent(true);
    assert_eq!(one_by_one, batched);
    assert_eq!(batched.len(), 200);
    assert!(
        few_packets * 4 < many_packets,
        "small messages share datagrams: {few_packets} of {many_packets}"
    );
}

#[test]
fn a_datagram_that_is_dropped_changes_nothing_but_a_counter() {
    let traced = |garbage: bool| {
        let mut world = World::lan(11, 3);
        world.run(milliseconds(300));
        for round in 0..200_u64 {
            if garbage {
                let length = world_free(round * 7 % 300);
                let mut bytes: Vec<u8> = (0..length).map(|n| (n * 31 + round) as u8).collect();
                bytes.insert(0, (round % 9) as u8);
                let (now, remote) = (world.now, world.hosts[1].addr);
                let dropped = world.with(0, |node| node.handle_datagram(Route::to(remote), &mut bytes, now));
                assert!(dropped.unwrap().is_err());
            }
            world.run(milliseconds(10));
        }
        world.trace()
    };
    assert_eq!(traced(false), traced(true));
}

fn world_free(length: u64) -> u64 {
    length
}
