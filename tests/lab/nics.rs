//! Hosts with two interfaces in one network: when one of them dies, in whatever way, the other one is taken.

use crate::lab::cable::{Cable, Lan};
use crate::lab::{Host, Lab};
use crate::talk::Conversation;

/// A host with `eth0` and `eth1` on the first network.
fn twin(lab: &Lab, name: &'static str) -> (Host, [Cable; 2]) {
    let host = lab.bare_host(name);
    let cables = ["eth0", "eth1"].map(|device| lab.plug(host, Lan::FIRST, device));
    (host, cables)
}

fn give(host: Host, cables: [Cable; 2]) {
    cables[0].give(&host.ip());
    cables[1].give(&format!("10.77.0.{}", 100 + host.number));
}

fn without_ipv6(host: Host) {
    host.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
}

/// `kitchen` has two interfaces, `attic` one or two. Each of the kitchen's dies in turn under traffic, and lives again.
fn kill_each(lab: &Lab, both: bool, prepare: impl Fn(Host), die: impl Fn(Cable), live: impl Fn(Cable)) {
    let attic = if both {
        let (attic, cables) = twin(lab, "attic");
        give(attic, cables);
        attic
    } else {
        lab.host("attic")
    };
    let (kitchen, cables) = twin(lab, "kitchen");
    give(kitchen, cables);
    [attic, kitchen].into_iter().for_each(prepare);
    let hosts = [attic, kitchen];
    let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
    for (from, to) in [(&attic, &kitchen), (&kitchen, &attic)] {
        let mut conversation = Conversation::begin(from, to);
        conversation.say(50);
        conversation.hear();
        hosts.into_iter().for_each(Host::await_neighbours);
        for cable in cables {
            conversation.say(50);
            conversation.hear();
            die(cable);
            conversation.say(50);
            conversation.hear();
            live(cable);
            conversation.say(50);
            conversation.hear();
        }
        conversation.end();
    }
}

#[test]
fn by_ipv4_alone_the_cable_of_either_interface_may_be_pulled() {
    Lab::run("nics::by_ipv4_alone_the_cable_of_either_interface_may_be_pulled", |lab| {
        kill_each(lab, false, without_ipv6, Cable::pull, Cable::put_back);
    });
}

#[test]
fn by_ipv4_alone_either_interface_may_be_cut_off_behind_the_switch() {
    Lab::run("nics::by_ipv4_alone_either_interface_may_be_cut_off_behind_the_switch", |lab| {
        kill_each(lab, false, without_ipv6, Cable::cut, Cable::mend);
    });
}

#[test]
fn by_ipv4_alone_what_either_interface_sends_may_be_lost() {
    Lab::run("nics::by_ipv4_alone_what_either_interface_sends_may_be_lost", |lab| {
        kill_each(lab, false, without_ipv6, Cable::mute, Cable::restore);
    });
}

#[test]
fn by_ipv4_alone_what_either_interface_is_sent_may_be_lost() {
    Lab::run("nics::by_ipv4_alone_what_either_interface_is_sent_may_be_lost", |lab| {
        kill_each(lab, false, without_ipv6, Cable::deafen, Cable::restore);
    });
}

#[test]
fn with_two_interfaces_at_both_ends_either_may_be_cut_off() {
    Lab::run("nics::with_two_interfaces_at_both_ends_either_may_be_cut_off", |lab| {
        kill_each(lab, true, without_ipv6, Cable::cut, Cable::mend);
    });
}

#[test]
fn with_ipv6_too_either_interface_may_be_cut_off() {
    Lab::run("nics::with_ipv6_too_either_interface_may_be_cut_off", |lab| {
        kill_each(lab, true, Host::await_link_local, Cable::cut, Cable::mend);
    });
}

#[test]
fn by_addresses_of_ipv6_alone_that_name_no_interface_either_may_be_cut_off() {
    Lab::run("nics::by_addresses_of_ipv6_alone_that_name_no_interface_either_may_be_cut_off", |lab| {
        let (attic, kitchen) = (lab.bare_host("attic"), twin(lab, "kitchen"));
        let cable = lab.plug(attic, Lan::FIRST, "eth0");
        cable.give("fd77::1");
        let (kitchen, cables) = kitchen;
        for (cable, addr) in cables.iter().zip(["fd77::2", "fd77::102"]) {
            cable.give(addr);
        }
        let peer = |addr: &str| format!("[{addr}]:28282");
        let configured = [peer("fd77::2"), peer("fd77::102")];
        let options = ["--no-mdns", "--no-hello", "--peer", &configured[0], "--peer", &configured[1]];
        let (attic, kitchen) = (attic.daemon(&options), kitchen.daemon(&["--no-mdns", "--no-hello"]));
        let mut conversation = Conversation::begin(&attic, &kitchen);
        for cable in cables {
            conversation.say(50);
            conversation.hear();
            cable.cut();
            conversation.say(50);
            conversation.hear();
            cable.mend();
            conversation.say(50);
            conversation.hear();
        }
        conversation.end();
    });
}

#[test]
fn the_interface_that_the_kernel_prefers_may_die_while_nobody_speaks() {
    Lab::run("nics::the_interface_that_the_kernel_prefers_may_die_while_nobody_speaks", |lab| {
        let attic = lab.host("attic");
        let (kitchen, cables) = twin(lab, "kitchen");
        give(kitchen, cables);
        kitchen.sh("ip route del 10.77.0.0/24 dev eth1 && ip route add 10.77.0.0/24 dev eth1 metric 600");
        let hosts = [attic, kitchen];
        hosts.into_iter().for_each(without_ipv6);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        let mut conversation = Conversation::begin(&attic, &kitchen);
        conversation.say(1);
        conversation.hear();
        hosts.into_iter().for_each(Host::await_neighbours);
        cables[0].cut();
        attic.await_answer(&["peers"], |peers| {
            (peers[0]["path"]["addr"].as_str() == Some("10.77.0.102:28282")).then_some(())
        });
        conversation.say(50);
        conversation.hear();
        conversation.end();
    });
}
