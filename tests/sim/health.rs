//! What `status` says of the channels by which others are found.

use serde_json::Value;

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
