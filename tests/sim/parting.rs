//! Networks that are parted, and are one again.

use crate::world::{HostId, World, milliseconds, seconds};

#[test]
fn a_parted_network_is_one_again_within_two_seconds_if_any_session_survived() {
    for seed in 0..20 {
        let mut world = World::lan(seed, 8);
        world.run(seconds(5));
        let (left, right): (Vec<_>, Vec<_>) = (0..8).partition(|host| host % 2 == 0);
        // Two hosts go on seeing each other.
        let keeps = |a: HostId, b: HostId| (a, b) == (0, 1) || (a, b) == (1, 0);
        part(&mut world, &left, &right, keeps);
        world.run(seconds(40));
        assert_eq!((world.online(0), world.online(1), world.online(2)), (4, 4, 3), "seed {seed}");
        world.cut.clear();
        let whole = |world: &mut World| (0..8).all(|host| world.online(host) == 7);
        assert!(world.run_for(seconds(2), whole), "seed {seed}");
    }
}

#[test]
fn a_parted_network_is_one_again_soon_though_no_session_survived_and_nobody_browses() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        for n in 0..8 {
            let host = world.add(&format!("pi-{n}"), 0);
            world.hosts[host].mdns = false;
            world.start(host);
        }
        world.run(seconds(5));
        let (left, right): (Vec<_>, Vec<_>) = (0..8).partition(|host| host % 2 == 0);
        part(&mut world, &left, &right, |_, _| false);
        world.run(seconds(3600));
        assert_eq!((world.online(0), world.online(1)), (3, 3), "seed {seed}");
        world.cut.clear();
        let whole = |world: &mut World| (0..8).all(|host| world.online(host) == 7);
        assert!(world.run_for(seconds(600), whole), "seed {seed}");
    }
}

#[test]
fn two_that_can_never_meet_cost_the_others_next_to_nothing() {
    let mut world = World::lan(3, 4);
    part(&mut world, &[0], &[1], |_, _| false);
    world.run(seconds(3600));
    assert_eq!((world.online(0), world.online(1), world.online(2)), (2, 2, 3));
    let before: Vec<_> = world.hosts.iter().map(|host| host.sent_packets).collect();
    world.run(seconds(600));
    for (host, before) in before.into_iter().enumerate() {
        let sent = world.hosts[host].sent_packets - before;
        // The ring alone is 96 a minute.
        assert!(sent < 1300, "host {host} sent {sent}");
    }
}

#[test]
fn fifty_nodes_live_through_ten_minutes_of_faults_and_end_as_one() {
    let mut world = World::lan(4, 50);
    assert!(world.run_for(seconds(10), |world| (0..50).all(|host| world.online(host) == 49)));
    world.weather =
        crate::world::Weather { loss: 20, duplicate: 20, jitter_us: 2000, ..crate::world::Weather::FINE };
    for minute in 0..10 {
        let hosts: Vec<HostId> = (0..6).map(|_| world.below(50) as HostId).collect();
        match minute % 5 {
            0 => hosts.iter().for_each(|host| world.crash(*host)),
            1 => hosts.iter().for_each(|host| world.stop(*host)),
            2 => {
                let (left, right): (Vec<_>, Vec<_>) = (0..50).partition(|host| host % 3 == 0);
                part(&mut world, &left, &right, |_, _| false);
            }
            3 => world.suspend(hosts[0], seconds(20)),
            _ => {
                let last = 200 + minute as u8;
                world.renumber(hosts[0], std::net::Ipv4Addr::new(10, 0, 0, last));
            }
        }
        world.run(seconds(30));
        world.cut.clear();
        for host in 0..50 {
            if world.hosts[host].node.is_none() {
                world.start(host);
            }
        }
        world.run(seconds(30));
    }
    world.weather = crate::world::Weather::FINE;
    let whole = |world: &mut World| (0..50).all(|host| world.online(host) == 49);
    assert!(world.run_for(seconds(60), whole));
    let (listener, app) = (world.listener(7, "t"), world.connect(3));
    world.send(3, app, 1, "pi-7", "t", "still here");
    world.run(milliseconds(200));
    assert_eq!(world.heard(7, listener, "message").len(), 1);
    let before: u64 = world.hosts.iter().map(|host| host.sent_packets).sum();
    world.run(seconds(120));
    let sent = world.hosts.iter().map(|host| host.sent_packets).sum::<u64>() - before;
    assert!(sent < 50 * 2 * 250, "{sent} packets in two quiet minutes");
}

fn part(world: &mut World, left: &[HostId], right: &[HostId], keeps: impl Fn(HostId, HostId) -> bool) {
    let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (*left, *right)));
    let both = pairs.flat_map(|(left, right)| [(left, right), (right, left)]);
    world.cut.extend(both.filter(|(from, to)| !keeps(*from, *to)));
}
