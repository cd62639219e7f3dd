//! What a registration costs.

use std::time::Duration;

use allocation_counter::measure;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::route::Route;
use atonce::server::Server;
use atonce::wire::rendezvous::size;

use crate::member::{Member, network};
use crate::world::{DAY, World, v4};

const REGISTRATIONS: u32 = 100_000;

/// Registers so many with blobs of 256 bytes, in networks of `group`; tells how many bytes each takes, and how many are
/// given back when all of them are gone.
fn held_and_freed(group: u32) -> (i64, i64) {
    let mut world = World::new();
    let server = world.server.key();
    let mut keys = NamespaceKeys::of_day(&network(0), &server, DAY).unwrap();
    let mut registers = Vec::new();
    for number in 0..REGISTRATIONS {
        if number % group == 0 {
            keys = NamespaceKeys::of_day(&network(number.into()), &server, DAY).unwrap();
        }
        let mut member = Member::with_keys(keys.clone(), number, v4(number));
        member.blob_bytes = 256;
        let hail = member.hail();
        world.ask(&mut member, &hail);
        registers.push((member.addr, member.register(size::REGISTER)));
    }
    world.sent = Vec::new();
    let World { mut server, mut now, .. } = world;
    let drain = |server: &mut Server| {
        let mut buffer = Vec::new();
        while server.poll_transmit(&mut buffer).is_some() {}
    };
    let held = measure(|| {
        for (remote, register) in &registers {
            // Slow enough for the limit of new namespaces.
            now = now + Duration::from_micros(300);
            server.handle_timeout(now);
            server.handle_datagram(Route::to(*remote), register, now).unwrap();
            drain(&mut server);
        }
    });
    assert_eq!(server.members(), REGISTRATIONS as usize);
    let freed = measure(|| {
        while let Some((at, _)) = server.poll_timeout() {
            now = at;
            server.handle_timeout(now);
            drain(&mut server);
        }
    });
    assert_eq!((server.members(), server.namespaces()), (0, 0));
    let each = |bytes: i64| bytes / i64::from(REGISTRATIONS);
    (each(held.bytes_current), each(-freed.bytes_current))
}

#[test]
fn a_hundred_thousand_registrations_with_blobs_of_256_bytes_take_512_bytes_each_and_give_them_back() {
    for group in [100, 3] {
        let (held, freed) = held_and_freed(group);
        println!("{held} bytes a registration in networks of {group}");
        assert!((300..=512).contains(&held), "{held} bytes a registration in networks of {group}");
        // Tables keep their size, members do not.
        assert!(freed > held * 3 / 4, "{freed} of {held}");
    }
}
