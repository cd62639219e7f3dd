//! Finding each other, and noticing who left.

use std::net::Ipv4Addr;

use atonce::core::Destination;

use crate::world::{Weather, World, milliseconds, seconds};

fn all_online(world: &mut World) -> bool {
    let count = world.hosts.len();
    (0..count).all(|host| world.online(host) == count - 1)
}

#[test]
fn two_nodes_meet_whichever_of_their_ways_of_finding_works() {
    for (mdns, hello) in [(true, true), (true, false), (false, true)] {
        let mut world = World::new(1);
        for name in ["a", "b"] {
            let host = world.add(name, 0);
            world.hosts[host].mdns = mdns;
            world.hosts[host].hello = hello;
            world.start(host);
        }
        assert!(world.run_for(seconds(1), all_online), "mdns {mdns}, hello {hello}");
    }
}

#[test]
fn one_direction_of_multicast_is_enough() {
    let mut world = World::new(2);
    for name in ["deaf", "hears"] {
        let host = world.add(name, 0);
        world.hosts[host].hears = name == "hears";
        world.start(host);
    }
    assert!(world.run_for(seconds(3), all_online));
}

#[test]
fn both_starting_at_once_ends_in_one_session() {
    for seed in 0..50 {
        let mut world = World::lan(seed, 2);
        assert!(world.run_for(seconds(1), all_online));
        let watcher = world.watcher(0);
        world.run(seconds(20));
        assert_eq!(world.heard(0, watcher, "enter").len(), 1, "seed {seed}");
        assert!(world.heard(0, watcher, "exit").is_empty(), "seed {seed}");
    }
}

#[test]
fn twenty_hosts_in_bad_weather_all_find_each_other() {
    let mut world = World::new(5);
    world.weather = Weather::STORM;
    for n in 0..20 {
        let host = world.add(&format!("pi-{n}"), 0);
        world.start(host);
    }
    assert!(world.run_for(seconds(10), all_online));
}

#[test]
fn peers_introduce_peers_that_multicast_cannot_join() {
    let mut world = World::lan(6, 3);
    assert!(world.run_for(seconds(1), all_online));
    let late = world.add("late", 0);
    world.hosts[late].hears = false;
    world.hosts[late].mdns = false;
    world.hosts[late].hello = false;
    world.start(late);
    let (now, first) = (world.now, world.hosts[0].addr);
    world.with(late, |node| node.handle_static_peers(&[first], now));
    assert!(world.run_for(seconds(2), all_online), "one configured address leads to all");
}

#[test]
fn a_goodbye_is_seen_at_once() {
    let mut world = World::lan(7, 3);
    assert!(world.run_for(seconds(1), all_online));
    let watcher = world.watcher(0);
    world.run(milliseconds(100));
    world.stop(1);
    world.run(milliseconds(10));
    assert_eq!(world.heard(0, watcher, "exit").len(), 1);
}

#[test]
fn a_crash_is_noticed_within_six_seconds_of_silence() {
    for seed in 0..20 {
        let mut world = World::lan(seed, 5);
        assert!(world.run_for(seconds(1), all_online));
        world.run(seconds(30));
        let watchers: Vec<_> = (0..4).map(|host| world.watcher(host)).collect();
        world.crash(4);
        world.run(seconds(6));
        for (host, watcher) in watchers.into_iter().enumerate() {
            assert_eq!(world.heard(host, watcher, "exit").len(), 1, "seed {seed}, host {host}");
        }
    }
}

#[test]
fn loss_alone_makes_nobody_leave() {
    for seed in 0..10 {
        let mut world = World::lan(seed, 4);
        assert!(world.run_for(seconds(1), all_online));
        world.weather = Weather { loss: 100, ..Weather::STORM };
        let watcher = world.watcher(0);
        world.run(seconds(60));
        assert!(world.heard(0, watcher, "exit").is_empty(), "seed {seed}");
    }
}

#[test]
fn a_restarted_peer_leaves_and_enters_again() {
    let mut world = World::lan(8, 3);
    assert!(world.run_for(seconds(1), all_online));
    let watcher = world.watcher(0);
    world.run(seconds(5));
    world.crash(1);
    world.start(1);
    assert!(world.run_for(seconds(6), |world| {
        world.heard(0, watcher, "exit").len() == 1 && world.heard(0, watcher, "enter").len() == 3
    }));
    assert!(world.run_for(seconds(2), all_online));
}

#[test]
fn the_round_trip_to_a_peer_that_came_back_is_that_of_the_way() {
    let mut world = World::lan(11, 2);
    assert!(world.run_for(seconds(1), all_online));
    world.crash(1);
    // Asked, and not answered for a while: the first message goes out several times.
    world.run(milliseconds(3000));
    world.start(1);
    assert!(world.run_for(seconds(3), all_online));
    for host in 0..2 {
        let app = world.connect(host);
        world.say(host, app, r#"{"op":"peers"}"#);
        let trip = world.heard(host, app, "peer")[0]["rtt_us"].as_u64();
        assert!(trip.is_none_or(|trip| trip < 1000), "{trip:?}");
    }
}

#[test]
fn a_remembered_address_is_enough_when_nothing_is_heard() {
    let mut world = World::lan(9, 2);
    assert!(world.run_for(seconds(1), all_online));
    world.crash(1);
    world.run(seconds(20));
    for host in 0..2 {
        world.hosts[host].hears = false;
    }
    world.start(1);
    assert!(world.run_for(seconds(2), all_online));
}

#[test]
fn a_changed_address_keeps_the_session() {
    let mut world = World::lan(10, 2);
    assert!(world.run_for(seconds(1), all_online));
    let (watcher, listener) = (world.watcher(0), world.listener(1, "t"));
    world.run(seconds(1));
    world.renumber(1, Ipv4Addr::new(10, 0, 0, 99));
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "t", "still there?");
    world.run(seconds(5));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
    assert!(world.heard(0, watcher, "exit").is_empty());
}

#[test]
fn both_ends_get_other_addresses_at_once_and_keep_their_session() {
    let mut world = World::lan(18, 2);
    assert!(world.run_for(seconds(1), all_online));
    let watcher = world.watcher(0);
    world.run(seconds(5));
    for host in 0..2 {
        world.renumber(host, Ipv4Addr::new(10, 0, 0, 100 + host as u8));
    }
    world.run(seconds(10));
    assert!(world.heard(0, watcher, "exit").is_empty());
    assert_eq!(world.online(0), 1);
}

#[test]
fn after_a_change_of_address_nothing_leaves_from_the_old_one() {
    let mut world = World::lan(19, 2);
    assert!(world.run_for(seconds(1), all_online));
    world.listener(0, "t");
    world.renumber(1, Ipv4Addr::new(10, 0, 0, 99));
    world.run(seconds(1));
    world.capture = Some(Vec::new());
    let app = world.connect(1);
    world.send(1, app, 1, "pi-0", "t", "from the new address");
    world.run(seconds(10));
    let old = Some(Ipv4Addr::new(10, 0, 0, 2).into());
    let sent = world.capture.take().unwrap();
    let mine: Vec<_> = sent.iter().filter(|(from, ..)| *from == world.hosts[1].addr).collect();
    assert!(!mine.is_empty());
    for (_, to, _) in mine {
        assert!(!matches!(to, Destination::One(route) if route.local == old), "{to:?}");
    }
}

#[test]
fn a_partition_that_nobody_saw_heals_after_at_most_as_long_again() {
    for outage in [20, 60, 300] {
        let mut world = World::lan(20, 2);
        assert!(world.run_for(seconds(1), all_online));
        world.cut.extend([(0, 1), (1, 0)]);
        world.run(seconds(outage));
        assert_eq!(world.online(0), 0);
        world.cut.clear();
        assert!(world.run_for(seconds(outage + 15), all_online), "after {outage} s");
    }
}

#[test]
fn a_healed_partition_is_whole_again() {
    let mut world = World::lan(12, 6);
    assert!(world.run_for(seconds(1), all_online));
    for left in 0..3 {
        for right in 3..6 {
            world.cut.insert((left, right));
            world.cut.insert((right, left));
        }
    }
    world.run(seconds(15));
    assert_eq!(world.online(0), 2);
    world.cut.clear();
    // One side greets, for whatever reason: the rest is told.
    world.crash(0);
    world.start(0);
    assert!(world.run_for(seconds(3), all_online));
}

#[test]
fn an_idle_lan_is_quiet() {
    let mut world = World::lan(13, 5);
    assert!(world.run_for(seconds(1), all_online));
    world.run(seconds(20));
    let before: u64 = world.hosts.iter().map(|host| host.sent_packets).sum();
    world.run(seconds(60));
    let sent = world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() - before;
    // Five nodes ask two successors every 2.5 s, and each question is answered: 480 a minute.
    assert!(sent <= 600, "{sent} packets a minute");
}

#[test]
fn presence_is_a_legal_sequence_whatever_happens() {
    for seed in 0..20 {
        let mut world = World::lan(seed, 4);
        let watcher = world.watcher(0);
        world.weather = Weather::STORM;
        for _ in 0..30 {
            let host = 1 + world.below(3) as usize;
            match (world.hosts[host].node.is_some(), world.below(2)) {
                (true, 0) => world.crash(host),
                (true, _) => world.stop(host),
                (false, _) => world.start(host),
            }
            let pause = world.below(4000);
            world.run(milliseconds(pause));
        }
        let mut present = std::collections::BTreeSet::new();
        for line in world.lines(0, watcher) {
            let id = line["peer"]["id"].as_str().unwrap_or_default();
            match line["ev"].as_str().unwrap() {
                "enter" => assert!(present.insert(id), "seed {seed}: entered twice"),
                "exit" => assert!(present.remove(id), "seed {seed}: left without having entered"),
                "listen" | "unlisten" | "path" => assert!(present.contains(id), "seed {seed}: {line}"),
                _ => {}
            }
        }
    }
}

#[test]
fn a_name_belongs_to_the_key_that_had_it_first() {
    let mut world = World::new(14);
    for name in ["me", "pi", "pi"] {
        let host = world.add(name, 0);
        world.start(host);
        world.run(seconds(1));
    }
    let (first, second) = (world.listener(1, "t"), world.listener(2, "t"));
    world.run(seconds(1));
    let app = world.connect(0);
    world.send(0, app, 1, "pi", "t", "x");
    let id = world.id(2).to_string();
    world.send(0, app, 2, &id, "t", "y");
    world.run(seconds(1));
    assert_eq!(world.heard(1, first, "message").len(), 1);
    assert_eq!(world.heard(2, second, "message")[0]["text"], "y");
    world.say(0, app, r#"{"op":"peers","id":3}"#);
    let conflicts = world.heard(0, app, "peer").iter().filter(|peer| peer["conflict"] == true).count();
    assert_eq!(conflicts, 1);
}

#[test]
fn who_is_told_that_a_stranger_entered_is_told_its_name() {
    for seed in 0..50 {
        let mut world = World::lan(seed, 1);
        let watcher = world.watcher(0);
        let late = world.add("late", 0);
        world.start(late);
        assert!(world.run_for(seconds(1), all_online));
        assert_eq!(world.heard(0, watcher, "enter")[0]["peer"]["name"], "late", "seed {seed}");
    }
}

#[test]
fn a_node_that_leaves_greets_nobody_after_its_goodbyes() {
    let mut world = World::lan(17, 3);
    assert!(world.run_for(seconds(1), all_online));
    world.run(seconds(10));
    world.capture = Some(Vec::new());
    world.stop(1);
    world.run(seconds(3));
    let greetings = world.capture.take().unwrap();
    let greetings = greetings.iter().filter(|(_, to, _)| *to == Destination::Everyone).count();
    assert_eq!(greetings, 0, "neither does anybody who heard the goodbye");
}
