//! Members behind routers of every kind: who meets directly, who through a relay, and what is told where nobody helps.

use crate::homes::{Homes, await_path, await_registered};
use crate::internet::{Internet, Side};
use crate::kinds::Kind;
use crate::lab::{Daemon, Lab};
use crate::table::Table;
use crate::talk::talk;

#[test]
fn every_pair_of_translators_that_can_meet_is_direct() {
    Lab::run("meeting::every_pair_of_translators_that_can_meet_is_direct", |lab| {
        for (cell, pair) in Table::new(lab, 2).pairs(true) {
            println!("{}", cell.kinds());
            await_path(pair.each_ref(), "direct");
        }
    });
}

#[test]
fn every_other_pair_is_told_why_it_is_apart_and_is_relayed_when_a_third_member_comes() {
    Lab::run(
        "meeting::every_other_pair_is_told_why_it_is_apart_and_is_relayed_when_a_third_member_comes",
        |lab| {
            let mut table = Table::new(lab, 2);
            let pairs = table.pairs(false);
            for (cell, pair) in &pairs {
                for daemon in pair {
                    let why = daemon.await_answer(&["peers", "--all"], |peers| {
                        let apart = peers.iter().find(|peer| peer["state"] == "connecting")?;
                        apart["why"].as_str().filter(|why| why.contains("router")).map(str::to_owned)
                    });
                    println!("{}: {why}", cell.kinds());
                }
            }
            let open = table.internet.site(Side::East, Kind::OPEN);
            let host = open.host("open");
            let helpers: Vec<_> = pairs
                .iter()
                .map(|(cell, _)| table.daemon(host, &format!("third-{}", cell.name(0)), &cell.secret))
                .collect();
            for ((cell, pair), third) in pairs.iter().zip(&helpers) {
                println!("{}", cell.kinds());
                await_path(pair.each_ref(), "relay");
                for daemon in pair {
                    await_path([daemon, third], "direct");
                }
            }
        },
    );
}

/// Both sides meet in this way, and talk.
fn meet(homes: &Homes<'_>, kind: &str) -> [Daemon; 2] {
    meet_as(homes.pair(), kind)
}

fn meet_as(pair: [Daemon; 2], kind: &str) -> [Daemon; 2] {
    await_path(pair.each_ref(), kind);
    talk(&pair[0], &pair[1]);
    pair
}

#[test]
fn a_router_with_random_ports_is_met_directly_by_the_word_of_one_server() {
    Lab::run("meeting::a_router_with_random_ports_is_met_directly_by_the_word_of_one_server", |lab| {
        meet(&Homes::new(lab, [Kind::HOME, Kind::RANDOM]), "direct");
    });
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
        let homes = neighbours(lab, true);
        meet_as([0, 1].map(|number| homes.customer(number)), "direct");
    });
}

#[test]
fn two_homes_behind_one_carrier_that_does_not_turn_packets_around_are_relayed() {
    Lab::run("meeting::two_homes_behind_one_carrier_that_does_not_turn_packets_around_are_relayed", |lab| {
        let homes = neighbours(lab, false);
        let _third = homes.third(Kind::OPEN);
        meet_as([0, 1].map(|number| homes.customer(number)), "relay");
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

#[test]
fn a_member_of_ipv6_alone_and_one_of_ipv4_alone_say_so_and_are_relayed_by_one_that_has_both() {
    Lab::run(
        "meeting::a_member_of_ipv6_alone_and_one_of_ipv4_alone_say_so_and_are_relayed_by_one_that_has_both",
        |lab| {
            let internet = Internet::new(lab);
            let sites = [internet.site_v6(Side::West), internet.site(Side::East, Kind::HOME)];
            let third = internet.dual_host(Side::West, "garage");
            let homes = Homes::at(internet, sites);
            let [v4, v6] = &homes.server().lines;
            let args = ["--network-secret-file", &homes.secret, "--rendezvous", v4, "--rendezvous", v6];
            let pair = homes.pair();
            for daemon in &pair {
                daemon.await_answer(&["peers", "--all"], |peers| {
                    peers
                        .iter()
                        .any(|peer| peer["why"].as_str().is_some_and(|why| why.contains("IPv6")))
                        .then_some(())
                });
            }
            let third = third.daemon(&args);
            await_path(pair.each_ref(), "relay");
            talk(&pair[0], &pair[1]);
            for daemon in &pair {
                await_path([daemon, &third], "direct");
            }
        },
    );
}
