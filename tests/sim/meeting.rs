//! Meeting across address translators, by a rendezvous server.

use std::time::Duration;

use atonce::id::ClientId;
use serde_json::Value;

use crate::world::nat::{KINDS, Kind, can_meet};
use crate::world::{HostId, World, milliseconds, seconds};

const LINK: Duration = milliseconds(25);

/// Two hosts of one private network, each behind a router of its own, and one server. Nobody is started.
pub fn apart(seed: u64, kinds: [Kind; 2]) -> (World, [HostId; 2]) {
    apart_with(seed, kinds, 1)
}

/// The same with so many servers.
pub fn apart_with(seed: u64, kinds: [Kind; 2], servers: usize) -> (World, [HostId; 2]) {
    let mut world = World::new(seed);
    world.internet.link = LINK;
    let servers: Vec<_> = (0..servers).map(|_| world.add_server()).collect();
    let hosts = [1, 2].map(|n: u8| {
        let kind = kinds[usize::from(n) - 1];
        world.router(n.into(), kind, &World::wan(n).to_string(), None);
        let name = format!("host-{n}");
        let host = if kind.firewall {
            world.add_at(&name, n, format!("198.18.{n}.1").parse().unwrap())
        } else {
            world.add(&name, n)
        };
        world.hosts[host].secret = Some([7; 32]);
        world.hosts[host].rendezvous = servers.clone();
        host
    });
    (world, hosts)
}

#[test]
fn two_homes_meet_and_talk() {
    let (mut world, [one, two]) = apart(1, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    world.listener(one, "t");
    world.start(two);
    let app = world.connect(two);
    assert!(world.run_for(seconds(2), |world| world.online(two) == 1), "{:#}", world.status(two));
    world.send(two, app, 1, "host-1", "t", "hi");
    assert!(world.run_for(seconds(2), |world| world.outcome(two, app, 1).is_some()));
    assert_eq!(world.outcome(two, app, 1), Some("delivered"));
}

#[test]
fn the_first_acknowledged_message_takes_two_round_trips_to_the_server_and_two_and_a_half_to_the_peer() {
    // Two links from a home's router to the server or to the other one's.
    let round_trip = LINK * 4;
    for seed in 0..40 {
        let (mut world, [one, two]) = apart(seed, [Kind::HOME, Kind::HOME]);
        world.start(one);
        world.run(seconds(5));
        world.listener(one, "t");
        let begun = world.now;
        world.start(two);
        let app = world.connect(two);
        assert!(world.run_for(seconds(2), |world| world.online(two) == 1));
        world.send(two, app, 1, "host-1", "t", "hi");
        assert!(world.run_for(seconds(2), |world| world.outcome(two, app, 1).is_some()));
        assert!(world.now.since(begun) <= round_trip * 2 + round_trip * 5 / 2 + milliseconds(5));
    }
}

#[test]
fn every_pair_that_can_meet_is_direct() {
    for servers in [1, 2] {
        let mut wrong = Vec::new();
        for (row, (name, kind)) in KINDS.into_iter().enumerate() {
            for (column, (other_name, other)) in KINDS.into_iter().enumerate() {
                for first in [0, 1] {
                    let seed = (row * 16 + column * 2 + first) as u64;
                    let (mut world, hosts) = apart_with(seed, [kind, other], servers);
                    world.start(hosts[first]);
                    world.run(seconds(5));
                    world.start(hosts[1 - first]);
                    let met = world
                        .run_for(seconds(40), |world| world.online(hosts[0]) + world.online(hosts[1]) == 2);
                    if met != can_meet(kind, other, servers) {
                        wrong.push((name, other_name, first, met));
                    }
                    assert!(hosts.iter().all(|host| world.hosts[*host].ports.len() <= 257));
                }
            }
        }
        assert!(wrong.is_empty(), "{servers}: {wrong:?}");
    }
}

/// What becomes of a router with random ports and a usual one, seen by two servers: whether they have met, and after
/// what time, and how many ports were open at once.
fn birthday(seed: u64, change: impl Fn(&mut World, [HostId; 2])) -> (Option<Duration>, usize) {
    let (mut world, hosts) = apart_with(seed, [Kind::HOME, Kind::RANDOM], 2);
    change(&mut world, hosts);
    hosts.into_iter().for_each(|host| world.start(host));
    let (begun, mut open) = (world.now, 0);
    let met = world.run_for(seconds(40), |world| {
        open = open.max(world.hosts[hosts[1]].ports.len());
        world.online(hosts[0]) + world.online(hosts[1]) == 2
    });
    let took = world.now.since(begun);
    // Until what is not needed is closed.
    world.run(seconds(20));
    let left: Vec<_> = hosts.iter().map(|host| world.hosts[*host].ports.len()).collect();
    assert_eq!(left, [0, usize::from(met)]);
    if met {
        talk(&mut world, hosts, "t", 100);
        talk(&mut world, [hosts[1], hosts[0]], "u", 100);
    }
    (met.then_some(took), open)
}

#[test]
fn a_router_with_random_ports_is_met_by_many_ports_and_only_the_one_that_was_met_stays_open() {
    let mut took: Vec<_> = (0..20).map(|seed| birthday(seed, |_, _| {}).0.unwrap()).collect();
    took.sort();
    println!("median {:?}, longest {:?}", took[10], took[19]);
    assert!(took[10] < seconds(10));
}

#[test]
fn an_outage_does_not_use_up_the_birthdays_that_are_allowed() {
    for seed in 0..5 {
        let (mut world, hosts) = apart_with(seed, [Kind::HOME, Kind::RANDOM], 2);
        hosts.into_iter().for_each(|host| world.start(host));
        let both = |world: &mut World| hosts.iter().all(|host| world.online(*host) == 1);
        assert!(world.run_for(seconds(40), both), "{seed}");
        for _ in 0..2 {
            world.internet.routers.get_mut(&2).unwrap().nat.kind.blocked = true;
            // They look for each other meanwhile, again and again.
            world.run(seconds(60));
            world.internet.routers.get_mut(&2).unwrap().nat.kind.blocked = false;
            world.reboot_router(2);
            // A server is hailed once a minute by then.
            assert!(world.run_for(seconds(150), both), "{seed} {:#}", world.status(hosts[0]));
        }
    }
}

#[test]
fn no_birthday_is_had_on_a_battery_on_a_metered_network_or_where_the_user_says_no() {
    for who in [0, 1] {
        let unwilling: [fn(&mut World, HostId); 3] = [
            |world, host| world.hosts[host].on_battery = true,
            |world, host| world.hosts[host].metered = true,
            |world, host| world.hosts[host].birthday_punch = false,
        ];
        for refuse in unwilling {
            let (met, open) = birthday(1, |world, hosts| refuse(world, hosts[who]));
            assert!(met.is_none());
            assert!(open <= 1, "a fresh port is no birthday: {open}");
        }
        let (mut world, hosts) = apart_with(2, [Kind::HOME, Kind::RANDOM], 2);
        world.hosts[hosts[who]].on_battery = true;
        hosts.into_iter().for_each(|host| world.start(host));
        world.run(seconds(20));
        for host in hosts {
            let why = peers(&mut world, host)[0]["why"].as_str().unwrap().to_owned();
            assert!(why.contains("battery"), "{why}");
        }
    }
}

#[test]
fn a_port_that_was_spoilt_is_left_for_a_fresh_one() {
    for seed in 0..10 {
        let (mut world, [one, two]) = apart(seed, [Kind::POISONABLE, Kind::HOME]);
        let now = world.now;
        let [theirs, ours] =
            [2, 1].map(|n| std::net::SocketAddr::new(World::wan(n), world.hosts[one].addr.port()));
        let router = &mut world.internet.routers.get_mut(&1).unwrap().nat;
        assert_eq!(router.incoming(theirs, ours, now), None);
        world.start(one);
        world.start(two);
        assert!(world.run_for(seconds(5), |world| world.online(two) == 1), "{seed} {:#}", world.status(two));
        world.run(seconds(50));
        assert_eq!(world.hosts[one].ports.len() + world.hosts[two].ports.len(), 1);
        talk(&mut world, [one, two], "t", 600);
        talk(&mut world, [two, one], "u", 600);
    }
}

/// A third member, whom everybody reaches.
fn add_third(world: &mut World, seed: u8) -> HostId {
    world.router(3, Kind::OPEN, &World::wan(3).to_string(), None);
    let third = world.add_at("third", 3, format!("198.18.3.{seed}").parse().unwrap());
    world.hosts[third].secret = world.hosts[0].secret;
    world.hosts[third].rendezvous = world.hosts[0].rendezvous.clone();
    third
}

/// Two homes and a third member, and all have met.
fn met_three(seed: u64) -> (World, [HostId; 2]) {
    let (mut world, hosts) = apart(seed, [Kind::HOME, Kind::HOME]);
    let third = add_third(&mut world, 9);
    for host in [third, hosts[0], hosts[1]] {
        world.start(host);
    }
    assert!(world.run_for(seconds(5), |world| hosts.iter().all(|host| world.online(*host) == 2)));
    (world, hosts)
}

pub fn peers(world: &mut World, host: HostId) -> Vec<Value> {
    let app = world.connect(host);
    world.say(host, app, r#"{"op":"peers","id":1}"#);
    world.heard(host, app, "peer").into_iter().cloned().collect()
}

#[test]
fn a_pair_that_cannot_meet_is_relayed_by_a_third_member() {
    for (_, one) in KINDS {
        for (_, two) in KINDS.into_iter().filter(|(_, two)| !can_meet(one, *two, 2)) {
            let (mut world, [a, b]) = apart(7, [one, two]);
            let third = add_third(&mut world, 9);
            for host in [third, a, b] {
                world.start(host);
                world.run(seconds(2));
            }
            let begun = world.now;
            let met = world.run_for(seconds(20), |world| world.online(a) == 2 && world.online(b) == 2);
            assert!(met, "{one:?} {two:?}");
            assert!(world.now.since(begun) < seconds(3), "{one:?} {two:?} {:?}", world.now.since(begun));
            world.listener(b, "t");
            world.run(seconds(1));
            let app = world.connect(a);
            world.send(a, app, 1, "host-2", "t", "hi");
            world.run(seconds(1));
            assert_eq!(world.outcome(a, app, 1), Some("delivered"));
            let relayed = peers(&mut world, a).into_iter().find(|peer| peer["name"] == "host-2").unwrap();
            assert_eq!(
                (&relayed["path"]["kind"], &relayed["path"]["via"]),
                (&"relay".into(), &world.id(third).to_string().into())
            );
        }
    }
}

#[test]
fn of_two_ways_of_one_kind_the_faster_one_is_taken_and_nothing_is_lost_or_doubled() {
    let (mut world, [a, b]) = apart(9, [Kind::RANDOM, Kind::RANDOM]);
    let slow = add_third(&mut world, 9);
    world.internet.far.insert(world.hosts[slow].addr.ip(), milliseconds(40));
    for host in [slow, a, b] {
        world.start(host);
    }
    assert!(world.run_for(seconds(20), |world| world.online(a) == 2 && world.online(b) == 2));
    // How long the slow way takes is known, so that no message is taken for lost on it.
    talk(&mut world, [a, b], "s", 20);
    world.router(4, Kind::OPEN, &World::wan(4).to_string(), None);
    let fast = world.add_at("fast", 4, "198.18.4.1".parse().unwrap());
    world.hosts[fast].secret = world.hosts[a].secret;
    world.hosts[fast].rendezvous = world.hosts[a].rendezvous.clone();
    world.start(fast);
    assert!(world.run_for(seconds(20), |world| world.online(a) == 3 && world.online(b) == 3));
    let via = |world: &mut World| {
        let peer = peers(world, a).into_iter().find(|peer| peer["name"] == "host-2").unwrap();
        peer["path"]["via"].clone()
    };
    // Until the other relay is prepared too, and before the session is renewed by whatever way is there.
    world.run(seconds(45));
    assert_eq!(via(&mut world), world.id(slow).to_string());
    talk(&mut world, [a, b], "t", 60);
    assert_eq!(via(&mut world), world.id(fast).to_string());
    // Beyond the life of the keys that were there.
    talk(&mut world, [a, b], "u", 600);
    assert_eq!(via(&mut world), world.id(fast).to_string());
}

#[test]
fn a_pair_that_cannot_meet_is_told_as_connecting_with_the_reason_and_then_as_offline() {
    let (mut world, [a, b]) = apart(8, [Kind::RANDOM, Kind::RANDOM]);
    world.start(a);
    world.start(b);
    world.run(seconds(5));
    let told = |world: &mut World| {
        let peers = peers(world, a);
        assert_eq!(peers.len(), 1);
        let text = |key: &str| peers[0][key].as_str().unwrap().to_owned();
        (text("state"), text("why"))
    };
    assert_eq!(told(&mut world), ("connecting".into(), "a rendezvous server introduces us".into()));
    assert_eq!(world.status(a)["peers"]["connecting"], 1);
    world.run(seconds(12));
    let (state, why) = told(&mut world);
    assert_eq!(state, "connecting");
    assert!(why.contains("no peer of both relays"), "{why}");
    world.run(seconds(30));
    assert_eq!(told(&mut world).0, "offline");
}

#[test]
fn who_wants_no_relay_is_told_as_the_reason_on_both_sides() {
    let (mut world, [a, b]) = apart(8, [Kind::RANDOM, Kind::RANDOM]);
    world.hosts[a].relay = false;
    world.start(a);
    world.start(b);
    world.run(seconds(17));
    for (host, expected) in
        [(a, "and this node uses no relay (no_relay)"), (b, "and it uses no relay (no_relay)")]
    {
        let why = peers(&mut world, host)[0]["why"].as_str().unwrap().to_owned();
        assert!(why.ends_with(expected), "{why}");
    }
}

/// Both hosts run and have met; the first one watches the second.
pub fn met(seed: u64, kinds: [Kind; 2]) -> (World, [HostId; 2], ClientId) {
    let (mut world, hosts) = apart(seed, kinds);
    hosts.into_iter().for_each(|host| world.start(host));
    assert!(world.run_for(seconds(5), |world| hosts.iter().all(|host| world.online(*host) == 1)));
    let watcher = world.watcher(hosts[0]);
    world.run(seconds(1));
    (world, hosts, watcher)
}

/// Sends messages from one to the other, one each 100 ms; how long the longest took, and how many.
pub fn talk(world: &mut World, [from, to]: [HostId; 2], topic: &str, count: u64) -> Duration {
    let listener = world.listener(to, topic);
    world.run(seconds(1));
    let app = world.connect(from);
    let name = world.hosts[to].name.clone();
    let mut longest = Duration::ZERO;
    for id in 1..=count {
        let begun = world.now;
        world.send(from, app, id, &name, topic, &id.to_string());
        assert!(world.run_for(seconds(6), |world| world.outcome(from, app, id).is_some()));
        assert_eq!(world.outcome(from, app, id), Some("delivered"), "{id}");
        longest = longest.max(world.now.since(begun));
        world.run(milliseconds(100));
    }
    let heard: Vec<_> =
        world.heard(to, listener, "message").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(heard, (1..=count).map(|id| id.to_string()).collect::<Vec<_>>());
    longest
}

#[test]
fn a_router_that_reboots_costs_no_exit() {
    let (mut world, [a, b], watcher) = met(11, [Kind::HOME, Kind::HOME]);
    for (round, host) in [a, b].into_iter().enumerate() {
        // Idle, and in use.
        world.reboot_router(host + 1);
        world.run(seconds(60));
        assert_eq!((world.online(a), world.online(b)), (1, 1));
        world.reboot_router(host + 1);
        println!("{:?}", talk(&mut world, [a, b], &format!("t{round}"), 20));
    }
    assert!(world.heard(a, watcher, "exit").is_empty());
}

#[test]
fn a_mapping_that_is_forgotten_soon_is_kept_open_or_opened_again() {
    let (mut world, [a, b], watcher) = met(12, [Kind::HOME, Kind::HOME]);
    for router in [1, 2] {
        world.internet.routers.get_mut(&router).unwrap().nat.life = seconds(30);
    }
    for round in 0..5 {
        world.run(seconds(300));
        println!("{:?}", talk(&mut world, [a, b], &format!("t{round}"), 2));
    }
    assert!(world.heard(a, watcher, "exit").is_empty());
}

#[test]
fn when_a_direct_path_dies_under_traffic_a_relay_takes_over_and_nothing_is_lost() {
    for seed in 0..20 {
        let (mut world, hosts) = met_three(seed);
        let [a, b] = hosts;
        let listener = world.listener(b, "t");
        world.run(seconds(1));
        let app = world.connect(a);
        let mut sent = 0_u64;
        let mut last = world.now;
        let mut longest = Duration::ZERO;
        for step in 0..400 {
            if step == 100 {
                let (one, two) = (World::wan(1), World::wan(2));
                world.internet.blocked.extend([(one, two), (two, one)]);
            }
            sent += 1;
            world.send(a, app, sent, "host-2", "t", &sent.to_string());
            world.run(milliseconds(10));
            let arrived = world.heard(b, listener, "message").len();
            if arrived as u64 >= sent.saturating_sub(12) {
                last = world.now;
            }
            longest = longest.max(world.now.since(last));
        }
        world.run(seconds(6));
        let heard: Vec<_> =
            world.heard(b, listener, "message").iter().map(|line| line["text"].clone()).collect();
        assert_eq!(heard, (1..=sent).map(|id| id.to_string()).collect::<Vec<_>>(), "seed {seed}");
        assert!(longest < milliseconds(1500), "seed {seed}: {longest:?}");
    }
}

#[test]
fn what_is_sent_while_a_path_is_in_doubt_goes_by_a_second_one_before_that_has_answered() {
    for seed in 0..20 {
        let (mut world, [a, b]) = met_three(seed);
        let listener = world.listener(b, "t");
        world.run(seconds(1));
        let app = world.connect(a);
        world.send(a, app, 1, "host-2", "t", "one");
        // Until a relay is prepared.
        world.run(seconds(45));
        world.send(a, app, 2, "host-2", "t", "two");
        world.run(seconds(1));
        let (one, two) = (World::wan(1), World::wan(2));
        world.internet.blocked.extend([(one, two), (two, one)]);
        let begun = world.now;
        world.send(a, app, 3, "host-2", "t", "three");
        assert!(world.run_for(seconds(6), |world| world.heard(b, listener, "message").len() == 3));
        // In doubt with its second retry, after 450 ms; then 100 ms through the relay. To ask there first took 200 more.
        let took = world.now.since(begun);
        assert!(took <= milliseconds(600), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_server_that_restarted_introduces_newcomers_to_all_after_one_keep() {
    let (mut world, [one, two]) = apart(3, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(5));
    assert_eq!(world.members(0), 1);
    world.stop_server(0);
    world.start_server(0);
    assert_eq!(world.members(0), 0);
    world.start(two);
    // A keep is due every 25 s, give or take a tenth; then it registers again.
    assert!(world.run_for(seconds(30), |world| world.online(two) == 1), "{:#}", world.status(two));
}

#[test]
fn a_router_that_an_early_packet_spoils_is_not_spoilt_however_soon_one_comes_after_the_other() {
    for seed in 0..20 {
        let (mut world, [one, two]) = apart(seed, [Kind::POISONABLE, Kind::POISONABLE]);
        world.start(one);
        // The server tells of the second as much later as it told of the first a moment ago.
        world.run(milliseconds(110 + 20 * seed));
        world.start(two);
        assert!(world.run_for(seconds(5), |world| world.online(two) == 1), "{seed} {:#}", world.status(two));
    }
}

#[test]
fn where_udp_is_blocked_the_status_says_that_no_server_answers() {
    let (mut world, [one, _]) = apart(4, [Kind::BLOCKED, Kind::HOME]);
    world.start(one);
    world.run(seconds(20));
    let status = world.status(one);
    assert_eq!(status["rendezvous"][0]["state"], "connecting");
    let health = status["health"].as_array().unwrap();
    let check = health.iter().find(|check| check["check"] == "rendezvous").unwrap();
    assert_eq!(check["why"], "203.0.113.1:28283 does not answer");
    assert!(check["fix"].as_str().unwrap().contains("UDP"), "{check}");
}

#[test]
fn a_way_that_is_blocked_in_one_direction_gives_way_to_a_relay_once() {
    for seed in 0..4 {
        let (mut world, hosts) = met_three(seed);
        let [a, b] = hosts;
        world.run(seconds(5));
        let watchers = hosts.map(|host| world.watcher(host));
        world.internet.blocked.insert((World::wan(1), World::wan(2)));
        let apps = [(a, b, "there"), (b, a, "back")].map(|(from, to, topic)| {
            let listener = world.listener(to, topic);
            (from, world.connect(from), to, listener, topic)
        });
        world.run(seconds(3));
        for id in 1..=600_u64 {
            for (from, app, to, _, topic) in apps {
                let name = world.hosts[to].name.clone();
                world.send(from, app, id, &name, topic, &id.to_string());
            }
            world.run(milliseconds(200));
        }
        world.run(seconds(6));
        for (_, _, to, listener, _) in apps {
            assert_eq!(world.heard(to, listener, "message").len(), 600, "seed {seed}");
        }
        for (host, watcher) in hosts.into_iter().zip(watchers) {
            let kinds: Vec<_> =
                world.heard(host, watcher, "path").iter().map(|line| line["path"].clone()).collect();
            assert_eq!(kinds, ["relay"], "seed {seed} host {host}");
            assert!(world.heard(host, watcher, "exit").is_empty(), "seed {seed} host {host}");
        }
    }
}
