//! Rendezvous servers that come, go, restart and change their day; members that lie to others through them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atonce::crypto::claim::Claim;
use atonce::crypto::identity::Identity;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::crypto::network::NetworkKeys;
use atonce::id::{BootId, ServerKey};
use atonce::wire::presence::{Candidate, CandidateKind, Flags, Presence};
use atonce::wire::rendezvous::{Echo, FromNode, FromServer, Kind as Message, Nonce, Register};

use serde_json::{Value, json};

use crate::meeting::{apart, met, talk};
use crate::world::internet::{Parcel, Stop};
use crate::world::nat::Kind;
use crate::world::{HostId, World, milliseconds, seconds, secret_of};

#[test]
fn members_that_have_met_do_not_notice_that_the_server_is_gone_and_are_there_when_it_is_back() {
    let (mut world, hosts, watcher) = met(21, [Kind::HOME, Kind::HOME]);
    world.stop_server(0);
    world.run(seconds(600));
    talk(&mut world, hosts, "t", 5);
    assert!(world.heard(hosts[0], watcher, "exit").is_empty());
    world.start_server(0);
    assert!(world.run_for(seconds(100), |world| world.members(0) == 2));
}

#[test]
fn who_comes_around_midnight_is_met_by_all() {
    let (mut world, [one, two], watcher) = met(22, [Kind::HOME, Kind::HOME]);
    // The server's day ends 43,200 s after noon.
    let now = world.now.since_origin();
    world.run(seconds(43_200 - 20) - now);
    for n in 3..=5_u8 {
        world.router(n.into(), Kind::HOME, &World::wan(n).to_string(), None);
        let newcomer = world.add(&format!("host-{n}"), n);
        world.hosts[newcomer].secret = world.hosts[one].secret;
        world.hosts[newcomer].rendezvous = world.hosts[one].rendezvous.clone();
        world.start(newcomer);
        let expected = usize::from(n) - 1;
        let all = [one, two, newcomer];
        assert!(
            world.run_for(seconds(5), |world| all.iter().all(|host| world.online(*host) == expected)),
            "host-{n}"
        );
        world.run(seconds(40));
    }
    world.run(seconds(7200));
    // In the one namespace of the new day.
    assert_eq!(world.members(0), 5);
    assert!(world.heard(one, watcher, "exit").is_empty());
}

#[test]
fn a_server_with_another_key_than_the_configured_one_is_left_alone() {
    let (mut world, [one, two]) = apart(23, [Kind::HOME, Kind::HOME]);
    for host in [one, two] {
        world.hosts[host].rendezvous[0].key = Some(ServerKey([9; 32]));
        world.start(host);
    }
    world.run(seconds(120));
    assert_eq!((world.online(one), world.members(0)), (0, 0));
    assert!(world.internet.servers[0].received.len() < 10);
    assert_eq!(world.status(one)["rendezvous"][0]["state"], "wrong-key");
}

/// A member of the network of `host` registers again and again by one handle, each second as whom it says.
fn lie(world: &mut World, host: HostId, presences: impl IntoIterator<Item = (Identity, Presence)>) {
    let keys = NetworkKeys::private(&secret_of(world.hosts[host].secret.unwrap()));
    let server = world.hosts[host].rendezvous[0].key.unwrap();
    let address = SocketAddr::from(([203, 0, 113, 200], 1));
    let say = |world: &mut World, bytes: Vec<u8>| {
        let to = world.internet.servers[0].addr;
        world.at_stop(Stop::Server(0), Parcel { from: address, to, hops: 64, bytes });
        world.internet.servers[0].sent.iter().rev().find(|(to, _)| *to == address).unwrap().1.clone()
    };
    let mut bytes = Vec::new();
    FromNode::Hail(Nonce([1; 8])).write(0, &mut bytes);
    let answer = say(world, bytes.clone());
    let Ok(FromServer::Retry(retry)) = FromServer::parse(&answer) else { panic!("no retry") };
    let namespace = NamespaceKeys::of_day(&keys, &server, retry.time.day).unwrap();
    let claim = Claim::from_seed(namespace.namespace(), [5; 16]);
    for (seq, (identity, presence)) in (1..).zip(presences) {
        let (handle, reveal) = (claim.handle(), claim.reveal(seq).unwrap());
        let blob = keys.seal_presence(&identity, &presence, namespace.namespace(), handle, seq, [7; 24]);
        let register = Register {
            nonce: Nonce([2; 8]),
            namespace: *namespace.namespace(),
            handle,
            cookie: retry.cookie,
            reveal,
            seq,
            known: 0,
            blob: &blob,
        };
        FromNode::Register(register).write(0, &mut bytes);
        namespace.finish_register(address, &mut bytes);
        say(world, bytes.clone());
        world.run(seconds(1));
    }
}

/// Who is at these addresses, it says.
fn presence(id: u8, boot: u64, addrs: &[SocketAddr]) -> (Identity, Presence) {
    let identity = Identity::from_secret([id; 32]);
    let candidates = addrs.iter().map(|addr| Candidate { kind: CandidateKind::Server, addr: *addr });
    let (id, flags, candidates) = (identity.id(), Flags::default(), candidates.collect());
    (identity, Presence { id, boot: BootId(boot), flags, candidates })
}

#[test]
fn one_member_is_one_whatever_names_it_makes_up() {
    let (mut world, [one, _]) = apart(26, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    let victim = SocketAddr::from(([192, 0, 2, 1], 443));
    lie(&mut world, one, (100..160).map(|id| presence(id, 1, &[victim])));
    let app = world.connect(one);
    world.say(one, app, r#"{"op":"peers","all":true,"id":1}"#);
    assert_eq!(world.heard(one, app, "peer").len(), 1);
}

#[test]
fn a_member_that_lies_about_where_it_is_draws_few_packets_to_its_victims() {
    let (mut world, [one, _]) = apart(24, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    let victims: Vec<SocketAddr> = (0..8).map(|n| SocketAddr::from(([192, 0, 2, 1 + n], 443))).collect();
    world.capture = Some(Vec::new());
    // It says so again and again.
    lie(&mut world, one, (1..=40).map(|boot| presence(66, boot, &victims)));
    let to = |victim: &SocketAddr| {
        let sent = world.capture.as_ref().unwrap().iter();
        sent.filter(
            |(_, to, _)| matches!(to, atonce::core::Destination::One(route) if route.remote == *victim),
        )
        .count()
    };
    let counts: Vec<_> = victims.iter().map(to).collect();
    // In forty seconds; each is a packet of 164 bytes.
    assert!(counts.iter().all(|count| *count <= 160), "{counts:?}");
    assert!(counts.iter().any(|count| *count > 0));
}

#[test]
fn behind_a_router_that_gives_each_packet_another_port_a_node_does_not_talk_to_the_server_without_a_pause() {
    let (mut world, [one, _]) = apart(25, [Kind::RANDOM, Kind::HOME]);
    world.internet.routers.get_mut(&1).unwrap().nat.life = seconds(0);
    world.start(one);
    world.run(seconds(60));
    let received = world.internet.servers[0].received.len();
    assert!((5..60).contains(&received), "{received}");
}

/// What a node says of its peers, without what changes with time.
fn peers(world: &mut World, host: HostId) -> Vec<Value> {
    let app = world.connect(host);
    world.say(host, app, r#"{"op":"peers","id":1}"#);
    let told = world.heard(host, app, "peer").into_iter();
    told.map(|peer| json!([peer["name"], peer["state"], peer["path"], peer["topics"]])).collect()
}

/// What `status` has to say about servers.
fn complaints(world: &mut World, host: HostId) -> Vec<String> {
    let status = world.status(host);
    let checks = status["health"].as_array().unwrap().iter();
    checks
        .filter(|check| check["check"] == "rendezvous")
        .map(|check| check["why"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_server_that_is_gone_is_noticed_within_one_and_a_half_keeps_and_by_no_peer() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        // At any time between two keeps.
        for phase in 0..12 {
            let (mut world, hosts, watcher) = met(30 + phase, [Kind::HOME, Kind::HOME]);
            // Routers that want a keep every 25 s.
            for router in [1, 2] {
                world.internet.routers.get_mut(&router).unwrap().nat.life = seconds(35);
            }
            world.run(seconds(200 + phase * 3));
            let before = peers(&mut world, hosts[0]);
            assert_eq!(complaints(&mut world, hosts[0]), [""; 0]);
            log.take();
            world.stop_server(0);
            let stopped = world.now;
            let noticed = |world: &mut World| !complaints(world, hosts[0]).is_empty();
            while !noticed(&mut world) {
                world.run(milliseconds(500));
                assert!(world.now.since(stopped) < milliseconds(37_500), "{phase}");
            }
            assert_eq!(complaints(&mut world, hosts[0]), ["203.0.113.1:28283 does not answer"]);
            world.run(seconds(300));
            assert_eq!(peers(&mut world, hosts[0]), before);
            assert!(world.heard(hosts[0], watcher, "exit").is_empty());
            let told = " WARN atonce::core::rendezvous: this rendezvous server does not answer \
                        server=203.0.113.1:28283 reason=\"no-answer\"";
            assert_eq!(log.take(), [told; 2]);

            world.start_server(0);
            assert!(world.run_for(seconds(100), |world| world.members(0) == 2));
            world.run(seconds(5));
            assert_eq!(complaints(&mut world, hosts[0]), [""; 0]);
            let told = " INFO atonce::core::rendezvous: this rendezvous server answers again \
                        server=203.0.113.1:28283 reason=\"registered\"";
            assert_eq!(log.take(), [told; 2]);
        }
    });
}

#[test]
fn a_member_and_its_server_exchange_no_more_than_a_keep_and_its_answer_each_50_s() {
    let (mut world, _, _) = met(50, [Kind::HOME, Kind::HOME]);
    world.run(seconds(600));
    let count =
        |world: &World| (world.internet.servers[0].received.len(), world.internet.servers[0].sent.len());
    let before = count(&world);
    world.run(seconds(3600));
    let after = count(&world);
    // Two members, each with 72 keeps an hour.
    for count in [after.0 - before.0, after.1 - before.1] {
        assert!((135..155).contains(&count), "{count}");
    }
}

#[test]
fn the_networks_word_that_a_server_is_gone_draws_one_question_and_no_more() {
    let (mut world, [one, _], _) = met(51, [Kind::HOME, Kind::HOME]);
    let server = world.internet.servers[0].addr;
    // A moment after the last keep was answered.
    let keeps = |world: &World| {
        let received = world.internet.servers[0].received.iter();
        received.filter(|(from, _)| from.ip() == World::wan(1)).count()
    };
    let next = |world: &mut World| {
        let before = keeps(world);
        while keeps(world) == before {
            world.run(milliseconds(10));
        }
        world.run(seconds(1));
    };
    next(&mut world);
    let refuse = |world: &mut World| {
        let (now, before) = (world.now, keeps(world));
        for _ in 0..100 {
            world.with(one, |node| node.handle_unreachable(server, now));
            world.run(milliseconds(10));
        }
        keeps(world) - before
    };
    assert_eq!(refuse(&mut world), 1);
    // The answer has come, and the word is not believed again so soon.
    assert_eq!(refuse(&mut world), 0);
    assert_eq!(world.status(one)["rendezvous"][0]["state"], "registered");
    // If it is true, it saves the wait for the next keep.
    world.run(seconds(5));
    next(&mut world);
    world.stop_server(0);
    refuse(&mut world);
    world.run(seconds(9));
    assert_eq!(complaints(&mut world, one), ["203.0.113.1:28283 does not answer"]);
}

#[test]
fn a_router_with_another_address_is_noticed_by_the_first_introduction_and_nobody_is_said_to_leave() {
    for phase in 0..8 {
        let (mut world, hosts, watcher) = met(60 + phase, [Kind::HOME, Kind::HOME]);
        // At any time between two keeps, and with either side as the one who speaks.
        world.run(seconds(60 + phase * 3));
        let (from, to) = if phase % 2 == 0 { (0, 1) } else { (1, 0) };
        talk(&mut world, [hosts[from], hosts[to]], "before", 3);
        world.router(1, Kind::HOME, "198.51.100.77", None);
        let longest = talk(&mut world, [hosts[from], hosts[to]], "after", 20);
        assert!(longest < milliseconds(2500), "{phase}: {longest:?}");
        assert!(world.heard(hosts[0], watcher, "exit").is_empty(), "{phase}");
        assert_eq!(world.status(hosts[0])["rendezvous"][0]["reflexive"], "198.51.100.77:28282");
    }
}

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines since it was asked last.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(ToOwned::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From one keep to the next of a host whose router forgets after `life`, once that was measured.
fn pauses(seed: u64, life: Duration, loss: u64) -> Vec<Duration> {
    let (mut world, [one, _]) = apart(seed, [Kind::HOME, Kind::HOME]);
    world.internet.routers.get_mut(&1).unwrap().nat.life = life;
    world.weather.loss = loss;
    world.start(one);
    world.run(seconds(1200));
    let keeps = |world: &World| {
        let received = &world.internet.servers[0].received;
        received.iter().filter(|(_, bytes)| Message::of(bytes) == Some(Message::Keep)).count()
    };
    let mut times = Vec::new();
    while times.len() < 6 {
        let before = keeps(&world);
        assert!(world.run_for(seconds(100), |world| keeps(world) > before));
        times.push(world.now);
    }
    assert_eq!(world.hosts[one].ports.len(), 0, "what was opened to measure is closed");
    times.windows(2).map(|pair| pair[1].since(pair[0])).collect()
}

#[test]
fn a_node_keeps_its_way_open_as_often_as_its_router_needs_it() {
    for (life, expected) in [(12, 5), (22, 15), (35, 25), (50, 40), (130, 50), (1000, 50)] {
        for pause in pauses(life, seconds(life), 0) {
            // A tenth off, and counted from the answer to the one before.
            let (least, most) = (seconds(expected) * 9 / 10, seconds(expected) * 11 / 10 + milliseconds(200));
            assert!(least <= pause && pause <= most, "{life} s: {pause:?}");
        }
    }
}

#[test]
fn a_lost_echo_is_no_short_life() {
    for seed in 0..5 {
        let longest = pauses(seed, seconds(1000), 50).into_iter().max().unwrap();
        assert!(longest >= seconds(40), "{seed}: {longest:?}");
    }
}

#[test]
fn an_echo_that_comes_early_proves_no_long_silence() {
    let (mut world, [one, _]) = apart(60, [Kind::HOME, Kind::HOME]);
    // What is kept for ten seconds only is proved by no echo that waited longer.
    world.internet.routers.get_mut(&1).unwrap().nat.life = seconds(12);
    world.start(one);
    let server = world.internet.servers[0].addr;
    let mut answered = 0;
    for _ in 0..12_000 {
        world.run(milliseconds(50));
        let received = world.internet.servers[0].received.split_off(0);
        for (from, bytes) in &received {
            let Ok(FromNode::Probe(probe)) = FromNode::parse(bytes) else { continue };
            let mut echo = Vec::new();
            FromServer::Echo(Echo { nonce: probe.nonce, seen: *from }).write(&mut echo);
            let (to, hops) = (*from, 64);
            world.carry(Stop::In(1), Parcel { from: server, to, hops, bytes: echo }, milliseconds(1));
            answered += 1;
        }
    }
    assert!(answered >= 3, "{answered}");
    let before = world.internet.servers[0].received.len();
    world.run(seconds(60));
    let keeps = world.internet.servers[0].received[before..].iter();
    let keeps = keeps.filter(|(_, bytes)| Message::of(bytes) == Some(Message::Keep)).count();
    assert!(keeps >= 10, "a keep each 5 s: {keeps}");
}
