//! Answers of rendezvous servers that somebody on the way forges, and servers that lie about what day it is.

use std::collections::BTreeSet;
use std::time::Duration;

use atonce::id::ServerKey;
use atonce::wire::rendezvous::{
    Cookie, Day, FromNode, FromServer, Kind as Message, Namespace, Nonce, Nope, Refusal, Retry, ServerTime,
};

use crate::meeting::{apart, apart_with, met, talk};
use crate::world::internet::{NOON, Parcel, Stop};
use crate::world::nat::Kind;
use crate::world::{HostId, World, milliseconds, seconds};

const DAY: Duration = seconds(86_400);

/// What a forger makes of a question to a server: its answers, in this order, before the true one.
type Forge<'a> = &'a dyn Fn(&World, &FromNode<'_>) -> Vec<FromServer<'static>>;

/// Runs for so long, and whoever hears what the host behind router 1 asks server 0 answers before the server does.
fn run_with_forger(world: &mut World, duration: Duration, forge: Forge<'_>) {
    let (end, mut heard) = (world.now + duration, world.internet.servers[0].received.len());
    while world.now < end {
        world.run(milliseconds(1));
        let server = world.internet.servers[0].addr;
        for at in heard..world.internet.servers[0].received.len() {
            let (from, bytes) = world.internet.servers[0].received[at].clone();
            let Ok(question) = FromNode::parse(&bytes) else { continue };
            for answer in forge(world, &question) {
                let mut bytes = Vec::new();
                answer.write(&mut bytes);
                let parcel = Parcel { from: server, to: from, hops: 64, bytes };
                world.carry(Stop::In(1), parcel, Duration::from_micros(500));
            }
        }
        heard = world.internet.servers[0].received.len();
    }
}

fn retry(world: &World, nonce: Nonce, server: ServerKey, seen: &str, days: u32) -> FromServer<'static> {
    let since_1970 = (NOON + world.now.since_origin()).as_secs();
    let day = Day((since_1970 / 86_400) as u32 + days);
    let time = ServerTime { day, second: (since_1970 % 86_400) as u32 };
    FromServer::Retry(Retry { nonce, cookie: Cookie([7; 16]), seen: seen.parse().unwrap(), server, time })
}

fn nonce(question: &FromNode<'_>) -> Nonce {
    match question {
        FromNode::Hail(nonce) | FromNode::Where(nonce) => *nonce,
        FromNode::Register(it) => it.nonce,
        FromNode::Keep(it) => it.nonce,
        FromNode::List(it) => it.nonce,
        FromNode::Intro(it) => it.nonce,
        FromNode::Bye(it) => it.nonce,
        FromNode::Probe(it) => it.nonce,
    }
}

fn state(world: &mut World, host: HostId) -> String {
    world.status(host)["rendezvous"][0]["state"].as_str().unwrap().to_owned()
}

/// How many messages of a kind the host behind router 1 has sent to server 0.
fn asked(world: &World, kind: Message) -> usize {
    let received = world.internet.servers[0].received.iter();
    received.filter(|(_, bytes)| Message::of(bytes) == Some(kind)).count()
}

#[test]
fn answers_with_a_wrong_key_that_always_come_first_neither_keep_a_node_from_its_server_nor_end_its_leases() {
    let (mut world, [one, _]) = apart(200, [Kind::HOME, Kind::HOME]);
    world.start(one);
    let forge = |world: &World, question: &FromNode<'_>| {
        vec![retry(world, nonce(question), ServerKey([9; 32]), "203.0.113.1:28282", 0)]
    };
    run_with_forger(&mut world, seconds(2), &forge);
    assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
    let keeps = asked(&world, Message::Keep);
    run_with_forger(&mut world, seconds(200), &forge);
    assert!(asked(&world, Message::Keep) >= keeps + 4);
    assert_eq!(world.members(0), 1);
    // Nor when it comes to another network.
    world.renumber(one, [10, 1, 0, 77].into());
    run_with_forger(&mut world, seconds(2), &forge);
    assert_eq!(state(&mut world, one), "registered");
    // Once it is the only one that answers it is told.
    world.stop_server(0);
    run_with_forger(&mut world, seconds(120), &forge);
    assert_eq!(state(&mut world, one), "wrong-key");
}

#[test]
fn one_answer_with_a_wrong_key_while_the_server_restarts_is_no_other_server() {
    let (mut world, [one, _]) = apart(201, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(3));
    world.stop_server(0);
    world.renumber(one, [10, 1, 0, 77].into());
    let first = std::cell::Cell::new(true);
    run_with_forger(&mut world, seconds(6), &|world, question| {
        let is_first = matches!(question, FromNode::Hail(_)) && first.replace(false);
        let key = ServerKey([9; 32]);
        if is_first { vec![retry(world, nonce(question), key, "203.0.113.1:28282", 0)] } else { vec![] }
    });
    assert!(!first.get());
    world.start_server(0);
    assert!(world.run_for(seconds(20), |world| world.members(0) == 1));
}

#[test]
fn answers_with_the_right_key_and_a_false_address_day_and_cookie_hold_up_no_registration() {
    for seed in 0..5 {
        let (mut world, [one, _]) = apart(210 + seed, [Kind::HOME, Kind::HOME]);
        world.start(one);
        let key = world.hosts[one].rendezvous[0].key.unwrap();
        let forge = |world: &World, question: &FromNode<'_>| {
            vec![retry(world, nonce(question), key, "203.0.113.77:28282", 400)]
        };
        run_with_forger(&mut world, seconds(5), &forge);
        assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
        let before = asked(&world, Message::Register);
        run_with_forger(&mut world, seconds(100), &forge);
        assert_eq!(world.status(one)["rendezvous"][0]["reflexive"], "198.51.100.1:28282");
        assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
        // A few for each keep, and nobody makes it hail.
        let registers = asked(&world, Message::Register) - before;
        assert!(registers <= 16, "{registers} registers");
    }
}

#[test]
fn a_node_without_a_configured_key_that_hears_false_addresses_registers_at_a_bounded_pace_as_one_member() {
    for seed in 0..3 {
        let (mut world, [one, _]) = apart(240 + seed, [Kind::HOME, Kind::HOME]);
        let key = world.hosts[one].rendezvous[0].key.take().unwrap();
        world.start(one);
        // Ever another address and cookie, before each true answer.
        let number = std::cell::Cell::new(0_u8);
        let forge = |world: &World, question: &FromNode<'_>| {
            number.set(number.get().wrapping_add(1));
            let seen = format!("203.0.113.77:{}", 1000 + u16::from(number.get()));
            vec![retry(world, nonce(question), key, &seen, 0)]
        };
        run_with_forger(&mut world, seconds(5), &forge);
        assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
        // The network changes again and again meanwhile, which hails.
        for round in 0..10 {
            let before = asked(&world, Message::Register);
            world.renumber(one, [10, 1, 0, 70 + round].into());
            run_with_forger(&mut world, seconds(30), &forge);
            let registers = asked(&world, Message::Register) - before;
            assert!(registers <= 20, "{registers} registers in round {round}");
            assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
        }
    }
}

#[test]
fn a_node_that_knows_no_key_keeps_the_one_that_was_proved_and_not_the_first_that_it_heard() {
    let (mut world, [one, _]) = apart(220, [Kind::HOME, Kind::HOME]);
    let key = world.hosts[one].rendezvous[0].key.take();
    world.start(one);
    let heard = std::cell::Cell::new(0);
    run_with_forger(&mut world, seconds(20), &|world, question| {
        heard.set(heard.get() + 1);
        let wrong = ServerKey([9; 32]);
        if heard.get() < 4 {
            vec![retry(world, nonce(question), wrong, "203.0.113.1:28282", 0)]
        } else {
            vec![]
        }
    });
    assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
    let known = world.with(one, |node| node.known_servers()).unwrap();
    assert_eq!(known[0].key, key);
}

#[test]
fn a_refusal_that_the_server_did_not_write_holds_up_no_registration() {
    let (mut world, [one, _]) = apart(221, [Kind::HOME, Kind::HOME]);
    world.start(one);
    let forge = |_: &World, question: &FromNode<'_>| {
        let nope = Nope { nonce: nonce(question), refusal: Refusal::Server, again_seconds: u16::MAX };
        vec![FromServer::Nope(nope)]
    };
    run_with_forger(&mut world, seconds(2), &forge);
    assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
    run_with_forger(&mut world, seconds(300), &forge);
    assert_eq!((state(&mut world, one).as_str(), world.members(0)), ("registered", 1));
}

/// Sets the clock of a server.
fn set_clock(world: &mut World, server: usize, since_1970: Duration) {
    world.serve(server, |server, now| server.handle_wall_clock(since_1970, now));
}

/// In which namespaces a node registered or kept since the datagram `from` of a server, and by which handles.
fn names(world: &World, from: usize) -> (BTreeSet<Namespace>, BTreeSet<[u8; 16]>) {
    let mut names = (BTreeSet::new(), BTreeSet::new());
    for (_, bytes) in &world.internet.servers[0].received[from..] {
        let (namespace, handle) = match FromNode::parse(bytes) {
            Ok(FromNode::Register(it)) => (it.namespace, it.handle),
            Ok(FromNode::Keep(it)) => (it.namespace, it.handle),
            _ => continue,
        };
        names.0.insert(namespace);
        names.1.insert(handle.0);
    }
    names
}

/// What `status` says of the clocks of servers.
fn clocks(world: &mut World, host: HostId) -> Vec<String> {
    let status = world.status(host);
    let checks = status["health"].as_array().unwrap().iter();
    let told =
        checks.filter(|check| check["check"] == "rendezvous").map(|check| check["why"].as_str().unwrap());
    told.filter(|why| why.contains("clock")).map(ToOwned::to_owned).collect()
}

#[test]
fn a_server_whose_day_never_ends_sees_other_names_each_day_and_is_told() {
    let (mut world, [one, _]) = apart(230, [Kind::HOME, Kind::HOME]);
    world.start(one);
    for _ in 0..24 * 12 {
        world.run(seconds(300));
        set_clock(&mut world, 0, NOON);
    }
    let first = names(&world, 0);
    let from = world.internet.servers[0].received.len();
    assert_eq!(clocks(&mut world, one).len(), 1);
    for _ in 0..24 * 12 {
        world.run(seconds(300));
        set_clock(&mut world, 0, NOON);
    }
    // The second half ends with a day of which the first knew nothing.
    let last = names(&world, world.internet.servers[0].received.len() - 20);
    assert!(first.0.is_disjoint(&last.0) && first.1.is_disjoint(&last.1));
    assert!(names(&world, from).0.len() <= 3);
    assert_eq!(state(&mut world, one), "registered");
}

#[test]
fn a_server_that_slows_its_day_a_little_with_every_answer_sees_other_names_each_day() {
    let (mut world, [one, _]) = apart(231, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(10));
    let first = names(&world, 0);
    let begun = world.now;
    while world.now.since(begun) < DAY * 2 {
        world.run(seconds(120));
        let at = NOON + world.now.since(begun) / 20;
        set_clock(&mut world, 0, at);
    }
    let last = names(&world, world.internet.servers[0].received.len() - 10);
    assert!(first.0.is_disjoint(&last.0) && first.1.is_disjoint(&last.1));
}

#[test]
fn a_server_that_goes_back_to_an_earlier_day_gets_no_name_of_it_again() {
    let (mut world, [one, _]) = apart(232, [Kind::HOME, Kind::HOME]);
    world.start(one);
    world.run(seconds(10));
    let mut seen = names(&world, 0).0;
    world.run(DAY * 2);
    let from = world.internet.servers[0].received.len();
    for days in [1, 2, 3, 700] {
        let wall = NOON + world.now.since_origin() - DAY * days;
        set_clock(&mut world, 0, wall);
        world.run(seconds(300));
    }
    let now = names(&world, from).0;
    assert!(seen.is_disjoint(&now) && now.len() == 1, "{now:?}");
    assert_eq!(clocks(&mut world, one).len(), 1);
    // Right again, it is as before.
    let wall = NOON + world.now.since_origin();
    set_clock(&mut world, 0, wall);
    world.run(seconds(300));
    assert_eq!(clocks(&mut world, one), [""; 0]);
    seen.extend(names(&world, from).0);
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_server_that_runs_ahead_of_its_days_learns_one_name_more_a_day_and_no_calendar_of_them() {
    let (mut world, [one, two], _) = met(233, [Kind::HOME, Kind::HOME]);
    let from = world.internet.servers[0].received.len();
    let begun = world.now;
    let mut days = 0;
    while world.now.since(begun) < DAY / 4 {
        world.run(seconds(600));
        days += 1;
        let wall = NOON + world.now.since_origin() + DAY * days;
        set_clock(&mut world, 0, wall);
    }
    // The one that it was in, the one to which it was set, which may be seen in two steps.
    assert!(names(&world, from).0.len() <= 2, "{}", names(&world, from).0.len());
    talk(&mut world, [one, two], "t", 5);
}

#[test]
fn a_server_whose_clock_was_set_right_is_followed() {
    let (mut world, [one, _]) = apart(234, [Kind::HOME, Kind::HOME]);
    // It had no idea what day it was when it started.
    set_clock(&mut world, 0, seconds(5000));
    world.start(one);
    world.run(seconds(60));
    let from = world.internet.servers[0].received.len();
    let wall = NOON + world.now.since_origin();
    set_clock(&mut world, 0, wall);
    world.run(seconds(200));
    let late = names(&world, from).0;
    assert!(late.len() == 2 && clocks(&mut world, one).is_empty(), "{late:?}");
    // A newcomer is met.
    world.start(1);
    assert!(world.run_for(seconds(5), |world| world.online(one) == 1));
}

#[test]
fn servers_that_disagree_about_the_day_are_told() {
    let (mut world, [one, _]) = apart_with(235, [Kind::HOME, Kind::HOME], 3);
    world.start(one);
    set_clock(&mut world, 1, NOON + DAY * 3);
    world.run(seconds(60));
    let told = clocks(&mut world, one);
    let odd = |told: &Vec<String>| told.iter().filter(|why| why.starts_with("203.0.113.2:28283")).count();
    assert_eq!((told.len(), odd(&told)), (1, 1), "{told:?}");
}

#[test]
fn of_two_servers_that_disagree_about_the_day_one_warning_tells() {
    let (mut world, [one, _]) = apart_with(236, [Kind::HOME, Kind::HOME], 2);
    world.start(one);
    set_clock(&mut world, 1, NOON + DAY * 3);
    world.run(seconds(60));
    let told = clocks(&mut world, one);
    assert!(
        told.len() == 1 && told[0].contains("203.0.113.1:") && told[0].contains("203.0.113.2:"),
        "{told:?}"
    );
}
