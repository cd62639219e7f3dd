//! Other programs of multicast DNS on the host and on the network.

use crate::PORT;
use crate::avahi::Avahi;
use crate::lab::lines::PATIENCE;
use crate::lab::{self, Host, Lab, Program};
use crate::talk::talk;

#[test]
fn avahi_browse_shows_an_open_node_with_its_port_and_record() {
    Lab::run("neighbours::avahi_browse_shows_an_open_node_with_its_port_and_record", |lab| {
        let [attic, desk] = ["attic", "desk"].map(|name| lab.host(name));
        let avahi = Avahi::start(lab, desk);
        let daemon = attic.daemon(&[]);
        let id = daemon.json(&["id"]).remove(0)["id"].as_str().unwrap().to_owned();
        let shown = browsed(&avahi, |line| line.starts_with("=;eth0;IPv4;attic"));
        let fields: Vec<_> = shown.split(';').collect();
        let short = &id[..8];
        assert_eq!(fields[3], format!("attic\\032\\040{short}\\041"));
        assert_eq!(&fields[4..6], ["_atonce._udp", "local"]);
        assert_eq!(fields[6], format!("{short}.local"));
        assert_eq!(fields[8], PORT.to_string());
        assert!(
            fields[9].contains(&format!("\"id={id}\"")) && fields[9].contains("\"txtvers=1\""),
            "{shown}"
        );
    });
}

/// What `avahi-browse -rtp _atonce._udp` shows, asked until it shows the wanted line.
fn browsed(avahi: &Avahi, is_it: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let output = avahi.command("avahi-browse").args(["-rtp", "_atonce._udp"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let shown = String::from_utf8(output.stdout).unwrap();
        println!("avahi-browse -rtp _atonce._udp\n{shown}");
        if let Some(line) = shown.lines().find(|line| is_it(line)) {
            return line.to_owned();
        }
        assert!(std::time::Instant::now() < deadline, "it shows only:\n{shown}");
    }
}

#[test]
fn avahi_and_the_daemon_work_side_by_side_on_both_hosts() {
    Lab::run("neighbours::avahi_and_the_daemon_work_side_by_side_on_both_hosts", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let avahis = hosts.map(|host| Avahi::start(lab, host));
        // By multicast DNS alone.
        let [attic, kitchen] = hosts.map(|host| host.daemon(&["--no-hello"]));
        talk(&attic, &kitchen);
        for (avahi, other) in avahis.iter().zip(["kitchen", "attic"]) {
            browsed(avahi, |line| line.starts_with(&format!("=;eth0;IPv4;{other}")));
        }
        for daemon in [&attic, &kitchen] {
            daemon.await_health("mdns", |health| health["state"] == "ok");
        }
        // Nobody was made to take another name.
        for (avahi, name) in avahis.iter().zip(["attic.local", "kitchen.local"]) {
            let mut resolve = avahi.command("avahi-resolve-host-name");
            let output = resolve.args(["-4", name]).output().unwrap();
            assert!(String::from_utf8(output.stdout).unwrap().starts_with(name));
        }
    });
}

/// Holds the port of multicast DNS on `host`, alone.
fn hold(host: Host) -> Program {
    let mut command = host.command("python3");
    command.arg(lab::script("hold.py")).arg("5353");
    let holder = Program::start(command, "hold.py".to_owned());
    holder.line(|line| line == "held");
    holder
}

#[test]
fn a_program_that_holds_the_port_of_multicast_dns_is_told_and_hellos_find_peers() {
    let name = "neighbours::a_program_that_holds_the_port_of_multicast_dns_is_told_and_hellos_find_peers";
    Lab::run(name, |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let _holder = hold(hosts[0]);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        let health = attic.await_health("mdns", |health| health["state"] == "warn");
        let why = "another program holds UDP 5353 and does not share it, so there is no multicast DNS";
        assert_eq!(health["why"], why);
        assert!(health["fix"].as_str().unwrap().contains("ss -lunp"), "{health}");
        assert_eq!(attic.health("multicast"), None, "one cause is told once");
    });
}

#[test]
fn multicast_dns_begins_when_the_program_that_held_its_port_ends() {
    Lab::run("neighbours::multicast_dns_begins_when_the_program_that_held_its_port_ends", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let holder = hold(hosts[0]);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&["--no-hello"]));
        attic.await_health("mdns", |health| health["state"] == "warn");
        drop(holder);
        talk(&attic, &kitchen);
        attic.await_health("mdns", |health| health["state"] == "ok");
    });
}

#[test]
fn a_daemon_that_may_not_have_the_port_of_multicast_dns_says_so_and_finds_peers() {
    let name = "neighbours::a_daemon_that_may_not_have_the_port_of_multicast_dns_says_so_and_finds_peers";
    Lab::run(name, |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        hosts[0].sh("echo 6000 > /proc/sys/net/ipv4/ip_unprivileged_port_start");
        let unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        let attic = hosts[0].daemon_under(&unprivileged, "attic", &[]);
        let kitchen = hosts[1].daemon(&[]);
        talk(&attic, &kitchen);
        let health = attic.await_health("mdns", |health| health["state"] == "warn");
        assert!(health["why"].as_str().unwrap().starts_with("UDP 5353 is not permitted"), "{health}");
        assert!(health["fix"].as_str().unwrap().contains("ip_unprivileged_port_start"), "{health}");
    });
}
