//! Messages: each is delivered exactly once or reported, and apps cannot hurt each other.

use std::collections::BTreeMap;

use atonce::limits;

use crate::world::{Weather, World, milliseconds, seconds};

#[test]
fn every_acknowledged_send_in_a_storm_is_delivered_once_or_reported_over_a_hundred_seeds() {
    for seed in 0..100 {
        let mut world = World::lan(seed, 2);
        world.run(seconds(1));
        let listener = world.listener(1, "t");
        world.run(seconds(1));
        world.weather = Weather::STORM;
        let app = world.connect(0);
        let restart = seed % 4 == 0;
        for id in 0..100 {
            world.send(0, app, id, "pi-1", "t", &id.to_string());
            let pause = world.below(20);
            world.run(milliseconds(pause));
            if restart && id == 50 {
                world.crash(0);
                world.start(0);
                break;
            }
        }
        world.run(seconds(8));
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for line in world.heard(1, listener, "message") {
            *copies.entry(line["text"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        assert!(copies.values().all(|count| *count == 1), "seed {seed}: twice: {copies:?}");
        if restart {
            continue;
        }
        for id in 0..100 {
            let outcome = world.outcome(0, app, id);
            let arrived = copies.contains_key(&id.to_string());
            match outcome {
                Some("delivered") => assert!(arrived, "seed {seed}: {id} is said to be delivered"),
                Some("timeout" | "unreachable") => {}
                other => panic!("seed {seed}: {id} ended as {other:?}"),
            }
        }
        let delivered = (0..100).filter(|id| world.outcome(0, app, *id) == Some("delivered")).count();
        assert!(delivered >= 99, "seed {seed}: only {delivered} in five seconds each");
    }
}

#[test]
fn acknowledged_messages_of_one_stream_arrive_in_order_in_a_storm() {
    for seed in 0..20 {
        let mut world = World::lan(seed, 2);
        world.run(seconds(1));
        let listener = world.listener(1, "t");
        world.run(seconds(1));
        world.weather = Weather::STORM;
        let app = world.connect(0);
        for id in 0..300 {
            world.send(0, app, id, "pi-1", "t", &id.to_string());
        }
        world.run(seconds(6));
        let numbers: Vec<u64> = world
            .heard(1, listener, "message")
            .iter()
            .map(|line| line["text"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(numbers.is_sorted(), "seed {seed}: {numbers:?}");
        assert!(numbers.len() >= 295, "seed {seed}: {}", numbers.len());
    }
}

#[test]
fn a_send_to_a_topic_that_nobody_listens_to_says_so() {
    let mut world = World::lan(1, 2);
    world.run(seconds(3));
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "nobody", "x");
    world.run(milliseconds(100));
    assert_eq!(world.outcome(0, app, 1), Some("no-listener"));
}

#[test]
fn a_listener_that_came_just_before_the_message_is_found() {
    let mut world = World::lan(2, 2);
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "t", "x");
    world.run(milliseconds(100));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
}

#[test]
fn a_peer_that_is_off_is_waited_for_until_the_deadline() {
    let mut world = World::lan(3, 2);
    world.run(seconds(1));
    world.stop(1);
    world.run(seconds(1));
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "t", "too late");
    world.run(seconds(6));
    assert_eq!(world.outcome(0, app, 1), Some("unreachable"));
    world.send(0, app, 2, "pi-1", "t", "in time");
    world.run(seconds(1));
    world.start(1);
    let listener = world.listener(1, "t");
    world.run(seconds(3));
    assert_eq!(world.outcome(0, app, 2), Some("delivered"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
}

#[test]
fn a_name_that_nobody_ever_had_is_an_error_at_once() {
    let mut world = World::lan(4, 2);
    world.run(seconds(3));
    let app = world.connect(0);
    world.send(0, app, 1, "ghost", "t", "x");
    assert_eq!(world.heard(0, app, "error")[0]["code"], "no-peer");
}

#[test]
fn the_largest_message_travels_and_a_larger_one_is_refused_whole() {
    let mut world = World::lan(5, 2);
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "t", &"x".repeat(limits::PAYLOAD_BYTES));
    world.send(0, app, 2, "pi-1", "t", &"x".repeat(limits::PAYLOAD_BYTES + 1));
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.outcome(0, app, 2), Some("too-big"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
}

#[test]
fn a_publication_reaches_every_listener_once_and_not_its_own_connection() {
    let mut world = World::lan(6, 4);
    world.run(seconds(1));
    let far: Vec<_> = (1..4).map(|host| (host, world.listener(host, "t"))).collect();
    let (app, sibling) = (world.listener(0, "t"), world.listener(0, "t"));
    world.run(seconds(1));
    world.say(0, app, r#"{"op":"publish","id":1,"topic":"t","text":"all","ack":true}"#);
    world.run(seconds(1));
    for (host, listener) in far {
        assert_eq!(world.heard(host, listener, "message").len(), 1);
    }
    assert_eq!(world.heard(0, sibling, "message").len(), 1);
    assert!(world.heard(0, app, "message").is_empty());
    let result = world.heard(0, app, "result")[0];
    assert_eq!(result["sent"], 3);
    assert!(result["outcomes"].as_array().unwrap().iter().all(|outcome| outcome["outcome"] == "delivered"));
    assert_eq!(result["outcomes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_node_sends_to_itself() {
    let mut world = World::lan(7, 1);
    let (listener, app) = (world.listener(0, "t"), world.connect(0));
    world.send(0, app, 1, "pi-0", "t", "me");
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.heard(0, listener, "message")[0]["path"], "local");
}

#[test]
fn an_app_that_never_reads_is_refused_told_and_closed_and_hurts_nobody() {
    let mut world = World::lan(8, 2);
    world.run(seconds(1));
    let (deaf, other) = (world.listener(1, "t"), world.listener(1, "u"));
    world.run(seconds(1));
    world.hosts[1].apps.get_mut(&deaf).unwrap().deaf = true;
    let app = world.connect(0);
    for id in 0..1100 {
        world.send(0, app, id, "pi-1", "t", "x");
        world.run(milliseconds(1));
    }
    world.send(0, app, 5000, "pi-1", "u", "y");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 1023), Some("delivered"));
    assert_eq!(world.outcome(0, app, 1024), Some("busy"));
    assert_eq!(world.outcome(0, app, 5000), Some("delivered"));
    assert_eq!(world.heard(1, other, "message").len(), 1);
    world.run(seconds(12));
    assert!(world.hosts[1].apps[&deaf].closed);
}

#[test]
fn sessions_are_renewed_under_traffic_without_a_loss() {
    let mut world = World::lan(9, 2);
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let (app, watcher) = (world.connect(0), world.watcher(1));
    for id in 0..1200 {
        world.send(0, app, id, "pi-1", "t", "x");
        world.run(milliseconds(1000));
    }
    assert_eq!(world.heard(1, listener, "message").len(), 1200);
    assert!((0..1200).all(|id| world.outcome(0, app, id) == Some("delivered")));
    assert!(world.heard(1, watcher, "exit").is_empty());
}

#[test]
fn an_idle_day_keeps_everybody() {
    let mut world = World::lan(15, 3);
    world.run(seconds(1));
    let watcher = world.watcher(0);
    world.run(seconds(24 * 3600));
    assert!(world.heard(0, watcher, "exit").is_empty());
    assert_eq!(world.counter(0, "messages-under-way"), 0);
    assert_eq!(world.counter(0, "half-open-handshakes"), 0);
}

#[test]
fn a_ping_is_answered_and_a_dead_peer_is_not() {
    let mut world = World::lan(10, 2);
    world.run(seconds(1));
    let app = world.connect(0);
    world.say(0, app, r#"{"op":"ping","id":1,"to":"pi-1","count":3,"interval_ms":100}"#);
    world.run(seconds(1));
    assert_eq!(world.heard(0, app, "pong").len(), 3);
    let result = world.heard(0, app, "result")[0].clone();
    assert_eq!((&result["sent"], &result["received"]), (&3.into(), &3.into()));
    world.crash(1);
    world.say(0, app, r#"{"op":"ping","id":2,"to":"pi-1","timeout_ms":2000}"#);
    world.run(seconds(3));
    assert_eq!(world.heard(0, app, "pong").last().unwrap()["error"], "timeout");
}

#[test]
fn every_request_is_answered_once_even_when_it_has_to_wait() {
    let mut world = World::lan(16, 2);
    world.run(seconds(1));
    world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    // The first has to ask for the topic, so the others wait behind it.
    world.send(0, app, 1, "pi-1", "unknown", "x");
    world.say(0, app, r#"{"op":"publish","id":2,"topic":"t","text":"y"}"#);
    world.say(0, app, r#"{"op":"publish","id":3,"topic":"t","text":"y","ack":true}"#);
    world.say(0, app, r#"{"op":"send","id":4,"to":"pi-1","topic":"t","text":"y","ack":false}"#);
    world.run(seconds(1));
    let ids: Vec<_> = world.heard(0, app, "result").iter().map(|line| line["id"].as_u64().unwrap()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3, 4], "{ids:?}");
    assert!(world.hosts[0].node.as_ref().unwrap().is_idle(app));
}
