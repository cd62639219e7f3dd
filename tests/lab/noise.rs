//! What is said on the network by those who mean no good, or only too much.

use std::path::Path;

use crate::lab::{self, Frame, Host, Lab};
use crate::talk::{Conversation, talk};

/// A daemon with a peer, many of whose neighbours are known, is smaller than this.
const MEMORY_KB: u64 = 64 * 1024;

/// Says so much by multicast DNS, and returns how many bytes that were.
fn storm(host: Host, words: &[&str]) -> usize {
    let mut command = host.command("python3");
    let output = command.arg(lab::script("storm.py")).arg(host.ip()).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    println!("{} said {said} bytes of {words:?}", host.name);
    said
}

/// How many datagrams with how many bytes those frames carry.
fn udp<'a>(frames: impl Iterator<Item = &'a Frame>) -> (usize, usize) {
    let lengths: Vec<_> = frames.filter(|frame| frame.is_udp()).map(|frame| frame.payload().len()).collect();
    (lengths.len(), lengths.iter().sum())
}

#[test]
fn ten_thousand_adverts_with_the_address_of_a_third_make_nobody_flood_it() {
    Lab::run("noise::ten_thousand_adverts_with_the_address_of_a_third_make_nobody_flood_it", |lab| {
        let hosts = ["attic", "kitchen", "stranger", "victim"].map(|name| lab.host(name));
        let [attic, kitchen] = [hosts[0], hosts[1]].map(|host| host.daemon(&[]));
        let capture = lab.capture();
        // They browse since their start, and so they listen.
        let said = storm(hosts[2], &["ghosts", "10000", &hosts[3].ip()]);
        talk(&attic, &kitchen);
        let frames = capture.frames();
        for host in [hosts[0], hosts[1]] {
            let (count, bytes) = udp(frames.iter().filter(|frame| frame.is_between(host, hosts[3])));
            println!("{} to the victim: {count} datagrams, {bytes} bytes", host.name);
            assert!(count > 0, "the adverts were taken for true");
            assert!(bytes * 10 < said, "{bytes} bytes for {said}");
        }
        for daemon in [&attic, &kitchen] {
            println!("{} kB", daemon.memory());
            assert!(daemon.memory() < MEMORY_KB);
        }
    });
}

#[test]
fn a_storm_of_questions_draws_less_than_it_says() {
    Lab::run("noise::a_storm_of_questions_draws_less_than_it_says", |lab| {
        let hosts = ["attic", "kitchen", "stranger"].map(|name| lab.host(name));
        let [attic, kitchen] = [hosts[0], hosts[1]].map(|host| host.daemon(&[]));
        let capture = lab.capture();
        let said = storm(hosts[2], &["questions", "10000"]);
        talk(&attic, &kitchen);
        let frames = capture.frames();
        let of_mdns = |frame: &&Frame| frame.is_from(hosts[0]) && frame.goes_to(5353);
        let (count, bytes) = udp(frames.iter().filter(of_mdns));
        println!("attic: {count} datagrams of multicast DNS, {bytes} bytes");
        assert!(count > 0 && bytes < said, "{bytes} bytes for {said}");
        assert!(attic.memory() < MEMORY_KB);
    });
}

#[test]
fn forged_goodbyes_make_nobody_leave() {
    Lab::run("noise::forged_goodbyes_make_nobody_leave", |lab| {
        let hosts = ["attic", "kitchen", "stranger"].map(|name| lab.host(name));
        let [attic, kitchen] = [hosts[0], hosts[1]].map(|host| host.daemon(&[]));
        let mut conversation = Conversation::begin(&attic, &kitchen);
        let id = kitchen.json(&["id"]).remove(0)["id"].as_str().unwrap().to_owned();
        storm(hosts[2], &["goodbyes", "1000", &format!("kitchen ({})", &id[..8])]);
        conversation.say(10);
        conversation.hear();
        conversation.end();
    });
}

#[test]
fn noise_on_the_port_of_multicast_dns_ends_nothing() {
    Lab::run("noise::noise_on_the_port_of_multicast_dns_ends_nothing", |lab| {
        let hosts = ["attic", "kitchen", "stranger"].map(|name| lab.host(name));
        let attic = hosts[0].daemon(&["--no-hello"]);
        storm(hosts[2], &["noise", "10000"]);
        // It still hears: the newcomer is found by nothing else.
        let kitchen = hosts[1].daemon(&["--no-hello"]);
        talk(&attic, &kitchen);
        attic.await_health("mdns", |health| health["state"] == "ok");
        assert!(attic.memory() < MEMORY_KB);
    });
}

#[test]
fn a_full_disk_costs_only_what_would_be_remembered() {
    Lab::run("noise::a_full_disk_costs_only_what_would_be_remembered", |lab| {
        let hosts = ["attic", "kitchen"].map(|name| lab.host(name));
        let state = Path::new(lab::FILES).join("attic-attic.state");
        std::fs::create_dir(&state).unwrap();
        let words = format!("mount -t tmpfs -o size=64k,mode=0700 tmpfs {}", state.display());
        lab::run(&words);
        let first = hosts[0].daemon(&[]);
        first.stop();
        // As full as it gets.
        let full = hosts[0]
            .command("dd")
            .args(["if=/dev/zero", "bs=1k"])
            .arg(format!("of={}/rest", state.display()))
            .output();
        assert!(!full.unwrap().status.success(), "there is room left");
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        talk(&attic, &kitchen);
        let health = attic.await_health("state-dir", |health| health["state"] != "ok");
        assert!(health["why"].as_str().unwrap().contains("No space left"), "{health}");

        let id = attic.atonce(&["id"]);
        attic.stop();
        lab::run(&format!("mount -o remount,bind,ro {}", state.display()));
        // Its key is there to be read: it is who it was, and says what it cannot do.
        let again = hosts[0].daemon(&[]);
        assert_eq!(again.atonce(&["id"]), id);
        let health = again.await_health("state-dir", |health| health["state"] != "ok");
        assert!(health["why"].as_str().unwrap().contains("Read-only file system"), "{health}");
    });
}
