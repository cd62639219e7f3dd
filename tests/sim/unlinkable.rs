//! What rendezvous servers, and whoever hears what is said to them, can tell of a node: not that it is the same one on
//! another day, at another server, in another network or at another address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use atonce::wire::rendezvous::{FromNode, Namespace};

use crate::meeting::apart_with;
use crate::world::nat::Kind;
use crate::world::{World, seconds};

/// As whom a node shows itself: at which server, at which address, in which namespace.
type Role = (usize, IpAddr, Namespace);

/// All that is said in clear by one role: eight bytes from each place, but for those of the network and those that are
/// nearly nothing but zeros.
type Said = BTreeSet<[u8; 8]>;

/// What the node at these addresses said to servers.
fn said(world: &World, addrs: &[IpAddr]) -> BTreeMap<Role, Said> {
    let mut roles: BTreeMap<Role, Said> = BTreeMap::new();
    for (server, host) in world.internet.servers.iter().enumerate() {
        for (from, bytes) in host.received.iter().filter(|(from, _)| addrs.contains(&from.ip())) {
            let (namespace, known) = match FromNode::parse(bytes) {
                Ok(FromNode::Register(it)) => (it.namespace, it.known),
                Ok(FromNode::Keep(it)) => (it.namespace, it.known),
                Ok(FromNode::List(it)) => (it.namespace, it.known),
                Ok(FromNode::Intro(it)) => (it.namespace, 0),
                Ok(FromNode::Bye(it)) => (it.namespace, 0),
                Ok(FromNode::Hail(_) | FromNode::Probe(_) | FromNode::Where(_)) => continue,
                Err(error) => panic!("{error}"),
            };
            // The network of a day has a name, and its changes are numbered: all members show the same.
            let mut bytes = bytes.clone();
            for shared in [&namespace.0[..], &known.to_le_bytes()] {
                let at = bytes
                    .windows(shared.len())
                    .position(|window| window == shared && (known != 0 || window.len() == 32));
                if let Some(at) = at {
                    bytes[at..at + shared.len()].fill(0);
                }
            }
            // A cookie is the server's word for the address.
            if let Ok(FromNode::Register(it)) = FromNode::parse(&bytes) {
                let at = bytes.windows(16).position(|window| window == it.cookie.0).unwrap();
                bytes[at..at + 16].fill(0);
            }
            let windows =
                bytes.windows(8).filter(|window| window.iter().filter(|byte| **byte == 0).count() < 4);
            let role = roles.entry((server, from.ip(), namespace)).or_default();
            role.extend(windows.map(|window| <[u8; 8]>::try_from(window).unwrap()));
        }
    }
    roles
}

#[test]
fn nothing_that_a_node_says_in_clear_links_two_days_servers_networks_or_addresses_of_it() {
    for seed in 0..2 {
        let (mut world, hosts) = apart_with(300 + seed, [Kind::HOME, Kind::HOME], 2);
        for host in hosts {
            world.hosts[host].before = Some([8; 32]);
            world.start(host);
        }
        world.run(seconds(3600));
        // The device is carried into another network.
        let (home, away) = (World::wan(1), World::wan(77));
        world.router(7, Kind::HOME, &away.to_string(), None);
        world.hosts[hosts[0]].segment = 7;
        world.renumber(hosts[0], [10, 7, 0, 1].into());
        world.run(seconds(10));
        assert_eq!(world.online(hosts[0]), 1);
        world.run(seconds(86_400));
        let roles = said(&world, &[home, away]);
        // Two servers, two networks, two days; and one more address in the first of them.
        assert_eq!(roles.len(), 12, "{:?}", roles.keys().collect::<Vec<_>>());
        for (role, said) in &roles {
            assert!(said.len() > 200);
            for (other, theirs) in roles.iter().filter(|(other, _)| *other > role) {
                let common: Vec<_> = said.intersection(theirs).collect();
                assert!(common.is_empty(), "{role:?} and {other:?} have {common:x?} in common");
            }
        }
    }
}
