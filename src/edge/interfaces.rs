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
/// Names of interfaces that are not used, told to who looks for the reason: a host of containers has thousands.
const LEFT_OUT: usize = 8;
/// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED` (if_addr.h), as `/proc/net/if_inet6` shows them.
const UNUSABLE: u8 = 0x40 | 0x08;

/// Interfaces that lead to no device of people by the shortest way, unless the user says otherwise (design.md, 12):
/// containers, virtual machines, tunnels, carriers. Bridges that people make, as `br0` and `br-lan`, are none of them.
pub const VIRTUAL: [&str; 55] = [
    // Docker, and what names its bridges alike: the first twelve digits of the network's id.
    "docker*",
    "br-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]",
    "hassio",
    // Podman, nerdctl.
    "podman*",
    "cni-podman*",
    "nerdctl*",
    // LXC, LXD, Incus, systemd-nspawn, Waydroid.
    "lxc*",
    "lxdbr*",
    "incusbr*",
    "ve-*",
    "vb-*",
    "vz-*",
    "waydroid*",
    "veth*",
    // Kubernetes.
    "cni[0-9]*",
    "cbr[0-9]*",
    "flannel*",
    "cali*",
    "*.calico",
    "cilium*",
    "weave*",
    "kube-*",
    "nodelocaldns*",
    "antrea-*",
    "ovn-k8s-*",
    "genev*",
    "vxlan*",
    // Virtual machines, and switches in software.
    "virbr*",
    "vnet*",
    "macvtap*",
    "vmnet*",
    "vboxnet*",
    "mpqemubr*",
    "tap*",
    "fwbr*",
    "fwln*",
    "fwpr*",
    "ovs-system",
    "br-int",
    "br-tun",
    "dummy*",
    // Tunnels.
    "tun*",
    "utun*",
    "wg*",
    "wt[0-9]*",
    "tailscale*",
    "zt*",
    "nebula*",
    "ipsec*",
    "ham[0-9]*",
    // Carriers: nobody is near there, and each byte is paid.
    "ppp*",
    "wwan*",
    "wwp*",
    "rmnet*",
    "ccmni*",
];

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
    left_out: Vec<String>,
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
        Self { filter, current: BTreeSet::new(), left_out: Vec::new(), cause }
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

    /// The interfaces that lead to a network and are not used.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether nothing is to be heard on other interfaces.
    pub fn is_confined(&self) -> bool {
        self.filter.is_confining()
    }

    /// Looks now: the addresses, complete, if they have changed since the last look.
    pub fn changed(&mut self) -> Option<Vec<InterfaceAddr>> {
        match addresses(&self.filter) {
            Ok((addrs, left_out)) if addrs == self.current && left_out == self.left_out => None,
            Ok((addrs, left_out)) => {
                tracing::debug!(addresses = ?addrs, "the addresses of this machine changed");
                self.current = addrs;
                self.left_out = left_out;
                Some(self.current.iter().cloned().collect())
            }
            Err(error) => {
                tracing::warn!(reason = %error, "the addresses of this machine cannot be read");
                None
            }
        }
    }
}

/// The addresses that are used, and the names of the interfaces that are not.
fn addresses(filter: &InterfaceFilter) -> io::Result<(BTreeSet<InterfaceAddr>, Vec<String>)> {
    let unusable =
        std::fs::read_to_string("/proc/net/if_inet6").map(|table| unusable(&table)).unwrap_or_default();
    let up = if_addrs::get_if_addrs()?.into_iter().filter(|interface| {
        interface.is_oper_up() && !unusable.contains(&(interface.ip(), interface.index.unwrap_or(0)))
    });
    let (used, others): (Vec<_>, Vec<_>) = up.partition(|interface| filter.uses(interface));
    let mut left_out: Vec<_> = others.into_iter().map(|interface| interface.name).collect();
    left_out.sort_unstable();
    left_out.dedup();
    left_out.retain(|name| used.iter().all(|interface| interface.name != *name));
    left_out.truncate(LEFT_OUT);
    Ok((used.into_iter().map(address).collect(), left_out))
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
    fn by_default_the_networks_of_people_are_used_and_those_of_containers_machines_and_tunnels_are_not() {
        let default = filter(&[], None);
        let people = "eth0 eth0.10 eno1 enp3s0 enp3s0f1np1 ens18 end0 enx001122334455 lan0 lan1 wan wlan0 wlan0.sta1 \
                      wlp2s0 wlx001122334455 wlu1u2 ap0 uap0 phy0-ap0 phy0-sta0 phy1-mesh0 wl0.1 radio0 p2p-wlan0-0 \
                      mesh0 bat0 br0 br1 bridge0 br-lan br-guest br-iot br-wan br-vlan10 br-lan.20 br-ex vmbr0 vmbr1 \
                      br-cafe br-deadbeef br-0123456789abc br-0123456789ag bond0 bond0.5 team0 nm-bridge nm-team \
                      vlan10 usb0 usb1 rndis0 ncm0 bnep0 pan0 lowpan0 macvlan0 mac0 shim-br0 switch0 xenbr0 eth1 \
                      ethernet lan en0 hsr0 ib0 vlxlan lxd0 container-lan";
        let others = "docker0 docker_gwbridge br-0123456789ab br-f00dcafe1234 hassio podman0 podman1 cni-podman0 \
                      nerdctl0 lxcbr0 lxdbr0 lxdbr1 incusbr0 incusbr-1 ve-web vb-web vz-zone waydroid0 veth12ab \
                      veth0a1b2c3 cni0 cbr0 flannel.1 flannel-v6.1 cali0123456789a vxlan.calico vxlan-v6.calico \
                      cilium_host cilium_net cilium_vxlan lxc0123456789ab lxc_health weave kube-ipvs0 kube-bridge \
                      nodelocaldns antrea-gw0 ovn-k8s-mp0 genev_sys_6081 vxlan0 vxlan_sys_4789 virbr0 virbr0-nic \
                      vnet0 macvtap0 vmnet1 vmnet8 vboxnet0 mpqemubr0 tap0 tap100i0 fwbr100i0 fwln100i0 fwpr100p0 \
                      ovs-system br-int br-tun dummy0 tun0 utun3 wg0 wg-home wt0 tailscale0 ztabcdefgh nebula1 ipsec0 \
                      ham0 ppp0 wwan0 wwp0s20u4 rmnet0 rmnet_data0 ccmni1";
        for name in people.split_ascii_whitespace() {
            assert!(default.uses_name(name, false), "{name} is left out");
        }
        for name in others.split_ascii_whitespace() {
            assert!(!default.uses_name(name, false), "{name} is used");
            assert!(filter(&[name], None).uses_name(name, true), "{name} was named");
        }
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
