//! The home router: where what is not for our neighbours goes.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Where the kernel shows its routes: those to everywhere come first.
const ROUTES: &str = "/proc/net/route";
/// As much of it is read: a router of the internet has a million of them, and asks nobody for a port.
const ROUTES_BYTES: u64 = 64 * 1024;
/// `RTF_UP` and `RTF_GATEWAY` (route.h).
const USABLE: u16 = 0x1 | 0x2;

/// The router, and which of our addresses it knows us by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) router: Ipv4Addr,
    pub(super) own: Ipv4Addr,
}

impl Gateway {
    /// The one that leads farthest, by an address that is one of `own`: other networks are not to be used.
    pub(super) fn find(own: &[Ipv4Addr]) -> Option<Self> {
        let mut routes = String::new();
        File::open(ROUTES).ok()?.take(ROUTES_BYTES).read_to_string(&mut routes).ok()?;
        let known = routers(&routes).into_iter().filter_map(|router| {
            let ours = own_towards(router).ok()?;
            own.contains(&ours).then_some(Self { router, own: ours })
        });
        known.into_iter().next()
    }
}

/// The routers to everywhere, the preferred one first. A line is `name destination gateway flags refcnt use metric
/// mask …`, addresses in hexadecimal as they lie in memory.
fn routers(routes: &str) -> Vec<Ipv4Addr> {
    let read = |line: &str| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[_, to, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let addr = |text| u32::from_str_radix(text, 16).map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
        let everywhere = addr(to).ok()?.is_unspecified() && addr(mask).ok()?.is_unspecified();
        let usable = u16::from_str_radix(flags, 16).ok()? & USABLE == USABLE;
        let router = addr(gateway).ok()?;
        (everywhere && usable && !router.is_unspecified()).then_some((metric.parse::<u32>().ok()?, router))
    };
    let mut routers: Vec<_> = routes.lines().filter_map(read).collect();
    routers.sort_by_key(|(metric, _)| *metric);
    routers.into_iter().map(|(_, router)| router).collect()
}

/// The address that the kernel would send from; nothing is sent.
fn own_towards(router: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((router, crab_nat::GATEWAY_PORT))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok(own),
        IpAddr::V6(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_route_to_everywhere_names_the_router() {
        let [far, near, net] = [[192, 168, 1, 1], [10, 0, 0, 138], [192, 168, 1, 0]]
            .map(|bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes)));
        let mask = format!("{:08X}", u32::from_ne_bytes([255, 255, 255, 0]));
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             wlan0\t00000000\t{far}\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{near}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             down0\t00000000\t{far}\t0002\t0\t0\t0\t00000000\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
             half0\t00000000\t{far}\t0003\t0\t0\t0\t00000080\t0\t0\t0\n\
             eth0\t{net}\t00000000\t0001\t0\t0\t100\t{mask}\t0\t0\t0\n"
        );
        let expected = ["10.0.0.138", "192.168.1.1"].map(|addr| addr.parse::<Ipv4Addr>().unwrap());
        assert_eq!(routers(&table), expected);
    }

    #[test]
    fn a_table_of_garbage_names_no_router() {
        for table in ["", "\n\n", "eth0", "eth0 0 0 3 0 0 0", "eth0 x 1 3 0 0 0 0", "eth0 0 1 3 0 0 -1 0"] {
            assert_eq!(routers(table), [] as [Ipv4Addr; 0], "{table}");
        }
    }
}
