//! Multicast as it is: lost, in one direction only, or not at all; what finds peers then, and what `status` says.

use crate::lab::cable::{Cable, Lan};
use crate::lab::{Daemon, Host, Lab};
use crate::talk::talk;

/// What is not for one host alone is not heard here.
const DEAF: [&str; 2] =
    ["input meta pkttype { broadcast, multicast } meta l4proto udp drop", "input ip daddr 10.77.0.255 drop"];
/// Nor said.
const MUTE: [&str; 2] = [
    "output ip daddr { 224.0.0.0/4, 255.255.255.255, 10.77.0.255 } meta l4proto udp drop",
    "output ip6 daddr ff00::/8 meta l4proto udp drop",
];

fn without_multicast(host: Host) {
    host.filter(&[DEAF, MUTE].concat());
}

/// The whole list of what is wrong there.
fn troubles(daemon: &Daemon) -> Vec<String> {
    let status = daemon.json(&["status"]).remove(0);
    let health = status["health"].as_array().unwrap().iter();
    health.filter(|health| health["state"] != "ok").map(ToString::to_string).collect()
}

#[test]
fn where_multicast_works_nothing_is_wrong_and_status_says_who_was_heard() {
    Lab::run("multicast::where_multicast_works_nothing_is_wrong_and_status_says_who_was_heard", |lab| {
        let [attic, kitchen] = ["attic", "kitchen"].map(|name| lab.host(name).daemon(&[]));
        talk(&attic, &kitchen);
        for (daemon, channel) in [(&kitchen, "mdns"), (&attic, "mdns"), (&attic, "hello")] {
            let health = daemon.await_health(channel, |health| {
                health["why"].as_str().unwrap().contains("heard from 1 peer on eth0")
            });
            assert_eq!(health["state"], "ok");
        }
        for daemon in [&attic, &kitchen] {
            assert_eq!(troubles(daemon), [""; 0]);
        }
    });
}

#[test]
fn a_node_that_is_alone_has_no_fault() {
    Lab::run("multicast::a_node_that_is_alone_has_no_fault", |lab| {
        let attic = lab.host("attic").daemon(&[]);
        attic.await_health("mdns", |health| health["state"] == "ok");
        assert_eq!(troubles(&attic), [""; 0]);
    });
}

#[test]
fn a_host_that_hears_no_multicast_is_found_by_what_it_says() {
    Lab::run("multicast::a_host_that_hears_no_multicast_is_found_by_what_it_says", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        hosts[1].filter(&DEAF);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        // Its browse ends, and nobody whom it reaches was heard.
        let health = kitchen.await_health("multicast", |health| health["state"] == "warn");
        let why = health["why"].as_str().unwrap();
        assert_eq!(why, "none of 1 peer on eth0 was heard by multicast, only reached otherwise");
        assert!(health["fix"].as_str().unwrap().contains("--peer"));
        assert_eq!(troubles(&attic), [""; 0]);
    });
}

#[test]
fn a_host_that_says_nothing_by_multicast_finds_those_whom_it_hears() {
    Lab::run("multicast::a_host_that_says_nothing_by_multicast_finds_those_whom_it_hears", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        hosts[1].filter(&MUTE);
        let kitchen = hosts[1].daemon(&[]);
        let attic = hosts[0].daemon(&[]);
        talk(&attic, &kitchen);
    });
}

#[test]
fn nine_of_ten_multicasts_may_be_lost() {
    Lab::run("multicast::nine_of_ten_multicasts_may_be_lost", |lab| {
        let hosts = ["attic", "kitchen", "garage"].map(|name| lab.host(name));
        for host in hosts {
            host.filter(&["input meta pkttype { broadcast, multicast } numgen random mod 10 < 9 drop"]);
        }
        let [attic, kitchen, garage] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        talk(&kitchen, &garage);
        talk(&garage, &attic);
    });
}

/// Each of these alone is enough.
fn one_channel(lab: &Lab, rules: &[&str], args: &[&str]) {
    let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
    for host in hosts {
        host.filter(rules);
    }
    let [attic, kitchen] = hosts.map(|host| host.daemon(args));
    talk(&attic, &kitchen);
}

#[test]
fn hellos_find_peers_where_multicast_dns_is_blocked() {
    Lab::run("multicast::hellos_find_peers_where_multicast_dns_is_blocked", |lab| {
        one_channel(lab, &["input udp dport 5353 drop"], &[]);
    });
}

#[test]
fn multicast_dns_finds_peers_where_hellos_are_blocked() {
    Lab::run("multicast::multicast_dns_finds_peers_where_hellos_are_blocked", |lab| {
        one_channel(lab, &["input udp dport 28281 drop"], &["--no-hello"]);
    });
}

#[test]
fn a_switch_that_passes_only_the_group_of_all_nodes_is_enough() {
    Lab::run("multicast::a_switch_that_passes_only_the_group_of_all_nodes_is_enough", |lab| {
        let rules = [
            "input ip daddr 224.0.0.251 drop",
            "input ip6 daddr ff02::fb drop",
            "input ip daddr 10.77.0.255 drop",
        ];
        one_channel(lab, &rules, &[]);
    });
}

#[test]
fn a_network_that_passes_only_broadcasts_is_enough() {
    Lab::run("multicast::a_network_that_passes_only_broadcasts_is_enough", |lab| {
        let rules = ["input ip daddr 224.0.0.0/4 drop", "input ip6 daddr ff00::/8 udp dport != 547 drop"];
        one_channel(lab, &rules, &[]);
    });
}

#[test]
fn remembered_addresses_are_enough_where_nothing_is_heard() {
    Lab::run("multicast::remembered_addresses_are_enough_where_nothing_is_heard", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        attic.stop();
        kitchen.stop();
        hosts.into_iter().for_each(without_multicast);
        let kitchen = hosts[1].daemon(&[]);
        let attic = hosts[0].daemon(&[]);
        talk(&attic, &kitchen);
        let peers = attic.json(&["peers"]);
        assert_eq!(peers[0]["path"]["kind"], "lan");
    });
}

#[test]
fn one_configured_address_leads_to_everybody_where_nothing_is_heard() {
    Lab::run("multicast::one_configured_address_leads_to_everybody_where_nothing_is_heard", |lab| {
        let hosts = ["attic", "kitchen", "garage"].map(|name| lab.host(name));
        hosts.into_iter().for_each(without_multicast);
        let garage = hosts[2].daemon(&[]);
        let there = format!("{}:{}", hosts[2].ip(), garage.port);
        let [attic, kitchen] = [hosts[0], hosts[1]].map(|host| host.daemon(&["--peer", &there]));
        talk(&attic, &kitchen);
    });
}

#[test]
fn a_configured_link_local_address_leads_to_its_peer() {
    Lab::run("multicast::a_configured_link_local_address_leads_to_its_peer", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        hosts.into_iter().for_each(without_multicast);
        hosts[1].sh("ip address add fe80::2/64 dev eth0 nodad");
        let kitchen = hosts[1].daemon(&[]);
        let attic = hosts[0].daemon(&["--peer", &format!("[fe80::2%eth0]:{}", kitchen.port)]);
        talk(&attic, &kitchen);
    });
}

#[test]
fn a_node_that_is_heard_but_does_not_answer_is_told() {
    Lab::run("multicast::a_node_that_is_heard_but_does_not_answer_is_told", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        // As an access point does that keeps its clients apart but lets them shout.
        for host in hosts {
            host.filter(&["input meta pkttype host udp dport 28282 drop"]);
        }
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        for daemon in [&attic, &kitchen] {
            let health = daemon.await_health("answers", |health| health["state"] == "warn");
            assert_eq!(health["why"], "1 other node was heard of, and did not answer");
            assert!(health["fix"].as_str().unwrap().contains("UDP 28282"), "{health}");
        }
    });
}

#[test]
fn a_switch_that_begins_to_forward_late_is_no_trouble() {
    Lab::run("multicast::a_switch_that_begins_to_forward_late_is_no_trouble", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        let cables = hosts.map(|host| lab.plug(host, Lan::FIRST, "eth0"));
        for (cable, host) in cables.into_iter().zip(hosts) {
            cable.give(&host.ip());
            cable.cut();
        }
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        for daemon in [&attic, &kitchen] {
            // The calls of the start are long over.
            await_tries(daemon, 2);
        }
        cables.into_iter().for_each(Cable::mend);
        talk(&attic, &kitchen);
        assert!(attic.json(&["status"])[0].get("looking").is_none());
    });
}

/// Waits until a daemon that is alone has looked so often.
fn await_tries(daemon: &Daemon, tries: u64) {
    daemon.await_answer(&["status"], |answer| {
        answer[0]["looking"]["tries"].as_u64().filter(|counted| *counted >= tries)
    });
}

#[test]
fn a_look_of_a_node_that_is_alone_is_five_packets() {
    Lab::run("multicast::a_look_of_a_node_that_is_alone_is_five_packets", |lab| {
        let host = lab.host("attic");
        host.await_link_local();
        let attic = host.daemon(&[]);
        await_tries(&attic, 1);
        let capture = lab.capture();
        await_tries(&attic, 3);
        let frames = capture.frames();
        let count = |port| frames.iter().filter(|frame| frame.is_from(host) && frame.goes_to(port)).count();
        // Both families, and the broadcast address. The first look may have been recorded in part, and the third.
        let (hellos, questions) = (count(28281), count(5353));
        assert!(
            (6..=9).contains(&hellos) && (2..=6).contains(&questions),
            "{hellos} hellos, {questions} questions"
        );
    });
}

#[test]
fn a_link_without_neighbours_is_told_as_long_as_nobody_is_found() {
    Lab::run("multicast::a_link_without_neighbours_is_told_as_long_as_nobody_is_found", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        for host in hosts {
            host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
            lab.plug(host, Lan::FIRST, "eth0");
            host.sh(&format!(
                "ip address add {}/32 dev eth0 && ip route add 10.77.0.0/24 dev eth0",
                host.ip()
            ));
        }
        let kitchen = hosts[1].daemon(&[]);
        let links = kitchen.await_health("links", |health| health["state"] == "warn");
        assert!(links["why"].as_str().unwrap().contains("multicast on eth0"), "{links}");
        assert!(links["fix"].as_str().unwrap().contains("--peer"), "{links}");
        assert!(!kitchen.atonce(&["status"]).lines().any(|line| line == "health         ok"));
        let attic = hosts[0].daemon(&["--peer", &format!("{}:{}", hosts[1].ip(), kitchen.port)]);
        talk(&attic, &kitchen);
        assert_eq!(troubles(&kitchen), [""; 0]);
    });
}
