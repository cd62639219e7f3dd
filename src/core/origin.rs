//! Where somebody comes from, as limits and shares see it.
//!
//! Keys cost nothing, addresses do: who makes a thousand keys has few places to send from. A neighbour is its address, since
//! all of them share their /64; who is elsewhere is its IPv4 address or its /64, within a /56 and a /48, of which every home
//! and every site has a whole one; and all who come through one relay are one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::core::fair::Nested;
use crate::core::links::Links;
use crate::core::relays::relay_number;
use crate::source::Source;

/// Bits of an IPv6 address that the hosts of a site, and of a home, have in common.
const SITE_BITS: u32 = 48;
const HOME_BITS: u32 = 56;

/// Where somebody comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A host on a link of ours.
    Neighbour(IpAddr),
    /// Whoever is elsewhere.
    Elsewhere(Source),
    /// The /56 around it.
    Home(u64),
    /// The /48 around that.
    Site(u64),
    /// All who come through one relay.
    Relay(u32),
}

impl Origin {
    /// Of what comes from `addr`.
    pub(crate) fn of(addr: IpAddr, links: &Links) -> Self {
        let addr = addr.to_canonical();
        match relay_number(addr) {
            Some(number) => Self::Relay(number),
            None if links.on_link(addr) => Self::Neighbour(addr),
            None => Self::Elsewhere(Source::of(addr)),
        }
    }
}

impl Nested for Origin {
    fn wider(self) -> Option<Self> {
        match self {
            Self::Elsewhere(source) => source.network(HOME_BITS).map(Self::Home),
            Self::Home(network) => Some(Self::Site(network >> (HOME_BITS - SITE_BITS))),
            Self::Neighbour(_) | Self::Site(_) | Self::Relay(_) => None,
        }
    }
}

/// How many there are from each origin, and from the wider ones around it.
#[derive(Debug, Default)]
pub(crate) struct Crowd(BTreeMap<Origin, usize>);

/// How many are at one place, the widest network around it first.
pub(crate) type Weight = [usize; 3];

impl Crowd {
    pub(crate) fn of(origins: impl Iterator<Item = Origin>) -> Self {
        let mut counts = BTreeMap::new();
        for origin in origins {
            for around in std::iter::successors(Some(origin), |origin| origin.wider()) {
                *counts.entry(around).or_default() += 1;
            }
        }
        Self(counts)
    }

    /// Weights are compared from the widest network to the address, so that the heaviest is found in the heaviest. Who has
    /// no origin weighs nothing.
    pub(crate) fn weight(&self, origin: Option<Origin>) -> Weight {
        let count = |origin: Option<Origin>| origin.and_then(|origin| self.0.get(&origin)).copied();
        let own = count(origin).unwrap_or(0);
        let home = origin.and_then(Nested::wider);
        let site = home.and_then(Nested::wider);
        [count(site).unwrap_or(own), count(home).unwrap_or(own), own]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elsewhere(addr: &str) -> Origin {
        Origin::of(addr.parse().unwrap(), &Links::default())
    }

    #[test]
    fn the_heaviest_is_the_heaviest_address_of_the_heaviest_home_of_the_heaviest_site() {
        let addrs = [
            "2001:db8:1:100::1",
            "2001:db8:1:101::1",
            "2001:db8:1:102::1",
            "2001:db8:1:200::1",
            "2001:db8:1:200::2",
            "192.0.2.1",
            "192.0.2.1",
            "192.0.2.1",
            "100::1:0:1",
        ];
        let crowd = Crowd::of(addrs.iter().map(|addr| elsewhere(addr)));
        assert_eq!(crowd.weight(Some(elsewhere(addrs[0]))), [5, 3, 1]);
        assert_eq!(crowd.weight(Some(elsewhere(addrs[3]))), [5, 2, 2]);
        assert_eq!(crowd.weight(Some(elsewhere("192.0.2.1"))), [3, 3, 3]);
        assert_eq!(crowd.weight(Some(elsewhere("100::1:0:9"))), [1, 1, 1], "another channel of the relay");
        assert_eq!(crowd.weight(None), [0, 0, 0]);
    }
}
