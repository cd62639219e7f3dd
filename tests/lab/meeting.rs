//! Members behind routers of every kind: who meets directly, who through a relay, and what is told where nobody helps.

use crate::homes::{Homes, await_path, await_registered};
use crate::internet::{Internet, Server, Side, Site};
use crate::kinds::{KINDS, Kind, can_meet};
use crate::lab::{Daemon, Host, Lab};
use crate::talk::talk;

/// Those of one pair of the table: a network of their own.
struct Pair {
    kinds: String,
    secret: String,
    daemons: [Daemon; 2],
}

/// A router of each kind on either side, and one host behind each of them with a daemon for each pair.
struct Table<'lab> {
    internet: Internet<'lab>,
    server: Server,
    places: [Vec<(Site<'lab>, Host)>; 2],
    last_port: u16,
}

impl<'lab> Table<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let internet = Internet::new(lab);
        let server = internet.start_server();
        let places = Side::BOTH.map(|side| {
            let place = |(_, kind)| {
                let site = internet.site(side, kind);
                let host = site.host(format!("in-{}", site.router.name).leak());
                (site, host)
            };
            KINDS.map(place).into_iter().collect()
        });
        Self { internet, server, places, last_port: 30_000 }
    }

    /// A daemon with a port of its own: some routers need that.
    fn daemon(&mut self, host: Host, name: &str, secret: &str) -> Daemon {
        self.last_port += 1;
        let port = self.last_port.to_string();
        let line = &self.server.lines[0];
        host.daemon_named(name, &["--network-secret-file", secret, "--rendezvous", line, "--port", &port])
    }

    /// All pairs of the table for which it says so; which of both begins changes from pair to pair.
    fn pairs(&mut self, meet: bool) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (row, (name, kind)) in KINDS.into_iter().enumerate() {
            for (column, (other_name, other)) in KINDS.into_iter().enumerate().skip(row) {
                if can_meet(kind, other) != meet {
                    continue;
                }
                let hosts = [self.places[0][row].1, self.places[1][column].1];
                let secret = self.internet.lab.new_network(&format!("secret-{row}-{column}"));
                let order = [[0, 1], [1, 0]][pairs.len() % 2];
                let mut started = order.map(|side| {
                    let name = format!("{}-{row}-{column}", ["west", "east"][side]);
                    (side, self.daemon(hosts[side], &name, &secret))
                });
                started.sort_by_key(|(side, _)| *side);
                let daemons = started.map(|(_, daemon)| daemon);
                pairs.push(Pair { kinds: format!("{name} and {other_name}"), secret, daemons });
            }
        }
        pairs
    }
}

#[test]
fn every_pair_of_translators_that_can_meet_is_direct() {
    Lab::run("meeting::every_pair_of_translators_that_can_meet_is_direct", |lab| {
        for pair in Table::new(lab).pairs(true) {
            println!("{}", pair.kinds);
            await_path(pair.daemons.each_ref(), "direct");
        }
    });
}

#[test]
fn every_other_pair_is_told_why_it_is_apart_and_is_relayed_when_a_third_member_comes() {
    Lab::run(
        "meeting::every_other_pair_is_told_why_it_is_apart_and_is_relayed_when_a_third_member_comes",
        |lab| {
            let mut table = Table::new(lab);
            let pairs = table.pairs(false);
            for pair in &pairs {
                for daemon in &pair.daemons {
                    let why = daemon.await_answer(&["peers", "--all"], |peers| {
                        let apart = peers.iter().find(|peer| peer["state"] == "connecting")?;
                        apart["why"].as_str().filter(|why| why.contains("router")).map(str::to_owned)
                    });
                    println!("{}: {why}", pair.kinds);
                }
            }
            let open = table.internet.site(Side::East, Kind::OPEN);
            let host = open.host("open");
            let third: Vec<_> = pairs
                .iter()
                .map(|pair| table.daemon(host, &format!("third-{}", pair.daemons[0].name), &pair.secret))
                .collect();
            for (pair, third) in pairs.iter().zip(&third) {
                println!("{}", pair.kinds);
                await_path(pair.daemons.each_ref(), "relay");
                for daemon in &pair.daemons {
                    await_path([daemon, third], "direct");
                }
            }
        },
    );
}

/// Both sides meet in this way, and talk.
fn meet(homes: &Homes<'_>, kind: &str) -> [Daemon; 2] {
    let pair = homes.pair();
    await_path(pair.each_ref(), kind);
    talk(&pair[0], &pair[1]);
    pair
}

#[test]
fn routers_that_an_early_probe_would_spoil_are_not_spoilt() {
    Lab::run("meeting::routers_that_an_early_probe_would_spoil_are_not_spoilt", |lab| {
        meet(&Homes::new(lab, [Kind::POISONABLE, Kind::POISONABLE]), "direct");
    });
}

#[test]
fn homes_behind_carriers_meet_directly() {
    Lab::run("meeting::homes_behind_carriers_meet_directly", |lab| {
        let internet = Internet::new(lab);
        let west = internet.carrier(Side::West, Kind::EIF);
        let east = internet.carrier(Side::East, Kind::HOME);
        let sites = [&west, &east].map(|carrier| internet.customer(carrier, Kind::HOME, 1));
        meet(&Homes::at(internet, sites), "direct");
    });
}

/// Two homes behind one carrier.
fn neighbours(lab: &Lab, hairpin: bool) -> Homes<'_> {
    let internet = Internet::new(lab);
    let carrier = internet.carrier(Side::West, Kind { hairpin, ..Kind::EIF });
    let sites = [1, 2].map(|net| internet.customer(&carrier, Kind::HOME, net));
    Homes::at(internet, sites)
}

#[test]
fn two_homes_behind_one_carrier_meet_directly_around_its_corner() {
    Lab::run("meeting::two_homes_behind_one_carrier_meet_directly_around_its_corner", |lab| {
        meet(&neighbours(lab, true), "direct");
    });
}

#[test]
fn two_homes_behind_one_carrier_that_does_not_turn_packets_around_are_relayed() {
    Lab::run("meeting::two_homes_behind_one_carrier_that_does_not_turn_packets_around_are_relayed", |lab| {
        let homes = neighbours(lab, false);
        let _third = homes.third(Kind::OPEN);
        meet(&homes, "relay");
    });
}

#[test]
fn two_firewalled_networks_of_ipv6_alone_meet_directly() {
    Lab::run("meeting::two_firewalled_networks_of_ipv6_alone_meet_directly", |lab| {
        let internet = Internet::new(lab);
        let sites = Side::BOTH.map(|side| internet.site_v6(side));
        meet(&Homes::at(internet, sites), "direct");
    });
}

#[test]
fn members_on_one_lan_without_multicast_find_each_other_there_by_the_server() {
    Lab::run("meeting::members_on_one_lan_without_multicast_find_each_other_there_by_the_server", |lab| {
        let internet = Internet::new(lab);
        let (server, secret) = (internet.start_server(), lab.new_network("secret"));
        let site = internet.site(Side::West, Kind::HOME);
        let pair = ["attic", "kitchen"].map(|name| {
            let host = site.host(name);
            host.filter(&["input meta l4proto udp meta pkttype { broadcast, multicast } drop"]);
            let daemon = site.daemon(host, &secret, &server, &[]);
            await_registered(&daemon);
            daemon
        });
        await_path(pair.each_ref(), "lan");
        talk(&pair[0], &pair[1]);
    });
}
