//! Meeting across address translators, by a rendezvous server.

use std::time::Duration;

use crate::nat::Kind;
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
