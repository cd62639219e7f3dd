//! Answers that come later, for those who measure how long their translator keeps a mapping.

use allocation_counter::measure;
use atonce::limits;
use atonce::route::Route;
use atonce::server::Dropped;
use atonce::wire::rendezvous::{FromServer, Kind, size};

use crate::member::{Member, network};
use crate::world::{LOCAL, World, ms, seconds, v4, v6};

/// One with a cookie.
fn hailed(world: &mut World, number: u32) -> Member {
    let mut member = world.member(&network(1), number);
    let hail = member.hail();
    world.ask(&mut member, &hail);
    world.sent.clear();
    member
}

#[test]
fn a_probe_is_answered_once_and_only_after_as_many_seconds_as_it_says() {
    let mut world = World::new();
    world.wait(ms(300));
    for after in [1, 30, 180] {
        let mut member = hailed(&mut world, 1);
        let (probe, asked) = (member.probe(after), world.now);
        assert_eq!(world.say(member.addr, &probe), Ok(()));
        assert_eq!((world.sent.len(), world.server.echoes()), (0, 1));
        world.wait(seconds(200));
        let [sent] = &world.sent[..] else { panic!("{} were sent", world.sent.len()) };
        let late = sent.at.since(asked + seconds(after.into()));
        assert!(sent.at >= asked + seconds(after.into()) && late <= seconds(1), "{late:?}");
        assert_eq!((sent.kind(), sent.to, sent.from), (Kind::Echo, member.addr, Some(LOCAL.into())));
        let Ok(FromServer::Echo(echo)) = FromServer::parse(&sent.bytes) else { panic!("no echo") };
        assert_eq!((&echo.nonce.0[..], echo.seen), (&probe[4..12], member.addr));
        assert!(sent.bytes.len() <= probe.len());
        world.sent.clear();
    }
    assert_eq!((world.server.counts().received(Kind::Probe), world.server.counts().sent(Kind::Echo)), (3, 3));
    assert_eq!((world.server.echoes(), world.server.poll_timeout()), (0, None));
}

#[test]
fn a_probe_with_a_cookie_of_elsewhere_or_another_time_than_1_to_180_s_is_dropped_in_silence() {
    let mut world = World::new();
    let mut member = hailed(&mut world, 1);
    let probe = member.probe(5);
    assert_eq!(world.say(v4(2), &probe), Err(Dropped::Cookie));
    assert_eq!(world.say(v6(1), &probe), Err(Dropped::Cookie));
    for after in [0, 181, u16::MAX] {
        let probe = member.probe(after);
        assert_eq!(world.say(member.addr, &probe), Err(Dropped::OverLimit));
    }
    // Nor with one of long ago.
    world.wait(seconds(300));
    assert_eq!(world.say(member.addr, &probe), Err(Dropped::Cookie));
    assert_eq!((world.server.echoes(), world.server.poll_timeout()), (0, None));
    world.wait(seconds(300));
    assert!(world.sent.is_empty(), "no retry and no echo");
}

#[test]
fn four_wait_at_one_source_whatever_its_ports_and_others_are_not_concerned() {
    let mut world = World::new();
    let mut waits = |from: std::net::SocketAddr| {
        let mut member = world.member(&network(1), 1);
        member.addr = from;
        let hail = member.hail();
        world.ask(&mut member, &hail);
        let probe = member.probe(100);
        world.say(member.addr, &probe)
    };
    for number in 0..10 {
        let expected = if number < 4 { Ok(()) } else { Err(Dropped::OverLimit) };
        let mut v4 = v4(1);
        v4.set_port(1000 + number);
        assert_eq!(waits(v4), expected);
        assert_eq!(waits(([0x2001, 0xdb8, 0, 0, 7, 0, 0, number], 7).into()), expected);
    }
    assert_eq!(waits(v4(2)), Ok(()));
    world.wait(seconds(101));
    assert_eq!(world.server.echoes(), 0);
    let mut member = hailed(&mut world, 1);
    let probe = member.probe(100);
    assert_eq!(world.say(member.addr, &probe), Ok(()));
}

#[test]
fn sixty_five_thousand_wait_in_less_than_80_bytes_each_and_the_next_one_does_not() {
    let mut world = World::new();
    let mut probes = Vec::new();
    for number in 0..=limits::ECHOES as u32 {
        let mut member = hailed(&mut world, number);
        probes.push((member.addr, member.probe(1 + (number % 180) as u16)));
    }
    let (last, probe) = probes.pop().unwrap();
    let held = measure(|| {
        for (remote, probe) in &probes {
            let route = Route::to(*remote);
            assert_eq!(world.server.handle_datagram(route, probe, world.now), Ok(()));
        }
    });
    let each = held.bytes_current / limits::ECHOES as i64;
    println!("{each} bytes an echo");
    assert!((27..80).contains(&each), "{each} bytes an echo");
    assert_eq!(world.say(last, &probe), Err(Dropped::OverLimit));
    world.wait(seconds(181));
    assert_eq!((world.server.echoes(), world.server.poll_timeout()), (0, None));
    assert_eq!(world.sent.len(), limits::ECHOES);
    assert!(world.sent.iter().all(|sent| sent.bytes.len() <= size::PROBE));
    assert_eq!(world.say(last, &probe), Ok(()), "there is room again");
}

#[test]
fn echoes_that_fall_due_together_all_leave_within_a_second() {
    let mut world = World::new();
    for number in 0..10_000 {
        let mut member = hailed(&mut world, number);
        let probe = member.probe(2);
        assert_eq!(world.say(member.addr, &probe), Ok(()));
    }
    world.wait(seconds(3));
    assert_eq!(world.sent.iter().filter(|sent| sent.kind() == Kind::Echo).count(), 10_000);
}
