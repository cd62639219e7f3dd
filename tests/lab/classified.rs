//! The recipes are what they are called: each is probed from both of its sides.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::internet::{Internet, Side, Site};
use crate::kinds::{Filtering, KINDS, Kind, Mapping, Ports};
use crate::lab::{Host, Lab};

/// The inner port of what is probed.
const PORT: u16 = 41_050;
/// What nobody else sends comes on veth in the same moment; so long we wait for what must not come.
const SILENCE: Duration = Duration::from_millis(100);

/// A socket on a host.
fn socket(host: Host, port: u16) -> UdpSocket {
    let opened = std::thread::spawn(move || {
        let namespace = File::open(format!("/run/netns/{}", host.name)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        UdpSocket::bind(("0.0.0.0", port)).unwrap()
    });
    let socket = opened.join().unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

/// The next datagram and its sender, if one comes.
fn hear(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut datagram = [0; 64];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => return Some((datagram[..length].to_vec(), from)),
            // An ICMP error to what was sent before.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(_) => return None,
        }
    }
}

/// Three places outside: two ports of one host, and another host.
struct Outside {
    sockets: [UdpSocket; 3],
    addrs: [SocketAddr; 3],
}

impl Outside {
    fn new(internet: &Internet<'_>) -> Self {
        let (one, addr) = internet.host(Side::East, "probe1");
        let (two, other) = internet.host(Side::East, "probe2");
        let addrs = [(&addr, 7001), (&addr, 7002), (&other, 7001)];
        let sockets = [(one, 7001), (one, 7002), (two, 7001)].map(|(host, port)| socket(host, port));
        Self { sockets, addrs: addrs.map(|(addr, port)| SocketAddr::new(addr.parse().unwrap(), port)) }
    }

    /// Where each place sees what `inner` sends.
    fn seen(&self, inner: &UdpSocket) -> [Option<SocketAddr>; 3] {
        [0, 1, 2].map(|place| {
            inner.send_to(b"out", self.addrs[place]).unwrap();
            hear(&self.sockets[place]).map(|(_, from)| from)
        })
    }
}

/// What the probes say of a router: its mapping, its filtering, whether it kept the port, and whether ports came in turn.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Router { mapping: Mapping, filtering: Filtering, kept: bool, in_turn: bool, translated: bool },
}

fn classify(outside: &Outside, site: &Site<'_>, host: Host) -> Found {
    let inner = socket(host, PORT);
    let [Some(one), Some(other_port), Some(other_addr)] = outside.seen(&inner) else { return Found::Nothing };
    let mapping = if one != other_port {
        Mapping::AddressAndPortDependent
    } else if one != other_addr {
        Mapping::AddressDependent
    } else {
        Mapping::EndpointIndependent
    };
    let follows = |one: SocketAddr, next: SocketAddr| next.port() == one.port() + 1;
    let in_turn = follows(one, other_port) && follows(other_port, other_addr);

    // Another one, which has sent to the first place only.
    let inner = socket(host, PORT + 1);
    inner.send_to(b"out", outside.addrs[0]).unwrap();
    let there = hear(&outside.sockets[0]).unwrap().1;
    let lets_in = |place: usize| {
        outside.sockets[place].send_to(b"in", there).unwrap();
        hear(&inner).is_some()
    };
    assert!(lets_in(0), "an answer must come in");
    let filtering = match (lets_in(1), lets_in(2)) {
        (true, true) => Filtering::EndpointIndependent,
        (true, false) => Filtering::AddressDependent,
        (false, false) => Filtering::AddressAndPortDependent,
        (false, true) => panic!("who lets in a stranger lets in a known address"),
    };
    let translated = site.addr_of(host) != one.ip().to_string();
    Found::Router { mapping, filtering, kept: one.port() == PORT, in_turn, translated }
}

fn expected(kind: Kind) -> Found {
    if kind.blocked {
        return Found::Nothing;
    }
    Found::Router {
        mapping: kind.mapping,
        filtering: kind.filtering,
        kept: kind.ports == Ports::Kept,
        in_turn: kind.ports == Ports::Sequential,
        translated: !kind.firewall,
    }
}

#[test]
fn each_recipe_maps_and_filters_as_its_name_says() {
    Lab::run("classified::each_recipe_maps_and_filters_as_its_name_says", |lab| {
        let internet = Internet::new(lab);
        let outside = Outside::new(&internet);
        let moved = Kind { ports: Ports::Random, ..Kind::HOME };
        let more = [("port not kept", moved), ("blocked", Kind::BLOCKED), ("poisonable", Kind::POISONABLE)];
        let mut wrong = Vec::new();
        for (name, kind) in KINDS.into_iter().chain(more) {
            let site = internet.site(Side::West, kind);
            let host = site.host(format!("in-{}", site.router.name).leak());
            let found = classify(&outside, &site, host);
            println!("{name:14} {found:?}");
            if found != expected(kind) {
                wrong.push((name, found, expected(kind)));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn a_carrier_in_front_of_a_home_is_as_picky_as_the_pickier_of_both() {
    Lab::run("classified::a_carrier_in_front_of_a_home_is_as_picky_as_the_pickier_of_both", |lab| {
        let internet = Internet::new(lab);
        let outside = Outside::new(&internet);
        for (carrier, home, both) in [
            (Kind::EIF, Kind::HOME, Kind::HOME),
            (Kind::HOME, Kind::EIF, Kind::HOME),
            (Kind::RANDOM, Kind::HOME, Kind::RANDOM),
        ] {
            let carrier = internet.carrier(Side::West, carrier);
            let site = internet.customer(&carrier, home, 1);
            let host = site.host(format!("in-{}", site.router.name).leak());
            assert_eq!(classify(&outside, &site, host), expected(both));
        }
    });
}

#[test]
fn a_probe_that_comes_too_early_takes_the_port_of_a_poisonable_router_only() {
    Lab::run("classified::a_probe_that_comes_too_early_takes_the_port_of_a_poisonable_router_only", |lab| {
        let internet = Internet::new(lab);
        let outside = Outside::new(&internet);
        for kind in [Kind::HOME, Kind::POISONABLE] {
            let site = internet.site(Side::West, kind);
            let inner = socket(site.host(format!("in-{}", site.router.name).leak()), PORT);
            let there = SocketAddr::new(site.wan.parse().unwrap(), PORT);
            outside.sockets[1].send_to(b"early", there).unwrap();
            assert!(hear(&inner).is_none());
            let [before, poisoned, _] = outside.seen(&inner).map(|seen| seen.unwrap().port() == PORT);
            assert_eq!((before, poisoned), (true, !kind.poisonable), "{kind:?}");
        }
    });
}

#[test]
fn three_hops_open_two_translators_in_a_row_and_reach_no_router_of_the_other_side() {
    Lab::run(
        "classified::three_hops_open_two_translators_in_a_row_and_reach_no_router_of_the_other_side",
        |lab| {
            let internet = Internet::new(lab);
            let carrier = internet.carrier(Side::West, Kind::HOME);
            let (home, behind) =
                (internet.site(Side::West, Kind::HOME), internet.customer(&carrier, Kind::HOME, 1));
            let far = internet.site(Side::East, Kind::OPEN);
            let router = socket(far.router, PORT);
            let there = SocketAddr::new(far.wan.parse().unwrap(), PORT);
            for (site, outer) in [(&home, &home), (&behind, &carrier)] {
                let inner = socket(site.host(format!("in-{}", site.router.name).leak()), PORT);
                inner.set_ttl(3).unwrap();
                inner.send_to(b"near", there).unwrap();
                assert!(hear(&router).is_none());
                // Yet the way back is open.
                router.send_to(b"back", SocketAddr::new(outer.wan.parse().unwrap(), PORT)).unwrap();
                assert_eq!(hear(&inner).unwrap().0, b"back");
                inner.set_ttl(64).unwrap();
                inner.send_to(b"far", there).unwrap();
                assert_eq!(hear(&router).unwrap().0, b"far");
            }
        },
    );
}

#[test]
fn a_carrier_with_hairpin_joins_its_customers_and_one_without_does_not() {
    Lab::run("classified::a_carrier_with_hairpin_joins_its_customers_and_one_without_does_not", |lab| {
        let internet = Internet::new(lab);
        let outside = Outside::new(&internet);
        for hairpin in [false, true] {
            let carrier = internet.carrier(Side::West, Kind { hairpin, ..Kind::EIF });
            let inner = [1, 2].map(|net| {
                let site = internet.customer(&carrier, Kind::HOME, net);
                socket(site.host(format!("in-{}", site.router.name).leak()), PORT + u16::from(net))
            });
            let seen = inner.each_ref().map(|inner| outside.seen(inner)[0].unwrap());
            for (from, to) in [(0, 1), (1, 0)] {
                inner[from].send_to(b"around", seen[to]).unwrap();
            }
            let heard = inner.each_ref().map(|inner| hear(inner).map(|(_, from)| from));
            // Who sent first was not let in yet; what the second sent comes as from the outside.
            assert_eq!(heard[0], hairpin.then_some(seen[1]));
            assert_eq!(hear(&inner[1]), None);
        }
    });
}
