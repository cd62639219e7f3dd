//! Going on looking: networks that begin to forward late, peers that are missed for long, and what that costs.

use std::time::Duration;

use atonce::core::Destination;

use crate::world::{HostId, World, milliseconds, seconds};

/// When the network begins to forward, in seconds after the start of the later node.
const FORWARDS: [u64; 6] = [1, 3, 8, 20, 70, 600];
/// Within this it is young: it looks often.
const YOUNG: u64 = 600;

/// What passes once the network forwards.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Passes {
    All,
    /// Nobody hears multicast: whom nothing but an address is known of.
    Unicast,
    Hellos,
    Mdns,
}

/// How the two knew each other before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Never,
    Met,
    Configured,
}

fn bound(young: bool) -> Duration {
    seconds(if young { 30 } else { 75 })
}

fn join(world: &mut World, left: HostId, right: HostId) {
    world.cut.remove(&(left, right));
    world.cut.remove(&(right, left));
}

fn part(world: &mut World, left: HostId, right: HostId) {
    world.cut.extend([(left, right), (right, left)]);
}

fn configure(world: &mut World, host: HostId, at: HostId) {
    let (addr, now) = (world.hosts[at].addr, world.now);
    world.with(host, |node| node.handle_static_peers(&[addr], now));
}

/// Two nodes that are parted: the second starts now, the first so long ago.
fn parted(seed: u64, passes: Passes, before: Before, earlier: Duration) -> World {
    let mut world = World::new(seed);
    for name in ["a", "b"] {
        let host = world.add(name, 0);
        world.hosts[host].mdns = passes != Passes::Hellos;
        world.hosts[host].hello = passes != Passes::Mdns;
    }
    if before == Before::Met {
        (0..2).for_each(|host| world.start(host));
        assert!(world.run_for(seconds(1), |world| world.online(0) == 1 && world.online(1) == 1));
        world.run(seconds(20));
        (0..2).for_each(|host| world.stop(host));
        world.run(seconds(20));
    }
    for host in 0..2 {
        world.hosts[host].hears = passes != Passes::Unicast;
    }
    part(&mut world, 0, 1);
    world.start(0);
    if before == Before::Configured {
        configure(&mut world, 0, 1);
    }
    world.run(earlier);
    world.start(1);
    world
}

fn met(world: &mut World) -> bool {
    let count = world.hosts.iter().filter(|host| host.node.is_some()).count();
    (0..world.hosts.len()).all(|host| world.hosts[host].node.is_none() || world.online(host) == count - 1)
}

#[test]
fn two_nodes_meet_soon_after_the_network_begins_to_forward_whenever_that_is() {
    let cases = [
        (Passes::All, Before::Never),
        (Passes::All, Before::Met),
        (Passes::Hellos, Before::Never),
        (Passes::Mdns, Before::Never),
        (Passes::Unicast, Before::Met),
        (Passes::Unicast, Before::Configured),
    ];
    for (passes, before) in cases {
        for (forwards, seed) in FORWARDS.into_iter().flat_map(|at| (0..4).map(move |seed| (at, seed))) {
            for earlier in [0, 7, 3000] {
                let mut world = parted(seed, passes, before, seconds(earlier));
                world.run(seconds(forwards));
                join(&mut world, 0, 1);
                // Only the first one has the other in its configuration.
                let oldest = before == Before::Configured && earlier + forwards >= YOUNG;
                let bound = bound(forwards < YOUNG && !oldest);
                assert!(
                    world.run_for(bound, met),
                    "{passes:?}, {before:?}, seed {seed}: forwards {forwards} s after b and {earlier} s more after a"
                );
            }
        }
    }
}

#[test]
fn it_is_enough_that_one_direction_was_open_all_the_time() {
    for open in [(0, 1), (1, 0)] {
        for forwards in FORWARDS {
            let mut world = parted(1, Passes::All, Before::Never, Duration::ZERO);
            world.cut.remove(&open);
            world.run(seconds(forwards));
            join(&mut world, 0, 1);
            assert!(world.run_for(bound(forwards < YOUNG), met), "{open:?} open, {forwards} s");
        }
    }
}

#[test]
fn a_daemon_that_was_restarted_while_the_network_did_not_forward_is_met_as_soon() {
    for before in [Before::Never, Before::Met] {
        for (forwards, host) in FORWARDS.into_iter().flat_map(|at| [(at, 0), (at, 1)]) {
            let mut world = parted(2, Passes::All, before, Duration::ZERO);
            world.run(seconds(forwards) / 2);
            world.stop(host);
            world.run(milliseconds(500));
            world.start(host);
            world.run(seconds(forwards) / 2);
            join(&mut world, 0, 1);
            assert!(world.run_for(seconds(30), met), "{before:?}, {forwards} s, restarted {host}");
        }
    }
}

#[test]
fn who_said_goodbye_is_found_again_when_the_network_forwards_late() {
    for (away, forwards) in [(60, 8), (60, 70), (4000, 70), (4000, 601)] {
        let mut world = World::lan(3, 3);
        assert!(world.run_for(seconds(1), met));
        world.run(seconds(20));
        world.stop(2);
        world.run(seconds(away));
        for other in 0..2 {
            part(&mut world, other, 2);
        }
        world.start(2);
        world.run(seconds(forwards));
        for other in 0..2 {
            join(&mut world, other, 2);
        }
        assert!(world.run_for(bound(forwards < YOUNG), met), "away {away} s, forwards {forwards} s late");
    }
}

#[test]
fn a_third_node_is_met_by_two_that_know_each_other() {
    for forwards in FORWARDS {
        let mut world = World::new(4);
        for name in ["a", "b", "c"] {
            world.add(name, 0);
        }
        (0..2).for_each(|other| part(&mut world, other, 2));
        (0..3).for_each(|host| world.start(host));
        world.run(seconds(forwards));
        assert_eq!(world.online(0), 1);
        (0..2).for_each(|other| join(&mut world, other, 2));
        assert!(world.run_for(bound(forwards < YOUNG), met), "{forwards} s");
    }
}

#[test]
fn two_islands_that_knew_each_other_are_one_soon_after_they_are_joined() {
    for parted_for in [30, 300, 4000] {
        let mut world = World::lan(5, 4);
        assert!(world.run_for(seconds(1), met));
        world.run(seconds(20));
        for (left, right) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            part(&mut world, left, right);
        }
        world.run(seconds(parted_for));
        assert_eq!(world.online(0), 1);
        world.cut.clear();
        assert!(world.run_for(seconds(75), met), "parted for {parted_for} s");
    }
}

/// Packets for everybody on one interface with both families, of a host that is alone: hellos, and one question of
/// multicast DNS in each family for each browse.
fn loud_packets(world: &mut World, host: HostId, duration: Duration) -> (u64, u64) {
    world.capture = Some(Vec::new());
    let browses = world.hosts[host].browses;
    world.run(duration);
    let sent = world.capture.take().unwrap();
    let packets = |to: &Destination| match to {
        Destination::Everyone => 3,
        Destination::Groups => 2,
        Destination::One(_) => 0,
    };
    let hellos = sent.iter().map(|(_, to, _)| packets(to)).sum::<u64>();
    (hellos, 2 * (world.hosts[host].browses - browses))
}

#[test]
fn a_node_that_is_alone_costs_its_network_at_most_four_packets_a_minute() {
    for seed in 0..4 {
        let mut world = World::lan(seed, 1);
        world.run(seconds(600));
        let (hellos, questions) = loud_packets(&mut world, 0, seconds(6000));
        assert!(hellos + questions <= 400, "seed {seed}: {hellos} hellos, {questions} questions in 100 min");
        // And it does look, in both ways: less than 75 s apart. All these browses are brief.
        assert!(hellos >= 160 && questions >= 160, "seed {seed}: {hellos} and {questions}");
    }
}

#[test]
fn thousands_that_are_remembered_and_gone_cost_no_more_than_a_few() {
    let mut world = World::lan(6, 1);
    world.remember_strangers(0, 3000);
    world.run(seconds(700));
    let before = world.hosts[0].sent_packets;
    world.run(seconds(600));
    let sent = world.hosts[0].sent_packets - before;
    // 32 datagrams a look, 67 s apart, and the hellos.
    assert!(sent <= 10 * 40, "{sent} packets in ten minutes");
    assert!(sent >= 10 * 20, "{sent} packets in ten minutes");
}

#[test]
fn a_large_group_that_misses_one_stays_nearly_quiet() {
    let quiet = |miss: bool| {
        let mut world = World::lan(7, 12);
        assert!(world.run_for(seconds(3), met));
        world.run(seconds(20));
        if miss {
            world.crash(11);
        }
        world.run(seconds(1200));
        let before: u64 = world.hosts.iter().map(|host| host.sent_packets).sum();
        world.run(seconds(600));
        world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() - before
    };
    let (missing, complete) = (quiet(true), quiet(false));
    // Two looks a minute of all together: a hello, a first message, and a question to each who was not heard just now.
    assert!(
        missing < complete + complete / 4,
        "{missing} packets in ten minutes, {complete} where nobody is missed"
    );
}

#[test]
fn who_misses_nobody_looks_for_nobody() {
    let mut world = World::lan(8, 3);
    assert!(world.run_for(seconds(1), met));
    world.run(seconds(60));
    let (hellos, questions) = loud_packets(&mut world, 0, seconds(500));
    assert_eq!(hellos, 0, "of all three");
    assert!(questions <= 2);
}
