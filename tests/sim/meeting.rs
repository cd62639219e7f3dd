//! Meeting across address translators, by a rendezvous server.

use std::time::Duration;

use serde_json::Value;

use crate::world::nat::{Filtering, Kind, Mapping};
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

/// The kinds of research on address translators, in the order of their hardness.
const KINDS: [(&str, Kind); 8] = [
    ("open", Kind::OPEN),
    ("firewall", Kind::FIREWALL),
    ("EIM/EIF", Kind::EIF),
    ("EIM/ADF", Kind::ADF),
    ("EIM/APDF", Kind::HOME),
    ("ADM/APDF", Kind::ADM),
    ("APDM seq", Kind::SEQUENTIAL),
    ("APDM random", Kind::RANDOM),
];

/// Whether two sides can meet directly by sending to what a server sees of each.
fn can_meet(one: Kind, two: Kind) -> bool {
    let varies = |kind: Kind| !kind.firewall && kind.mapping != Mapping::EndpointIndependent;
    let picky = |kind: Kind| kind.filtering == Filtering::AddressAndPortDependent;
    // Whose port varies is met by whom lets any port of a known address in.
    match (varies(one), varies(two)) {
        (false, false) => true,
        (true, false) => !picky(two),
        (false, true) => !picky(one),
        (true, true) => false,
    }
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

/// A third member, whom everybody reaches.
fn add_third(world: &mut World, seed: u8) -> HostId {
    world.router(3, Kind::OPEN, &World::wan(3).to_string(), None);
    let third = world.add_at("third", 3, format!("198.18.3.{seed}").parse().unwrap());
    world.hosts[third].secret = world.hosts[0].secret;
    world.hosts[third].rendezvous = world.hosts[0].rendezvous.clone();
    third
}

fn peers(world: &mut World, host: HostId) -> Vec<Value> {
    let app = world.connect(host);
    world.say(host, app, r#"{"op":"peers","id":1}"#);
    world.heard(host, app, "peer").into_iter().cloned().collect()
}

#[test]
fn a_pair_that_cannot_meet_is_relayed_by_a_third_member() {
    for (_, one) in KINDS {
        for (_, two) in KINDS.into_iter().filter(|(_, two)| !can_meet(one, *two)) {
            let (mut world, [a, b]) = apart(7, [one, two]);
            let third = add_third(&mut world, 9);
            for host in [third, a, b] {
                world.start(host);
                world.run(seconds(2));
            }
            let begun = world.now;
            let met = world.run_for(seconds(20), |world| world.online(a) == 2 && world.online(b) == 2);
            assert!(met, "{one:?} {two:?}");
            assert!(world.now.since(begun) < seconds(3), "{one:?} {two:?} {:?}", world.now.since(begun));
            world.listener(b, "t");
            world.run(seconds(1));
            let app = world.connect(a);
            world.send(a, app, 1, "host-2", "t", "hi");
            world.run(seconds(1));
            assert_eq!(world.outcome(a, app, 1), Some("delivered"));
            let relayed = peers(&mut world, a).into_iter().find(|peer| peer["name"] == "host-2").unwrap();
            assert_eq!(
                (&relayed["path"]["kind"], &relayed["path"]["via"]),
                (&"relay".into(), &world.id(third).to_string().into())
            );
        }
    }
}

#[test]
fn a_pair_that_cannot_meet_is_told_as_connecting_with_the_reason_and_then_as_offline() {
    let (mut world, [a, b]) = apart(8, [Kind::RANDOM, Kind::RANDOM]);
    world.start(a);
    world.start(b);
    world.run(seconds(5));
    let told = |world: &mut World| {
        let peers = peers(world, a);
        assert_eq!(peers.len(), 1);
        let text = |key: &str| peers[0][key].as_str().unwrap().to_owned();
        (text("state"), text("why"))
    };
    assert_eq!(told(&mut world), ("connecting".into(), "a rendezvous server introduces us".into()));
    assert_eq!(world.status(a)["peers"]["connecting"], 1);
    world.run(seconds(12));
    let (state, why) = told(&mut world);
    assert_eq!(state, "connecting");
    assert!(why.contains("no peer of both relays"), "{why}");
    world.run(seconds(30));
    assert_eq!(told(&mut world).0, "offline");
}
