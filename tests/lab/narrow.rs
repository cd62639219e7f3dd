//! Links that take smaller packets than others: messages get there in smaller datagrams.

use serde_json::json;

use crate::lab::cable::{Cable, Lan};
use crate::lab::{Daemon, Frame, Host, Lab};
use crate::talk::App;

/// A short and a long message each way, both delivered.
struct Talk<'a> {
    ends: [(&'a Daemon, App); 2],
}

impl<'a> Talk<'a> {
    fn begin(daemons: [&'a Daemon; 2]) -> Self {
        let ends = daemons.map(|daemon| (daemon, App::connect(daemon)));
        for (_, app) in &ends {
            app.say(&json!({"op": "listen", "topic": "t", "id": 0}));
            app.until(|event| event["ev"] == "ok");
        }
        for (here, there) in [(0, 1), (1, 0)] {
            daemons[here].atonce(&["wait", &format!("{}/t", daemons[there].name)]);
        }
        Self { ends }
    }

    fn go_on(&self) {
        for (here, there) in [(0, 1), (1, 0)] {
            for text in ["0123456789".to_owned(), "0123456789".repeat(6 * 1024)] {
                let ((_, from), (to, receiver)) = (&self.ends[here], &self.ends[there]);
                from.say(&json!({"op": "send", "id": 1, "to": to.name, "topic": "t", "text": text, "timeout_ms": 20_000}));
                let result = from.until(|event| event["ev"] == "result").pop().unwrap();
                assert_eq!(result["outcome"], "delivered", "{} bytes to {}: {result}", text.len(), to.name);
                let message = receiver.until(|event| event["ev"] == "message").pop().unwrap();
                assert_eq!(message["text"], text);
            }
        }
    }
}

fn two(lab: &Lab) -> ([Host; 2], [Cable; 2]) {
    let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
    let cables = hosts.map(|host| lab.plug(host, Lan::FIRST, "eth0"));
    for (cable, host) in cables.iter().zip(hosts) {
        cable.give(&host.ip());
        cable.send_singly();
    }
    (hosts, cables)
}

/// Whether it is a piece of a packet that was cut up.
fn is_fragment(frame: &Frame) -> bool {
    frame.0[12..14] == [0x08, 0x00] && (frame.0[20] & 0x3f, frame.0[21]) != (0, 0)
}

#[test]
fn over_a_link_of_less_than_ipv6_needs_short_and_long_messages_arrive_and_nothing_is_cut_up() {
    Lab::run(
        "narrow::over_a_link_of_less_than_ipv6_needs_short_and_long_messages_arrive_and_nothing_is_cut_up",
        |lab| {
            let (hosts, cables) = two(lab);
            for mtu in [1279, 1200, 1000, 576] {
                cables.iter().for_each(|cable| cable.limit(mtu));
                let capture = lab.capture();
                let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
                Talk::begin([&attic, &kitchen]).go_on();
                let frames = capture.frames();
                let sent = frames.iter().filter(|frame| hosts.iter().any(|host| frame.is_from(*host)));
                let (cut, longest) = sent.fold((0, 0), |(cut, longest), frame| {
                    (cut + usize::from(is_fragment(frame)), longest.max(frame.0.len() - 14))
                });
                assert_eq!(cut, 0, "of a link of {mtu}");
                assert!(
                    longest <= mtu.into() && longest + 28 > usize::from(mtu).min(1228) - 28,
                    "{longest} of {mtu}"
                );
            }
        },
    );
}

#[test]
fn over_a_link_that_takes_less_than_any_datagram_of_ours_messages_arrive_in_fragments() {
    Lab::run(
        "narrow::over_a_link_that_takes_less_than_any_datagram_of_ours_messages_arrive_in_fragments",
        |lab| {
            let (hosts, cables) = two(lab);
            cables.iter().for_each(|cable| cable.limit(300));
            let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
            Talk::begin([&attic, &kitchen]).go_on();
        },
    );
}

#[test]
fn a_link_may_get_narrower_and_wider_while_messages_flow() {
    Lab::run("narrow::a_link_may_get_narrower_and_wider_while_messages_flow", |lab| {
        let (hosts, cables) = two(lab);
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        let talk = Talk::begin([&attic, &kitchen]);
        talk.go_on();
        for mtu in [1000, 576, 1500] {
            cables.iter().for_each(|cable| cable.limit(mtu));
            talk.go_on();
            talk.go_on();
        }
        let capture = lab.capture();
        talk.go_on();
        let frames = capture.frames();
        assert!(
            frames.iter().any(|frame| frame.is_from(hosts[0]) && frame.0.len() > 1400),
            "as wide as before"
        );
    });
}

#[test]
fn a_switch_that_swallows_what_is_longer_than_576_bytes_is_got_through() {
    Lab::run("narrow::a_switch_that_swallows_what_is_longer_than_576_bytes_is_got_through", |lab| {
        let (hosts, cables) = two(lab);
        cables.iter().for_each(|cable| cable.narrow(576));
        let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
        Talk::begin([&attic, &kitchen]).go_on();
    });
}

#[test]
fn a_router_that_says_how_little_it_passes_on_is_heeded() {
    Lab::run("narrow::a_router_that_says_how_little_it_passes_on_is_heeded", |lab| {
        let (router, far) = (lab.bare_host("router"), lab.lan());
        lab.plug(router, Lan::FIRST, "eth0").give("10.77.0.254");
        let narrow = lab.plug(router, far, "eth1");
        narrow.give("10.78.0.254");
        narrow.limit(576);
        router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let (attic, kitchen) = (lab.bare_host("attic"), lab.bare_host("kitchen"));
        let near = lab.plug(attic, Lan::FIRST, "eth0");
        near.give("10.77.0.2");
        near.send_singly();
        attic.sh("ip route add default via 10.77.0.254");
        let cable = lab.plug(kitchen, far, "eth0");
        cable.give("10.78.0.2");
        cable.limit(576);
        kitchen.sh("ip route add default via 10.78.0.254");
        let kitchen = kitchen.daemon(&[]);
        let attic = attic.daemon(&["--peer", "10.78.0.2:28282"]);
        Talk::begin([&attic, &kitchen]).go_on();
    });
}
