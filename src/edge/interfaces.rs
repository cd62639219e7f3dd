//! The machine's own addresses on the interfaces that we use, and their changes.
//!
//! They are read when the kernel says that something changed. An IPv6 address counts when the kernel has made sure that
//! nobody else has it: before, nothing can be sent from it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use if_addrs::Interface;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::core::InterfaceAddr;
use crate::edge::glob;
use crate::edge::netlink::AddressChanges;

/// From one look at the addresses to the next where the kernel does not tell of changes: a plugged cable should be seen
/// while its owner still looks at it, and one look is some system calls of some microseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED` (if_addr.h), as `/proc/net/if_inet6` shows them.
const UNUSABLE: u8 = 0x40 | 0x08;

/// Interfaces that lead to no neighbour, unless the user says otherwise: containers, virtual machines, tunnels.
pub const VIRTUAL: [&str; 10] =
    ["docker*", "br-*", "veth*", "virbr*", "vmnet*", "tun*", "tap*", "wg*", "tailscale*", "zt*"];

/// Which interfaces we use. Loopback is always one of them: other daemons of this host are found there.
#[derive(Clone, Debug, Default)]
pub struct InterfaceFilter {
    wanted: Vec<String>,
    ignored: Option<Vec<String>>,
    /// The addresses that the session sockets are bound to, when they are not bound to all.
    bound: Vec<IpAddr>,
}

impl InterfaceFilter {
    /// `wanted`: only these patterns, if there are any. `ignored`: none of these; [`VIRTUAL`] if neither is given.
    /// `bind`: the addresses of the session sockets.
    pub fn new(wanted: Vec<String>, ignored: Option<Vec<String>>, bind: &[IpAddr]) -> Self {
        let all = bind.iter().any(IpAddr::is_unspecified);
        Self { wanted, ignored, bound: if all { Vec::new() } else { bind.to_vec() } }
    }

    /// Whether this address of this interface is used.
    pub fn uses(&self, interface: &Interface) -> bool {
        let bound = self.bound.is_empty() || self.bound.contains(&interface.ip());
        bound && (interface.is_loopback() || self.uses_name(&interface.name, interface.is_p2p()))
    }

    /// Whether the user named interfaces: then nothing is heard on others. By default only nothing is announced there.
    pub fn is_confining(&self) -> bool {
        !self.wanted.is_empty() || self.ignored.is_some()
    }

    fn uses_name(&self, name: &str, point_to_point: bool) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| glob::matches(pattern, name));
        if self.ignored.as_ref().is_some_and(|ignored| any(ignored)) {
            return false;
        }
        if !self.wanted.is_empty() {
            return any(&self.wanted);
        }
        let virtual_by_default =
            self.ignored.is_none() && VIRTUAL.iter().any(|pattern| glob::matches(pattern, name));
        !point_to_point && !virtual_by_default
    }
}

/// The addresses that we use, as they are now.
#[derive(Debug)]
pub struct Interfaces {
    filter: Arc<InterfaceFilter>,
    current: BTreeSet<InterfaceAddr>,
    cause: Cause,
}

/// What makes us look.
#[derive(Debug)]
enum Cause {
    Told(AddressChanges),
    Time(Interval),
}

impl Interfaces {
    /// Nothing is known before the first [`Interfaces::poll_changed`].
    pub fn new(filter: Arc<InterfaceFilter>) -> Self {
        let cause = match AddressChanges::subscribe() {
            Ok(changes) => Cause::Told(changes),
            Err(error) => {
                tracing::info!(reason = %error, "changes of this machine's addresses are not told: they are looked for");
                let mut look = interval(LOOK_INTERVAL);
                look.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Cause::Time(look)
            }
        };
        Self { filter, current: BTreeSet::new(), cause }
    }

    /// The addresses, complete, whenever they have changed.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<InterfaceAddr>> {
        loop {
            match &mut self.cause {
                Cause::Told(changes) => ready!(changes.poll_changed(cx)),
                Cause::Time(look) => drop(ready!(look.poll_tick(cx))),
            }
            if let Some(changed) = self.changed() {
                return Poll::Ready(changed);
            }
        }
    }

    /// Whether nothing is to be heard on other interfaces.
    pub fn is_confined(&self) -> bool {
        self.filter.is_confining()
    }

    /// Looks now: the addresses, complete, if they have changed since the last look.
    pub fn changed(&mut self) -> Option<Vec<InterfaceAddr>> {
        match addresses(&self.filter) {
            Ok(addrs) if addrs == self.current => None,
            Ok(addrs) => {
                tracing::debug!(addresses = ?addrs, "the addresses of this machine changed");
                self.current = addrs;
                Some(self.current.iter().cloned().collect())
            }
            Err(error) => {
                tracing::warn!(reason = %error, "the addresses of this machine cannot be read");
                None
            }
        }
    }
}

fn addresses(filter: &InterfaceFilter) -> io::Result<BTreeSet<InterfaceAddr>> {
    let unusable =
        std::fs::read_to_string("/proc/net/if_inet6").map(|table| unusable(&table)).unwrap_or_default();
    let used = if_addrs::get_if_addrs()?.into_iter().filter(|interface| {
        interface.is_oper_up()
            && filter.uses(interface)
            && !unusable.contains(&(interface.ip(), interface.index.unwrap_or(0)))
    });
    Ok(used.map(address).collect())
}

/// The addresses, with the numbers of their interfaces, that the kernel has not finished to check or found taken. A line
/// is `address index prefix scope flags name`, in hexadecimal.
fn unusable(if_inet6: &str) -> BTreeSet<(IpAddr, u32)> {
    let read = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let addr = u128::from_str_radix(fields.next()?, 16).ok()?;
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u8::from_str_radix(fields.nth(2)?, 16).ok()?;
        (flags & UNUSABLE != 0).then(|| (Ipv6Addr::from(addr).into(), index))
    };
    if_inet6.lines().filter_map(read).collect()
}

fn address(interface: Interface) -> InterfaceAddr {
    let prefix = match &interface.addr {
        if_addrs::IfAddr::V4(addr) => addr.prefixlen,
        if_addrs::IfAddr::V6(addr) => addr.prefixlen,
    };
    let point_to_point = interface.is_p2p();
    let wireless = is_wireless(&interface.name);
    let index = interface.index.unwrap_or(0);
    let mtu = mtu_of(&interface.name, index);
    InterfaceAddr { addr: interface.ip(), index, name: interface.name, prefix, point_to_point, wireless, mtu }
}

/// What the kernel says; nothing where it shows the interfaces of another namespace.
fn mtu_of(name: &str, index: u32) -> Option<u32> {
    let number = |attribute: &str| -> Option<u32> {
        let path = Path::new("/sys/class/net").join(name).join(attribute);
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    (number("ifindex") == Some(index)).then(|| number("mtu")).flatten()
}

/// By the kernel's flag, or by the name where that is hidden; never by the driver, which would say that a cable between
/// two namespaces is no cable.
fn is_wireless(name: &str) -> bool {
    name.starts_with("wl") || Path::new("/sys/class/net").join(name).join("phy80211").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(wanted: &[&str], ignored: Option<&[&str]>) -> InterfaceFilter {
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        InterfaceFilter::new(owned(wanted), ignored.map(owned), &[])
    }

    #[test]
    fn virtual_interfaces_are_left_out_until_the_user_names_them() {
        let default = filter(&[], None);
        assert!(default.uses_name("eth0", false));
        assert!(default.uses_name("br0", false));
        assert!(!default.uses_name("docker0", false));
        assert!(!default.uses_name("veth12ab", false));
        assert!(!default.uses_name("ppp0", true));

        let named = filter(&["wg*"], None);
        assert!(named.uses_name("wg0", true));
        assert!(!named.uses_name("eth0", false));

        let ignoring = filter(&[], Some(&["eth*"]));
        assert!(!ignoring.uses_name("eth0", false));
        assert!(ignoring.uses_name("docker0", false));
        assert!(!filter(&["eth*"], Some(&["eth1"])).uses_name("eth1", false));
    }

    #[test]
    fn an_ipv6_address_that_the_kernel_still_checks_is_not_used() {
        let table = "fe800000000000000000000000000001 02 40 20 c0     eth0\n\
                     fe800000000000000000000000000002 02 40 20 80     eth0\n\
                     fd000000000000000000000000000003 0b 40 00 88     eth1\n\
                     garbage\n";
        let expected = [("fe80::1", 2), ("fd00::3", 11)].map(|(addr, index)| (addr.parse().unwrap(), index));
        assert_eq!(unusable(table), BTreeSet::from(expected));
    }

    #[tokio::test]
    async fn loopback_is_there_and_nothing_is_told_twice() {
        let mut interfaces = Interfaces::new(Arc::new(filter(&[], None)));
        let addrs = interfaces.changed().unwrap();
        assert!(
            addrs.iter().any(|addr| addr.addr.is_loopback() && addr.prefix == 8 && addr.index > 0),
            "{addrs:?}"
        );
        assert_eq!(interfaces.changed(), None);
    }

    #[tokio::test]
    async fn sockets_bound_to_one_address_use_the_interface_of_that_address_only() {
        let bound = InterfaceFilter::new(Vec::new(), None, &["127.0.0.1".parse().unwrap()]);
        let addrs = Interfaces::new(Arc::new(bound)).changed().unwrap();
        assert_eq!(
            addrs.iter().map(|addr| addr.addr).collect::<Vec<_>>(),
            ["127.0.0.1".parse::<IpAddr>().unwrap()]
        );
    }
}
