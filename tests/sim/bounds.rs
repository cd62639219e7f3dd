//! What an app or a stranger can make a node hold or send is bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use atonce::core::{Destination, IpAddrScoped, Sighting};
use atonce::id::NodeId;
use atonce::limits;
use atonce::wire::txt::Txt;

use crate::world::{World, milliseconds, seconds};

#[test]
fn no_op_is_taken_without_end_from_an_app_that_does_not_read() {
    for op in [
        r#"{"op":"hello","id":1}"#,
        r#"{"op":"peers"}"#,
        r#"{"op":"peers","id":1}"#,
        r#"{"op":"status","id":1}"#,
        r#"{"op":"network","action":"show","id":1}"#,
        r#"{"op":"listen","topic":"t","id":1}"#,
        r#"{"op":"send","to":"pi-1","topic":"t","text":"x","id":1}"#,
        r#"{"op":"publish","topic":"t","text":"x","ack":true,"id":1}"#,
        r#"{"op":"send","to":"pi-1","topic":"t","text":"x","id":1,"replies":9,"timeout_ms":600000}"#,
        r#"{"op":"send","to":"pi-1","topic":"atonce.discard","text":"x","id":1,"replies":9,"timeout_ms":600000}"#,
        r#"{"op":"publish","topic":"t","text":"x","ack":true,"id":1,"replies":9,"timeout_ms":600000}"#,
        r#"{"op":"reply","reply_to":"x","text":"x"}"#,
        r#"{"op":"ping","to":"pi-1","count":4294967295,"interval_ms":10}"#,
        "dance",
    ] {
        let mut world = World::lan(1, 2);
        world.run(seconds(1));
        let app = world.connect(0);
        world.hosts[0].apps.get_mut(&app).unwrap().deaf = true;
        let mut taken = 0;
        while world.with(0, |node| node.accepts(app)) == Some(true) {
            world.say(0, app, op);
            taken += 1;
            assert!(taken < 60_000, "{op}");
        }
        world.run(seconds(5));
        let output = world.with(0, |node| node.output(app).len()).unwrap();
        assert!(output <= limits::CLIENT_QUEUE_BYTES + limits::LINE_BYTES, "{op}: {output}");
    }
}

#[test]
fn pings_that_are_not_read_stop() {
    let mut world = World::lan(2, 2);
    world.run(seconds(1));
    let app = world.connect(0);
    world.hosts[0].apps.get_mut(&app).unwrap().deaf = true;
    for id in 0..20 {
        let line = format!(r#"{{"op":"ping","id":{id},"to":"pi-1","count":4294967295,"interval_ms":10}}"#);
        world.say(0, app, &line);
    }
    let mut read = Vec::new();
    for _ in 0..120 {
        // It reads now and then, a little.
        world.run(seconds(1));
        let now = world.now;
        let some = world.with_undrained(0, |node| {
            let some = node.output(app)[..node.output(app).len().min(100)].to_vec();
            node.handle_written(app, some.len(), now);
            some
        });
        read.extend(some);
    }
    let output = world.with(0, |node| node.output(app).len()).unwrap();
    assert!(output <= limits::CLIENT_QUEUE_BYTES, "{output}");
    let lines = String::from_utf8(read).unwrap();
    assert!(lines.contains("\"code\":\"limit\""), "more than sixteen at once are refused");
}

#[test]
fn adverts_and_hearsay_do_not_make_a_weapon() {
    let mut world = World::lan(3, 2);
    world.run(seconds(3));
    world.capture = Some(Vec::new());
    let victim = [10, 0, 0, 77];
    for n in 0..400_u16 {
        let mut key = [9; 32];
        key[..2].copy_from_slice(&n.to_le_bytes());
        // Another port each, addresses of the victim, of nobody, of all.
        let addrs = [victim, [10, 0, 3, 255], [10, 0, 0, 0], [224, 0, 0, 1], [8, 8, 8, 8]];
        let addrs = addrs.map(|addr| IpAddrScoped { addr: addr.into(), scope: 0 }).to_vec();
        let (label, txt) = (format!("ghost {n}"), Txt::Open(NodeId(key)));
        let (seen, now) = (Sighting::Seen { label, port: 1000 + n, txt, addrs }, world.now);
        world.with(0, |node| node.handle_sighting(seen, now));
        world.run(milliseconds(5));
    }
    world.run(seconds(8));
    let (host, mut sent) = (world.hosts[0].addr, BTreeMap::<IpAddr, usize>::new());
    for (from, to, _) in world.capture.take().unwrap() {
        if let (true, Destination::One(route)) = (from == host, to) {
            *sent.entry(route.remote.ip()).or_default() += 1;
        }
    }
    let known: SocketAddr = world.hosts[1].addr;
    sent.remove(&known.ip());
    let at_victim = sent.remove(&IpAddr::from(victim)).unwrap();
    // Ten seconds with at most eight new ones each, and the retries of those.
    assert!(at_victim < 10 * 8 * 6, "{at_victim} packets");
    assert_eq!(sent, BTreeMap::new(), "nobody else hears of it");
}
