//! A network whose members change their secret.

use crate::world::{Weather, World, milliseconds, seconds};

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];

/// Hosts `pi-0`, `pi-1` ... that have these secrets, all running.
fn members(seed: u64, secrets: &[([u8; 32], Option<[u8; 32]>)]) -> World {
    let mut world = World::new(seed);
    for (n, (secret, before)) in secrets.iter().enumerate() {
        let host = world.add(&format!("pi-{n}"), 0);
        (world.hosts[host].secret, world.hosts[host].before) = (Some(*secret), *before);
        world.start(host);
    }
    world.run(seconds(3));
    world
}

fn all_online(world: &mut World, count: usize) -> bool {
    (0..count).all(|host| world.online(host) == count - 1)
}

#[test]
fn who_has_both_secrets_meets_who_has_either_whichever_of_them_begins() {
    for (seed, hears) in [[true, true], [true, false], [false, true]].into_iter().enumerate() {
        for other in [OLD, NEW] {
            let mut world = World::new(seed as u64);
            for (n, (secret, before)) in [(NEW, Some(OLD)), (other, None)].into_iter().enumerate() {
                let host = world.add(&format!("pi-{n}"), 0);
                (world.hosts[host].secret, world.hosts[host].before) = (Some(secret), before);
                world.hosts[host].hears = hears[n];
                world.start(host);
            }
            // Whom the greetings with the new secret tell nothing is found by address.
            let (now, first) = (world.now, world.hosts[0].addr);
            if !hears[0] {
                world.with(1, |node| node.handle_static_peers(&[first], now));
            }
            assert!(
                world.run_for(seconds(2), |world| all_online(world, 2)),
                "{hears:?}, new {}",
                other == NEW
            );
        }
    }
}

#[test]
fn who_has_both_finds_by_address_who_has_either() {
    for other in [OLD, NEW] {
        let mut world = World::new(3);
        for (n, (secret, before)) in [(NEW, Some(OLD)), (other, None)].into_iter().enumerate() {
            let host = world.add(&format!("pi-{n}"), 0);
            (world.hosts[host].secret, world.hosts[host].before) = (Some(secret), before);
            (world.hosts[host].hears, world.hosts[host].mdns, world.hosts[host].hello) =
                (false, false, false);
            world.start(host);
        }
        let (now, second) = (world.now, world.hosts[1].addr);
        world.with(0, |node| node.handle_static_peers(&[second], now));
        assert!(world.run_for(seconds(2), |world| all_online(world, 2)), "new {}", other == NEW);
        // It knows the address now, and begins itself.
        world.crash(0);
        world.run(seconds(10));
        world.start(0);
        assert!(world.run_for(seconds(2), |world| all_online(world, 2)), "new {}", other == NEW);
    }
}

#[test]
fn a_fleet_changes_its_secret_one_after_the_other_without_a_gap() {
    for (seed, weather) in [(5, Weather::FINE), (6, Weather { loss: 50, ..Weather::FINE })] {
        let mut world = members(seed, &[(OLD, None); 5]);
        assert!(all_online(&mut world, 5));
        world.weather = weather;
        let watchers: Vec<_> = (0..5).map(|host| world.watcher(host)).collect();
        for host in 0..5 {
            world.listener(host, "t");
        }
        world.run(seconds(2));
        let apps: Vec<_> = (0..5).map(|host| world.connect(host)).collect();
        for step in 0..10 {
            let host = step % 5;
            let id = |to: usize| (step * 5 + to) as u64;
            world.change_secrets(host, NEW, (step < 5).then_some(OLD));
            for (from, app) in apps.iter().enumerate() {
                for to in (0..5).filter(|to| *to != from) {
                    world.send(from, *app, id(to), &format!("pi-{to}"), "t", "x");
                }
            }
            world.run(seconds(5));
            for (from, app) in apps.iter().enumerate() {
                for to in (0..5).filter(|to| *to != from) {
                    let outcome = world.outcome(from, *app, id(to));
                    assert_eq!(outcome, Some("delivered"), "seed {seed}, step {step}, {from} to {to}");
                }
            }
            assert!(all_online(&mut world, 5), "seed {seed}, step {step}");
        }
        for (host, watcher) in watchers.into_iter().enumerate() {
            // A lost handshake falls back to the old secret, so its session ends with that, and is made anew at once.
            let exits = world.heard(host, watcher, "exit").len();
            assert!(exits == 0 || weather.loss > 0, "seed {seed}, host {host}: {exits}");
        }
    }
}

#[test]
fn members_that_change_their_secret_at_the_same_time_go_over_to_it_at_once() {
    for seed in 0..20 {
        let mut world = members(seed, &[(OLD, None); 4]);
        for host in 0..4 {
            world.change_secrets(host, NEW, Some(OLD));
            world.run(milliseconds(seed * 7));
        }
        world.run(seconds(3));
        for host in 0..4 {
            let status = world.status(host);
            let checks = status["health"].as_array().unwrap();
            let check = checks.iter().find(|check| check["check"] == "network").unwrap();
            assert!(check["why"].as_str().unwrap().contains("with 3 peers online"), "seed {seed}: {check}");
        }
    }
}

#[test]
fn who_has_only_the_old_secret_is_out_when_the_others_settle_and_not_before() {
    let mut world = members(8, &[(OLD, None); 4]);
    for host in 0..3 {
        world.change_secrets(host, NEW, Some(OLD));
    }
    world.run(seconds(5));
    assert!(all_online(&mut world, 4));
    let warns = |world: &mut World| {
        let status = world.status(0);
        let checks = status["health"].as_array().unwrap().clone();
        checks.iter().find(|check| check["check"] == "network").map(|check| check["why"].to_string())
    };
    let why = warns(&mut world).unwrap();
    assert!(why.contains("with 2 peers online") && why.contains("of before with 1;"), "{why}");
    for host in 0..3 {
        world.change_secrets(host, NEW, None);
    }
    world.run(milliseconds(10));
    assert_eq!([0, 1, 2, 3].map(|host| world.online(host)), [2, 2, 2, 0]);
    assert_eq!(warns(&mut world), None);
    world.crash(3);
    world.start(3);
    world.run(seconds(60));
    assert_eq!([0, 1, 2, 3].map(|host| world.online(host)), [2, 2, 2, 0]);
}

#[test]
fn going_to_another_network_without_keeping_the_old_one_leaves_everybody() {
    let mut world = members(9, &[(OLD, None); 3]);
    let watcher = world.watcher(1);
    world.change_secrets(0, NEW, None);
    world.run(seconds(1));
    assert_eq!(world.heard(1, watcher, "exit").len(), 1);
    assert_eq!([0, 1, 2].map(|host| world.online(host)), [0, 1, 1]);
}
