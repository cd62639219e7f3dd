//! Two machines with one key.

use serde_json::Value;

use crate::world::{Weather, World, milliseconds, seconds};

/// The check `duplicate-identity` in the status of a host.
fn duplicate(world: &mut World, host: usize) -> Option<(String, String)> {
    let status = world.status(host);
    let checks = status["health"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == "duplicate-identity")?;
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    Some((text("state"), text("why")))
}

/// `c0` and `c1`, then `original`, and after a minute `copy` with its key.
fn cloned(seed: u64, weather: Weather) -> World {
    let mut world = World::new(seed);
    world.weather = weather;
    for name in ["c0", "c1", "original", "copy"] {
        let host = world.add(name, 0);
        if name != "copy" {
            world.start(host);
        }
    }
    world.clone_key(2, 3);
    world.run(seconds(60));
    world
}

fn of<'a>(lines: Vec<&'a Value>, id: &str) -> Vec<&'a Value> {
    lines.into_iter().filter(|line| line["peer"]["id"] == id).collect()
}

#[test]
fn the_first_of_two_machines_with_one_key_keeps_its_place_and_everybody_is_told() {
    for seed in 0..10 {
        let mut world = cloned(seed, Weather::FINE);
        let id = world.id(2).to_string();
        let watchers = [world.watcher(0), world.watcher(1)];
        let listener = world.listener(2, "t");
        world.listener(0, "t");
        world.start(3);
        let (watcher, insistent) = (world.watcher(3), world.connect(3));
        let app = world.connect(0);
        for round in 0..60 {
            world.send(0, app, round, "original", "t", "x");
            world.send(3, insistent, round, "c0", "t", "let me in");
            world.run(seconds(10));
            assert!(world.outcome(3, insistent, round).is_some() || round == 0, "seed {seed}, round {round}");
            assert_eq!(world.outcome(0, app, round), Some("delivered"), "seed {seed}, round {round}");
        }
        assert_eq!(world.heard(2, listener, "message").len(), 60, "seed {seed}");
        for (host, watcher) in watchers.into_iter().enumerate() {
            let told = of(world.heard(host, watcher, "exit"), &id).len();
            assert_eq!(told, 0, "seed {seed}, host {host}");
            let (state, why) = duplicate(&mut world, host).unwrap();
            assert_eq!(state, "warn");
            assert!(why.contains("10.0.0.3:28282, not to the one at 10.0.0.4:28282"), "{why}");
        }
        // In ten minutes the copy gets four answers of each at most: after 0, 1, 3 and 7 minutes.
        let entered = world.heard(3, watcher, "enter").len();
        assert_eq!(world.online(3), 0, "seed {seed}");
        assert!(entered <= 8, "seed {seed}: {entered}");
        for (host, other) in [(2, "copy at 10.0.0.4"), (3, "original at 10.0.0.3")] {
            let (state, why) = duplicate(&mut world, host).unwrap();
            assert_eq!(state, "fail", "seed {seed}");
            assert!(why.contains(other), "{why}");
        }
    }
}

#[test]
fn when_the_copy_is_gone_nothing_is_told_of_it_any_more() {
    let mut world = cloned(20, Weather::FINE);
    world.start(3);
    world.run(seconds(30));
    assert!(duplicate(&mut world, 2).is_some() && duplicate(&mut world, 0).is_some());
    world.crash(3);
    world.run(seconds(700));
    for host in 0..3 {
        assert_eq!(duplicate(&mut world, host), None, "host {host}");
    }
    assert_eq!([0, 1, 2].map(|host| world.online(host)), [2, 2, 2]);
}

#[test]
fn who_was_away_while_a_copy_took_its_place_is_back_when_that_is_gone() {
    let mut world = cloned(21, Weather::FINE);
    for other in [0, 1, 3] {
        world.cut.insert((2, other));
        world.cut.insert((other, 2));
    }
    world.run(seconds(20));
    world.start(3);
    world.run(seconds(5));
    assert_eq!((world.online(0), world.online(3)), (2, 2));
    world.cut.clear();
    // Its cable is in again.
    world.renumber(2, [10, 0, 0, 33].into());
    world.run(seconds(60));
    assert_eq!(duplicate(&mut world, 2).unwrap().0, "fail");
    assert_eq!(duplicate(&mut world, 3).unwrap().0, "fail");
    world.stop(3);
    assert!(world.run_for(seconds(90), |world| world.online(2) == 2));
    assert_eq!(duplicate(&mut world, 2), None);
}

#[test]
fn a_peer_that_crashed_and_comes_back_elsewhere_is_no_duplicate() {
    for seed in 0..20 {
        let mut world = cloned(seed, Weather::FINE);
        world.crash(2);
        // The same disk in another machine.
        world.start(3);
        assert!(
            world.run_for(milliseconds(700), |world| world.online(0) == 2 && world.online(1) == 2),
            "seed {seed}"
        );
        world.run(seconds(5));
        let (listener, app) = (world.listener(3, "t"), world.connect(0));
        world.run(seconds(1));
        world.send(0, app, 1, "copy", "t", "x");
        world.run(seconds(1));
        assert_eq!(world.heard(3, listener, "message").len(), 1, "seed {seed}");
        assert!((0..4).all(|host| host == 2 || duplicate(&mut world, host).is_none()), "seed {seed}");
    }
}

#[test]
fn two_machines_with_one_key_in_bad_weather_never_make_a_storm() {
    for seed in 0..5 {
        let mut world = cloned(seed, Weather::STORM);
        let id = world.id(2).to_string();
        let watcher = world.watcher(0);
        world.start(3);
        let before: u64 = world.hosts.iter().map(|host| host.sent_packets).sum();
        world.run(seconds(600));
        let changes = of(world.heard(0, watcher, "exit"), &id).len();
        assert!(changes <= 4, "seed {seed}: {changes} exits in ten minutes");
        let sent = world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() - before;
        assert!(sent <= 10 * 1000, "seed {seed}: {sent} packets in ten minutes");
    }
}

#[test]
fn a_recorded_greeting_of_our_own_is_no_copy_of_us() {
    let mut world = cloned(22, Weather::FINE);
    world.capture = Some(Vec::new());
    world.start(3);
    world.run(seconds(2));
    let recorded = world.capture.take().unwrap();
    world.crash(3);
    world.run(seconds(900));
    assert_eq!(duplicate(&mut world, 2), None);
    let sent = world.hosts[2].sent_packets;
    let evil = world.hosts[3].addr;
    for (_, _, bytes) in recorded.iter().filter(|(from, _, _)| *from == evil) {
        for _ in 0..100 {
            let at = world.now + milliseconds(1);
            world.inject(at, 2, evil, bytes);
        }
    }
    world.run(seconds(8));
    assert_eq!(duplicate(&mut world, 2), None);
    // Five questions, an answer to each recorded question, and what idle nodes say anyway.
    assert!(world.hosts[2].sent_packets - sent < 1000, "{}", world.hosts[2].sent_packets - sent);
}
