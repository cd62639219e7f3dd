//! Whom a limit is for: an IPv4 address; of IPv6 a /64, as one link has, and again the /56 of a home and the /48 of a site
//! around it, since whoever has one of those has all links in it. Nothing is counted above: a carrier's /32 is a million
//! homes.
//!
//! An IPv6 address that only carries an IPv4 one counts as that one, by whatever translator it comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// At how many levels an IPv6 source is counted: its /64, its /56, its /48.
pub(crate) const LEVELS: usize = 3;

/// A source address as the limits see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(u64);

impl Source {
    /// IPv4 addresses lie where IPv6 has no addresses of anybody (0::/32).
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_bits().into()),
            IpAddr::V6(ip) => match carried(ip) {
                Some(ip) => Self(ip.to_bits().into()),
                None => Self((ip.to_bits() >> 64) as u64),
            },
        }
    }

    /// The first `bits` of an IPv6 source, at most 64; none of an IPv4 one.
    pub(crate) const fn network(self, bits: u32) -> Option<u64> {
        if self.is_v4() { None } else { Some(self.0 >> (64 - bits)) }
    }

    /// In the order of sources.
    pub(crate) const fn bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Itself, and what is around it: each with its level, from 0 up.
    pub(crate) fn levels(self) -> impl Iterator<Item = (usize, Self)> {
        let all = [self.0, self.0 & !0xff, self.0 & !0xffff].map(Self);
        let count = if self.is_v4() { 1 } else { LEVELS };
        all.into_iter().enumerate().take(count)
    }

    const fn is_v4(self) -> bool {
        self.0 >> 32 == 0
    }
}

/// The IPv4 address whose owner an IPv6 address belongs to: 6to4 (RFC 3056), Teredo (RFC 4380), NAT64 (RFC 6052).
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = ip.to_bits() as u32;
    match ip.segments() {
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last)),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    #[test]
    fn a_link_is_one_source_whichever_address_of_it_is_used() {
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1").network(48), Some(0x2001_0db8_0001));
        assert_eq!(of("192.0.2.1").network(48), None);
    }

    #[test]
    fn links_of_a_home_and_homes_of_a_site_have_a_level_in_common_and_ipv4_addresses_none() {
        let levels = |text: &str| of(text).levels().map(|(_, source)| source).collect::<Vec<_>>();
        let (one, link, home, site) =
            ("2001:db8:1:101::1", "2001:db8:1:1ff::1", "2001:db8:1:200::1", "2001:db8:2::1");
        let same = |other: &str| {
            levels(one).iter().zip(levels(other)).map(|(one, other)| *one == other).collect::<Vec<_>>()
        };
        assert_eq!(same(link), [false, true, true]);
        assert_eq!(same(home), [false, false, true]);
        assert_eq!(same(site), [false; 3]);
        assert_eq!(levels("192.0.2.1"), [of("192.0.2.1")]);
    }

    #[test]
    fn an_address_that_carries_an_ipv4_address_is_that_one() {
        let bare = of("192.0.2.1");
        for dress in [
            "2002:c000:201::1",
            "2002:c000:201:ffff::7",
            "2001:0:cb00:7101:0:fff:3fff:fdfe",
            "64:ff9b::c000:201",
        ] {
            assert_eq!(of(dress), bare, "{dress}");
            assert_eq!(of(dress).levels().count(), 1);
        }
        for other in ["2003:c000:201::1", "2001:1::3fff:fdfe", "64:ff9b:1::c000:201", "64:ff9c::c000:201"] {
            assert_ne!(of(other), bare, "{other}");
        }
    }
}
