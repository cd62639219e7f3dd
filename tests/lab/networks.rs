//! Hosts as they are: several networks or one family only, addresses that come late, interfaces that lead nowhere.

use std::net::Ipv6Addr;

use crate::PORT;
use crate::lab::cable::Lan;
use crate::lab::{Daemon, Host, Lab};
use crate::talk::talk;

fn without_ipv6(host: Host) {
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
}

/// Gives the host an interface with a carrier that leads nowhere.
fn stub(host: Host, device: &str, addr: &str) {
    host.sh(&format!("ip link add {device} type veth peer name veth-{device}"));
    host.sh(&format!("ip link set veth-{device} up && ip link set {device} up"));
    host.sh(&format!("ip address add {addr}/16 dev {device}"));
}

/// The address at which `daemon` reaches `peer`.
fn path(daemon: &Daemon, peer: &str) -> String {
    let peers = daemon.json(&["peers"]);
    let peer = peers.iter().find(|known| known["name"] == peer).unwrap();
    peer["path"]["addr"].as_str().unwrap().to_owned()
}

/// The interfaces that the daemon says it uses.
fn interfaces(daemon: &Daemon) -> Vec<String> {
    let status = daemon.json(&["status"]).remove(0);
    let used = status["interfaces"].as_array().unwrap().iter();
    used.map(|interface| interface["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_host_on_two_lans_talks_to_the_peers_of_both() {
    Lab::run("networks::a_host_on_two_lans_talks_to_the_peers_of_both", |lab| {
        let (attic, garage) = (lab.host("attic"), lab.bare_host("garage"));
        let both = lab.host("both");
        let other = lab.lan();
        lab.plug(garage, other, "eth0").give("10.78.0.2");
        lab.plug(both, other, "eth1").give("10.78.0.3");
        let [attic, garage, both] = [attic, garage, both].map(|host| host.daemon(&[]));
        talk(&both, &attic);
        talk(&both, &garage);
        // It tells each of the other, which cannot be reached: that does no harm.
        assert_eq!(attic.json(&["status"])[0]["peers"]["online"], 1);
        assert_eq!(garage.json(&["status"])[0]["peers"]["online"], 1);
    });
}

#[test]
fn two_lans_with_the_same_link_local_addresses_are_not_confused() {
    Lab::run("networks::two_lans_with_the_same_link_local_addresses_are_not_confused", |lab| {
        let both = lab.bare_host("both");
        let hosts = ["attic", "garage"].map(|name| lab.bare_host(name));
        for (host, (lan, device)) in hosts.into_iter().zip([(Lan::FIRST, "eth0"), (lab.lan(), "eth1")]) {
            lab.plug(both, lan, device);
            lab.plug(host, lan, "eth0");
            host.sh("ip link set eth0 addrgenmode none && ip address flush dev eth0");
            host.sh("ip address add fe80::77/64 dev eth0 nodad");
        }
        let [attic, garage] = hosts.map(|host| host.daemon(&[]));
        let both = both.daemon(&[]);
        talk(&both, &attic);
        talk(&both, &garage);
        let there = ["attic", "garage"].map(|peer| path(&both, peer));
        assert!(there.iter().all(|path| path.starts_with("[fe80::77%")) && there[0] != there[1], "{there:?}");
    });
}

#[test]
fn two_interfaces_on_one_lan_are_one_peer() {
    Lab::run("networks::two_interfaces_on_one_lan_are_one_peer", |lab| {
        let (attic, kitchen) = (lab.host("attic"), lab.host("kitchen"));
        lab.plug(kitchen, Lan::FIRST, "eth1").give("10.77.0.102");
        let [attic, kitchen] = [attic, kitchen].map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        assert_eq!(attic.json(&["peers", "--all"]).len(), 1);
        assert_eq!(kitchen.json(&["peers", "--all"]).len(), 1, "it is no peer of itself");
    });
}

#[test]
fn a_lan_with_ipv4_only_is_enough() {
    Lab::run("networks::a_lan_with_ipv4_only_is_enough", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        hosts.into_iter().for_each(without_ipv6);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        assert!(path(&attic, "kitchen").starts_with("10.77.0.2:"));
    });
}

#[test]
fn a_lan_with_ipv6_only_is_enough() {
    Lab::run("networks::a_lan_with_ipv6_only_is_enough", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        for (host, addr) in hosts.iter().zip(["fd00:77::1", "fd00:77::2"]) {
            lab.plug(*host, Lan::FIRST, "eth0").give(addr);
        }
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
    });
}

#[test]
fn link_local_addresses_alone_are_enough() {
    Lab::run("networks::link_local_addresses_alone_are_enough", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        for host in hosts {
            lab.plug(host, Lan::FIRST, "eth0");
        }
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        assert!(path(&attic, "kitchen").starts_with("[fe80::"));
    });
}

#[test]
fn a_host_that_speaks_both_families_meets_those_that_speak_one() {
    Lab::run("networks::a_host_that_speaks_both_families_meets_those_that_speak_one", |lab| {
        let (old, both, new) = (lab.host("old"), lab.host("both"), lab.bare_host("new"));
        without_ipv6(old);
        lab.plug(new, Lan::FIRST, "eth0");
        let [old, both, new] = [old, both, new].map(|host| host.daemon(&[]));
        talk(&both, &old);
        talk(&both, &new);
    });
}

#[test]
fn an_address_that_comes_after_the_start_is_used_at_once() {
    Lab::run("networks::an_address_that_comes_after_the_start_is_used_at_once", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        hosts.into_iter().for_each(without_ipv6);
        let cables = hosts.map(|host| lab.plug(host, Lan::FIRST, "eth0"));
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        assert_eq!(interfaces(&attic), ["lo"]);
        for (cable, addr) in cables.into_iter().zip(["10.77.0.1", "10.77.0.2"]) {
            cable.give(addr);
        }
        talk(&attic, &kitchen);
    });
}

#[test]
fn an_interface_that_is_plugged_in_later_is_used_and_one_that_goes_is_forgotten() {
    Lab::run(
        "networks::an_interface_that_is_plugged_in_later_is_used_and_one_that_goes_is_forgotten",
        |lab| {
            let (attic, kitchen) = (lab.host("attic"), lab.bare_host("kitchen"));
            let [attic, daemon] = [attic, kitchen].map(|host| host.daemon(&[]));
            lab.plug(kitchen, Lan::FIRST, "eth7").give("10.77.0.2");
            talk(&attic, &daemon);
            let watch = daemon.start(&["--json", "watch"]);
            watch.event("enter", "attic");
            kitchen.sh("ip link delete eth7");
            watch.event("exit", "attic");
            assert_eq!(interfaces(&daemon), ["lo"]);
        },
    );
}

#[test]
fn addresses_that_lead_nowhere_do_not_hold_up_the_one_that_works() {
    Lab::run("networks::addresses_that_lead_nowhere_do_not_hold_up_the_one_that_works", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        for (host, last) in hosts.iter().zip(1..) {
            // One that is not let in, and one of a network that only looks like the same.
            host.sh(&format!("ip address add 192.0.2.{last}/24 dev eth0"));
            stub(*host, "eth1", &format!("10.99.0.{last}"));
        }
        hosts[1].filter(&["input ip daddr 192.0.2.2 drop"]);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
    });
}

#[test]
fn bridges_of_containers_and_tunnels_are_neither_used_nor_told() {
    Lab::run("networks::bridges_of_containers_and_tunnels_are_neither_used_nor_told", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let capture = lab.capture();
        for host in hosts {
            for (device, addr) in [("docker0", "172.17.0.1"), ("wg0", "10.9.0.1"), ("tun0", "10.8.0.1")] {
                stub(host, device, addr);
            }
            host.sh("ip address add fe80::bad/64 dev docker0 nodad");
        }
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        assert_eq!(interfaces(&attic), ["eth0", "lo"]);
        let frames = capture.frames();
        // As the content of a record, with its length before it.
        let told = |addr: [u8; 4]| frames.iter().any(|frame| frame.has(&[&[0, 4], &addr[..]].concat()));
        assert!(told([10, 77, 0, 1]), "the capture would have shown the others");
        let told_v6 =
            frames.iter().any(|frame| frame.has(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad).octets()));
        assert!(!told_v6, "nor its link-local address");
        assert!(!told([172, 17, 0, 1]) && !told([10, 9, 0, 1]) && !told([10, 8, 0, 1]));

        let named = hosts[0].daemon_named("named", &["--interface", "wg*", "--interface", "eth0"]);
        assert_eq!(interfaces(&named), ["eth0", "lo", "wg0"]);
    });
}

#[test]
fn a_container_without_any_privilege_finds_peers() {
    Lab::run("networks::a_container_without_any_privilege_finds_peers", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        // A user of its own that owns nothing of this network, and may gain nothing.
        let nobody = ["unshare", "--user", "setpriv", "--bounding-set=-all", "--no-new-privs"];
        let inside = hosts[0].daemon_under(&nobody, "attic", &[]);
        let kitchen = hosts[1].daemon(&[]);
        assert_eq!(inside.port, PORT);
        talk(&inside, &kitchen);
        let cable = lab.plug(hosts[0], Lan::FIRST, "eth1");
        cable.give("10.77.0.100");
        inside.await_answer(&["status"], |status| {
            let interfaces = status[0]["interfaces"].as_array().unwrap();
            interfaces.iter().any(|interface| interface["name"] == "eth1").then_some(())
        });
    });
}

#[test]
fn two_hosts_of_one_name_are_two_peers_and_the_second_is_told_apart() {
    Lab::run("networks::two_hosts_of_one_name_are_two_peers_and_the_second_is_told_apart", |lab| {
        let hosts = ["attic", "one", "two"].map(|name| lab.host(name));
        let attic = hosts[0].daemon(&[]);
        let _one = hosts[1].daemon_named("twin", &[]);
        attic.atonce(&["wait", "twin"]);
        let two = hosts[2].daemon_named("twin", &[]);
        let id = two.json(&["id"]).remove(0)["id"].as_str().unwrap().to_owned();
        attic.atonce(&["wait", &id]);
        assert_eq!(attic.json(&["peers"]).len(), 2);
        assert_eq!(attic.health("names").unwrap()["state"], "warn");
    });
}
