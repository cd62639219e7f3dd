//! Messages that no datagram holds: whole or not at all, whatever the way carries and loses.

use std::collections::BTreeMap;

use atonce::core::Destination;
use atonce::limits;

use crate::world::pipe::Pipe;
use crate::world::{Weather, World, milliseconds, seconds};

/// Two hosts on a fast way that carries packets of `mtu` bytes.
fn pair(seed: u64, mtu: usize) -> World {
    let mut world = World::lan(seed, 2);
    world.run(seconds(3));
    for direction in [(0, 1), (1, 0)] {
        world.piped.insert(direction, world.pipes.len());
        let mut pipe = Pipe::new(1_000_000_000, milliseconds(1), milliseconds(20), 0);
        pipe.mtu = mtu;
        world.pipes.push(pipe);
    }
    world
}

/// Sends `count` messages of 60 KiB and gives the largest datagrams that were sent meanwhile, by their count.
fn send_large(world: &mut World, first: u64, count: u64) -> BTreeMap<usize, usize> {
    world.capture = Some(Vec::new());
    let app = world.connect(0);
    for id in first..first + count {
        let text = format!("{id:06}{}", "x".repeat(limits::PAYLOAD_BYTES - 6));
        world.send(0, app, id, "pi-1", "t", &text);
        world.run(seconds(3));
        assert_eq!(world.outcome(0, app, id), Some("delivered"), "{id}");
    }
    let mut sizes = BTreeMap::new();
    for (_, to, bytes) in world.capture.take().unwrap() {
        if let Destination::One(_) = to {
            *sizes.entry(bytes.len()).or_default() += 1;
        }
    }
    sizes
}

#[test]
fn the_largest_datagrams_that_a_way_carries_are_used_and_no_larger_ones_again_and_again() {
    for (mtu, expected) in [(1280, 1200_usize), (1500, 1472), (9000, 8972)] {
        let mut world = pair(1, mtu);
        let listener = world.listener(1, "t");
        world.run(seconds(1));
        send_large(&mut world, 0, 3);
        let sizes = send_large(&mut world, 3, 3);
        let (largest, count) = sizes.last_key_value().unwrap();
        assert!((expected - 30..=expected).contains(largest), "{sizes:?}");
        assert!(*count > 3, "{sizes:?}");
        assert_eq!(world.heard(1, listener, "message").len(), 6);
    }
}

#[test]
fn a_way_that_carries_less_than_before_loses_no_message() {
    for seed in 0..10 {
        let mut world = pair(seed, 1500);
        let listener = world.listener(1, "t");
        world.run(seconds(1));
        send_large(&mut world, 0, 3);
        for pipe in &mut world.pipes {
            pipe.mtu = 1280;
        }
        let sizes = send_large(&mut world, 3, 3);
        let too_large: usize = sizes.range(1253..).map(|(_, count)| count).sum();
        assert!((1..150).contains(&too_large), "seed {seed}: {sizes:?}");
        assert_eq!(world.heard(1, listener, "message").len(), 6, "seed {seed}");
    }
}

#[test]
fn of_ten_thousand_messages_of_all_sizes_each_is_delivered_once_in_order_or_reported() {
    let (mut sent, mut delivered, mut seeds) = (0, 0, 0);
    for seed in 0..100 {
        let mut world = World::lan(seed, 2);
        world.run(seconds(1));
        let listener = world.listener(1, "a");
        world.say(1, listener, r#"{"op":"listen","topic":"b"}"#);
        world.run(seconds(1));
        world.weather =
            Weather { loss: 300, duplicate: 100, latency_us: 500, jitter_us: 4000, multicast_loss: 0 };
        let app = world.connect(0);
        for id in 0..100 {
            let topic = if world.below(2) == 0 { "a" } else { "b" };
            let bytes = match world.below(10) {
                0 => world.below(limits::PAYLOAD_BYTES as u64 - 10),
                1..=3 => world.below(4000),
                _ => world.below(100),
            };
            let text = format!("{id:04} {}", "x".repeat(bytes as usize));
            world.send(0, app, id, "pi-1", topic, &text);
            let pause = world.below(40);
            world.run(milliseconds(pause));
            match (seed % 5, id) {
                // The receiver moves, its sender goes by for a moment, or the session is lost for a while.
                (1, 50) => world.renumber(1, std::net::Ipv4Addr::new(10, 0, 0, 99)),
                (2, 50) => world.suspend(0, seconds(2)),
                (3, 50) => drop(world.cut.insert((0, 1))),
                (3, 60) => drop(world.cut.remove(&(0, 1))),
                (4, 50) => world.run(seconds(130)),
                _ => {}
            }
        }
        world.run(seconds(9));
        let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
        let mut last = BTreeMap::new();
        for line in world.heard(1, listener, "message") {
            let text = line["text"].as_str().unwrap();
            let id: u64 = text[..4].parse().unwrap();
            *copies.entry(id).or_default() += 1;
            let topic = line["topic"].as_str().unwrap();
            let before = last.insert(topic.to_owned(), id);
            assert!(before.is_none_or(|before| before < id), "seed {seed}: {topic} {before:?} {id}");
        }
        assert!(copies.values().all(|count| *count == 1), "seed {seed}: twice: {copies:?}");
        let results = world.heard(0, app, "result");
        assert_eq!(results.len(), 100, "seed {seed}: each has one result");
        for result in results {
            let (id, outcome) = (result["id"].as_u64().unwrap(), result["outcome"].as_str().unwrap());
            let arrived = copies.contains_key(&id);
            match outcome {
                "delivered" => assert!(arrived, "seed {seed}: {id} is said to be delivered"),
                // Perhaps it was delivered, and the answer was lost.
                "timeout" => {}
                "unreachable" => assert!(!arrived, "seed {seed}: {id} is said not to have left"),
                other => panic!("seed {seed}: {id} ended as {other}"),
            }
            delivered += usize::from(outcome == "delivered");
        }
        sent += 100;
        seeds += 1;
        assert_eq!(world.counter(0, "messages-under-way"), 0, "seed {seed}");
    }
    println!("{delivered} of {sent} delivered over {seeds} seeds");
    assert!(delivered * 100 >= sent * 95, "{delivered} of {sent}");
}

#[test]
fn a_large_message_that_nobody_reports_on_arrives_whole_or_not_at_all() {
    let mut world = World::lan(3, 2);
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    world.weather = Weather { loss: 10, ..Weather::FINE };
    let app = world.connect(0);
    for id in 0..100 {
        let text = format!("{id:06}{}", "x".repeat(20_000));
        world.say(0, app, &format!(r#"{{"op":"send","to":"pi-1","topic":"t","text":"{text}","ack":false}}"#));
        world.run(milliseconds(100));
    }
    let got = world.heard(1, listener, "message");
    assert!(got.iter().all(|line| line["text"].as_str().unwrap().len() == 20_006));
    assert!((50..100).contains(&got.len()), "{}", got.len());
    world.run(seconds(40));
    assert_eq!(world.counter(1, "partial-message-bytes"), 0, "what never became whole is forgotten");
}

#[test]
fn requests_that_nobody_reports_on_arrive_whatever_their_size_is() {
    let mut world = World::lan(4, 2);
    world.run(seconds(1));
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    for bytes in 1080..1200 {
        let text = "x".repeat(bytes);
        let line = format!(
            r#"{{"op":"send","id":{bytes},"to":"pi-1","topic":"t","text":"{text}","ack":false,"replies":1}}"#
        );
        world.say(0, app, &line);
        world.run(milliseconds(5));
    }
    let sizes: Vec<_> =
        world.heard(1, listener, "message").iter().map(|line| line["text"].as_str().unwrap().len()).collect();
    assert_eq!(sizes, (1080..1200).collect::<Vec<_>>());
}

#[test]
fn messages_that_nobody_reports_on_go_on_soon_after_the_way_was_cut() {
    let mut world = pair(6, 1500);
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let app = world.connect(0);
    let line = format!(
        r#"{{"op":"send","to":"pi-1","topic":"t","text":"{}","ack":false,"timeout_ms":60000}}"#,
        "x".repeat(1000)
    );
    let send = |world: &mut World, milliseconds_long: u64| {
        for _ in 0..milliseconds_long {
            // More than the way takes, so that all is under way that may be.
            for _ in 0..40 {
                if world.accepts(0, app) {
                    world.say(0, app, &line);
                }
            }
            world.run(milliseconds(1));
        }
    };
    send(&mut world, 200);
    // Not so long that the peer is lost.
    world.cut.insert((0, 1));
    send(&mut world, 200);
    world.cut.clear();
    let before = world.heard(1, listener, "message").len();
    send(&mut world, 400);
    let after = world.heard(1, listener, "message").len();
    assert!(after > before + 100, "{before}, then {after}");
}
