//! What a registration costs.

use allocation_counter::measure;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::wire::rendezvous::{Kind, size};

use crate::member::{Member, network};
use crate::world::{DAY, World, seconds, v4};

#[test]
fn a_hundred_thousand_registrations_with_blobs_of_256_bytes_take_512_bytes_each_and_give_them_back() {
    let mut world = World::new();
    let server = world.server.key();
    let mut held = 0;
    for group in 0..1000 {
        let keys = NamespaceKeys::of_day(&network(group.into()), &server, DAY).unwrap();
        for number in 0..100 {
            let number = group * 100 + number;
            let mut member = Member::with_keys(keys.clone(), number, v4(number));
            member.blob_bytes = 256;
            let hail = member.hail();
            world.ask(&mut member, &hail);
            let register = member.register(size::REGISTER);
            world.sent.clear();
            world.sent.reserve(16);
            let mut answered = Vec::new();
            let info = measure(|| {
                let route = atonce::route::Route::to(member.addr);
                world.server.handle_datagram(route, &register, world.now).unwrap();
                // Its buffer comes from us and goes back.
                let _ = world.server.poll_transmit(&mut answered);
                answered = Vec::new();
            });
            held += info.bytes_current;
        }
    }
    assert_eq!(world.server.members(), 100_000);
    assert_eq!(world.server.counts().received(Kind::Register), 100_000);
    let each = held / 100_000;
    println!("{each} bytes a registration");
    assert!((300..=512).contains(&each), "{each} bytes a registration");

    world.sent.clear();
    let freed = measure(|| {
        world.wait(seconds(130));
        world.sent = Vec::new();
    });
    assert_eq!(world.server.members(), 0);
    // Tables keep their size, members do not.
    assert!(freed.bytes_current < -(held * 3 / 4), "{} of {held}", freed.bytes_current);
}
