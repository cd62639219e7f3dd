//! Routers that map a port when they are asked to, and such as only pretend.

use serde_json::Value;

use crate::homes::{Homes, await_path, await_registered};
use crate::internet::{Internet, Side};
use crate::kinds::Kind;
use crate::lab::{Daemon, Lab};
use crate::talk::talk;

const CHECK: &str = "port-mapping";

/// What the router does, as the daemon tells it.
fn await_told(daemon: &Daemon, what: &str) {
    let told =
        daemon.await_health(CHECK, |health| health["why"].as_str().is_some_and(|why| why.contains(what)));
    println!("{told}");
    assert_eq!((&told["state"], &told["fix"]), (&Value::from("ok"), &Value::from("")));
}

#[test]
fn two_homes_whose_routers_give_each_destination_another_port_meet_at_the_ports_that_they_map() {
    Lab::run(
        "mapped::two_homes_whose_routers_give_each_destination_another_port_meet_at_the_ports_that_they_map",
        |lab| {
            let homes = Homes::new(lab, [Kind::RANDOM, Kind::RANDOM]);
            let routers = [homes.sites[0].map_ports("pcp"), homes.sites[1].map_ports("natpmp")];
            let pair = homes.pair();
            for ((daemon, site), protocol) in pair.iter().zip(&homes.sites).zip(["PCP", "NAT-PMP"]) {
                await_told(daemon, &format!("maps {}:20282 to us ({protocol})", site.wan));
            }
            await_path(pair.each_ref(), "direct");
            talk(&pair[0], &pair[1]);
            for (daemon, router) in pair.into_iter().zip(routers) {
                router.line(|line| line == "mapped 28282");
                daemon.stop();
                router.line(|line| line == "unmapped 28282");
            }
        },
    );
}

#[test]
fn a_router_that_keeps_ports_for_ever_is_asked_by_upnp_once_and_gets_its_port_back_at_the_end() {
    Lab::run(
        "mapped::a_router_that_keeps_ports_for_ever_is_asked_by_upnp_once_and_gets_its_port_back_at_the_end",
        |lab| {
            let internet = Internet::new(lab);
            let (server, secret) = (internet.start_server(), lab.new_network("secret"));
            let site = internet.site(Side::West, Kind::HOME);
            let router = site.map_ports("upnp");
            let daemon = site.daemon(site.host("attic"), &secret, &server, &[]);
            await_told(&daemon, &format!("maps {}:28282 to us (UPnP)", site.wan));
            router.line(|line| line == "mapped 28282");
            daemon.stop();
            router.line(|line| line == "unmapped 28282");
        },
    );
}

#[test]
fn a_router_that_answers_garbage_or_has_a_carriers_address_changes_nothing() {
    Lab::run("mapped::a_router_that_answers_garbage_or_has_a_carriers_address_changes_nothing", |lab| {
        let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
        let routers = [homes.sites[0].map_ports("garbage"), homes.sites[1].map_ports("carrier")];
        let pair = homes.pair();
        await_told(&pair[0], "maps no port to us");
        await_told(&pair[1], "no address of the internet itself, but 100.64.0.9");
        routers[1].line(|line| line == "unmapped 28282");
        await_path(pair.each_ref(), "direct");
        talk(&pair[0], &pair[1]);
    });
}

#[test]
fn no_router_is_asked_in_the_open_network_or_against_the_users_will() {
    Lab::run("mapped::no_router_is_asked_in_the_open_network_or_against_the_users_will", |lab| {
        let internet = Internet::new(lab);
        let (server, secret) = (internet.start_server(), lab.new_network("secret"));
        let site = internet.site(Side::West, Kind::HOME);
        let router = site.map_ports("pcp");
        let [attic, kitchen, garage] = ["attic", "kitchen", "garage"].map(|name| site.host(name));
        let unwilling = site.daemon(attic, &secret, &server, &["--no-port-mapping"]);
        await_registered(&unwilling);
        let open = kitchen.daemon(&["--rendezvous", &server.lines[0]]);
        assert_eq!(open.health(CHECK), None);
        let _asking = site.daemon(garage, &secret, &server, &[]);
        let seen = router.until(|line| line == "mapped 28282");
        let asked = format!("asked {}", site.addr_of(garage));
        assert_eq!(seen, [&asked, "mapped 28282"]);
        assert_eq!(unwilling.health(CHECK), None);
    });
}
