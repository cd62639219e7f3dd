//! What `status` says of the channels by which others are found.

use serde_json::Value;

use atonce::core::InterfaceAddr;
use atonce::wire::local::{Health, HealthState};

use crate::world::{World, seconds};

/// Two hosts, of which the second hears multicast as told; the edge of each says that its channels are open.
fn pair(hears: bool) -> World {
    let mut world = World::new(1);
    for name in ["a", "b"] {
        let host = world.add(name, 0);
        world.hosts[host].hears = hears || name == "a";
        world.start(host);
        for check in ["hello", "mdns"] {
            let open =
                Health { check: check.into(), state: HealthState::Ok, why: "open".into(), fix: "".into() };
            world.with(host, |node| node.handle_health(open));
        }
    }
    world
}

fn check(world: &mut World, host: usize, name: &str) -> Option<Value> {
    let status = world.status(host);
    status["health"].as_array().unwrap().iter().find(|health| health["check"] == name).cloned()
}

fn why(world: &mut World, host: usize, name: &str) -> String {
    check(world, host, name).unwrap()["why"].as_str().unwrap().to_owned()
}

#[test]
fn a_channel_that_works_says_from_whom_and_where_something_was_heard() {
    let mut world = pair(true);
    assert_eq!(why(&mut world, 0, "mdns"), "open; no peer was heard yet");
    world.run(seconds(10));
    assert_eq!(why(&mut world, 0, "hello"), "open; heard from 1 peer on eth0");
    assert_eq!(why(&mut world, 1, "mdns"), "open; heard from 1 peer on eth0");
    assert_eq!(check(&mut world, 1, "multicast"), None);
}

#[test]
fn who_hears_nobody_by_multicast_but_reaches_peers_is_told_until_it_hears_somebody() {
    let mut world = pair(false);
    world.run(seconds(10));
    let multicast = check(&mut world, 1, "multicast").unwrap();
    assert_eq!(multicast["state"], "warn");
    assert_eq!(multicast["why"], "none of 1 peer on eth0 was heard by multicast, only reached otherwise");
    assert_eq!(check(&mut world, 0, "multicast"), None);

    world.hosts[1].hears = true;
    world.stop(0);
    world.start(0);
    world.run(seconds(1));
    assert_eq!(world.online(1), 1);
    assert_eq!(check(&mut world, 1, "multicast"), None);
}

#[test]
fn to_be_alone_is_no_fault() {
    let mut world = World::lan(2, 1);
    world.run(seconds(60));
    assert_eq!(world.status(0)["health"], serde_json::json!([]));
}

#[test]
fn a_machine_without_any_network_is_told_so() {
    let mut world = World::lan(3, 1);
    let now = world.now;
    world.with(0, |node| node.handle_interfaces(&[], now));
    assert_eq!(check(&mut world, 0, "interfaces").unwrap()["state"], "warn");
}

#[test]
fn who_was_heard_of_and_does_not_answer_is_told_until_it_does() {
    let mut world = pair(true);
    world.hosts[1].asleep = true;
    world.run(seconds(1));
    assert_eq!(check(&mut world, 0, "answers"), None);
    world.run(seconds(20));
    assert_eq!(why(&mut world, 0, "answers"), "1 other node was heard of, and did not answer");
    world.hosts[1].asleep = false;
    world.stop(1);
    world.start(1);
    world.run(seconds(1));
    assert_eq!(world.online(0), 1);
    assert_eq!(check(&mut world, 0, "answers"), None);
}

/// A node that two others tell of each other, and its neighbour, which it does not reach: an access point isolates them.
#[test]
fn who_is_told_of_and_never_reached_is_told_after_one_series_though_hints_go_on() {
    for before in [false, true] {
        let mut world = World::new(4);
        for host in 0..3 {
            world.add(&format!("pi-{host}"), 0);
        }
        if before {
            (0..3).for_each(|host| world.start(host));
            world.run(seconds(30));
            (0..3).for_each(|host| world.stop(host));
        }
        world.cut.extend([(0, 1), (1, 0)]);
        for host in 0..3 {
            // So that no relay makes up for it.
            world.hosts[host].relay = false;
            world.start(host);
        }
        world.run(seconds(20));
        assert_eq!(world.online(0), 1);
        assert_eq!(
            why(&mut world, 0, "answers"),
            "1 other node was heard of, and did not answer",
            "{before}"
        );
    }
}

#[test]
fn a_peer_that_crashed_is_not_told_as_one_that_is_there_and_silent() {
    for seed in 0..10 {
        let mut world = World::lan(seed, 4);
        world.run(seconds(30));
        world.crash(3);
        world.run(seconds(60));
        assert_eq!(check(&mut world, 0, "answers"), None, "seed {seed}");
    }
}

#[test]
fn who_is_alone_says_since_when_and_how_often_it_looked_and_who_is_not_says_nothing() {
    let mut world = World::lan(5, 1);
    world.run(seconds(40));
    let looking = world.status(0)["looking"].clone();
    assert_eq!(looking["for_s"], 40);
    assert!((4..=6).contains(&looking["tries"].as_u64().unwrap()), "{looking}");
    let other = world.add("other", 0);
    world.start(other);
    world.run(seconds(1));
    assert_eq!(world.status(0).get("looking"), None);
}

#[test]
fn a_link_for_one_host_is_told_while_nobody_is_found() {
    let mut world = World::lan(6, 1);
    let link = |prefix, point_to_point| InterfaceAddr {
        name: "eth0".into(),
        index: 2,
        addr: "10.0.0.1".parse().unwrap(),
        prefix,
        point_to_point,
        wireless: false,
        mtu: None,
    };
    for (prefix, point_to_point, told) in
        [(24, false, false), (32, false, true), (24, true, true), (31, false, false)]
    {
        let now = world.now;
        world.with(0, |node| node.handle_interfaces(&[link(prefix, point_to_point)], now));
        assert_eq!(check(&mut world, 0, "links").is_some(), told, "/{prefix}, {point_to_point}");
    }
}
