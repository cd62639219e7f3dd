//! Meeting across address translators, by a rendezvous server.

use std::time::Duration;

use crate::world::nat::{KINDS, Kind, can_meet};
use crate::world::{HostId, World, milliseconds, seconds};

const LINK: Duration = milliseconds(25);

/// Two hosts of one private network, each behind a router of its own, and one server. Nobody is started.
fn apart(seed: u64, kinds: [Kind; 2]) -> (World, [HostId; 2]) {
    let mut world = World::new(seed);
    world.internet.link = LINK;
    let server = world.add_server();
    let hosts = [1, 2].map(|n: u8| {
        let kind = kinds[usize::from(n) - 1];
        world.router(n.into(), kind, &World::wan(n).to_string(), None);
        let name = format!("host-{n}");
        let host = if kind.firewall {
            world.add_at(&name, n, format!("198.18.{n}.1").parse().unwrap())
        } else {
            world.add(&name, n)
        };
        world.hosts[host].secret = Some([7; 32]);
        world.hosts[host].rendezvous = vec![server.clone()];
        host
    });
    (world, hosts)
}

#[test]
fn two_homes_meet_and_talk() {
    let (mut world, [one, two]) = apart(1, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    world.listener(one, "t");
    let begun = world.now;
    world.start(two);
    let app = world.connect(two);
    assert!(world.run_for(seconds(2), |world| world.online(two) == 1), "{:#}", world.status(two));
    println!("online after {:?}", world.now.since(begun));
    world.send(two, app, 1, "host-1", "t", "hi");
    assert!(world.run_for(seconds(2), |world| world.outcome(two, app, 1).is_some()));
    println!("acknowledged after {:?}", world.now.since(begun));
    assert_eq!(world.outcome(two, app, 1), Some("delivered"));
}

#[test]
fn every_pair_that_can_meet_is_direct() {
    let mut wrong = Vec::new();
    for (row, (name, kind)) in KINDS.into_iter().enumerate() {
        for (column, (other_name, other)) in KINDS.into_iter().enumerate() {
            for first in [0, 1] {
                let seed = (row * 16 + column * 2 + first) as u64;
                let (mut world, hosts) = apart(seed, [kind, other]);
                world.start(hosts[first]);
                world.run(seconds(5));
                world.start(hosts[1 - first]);
                let begun = world.now;
                let met =
                    world.run_for(seconds(40), |world| world.online(hosts[0]) + world.online(hosts[1]) == 2);
                println!("{name:12} {other_name:12} {met} {:?}", world.now.since(begun));
                if met != can_meet(kind, other) {
                    wrong.push((name, other_name, first, met));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_server_that_restarted_introduces_newcomers_to_all_after_one_keep() {
    let (mut world, [one, two]) = apart(3, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    world.stop_server(0);
    world.start_server(0);
    world.start(two);
    // A keep is due every 25 s, give or take a tenth, and up to ten seconds later it registers again.
    assert!(world.run_for(seconds(40), |world| world.online(two) == 1), "{:#}", world.status(two));
}

#[test]
fn a_router_that_an_early_packet_spoils_is_not_spoilt_however_soon_one_comes_after_the_other() {
    for seed in 0..20 {
        let (mut world, [one, two]) = apart(seed, [Kind::POISONABLE, Kind::POISONABLE]);
        world.start(one);
        // The server tells of the second as much later as it told of the first a moment ago.
        world.run(milliseconds(110 + 20 * seed));
        world.start(two);
        assert!(world.run_for(seconds(5), |world| world.online(two) == 1), "{seed} {:#}", world.status(two));
    }
}
