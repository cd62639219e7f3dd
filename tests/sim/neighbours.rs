//! Apps and peers that share a node: none is hurt by what another one sends.

use std::collections::BTreeMap;
use std::time::Duration;

use atonce::id::{ClientId, MessageNumber, TopicNumber};
use atonce::limits;
use atonce::wire::message::{Heading, Place, Record};

use crate::load::{Ghost, answers, said};
use crate::world::pipe::Pipe;
use crate::world::{HostId, World, milliseconds, seconds};

/// Two hosts and a way between them.
fn joined(seed: u64, bits_per_second: u64, one_way: Duration, mtu: usize, loss: u64) -> World {
    let mut world = World::lan(seed, 2);
    world.run(seconds(3));
    for direction in [(0, 1), (1, 0)] {
        world.piped.insert(direction, world.pipes.len());
        let mut pipe = Pipe::new(bits_per_second, one_way, milliseconds(100), loss);
        pipe.mtu = mtu;
        world.pipes.push(pipe);
    }
    world
}

fn say(world: &mut World, app: ClientId, id: u64, topic: &str, text: &str, timeout_ms: u32) {
    let line = format!(
        r#"{{"op":"send","id":{id},"timeout_ms":{timeout_ms},"to":"pi-1","topic":"{topic}","text":"{text}"}}"#
    );
    world.say(0, app, &line);
}

fn outcomes(world: &World, host: HostId, app: ClientId) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in world.heard(host, app, "result") {
        *counts.entry(line["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn no_message_of_an_app_goes_out_on_the_topic_of_another() {
    let mut world = joined(3, 10_000_000, milliseconds(5), 1500, 0);
    let open = world.listener(1, "open");
    let secret = world.listener(1, "secret");
    world.run(seconds(1));
    let (loose, careful) = (world.connect(0), world.connect(0));
    let padding = "x".repeat(700);
    for id in 0..200 {
        let text = format!("open {padding}");
        let line = format!(r#"{{"op":"send","ack":false,"to":"pi-1","topic":"open","text":"{text}"}}"#);
        world.say(0, loose, &line);
        say(&mut world, careful, id, "secret", &format!("secret {padding}"), 5000);
    }
    world.run(seconds(6));
    for (listener, word) in [(open, "open"), (secret, "secret")] {
        let heard = world.heard(1, listener, "message");
        assert!(heard.iter().all(|line| line["text"].as_str().unwrap().starts_with(word)), "{word}");
        assert_eq!(heard.len(), 200, "{word}");
    }
    assert_eq!(outcomes(&world, 0, careful), [("delivered".to_owned(), 200)].into());
}

#[test]
fn messages_that_went_whole_are_brought_over_when_the_way_carries_less() {
    for (bytes, before, after, rate) in
        [(5000, 9100, 1500, 1_000_000_000), (1300, 1500, 1300, 100_000_000), (1300, 1500, 1300, 10_000_000)]
    {
        let mut world = joined(5, rate, milliseconds(10), before, 0);
        world.listener(1, "many");
        world.listener(1, "large");
        world.run(seconds(1));
        let (many, large) = (world.connect(0), world.connect(0));
        let (text, big) = ("x".repeat(bytes), "x".repeat(60_000));
        // So the path is found to carry large datagrams.
        for id in 0..20 {
            say(&mut world, large, id, "large", &big, 20_000);
            world.run(milliseconds(100));
        }
        for id in 0..150 {
            say(&mut world, many, id, "many", &text, 10_000);
        }
        for pipe in &mut world.pipes {
            pipe.mtu = after;
        }
        world.run(seconds(3));
        say(&mut world, large, 99, "large", &big, 5000);
        world.run(seconds(8));
        assert_eq!(
            outcomes(&world, 0, many),
            [("delivered".to_owned(), 150)].into(),
            "{bytes}, {before} to {after}"
        );
        assert_eq!(world.outcome(0, large, 99), Some("delivered"), "{bytes}, {before} to {after}");
    }
}

#[test]
fn an_app_that_gives_up_soon_leaves_the_receiver_to_others() {
    let mut world = joined(3, 10_000_000, milliseconds(25), 1500, 20);
    let listener = world.listener(1, "t");
    world.run(seconds(1));
    let (patient, hasty) = (world.connect(0), [80, 110, 150].map(|timeout| (world.connect(0), timeout)));
    let text = "x".repeat(limits::PAYLOAD_BYTES);
    let mut next = 0;
    for tick in 0..20_000 {
        while next < 4 + world.heard(0, patient, "result").len() as u64 {
            say(&mut world, patient, next, "t", &text, 5000);
            next += 1;
        }
        for (app, timeout) in hasty {
            if tick % 20 == 0 && world.accepts(0, app) {
                say(&mut world, app, tick, "t", &text, timeout);
            }
        }
        world.run(milliseconds(1));
        world.hosts[1].apps.get_mut(&listener).unwrap().lines.clear();
    }
    let got = outcomes(&world, 0, patient);
    println!("{got:?}");
    assert!(got["delivered"] >= 50, "a quarter of 20 s at 10 Mbit/s is 100 messages: {got:?}");
}

#[test]
fn members_that_begin_many_large_messages_keep_nobody_from_sending_one() {
    let mut world = World::lan(1, 2);
    world.run(seconds(2));
    world.listener(0, "t");
    world.run(seconds(1));
    for n in 0..70 {
        let addr = ([10, 0, 1, n as u8], 2000 + n as u16).into();
        let mut ghost = Ghost::new(n);
        let first = ghost.first_message(world.id(0));
        let response = answers(&mut world, addr, &first).into_iter().find(|answer| answer[0] == 2).unwrap();
        let mut session = ghost.session(&response);
        let about = said(&mut session, &Record::About { name: &format!("g{n}"), peers: 0, topics: 0 });
        let at = world.now;
        world.inject(at, 0, addr, &about);
        world.run(milliseconds(3));
        for number in 1..=4 {
            let piece = Record::Piece {
                place: Place::Tracked { number: MessageNumber(number), after: 0, open: number - 1 },
                heading: Heading::Topic(TopicNumber(1)),
                size: u32::try_from(limits::PAYLOAD_BYTES).unwrap(),
                at: 0,
                bytes: b"x",
            };
            let packet = said(&mut session, &piece);
            let at = world.now;
            world.inject(at, 0, addr, &packet);
        }
        world.run(milliseconds(1));
    }
    assert!(world.counter(0, "partial-message-bytes") <= limits::REASSEMBLED_BYTES_IN_ALL as u64);
    let app = world.connect(1);
    for id in 0..3 {
        let text = "y".repeat(20_000);
        let line =
            format!(r#"{{"op":"send","id":{id},"timeout_ms":1000,"to":"pi-0","topic":"t","text":"{text}"}}"#);
        world.say(1, app, &line);
    }
    world.run(milliseconds(1100));
    assert_eq!(outcomes(&world, 1, app), [("delivered".to_owned(), 3)].into());
}
