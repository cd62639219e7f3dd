//! What a registration costs.

use std::time::Duration;

use allocation_counter::measure;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::limits;
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

/// What the unit lets the server have, in bytes.
fn memory_max() -> u64 {
    let unit = include_str!("../../systemd/atonce-rendezvous.service");
    let max = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")?.strip_suffix('M')).unwrap();
    max.parse::<u64>().unwrap() << 20
}

/// Whatever members there are: each with the largest blob, in a network of its own that somebody left, at an address of
/// either family, and that of IPv6 in a site of its own.
#[test]
fn a_server_full_of_the_costliest_members_and_all_its_tables_stay_below_the_limit_of_its_unit() {
    const MEMBERS: u32 = 10_000;
    let mut world = World::new();
    let server = world.server.key();
    let mut steps = Vec::new();
    for number in 0..MEMBERS {
        let keys = NamespaceKeys::of_day(&network(number.into()), &server, DAY).unwrap();
        let [high, low] = [(number >> 8) as u16, number as u16];
        let six = ([0x2400 + high, low, 0, 0, 0, 0, 0, 1], 7).into();
        let mut stays = Member::with_keys(keys.clone(), number, v4(number));
        stays.blob_bytes = size::BLOB_MAX;
        for addr in [v4(number), six] {
            stays.addr = addr;
            let hail = stays.hail();
            world.ask(&mut stays, &hail);
            steps.push((addr, stays.register(size::REGISTER)));
        }
        // Others come and leave, as often as is remembered.
        for other in 0..limits::DEPARTURES_LEAST as u32 {
            let mut leaves = Member::with_keys(keys.clone(), MEMBERS + other, v4(number));
            leaves.addr.set_port(9);
            world.join(&mut leaves);
            steps.push((leaves.addr, leaves.register(size::REGISTER)));
            steps.push((leaves.addr, leaves.bye()));
            let bye = leaves.bye();
            world.ask(&mut leaves, &bye);
        }
        world.sent.clear();
        world.wait(Duration::from_millis(1));
    }
    let mut fresh = World::new();
    let mut buffer = Vec::new();
    let held = measure(|| {
        for (remote, datagram) in &steps {
            // Slow enough for the limit of new namespaces; cookies and tokens are those of the other world.
            fresh.now = fresh.now + Duration::from_micros(100);
            fresh.server.handle_timeout(fresh.now);
            fresh.server.handle_datagram(Route::to(*remote), datagram, fresh.now).unwrap();
            while fresh.server.poll_transmit(&mut buffer).is_some() {}
        }
    });
    assert_eq!((fresh.server.members(), fresh.server.namespaces()), (MEMBERS as usize, MEMBERS as usize));
    let each = held.bytes_current as u64 / u64::from(MEMBERS);
    // What malloc adds to each of the seven pieces of a member, and to what is left of tables that grew.
    let each = each + 7 * 16;
    // Four tables of buckets, leases that wait, echoes, departures, answers, and what sockets, logs and the program take.
    let fixed = 4 * 3 * (1 << 19)
        + limits::LEASES_LOOKED_AT as u64 * 8
        + limits::ECHOES as u64 * 160
        + limits::DEPARTURES_IN_ALL as u64 * 48
        + limits::ANSWERS_QUEUED as u64 * 1300
        + (32 << 20);
    let all = each * limits::SERVER_MEMBERS as u64 + fixed;
    println!("{each} bytes a registration at worst, {} MiB in all", all >> 20);
    assert!(all < memory_max(), "{} of {} MiB", all >> 20, memory_max() >> 20);
}
