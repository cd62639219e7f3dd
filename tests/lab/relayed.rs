//! Paths through a third member: where there is no other way, until there is one.

use serde_json::json;

use crate::homes::{Homes, await_path};
use crate::kinds::Kind;
use crate::lab::Lab;
use crate::talk::{App, Conversation, talk};

#[test]
fn a_host_on_two_networks_bridges_them_without_any_server_and_all_hear_all_once() {
    const COUNT: usize = 20;
    Lab::run(
        "relayed::a_host_on_two_networks_bridges_them_without_any_server_and_all_hear_all_once",
        |lab| {
            let secret = lab.new_network("secret");
            let right = lab.lan();
            let bridge = lab.host("bridge");
            lab.plug(bridge, right, "eth1").give("10.78.0.1");
            let near = ["attic", "cellar"].map(|name| lab.host(name));
            let far =
                ["kitchen", "garden"].into_iter().zip(["10.78.0.2", "10.78.0.3"]).map(|(name, addr)| {
                    let host = lab.bare_host(name);
                    lab.plug(host, right, "eth0").give(addr);
                    host
                });
            let hosts: Vec<_> = near.into_iter().chain([bridge]).chain(far).collect();
            let daemons: Vec<_> =
                hosts.into_iter().map(|host| host.daemon(&["--network-secret-file", &secret])).collect();
            let [attic, cellar, bridge, kitchen, garden] = &daemons[..] else { unreachable!() };
            for far in [kitchen, garden] {
                for near in [attic, cellar] {
                    await_path([near, far], "relay");
                }
                await_path([bridge, far], "lan");
            }
            await_path([attic, cellar], "lan");
            let others = [cellar, bridge, kitchen, garden];
            let listening = others.map(|daemon| daemon.start(&["--json", "listen", "news"]));
            for daemon in others {
                attic.atonce(&["wait", &format!("{}/news", daemon.name)]);
            }
            let app = App::connect(attic);
            for number in 1..=COUNT {
                let text = number.to_string();
                app.say(&json!({"op": "publish", "id": number, "topic": "news", "text": text, "ack": true}));
            }
            app.until(|event| event["id"] == COUNT);
            attic.atonce(&["publish", "--ack", "news", "end"]);
            for listening in &listening {
                let heard = listening.until(|line| line.contains("\"end\""));
                let texts: Vec<_> =
                    heard.iter().map(|line| crate::lab::lines::parse(line)["text"].clone()).collect();
                let expected: Vec<_> = (1..=COUNT).map(|n| n.to_string()).chain(["end".to_owned()]).collect();
                assert_eq!(texts, expected);
            }
        },
    );
}

#[test]
fn a_relayed_pair_is_direct_when_its_routers_let_it_and_no_message_is_lost_or_doubled() {
    Lab::run(
        "relayed::a_relayed_pair_is_direct_when_its_routers_let_it_and_no_message_is_lost_or_doubled",
        |lab| {
            let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
            homes.part();
            let _third = homes.third(Kind::OPEN);
            let pair = homes.pair();
            await_path(pair.each_ref(), "relay");
            let mut conversation = Conversation::begin(&pair[0], &pair[1]);
            conversation.say(50);
            conversation.hear();
            conversation.say(50);
            homes.join();
            conversation.say(50);
            await_path(pair.each_ref(), "direct");
            conversation.say(50);
            conversation.hear();
            let paths = conversation.end();
            assert!(paths.len() == 2 && paths.iter().all(|event| event["path"] == "direct"), "{paths:?}");
        },
    );
}

#[test]
fn a_direct_path_that_dies_under_traffic_gives_way_to_a_relay_and_nothing_is_lost_or_doubled() {
    Lab::run(
        "relayed::a_direct_path_that_dies_under_traffic_gives_way_to_a_relay_and_nothing_is_lost_or_doubled",
        |lab| {
            let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
            let third = homes.third(Kind::OPEN);
            let pair = homes.pair();
            await_path(pair.each_ref(), "direct");
            for daemon in &pair {
                await_path([daemon, &third], "direct");
            }
            let mut conversation = Conversation::begin(&pair[0], &pair[1]);
            conversation.say(50);
            conversation.hear();
            conversation.say(50);
            homes.part();
            conversation.say(50);
            conversation.hear();
            await_path(pair.each_ref(), "relay");
            conversation.say(50);
            conversation.hear();
            conversation.end();
        },
    );
}

/// The router of one side is switched off and on, and has this address after.
fn reboot(lab: &Lab, wan: Option<&str>, third: bool) {
    let mut homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
    let _third = third.then(|| homes.third(Kind::OPEN));
    let pair = homes.pair();
    await_path(pair.each_ref(), "direct");
    let mut conversation = Conversation::begin(&pair[0], &pair[1]);
    conversation.say(50);
    conversation.hear();
    conversation.say(50);
    let wan = wan.map_or_else(|| homes.sites[0].wan.clone(), str::to_owned);
    homes.sites[0].reboot(&wan);
    conversation.say(50);
    conversation.hear();
    await_path(pair.each_ref(), "direct");
    conversation.say(50);
    conversation.hear();
    conversation.end();
    talk(&pair[1], &pair[0]);
}

#[test]
fn a_router_that_forgets_all_is_not_noticed() {
    Lab::run("relayed::a_router_that_forgets_all_is_not_noticed", |lab| reboot(lab, None, false));
}

#[test]
fn a_router_that_gets_another_address_loses_and_doubles_nothing() {
    Lab::run("relayed::a_router_that_gets_another_address_loses_and_doubles_nothing", |lab| {
        reboot(lab, Some("198.51.100.77"), false);
    });
}

#[test]
fn a_router_that_gets_another_address_while_a_relay_is_there_loses_and_doubles_nothing() {
    Lab::run(
        "relayed::a_router_that_gets_another_address_while_a_relay_is_there_loses_and_doubles_nothing",
        |lab| reboot(lab, Some("198.51.100.77"), true),
    );
}
