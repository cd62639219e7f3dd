//! Networks of more nodes than each keeps sessions with.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use atonce::core::Destination;
use atonce::id::ClientId;
use atonce::limits;
use atonce::wire::message::{Read, Record, Records};

use crate::load::{Ghost, answers, said};
use crate::world::{HostId, Weather, World, milliseconds, seconds};

/// In which each node has more peers than it keeps sessions with, though some leave.
const NODES: usize = limits::SESSIONS_KEPT + 12;
/// Neighbours near and far are at most so many: four, and twice the logarithm, with room for chance.
const SESSIONS: u64 = 40;
/// The first byte of an initiation (protocol.md, 2).
const INITIATION: u8 = 1;

/// All know all, and the sessions that only proved it are wiped.
fn settled(seed: u64) -> World {
    let mut world = World::lan(seed, NODES);
    assert!(world.run_for(seconds(10), |world| world.all_have(NODES - 1)));
    world.run(seconds(200));
    world
}

fn watchers(world: &mut World, hosts: impl Iterator<Item = HostId>) -> Vec<(HostId, ClientId)> {
    hosts.map(|host| (host, world.watcher(host))).collect()
}

/// Whom apps were told of, one event each.
fn told<'a>(world: &'a World, watchers: &[(HostId, ClientId)], ev: &str) -> Vec<&'a str> {
    let news = |(host, app): &(HostId, ClientId)| world.heard(*host, *app, ev);
    watchers.iter().flat_map(news).map(|line| line["peer"]["name"].as_str().unwrap()).collect()
}

/// How many initiations were sent to `host` by others than `except`, since the recording began.
fn initiations(world: &mut World, host: HostId, except: HostId) -> u64 {
    let (addr, other) = (world.hosts[host].addr, world.hosts[except].addr);
    let sent = world.capture.take().unwrap();
    let asked = sent.iter().filter(|(from, to, bytes)| {
        let there = matches!(to, Destination::One(route) if route.remote == addr);
        *from != other && there && bytes[0] == INITIATION
    });
    asked.count() as u64
}

/// How long it takes until `done`, looked at every 0.1 s; `patience` if it never is.
fn until(world: &mut World, patience: Duration, mut done: impl FnMut(&mut World) -> bool) -> Duration {
    let start = world.now;
    while world.now.since(start) < patience && !done(world) {
        world.run(milliseconds(100));
    }
    world.now.since(start)
}

#[test]
fn idle_nodes_keep_few_sessions_and_all_their_peers() {
    let mut world = settled(1);
    let watchers = watchers(&mut world, [0, 50, NODES - 1].into_iter());
    world.run(seconds(1));
    let entered = told(&world, &watchers, "enter").len();
    world.run(seconds(600));
    let before: u64 = world.hosts.iter().map(|host| host.sent_packets).sum();
    world.run(seconds(120));
    let sent = world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() - before;
    // The ring alone is 96 a minute.
    assert!(sent < 2 * 110 * NODES as u64, "{sent} packets in two minutes");
    for host in 0..NODES {
        let sessions = world.counter(host, "sessions");
        assert!((4..=SESSIONS).contains(&sessions), "{host}: {sessions}");
    }
    assert!(world.all_have(NODES - 1));
    assert_eq!((told(&world, &watchers, "enter").len(), told(&world, &watchers, "exit").len()), (entered, 0));
}

#[test]
fn each_peer_is_reached_though_most_have_no_session() {
    let mut world = settled(2);
    let apps: Vec<_> = (0..5).map(|_| world.connect(0)).collect();
    let pinged: Vec<_> = (1..=SESSIONS as usize + 10).collect();
    for host in &pinged {
        let line = format!(r#"{{"op":"ping","id":{host},"to":"pi-{host}","count":1}}"#);
        world.say(0, apps[host % apps.len()], &line);
    }
    world.run(seconds(2));
    let answers: Vec<_> = apps.iter().flat_map(|app| world.heard(0, *app, "pong")).collect();
    assert_eq!(answers.len(), pinged.len());
    for answer in answers {
        assert_eq!(answer["rtt_us"], 200, "{answer}: what a handshake took is not the way's length");
    }
    world.run(seconds(200));

    // What an app waits for does not queue behind the pace of hints.
    for host in 1..NODES {
        let line = format!(
            r#"{{"op":"send","id":{},"to":"pi-{host}","topic":"nobody","text":"x","timeout_ms":20}}"#,
            5000 + host
        );
        world.say(0, apps[0], &line);
    }
    world.run(seconds(1));
    for host in 1..NODES {
        assert_eq!(world.outcome(0, apps[0], 5000 + host as u64), Some("no-listener"), "{host}");
    }
    world.run(seconds(200));

    let listening: Vec<HostId> = (1..NODES).step_by(3).collect();
    let listeners: Vec<_> = listening.iter().map(|host| (*host, world.listener(*host, "t"))).collect();
    world.run(seconds(400));
    let few = world.counter(0, "sessions");
    assert!(few <= SESSIONS, "{few}");
    world.say(0, apps[0], r#"{"op":"publish","id":9000,"topic":"t","text":"all"}"#);
    world.run(seconds(2));
    for (host, app) in &listeners {
        assert_eq!(world.heard(*host, *app, "message").len(), 1, "{host}");
    }
    world.run(seconds(400));
    for (n, host) in listening.iter().enumerate() {
        world.send(0, apps[1], 1000 + n as u64, &format!("pi-{host}"), "t", "one");
    }
    world.run(seconds(2));
    for (n, (host, app)) in listeners.iter().enumerate() {
        assert_eq!(world.outcome(0, apps[1], 1000 + n as u64), Some("delivered"), "to {host}");
        assert_eq!(world.heard(*host, *app, "message").len(), 2, "{host}");
    }
}

#[test]
fn all_learn_of_a_crash_and_of_a_goodbye_and_nobody_else_is_missed() {
    let mut world = settled(3);
    let watchers = watchers(&mut world, 2..NODES);
    world.run(seconds(1));
    world.capture = Some(Vec::new());
    world.crash(0);
    let took = until(&mut world, seconds(60), |world| world.all_have(NODES - 2));
    assert!(took < seconds(20), "{took:?}");
    let sent = world.capture.take().unwrap();
    let greetings = sent.iter().filter(|(_, to, _)| *to == Destination::Everyone).count();
    assert!(greetings as u64 <= 4 * SESSIONS, "its neighbours greet, and not all: {greetings}");
    world.stop(1);
    let took = until(&mut world, seconds(60), |world| world.all_have(NODES - 3));
    assert!(took < seconds(15), "{took:?}");
    world.run(seconds(30));
    let exits = told(&world, &watchers, "exit");
    assert_eq!(exits.len(), 2 * watchers.len());
    assert!(exits.iter().all(|name| matches!(*name, "pi-0" | "pi-1")));
}

#[test]
fn who_is_wrongly_suspected_by_one_hears_of_it_from_neighbours_only() {
    let mut world = settled(4);
    let watchers = watchers(&mut world, 2..NODES);
    world.cut.extend([(0, 1), (1, 0)]);
    let app = world.connect(0);
    world.capture = Some(Vec::new());
    world.send(0, app, 1, "pi-1", "t", "no way");
    world.run(seconds(60));
    assert_eq!((world.online(0), world.online(2)), (NODES - 2, NODES - 1));
    let asked = initiations(&mut world, 1, 0);
    assert!(asked <= SESSIONS, "{asked} initiations");
    assert!(told(&world, &watchers, "exit").is_empty());
}

#[test]
fn who_greets_is_asked_by_its_neighbours_only() {
    let mut world = settled(9);
    let app = world.connect(0);
    world.capture = Some(Vec::new());
    world.say(0, app, r#"{"op":"forget","to":"pi-1"}"#);
    world.run(seconds(10));
    let asked = initiations(&mut world, 0, 1);
    assert!(asked <= SESSIONS, "{asked} initiations");
    assert!(world.all_have(NODES - 1), "who was forgotten comes back");
}

#[test]
fn a_copied_disk_takes_nobodys_place() {
    let mut world = settled(10);
    let watchers = watchers(&mut world, 1..NODES);
    let copy = world.add("copy", 0);
    world.clone_key(0, copy);
    world.start(copy);
    world.run(seconds(20));
    assert!(told(&world, &watchers, "exit").is_empty());
    let line = r#"{"op":"peers"}"#;
    let (app, id) = (world.connect(1), world.id(0).to_string());
    world.say(1, app, line);
    let peer = world.heard(1, app, "peer").into_iter().find(|peer| peer["id"] == id.as_str()).unwrap();
    assert_eq!(peer["path"]["addr"], world.hosts[0].addr.to_string());
}

#[test]
fn who_names_somebody_that_is_gone_is_told_so() {
    let mut world = settled(12);
    let (teller, gone) = (SocketAddr::from(([10, 0, 0, 251], 5)), SocketAddr::from(([10, 0, 0, 252], 6)));
    let (mut ghost, missing) = (Ghost::new(1), Ghost::new(2).identity.id());
    let first = ghost.first_message(world.id(0));
    let response = answers(&mut world, teller, &first).remove(0);
    let mut session = ghost.session(&response);
    let told = said(&mut session, &Record::Peers { entries: vec![(missing, gone)] });
    world.capture = Some(Vec::new());
    let at = world.now;
    world.inject(at, 0, teller, &told);
    world.run(seconds(20));
    let mut heard = Vec::new();
    for (_, to, mut bytes) in world.capture.take().unwrap() {
        if matches!(to, Destination::One(route) if route.remote == teller)
            && let Ok(plaintext) = session.open(&mut bytes)
        {
            let suspect =
                |record| matches!(record, Ok(Read::Record(Record::Suspect { peer })) if peer == missing);
            heard.push(Records::new(plaintext).any(suspect));
        }
    }
    assert_eq!(heard.into_iter().filter(|suspect| *suspect).count(), 1);
}

#[test]
fn a_parted_network_is_one_again() {
    let mut world = settled(11);
    let halves: Vec<_> = (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))).collect();
    world.cut.extend(halves.into_iter().filter(|(a, b)| a % 2 != b % 2));
    let took = until(&mut world, seconds(120), |world| world.all_have(NODES / 2 - 1));
    assert!(took < seconds(40), "apart after {took:?}");
    world.run(seconds(60));
    world.cut.clear();
    let took = until(&mut world, seconds(300), |world| world.all_have(NODES - 1));
    assert!(took < seconds(150), "one after {took:?}");
}

#[test]
fn a_new_topic_and_a_newcomer_are_known_to_all() {
    let mut world = settled(5);
    let watchers = watchers(&mut world, 1..NODES);
    world.listener(0, "news");
    let everywhere = |world: &mut World| told(world, &watchers, "listen").len() == watchers.len();
    let took = until(&mut world, seconds(30), everywhere);
    assert!(took < seconds(5), "{took:?}");

    let late = world.add("late", 0);
    world.start(late);
    let took = until(&mut world, seconds(30), |world| world.all_have(NODES));
    assert!(took < seconds(5), "{took:?}");
    // This one hears nobody, knows only one address, and is the last whom anybody would name in the order of ids.
    let deaf = loop {
        let host = world.add("deaf", 0);
        if (0..host).all(|other| world.id(other) < world.id(host)) {
            break host;
        }
    };
    (world.hosts[deaf].hears, world.hosts[deaf].mdns, world.hosts[deaf].hello) = (false, false, false);
    world.start(deaf);
    let (now, first) = (world.now, world.hosts[0].addr);
    world.with(deaf, |node| node.handle_static_peers(&[first], now));
    let took = until(&mut world, seconds(120), |world| world.all_have(NODES + 1));
    assert!(took < seconds(60), "{took:?}");
}

#[test]
fn loss_makes_nobody_leave_and_a_message_comes_through() {
    let mut world = settled(6);
    let watchers = watchers(&mut world, 0..NODES);
    let listener = world.listener(1, "t");
    world.run(seconds(250));
    world.weather = Weather { loss: 100, ..Weather::STORM };
    world.listener(2, "u");
    let app = world.connect(0);
    world.send(0, app, 1, "pi-1", "t", "through the storm");
    world.run(seconds(30));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);
    assert!(told(&world, &watchers, "exit").is_empty());
    assert_eq!(told(&world, &watchers, "listen").len(), 2 * (NODES - 1));
}

#[test]
fn who_slept_moved_restarted_or_went_to_another_network_is_where_it_is_for_all() {
    let mut world = settled(7);
    world.suspend(0, seconds(60));
    let took = until(&mut world, seconds(60), |world| world.all_have(NODES - 1));
    assert!(took < seconds(10), "after a sleep: {took:?}");

    world.run(seconds(250));
    let watchers = watchers(&mut world, 2..NODES);
    world.renumber(1, Ipv4Addr::new(10, 0, 0, 250));
    world.run(seconds(10));
    assert!(told(&world, &watchers, "exit").is_empty());
    let listener = world.listener(1, "t");
    world.run(seconds(250));
    let app = world.connect(2);
    world.send(2, app, 1, "pi-1", "t", "there?");
    world.run(seconds(1));
    assert_eq!(world.outcome(2, app, 1), Some("delivered"));
    assert_eq!(world.heard(1, listener, "message").len(), 1);

    world.crash(3);
    world.start(3);
    let watchers: Vec<_> = watchers.into_iter().filter(|(host, _)| *host != 3).collect();
    let back = |world: &mut World| told(world, &watchers, "exit").len() == watchers.len();
    let took = until(&mut world, seconds(60), back);
    assert!(took < seconds(10) && world.all_have(NODES - 1), "after a restart: {took:?}");

    world.run(seconds(250));
    world.change_secrets(4, [7; 32], None);
    let gone = |world: &mut World| (0..NODES).all(|host| host == 4 || world.online(host) == NODES - 2);
    let took = until(&mut world, seconds(60), gone);
    assert!(took < seconds(15), "to another network: {took:?}");
    assert_eq!(world.online(4), 0);
}

#[test]
fn what_one_node_sends_until_all_know_all_does_not_grow_with_the_square() {
    let sent = [40, 80, 160].map(|nodes| {
        let mut world = World::lan(8, nodes);
        assert!(world.run_for(seconds(10), |world| world.all_have(nodes - 1)));
        world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() / nodes as u64
    });
    assert!(sent[1] < 3 * sent[0] && sent[2] < 3 * sent[1], "{sent:?} packets a node");
}
