//! The networks that we are on: which addresses are near, by which of our interfaces, and how good a way is.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use crate::core::api::{InterfaceAddr, Route};
use crate::core::introductions::is_public;
use crate::core::relays::is_relayed;
use crate::wire::local::PathKind;

/// The networks that we are on.
#[derive(Debug, Default)]
pub(crate) struct Links {
    addrs: Vec<InterfaceAddr>,
    /// Interfaces that are not used, by name.
    pub(crate) left_out: Vec<String>,
}

impl Links {
    /// Takes the complete list; says whether it differs from the one before.
    pub(crate) fn replace(&mut self, addrs: &[InterfaceAddr]) -> bool {
        let mut addrs = addrs.to_vec();
        addrs.sort();
        addrs.dedup();
        let changed = addrs != self.addrs;
        self.addrs = addrs;
        changed
    }

    /// The list, by interface.
    pub(crate) fn addrs(&self) -> &[InterfaceAddr] {
        &self.addrs
    }

    /// Whether `addr` is our own.
    pub(crate) fn is_own(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_loopback() || self.addrs.iter().any(|own| own.addr == addr)
    }

    /// Whether `addr` means all hosts, of a network of ours or of any.
    pub(crate) fn is_broadcast(&self, addr: IpAddr) -> bool {
        let IpAddr::V4(addr) = addr else { return false };
        let of = |own: &InterfaceAddr| match own.addr {
            IpAddr::V4(ip) if own.prefix < 31 => {
                let hosts = u32::MAX.checked_shr(own.prefix.into()).unwrap_or(0);
                addr.to_bits() == ip.to_bits() | hosts || addr.to_bits() == ip.to_bits() & !hosts
            }
            IpAddr::V4(_) | IpAddr::V6(_) => false,
        };
        addr.is_broadcast() || self.addrs.iter().any(of)
    }

    /// Whether `addr` is on a network that we are on too.
    pub(crate) fn on_link(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        addr.is_loopback()
            || is_link_local(addr)
            || self.addrs.iter().any(|own| share_prefix(own.addr, addr, own.prefix))
    }

    /// Whether a stranger at `addr` may be answered in the open network: private, link-local and loopback addresses,
    /// and IPv6 ones of our own prefixes.
    pub(crate) fn is_local_network(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_unique_local() || self.on_link(IpAddr::V6(v6)),
        }
    }

    /// What kind of path leads to `addr`.
    pub(crate) fn kind(&self, addr: IpAddr) -> PathKind {
        if is_relayed(addr) {
            PathKind::Relay
        } else if self.on_link(addr) {
            PathKind::Lan
        } else {
            PathKind::Direct
        }
    }

    /// Our address on the link over which `route` leads, if its far end is on one of ours.
    pub(crate) fn of_link(&self, route: Route) -> Option<&InterfaceAddr> {
        let (addr, interface) = (route.remote.ip().to_canonical(), route.interface());
        self.addrs.iter().find(|own| {
            share_prefix(own.addr, addr, own.prefix)
                && interface.is_none_or(|interface| interface.get() == own.index)
        })
    }

    /// Whether `addr` is on the link of an interface of ours. An address of our own is on none: it is here.
    fn reaches(&self, interface: u32, addr: IpAddr) -> bool {
        let on_link =
            |own: &InterfaceAddr| own.index == interface && share_prefix(own.addr, addr, own.prefix);
        self.addrs.iter().any(on_link) && !self.is_own(addr)
    }

    /// The way on which something came, as it is gone back: by that interface to who is on its link. What came over a
    /// router goes back as the operating system routes it, and the scope of a link-local address says all.
    pub(crate) fn way_back(&self, via: Route) -> Route {
        let addr = via.remote.ip();
        let near = |interface: &NonZeroU32| !is_scoped(via.remote) && self.reaches(interface.get(), addr);
        Route { interface: via.interface.filter(near), ..via }
    }

    /// The ways of which `route` is one: by each of our interfaces on whose link its far end is, if it names none. The
    /// operating system would always take the same one, and that one may be dead.
    pub(crate) fn ways(&self, route: Route) -> impl Iterator<Item = Route> {
        let addr = route.remote.ip();
        let open = route.interface().is_none();
        let mut interfaces: Vec<_> = self.addrs.iter().map(|own| own.index).collect();
        interfaces.sort_unstable();
        interfaces.dedup();
        interfaces.retain(|interface| open && self.reaches(*interface, addr));
        let unchanged = interfaces.is_empty().then_some(route);
        let named =
            interfaces.into_iter().map(move |index| Route { interface: NonZeroU32::new(index), ..route });
        unchanged.into_iter().chain(named.collect::<Vec<_>>()).map(|route| self.own_end(route))
    }

    /// Our interfaces on whose link the far end of `route` is, each with its first address there.
    pub(crate) fn own_ends(&self, route: Route) -> impl Iterator<Item = (NonZeroU32, IpAddr)> {
        let unnamed = Route { interface: None, local: None, ..route };
        self.ways(unnamed).filter_map(|way| Some((way.interface?, self.of_link(way)?.addr)))
    }

    /// `route` from an address that its interface has: the answer to another one might come to another interface.
    pub(crate) fn own_end(&self, route: Route) -> Route {
        let of_interface = |local: &IpAddr| {
            let has = |own: &InterfaceAddr| {
                own.addr == *local && route.interface.is_none_or(|interface| interface.get() == own.index)
            };
            self.addrs.iter().any(has) || route.interface.is_none() && self.is_own(*local)
        };
        Route { local: route.local.filter(of_interface), ..route }
    }

    /// `route` without an interface that does not lead there any more, and from an address that we have.
    pub(crate) fn renewed(&self, route: Route) -> Route {
        self.own_end(self.way_back(route))
    }

    /// Whether we have an address from which anything gets there: without one, no way is better than another.
    pub(crate) fn may_lead(&self, route: Route) -> bool {
        let of_family = |own: &InterfaceAddr| own.addr.is_ipv4() == route.remote.is_ipv4();
        is_relayed(route.remote.ip())
            || self.addrs.iter().any(|own| !own.addr.is_loopback() && of_family(own))
    }

    /// Whether the interface of `route` is gone.
    pub(crate) fn has_lost(&self, route: Route) -> bool {
        let of_family = |own: &InterfaceAddr| own.addr.is_ipv4() == route.remote.is_ipv4();
        let has = |index| self.addrs.iter().any(|own| own.index == index && of_family(own));
        route.interface().is_some_and(|interface| !has(interface.get()))
    }

    /// The lower, the better: same host, wired, Wi-Fi, routed within private networks, IPv6 and IPv4 of the internet, relay.
    pub(crate) fn rank(&self, route: Route) -> u8 {
        let addr = route.remote.ip().to_canonical();
        if addr.is_loopback() {
            return 0;
        }
        match self.of_link(route) {
            Some(own) if own.addr == addr => 0,
            Some(own) if own.wireless => 2,
            Some(_) => 1,
            None if is_relayed(addr) => RELAY_RANK,
            None if is_link_local(addr) => 1,
            None if !is_public(addr) => 3,
            // No translator is between, most likely.
            None if addr.is_ipv6() => 4,
            None => 5,
        }
    }
}

/// Behind all ways that need nobody else.
const RELAY_RANK: u8 = 9;

/// Whether an address names its interface.
fn is_scoped(addr: SocketAddr) -> bool {
    Route::to(addr).interface().is_some()
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn share_prefix(own: IpAddr, other: IpAddr, prefix: u8) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => {
            let differing = u32::from(own) ^ u32::from(other);
            prefix > 0 && differing.leading_zeros() >= u32::from(prefix.min(32))
        }
        (IpAddr::V6(own), IpAddr::V6(other)) => {
            let differing = u128::from(own) ^ u128::from(other);
            prefix > 0 && differing.leading_zeros() >= u32::from(prefix.min(128))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::paths::{Candidates, Source};

    fn links() -> Links {
        let mut links = Links::default();
        let own = |name: &str, addr: &str, prefix| InterfaceAddr {
            name: name.to_owned(),
            index: 2,
            addr: addr.parse().unwrap(),
            prefix,
            point_to_point: false,
            wireless: name.starts_with("wl"),
            mtu: None,
        };
        links.replace(&[
            own("eth0", "192.168.1.2", 24),
            own("wlan0", "10.1.0.2", 16),
            own("eth0", "2001:db8:1::2", 64),
        ]);
        links
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn to(text: &str) -> Route {
        Route::to((ip(text), 1).into())
    }

    #[test]
    fn a_path_is_lan_when_its_address_is_on_one_of_our_links() {
        let links = links();
        assert_eq!(links.kind(ip("192.168.1.9")), PathKind::Lan);
        assert_eq!(links.kind(ip("192.168.2.9")), PathKind::Direct);
        assert_eq!(links.kind(ip("fe80::1")), PathKind::Lan);
        assert_eq!(links.kind(ip("::ffff:10.1.200.1")), PathKind::Lan);
        assert_eq!(links.kind(ip("2001:db8:1::9")), PathKind::Lan);
    }

    #[test]
    fn the_first_and_the_last_address_of_a_network_of_ours_mean_all_its_hosts() {
        let links = links();
        for all in ["192.168.1.255", "192.168.1.0", "10.1.255.255", "255.255.255.255"] {
            assert!(links.is_broadcast(ip(all)), "{all}");
        }
        for one in ["192.168.1.254", "192.168.2.255", "10.1.0.255", "2001:db8:1::ff"] {
            assert!(!links.is_broadcast(ip(one)), "{one}");
        }
    }

    #[test]
    fn a_wired_path_is_better_than_wireless_and_the_own_host_is_best() {
        let links = links();
        let ranks: Vec<_> =
            ["127.0.0.1", "192.168.1.9", "10.1.0.9", "8.8.8.8"].map(|addr| links.rank(to(addr))).to_vec();
        assert_eq!(ranks, [0, 1, 2, 5]);
        assert_eq!(
            ["172.16.9.9", "fd00::9", "2001:db8:2::9", "100::9"].map(|addr| links.rank(to(addr))),
            [3, 3, 4, 9]
        );
        assert_eq!(links.rank(to("192.168.1.2")), 0);
    }

    /// Cable and Wi-Fi in one network.
    fn two_in_one() -> Links {
        let mut links = Links::default();
        let own = |name: &str, index, addr: &str, prefix| InterfaceAddr {
            name: name.to_owned(),
            index,
            addr: addr.parse().unwrap(),
            prefix,
            point_to_point: false,
            wireless: name.starts_with("wl"),
            mtu: None,
        };
        links.replace(&[
            own("lo", 1, "127.0.0.1", 8),
            own("eth0", 2, "10.77.0.1", 24),
            own("wlan0", 3, "10.77.0.51", 24),
            own("eth0", 2, "fe80::1", 64),
            own("wlan0", 3, "fe80::51", 64),
        ]);
        links
    }

    fn by(route: Route, interface: u32) -> Route {
        Route { interface: NonZeroU32::new(interface), ..route }
    }

    #[test]
    fn who_is_on_a_link_is_reached_by_each_interface_on_it_and_others_as_the_system_routes() {
        let links = two_in_one();
        let ways = |route| links.ways(route).collect::<Vec<_>>();
        let there = to("10.77.0.9");
        assert_eq!(ways(there), [by(there, 2), by(there, 3)]);
        assert_eq!(ways(by(there, 3)), [by(there, 3)]);
        let from = |local: &str| Route { local: Some(ip(local)), ..there };
        assert_eq!(ways(from("10.77.0.51")), [by(there, 2), by(from("10.77.0.51"), 3)]);
        let near = Route::to("[fe80::9%3]:1".parse().unwrap());
        for route in [to("10.78.0.9"), to("10.77.0.51"), to("127.0.0.1"), near] {
            assert_eq!(ways(route), [route]);
        }
    }

    #[test]
    fn what_came_over_a_router_or_from_this_host_goes_back_as_the_system_routes() {
        let links = two_in_one();
        let there = to("10.77.0.9");
        assert_eq!(links.way_back(by(there, 3)), by(there, 3));
        let near = Route::to("[fe80::9%3]:1".parse().unwrap());
        for route in [to("10.78.0.9"), to("10.77.0.51"), near] {
            assert_eq!(links.way_back(by(route, 3)), route);
        }
        assert_eq!(links.way_back(by(there, 9)), there);
    }

    #[test]
    fn a_way_is_as_good_as_its_interface() {
        let links = two_in_one();
        assert_eq!([2, 3].map(|interface| links.rank(by(to("10.77.0.9"), interface))), [1, 2]);
        let near = ["[fe80::9%2]:1", "[fe80::9%3]:1"].map(|addr| Route::to(addr.parse().unwrap()));
        assert_eq!(near.map(|route| links.rank(route)), [1, 2]);
    }

    #[test]
    fn the_open_network_answers_only_local_networks() {
        let links = links();
        for local in
            ["10.9.9.9", "172.16.0.1", "192.168.77.1", "169.254.1.1", "fd00::1", "fe80::1", "2001:db8:1::7"]
        {
            assert!(links.is_local_network(ip(local)), "{local}");
        }
        for foreign in ["8.8.8.8", "2001:db8:2::7", "100.64.0.1"] {
            assert!(!links.is_local_network(ip(foreign)), "{foreign}");
        }
    }

    #[test]
    fn candidates_follow_the_interfaces_that_go_and_come() {
        let (both, mut one) = (two_in_one(), Links::default());
        one.replace(&both.addrs()[1..].iter().filter(|own| own.index == 3).cloned().collect::<Vec<_>>());
        let there = to("10.77.0.9");
        let mut candidates = Candidates::default();
        candidates.add(by(there, 3), Source::Seen);
        candidates.add(by(there, 2), Source::Proved);
        let routes = |candidates: &Candidates| candidates.iter().map(|known| known.route).collect::<Vec<_>>();
        candidates.follow(&one);
        assert_eq!(routes(&candidates), [by(there, 3)]);
        candidates.follow(&both);
        assert_eq!(routes(&candidates), [by(there, 3), by(there, 2)]);
        // No link leads there: as the system routes.
        candidates.follow(&Links::default());
        assert_eq!(routes(&candidates), [there]);
    }
}
