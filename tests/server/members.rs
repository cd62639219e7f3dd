//! Members come, stay, go, and hear of each other.

use atonce::wire::rendezvous::{Day, FromServer, Kind, size};

use crate::member::{Member, network};
use crate::world::{DAY, LOCAL, World, ms, seconds, v6};

fn crowd(world: &mut World, count: u32) -> Vec<Member> {
    let network = network(1);
    let members = (0..count).map(|number| world.joined(&network, number)).collect();
    world.wait(seconds(1));
    members
}

/// Lists until there is nothing new.
fn list(world: &mut World, member: &mut Member) -> usize {
    let mut pages = 0;
    loop {
        pages += 1;
        let list = member.list(size::MESSAGE_MAX);
        assert_eq!(world.ask(member, &list), [Kind::Page]);
        if !member.lacks_some {
            return pages;
        }
        assert!(pages < 2000);
    }
}

#[test]
fn a_join_and_a_leave_reach_all_of_256_members_within_200_ms() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 255);
    for member in &mut members {
        list(&mut world, member);
    }
    let (from, began) = (world.sent.len(), world.now);
    let network = network(1);
    let mut last = world.joined(&network, 255);
    world.wait(ms(200));
    let joined = world.sent.len();
    world.tell(&mut members, from);
    assert!(members.iter().all(|member| member.others.contains_key(&last.handle) && !member.lacks_some));
    let events = world.sent[from..].iter().filter(|sent| sent.kind() == Kind::Event);
    let to: Vec<_> = events.map(|sent| (sent.to, sent.at.since(began))).collect();
    assert_eq!(to.len(), 255, "nobody is told only of itself");
    assert!(to.iter().all(|(to, after)| *to != last.addr && *after <= ms(200)), "{to:?}");
    assert!(world.sent[from..].iter().all(|sent| sent.from == Some(LOCAL.into())));

    let bye = last.bye();
    assert_eq!(world.ask(&mut last, &bye), []);
    world.wait(ms(200));
    world.tell(&mut members, joined);
    assert!(members.iter().all(|member| !member.others.contains_key(&last.handle) && !member.lacks_some));
    assert_eq!(world.server.members(), 255);
}

#[test]
fn in_a_larger_namespace_64_hear_each_event_and_the_others_by_their_next_keep() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 257);
    for member in &mut members {
        list(&mut world, member);
    }
    let from = world.sent.len();
    let network = network(1);
    let newcomer = world.joined(&network, 999);
    world.wait(ms(200));
    let events: Vec<_> = world.sent[from..].iter().filter(|sent| sent.kind() == Kind::Event).collect();
    let mut to: Vec<_> = events.iter().map(|sent| sent.to).collect();
    to.sort();
    to.dedup();
    assert!((63..=64).contains(&to.len()) && to.len() == events.len(), "{}", to.len());
    world.tell(&mut members, from);
    let (told, untold): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| member.others.contains_key(&newcomer.handle));
    assert_eq!(told.len(), to.len());
    for mut member in untold {
        let keep = member.keep(false);
        assert_eq!(world.ask(&mut member, &keep), [Kind::Kept]);
        assert!(member.lacks_some);
        assert_eq!(list(&mut world, &mut member), 1);
        assert!(member.others.contains_key(&newcomer.handle));
    }
}

#[test]
fn no_member_gets_more_than_five_events_a_second_however_much_changes() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 4);
    for member in &mut members {
        list(&mut world, member);
    }
    let (from, network) = (world.sent.len(), network(1));
    for number in 100..200 {
        world.joined(&network, number);
        world.wait(ms(20));
    }
    world.wait(ms(200));
    let events = world.sent[from..].iter().filter(|sent| sent.kind() == Kind::Event);
    let times: Vec<_> = events.filter(|sent| sent.to == members[0].addr).map(|sent| sent.at).collect();
    assert!(times.len() >= 10, "{}", times.len());
    for pair in times.windows(6) {
        assert!(pair[5].since(pair[0]) >= seconds(1));
    }
    // More came than an event can tell: whoever hears it knows that it lacks some.
    world.tell(&mut members, from);
    for member in &mut members {
        assert!(member.lacks_some);
        list(&mut world, member);
        assert_eq!(member.others.len(), 103);
        assert_eq!(member.members, 104);
    }
}

#[test]
fn whoever_lost_events_learns_by_lists_who_came_changed_and_left() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 30);
    let mut deaf = members.pop().unwrap();
    list(&mut world, &mut deaf);
    assert_eq!(deaf.others.len(), 29);
    let network = network(1);
    let (left, changed) = (members[3].handle, members[4].handle);
    let bye = members[3].bye();
    world.ask(&mut members[3], &bye);
    members[4].blob_bytes = 256;
    let register = members[4].register(size::REGISTER);
    world.ask(&mut members[4], &register);
    let come = world.joined(&network, 500).handle;
    world.wait(seconds(1));
    let newcomer = world.joined(&network, 501);
    assert!(!newcomer.others.contains_key(&left), "of who left nobody new hears as there");

    assert!(!deaf.lacks_some);
    list(&mut world, &mut deaf);
    assert!(!deaf.others.contains_key(&left) && deaf.others.contains_key(&come));
    assert_eq!(deaf.others[&changed].len(), 256);
    assert_eq!(usize::from(deaf.members), deaf.others.len() + 1);
}

#[test]
fn who_was_away_for_long_sees_by_the_count_that_some_left_of_whom_nobody_knows() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 200);
    let mut away = members.pop().unwrap();
    list(&mut world, &mut away);
    for member in &mut members[..150] {
        let bye = member.bye();
        world.ask(member, &bye);
    }
    list(&mut world, &mut away);
    assert_ne!(usize::from(away.members), away.others.len() + 1);
    (away.known, away.others) = (0, Default::default());
    list(&mut world, &mut away);
    assert_eq!(usize::from(away.members), away.others.len() + 1);
}

#[test]
fn a_member_that_keeps_silent_is_gone_after_its_lease_and_one_that_keeps_is_not() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 2);
    list(&mut world, &mut members[1]);
    for _ in 0..5 {
        world.wait(seconds(25));
        let keep = members[1].keep(false);
        let answers = world.ask(&mut members[1], &keep);
        if world.server.members() == 2 {
            assert_eq!(answers, [], "nothing is new, and no answer was wanted");
        }
    }
    assert_eq!(world.server.members(), 1);
    let event = world.sent.iter().rfind(|sent| sent.kind() == Kind::Event).unwrap();
    assert_eq!(event.to, members[1].addr);
    let keep = members[1].keep(true);
    assert_eq!(world.ask(&mut members[1], &keep), [Kind::Kept]);
    world.wait(seconds(122));
    assert_eq!((world.server.members(), world.server.namespaces()), (0, 0));
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn a_member_of_both_families_is_one_and_lives_as_long_as_either_is_kept() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 2);
    let mut both = members.pop().unwrap();
    let (four, token_of_four) = (both.addr, both.token);
    both.addr = v6(7);
    world.join(&mut both);
    assert_eq!(world.server.members(), 2);
    let handle = both.handle;
    let knocked = |world: &mut World, members: &mut Vec<Member>| {
        let intro = members[0].intro(handle, b"come");
        let _ = world.say(members[0].addr, &intro);
        world.sent.last().filter(|sent| sent.kind() == Kind::Knock).map(|sent| sent.to)
    };
    assert_eq!(knocked(&mut world, &mut members), Some(v6(7)));
    for round in 0..8 {
        world.wait(seconds(25));
        let keep = members[0].keep(false);
        let _ = world.say(members[0].addr, &keep);
        let token = std::mem::replace(&mut both.token, token_of_four);
        let keep = both.keep(false);
        assert_eq!(world.say(four, &keep), Ok(()));
        both.token = token;
        if round == 0 {
            // Both leases run still.
            assert_eq!(knocked(&mut world, &mut members), Some(four));
        }
    }
    assert_eq!(knocked(&mut world, &mut members), Some(four), "it is sought where it was heard last");
    let keep = both.keep(true);
    assert_eq!(world.ask(&mut both, &keep), [Kind::Kept], "its token for IPv6 still holds");
    assert_eq!(world.server.members(), 2);
    world.wait(seconds(125));
    assert_eq!(world.server.members(), 0);
}

#[test]
fn a_member_that_moved_is_reached_at_its_new_address_and_not_at_the_old_one() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 2);
    let old_keep = members[1].keep(true);
    let old = members[1].addr;
    members[1].addr.set_port(4000);
    world.join(&mut members[1]);
    assert_eq!(world.server.members(), 2);
    let from = world.sent.len();
    assert!(world.say(old, &old_keep).is_err());
    assert_eq!(world.sent[from].kind(), Kind::Retry);
    let target = members[1].handle;
    let intro = members[0].intro(target, b"come");
    world.say(members[0].addr, &intro).unwrap();
    assert_eq!(world.sent.last().unwrap().to, members[1].addr);
}

#[test]
fn a_knock_says_from_whom_it_is_and_what_word_for_word() {
    let mut world = World::new();
    let mut members = crowd(&mut world, 2);
    let target = members[1].handle;
    let intro = members[0].intro(target, &[9; size::PAYLOAD_MAX]);
    world.say(members[0].addr, &intro).unwrap();
    let sent = world.sent.last().unwrap();
    let Ok(FromServer::Knock(knock)) = FromServer::parse(&sent.bytes) else { panic!("no knock") };
    assert_eq!((knock.from, knock.payload), (members[0].handle, &[9; size::PAYLOAD_MAX][..]));
    assert_eq!(knock.nonce.0, intro[4..12]);
    members[1].hear(&sent.bytes);
}

#[test]
fn at_midnight_the_namespaces_of_both_days_serve_and_the_old_one_ends() {
    let mut world = World::new();
    world.wait(seconds(86_400 - 70_000 - 60));
    let network = network(1);
    let mut old = world.joined(&network, 1);
    assert_eq!((old.time.day, old.time.second), (DAY, 86_340));
    let server = world.server.key();
    let mut new = Member::new(&network, &server, Day(DAY.0 + 1), 2, old.addr);
    world.join(&mut new);
    assert_eq!((world.server.members(), world.server.namespaces()), (2, 2));
    assert!(new.others.is_empty());
    world.wait(seconds(61));
    for member in [&mut old, &mut new] {
        let keep = member.keep(true);
        assert_eq!(world.ask(member, &keep), [Kind::Kept]);
        assert_eq!((member.time.day, member.time.second), (Day(DAY.0 + 1), 1));
    }
    world.wait(seconds(100));
    let keep = new.keep(false);
    world.ask(&mut new, &keep);
    world.wait(seconds(30));
    assert_eq!((world.server.members(), world.server.namespaces()), (1, 1));
}
