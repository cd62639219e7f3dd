//! Apps that read slowly or not at all: what they cost, what they are told, and that nobody else notices.

use atonce::id::ClientId;
use atonce::limits;
use atonce::wire::local::frame::{flag, kind};
use serde_json::Value;

use crate::binary;
use crate::world::{HostId, World, milliseconds, seconds};

/// An app that listens to `t` in either mode.
fn listener(world: &mut World, host: HostId, in_frames: bool) -> ClientId {
    if !in_frames {
        return world.listener(host, "t");
    }
    let app = binary::connect(world, host);
    binary::put(world, host, app, (kind::REQUEST, 0, 0, 0), br#"{"op":"listen","topic":"t"}"#);
    app
}

fn set_deaf(world: &mut World, host: HostId, app: ClientId, deaf: bool) {
    world.hosts[host].apps.get_mut(&app).unwrap().deaf = deaf;
}

fn heard(world: &World, host: HostId, app: ClientId, ev: &str) -> Vec<Value> {
    let known = &world.hosts[host].apps[&app];
    let events = if known.in_frames { binary::events(world, host, app) } else { known.lines.clone() };
    events.into_iter().filter(|event| event["ev"] == ev).collect()
}

/// How much waits for an app.
fn waiting(world: &mut World, host: HostId, app: ClientId) -> usize {
    world.with_undrained(host, |node| node.output(app).len())
}

#[test]
fn a_stalled_reader_costs_a_bounded_queue_is_told_what_it_lost_and_delays_nobody() {
    for in_frames in [false, true] {
        let mut world = World::lan(1, 2);
        world.run(seconds(1));
        let (stalled, reader) = (listener(&mut world, 1, in_frames), listener(&mut world, 1, in_frames));
        world.run(seconds(1));
        set_deaf(&mut world, 1, stalled, true);
        let app = world.connect(0);
        let text = "x".repeat(limits::PAYLOAD_BYTES.min(1100));
        for n in 0..1500_u64 {
            let line = format!(r#"{{"op":"send","id":{n},"to":"pi-1","topic":"t","text":"{text}"}}"#);
            world.say(0, app, &line);
            world.run(milliseconds(1));
            // The other one has it at once, whatever this one does.
            assert_eq!(heard_count(&world, 1, reader, in_frames, n + 1), n + 1);
            assert!(waiting(&mut world, 1, stalled) <= limits::CLIENT_QUEUE_BYTES + 2 * text.len() + 500);
        }
        assert!(
            (0..1500).all(|id| world.outcome(0, app, id) == Some("delivered")),
            "somebody had it each time"
        );
        set_deaf(&mut world, 1, stalled, false);
        while waiting(&mut world, 1, stalled) > 0 {
            world.read(1, stalled, 10_000);
        }
        let (taken, lost) =
            (heard(&world, 1, stalled, "message").len() as u64, heard(&world, 1, stalled, "lost"));
        let [lost] = &lost[..] else { panic!("told once: {lost:?}") };
        assert_eq!(lost["messages"], 1500 - taken);
        assert_eq!(lost["bytes"], (1500 - taken) * text.len() as u64);
        assert!(taken > 500);
    }
}

/// Whether that many messages were read, without reading all of them again each time.
fn heard_count(world: &World, host: HostId, app: ClientId, in_frames: bool, expected: u64) -> u64 {
    if !in_frames {
        return world.lines(host, app).iter().filter(|line| line["ev"] == "message").count() as u64;
    }
    let bytes = world.hosts[host].apps[&app].partial.len() as u64;
    if bytes > expected * 1100 { expected } else { bytes / 1100 }
}

#[test]
fn a_publication_with_acknowledgements_tells_whose_apps_were_full() {
    for in_frames in [false, true] {
        let mut world = World::lan(2, 3);
        world.run(seconds(1));
        let full = listener(&mut world, 1, in_frames);
        let here = listener(&mut world, 0, in_frames);
        listener(&mut world, 2, in_frames);
        world.run(seconds(1));
        set_deaf(&mut world, 1, full, true);
        set_deaf(&mut world, 0, here, true);
        let app = world.connect(0);
        for id in 0..limits::CLIENT_QUEUE_MESSAGES as u64 {
            world.say(0, app, &format!(r#"{{"op":"publish","id":{id},"topic":"t","text":"x","ack":true}}"#));
            world.run(milliseconds(1));
        }
        world.say(0, app, r#"{"op":"publish","id":5000,"topic":"t","text":"four","ack":true}"#);
        world.run(milliseconds(50));
        let result = world.heard(0, app, "result").into_iter().find(|result| result["id"] == 5000).unwrap();
        let outcomes = result["outcomes"].as_array().unwrap();
        let told = |name: &str| {
            let of = |outcome: &&Value| outcome["peer"]["name"] == name;
            outcomes.iter().find(of).unwrap()["outcome"].as_str().unwrap().to_owned()
        };
        assert_eq!((told("pi-1"), told("pi-2")), ("busy".to_owned(), "delivered".to_owned()));
        // Of the apps of this node nobody is told; what is dropped there is told there.
        for (host, app, lost) in [(1, full, 0), (0, here, 1)] {
            world.read(host, app, usize::MAX);
            world.read(host, app, usize::MAX);
            let told = heard(&world, host, app, "lost");
            assert_eq!(told.len(), lost, "host {host}");
            assert!(told.iter().all(|told| told["messages"] == 1 && told["bytes"] == 4));
        }
    }
}

#[test]
fn an_app_in_either_mode_that_takes_no_byte_for_ten_seconds_is_told_so_and_closed() {
    for in_frames in [false, true] {
        let mut world = World::lan(3, 1);
        let (deaf, app) = (listener(&mut world, 0, in_frames), world.connect(0));
        set_deaf(&mut world, 0, deaf, true);
        for _ in 0..limits::CLIENT_QUEUE_MESSAGES {
            world.say(0, app, r#"{"op":"publish","topic":"t","text":"x"}"#);
        }
        world.run(milliseconds(9_900));
        // One byte is enough to go on.
        world.read(0, deaf, 1);
        world.run(milliseconds(9_900));
        assert!(!world.hosts[0].apps[&deaf].closed);
        let now = world.now + milliseconds(200);
        let output = world.with_undrained(0, |node| {
            node.handle_timeout(now);
            node.output(deaf).to_vec()
        });
        assert!(String::from_utf8_lossy(&output).contains(r#""code":"slow-consumer""#));
        world.drain(0);
        assert!(world.hosts[0].apps[&deaf].closed);
    }
}

#[test]
fn what_an_app_asked_and_what_it_did_not_read_are_bounded_together_in_both_modes() {
    for in_frames in [false, true] {
        let mut world = World::lan(4, 2);
        world.run(seconds(1));
        let app = if in_frames { binary::connect(&mut world, 0) } else { world.connect(0) };
        if in_frames {
            binary::put(&mut world, 0, app, (kind::OPEN, 0, 1, 0), br#"{"to":"pi-1","topic":"t"}"#);
        }
        set_deaf(&mut world, 0, app, true);
        let mut asked = 0;
        while world.with(0, |node| node.accepts(app)) == Some(true) {
            asked += 1;
            if in_frames {
                binary::put(&mut world, 0, app, (kind::SEND, flag::ACK, 1, asked), b"x");
            } else {
                world.send(0, app, asked, "pi-1", "t", "x");
            }
            // Half of them have their answers, which are not read.
            if asked % 2 == 0 {
                world.run(milliseconds(2));
            }
            assert!(asked <= limits::CLIENT_QUEUE_MESSAGES as u64);
        }
        assert_eq!(asked, limits::CLIENT_QUEUE_MESSAGES as u64);
        world.run(seconds(10));
        assert_eq!(world.with(0, |node| node.accepts(app)), Some(false), "the answers are there, and unread");
        world.read(0, app, usize::MAX);
        assert_eq!(world.with(0, |node| node.accepts(app)), Some(true));
        assert_eq!(heard(&world, 0, app, "result").len() as u64, asked);
    }
}
