//! Strangers with thousands of keys, held online: nobody's name is lost by them, and nobody is shut out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use atonce::core::Destination;
use atonce::crypto::session::Session;
use atonce::limits;
use atonce::wire::message::{Read, Record, Records};
use atonce::wire::packet::{Kind, size};

use crate::load::{Ghost, introduction, said};
use crate::world::{HostId, World, milliseconds, seconds};

/// Somebody's keys, each with a session that it keeps alive.
struct Crowd {
    at: HostId,
    sybils: BTreeMap<SocketAddr, Sybil>,
}

struct Sybil {
    ghost: Ghost,
    first: [u8; size::INITIATION],
    name: String,
    session: Option<Session>,
}

impl Crowd {
    /// They come to `at`, who must not be told to capture by anybody else.
    fn new(world: &mut World, at: HostId) -> Self {
        world.capture = Some(Vec::new());
        Self { at, sybils: BTreeMap::new() }
    }

    /// Number `n` comes from `addr`.
    fn come(&mut self, world: &mut World, n: u32, addr: SocketAddr, name: &str) {
        let mut ghost = Ghost::new(n);
        let first = ghost.first_message(world.id(self.at));
        self.sybils.insert(addr, Sybil { ghost, first, name: name.to_owned(), session: None });
        let at = world.now;
        world.inject(at, self.at, addr, &first);
    }

    /// Those who have no session try again.
    fn try_again(&self, world: &mut World) {
        for (addr, sybil) in self.sybils.iter().filter(|(_, sybil)| sybil.session.is_none()) {
            let at = world.now;
            world.inject(at, self.at, *addr, &sybil.first);
        }
    }

    /// Lets time pass, and answers all that asks for an answer.
    fn run(&mut self, world: &mut World, milliseconds_: u64) {
        for _ in 0..milliseconds_.div_ceil(10) {
            world.run(milliseconds(10));
            let ours = world.hosts[self.at].addr;
            for (from, to, bytes) in world.capture.replace(Vec::new()).unwrap() {
                let Destination::One(route) = to else { continue };
                if from == ours && self.sybils.contains_key(&route.remote) {
                    self.hear(world, route.remote, bytes);
                }
            }
        }
    }

    fn hear(&mut self, world: &mut World, addr: SocketAddr, mut bytes: Vec<u8>) {
        let (now, to) = (world.now, world.id(self.at));
        let sybil = self.sybils.get_mut(&addr).unwrap();
        if bytes[0] == Kind::Cookie as u8 && sybil.session.is_none() {
            sybil.ghost.prove(&mut sybil.first, to, &bytes);
            world.inject(now, self.at, addr, &sybil.first);
        } else if bytes[0] == Kind::Response as u8 && sybil.session.is_none() {
            let mut session = sybil.ghost.session(&bytes);
            let hello = said(&mut session, &introduction(&sybil.name));
            sybil.session = Some(session);
            world.inject(now, self.at, addr, &hello);
        } else if bytes[0] == Kind::Data as u8
            && let Some(session) = &mut sybil.session
            && let Ok(plaintext) = session.open(&mut bytes)
        {
            let tokens: Vec<u64> = Records::new(plaintext)
                .filter_map(|record| match record {
                    Ok(Read::Record(Record::Ping { token, .. })) => Some(token),
                    _ => None,
                })
                .collect();
            for token in tokens {
                let pong = said(session, &Record::Pong { token, peers: 0 });
                world.inject(now, self.at, addr, &pong);
            }
        }
    }

    /// `count` of them come within a while, from as many addresses as `spread` says, until so many are online.
    fn flood(&mut self, world: &mut World, count: u32, spread: u32) {
        for n in 0..count {
            let host = [10, 0, 2 + (n % spread / 250) as u8, 1 + (n % spread % 250) as u8];
            self.come(world, n, (host, 1000 + n as u16).into(), &format!("ghost-{n}"));
            if n % 4 == 3 {
                self.run(world, 10);
            }
        }
        for _ in 0..40 {
            if self.sybils.values().all(|sybil| sybil.session.is_some()) {
                break;
            }
            self.try_again(world);
            self.run(world, 500);
        }
        let missing = self.sybils.values().filter(|sybil| sybil.session.is_none()).count();
        assert!(missing < count as usize / 20, "{missing} of {count} never got in");
    }
}

fn known(world: &mut World) -> u64 {
    let status = world.status(0);
    ["online", "offline"].iter().map(|state| status["peers"][state].as_u64().unwrap()).sum()
}

/// Of whom the list says that they are called `nas`: the id, and whether it is a conflict.
fn called_nas(world: &mut World) -> Vec<(String, bool)> {
    let app = world.connect(0);
    world.say(0, app, r#"{"op":"peers","id":3}"#);
    let peers = world.heard(0, app, "peer").into_iter().filter(|peer| peer["name"] == "nas");
    peers.map(|peer| (peer["id"].as_str().unwrap().to_owned(), peer["conflict"] == true)).collect()
}

/// Host 0 meets `nas`, host 1, which goes; strangers come and stay; then `nas` comes that is another one, host 2.
fn thief_of_a_name(seed: u64, count: u32, spread: u32, restart: bool) {
    let mut world = World::new(seed);
    for name in ["me", "nas", "nas", "newcomer"] {
        world.add(name, 0);
    }
    world.start(0);
    world.start(1);
    world.run(seconds(20));
    assert_eq!(world.online(0), 1);
    world.stop(1);
    if restart {
        world.stop(0);
        world.start(0);
    }
    let mut crowd = Crowd::new(&mut world, 0);
    crowd.flood(&mut world, count, spread);
    crowd.run(&mut world, 12_000);
    assert!(known(&mut world) <= (limits::PEERS + limits::PINS_APART) as u64);
    assert!(world.online(0) <= limits::PEERS);

    world.start(2);
    let thief = world.listener(2, "t");
    crowd.run(&mut world, 5000);
    let (owner, other) = (world.id(1).to_string(), world.id(2).to_string());
    let mut expected = [(owner, false), (other, true)];
    expected.sort();
    assert_eq!(called_nas(&mut world), expected, "{seed}");
    let app = world.connect(0);
    world.send(0, app, 1, "nas", "t", "for the one that I know");
    crowd.run(&mut world, 6000);
    assert_eq!(world.outcome(0, app, 1), Some("unreachable"));
    assert!(world.heard(2, thief, "message").is_empty());

    // An honest newcomer gets in meanwhile.
    world.start(3);
    let listener = world.listener(3, "t");
    let mut waited = 0;
    while world.hosts[3].node.as_ref().unwrap().online() == 0 {
        crowd.run(&mut world, 100);
        waited += 100;
        assert!(waited <= 5000, "it is shut out");
    }
    crowd.run(&mut world, 1000);
    world.send(0, app, 2, "newcomer", "t", "hello");
    crowd.run(&mut world, 1000);
    assert_eq!(world.outcome(0, app, 2), Some("delivered"));
    assert_eq!(world.heard(3, listener, "message").len(), 1);

    // Who it really was comes back.
    world.start(1);
    let real = world.listener(1, "t");
    crowd.run(&mut world, 4000);
    world.send(0, app, 3, "nas", "t", "again");
    crowd.run(&mut world, 3000);
    assert_eq!((world.outcome(0, app, 3), world.heard(1, real, "message").len()), (Some("delivered"), 1));
    assert!(world.heard(2, thief, "message").is_empty());
}

#[test]
fn strangers_held_online_from_few_addresses_take_nobodys_name_and_shut_nobody_out() {
    thief_of_a_name(1, 4200, 4, true);
}

#[test]
fn strangers_held_online_from_a_thousand_addresses_take_nobodys_name_and_shut_nobody_out() {
    thief_of_a_name(2, 5000, 250, false);
}

#[test]
fn names_outlive_a_restart_in_the_midst_of_strangers() {
    let mut world = World::new(3);
    for name in ["me", "nas", "nas"] {
        world.add(name, 0);
    }
    world.start(0);
    world.start(1);
    world.run(seconds(20));
    world.stop(1);
    let mut crowd = Crowd::new(&mut world, 0);
    crowd.flood(&mut world, 4200, 1000);
    crowd.run(&mut world, 12_000);
    for _ in 0..2 {
        world.stop(0);
        world.start(0);
        crowd = Crowd::new(&mut world, 0);
        for n in 0..1000 {
            let host = [10, 0, 8 + (n / 250) as u8, 1 + (n % 250) as u8];
            crowd.come(&mut world, 10_000 + n, (host, 9).into(), "another");
            if n % 4 == 3 {
                crowd.run(&mut world, 10);
            }
        }
    }
    world.start(2);
    crowd.run(&mut world, 5000);
    let called = called_nas(&mut world);
    assert!(called.contains(&(world.id(1).to_string(), false)), "{called:?}");
}
