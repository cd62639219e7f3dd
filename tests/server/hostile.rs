//! Strangers: whatever they send, they get less than they give, and nothing is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use allocation_counter::measure;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::route::Route;
use atonce::server::Dropped;
use atonce::wire::rendezvous::{
    Cookie, FromNode, Kind, Namespace, Nonce, Register, Reveal, address_bytes, size,
};
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

use crate::member::{Member, network};
use crate::world::{DAY, World, ms, seconds, v4, v6};

/// Three members of a network, and all that was said between them and the server, in both ways.
fn recorded(world: &mut World) -> (Vec<Member>, Vec<Vec<u8>>) {
    let network = network(1);
    let mut recorded = Vec::new();
    let mut members: Vec<_> = (0..3).map(|number| world.member(&network, number)).collect();
    for member in &mut members {
        recorded.push(member.hail());
        world.ask(member, recorded.last().unwrap());
        recorded.push(member.register(900));
        world.ask(member, recorded.last().unwrap());
    }
    let target = members[0].handle;
    for member in &mut members {
        let questions = [
            member.keep(true),
            member.list(1200),
            member.intro(target, b"x"),
            member.register(size::REGISTER),
        ];
        for question in questions {
            world.ask(member, &question);
            recorded.push(question);
        }
        recorded.extend([member.bye(), member.probe(3)]);
    }
    world.wait(seconds(1));
    recorded.extend(world.sent.drain(..).map(|sent| sent.bytes));
    let kinds: BTreeSet<_> = recorded.iter().filter_map(|bytes| Kind::of(bytes)).collect();
    assert!(kinds.len() >= 13, "{kinds:?}");
    (members, recorded)
}

/// What strangers send, ten thousand times from forty addresses: recordings as they are, damaged, cut and longer than
/// they were, garbage, and registers of namespaces that are nobody's with a cookie that is theirs. None of these
/// addresses gets more than it sent, nobody else gets anything, and the server keeps nothing.
fn strangers(world: &mut World, recorded: &[Vec<u8>]) {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let sources = |number: u32| if number.is_multiple_of(2) { v4(1000 + number) } else { v6(number) };
    let mut guests: Vec<_> =
        (0..40).map(|number| Member::with_keys(keys(9), number, sources(number))).collect();
    let mut account: BTreeMap<SocketAddr, (usize, usize)> = BTreeMap::new();
    let due = world.server.poll_timeout();
    let before = (world.server.members(), world.server.namespaces(), world.server.echoes());
    let (mut buffer, mut kept) = (Vec::with_capacity(size::MESSAGE_MAX), 0);
    for round in 0..10_000_u32 {
        let guest = &mut guests[rng.next_u32() as usize % 40];
        let mut datagram = recorded[rng.next_u32() as usize % recorded.len()].clone();
        match round % 6 {
            0 => {}
            1 => {
                let at = rng.next_u32() as usize % datagram.len();
                datagram[at] ^= 1 << (rng.next_u32() % 8);
            }
            2 => datagram.truncate(rng.next_u32() as usize % datagram.len()),
            3 => datagram.resize(datagram.len() + rng.next_u32() as usize % 500, round as u8),
            4 if guest.cookie == Cookie::default() => datagram = guest.hail(),
            4 => {
                datagram = guest.register(size::MESSAGE_MAX);
                rng.fill_bytes(&mut datagram[12..44]);
            }
            _ => {
                datagram.resize(rng.next_u32() as usize % 1300, 0);
                rng.fill_bytes(&mut datagram);
                let header = [0x40, 0x31, (round % 18) as u8, 2];
                let length = datagram.len().min(4);
                datagram[..length].copy_from_slice(&header[..length]);
            }
        }
        account.entry(guest.addr).or_default().0 += datagram.len();
        let mut answers = Vec::with_capacity(8);
        let route = Route::to(guest.addr);
        let memory = measure(|| {
            let _ = world.server.handle_datagram(route, &datagram, world.now);
            while let Some(to) = world.server.poll_transmit(&mut buffer) {
                answers.push((to.remote, buffer.len()));
            }
        });
        kept += memory.bytes_current;
        for (to, length) in answers {
            account.get_mut(&to).unwrap_or_else(|| panic!("{to} did not ask")).1 += length;
            if Kind::of(&datagram) == Some(Kind::Hail) && length == size::RETRY {
                guest.hear(&buffer);
            }
        }
        assert_eq!((world.server.members(), world.server.namespaces(), world.server.echoes()), before);
    }
    for (addr, (gave, got)) in account {
        assert!(got <= gave, "{addr}: {got} of {gave}");
    }
    assert_eq!(world.server.poll_timeout(), due);
    // A buffer or two that are used again.
    assert!(kept < 5000, "{kept} bytes were kept");
    assert!(world.server.counts().dropped(Dropped::Forged) > 50, "{:?}", world.server.counts());
}

fn keys(number: u64) -> NamespaceKeys {
    NamespaceKeys::of_day(&network(number), &World::new().server.key(), DAY).unwrap()
}

#[test]
fn ten_thousand_random_and_replayed_datagrams_bring_no_source_more_than_it_sent_and_leave_nothing() {
    let mut world = World::new();
    let (mut members, recorded) = recorded(&mut world);
    for member in &mut members {
        let bye = member.bye();
        world.ask(member, &bye);
    }
    world.wait(seconds(1));
    assert_eq!(world.server.members(), 0);
    strangers(&mut world, &recorded);
}

#[test]
fn members_do_not_notice_what_is_replayed_from_elsewhere_while_they_are_there() {
    let mut world = World::new();
    let (mut members, recorded) = recorded(&mut world);
    world.wait(seconds(1));
    for member in &mut members {
        let list = member.list(size::MESSAGE_MAX);
        world.ask(member, &list);
    }
    strangers(&mut world, &recorded);
    for member in &mut members {
        let keep = member.keep(false);
        assert_eq!(world.ask(member, &keep), [], "nothing is new");
        assert_eq!((member.others.len(), member.members), (2, 3));
    }
}

#[test]
fn the_cookie_is_asked_for_before_any_public_key_is_computed_with() {
    let mut world = World::new();
    let mut member = world.member(&network(1), 1);
    let mut register = member.register(size::REGISTER);
    // With this namespace a key exchange fails, and says so.
    register[12..44].copy_from_slice(&Namespace([0; 32]).0);
    assert_eq!(world.say(member.addr, &register), Err(Dropped::Cookie));
    let hail = member.hail();
    world.ask(&mut member, &hail);
    let mut register = member.register(size::REGISTER);
    register[12..44].copy_from_slice(&Namespace([0; 32]).0);
    assert_eq!(world.say(member.addr, &register), Err(Dropped::Forged));
    assert_eq!(world.server.members(), 0);
}

#[test]
fn a_cookie_is_for_its_own_address_and_for_two_minutes_at_least_and_four_at_most() {
    let mut world = World::new();
    let mut member = world.member(&network(1), 1);
    let hail = member.hail();
    world.ask(&mut member, &hail);
    for addr in [v4(2), SocketAddr::new(member.addr.ip(), 1)] {
        let mut other = world.member(&network(1), 3);
        (other.addr, other.cookie) = (addr, member.cookie);
        let register = other.register(size::REGISTER);
        assert_eq!(world.say(addr, &register), Err(Dropped::Cookie));
    }
    let cookie = member.cookie;
    world.wait(seconds(120));
    let register = member.register(size::REGISTER);
    assert_eq!(world.ask(&mut member, &register), [Kind::Welcome]);
    world.wait(seconds(120));
    member.cookie = cookie;
    let register = member.register(size::REGISTER);
    assert_eq!(world.ask(&mut member, &register), [Kind::Retry]);
}

#[test]
fn a_stranger_with_a_cookie_sees_no_difference_between_a_namespace_that_is_there_and_one_that_is_not() {
    let mut world = World::new();
    let there = world.joined(&network(1), 1);
    let not_there = world.member(&network(2), 2);
    for namespace in [*there.keys.namespace(), *not_there.keys.namespace()] {
        let mut stranger = world.member(&network(3), 3);
        let hail = stranger.hail();
        world.ask(&mut stranger, &hail);
        let from = world.sent.len();
        let mut register = stranger.register(size::MESSAGE_MAX);
        register[12..44].copy_from_slice(&namespace.0);
        assert_eq!(world.say(stranger.addr, &register), Err(Dropped::Forged));
        assert_eq!(world.sent.len(), from);
        // Without the right token, too: both are told the same.
        let mut told = Vec::new();
        let (handle, target) = (stranger.handle, there.handle);
        for mut message in [
            stranger.keep(true),
            stranger.list(size::MESSAGE_MAX),
            stranger.intro(target, b"x"),
            stranger.intro(handle, b"x"),
            stranger.bye(),
        ] {
            message[12..44].copy_from_slice(&namespace.0);
            let from = world.sent.len();
            assert_eq!(world.say(stranger.addr, &message), Err(Dropped::Token));
            told.push(world.sent[from..].iter().map(|sent| sent.kind()).collect::<Vec<_>>());
        }
        assert_eq!(
            told,
            [vec![Kind::Retry], vec![Kind::Retry], vec![Kind::Retry], vec![Kind::Retry], vec![]]
        );
    }
    assert_eq!((world.server.members(), world.server.namespaces()), (1, 1));
}

#[test]
fn a_member_gets_silence_for_a_target_that_is_unknown_or_of_another_network_or_itself() {
    let mut world = World::new();
    let mut member = world.joined(&network(1), 1);
    let other = world.joined(&network(2), 2);
    world.wait(seconds(1));
    let from = world.sent.len();
    for target in [other.handle, atonce::wire::rendezvous::Handle([0; 16]), member.handle] {
        let intro = member.intro(target, b"x");
        assert_eq!(world.say(member.addr, &intro), Err(Dropped::Nobody));
    }
    assert_eq!(world.sent.len(), from);
}

#[test]
fn a_register_that_is_repeated_from_elsewhere_or_again_is_worth_nothing() {
    let mut world = World::new();
    let mut member = world.member(&network(1), 1);
    let hail = member.hail();
    world.ask(&mut member, &hail);
    let register = member.register(size::MESSAGE_MAX);
    let mut thief = world.member(&network(9), 9);
    let hail = thief.hail();
    world.ask(&mut thief, &hail);

    // First from elsewhere: as it is, and with a cookie for there.
    assert_eq!(world.say(thief.addr, &register), Err(Dropped::Cookie));
    let mut stolen = register.clone();
    stolen[60..76].copy_from_slice(&thief.cookie.0);
    assert_eq!(world.say(thief.addr, &stolen), Err(Dropped::Forged));
    assert_eq!(world.server.members(), 0);

    assert_eq!(world.ask(&mut member, &register), [Kind::Welcome]);
    world.wait(seconds(1));
    let (from, known) = (world.sent.len(), member.known);
    assert_eq!(world.say(member.addr, &register), Err(Dropped::Repeated));
    let again = member.register_again(size::MESSAGE_MAX);
    assert_eq!(world.say(member.addr, &again), Err(Dropped::Repeated));
    world.wait(seconds(1));
    assert_eq!(world.sent.len(), from, "no answer, no event");
    let keep = member.keep(false);
    assert_eq!(world.ask(&mut member, &keep), [], "the version is still {known}");
}

#[test]
fn a_member_that_has_heard_all_that_another_one_told_cannot_register_by_its_handle() {
    let mut world = World::new();
    let network = network(1);
    let (mut victim, mut thief) = (world.joined(&network, 1), world.joined(&network, 2));
    let recorded = victim.register(size::MESSAGE_MAX);
    assert_eq!(world.ask(&mut victim, &recorded), [Kind::Welcome]);
    let Ok(FromNode::Register(said)) = FromNode::parse(&recorded) else { panic!("no register") };
    let known = (thief.handle, thief.claim.clone());
    for seq in [0, 1, said.seq, said.seq + 1, 100, 128, 129, u32::MAX] {
        for reveal in [said.reveal, Reveal(victim.handle.0), Reveal::default()] {
            let Member { cookie, addr, .. } = thief;
            let Register { namespace, handle, .. } = said;
            let nonce = Nonce([3; 8]);
            let lie = Register { nonce, namespace, handle, cookie, reveal, seq, known: 0, blob: &[1; 128] };
            let mut message = Vec::new();
            FromNode::Register(lie).write(size::MESSAGE_MAX, &mut message);
            thief.keys.finish_register(addr, &mut message);
            let before = world.sent.len();
            let _ = world.say(addr, &message);
            assert_eq!(world.sent.len(), before, "{seq}");
            world.wait(ms(200));
        }
    }
    let keep = victim.keep(true);
    assert_eq!(world.ask(&mut victim, &keep), [Kind::Kept]);
    // Its own handle is as good as before, and the victim goes on.
    (thief.handle, thief.claim) = known;
    for member in [&mut thief, &mut victim] {
        let register = member.register(size::MESSAGE_MAX);
        assert_eq!(world.ask(member, &register), [Kind::Welcome]);
    }
    // Not even what was revealed helps a thief once the server has forgotten all: the owner takes it back.
    world.restart();
    thief.handle = victim.handle;
    thief.seq = victim.seq - 1;
    thief.claim = victim.claim.clone();
    world.join(&mut thief);
    world.join(&mut victim);
    let keep = thief.keep(true);
    assert_eq!(world.ask(&mut thief, &keep), [Kind::Retry]);
}

#[test]
fn the_address_of_one_member_is_in_no_byte_that_another_one_gets() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<Member> = (0..20).map(|number| world.joined(&network, number)).collect();
    for (number, member) in (0..5).zip(&mut members) {
        member.addr = v6(number);
        world.join(member);
    }
    world.wait(seconds(1));
    let handles: Vec<_> = members.iter().map(|member| member.handle).collect();
    for member in &mut members {
        for message in [member.keep(true), member.list(size::MESSAGE_MAX), member.register(size::MESSAGE_MAX)]
        {
            let _ = world.say(member.addr, &message);
        }
        for target in &handles {
            let intro = member.intro(*target, &[0xee; 200]);
            let _ = world.say(member.addr, &intro);
        }
    }
    world.wait(seconds(300));
    assert!(world.sent.len() > 500);
    let addrs: Vec<_> = (0..20).map(v4).chain((0..5).map(v6)).collect();
    for sent in &world.sent {
        for addr in &addrs {
            let bytes = address_bytes(*addr);
            // The last four bytes of an IPv4 address, all but the last eight of an IPv6 one.
            let told = if addr.is_ipv4() { &bytes[12..16] } else { &bytes[..10] };
            assert!(!sent.bytes.windows(told.len()).any(|window| window == told), "{:?}", sent.kind());
        }
    }
}

proptest! {
    #[test]
    fn no_datagram_of_any_kind_gets_a_longer_answer_or_leaves_anything(
        kind in 0_u8..18, mut body in proptest::collection::vec(0_u8.., 0..1300), six: bool,
    ) {
        let mut world = World::new();
        let from = if six { v6(1) } else { v4(1) };
        body.splice(0..0, [0x40, 0x31, kind, 2]);
        // `say` asserts the length.
        let _ = world.say(from, &body);
        prop_assert_eq!(world.server.members(), 0);
        prop_assert_eq!(world.server.poll_timeout(), None);
        let answers = usize::from(FromNode::parse(&body).is_ok());
        prop_assert!(world.sent.len() <= answers);
    }
}
