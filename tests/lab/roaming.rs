//! Addresses and cables that change while messages flow: none is lost, none comes twice, nobody is said to have left.

use crate::lab::cable::{Cable, Lan};
use crate::lab::{Daemon, Host, Lab};
use crate::talk::{Conversation, talk};

/// Two hosts that converse: 50 messages before something happens, 100 while it does, 50 after. Returns how often a
/// path was told to have changed its kind.
fn converse_across(lab: &Lab, happens: impl Fn([Cable; 2])) -> usize {
    let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
    let cables = hosts.map(|host| lab.plug(host, Lan::FIRST, "eth0"));
    for (cable, host) in cables.iter().zip(hosts) {
        cable.give(&host.ip());
    }
    let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
    let mut conversation = Conversation::begin(&attic, &kitchen);
    conversation.say(50);
    conversation.hear();
    conversation.say(50);
    happens(cables);
    conversation.say(50);
    conversation.hear();
    conversation.say(50);
    conversation.hear();
    conversation.end().len()
}

#[test]
fn the_sender_gets_another_address_and_nothing_is_lost_or_doubled() {
    Lab::run("roaming::the_sender_gets_another_address_and_nothing_is_lost_or_doubled", |lab| {
        let paths = converse_across(lab, |[sender, _]| {
            sender.take("10.77.0.1");
            sender.give("10.77.0.101");
        });
        assert_eq!(paths, 0, "it is the same kind of path");
    });
}

#[test]
fn the_receiver_gets_another_address_and_nothing_is_lost_or_doubled() {
    Lab::run("roaming::the_receiver_gets_another_address_and_nothing_is_lost_or_doubled", |lab| {
        let paths = converse_across(lab, |[_, receiver]| {
            receiver.take("10.77.0.2");
            receiver.give("10.77.0.102");
        });
        assert_eq!(paths, 0, "it is the same kind of path");
    });
}

#[test]
fn both_get_other_addresses_at_once_and_nothing_is_lost_or_doubled() {
    Lab::run("roaming::both_get_other_addresses_at_once_and_nothing_is_lost_or_doubled", |lab| {
        let paths = converse_across(lab, |cables| {
            for (cable, number) in cables.iter().zip(1..) {
                cable.take(&format!("10.77.0.{number}"));
                cable.give(&format!("10.77.0.10{number}"));
            }
        });
        assert_eq!(paths, 0, "it is the same kind of path");
    });
}

#[test]
fn a_cable_that_is_pulled_and_put_back_loses_and_doubles_nothing() {
    Lab::run("roaming::a_cable_that_is_pulled_and_put_back_loses_and_doubles_nothing", |lab| {
        converse_across(lab, |[cable, _]| {
            cable.pull();
            cable.put_back();
        });
    });
}

#[test]
fn a_cable_that_is_moved_behind_the_switch_loses_and_doubles_nothing() {
    Lab::run("roaming::a_cable_that_is_moved_behind_the_switch_loses_and_doubles_nothing", |lab| {
        converse_across(lab, |[_, cable]| {
            cable.cut();
            cable.mend();
        });
    });
}

/// One side loses its cable until both have given the other up, and gets it back.
fn part_and_meet(lab: &Lab, part: impl Fn(Cable), join: impl Fn(Cable)) {
    let given_up = |daemon: &Daemon| {
        daemon.await_answer(&["peers", "--all"], |peers| {
            (peers[0]["state"] == "offline").then(|| peers[0].clone())
        })
    };
    let (attic, kitchen) = (lab.host("attic"), lab.bare_host("kitchen"));
    let cable = lab.plug(kitchen, Lan::FIRST, "eth0");
    cable.give("10.77.0.2");
    let [attic, kitchen] = [attic, kitchen].map(|host| host.daemon(&[]));
    let watch = |daemon: &Daemon| daemon.start(&["--json", "watch"]);
    let (here, there) = (watch(&attic), watch(&kitchen));
    here.event("enter", "kitchen");
    there.event("enter", "attic");
    part(cable);
    here.event("exit", "kitchen");
    there.event("exit", "attic");
    for daemon in [&attic, &kitchen] {
        assert_eq!(given_up(daemon)["why"], "it stopped answering");
    }
    join(cable);
    here.event("enter", "kitchen");
    there.event("enter", "attic");
    talk(&attic, &kitchen);
}

#[test]
fn a_cable_that_is_put_back_after_a_while_brings_the_peer_back() {
    Lab::run("roaming::a_cable_that_is_put_back_after_a_while_brings_the_peer_back", |lab| {
        part_and_meet(lab, Cable::pull, Cable::put_back);
    });
}

#[test]
fn a_switch_that_was_away_without_anybody_noticing_brings_the_peer_back() {
    Lab::run("roaming::a_switch_that_was_away_without_anybody_noticing_brings_the_peer_back", |lab| {
        part_and_meet(lab, Cable::cut, Cable::mend);
    });
}

/// A host with two cables in one network loses each of them in turn.
fn pull_each(lab: &Lab, prepare: impl Fn(Host)) {
    let (attic, kitchen) = (lab.host("attic"), lab.bare_host("kitchen"));
    let cables = ["eth0", "eth1"].map(|device| lab.plug(kitchen, Lan::FIRST, device));
    for (cable, addr) in cables.iter().zip(["10.77.0.2", "10.77.0.102"]) {
        cable.give(addr);
    }
    [attic, kitchen].into_iter().for_each(prepare);
    let [attic, kitchen] = [attic, kitchen].map(|host| host.daemon(&[]));
    let mut conversation = Conversation::begin(&attic, &kitchen);
    for cable in cables {
        conversation.say(50);
        cable.pull();
        conversation.say(50);
        conversation.hear();
        cable.put_back();
        conversation.say(50);
        conversation.hear();
    }
    conversation.end();
}

#[test]
fn either_of_two_cables_may_be_pulled_while_messages_flow() {
    // Without these addresses it would be the next test, of a kernel that heeds nothing.
    Lab::run("roaming::either_of_two_cables_may_be_pulled_while_messages_flow", |lab| {
        pull_each(lab, Host::await_link_local);
    });
}

#[test]
fn so_it_is_with_ipv4_alone_if_the_kernel_heeds_the_carrier() {
    Lab::run("roaming::so_it_is_with_ipv4_alone_if_the_kernel_heeds_the_carrier", |lab| {
        pull_each(lab, |host| {
            host.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
            // Else Linux goes on to send into an interface without a carrier, until its address is taken away.
            host.sh("echo 1 > /proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown");
        });
    });
}
