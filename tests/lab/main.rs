//! The real programs on hosts of their own, on one network: what the user is promised.
//!
//! Each test runs in namespaces that vanish with it; it needs Linux and the tools that `tests/run` installs.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed, and tells"
)]

mod avahi;
mod classified;
mod homes;
mod internet;
#[path = "../sim/kinds.rs"]
#[allow(unreachable_pub, reason = "the simulation shows them to its parts")]
mod kinds;
mod lab;
mod large;
mod mapped;
mod meeting;
mod multicast;
mod narrow;
mod neighbours;
mod networks;
mod nics;
mod noise;
mod recipes;
mod relayed;
mod roaming;
mod routed;
mod servers;
mod table;
mod talk;

use lab::{Frame, Lab};
use serde_json::Value;

const PORT: u16 = 28282;

#[test]
fn three_hosts_on_one_bridge_find_each_other_and_a_message_is_delivered() {
    Lab::run("three_hosts_on_one_bridge_find_each_other_and_a_message_is_delivered", |lab| {
        let daemons = ["attic", "kitchen", "garage"].map(|name| lab.host(name).daemon(&[]));
        for (here, there) in daemons.iter().flat_map(|here| daemons.iter().map(move |there| (here, there))) {
            here.atonce(&["wait", &there.name]);
        }
        let [attic, kitchen, garage] = &daemons;

        let listening = kitchen.start(&["listen", "-n", "1", "chat"]);
        attic.atonce(&["wait", "kitchen/chat"]);
        let sent = attic.atonce(&["send", "kitchen", "chat", "hello"]);
        assert!(sent.starts_with("delivered to kitchen in "), "{sent}");
        let heard = listening.rest();
        assert!(heard.len() == 1 && heard[0].ends_with(" attic> hello"), "{heard:?}");

        let listening = [kitchen, garage].map(|daemon| daemon.start(&["listen", "-n", "1", "news"]));
        attic.atonce(&["wait", "kitchen/news"]);
        attic.atonce(&["wait", "garage/news"]);
        let published = attic.json(&["publish", "--ack", "news", "to all"]);
        assert_eq!(published[0]["sent"], 2, "{published:?}");
        for heard in listening.iter().map(|listening| listening.rest()) {
            assert!(heard.len() == 1 && heard[0].ends_with(" attic> to all"), "{heard:?}");
        }

        let peers = attic.json(&["peers"]);
        let names: Vec<_> = peers.iter().map(|peer| &peer["name"]).collect();
        assert_eq!(names, ["garage", "kitchen"]);
        assert!(peers.iter().all(|peer| peer["state"] == "online"), "{peers:?}");
        assert_eq!(attic.json(&["status"])[0]["peers"]["online"], 2);
        let id = &kitchen.json(&["id"])[0];
        assert_eq!((&id["name"], &id["id"]), (&peers[1]["name"], &peers[1]["id"]));
        let pings = attic.json(&["ping", "-c", "2", "kitchen"]);
        assert_eq!(pings.last().unwrap()["received"], 2);
    });
}

#[test]
fn a_killed_daemon_is_seen_to_leave_and_to_enter_again() {
    Lab::run("a_killed_daemon_is_seen_to_leave_and_to_enter_again", |lab| {
        let attic = lab.host("attic").daemon(&[]);
        let kitchen = lab.host("kitchen");
        let watching = attic.start(&["watch", "--json"]);
        let daemon = kitchen.daemon(&[]);
        let first = watching.event("enter", "kitchen");
        daemon.kill();
        watching.event("exit", "kitchen");
        let _again = kitchen.daemon(&[]);
        let second = watching.event("enter", "kitchen");
        assert_eq!(first["peer"]["id"], second["peer"]["id"]);
    });
}

#[test]
fn acknowledged_messages_survive_loss() {
    const COUNT: usize = 100;
    Lab::run("acknowledged_messages_survive_loss", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        let count = COUNT.to_string();
        let listening = kitchen.start(&["listen", "-n", &count, "chat"]);
        attic.atonce(&["wait", "kitchen/chat"]);
        for host in hosts {
            host.filter(&["input meta l4proto udp numgen random mod 100 < 20 drop"]);
        }

        let messages: Vec<String> = (0..COUNT).map(|number| format!("message {number}")).collect();
        let sent = attic.json_fed(&["send", "--lines", "kitchen", "chat"], &messages.join("\n"));
        let delivered = sent.iter().filter(|result| result["outcome"] == "delivered").count();
        assert_eq!((sent.len(), delivered), (COUNT, COUNT), "{sent:?}");
        // One that came twice would take the place of another.
        let heard = listening.rest();
        let heard: Vec<_> = heard.iter().map(|line| line.rsplit_once("> ").unwrap().1).collect();
        assert_eq!(heard, messages);
        println!("{delivered} of {COUNT} delivered, {} heard, in order", heard.len());
    });
}

#[test]
fn a_stranger_gets_not_one_byte_and_a_capture_shows_no_plaintext() {
    const PLAIN: [&str; 4] = ["quokka-attic", "quokka-kitchen", "wombat-topic", "numbat-payload"];
    Lab::run("a_stranger_gets_not_one_byte_and_a_capture_shows_no_plaintext", |lab| {
        let hosts = ["attic", "kitchen", "stranger"].map(|name| lab.host(name));
        let secret = lab.new_network("secret");
        let member = ["--network-secret-file", &secret];
        let [attic, kitchen, _] = hosts;

        let capture = lab.capture();
        // The stranger is told where the members are, and tries for as long as the test goes on.
        let [first, second] = [attic, kitchen].map(|host| format!("{}:{PORT}", host.ip()));
        let stranger = hosts[2].daemon(&["--peer", &first, "--peer", &second]);
        let attic_daemon = attic.daemon_named(PLAIN[0], &member);
        let kitchen_daemon = kitchen.daemon_named(PLAIN[1], &member);
        assert_eq!((attic_daemon.port, kitchen_daemon.port), (PORT, PORT));

        let overheard = lab.capture();
        let listening = kitchen_daemon.start(&["listen", "-n", "1", PLAIN[2]]);
        attic_daemon.atonce(&["wait", &format!("{}/{}", PLAIN[1], PLAIN[2])]);
        attic_daemon.atonce(&["send", PLAIN[1], PLAIN[2], PLAIN[3]]);
        assert!(listening.rest()[0].ends_with(PLAIN[3]));
        // A restart, so that handshakes are among what is overheard.
        let watch = attic_daemon.start(&["--json", "watch"]);
        kitchen_daemon.kill();
        let _kitchen_daemon = kitchen.daemon_named(PLAIN[1], &member);
        watch.event("exit", PLAIN[1]);
        watch.event("enter", PLAIN[1]);
        let overheard = overheard.frames();
        let of_members = |frame: &&Frame| {
            frame.is_udp() && (frame.is_between(attic, kitchen) || frame.is_between(kitchen, attic))
        };
        let lines: Vec<_> = overheard.iter().filter(of_members).map(|frame| hex(frame.payload())).collect();
        assert!(lines.iter().any(|line| line.starts_with("01")), "{lines:?}");
        let overheard = lab.file("overheard", &lines.join("\n"));

        let mut probe = hosts[2].command("python3");
        probe.arg(lab::script("stranger.py")).args([attic.ip(), PORT.to_string()]).arg(overheard);
        let probed = probe.output().unwrap();
        let (probed, failed) = (String::from_utf8(probed.stdout).unwrap(), String::from_utf8(probed.stderr));
        println!("{probed}");
        assert!(probed.ends_with("answered 0 bytes\n"), "{probed}{failed:?}");

        let online: Vec<Value> = stranger.json(&["peers", "--all"]);
        assert!(online.is_empty(), "{online:?}");
        let frames = capture.frames();
        let udp =
            |from, to| frames.iter().filter(|frame| frame.is_between(from, to) && frame.is_udp()).count();
        for member in [attic, kitchen] {
            let (asked, answered) = (udp(hosts[2], member), udp(member, hosts[2]));
            println!("stranger to {}: {asked} datagrams; back: {answered}", member.name);
            assert!(asked > 0 && answered == 0);
        }
        assert!(udp(attic, kitchen) > 0 && udp(kitchen, attic) > 0);
        for plain in PLAIN {
            assert!(!frames.iter().any(|frame| frame.contains(plain)), "{plain} stands in the capture");
        }
        println!("{} frames without {PLAIN:?}", frames.len());
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn in_the_open_network_a_capture_shows_names_of_devices_and_nothing_of_a_message() {
    Lab::run("in_the_open_network_a_capture_shows_names_of_devices_and_nothing_of_a_message", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let capture = lab.capture();
        let attic = hosts[0].daemon_named("quokka-attic", &[]);
        let kitchen = hosts[1].daemon_named("quokka-kitchen", &[]);
        let listening = kitchen.start(&["listen", "-n", "1", "wombat-topic"]);
        attic.atonce(&["wait", "quokka-kitchen/wombat-topic"]);
        attic.atonce(&["send", "quokka-kitchen", "wombat-topic", "numbat-payload"]);
        assert!(listening.rest()[0].ends_with("numbat-payload"));
        let frames = capture.frames();
        let shown = |text| frames.iter().any(|frame| frame.contains(text));
        // The first shows that the recording would have shown the others.
        assert!(shown("quokka-kitchen") && !shown("wombat-topic") && !shown("numbat-payload"));
    });
}

#[test]
fn two_daemons_side_by_side_on_one_host_find_each_other() {
    Lab::run("two_daemons_side_by_side_on_one_host_find_each_other", |lab| {
        let host = lab.host("attic");
        let [one, two] = ["one", "two"].map(|name| host.daemon_named(name, &[]));
        assert_eq!(one.port, PORT);
        assert_ne!(two.port, PORT);
        one.atonce(&["wait", "two"]);
        two.atonce(&["wait", "one"]);
        let _listening = two.start(&["listen", "chat"]);
        one.atonce(&["wait", "two/chat"]);
        let sent = one.atonce(&["send", "two", "chat", "hello"]);
        assert!(sent.starts_with("delivered to two in "), "{sent}");
    });
}

#[test]
fn a_static_peer_is_found_where_multicast_is_blocked() {
    Lab::run("a_static_peer_is_found_where_multicast_is_blocked", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        for host in hosts {
            host.filter(&[
                "input meta l4proto udp meta pkttype { broadcast, multicast } drop",
                "output ip daddr { 224.0.0.0/4, 255.255.255.255, 10.77.0.255 } drop",
                "output meta l4proto udp ip6 daddr ff00::/8 drop",
            ]);
        }
        let quiet = ["--no-mdns", "--no-hello"];
        let kitchen = hosts[1].daemon(&quiet);
        let there = format!("{}:{}", hosts[1].ip(), kitchen.port);
        let attic = hosts[0].daemon(&[&quiet[..], &["--peer", &there]].concat());
        attic.atonce(&["wait", "kitchen"]);
        kitchen.atonce(&["wait", "attic"]);
        let _listening = kitchen.start(&["listen", "chat"]);
        attic.atonce(&["wait", "kitchen/chat"]);
        let sent = attic.atonce(&["send", "kitchen", "chat", "hello"]);
        assert!(sent.starts_with("delivered to kitchen in "), "{sent}");
    });
}

#[test]
fn running_daemons_follow_into_a_private_network_and_back() {
    Lab::run("running_daemons_follow_into_a_private_network_and_back", |lab| {
        let [attic, kitchen] = ["attic", "kitchen"].map(|name| lab.host(name).daemon(&[]));
        attic.atonce(&["wait", "kitchen"]);
        let secret = attic.atonce(&["network", "create"]);
        assert!(secret.starts_with("atonce-secret-") && secret.lines().count() == 1, "{secret}");
        let file = lab.file("secret", &secret);
        let file = file.to_str().unwrap();

        let watch = attic.start(&["--json", "watch"]);
        watch.event("enter", "kitchen");
        attic.atonce(&["network", "join", file]);
        watch.event("exit", "kitchen");
        kitchen.atonce(&["network", "join", file]);
        watch.event("enter", "kitchen");
        assert_eq!(attic.json(&["status"])[0]["network"], "private");

        kitchen.atonce(&["network", "leave"]);
        watch.event("exit", "kitchen");
        attic.atonce(&["network", "leave"]);
        watch.event("enter", "kitchen");
        assert_eq!(attic.json(&["status"])[0]["network"], "open");
    });
}
