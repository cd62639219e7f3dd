//! Who has many IPv6 networks has not many shares: a /64 lies in the /56 of a home, and that in the /48 of a site.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use atonce::server::Dropped;
use atonce::wire::rendezvous::{Kind, Refusal, size};

use crate::member::{Member, network};
use crate::world::{World, ms, v4};

/// An address of this link of that home of that site; its port tells members of one address apart.
fn six(site: u16, home: u8, link: u8, number: u32) -> SocketAddr {
    let network = u16::from_be_bytes([home, link]);
    SocketAddr::from((
        [0x2001, 0xdb8, site, network, 0, 0, 0, (number >> 12) as u16],
        1024 + (number & 0xfff) as u16,
    ))
}

/// Registers one member after the other at `addrs`, slow enough for the limit of registers; tells how many got in.
fn let_in(world: &mut World, number: &mut u32, addrs: impl Iterator<Item = SocketAddr>) -> usize {
    let mut taken = 0;
    let keys = world.member(&network(1), 0).keys;
    for addr in addrs {
        *number += 1;
        let mut member = Member::with_keys(keys.clone(), *number, addr);
        let hail = member.hail();
        world.ask(&mut member, &hail);
        let register = member.register(size::REGISTER);
        let answers = world.ask(&mut member, &register);
        taken += usize::from(answers.contains(&Kind::Welcome));
        world.sent.clear();
        world.wait(ms(35));
    }
    taken
}

#[test]
fn many_links_of_one_home_and_many_homes_of_one_site_do_not_fill_a_network() {
    let mut world = World::new();
    let mut number = 0;
    let home = (0..2000).map(|n| six(1, 0, n as u8, n));
    assert_eq!(let_in(&mut world, &mut number, home), 1536);
    let site = (0..1200).map(|n| six(1, 1 + (n % 255) as u8, n as u8, n));
    assert_eq!(let_in(&mut world, &mut number, site), 2048 - 1536);
    // Other sites, and IPv4, are not concerned.
    let others = (0..200).map(|n| six(2, (n % 4) as u8, 0, n)).chain((0..200).map(v4));
    assert_eq!(let_in(&mut world, &mut number, others), 400);
}

/// Of as many registers at once as there are `addrs`, how many get in.
fn burst(world: &mut World, first: u32, addrs: impl Iterator<Item = SocketAddr>) -> usize {
    let keys = world.member(&network(1), 0).keys;
    let taken = |(number, addr): (u32, SocketAddr)| {
        let mut member = Member::with_keys(keys.clone(), number, addr);
        let hail = member.hail();
        world.ask(&mut member, &hail);
        let register = member.register(size::REGISTER);
        world.ask(&mut member, &register).contains(&Kind::Welcome)
    };
    (first..).zip(addrs).map(taken).filter(|taken| *taken).count()
}

#[test]
fn a_home_registers_as_often_as_two_links_and_a_site_as_often_as_eight_however_many_it_has() {
    let mut world = World::new();
    assert_eq!(burst(&mut world, 0, (0..200).map(|n| six(1, 0, 0, n))), 64);
    assert_eq!(world.refusal(), Some(Refusal::Address));
    assert_eq!(burst(&mut world, 1000, (0..1000).map(|n| six(1, 0, 1 + (n % 255) as u8, n))), 64);
    assert_eq!(burst(&mut world, 2000, (0..2000).map(|n| six(1, 1 + (n % 255) as u8, 0, n))), 512 - 128);
    assert_eq!(burst(&mut world, 9000, (0..1000).map(|n| six(2, n as u8, 0, n))), 512);
    assert_eq!(burst(&mut world, 20_000, (0..100).map(v4)), 100);
}

#[test]
fn networks_of_one_site_are_at_most_512_and_of_one_home_128() {
    let mut world = World::new();
    let mut joined = |numbers: std::ops::Range<u32>, addr: fn(u32) -> SocketAddr| {
        let mut taken = 0;
        for number in numbers {
            let mut member = world.member(&network(number.into()), number);
            member.addr = addr(number);
            let hail = member.hail();
            world.ask(&mut member, &hail);
            let register = member.register(size::REGISTER);
            taken += usize::from(world.ask(&mut member, &register).contains(&Kind::Welcome));
            world.sent.clear();
            world.wait(ms(35));
        }
        taken
    };
    assert_eq!(joined(0..200, |n| six(1, 0, n as u8, n)), 128);
    assert_eq!(joined(1000..1600, |n| six(1, 1 + (n % 255) as u8, n as u8, n)), 512 - 128);
    assert_eq!(joined(5000..5020, |n| six(2, 0, 0, n)), 20);
}

#[test]
fn probes_of_one_home_and_of_one_site_wait_for_eight_and_thirty_two_echoes() {
    let mut world = World::new();
    let mut waits = |addr: SocketAddr| {
        let mut member = world.member(&network(1), 1);
        member.addr = addr;
        let hail = member.hail();
        world.ask(&mut member, &hail);
        let probe = member.probe(100);
        world.say(member.addr, &probe)
    };
    let mut taken = |addrs: &mut dyn Iterator<Item = SocketAddr>| {
        addrs.filter(|addr| waits(*addr) != Err(Dropped::OverLimit)).count()
    };
    assert_eq!(taken(&mut (0..10).map(|n| six(1, 0, 0, n))), 4);
    assert_eq!(taken(&mut (0..100).map(|n| six(1, 0, n as u8, n))), 4);
    assert_eq!(taken(&mut (0..100).map(|n| six(1, n as u8, 0, n))), 32 - 8);
    assert_eq!(taken(&mut (0..10).map(|n| six(2, 0, 0, n))), 4);
}

#[test]
fn an_ipv4_address_has_one_share_in_whatever_ipv6_dress_it_comes() {
    let ip = Ipv4Addr::new(198, 51, 100, 7);
    let bits = u128::from(ip.to_bits());
    let dress = |number: u32| {
        let number_bits = u128::from(number);
        let six = match number % 4 {
            0 => return SocketAddr::from((ip, 1024 + number as u16)),
            // 6to4: any network of the /48 that belongs to the address.
            1 => Ipv6Addr::from_bits(0x2002 << 112 | bits << 80 | number_bits << 64 | 1),
            // Teredo, by any server: the address stands at its end, inverted.
            2 => Ipv6Addr::from_bits(0x2001_0000 << 96 | number_bits << 64 | u128::from(!ip.to_bits())),
            // NAT64.
            _ => Ipv6Addr::from_bits(0x0064_ff9b << 96 | bits),
        };
        SocketAddr::from((six, 1024 + number as u16))
    };
    let mut world = World::new();
    assert_eq!(burst(&mut world, 0, (0..500).map(dress)), 64);
    // All of NAT64 and one Teredo server are no one source.
    let neighbour = |n: u32| {
        let nat64 = 0x0064_ff9b << 96 | u128::from(0xc633_6500 + n);
        let teredo = 0x2001_0000_cb00_7101 << 64 | u128::from(!(0xc633_6600 + n));
        SocketAddr::from((Ipv6Addr::from_bits(if n.is_multiple_of(2) { nat64 } else { teredo }), 7))
    };
    assert_eq!(burst(&mut world, 1000, (0..256).map(neighbour)), 256);
}
