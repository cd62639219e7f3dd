//! A wall clock that jumps.

use std::time::Duration;

use atonce::wire::rendezvous::{Kind, size};

use crate::member::{Member, network};
use crate::world::{World, seconds};

/// Keeps, and does what the server says.
fn keep(world: &mut World, member: &mut Member) {
    let keep = member.keep(true);
    match world.ask(member, &keep)[..] {
        [Kind::Kept] => {}
        [Kind::Retry] => {
            let register = member.register(size::MESSAGE_MAX);
            assert_eq!(world.ask(member, &register), [Kind::Welcome]);
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn members_live_on_and_know_each_other_however_the_clock_jumps() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..5).map(|number| world.joined(&network, number)).collect();
    let (start, hour, day) = (world.wall, seconds(3600), seconds(86_400));
    for wall in [
        start + hour * 3,
        start,
        start + day * 400,
        start - day * 400,
        Duration::ZERO,
        Duration::MAX,
        Duration::from_secs(u64::MAX >> 20),
        start,
    ] {
        world.wall = wall;
        world.server.handle_wall_clock(wall, world.now);
        world.wait(seconds(20));
        for member in &mut members {
            keep(&mut world, member);
            member.known = 0;
            let list = member.list(size::MESSAGE_MAX);
            assert_eq!(world.ask(member, &list), [Kind::Page], "{wall:?}");
            assert_eq!((member.others.len(), member.members), (4, 5));
        }
        assert_eq!((world.server.members(), world.server.namespaces()), (5, 1));
        // A network that begins at this time, and ends.
        let mut guest = Member::new(
            &crate::member::network(2),
            &world.server.key(),
            crate::world::DAY,
            9,
            crate::world::v4(9),
        );
        world.join(&mut guest);
        keep(&mut world, &mut guest);
        let bye = guest.bye();
        world.ask(&mut guest, &bye);
        assert_eq!(world.server.namespaces(), 1);
    }
}

#[test]
fn who_knows_a_later_version_than_there_is_since_the_clock_went_back_is_told_of_all() {
    let mut world = World::new();
    let network = network(1);
    let mut members: Vec<_> = (0..3).map(|number| world.joined(&network, number)).collect();
    let known = members.iter().map(|member| member.known).max().unwrap();
    world.wall -= seconds(1800);
    world.restart();
    for member in &mut members {
        member.others.clear();
        world.join(member);
        assert!(member.known < known);
    }
    assert_eq!(members[2].others.len(), 2);
}
