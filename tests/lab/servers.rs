//! A rendezvous server that stops, that is not the one it was, that cannot be reached; and what it hears.

use crate::homes::{Homes, await_path, await_registered, await_server};
use crate::internet::Side;
use crate::kinds::Kind;
use crate::lab::Lab;
use crate::talk::{Conversation, talk};

#[test]
fn a_server_that_was_away_was_missed_by_nobody_and_introduces_newcomers_again() {
    Lab::run("servers::a_server_that_was_away_was_missed_by_nobody_and_introduces_newcomers_again", |lab| {
        let mut homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
        let pair = homes.pair();
        await_path(pair.each_ref(), "direct");
        let mut conversation = Conversation::begin(&pair[0], &pair[1]);
        let address = homes.server().lines.clone();
        homes.server.take().unwrap().stop();
        conversation.say(50);
        conversation.hear();
        let site = homes.internet.site(Side::West, Kind::HOME);
        let args = ["--network-secret-file", &homes.secret, "--rendezvous", &address[0]];
        let newcomer = site.host("garage").daemon(&args);
        newcomer.await_health("rendezvous", |health| health["why"].as_str().unwrap().contains("not answer"));
        homes.server = Some(homes.internet.start_server());
        assert_eq!(homes.server().lines, address);
        for daemon in &pair {
            await_path([&newcomer, daemon], "direct");
            talk(&newcomer, daemon);
        }
        conversation.say(50);
        conversation.hear();
        let changed = conversation.end();
        assert!(changed.iter().all(|event| event["peer"]["name"] == "garage"), "{changed:?}");
    });
}

#[test]
fn a_server_with_another_key_is_not_spoken_to_and_told() {
    Lab::run("servers::a_server_with_another_key_is_not_spoken_to_and_told", |lab| {
        let homes = Homes::new(lab, [Kind::HOME, Kind::HOME]);
        let (addr, key) = homes.server().lines[0].split_once('#').unwrap();
        // Of some other server.
        let other = "5rs3g2xyzjlkyq7p2axpo6nvndlc3ckqnqj3cpetmoaqsp6eyelq";
        let line = format!("{addr}#{other}");
        let args = ["--network-secret-file", &homes.secret, "--rendezvous", &line];
        let daemon = homes.hosts[0].daemon(&args);
        await_server(&daemon, "wrong-key");
        let health = daemon.health("rendezvous").unwrap();
        let why = health["why"].as_str().unwrap();
        assert!(why.contains(key) && why.contains(other), "{health}");
        assert!(daemon.atonce(&["status"]).contains(key));
    });
}

#[test]
fn where_udp_is_blocked_the_status_says_that_no_server_answers() {
    Lab::run("servers::where_udp_is_blocked_the_status_says_that_no_server_answers", |lab| {
        let homes = Homes::new(lab, [Kind::BLOCKED, Kind::HOME]);
        let [blocked, other] = [0, 1].map(|number| homes.daemon(number));
        await_registered(&other);
        let silent = blocked.await_health("rendezvous", |health| health["state"] == "warn");
        assert!(silent["fix"].as_str().unwrap().contains("UDP"), "{silent}");
        await_server(&blocked, "connecting");
        // On its own network all is well.
        let neighbour =
            homes.sites[0].daemon(homes.sites[0].host("garage"), &homes.secret, homes.server(), &[]);
        await_path([&blocked, &neighbour], "lan");
        assert_eq!(other.json(&["status"])[0]["peers"]["online"], 0);
    });
}

#[test]
fn a_server_hears_no_id_no_name_no_topic_and_no_address_of_a_lan() {
    const NAMES: [&str; 2] = ["quokka-attic", "quokka-kitchen"];
    Lab::run("servers::a_server_hears_no_id_no_name_no_topic_and_no_address_of_a_lan", |lab| {
        let homes = Homes::new(lab, [Kind::RANDOM, Kind::RANDOM]);
        let capture = lab.capture_of(homes.internet.core);
        // Each of the messages: those who come, who meet, who cannot, who leave.
        let pair = [0, 1].map(|number| {
            let daemon = homes.member(number, NAMES[number]);
            await_registered(&daemon);
            daemon
        });
        let third = homes.third(Kind::OPEN);
        await_path(pair.each_ref(), "relay");
        let listening = pair[1].start(&["listen", "-n", "1", "wombat-topic"]);
        pair[0].atonce(&["wait", "quokka-kitchen/wombat-topic"]);
        pair[0].atonce(&["send", "quokka-kitchen", "wombat-topic", "numbat-payload"]);
        assert!(listening.rest()[0].ends_with("numbat-payload"));
        let ids: Vec<_> =
            pair.iter().map(|it| it.json(&["id"])[0]["id"].as_str().unwrap().to_owned()).collect();
        let [one, two] = pair;
        [one, two, third].into_iter().for_each(crate::lab::Daemon::stop);

        let server = homes.internet.server;
        let frames = capture.frames();
        let heard: Vec<_> = frames
            .iter()
            .filter(|frame| frame.is_udp() && frame.is_with(server))
            .map(|it| it.payload())
            .collect();
        let has =
            |needle: &[u8]| heard.iter().any(|it| it.windows(needle.len()).any(|window| window == needle));
        let raw = |text: &str| data_encoding::BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).unwrap();
        // That it shows the server's own key shows that it would show the rest.
        let key = homes.server().lines[0].split_once('#').unwrap().1;
        assert!(heard.len() > 20 && has(&raw(key)), "{} datagrams", heard.len());
        for id in &ids {
            assert!(!has(id.as_bytes()) && !has(&raw(id)));
        }
        for text in [NAMES[0], NAMES[1], "garage", "wombat-topic", "numbat-payload"] {
            assert!(!has(text.as_bytes()), "{text}");
        }
        for (site, host) in homes.sites.iter().zip(homes.hosts) {
            for addr in [site.addr_of(host), site.wan.clone()] {
                let octets: std::net::Ipv4Addr = addr.parse().unwrap();
                assert!(!has(&octets.octets()) && !has(addr.as_bytes()), "{addr}");
            }
        }
        println!("{} datagrams", heard.len());
    });
}
