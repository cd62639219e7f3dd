//! Reaching each other through a third peer.

use std::time::Duration;

use crate::world::{HostId, World, milliseconds, seconds};

/// `left` and `right` are on networks of their own, and the last one, `bridge`, is on both. No internet, no server.
fn bridged(seed: u64, left: usize, right: usize) -> (World, Vec<HostId>, Vec<HostId>, HostId) {
    let mut world = World::new(seed);
    let mut hosts = |count: usize, segment: u8| -> Vec<HostId> {
        (0..count).map(|n| world.add(&format!("{segment}-{n}"), segment)).collect()
    };
    let (left, right) = (hosts(left, 1), hosts(right, 2));
    let bridge = world.add("bridge", 1);
    world.plug(bridge, 2);
    for host in left.iter().chain(&right).chain([&bridge]) {
        world.hosts[*host].secret = Some([7; 32]);
    }
    (world, left, right, bridge)
}

#[test]
fn a_peer_on_two_networks_bridges_them() {
    let (mut world, left, right, bridge) = bridged(1, 2, 2);
    let all: Vec<_> = left.iter().chain(&right).chain([&bridge]).copied().collect();
    for host in &all {
        world.start(*host);
    }
    let met = world.run_for(seconds(10), |world| all.iter().all(|host| world.online(*host) == 4));
    assert!(met);
    let listeners: Vec<_> = all.iter().map(|host| (*host, world.listener(*host, "t"))).collect();
    world.run(seconds(2));
    let app = world.connect(left[0]);
    for n in 0..20 {
        world.say(left[0], app, &format!(r#"{{"op":"publish","topic":"t","text":"{n}"}}"#));
        world.run(milliseconds(10));
    }
    world.run(seconds(1));
    for (host, listener) in listeners {
        let texts: Vec<_> =
            world.heard(host, listener, "message").iter().map(|line| line["text"].clone()).collect();
        let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
        assert_eq!(texts, expected, "host {host}");
    }
    let kinds = |world: &mut World, host: HostId| {
        let app = world.connect(host);
        world.say(host, app, r#"{"op":"peers","id":1}"#);
        let mut kinds: Vec<_> = world
            .heard(host, app, "peer")
            .iter()
            .map(|line| {
                (line["name"].as_str().unwrap().to_owned(), line["path"]["kind"].as_str().unwrap().to_owned())
            })
            .collect();
        kinds.sort();
        kinds
    };
    let seen = kinds(&mut world, left[0]);
    let expected = [("1-1", "lan"), ("2-0", "relay"), ("2-1", "relay"), ("bridge", "lan")];
    assert_eq!(seen, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
}

#[test]
fn who_was_reached_through_a_relay_leaves_when_it_goes_or_the_relay_does() {
    for relay_dies in [false, true] {
        let (mut world, left, right, bridge) = bridged(2, 1, 1);
        for host in [left[0], right[0], bridge] {
            world.start(host);
        }
        assert!(
            world.run_for(seconds(10), |world| world.online(left[0]) == 2 && world.online(right[0]) == 2)
        );
        world.run(seconds(60));
        let watcher = world.watcher(left[0]);
        world.crash(if relay_dies { bridge } else { right[0] });
        let rest = if relay_dies { 0 } else { 1 };
        assert!(world.run_for(seconds(20), |world| world.online(left[0]) == rest));
        world.run(seconds(120));
        assert_eq!(world.heard(left[0], watcher, "exit").len(), 2 - rest);
    }
}

#[test]
fn a_bridged_network_is_quiet() {
    let (mut world, left, right, bridge) = bridged(3, 3, 3);
    let all: Vec<_> = left.iter().chain(&right).chain([&bridge]).copied().collect();
    for host in &all {
        world.start(*host);
    }
    assert!(world.run_for(seconds(10), |world| all.iter().all(|host| world.online(*host) == 6)));
    world.run(seconds(60));
    let sent = |world: &World| world.hosts.iter().map(|host| host.sent_packets).sum::<u64>();
    let before = sent(&world);
    let minutes = 10;
    world.run(Duration::from_secs(60 * minutes));
    let each = (sent(&world) - before) / minutes / all.len() as u64;
    assert!(each < 150, "{each}");
    for host in &all {
        assert_eq!(world.online(*host), 6);
    }
}

#[test]
fn a_burst_through_a_relay_arrives_whole() {
    let (mut world, left, right, bridge) = bridged(4, 1, 1);
    for host in [left[0], right[0], bridge] {
        world.start(host);
    }
    assert!(world.run_for(seconds(10), |world| world.online(left[0]) == 2 && world.online(right[0]) == 2));
    let listener = world.listener(right[0], "t");
    world.run(seconds(1));
    let app = world.connect(left[0]);
    let now = world.now;
    world.with(left[0], |node| {
        for id in 1..=400 {
            let text = "x".repeat(1100);
            let line = format!(r#"{{"op":"send","id":{id},"to":"2-0","topic":"t","text":"{text}"}}"#);
            node.handle_request(app, atonce::wire::local::Request::parse(line.as_bytes()), now);
        }
    });
    world.run(seconds(6));
    assert_eq!(world.heard(right[0], listener, "message").len(), 400);
}

#[test]
fn who_sends_in_bulk_through_a_relay_does_not_starve_others_who_go_through_it() {
    let (mut world, left, right, bridge) = bridged(5, 2, 2);
    for host in left.iter().chain(&right).chain([&bridge]) {
        world.start(*host);
    }
    let all = [left.clone(), right.clone()].concat();
    assert!(world.run_for(seconds(10), |world| all.iter().all(|host| world.online(*host) == 4)));
    let listeners = [0, 1].map(|n| world.listener(right[n], "t"));
    world.run(seconds(1));
    let apps = [0, 1].map(|n| world.connect(left[n]));
    let send = |world: &mut World, n: usize, count: usize| {
        let now = world.now;
        let line =
            format!(r#"{{"op":"send","to":"2-{n}","topic":"t","ack":false,"text":"{}"}}"#, "x".repeat(1100));
        world.with(left[n], |node| {
            for _ in 0..count {
                node.handle_request(apps[n], atonce::wire::local::Request::parse(line.as_bytes()), now);
            }
        });
    };
    // Two megabytes a second, for longer than any burst; the others twelve kilobytes a second.
    for step in 0..500 {
        send(&mut world, 0, 20);
        if step % 10 == 0 {
            send(&mut world, 1, 1);
        }
        world.run(milliseconds(10));
    }
    world.run(seconds(1));
    let heard = [0, 1].map(|n| world.heard(right[n], listeners[n], "message").len());
    assert_eq!(heard[1], 50);
    // Its part is what the others leave, and not more.
    assert!((4000..5300).contains(&heard[0]), "{heard:?}");
}
