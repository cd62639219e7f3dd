//! What the server sends to whom that did not ask.

use std::collections::BTreeMap;
use std::net::IpAddr;

use atonce::crypto::namespace::NamespaceKeys;
use atonce::limits;
use atonce::wire::rendezvous::{Kind, Refusal, size};

use crate::member::{Member, network};
use crate::world::{DAY, World, ms, seconds, v4};

/// The bytes of a source that is up to no good: those that it gave, and those that it got.
#[derive(Default)]
struct Account {
    gave: usize,
    got: usize,
}

/// A network of one source; another source may have members in it too.
struct Attack {
    world: World,
    members: Vec<Member>,
    accounts: BTreeMap<IpAddr, Account>,
}

impl Attack {
    /// `count` members at one source, each with a blob of so many bytes.
    fn new(count: u32, blob_bytes: usize) -> Self {
        let mut world = World::new();
        let keys = NamespaceKeys::of_day(&network(1), &world.server.key(), DAY).unwrap();
        let member = |number: u32| {
            let mut member = Member::with_keys(keys.clone(), number, v4(1));
            member.addr.set_port(number as u16);
            member.blob_bytes = blob_bytes;
            member
        };
        let members = (0..count).map(member).collect();
        world.wait(seconds(10));
        Self { world, members, accounts: BTreeMap::new() }
    }

    fn say(&mut self, which: usize, message: impl FnOnce(&mut Member) -> Vec<u8>) {
        let message = message(&mut self.members[which]);
        let addr = self.members[which].addr;
        self.accounts.entry(addr.ip()).or_default().gave += message.len();
        let _ = self.world.ask(&mut self.members[which], &message);
        self.book();
    }

    fn register(&mut self, which: usize) {
        self.say(which, Member::hail);
        self.say(which, |member| member.register(0));
    }

    fn wait(&mut self, pause: std::time::Duration) {
        self.world.wait(pause);
        self.book();
    }

    fn book(&mut self) {
        for sent in self.world.sent.drain(..) {
            self.accounts.entry(sent.to.ip()).or_default().got += sent.bytes.len();
        }
    }

    fn account(&self, which: usize) -> &Account {
        &self.accounts[&self.members[which].addr.ip()]
    }
}

#[test]
fn a_source_that_does_its_worst_for_a_minute_gets_less_than_five_times_what_it_sent() {
    for (blob_bytes, leaves, keeps) in [(0, true, 0), (0, false, 8), (384, false, 0), (384, true, 8)] {
        let mut attack = Attack::new(256, blob_bytes);
        for tick in 0..960 {
            let which = tick % 256;
            if tick >= 256 && leaves {
                attack.say(which, Member::bye);
                attack.wait(ms(2));
            }
            attack.register(which);
            for keep in 0..keeps {
                attack.say((which + keep * 7) % 256, |member| member.keep(false));
            }
            attack.wait(ms(63));
        }
        let Account { gave, got } = *attack.account(0);
        assert!(got < 5 * gave, "{got} bytes for {gave}, with blobs of {blob_bytes}");
        assert!(got > gave, "nothing was drawn, so nothing is proved: {got} bytes for {gave}");
    }
}

#[test]
fn who_changes_things_from_elsewhere_draws_no_more_to_a_source_than_that_paid_for() {
    let mut attack = Attack::new(256, 384);
    attack.members[0].addr = v4(2);
    for which in 0..256 {
        attack.register(which);
        attack.wait(ms(63));
    }
    // Saved up for half an hour, and then drawn in one minute.
    for _ in 0..18 {
        (0..256).for_each(|which| attack.say(which, |member| member.keep(false)));
        attack.wait(seconds(100));
    }
    let before = attack.account(1).got;
    for _ in 0..600 {
        attack.register(0);
        attack.wait(ms(100));
    }
    let Account { gave, got } = *attack.account(1);
    assert!(got < 5 * gave, "{got} bytes for {gave}");
    let drawn = got - before;
    assert!(drawn <= 256 * 1024 + 61 * 16_400, "{drawn} bytes in a minute");
    assert!(drawn > 256 * 1024, "nothing was drawn, so nothing is proved: {drawn}");
}

#[test]
fn a_member_has_no_credit_at_an_address_to_which_it_has_just_moved() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..2).map(|number| world.joined(&network, number)).collect();
    for _ in 0..20 {
        world.wait(seconds(25));
        for member in &mut members {
            let keep = member.keep(false);
            world.ask(member, &keep);
        }
    }
    members[1].addr = v4(77);
    let hail = members[1].hail();
    world.ask(&mut members[1], &hail);
    let register = members[1].register(size::REGISTER);
    world.ask(&mut members[1], &register);
    let from = world.sent.len();
    for _ in 0..30 {
        world.wait(ms(300));
        let register = members[0].register(size::REGISTER);
        world.ask(&mut members[0], &register);
    }
    let to_new = world.sent[from..].iter().filter(|sent| sent.to == v4(77));
    let bytes: usize = to_new.map(|sent| sent.bytes.len()).sum();
    assert!((1..=4 * register.len()).contains(&bytes), "{bytes}");
    assert!(world.server.counts().events_withheld > 20);
}

#[test]
fn joins_and_leaves_reach_256_members_at_once_also_when_64_of_them_share_an_address_and_only_keep() {
    let mut world = World::new();
    let keys = NamespaceKeys::of_day(&network(1), &world.server.key(), DAY).unwrap();
    let mut members: Vec<Member> = Vec::new();
    let list = |world: &mut World, member: &mut Member| {
        member.lacks_some = true;
        while member.lacks_some {
            let list = member.list(size::MESSAGE_MAX);
            world.ask(member, &list);
        }
    };
    // They start together, and each lists when it hears that it lacks some, not more than once a second.
    for number in 0..255 {
        let from = world.sent.len();
        let mut member = Member::with_keys(keys.clone(), number, v4(number.max(64)));
        member.addr.set_port(1000 + number as u16);
        world.join(&mut member);
        member.lacks_some = true;
        members.push(member);
        world.wait(ms(63));
        world.tell(&mut members, from);
        for member in members.iter_mut().skip(number as usize % 16).step_by(16) {
            if member.lacks_some {
                list(&mut world, member);
            }
        }
    }
    let from = world.sent.len();
    world.wait(ms(200));
    world.tell(&mut members, from);
    for member in &mut members {
        assert!(member.lacks_some || member.others.len() == 254, "{}", member.others.len());
    }
    let rounds = |world: &mut World, members: &mut [Member], rounds: u32| {
        for _ in 0..rounds {
            let from = world.sent.len();
            world.wait(seconds(25));
            world.tell(members, from);
            for member in &mut *members {
                let keep = member.keep(false);
                if world.ask(member, &keep) == [Kind::Kept] {
                    list(world, member);
                }
            }
            world.sent.clear();
        }
    };
    rounds(&mut world, &mut members, 60);
    let withheld = world.server.counts().events_withheld;
    // Ten come and go, one every two seconds; then as many again an hour later.
    for hour in 0..2 {
        for number in 0..10 {
            let (from, began) = (world.sent.len(), world.now);
            let mut last = Member::with_keys(keys.clone(), 1000 + hour * 10 + number, v4(1000 + number));
            world.join(&mut last);
            world.wait(ms(200));
            world.tell(&mut members, from);
            assert!(members.iter().all(|member| member.others.contains_key(&last.handle)), "{number}");
            assert!(members.iter().all(|member| !member.lacks_some));
            world.wait(seconds(1));
            let left = world.sent.len();
            let bye = last.bye();
            world.ask(&mut last, &bye);
            world.wait(ms(200));
            world.tell(&mut members, left);
            assert!(members.iter().all(|member| !member.others.contains_key(&last.handle)), "{number}");
            assert!(world.now.since(began) < seconds(2));
            world.wait(seconds(1));
        }
        rounds(&mut world, &mut members, 144);
    }
    assert_eq!(world.server.counts().events_withheld, withheld);
}

#[test]
fn one_source_has_1024_members_in_a_namespace_and_4096_in_all_and_the_next_one_is_refused() {
    let mut world = World::new();
    let server = world.server.key();
    let mut taken = Vec::new();
    let mut registered = Vec::new();
    for group in 1..=5 {
        let keys = NamespaceKeys::of_day(&network(group), &server, DAY).unwrap();
        let mut count = 0;
        for number in 0..=limits::NAMESPACE_MEMBERS_PER_SOURCE[0] as u32 {
            let mut member = Member::with_keys(keys.clone(), number, v4(1));
            member.addr.set_port((registered.len() + 1) as u16);
            let hail = member.hail();
            world.ask(&mut member, &hail);
            let register = member.register(size::REGISTER);
            if world.ask(&mut member, &register).contains(&Kind::Welcome) {
                count += 1;
                registered.push(member);
            } else {
                assert_eq!(world.refusal(), Some(Refusal::Address));
            }
            world.wait(ms(63));
        }
        taken.push(count);
        for member in &mut registered {
            let keep = member.keep(false);
            world.ask(member, &keep);
        }
        world.sent.clear();
    }
    let each = limits::NAMESPACE_MEMBERS_PER_SOURCE[0];
    assert_eq!(taken, [each, each, each, each, limits::MEMBERS_PER_SOURCE[0] - 4 * each]);
    // Who is there already goes on, moves to another port, and is in nobody's way elsewhere.
    let first = &mut registered[0];
    first.addr.set_port(60_000);
    world.join(first);
    let keys = first.keys.clone();
    let mut elsewhere = Member::with_keys(keys, 9999, v4(2));
    world.join(&mut elsewhere);
    // Neither does one come here that was elsewhere, before another one leaves.
    elsewhere.addr = v4(1);
    let hail = elsewhere.hail();
    world.ask(&mut elsewhere, &hail);
    let register = elsewhere.register(size::REGISTER);
    assert_eq!(world.ask(&mut elsewhere, &register), [Kind::Nope]);
    let bye = registered[1].bye();
    world.ask(&mut registered[1], &bye);
    world.join(&mut elsewhere);
}
