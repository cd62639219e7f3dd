//! Hosts with two network cards in one network, of which one dies: the other one is taken at once.

use std::time::Duration;

use crate::world::{World, milliseconds, seconds};

/// How a card dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Its host is told.
    Pulled,
    /// Nothing passes, and nobody is told.
    Silent,
    /// It still hears.
    Mute,
    /// It still speaks.
    Deaf,
}

const DEATHS: [Death; 4] = [Death::Pulled, Death::Silent, Death::Mute, Death::Deaf];

/// `pi-0` with two cards in one network and `pi-1` with one, or with two as well.
fn two_cards(seed: u64, both: bool) -> World {
    let mut world = World::new(seed);
    for name in ["pi-0", "pi-1"] {
        let host = world.add(name, 0);
        if host == 0 || both {
            world.plug_beside(host);
        }
        world.start(host);
    }
    world
}

fn kill(world: &mut World, card: usize, death: Death) {
    match death {
        Death::Pulled => world.pull(0, card, true),
        Death::Silent => {
            world.mute.insert((0, card));
            world.deaf.insert((0, card));
        }
        Death::Mute => drop(world.mute.insert((0, card))),
        Death::Deaf => drop(world.deaf.insert((0, card))),
    }
}

/// Sends a message each 20 ms for `duration`; the longest that one of them took.
fn talk(
    world: &mut World,
    from: usize,
    app: atonce::id::ClientId,
    first: u64,
    duration: Duration,
) -> Duration {
    let begun = world.now;
    let mut id = first;
    let mut waiting = Vec::new();
    let mut longest = Duration::ZERO;
    while world.now.since(begun) < duration || !waiting.is_empty() {
        if world.now.since(begun) < duration {
            world.send(from, app, id, if from == 0 { "pi-1" } else { "pi-0" }, "t", "x");
            waiting.push((id, world.now));
            id += 1;
        }
        world.run(milliseconds(20));
        assert!(world.now.since(begun) < duration + seconds(20), "{waiting:?}");
        waiting.retain(|(id, sent)| match world.outcome(from, app, *id) {
            Some(outcome) => {
                assert_eq!(outcome, "delivered");
                longest = longest.max(world.now.since(*sent));
                false
            }
            None => true,
        });
    }
    longest
}

#[test]
fn whichever_of_two_cards_dies_in_whatever_way_under_traffic_the_other_one_is_taken_within_a_second() {
    for (card, death, from, both, seed) in cases() {
        let mut world = two_cards(seed, both);
        world.run(seconds(3));
        let (_, app, watcher) = (world.listener(1 - from, "t"), world.connect(from), world.watcher(1));
        world.run(seconds(1));
        talk(&mut world, from, app, 0, seconds(1));
        kill(&mut world, card, death);
        let longest = talk(&mut world, from, app, 10_000, seconds(5));
        let case = format!("card {card}, {death:?}, from pi-{from}, both {both}, seed {seed}");
        assert!(longest < seconds(1), "{case}: {longest:?}");
        assert!(world.heard(1, watcher, "exit").is_empty(), "{case}");
    }
}

fn cases() -> Vec<(usize, Death, usize, bool, u64)> {
    let mut cases = Vec::new();
    for card in [0, 1] {
        for death in DEATHS {
            for from in [0, 1] {
                for both in [false, true] {
                    cases.extend((0..3).map(|seed| (card, death, from, both, seed)));
                }
            }
        }
    }
    cases
}

#[test]
fn whichever_of_two_cards_dies_while_nobody_speaks_nobody_is_said_to_have_left() {
    for (card, death, from, both, seed) in cases().into_iter().filter(|case| case.2 == 0) {
        let mut world = two_cards(seed, both);
        world.run(seconds(3));
        let (_, app, watchers) = (world.listener(1, "t"), world.connect(0), [0, 1].map(|n| world.watcher(n)));
        world.run(seconds(30));
        kill(&mut world, card, death);
        world.run(seconds(30));
        let longest = talk(&mut world, from, app, 0, seconds(1));
        let case = format!("card {card}, {death:?}, both {both}, seed {seed}");
        assert!(longest < milliseconds(100), "{case}: {longest:?}");
        for (host, watcher) in watchers.into_iter().enumerate() {
            assert!(world.heard(host, watcher, "exit").is_empty(), "{case}: pi-{host}");
        }
    }
}

#[test]
fn two_hosts_with_two_cards_each_are_as_quiet_as_others_once_they_have_met() {
    let sent = |both| {
        let mut world = if both { two_cards(1, true) } else { World::lan(1, 2) };
        world.run(seconds(30));
        let before = world.hosts[0].sent_packets;
        world.run(seconds(60));
        world.hosts[0].sent_packets - before
    };
    let (two, one) = (sent(true), sent(false));
    assert!(two <= one + 8, "{two} and {one}");
}

#[test]
fn two_hosts_with_two_cards_each_agree_on_one_way_while_they_speak() {
    for seed in 0..10 {
        let mut world = two_cards(seed, true);
        world.run(seconds(3));
        let (_, app) = (world.listener(1, "t"), world.connect(0));
        world.run(seconds(1));
        talk(&mut world, 0, app, 0, seconds(5));
        let before = [0, 1].map(|host| world.hosts[host].sent_packets);
        talk(&mut world, 0, app, 10_000, seconds(5));
        let after = [0, 1].map(|host| world.hosts[host].sent_packets);
        // A message, its fate and receipts for both, 50 times a second.
        let sent = [0, 1].map(|host| after[host] - before[host]);
        assert!(sent.iter().all(|sent| *sent < 5 * 50 * 2), "seed {seed}: {sent:?}");
    }
}
