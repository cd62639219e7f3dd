//! Peers that are not on one link: behind a router, in a container, at the other end of a tunnel.

use crate::lab::cable::{Cable, Lan};
use crate::lab::{Host, Lab};
use crate::talk::{Conversation, talk};

/// A router between the first network and another one, 10.78.0.0/24.
struct Router {
    far: Lan,
}

impl Router {
    fn new(lab: &Lab) -> Self {
        let (router, far) = (lab.bare_host("router"), lab.lan());
        lab.plug(router, Lan::FIRST, "eth0").give("10.77.0.254");
        lab.plug(router, far, "eth1").give("10.78.0.254");
        router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        Self { far }
    }

    fn far_host(&self, lab: &Lab, name: &'static str, addr: &str) -> Host {
        let host = lab.bare_host(name);
        lab.plug(host, self.far, "eth0").give(addr);
        host.sh("ip route add default via 10.78.0.254");
        host
    }
}

/// A host on the first network that knows the router.
fn near_host(lab: &Lab, name: &'static str) -> (Host, Cable) {
    let host = lab.bare_host(name);
    let cable = lab.plug(host, Lan::FIRST, "eth0");
    cable.give(&host.ip());
    host.sh("ip route add default via 10.77.0.254");
    (host, cable)
}

#[test]
fn a_configured_peer_behind_a_router_introduces_its_neighbours() {
    Lab::run("routed::a_configured_peer_behind_a_router_introduces_its_neighbours", |lab| {
        let router = Router::new(lab);
        let (attic, _) = near_host(lab, "attic");
        let far = ["garage", "garden"].into_iter().zip(["10.78.0.2", "10.78.0.3"]);
        let far: Vec<_> = far.map(|(name, addr)| router.far_host(lab, name, addr).daemon(&[])).collect();
        let attic = attic.daemon(&["--peer", "10.78.0.2:28282"]);
        for peer in &far {
            talk(&attic, peer);
        }
        let peers = attic.json(&["peers"]);
        assert!(peers.iter().all(|peer| peer["path"]["kind"] == "direct"), "{peers:?}");
    });
}

#[test]
fn who_moves_behind_a_router_keeps_its_session_and_its_new_path_is_told() {
    Lab::run("routed::who_moves_behind_a_router_keeps_its_session_and_its_new_path_is_told", |lab| {
        let _router = Router::new(lab);
        let ((attic, _), (kitchen, cable)) = (near_host(lab, "attic"), near_host(lab, "kitchen"));
        let [attic, daemon] = [attic, kitchen].map(|host| host.daemon(&[]));
        let mut conversation = Conversation::begin(&attic, &daemon);
        conversation.say(50);
        conversation.hear();
        conversation.say(50);
        cable.pull();
        cable.carry_to(Lan::SECOND);
        cable.take(&kitchen.ip());
        cable.give("10.78.0.9");
        cable.put_back();
        kitchen.sh("ip route add default via 10.78.0.254");
        conversation.say(50);
        conversation.hear();
        conversation.say(50);
        conversation.hear();
        let paths = conversation.end();
        for peer in ["attic", "kitchen"] {
            let told: Vec<_> = paths.iter().filter(|event| event["peer"]["name"] == peer).collect();
            assert!(told.len() == 1 && told[0]["path"] == "direct", "{paths:?}");
        }
    });
}

#[test]
fn a_daemon_in_a_container_reaches_a_configured_peer_through_its_host() {
    Lab::run("routed::a_daemon_in_a_container_reaches_a_configured_peer_through_its_host", |lab| {
        let (kitchen, host) = (lab.host("kitchen"), lab.host("dockerhost"));
        let (container, inside) = (lab.bare_host("container"), lab.lan());
        lab.plug(host, inside, "docker0").give("172.17.0.1");
        lab.plug(container, inside, "eth0").give("172.17.0.2");
        container.sh("ip route add default via 172.17.0.1");
        host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        host.sh("nft 'add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; \
             add rule ip nat out oifname eth0 masquerade'");
        let kitchen = kitchen.daemon(&[]);
        let container = container.daemon(&["--peer", "10.77.0.1:28282"]);
        talk(&container, &kitchen);
    });
}

#[test]
fn a_configured_peer_is_reached_through_a_tunnel_that_is_not_used_by_itself() {
    Lab::run("routed::a_configured_peer_is_reached_through_a_tunnel_that_is_not_used_by_itself", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
        for (host, addr) in hosts.iter().zip(["10.99.0.1", "10.99.0.2"]) {
            lab.plug(*host, Lan::FIRST, "wg0").give(addr);
        }
        let kitchen = hosts[1].daemon(&[]);
        let health = kitchen.health("interfaces").unwrap();
        assert!(health["fix"].as_str().unwrap().contains("--interface"), "{health}");
        let attic = hosts[0].daemon(&["--peer", "10.99.0.2:28282"]);
        talk(&attic, &kitchen);
    });
}
