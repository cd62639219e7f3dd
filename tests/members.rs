//! What members of the network can make a node remember and do, all of them together: bytes, names, lines for apps.
//!
//! The allocator counts, and the members are hostile: see `siege`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "nobody outside of the tests sees this"
)]

mod siege;

use std::net::SocketAddr;
use std::time::Duration;

use allocation_counter::measure;
use atonce::id::{MessageNumber, NodeId, TopicNumber};
use atonce::limits;
use atonce::wire::message::{Heading, Place, Record};

use self::siege::{Member, Siege, members};

const MIB: usize = 1 << 20;

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Every member has a session, with the next one 10 ms later.
fn join_all(siege: &mut Siege, members: &mut [Member]) {
    for n in 0..members.len() {
        siege.join(members, n);
        siege.wait(members, milliseconds(10));
    }
}

/// A full list of topics of names that nobody else has.
fn tell_topics(siege: &mut Siege, members: &mut [Member], n: usize, count: u64) {
    let names: Vec<_> = (0..count).map(|topic| format!("{n:05}-{topic:057}")).collect();
    for (at, names) in names.chunks(100).enumerate() {
        let since = at as u64 * 100;
        let added: Vec<_> = (since + 1..).map(TopicNumber).zip(names.iter().map(String::as_str)).collect();
        let upto = since + added.len() as u64;
        siege.tell(members, n, &[Record::Topics { since, upto, added, removed: vec![] }]);
    }
}

/// Messages behind one that never comes.
fn tell_early(siege: &mut Siege, members: &mut [Member], n: usize, topic: u64, count: u64, payload: &[u8]) {
    for number in 2..2 + count {
        let record = Record::Tracked {
            number: MessageNumber(number),
            after: number - 1,
            open: number - 1,
            topic: TopicNumber(topic),
            payload,
        };
        siege.tell(members, n, &[record]);
    }
}

/// Messages of which only crumbs come.
fn tell_parts(siege: &mut Siege, members: &mut [Member], n: usize) {
    for part in 0..4 {
        let place = Place::Untracked { number: part };
        let heading = Heading::Topic(TopicNumber(1));
        for crumbs in (0..2 * limits::REASSEMBLED_RUNS as u32).collect::<Vec<_>>().chunks(64) {
            let piece = |at: &u32| Record::Piece { place, heading, size: 61_440, at: at * 2, bytes: b"x" };
            let records: Vec<_> = crumbs.iter().map(piece).collect();
            siege.tell(members, n, &records);
        }
    }
}

#[test]
fn four_thousand_hostile_members_and_all_apps_together_take_less_than_what_the_daemon_may_have() {
    let mut members = members(limits::PEERS);
    let info = measure(|| {
        let mut siege = Siege::new(&members);
        let apps: Vec<_> = (1..=limits::CLIENTS as u64)
            .map(|app| siege.connect(app, 1000 + app as u32 % 4, false))
            .collect();
        // One listens; all watch, and read nothing.
        siege.say(&mut members, apps[0], r#"{"op":"listen","topic":"t"}"#);
        for app in &apps {
            siege.say(&mut members, *app, r#"{"op":"watch"}"#);
        }
        for round in 0..2 {
            join_all(&mut siege, &mut members);
            println!("round {round}: {} online", siege.node.online());
        }
        for n in 0..members.len() {
            tell_topics(&mut siege, &mut members, n, limits::TOPICS_PER_NODE as u64);
            tell_early(&mut siege, &mut members, n, 1, 8, &[7; 8000]);
            tell_parts(&mut siege, &mut members, n);
            // Its numbers take the whole window, and its packets leave gaps.
            let far = Record::Tracked {
                number: MessageNumber(8000),
                after: 0,
                open: 7990,
                topic: TopicNumber(0),
                payload: b"x",
            };
            siege.tell(&mut members, n, &[far]);
            // Nobody is where it says.
            let entries = (0..20_u32).map(|other| {
                let mut id = [9; 32];
                id[..4].copy_from_slice(&(n as u32 * 20 + other).to_le_bytes());
                (NodeId(id), SocketAddr::from(([10, 200, (n % 250) as u8, other as u8 + 1], 28282)))
            });
            siege.tell(&mut members, n, &[Record::Peers { entries: entries.collect() }]);
            let target = members[(n + 1) % members.len()].id();
            siege.tell(&mut members, n, &[Record::Relay { target }, Record::Suspect { peer: target }]);
            // It seems to be everywhere.
            for port in 0..40 {
                let from = SocketAddr::new(members[n].addr.ip(), 30_000 + port);
                siege.tell_from(&mut members, n, from, &[Record::Suspect { peer: target }]);
            }
        }
        // The apps send to all of them what is never acknowledged, until they are not read any more.
        let text = "x".repeat(50_000);
        for app in &apps {
            for id in 0..64 {
                if siege.node.accepts(*app) {
                    let line = format!(
                        r#"{{"op":"publish","id":{id},"topic":"atonce.discard","text":"{text}","ack":true,"timeout_ms":60000}}"#
                    );
                    siege.say(&mut members, *app, &line);
                }
            }
        }
        for counter in ["held-message-bytes", "remote-topic-bytes", "partial-message-bytes", "app-bytes"] {
            println!("{counter}: {}", siege.counter(&mut members, counter));
        }
        println!("{} online at the end", siege.node.online());
    });
    let (most, at_end) = (info.bytes_max as usize, info.bytes_current);
    println!("{} MiB at most, {at_end} bytes left over", most / MIB);
    assert!(most < limits::NODE_BYTES, "{} MiB", most / MIB);
}

#[test]
fn messages_that_wait_for_one_before_them_are_held_only_for_topics_with_a_listener() {
    let mut members = members(8);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    siege.heard = Some(Vec::new());
    let info = measure(|| {
        for n in 0..members.len() {
            tell_early(&mut siege, &mut members, n, 1, 100, &[7; 2000]);
        }
    });
    let heard = siege.heard.take().unwrap();
    let told = heard.iter().filter(|record| record.contains("fate: NoListener")).count();
    assert_eq!(told, 800, "who has nobody to talk to is told so at once");
    assert!(info.bytes_current < 400_000, "{info:?}");
}

#[test]
fn a_member_that_toggles_a_topic_costs_no_names_but_that_one_however_many_apps_watch() {
    let mut members = members(1);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    tell_topics(&mut siege, &mut members, 0, 249);
    for app in 1..=8 {
        let app = siege.connect(app, 1000, true);
        siege.say(&mut members, app, r#"{"op":"watch"}"#);
    }
    siege.wait(&mut members, Duration::from_secs(5));
    let mut version = 249;
    let info = measure(|| {
        for _ in 0..1000 {
            let (name, number) = ("toggled", TopicNumber(9999));
            let on = version % 2 == 1;
            let (added, removed) = if on { (vec![(number, name)], vec![]) } else { (vec![], vec![number]) };
            let record = Record::Topics { since: 0, upto: version + 1, added, removed };
            siege.tell(&mut members, 0, &[record]);
            version += 1;
        }
    });
    // 249 names for each record would be a quarter of a million.
    assert!(info.count_total < 40_000, "{} allocations", info.count_total);
}

#[test]
fn apps_that_watch_hear_of_a_member_that_changes_all_the_time_at_a_pace_and_in_the_end_the_truth() {
    let mut members = members(2);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    let app = siege.connect(1, 1000, true);
    siege.say(&mut members, app, r#"{"op":"watch"}"#);
    siege.wait(&mut members, Duration::from_secs(5));
    // 100 changes a second, for a minute.
    for version in 0..6001_u64 {
        let (number, on) = (TopicNumber(version / 2 + 1), version % 2 == 0);
        let (added, removed) = if on { (vec![(number, "toggled")], vec![]) } else { (vec![], vec![number]) };
        siege.tell(&mut members, 0, &[Record::Topics { since: 0, upto: version + 1, added, removed }]);
        siege.wait(&mut members, milliseconds(10));
    }
    siege.wait(&mut members, Duration::from_secs(5));
    // What was not listened to is told again.
    let added = vec![(TopicNumber(3001), "toggled")];
    siege.tell(&mut members, 0, &[Record::Topics { since: 0, upto: 6002, added, removed: vec![] }]);
    siege.wait(&mut members, Duration::from_secs(5));
    let (listens, unlistens) = (siege.events(app, "listen").len(), siege.events(app, "unlisten").len());
    println!("{listens} listen, {unlistens} unlisten");
    assert_eq!(listens, unlistens + 1, "the last one is that somebody listens");
    assert!(listens <= 150, "{listens} of 3001");
    // The other one is told of at once.
    let before = siege.events(app, "listen").len();
    let added = vec![(TopicNumber(1), "calm")];
    siege.tell(&mut members, 1, &[Record::Topics { since: 0, upto: 1, added, removed: vec![] }]);
    assert_eq!(siege.events(app, "listen").len(), before + 1);
}

/// Unfinished messages of 30,000 bytes, until all together have no more room.
fn fill_with_parts(siege: &mut Siege, members: &mut [Member]) {
    for n in 0..members.len() {
        let place = Place::Tracked { number: MessageNumber(1), after: 0, open: 0 };
        let heading = Heading::Topic(TopicNumber(1));
        siege.tell(members, n, &[Record::Piece { place, heading, size: 30_000, at: 0, bytes: b"x" }]);
    }
}

#[test]
fn a_large_message_for_which_members_leave_no_room_ends_as_busy_and_not_in_silence() {
    let mut members = members(301);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    let app = siege.connect(1, 1000, true);
    siege.say(&mut members, app, r#"{"op":"listen","topic":"t"}"#);
    let (honest, hostile) = (300, 300);
    fill_with_parts(&mut siege, &mut members[..hostile]);
    assert!(siege.counter(&mut members, "partial-message-bytes") <= limits::REASSEMBLED_BYTES_IN_ALL as u64);
    assert!(siege.counter(&mut members, "refused-message-pieces") > 0, "there is no room");
    siege.heard = Some(Vec::new());
    let place = Place::Tracked { number: MessageNumber(1), after: 0, open: 0 };
    let heading = Heading::Topic(TopicNumber(1));
    let first = [7; 1000];
    siege.tell(&mut members, honest, &[Record::Piece { place, heading, size: 60_000, at: 0, bytes: &first }]);
    let heard = siege.heard.take().unwrap();
    let busy = |record: &String| record.starts_with("300 Outcome") && record.contains("Busy");
    assert!(heard.iter().any(busy), "{heard:?}");
}

#[test]
fn a_message_that_finds_no_room_to_wait_is_delivered_once_the_one_before_it_has_come() {
    let mut members = members(200);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    let app = siege.connect(1, 1000, true);
    siege.say(&mut members, app, r#"{"op":"listen","topic":"t"}"#);
    for n in 1..members.len() {
        tell_early(&mut siege, &mut members, n, 1, 30, &[7; 8000]);
    }
    let held = siege.counter(&mut members, "held-message-bytes") as usize;
    assert!((limits::HELD_BYTES_IN_ALL / 2..=limits::HELD_BYTES_IN_ALL).contains(&held), "{held}");
    siege.heard = Some(Vec::new());
    let tracked = |number: u64, payload| Record::Tracked {
        number: MessageNumber(number),
        after: number - 1,
        open: number - 1,
        topic: TopicNumber(1),
        payload,
    };
    // The first one is lost on the way; it is larger than what is left to each.
    let large = [b'x'; 8000];
    for number in 2..12 {
        siege.tell(&mut members, 0, &[tracked(number, &large)]);
    }
    assert!(siege.counter(&mut members, "unheld-messages") > 0);
    for number in 1..12 {
        siege.tell(&mut members, 0, &[tracked(number, &large)]);
    }
    let heard = siege.heard.take().unwrap();
    for number in 1..12 {
        let delivered = format!("0 Outcome {{ number: MessageNumber({number}), fate: Delivered }}");
        assert!(heard.contains(&delivered), "{delivered}");
    }
    assert_eq!(siege.events(app, "message").len(), 11);
}

#[test]
fn a_message_to_a_topic_that_a_list_may_have_had_no_room_for_ends_as_busy_and_soon() {
    let mut members = members(1);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    let all = limits::TOPICS_OF_A_PEER as u64 + 100;
    tell_topics(&mut siege, &mut members, 0, all);
    let app = siege.connect(1, 1000, true);
    siege.wait(&mut members, Duration::from_secs(3));
    siege.heard = Some(Vec::new());
    let id = members[0].id();
    let line = format!(r#"{{"op":"send","id":1,"to":"{id}","topic":"never","text":"x","timeout_ms":60000}}"#);
    siege.say(&mut members, app, &line);
    for _ in 0..50 {
        siege.wait(&mut members, milliseconds(100));
        let heard = siege.heard.replace(Vec::new()).unwrap();
        for question in heard.iter().filter(|record| record.contains("ask: true")) {
            if question.contains("upto: 0,") {
                tell_topics(&mut siege, &mut members, 0, all);
            } else {
                let nothing = Record::Topics { since: all, upto: all, added: vec![], removed: vec![] };
                siege.tell(&mut members, 0, &[nothing]);
            }
        }
    }
    let results = siege.events(app, "result");
    assert_eq!((results.len(), &results[0]["outcome"]), (1, &"busy".into()));
}

#[test]
fn sixty_apps_of_a_user_that_do_not_read_leave_the_app_of_another_user_its_whole_queue() {
    let mut members = members(1);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    for app in 1..=61 {
        let uid = if app == 61 { 2000 } else { 1000 };
        let client = siege.connect(app, uid, false);
        let topic = if app == 61 { "other" } else { "t" };
        siege.say(&mut members, client, &format!(r#"{{"op":"listen","topic":"{topic}"}}"#));
    }
    for topic in [1, 2] {
        for _ in 0..200 {
            let topic = TopicNumber(topic);
            siege.tell(&mut members, 0, &[Record::Message { topic, payload: &[b'x'; 8000] }]);
        }
    }
    let all = siege.counter(&mut members, "app-bytes") as usize;
    let each: Vec<_> = (1..=61).map(|app| siege.node.output(atonce::id::ClientId(app)).len()).collect();
    println!("{all} bytes in all, {each:?}");
    assert!(all <= limits::APP_BYTES_IN_ALL, "{all}");
    assert!(each[60] >= limits::CLIENT_QUEUE_BYTES, "{}", each[60]);
    let (least, most) = (each[..60].iter().min().unwrap(), each[..60].iter().max().unwrap());
    assert!(most - least < 200_000 && *least > 100_000, "{least} to {most}");
}

#[test]
fn names_and_verdicts_of_a_member_are_taken_at_a_pace_and_a_parted_network_may_be_told_of_at_once() {
    let mut members = members(3);
    let mut siege = Siege::new(&members);
    join_all(&mut siege, &mut members);
    for n in 0..1000 {
        let name = format!("name-{n}");
        siege.tell(&mut members, 0, &[Record::About { name: &name, peers: 0, topics: 0 }]);
    }
    let paced = siege.counter(&mut members, "paced-records");
    assert!((980..=992).contains(&paced), "{paced}");
    siege.wait(&mut members, Duration::from_secs(9));
    siege.tell(&mut members, 0, &[Record::About { name: "last", peers: 0, topics: 0 }]);
    let app = siege.connect(1, 1000, true);
    siege.say(&mut members, app, r#"{"op":"watch"}"#);
    let named = |event: &serde_json::Value| event["peer"]["name"] == "last";
    assert!(siege.events(app, "enter").iter().any(named), "the name that stays is taken");

    let peer = members[2].id();
    let before = siege.counter(&mut members, "paced-records");
    for _ in 0..limits::PEERS / 64 {
        siege.tell(&mut members, 1, &vec![Record::Suspect { peer }; 64]);
    }
    assert_eq!(siege.counter(&mut members, "paced-records"), before, "all may be lost at once");
    siege.tell(&mut members, 1, &vec![Record::Suspect { peer }; 200]);
    assert!(siege.counter(&mut members, "paced-records") >= before + 190);
}
