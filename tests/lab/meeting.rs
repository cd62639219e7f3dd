//! Members behind routers of every kind: who meets directly, who through a relay, and what is told where nobody helps.

use serde_json::Value;

use crate::internet::{Internet, Server, Side, Site};
use crate::kinds::{KINDS, Kind, can_meet};
use crate::lab::{Daemon, Host, Lab};
use crate::talk::{Conversation, talk};

/// How `daemon` reaches `peer`: what its path is called, or none.
fn path_kind(peers: &[Value], peer: &str) -> Option<String> {
    let peer = peers.iter().find(|known| known["name"] == peer && known["state"] == "online")?;
    Some(peer["path"]["kind"].as_str().unwrap().to_owned())
}

/// Waits until each of both reaches the other in this way.
fn await_path(pair: [&Daemon; 2], kind: &str) {
    let [one, other] = pair;
    for (daemon, peer) in [(one, other), (other, one)] {
        daemon.await_answer(&["peers"], |peers| (path_kind(peers, &peer.name)? == kind).then_some(()));
    }
}

/// Waits until the server knows this member.
fn await_registered(daemon: &Daemon) {
    daemon.await_answer(&["status"], |status| (rendezvous(status)["state"] == "registered").then_some(()));
}

fn rendezvous(status: &[Value]) -> &Value {
    &status[0]["rendezvous"][0]
}

/// One home on either side of the internet, with a member in each.
struct Homes<'lab> {
    internet: Internet<'lab>,
    server: Option<Server>,
    sites: [Site<'lab>; 2],
    hosts: [Host; 2],
    secret: String,
}

impl<'lab> Homes<'lab> {
    fn new(lab: &'lab Lab, kinds: [Kind; 2]) -> Self {
        let internet = Internet::new(lab);
        let server = Some(internet.start_server());
        let [west, east] = kinds;
        let sites = [internet.site(Side::West, west), internet.site(Side::East, east)];
        let hosts = [sites[0].host("attic"), sites[1].host("kitchen")];
        let secret = lab.new_network("secret");
        Self { internet, server, sites, hosts, secret }
    }

    fn daemon(&self, number: usize) -> Daemon {
        self.sites[number].daemon(self.hosts[number], &self.secret, self.server.as_ref().unwrap(), &[])
    }

    /// A third member, in the open.
    fn helper(&self) -> Daemon {
        let site = self.internet.site(Side::West, Kind::OPEN);
        site.daemon(site.host("garage"), &self.secret, self.server.as_ref().unwrap(), &[])
    }
}

#[test]
fn two_homes_meet_directly_and_talk() {
    Lab::run("meeting::two_homes_meet_directly_and_talk", |lab| {
        let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
        let pair = [homes.daemon(0), homes.daemon(1)];
        talk(&pair[0], &pair[1]);
        await_path(pair.each_ref(), "direct");
    });
}

#[test]
fn every_pair_of_translators_ends_as_the_table_says() {
    Lab::run("meeting::every_pair_of_translators_ends_as_the_table_says", |lab| {
        let internet = Internet::new(lab);
        let server = internet.start_server();
        // One host behind a router of each kind on either side; each pair is a network of its own there.
        let places = Side::BOTH.map(|side| {
            KINDS.map(|(_, kind)| {
                let site = internet.site(side, kind);
                let host = site.host(format!("in-{}", site.router.name).leak());
                (site, host)
            })
        });
        let open = internet.site(Side::East, Kind::OPEN);
        let third = open.host("third");
        let mut port = 30_000;
        let mut start = |site: &Site<'_>, host: Host, name: &str, secret: &str| {
            port += 1;
            let args = ["--network-secret-file", secret, "--rendezvous", &server.lines[0], "--port"];
            let port = port.to_string();
            let _ = site;
            host.daemon_named(name, &[&args[..], &[&port]].concat())
        };
        let mut pairs = Vec::new();
        for (row, (name, kind)) in KINDS.into_iter().enumerate() {
            for (column, (other_name, other)) in KINDS.into_iter().enumerate().skip(row) {
                let secret = lab.new_network(&format!("secret-{row}-{column}"));
                let one = start(&places[0][row].0, places[0][row].1, &format!("w-{row}-{column}"), &secret);
                let two =
                    start(&places[1][column].0, places[1][column].1, &format!("e-{row}-{column}"), &secret);
                pairs.push((format!("{name} - {other_name}"), can_meet(kind, other), secret, one, two));
            }
        }
        let begun = std::time::Instant::now();
        let (can, cannot): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.1);
        for (name, _, _, one, two) in &can {
            println!("{name}");
            await_path([one, two], "direct");
        }
        println!("direct after {:?}", begun.elapsed());
        for (name, _, secret, one, two) in &cannot {
            println!("{name} {:?} {:?}", one.json(&["peers", "--all"]), two.json(&["peers", "--all"]));
        }
        let mut helpers = Vec::new();
        for (name, _, secret, one, two) in &cannot {
            helpers.push(start(&open, third, &format!("third-{}", one.name), secret));
        }
        for (name, _, secret, one, two) in &cannot {
            println!("{name}");
            await_path([one, two], "relay");
        }
        println!("relay after {:?}", begun.elapsed());
    });
}
