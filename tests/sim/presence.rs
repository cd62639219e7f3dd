//! What apps are told of who is there.

use std::net::Ipv4Addr;

use crate::world::{World, milliseconds, seconds};

#[test]
fn who_asks_for_it_is_told_the_topics_of_its_own_node_which_never_enters() {
    let mut world = World::lan(1, 1);
    world.listener(0, "before");
    let (all, others) = (world.connect(0), world.watcher(0));
    world.say(0, all, r#"{"op":"watch","own":true}"#);
    let app = world.listener(0, "after");
    world.say(0, app, r#"{"op":"unlisten","topic":"after"}"#);
    world.run(milliseconds(1));
    let told: Vec<_> = world.lines(0, all).iter().map(|line| (&line["ev"], &line["topic"])).collect();
    let pair = |ev: &str, topic: &str| (ev.into(), topic.into());
    let expected = [pair("listen", "before"), pair("listen", "after"), pair("unlisten", "after")];
    assert!(told.into_iter().eq(expected.iter().map(|(ev, topic)| (ev, topic))));
    assert!(world.lines(0, others).is_empty());
}

#[test]
fn changes_are_merged_for_an_app_that_does_not_read() {
    let mut world = World::lan(2, 2);
    world.run(seconds(1));
    let watcher = world.watcher(0);
    world.say(0, watcher, r#"{"op":"listen","topic":"t"}"#);
    world.hosts[0].apps.get_mut(&watcher).unwrap().deaf = true;
    let app = world.connect(0);
    for id in 0..600 {
        world.send(0, app, id, "pi-0", "t", &"x".repeat(1000));
    }
    let waiting = |world: &mut World| world.with(0, |node| node.output(watcher).len()).unwrap();
    let before = waiting(&mut world);
    for round in 0..40 {
        let network = if round % 2 == 0 { 99 } else { 0 };
        world.renumber(1, Ipv4Addr::new(10, network, 0, 2));
        world.run(milliseconds(500));
    }
    assert_eq!(world.online(0), 1);
    assert_eq!(waiting(&mut world), before);
}

#[test]
fn who_moves_to_another_network_is_told_once_that_its_paths_are_of_another_kind() {
    let mut world = World::lan(4, 2);
    world.run(seconds(1));
    let watchers = [0, 1].map(|host| world.watcher(host));
    world.renumber(1, Ipv4Addr::new(10, 99, 0, 2));
    world.run(seconds(10));
    for (host, watcher) in watchers.into_iter().enumerate() {
        let paths: Vec<_> =
            world.heard(host, watcher, "path").iter().map(|event| event["path"].clone()).collect();
        assert_eq!(paths, ["direct"], "host {host}");
        assert!(world.heard(host, watcher, "exit").is_empty());
    }
}
