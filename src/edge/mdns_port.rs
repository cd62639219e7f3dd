//! Whether the port of multicast DNS can be had: the crate does not say when it cannot.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::edge::udp::is_missing_family;
use crate::wire::local::{Health, HealthState};

const PORT: u16 = 5353;

/// What stands in the way; `None` if nothing does.
pub(super) fn obstacle() -> Option<Health<'static>> {
    obstacle_at(PORT)
}

fn obstacle_at(port: u16) -> Option<Health<'static>> {
    let refused = |addr: IpAddr| {
        let error = bind_shared(SocketAddr::new(addr, port)).err()?;
        (!is_missing_family(&error)).then_some(error)
    };
    let v4 = refused(Ipv4Addr::UNSPECIFIED.into());
    let v6 = refused(Ipv6Addr::UNSPECIFIED.into());
    let family = match (&v4, &v6) {
        (Some(_), None) => " by IPv4",
        (None, Some(_)) => " by IPv6",
        (None, None) | (Some(_), Some(_)) => "",
    };
    let error = v4.or(v6)?;
    let (cause, fix) = match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => (
            format!("another program holds UDP {port} and does not share it"),
            format!("see which with `ss -lunp sport = :{port}`, and end it"),
        ),
        Some(Errno::ACCESS | Errno::PERM) => (
            format!("UDP {port} is not permitted to this process"),
            format!("permit it: sysctl net.ipv4.ip_unprivileged_port_start is to be at most {port}"),
        ),
        _ => (format!("UDP {port} cannot be bound ({error})"), "start with --no-mdns".to_owned()),
    };
    Some(Health {
        check: "mdns".into(),
        state: HealthState::Warn,
        why: format!("{cause}, so there is no multicast DNS{family}").into(),
        fix: format!("{fix}; hellos, remembered addresses and --peer find peers meanwhile").into(),
    })
}

/// As all programs of multicast DNS should: beside others that share it.
fn bind_shared(addr: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_port_that_somebody_holds_alone_is_told_and_one_that_is_shared_is_not() {
        let alone = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = alone.local_addr().unwrap().port();
        let obstacle = obstacle_at(port).unwrap();
        assert!(
            obstacle.why.contains("another program holds") && obstacle.why.ends_with(" by IPv4"),
            "{}",
            obstacle.why
        );
        drop(alone);

        let shared = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        shared.set_reuse_address(true).unwrap();
        shared.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).unwrap();
        assert!(obstacle_at(port).is_none());
    }
}
