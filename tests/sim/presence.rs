//! What apps are told of who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use atonce::core::Owner;
use atonce::id::ClientId;
use atonce::wire::local::frame::kind;
use serde_json::Value;

use crate::binary;
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
fn a_node_that_is_called_otherwise_is_so_for_all_at_once_and_its_old_name_is_free() {
    let mut world = World::lan(5, 3);
    world.run(seconds(2));
    let (watcher, own) = (world.watcher(0), world.connect(1));
    world.say(1, own, r#"{"op":"hello","id":1}"#);
    world.run(milliseconds(10));
    let now = world.now;
    world.with(1, |node| node.handle_name("attic".parse().unwrap(), now));
    world.run(seconds(1));
    let told: Vec<_> =
        world.lines(0, watcher).iter().filter(|line| line["peer"]["name"] == "attic").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["ev"], &told[0]["path"]), (&"path".into(), &"lan".into()));
    let listener = world.listener(1, "t");
    let app = world.connect(0);
    world.run(seconds(1));
    world.send(0, app, 1, "attic", "t", "by its new name");
    world.send(0, app, 2, "pi-1", "t", "by its old one");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 1), Some("delivered"));
    assert_eq!(world.outcome(0, app, 2), None);
    assert_eq!(world.heard(1, listener, "message").len(), 1);
    // Who comes later hears it too, and so does who restarts.
    world.crash(2);
    world.run(seconds(1));
    world.start(2);
    world.run(seconds(3));
    let app = world.connect(2);
    world.say(2, app, r#"{"op":"peers","id":1}"#);
    world.run(milliseconds(10));
    let names: Vec<_> = world.heard(2, app, "peer").iter().map(|peer| peer["name"].clone()).collect();
    assert!(names.contains(&"attic".into()) && !names.contains(&"pi-1".into()), "{names:?}");
    // The same name once more is no news.
    let now = world.now;
    world.with(1, |node| node.handle_name("attic".parse().unwrap(), now));
    world.run(seconds(1));
    let is_news = |line: &&Value| line["ev"] == "path" && line["peer"]["name"] == "attic";
    assert_eq!(world.lines(0, watcher).iter().filter(is_news).count(), 1);
}

/// Who is there, how it is reached, and what it listens to: as an app believes from what it was told.
type Picture = BTreeMap<String, (String, BTreeSet<String>)>;

/// Follows the events; each has to fit what was told before.
fn picture(events: &[Value], own: &str) -> Picture {
    let mut picture = Picture::from([(own.to_owned(), ("local".to_owned(), BTreeSet::new()))]);
    for event in events {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, path, topic) = (text(&event["peer"]["id"]), text(&event["path"]), text(&event["topic"]));
        let fits = match event["ev"].as_str().unwrap() {
            "enter" => picture.insert(id, (path, BTreeSet::new())).is_none(),
            "exit" => picture.remove(&id).is_some(),
            "path" => picture.insert(id.clone(), (path.clone(), BTreeSet::new())).is_some_and(|before| {
                let changed = before.0 != path;
                picture.insert(id, (path, before.1));
                changed
            }),
            "listen" => picture.get_mut(&id).is_some_and(|peer| peer.1.insert(topic)),
            "unlisten" => picture.get_mut(&id).is_some_and(|peer| peer.1.remove(&topic)),
            _ => true,
        };
        assert!(fits, "{event} contradicts what was told before");
    }
    picture
}

/// The truth on host 0, as its list of peers has it.
fn truth(world: &mut World, own_topics: BTreeSet<String>) -> Picture {
    let app = world.connect(0);
    world.say(0, app, r#"{"op":"peers","id":1}"#);
    let mut truth = Picture::from([(world.id(0).to_string(), ("local".to_owned(), own_topics))]);
    for peer in world.heard(0, app, "peer").into_iter().filter(|peer| peer["state"] == "online") {
        let topics =
            peer["topics"].as_array().unwrap().iter().map(|topic| topic.as_str().unwrap().to_owned());
        let path = peer["path"]["kind"].as_str().unwrap().to_owned();
        truth.insert(peer["id"].as_str().unwrap().to_owned(), (path, topics.collect()));
    }
    let now = world.now;
    world.with(0, |node| node.handle_hangup(app, now));
    truth
}

#[test]
fn whatever_happens_and_however_slowly_it_reads_an_app_that_watches_has_the_true_picture_when_it_has_read_all()
 {
    let mut merged = 0;
    for seed in 100..112 {
        let mut world = World::lan(seed, 4);
        world.run(seconds(1));
        let watchers = [false, true].map(|in_frames| {
            let app = if in_frames { binary::connect(&mut world, 0) } else { world.connect(0) };
            for line in [r#"{"op":"listen","topic":"fill"}"#, r#"{"op":"watch","own":true}"#] {
                if in_frames {
                    binary::put(&mut world, 0, app, (kind::REQUEST, 0, 0, 0), line.as_bytes());
                } else {
                    world.say(0, app, line);
                }
            }
            app
        });
        let filler = world.connect(0);
        let mut listening = BTreeMap::new();
        let mut own = BTreeSet::from(["fill".to_owned()]);
        let mut changes = 0;
        for step in 0..60 {
            let host = world.below(4) as usize;
            let topic = ["a", "b", "c"][world.below(3) as usize];
            match world.below(8) {
                0 if host > 0 => world.crash(host),
                1 if host > 0 => world.stop(host),
                2 | 3 if world.hosts[host].node.is_none() => world.start(host),
                2 if host > 0 => {
                    let network = 99 * world.below(2) as u8;
                    world.renumber(host, Ipv4Addr::new(10, network, 0, host as u8 + 1));
                }
                3 if host > 0 => {
                    let whom = world.id(host);
                    world.say(0, filler, &format!(r#"{{"op":"forget","to":"{whom}"}}"#));
                }
                _ if world.hosts[host].node.is_some() => {
                    let known =
                        world.hosts[host].apps.contains_key(listening.entry(host).or_insert(ClientId(0)));
                    if !known {
                        listening.insert(host, world.connect(host));
                    }
                    let op = ["listen", "unlisten"][world.below(2) as usize];
                    world.say(host, listening[&host], &format!(r#"{{"op":"{op}","topic":"{topic}"}}"#));
                    if host == 0 {
                        _ = if op == "listen" { own.insert(topic.to_owned()) } else { own.remove(topic) };
                    }
                }
                _ => {}
            }
            changes += 1;
            for app in watchers {
                let deaf = step % 20 < 15;
                world.hosts[0].apps.get_mut(&app).unwrap().deaf = deaf;
                // So full that there is no room for presence, and not so full that it is closed.
                if deaf && world.with_undrained(0, |node| node.output(app).len()) < 600_000 && step % 20 == 0
                {
                    let text = "x".repeat(1000);
                    (0..700).for_each(|_| world.send(0, filler, 1, "pi-0", "fill", &text));
                }
                let some = world.below(30_000) as usize;
                world.read(0, app, some);
            }
            let pause = [1, 50, 700, 4000][world.below(4) as usize];
            world.run(milliseconds(pause));
        }
        for app in watchers {
            world.hosts[0].apps.get_mut(&app).unwrap().deaf = false;
        }
        world.run(seconds(60));
        let truth = truth(&mut world, own);
        let id = world.id(0).to_string();
        for app in watchers {
            while world.with_undrained(0, |node| node.output(app).len()) > 0 {
                world.read(0, app, usize::MAX);
            }
            assert!(!world.hosts[0].apps[&app].closed);
            let events = if world.hosts[0].apps[&app].in_frames {
                binary::events(&world, 0, app)
            } else {
                world.lines(0, app).to_vec()
            };
            assert_eq!(picture(&events, &id), truth, "seed {seed}");
            merged += usize::from(events.iter().filter(|event| event["ev"] != "message").count() < changes);
        }
    }
    assert!(merged > 0, "some of the changes were told together");
}

#[test]
fn who_left_and_is_forgotten_before_an_app_reads_is_told_to_be_gone() {
    let mut world = World::lan(8, 2);
    world.run(seconds(1));
    let watcher = world.watcher(0);
    world.say(0, watcher, r#"{"op":"listen","topic":"fill"}"#);
    world.run(milliseconds(10));
    world.hosts[0].apps.get_mut(&watcher).unwrap().deaf = true;
    let app = world.connect(0);
    for _ in 0..600 {
        world.send(0, app, 1, "pi-0", "fill", &"x".repeat(1000));
    }
    world.crash(1);
    let whom = world.id(1).to_string();
    forget(&mut world, app, &whom);
    world.run(seconds(5));
    world.hosts[0].apps.get_mut(&watcher).unwrap().deaf = false;
    world.read(0, watcher, usize::MAX);
    world.read(0, watcher, usize::MAX);
    let told: Vec<_> = ["enter", "exit"].map(|ev| world.heard(0, watcher, ev).len()).into();
    assert_eq!(told, [1, 1]);
    assert_eq!(world.heard(0, watcher, "exit")[0]["peer"]["name"], "pi-1");
}

/// `me` and, one after the other, two called `pi`.
fn namesakes(seed: u64) -> World {
    let mut world = World::new(seed);
    for name in ["me", "pi", "pi"] {
        let host = world.add(name, 0);
        world.start(host);
        world.run(seconds(1));
    }
    world
}

fn forget(world: &mut World, app: atonce::id::ClientId, whom: &str) {
    world.say(0, app, &format!(r#"{{"op":"forget","id":1,"to":"{whom}"}}"#));
}

/// Who is called `pi` there, and whether it is in conflict.
fn called_pi(world: &mut World) -> Vec<(String, bool)> {
    let app = world.connect(0);
    world.say(0, app, r#"{"op":"peers","id":3}"#);
    let peers = world.heard(0, app, "peer").into_iter().filter(|peer| peer["name"] == "pi");
    peers.map(|peer| (peer["id"].as_str().unwrap().to_owned(), peer["conflict"] == true)).collect()
}

#[test]
fn a_forgotten_offline_peer_is_gone_and_its_name_goes_to_who_has_it() {
    let mut world = namesakes(3);
    let (old, new) = (world.id(1).to_string(), world.id(2).to_string());
    assert!(world.status(0)["health"].as_array().unwrap().iter().any(|check| check["check"] == "names"));
    world.crash(1);
    world.run(seconds(20));
    let (listener, app) = (world.listener(2, "t"), world.connect(0));
    world.send(0, app, 5, "pi", "t", "for the old one only");
    world.run(seconds(1));
    forget(&mut world, app, &old);
    assert_eq!(world.heard(0, app, "ok").len(), 1);
    assert_eq!(world.outcome(0, app, 5), Some("unreachable"));
    assert_eq!(called_pi(&mut world), [(new, false)]);
    let remembered = world.with(0, |node| node.known_peers()).unwrap();
    assert!(remembered.iter().all(|known| known.id.to_string() != old));
    assert!(world.status(0)["health"].as_array().unwrap().iter().all(|check| check["check"] != "names"));
    world.send(0, app, 6, "pi", "t", "for the new one");
    world.send(0, app, 7, &old, "t", "for nobody");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 6), Some("delivered"));
    assert_eq!(world.heard(2, listener, "message").len(), 1);
    assert_eq!(world.heard(0, app, "error")[0]["code"], "no-peer");
    // When it comes back it is one more that has the name.
    world.start(1);
    world.run(seconds(2));
    assert_eq!(called_pi(&mut world).iter().filter(|(_, conflict)| *conflict).count(), 1);
    assert!(called_pi(&mut world).contains(&(old, true)));
}

#[test]
fn a_forgotten_peer_that_is_there_comes_back_as_a_new_one_and_no_message_is_taken_for_an_old_one() {
    let mut world = namesakes(4);
    let (old, new) = (world.id(1).to_string(), world.id(2).to_string());
    let (listener, app, watcher) = (world.listener(1, "t"), world.connect(0), world.watcher(0));
    world.run(seconds(1));
    for id in 10..15 {
        world.send(0, app, id, &old, "t", "x");
    }
    world.run(seconds(1));
    forget(&mut world, app, "pi");
    assert!(world.run_for(seconds(2), |world| world.online(0) == 2));
    assert_eq!((world.heard(0, watcher, "exit").len(), world.heard(0, watcher, "enter").len()), (1, 3));
    let mut expected = [(new, false), (old.clone(), true)];
    expected.sort();
    assert_eq!(called_pi(&mut world), expected);
    world.run(seconds(1));
    world.send(0, app, 20, &old, "t", "y");
    world.run(seconds(1));
    assert_eq!(world.outcome(0, app, 20), Some("delivered"));
    let texts: Vec<_> = world.heard(1, listener, "message").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(texts, ["x", "x", "x", "x", "x", "y"]);
}

#[test]
fn forgetting_is_for_administrators_and_never_this_node() {
    let mut world = namesakes(5);
    let admin = world.connect(0);
    forget(&mut world, admin, "me");
    forget(&mut world, admin, "nobody");
    let now = world.now;
    let anybody = atonce::id::ClientId(99);
    world.hosts[0].apps.insert(anybody, Default::default());
    world.with(0, |node| node.handle_connect(anybody, Owner { uid: 1000, admin: false }, now).unwrap());
    forget(&mut world, anybody, "pi");
    let codes: Vec<_> = world.heard(0, admin, "error").iter().map(|line| line["code"].clone()).collect();
    assert_eq!(codes, ["bad-request", "no-peer"]);
    assert_eq!(world.heard(0, anybody, "error")[0]["code"], "denied");
    assert_eq!(world.online(0), 2);
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

#[test]
fn an_idle_node_wakes_once_for_both_neighbours_whom_it_asks_and_not_to_learn_that_they_answered() {
    let mut world = World::lan(6, 20);
    world.run(seconds(200));
    let before: Vec<_> = world.hosts.iter().map(|host| (host.woken, host.sent_packets)).collect();
    world.run(seconds(60));
    for (host, (woken, sent)) in world.hosts.iter().zip(before) {
        let (woken, sent) = (host.woken - woken, host.sent_packets - sent);
        // Both are asked 24 times, as often it is asked by two; the rest is for sessions that are renewed.
        assert!((90..=125).contains(&sent), "{} sent {sent}", host.name);
        assert!(woken <= 24 + 30, "{} woke {woken} times", host.name);
    }
}

#[test]
fn a_late_word_that_nobody_listens_says_nothing_of_a_peer_that_was_heard_just_now() {
    let gone_after = |refused: bool| {
        let mut world = World::lan(7, 2);
        let (watcher, app, _) = (world.watcher(0), world.connect(1), world.listener(0, "t"));
        world.run(seconds(1));
        world.send(1, app, 1, "pi-0", "t", "here I am");
        world.run(milliseconds(1));
        assert_eq!(world.outcome(1, app, 1), Some("delivered"));
        let (remote, crashed) = (world.hosts[1].addr, world.now);
        if refused {
            world.with(0, |node| node.handle_unreachable(remote, crashed));
        }
        world.crash(1);
        assert!(world.run_for(seconds(20), |world| !world.heard(0, watcher, "exit").is_empty()));
        world.now.since(crashed)
    };
    assert_eq!(gone_after(true), gone_after(false));
}
