//! Messages that no datagram holds, on a real network.

use serde_json::json;

use crate::lab::cable::Lan;
use crate::lab::{Frame, Lab};
use crate::talk::App;

/// IPv4 and UDP.
const HEADERS: usize = 14 + 28;

#[test]
fn large_messages_fill_the_frames_of_ethernet_and_survive_a_switch_that_passes_less() {
    Lab::run(
        "large::large_messages_fill_the_frames_of_ethernet_and_survive_a_switch_that_passes_less",
        |lab| {
            let hosts = ["attic", "kitchen"].map(|name| lab.bare_host(name));
            let cables = hosts.map(|host| lab.plug(host, Lan::FIRST, "eth0"));
            for (cable, host) in cables.iter().zip(hosts) {
                cable.give(&host.ip());
                cable.send_singly();
            }
            let [attic, kitchen] = hosts.map(|host| host.daemon(&[]));
            let (sender, receiver) = (App::connect(&attic), App::connect(&kitchen));
            receiver.say(&json!({"op": "listen", "topic": "large", "id": 0}));
            receiver.until(|event| event["ev"] == "ok");
            attic.atonce(&["wait", "kitchen/large"]);

            let text = "0123456789".repeat(6_000);
            let send = |ids: std::ops::Range<u64>| {
                for id in ids.clone() {
                    sender.say(
                        &json!({"op": "send", "id": id, "to": "kitchen", "topic": "large", "text": text}),
                    );
                }
                for _ in ids {
                    let result = sender.until(|event| event["ev"] == "result").pop().unwrap();
                    assert_eq!(result["outcome"], "delivered", "{result}");
                    let message = receiver.until(|event| event["ev"] == "message").pop().unwrap();
                    assert_eq!(message["text"], text);
                }
            };
            send(0..5);
            let capture = lab.capture();
            send(5..10);
            let largest = |frames: &[Frame]| {
                let sent = frames.iter().filter(|frame| frame.is_from(hosts[0]) && frame.is_udp());
                sent.map(|frame| frame.0.len() - HEADERS).max()
            };
            assert!(largest(&capture.frames()).is_some_and(|bytes| (1440..=1472).contains(&bytes)));

            // Both ways, and nobody is told: a black hole.
            cables.iter().for_each(|cable| cable.narrow(1300));
            send(10..15);
            let capture = lab.capture();
            send(15..20);
            let bytes = largest(&capture.frames()).unwrap();
            assert!(bytes <= 1200, "{bytes}");
        },
    );
}
