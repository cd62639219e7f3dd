//! All our UDP sockets: those of the sessions, one per family and all on one port, and those that hear hellos, which
//! every daemon of this host shares.
//!
//! Everything is sent from the session sockets, hellos too, so that who hears one knows where to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn_udp::RecvMeta;
use rustix::io::Errno;
use thiserror::Error;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::core::{Destination, HELLO_PORT, InterfaceAddr, OwnPort, Route, Transmit};
use crate::edge::config::DEFAULT_PORT;
pub use crate::edge::sender::Trouble;
use crate::edge::socket::{Purpose, Socket, Train};
use crate::wire::local::{Health, HealthState};

/// Buffers of one receive call. Each holds up to 64 equal datagrams of one sender.
const RECV_BUFFERS: usize = 8;
/// Bytes of each: the largest thing that the kernel may put in.
const RECV_BYTES: usize = 65_536;
/// Free ports tried until one is free in both families.
const PORTS_TRIED: usize = 16;
/// From one attempt to have the port of hellos to the next, while another program holds it.
const HELLOS_AGAIN: Duration = Duration::from_secs(10);
/// All nodes of a link: every switch floods these two, and no membership is needed.
const ALL_NODES_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));
const ALL_NODES_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The sockets.
pub struct Udp {
    sessions: Vec<Socket>,
    /// Ports that the node opened beside the usual one.
    extra: BTreeMap<OwnPort, Socket>,
    /// It was told that one could not be opened.
    told_lack: bool,
    hellos: Vec<Socket>,
    hello_port: u16,
    /// Tries again to have it, while it cannot be had in each family.
    hellos_again: Option<Interval>,
    interfaces: Vec<InterfaceAddr>,
    own: BTreeSet<IpAddr>,
    /// The interfaces on which anything is heard, if the user named them.
    confined_to: Option<BTreeSet<u32>>,
    memory: Box<[u8]>,
    /// How much of the transmit at hand is sent.
    sent: usize,
}

/// Why there is no socket for sessions.
#[derive(Debug, Error)]
pub enum UdpError {
    /// The user named a port, and it is not free.
    #[error("UDP port {0} is taken\ntry: another --port, or leave it out and any free one is used")]
    Taken(u16),
    /// The operating system refused.
    #[error("cannot bind UDP on {addr}: {error}\ntry: a --bind address that this machine has")]
    Bind {
        /// Which address.
        addr: IpAddr,
        /// Its reason.
        error: io::Error,
    },
}

impl Udp {
    /// Binds the session sockets. Without a port: the usual one, and any free one if that is taken. A family that
    /// this machine does not have is left out, unless one of its addresses was named.
    ///
    /// # Errors
    ///
    /// A named port or address cannot be had.
    pub fn bind(bind: &[IpAddr], port: Option<u16>) -> Result<Self, UdpError> {
        let usual = port.unwrap_or(DEFAULT_PORT);
        let mut bound = bind_all(bind, usual);
        if port.is_none() && matches!(bound, Err(UdpError::Taken(_))) {
            for _ in 0..PORTS_TRIED {
                bound = bind_all(bind, 0);
                if !matches!(bound, Err(UdpError::Taken(_))) {
                    break;
                }
            }
            if let Ok(sockets) = &bound {
                tracing::info!(taken = usual, port = port_of(sockets), "the usual UDP port is taken");
            }
        }
        Ok(Self {
            sessions: bound?,
            extra: BTreeMap::new(),
            told_lack: false,
            hellos: Vec::new(),
            hello_port: HELLO_PORT,
            hellos_again: None,
            interfaces: Vec::new(),
            own: BTreeSet::new(),
            confined_to: None,
            memory: vec![0; RECV_BUFFERS * RECV_BYTES].into_boxed_slice(),
            sent: 0,
        })
    }

    /// What the session sockets are bound to.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.sessions.iter().map(Socket::addr).collect()
    }

    /// The port of all of them.
    pub fn port(&self) -> u16 {
        port_of(&self.sessions)
    }

    /// Opens one more port, for IPv4. One that the system does not give is as one that nothing gets through.
    pub fn open(&mut self, port: OwnPort) {
        let usual = self.sessions.iter().map(Socket::addr).find(SocketAddr::is_ipv4);
        let Some(usual) = usual else { return };
        match Socket::bind(SocketAddr::new(usual.ip(), 0), Purpose::Extra) {
            Ok(socket) => drop(self.extra.insert(port, socket)),
            Err(error) if !std::mem::replace(&mut self.told_lack, true) => {
                tracing::warn!(reason = %error, "no more UDP port can be opened: some routers will not be met directly");
            }
            Err(error) => tracing::debug!(reason = %error, "one more port cannot be opened"),
        }
    }

    /// Closes a port that was opened.
    pub fn close(&mut self, port: OwnPort) {
        self.extra.remove(&port);
    }

    /// Begins to hear hellos; tells how that went.
    pub fn open_hellos(&mut self) -> Health<'static> {
        self.open_hellos_at(HELLO_PORT)
    }

    fn open_hellos_at(&mut self, port: u16) -> Health<'static> {
        self.hello_port = port;
        let failure = self.bind_hellos();
        self.hellos_again = failure.is_some().then(|| {
            let mut again = interval(HELLOS_AGAIN);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            again.reset();
            again
        });
        let (state, why, fix) = match failure {
            None => (HealthState::Ok, format!("UDP {port} is open for hellos"), String::new()),
            Some(error) => (
                HealthState::Warn,
                format!("UDP {port} cannot be bound ({error}), so hellos of others are not heard"),
                format!(
                    "see who has it with `ss -lunp sport = :{port}`; it is tried again every {} s, and mDNS finds the \
                     others meanwhile",
                    HELLOS_AGAIN.as_secs()
                ),
            ),
        };
        if state != HealthState::Ok {
            tracing::warn!(reason = why, "hellos are not heard");
        }
        Health { check: "hello".into(), state, why: why.into(), fix: fix.into() }
    }

    /// Ready when the port of hellos is had that could not be had before.
    pub fn poll_hellos(&mut self, cx: &mut Context<'_>) -> Poll<Health<'static>> {
        loop {
            let Some(again) = &mut self.hellos_again else { return Poll::Pending };
            ready!(again.poll_tick(cx));
            if self.bind_hellos().is_none() {
                tracing::info!(port = self.hello_port, "hellos are heard");
                return Poll::Ready(self.open_hellos_at(self.hello_port));
            }
        }
    }

    /// Binds what is not bound yet; says what is in the way.
    fn bind_hellos(&mut self) -> Option<io::Error> {
        let mut failure = None;
        for addr in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            if self.hellos.iter().any(|socket| socket.addr().is_ipv4() == addr.is_ipv4()) {
                continue;
            }
            let port = self.hello_port;
            match Socket::bind(SocketAddr::new(addr, port), Purpose::Hellos) {
                Ok(socket) => self.hellos.push(socket),
                Err(error) if is_missing_family(&error) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure
    }

    /// The machine's addresses that are used, complete; `confined`: what comes by other interfaces is not heard.
    pub fn set_interfaces(&mut self, interfaces: &[InterfaceAddr], confined: bool) {
        let indices = || interfaces.iter().map(|interface| interface.index).collect();
        self.confined_to = confined.then(indices);
        self.interfaces = interfaces.to_vec();
        self.own = interfaces.iter().map(|interface| interface.addr).collect();
    }

    /// Hands over what has arrived, at most one batch of each socket; ready if there was anything.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>, mut each: impl FnMut(Route, &mut [u8])) -> Poll<()> {
        let mut any = Poll::Pending;
        let usual = self.sessions.iter().chain(&self.hellos).map(|socket| (OwnPort::USUAL, socket));
        for (port, socket) in usual.chain(self.extra.iter().map(|(port, socket)| (*port, socket))) {
            let mut meta = [RecvMeta::default(); RECV_BUFFERS];
            let mut chunks = self.memory.chunks_mut(RECV_BYTES);
            let mut buffers = [(); RECV_BUFFERS].map(|()| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let Poll::Ready(count) = socket.poll_recv(cx, &mut buffers, &mut meta) else { continue };
            any = Poll::Ready(());
            for (meta, buffer) in meta.iter().zip(&mut buffers).take(count) {
                let index = meta.interface_index.unwrap_or(0);
                if self.confined_to.as_ref().is_some_and(|allowed| !allowed.contains(&index)) {
                    tracing::trace!(from = %meta.addr, "a datagram came by an interface that is not used");
                    continue;
                }
                // To a group or to all: then the answer's source is the kernel's choice.
                let local = meta.dst_ip.filter(|addr| self.own.contains(addr));
                let interface = NonZeroU32::new(index);
                let route = Route { remote: meta.addr, local, interface, port };
                for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                    each(route, datagram);
                }
            }
        }
        any
    }

    /// What the network or the kernel answered to something that was sent.
    pub fn poll_trouble(&mut self, cx: &mut Context<'_>) -> Poll<Trouble> {
        for socket in self.sessions.iter_mut().chain(self.extra.values_mut()) {
            if let Poll::Ready(trouble) = socket.poll_trouble(cx) {
                return Poll::Ready(trouble);
            }
        }
        Poll::Pending
    }

    /// Sends; while it is pending it must be called again with the same.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, transmit: &Transmit, bytes: &[u8]) -> Poll<()> {
        match transmit.to {
            Destination::One(route) => {
                let socket = match self.extra.get_mut(&route.port) {
                    Some(extra) => Some(extra).filter(|_| route.remote.is_ipv4()),
                    None if route.port == OwnPort::USUAL => socket_for(&mut self.sessions, &route),
                    None => None,
                };
                let Some(socket) = socket else {
                    tracing::debug!(to = %route.remote, "no socket for this way");
                    return Poll::Ready(());
                };
                let train = train_of(route, transmit, bytes);
                ready!(socket.poll_send(cx, train, &mut self.sent));
                self.sent = 0;
            }
            Destination::Everyone | Destination::Groups => {
                for interface in &self.interfaces {
                    let everyone = everyone_on(interface, self.hello_port);
                    let all = transmit.to == Destination::Everyone;
                    for route in everyone.filter(|route| all || route.remote.ip().is_multicast()) {
                        let Some(socket) = socket_for(&mut self.sessions, &route) else { continue };
                        let train = train_of(route, transmit, bytes);
                        // One that finds a full socket is lost; it is said several times anyway.
                        let _ = socket.poll_send(cx, train, &mut 0);
                    }
                }
            }
        }
        Poll::Ready(())
    }
}

const fn train_of<'a>(route: Route, transmit: &Transmit, bytes: &'a [u8]) -> Train<'a> {
    Train {
        to: route.remote,
        from: route.local,
        interface: route.interface,
        bytes,
        segment_bytes: transmit.segment_bytes,
        hops: transmit.hops,
        cut: transmit.cut,
    }
}

fn bind_all(bind: &[IpAddr], port: u16) -> Result<Vec<Socket>, UdpError> {
    let mut sockets: Vec<Socket> = Vec::new();
    let mut missing = None;
    for addr in bind {
        let port = sockets.first().map_or(port, |first| first.addr().port());
        match Socket::bind(SocketAddr::new(*addr, port), Purpose::Sessions) {
            Ok(socket) => sockets.push(socket),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ADDRINUSE) => {
                return Err(UdpError::Taken(port));
            }
            Err(error) if addr.is_unspecified() && is_missing_family(&error) => {
                missing = Some(UdpError::Bind { addr: *addr, error });
            }
            Err(error) => return Err(UdpError::Bind { addr: *addr, error }),
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

pub(super) fn is_missing_family(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT)
    )
}

fn port_of(sockets: &[Socket]) -> u16 {
    sockets.first().map_or(0, |socket| socket.addr().port())
}

/// The session socket for a way: the one that is bound to its own address, else one of its family.
fn socket_for<'a>(sockets: &'a mut [Socket], route: &Route) -> Option<&'a mut Socket> {
    let of_family = |socket: &Socket| socket.addr().is_ipv4() == route.remote.is_ipv4();
    let exact =
        sockets.iter().position(|socket| of_family(socket) && Some(socket.addr().ip()) == route.local);
    let index = exact.or_else(|| sockets.iter().position(of_family))?;
    sockets.get_mut(index)
}

/// The ways by which all who are on an interface's link are reached.
fn everyone_on(interface: &InterfaceAddr, port: u16) -> impl Iterator<Item = Route> {
    let (local, index) = (Some(interface.addr), NonZeroU32::new(interface.index));
    let (group, broadcast) = match interface.addr {
        // Loopback has no multicast, and only link-local IPv6 is needed for a link.
        IpAddr::V4(addr) => {
            ((!addr.is_loopback()).then_some((ALL_NODES_V4, port).into()), broadcast(addr, interface.prefix))
        }
        IpAddr::V6(addr) if addr.is_unicast_link_local() => {
            (Some(SocketAddrV6::new(ALL_NODES_V6, port, 0, interface.index).into()), None)
        }
        IpAddr::V6(_) => (None, None),
    };
    let broadcast = broadcast.map(|addr| SocketAddr::new(addr, port));
    group.into_iter().chain(broadcast).map(move |remote| Route {
        local,
        interface: index,
        ..Route::to(remote)
    })
}

/// The address of all hosts of a subnet; there is none where a link has two ends only (RFC 3021).
fn broadcast(addr: Ipv4Addr, prefix: u8) -> Option<IpAddr> {
    let hosts = u32::MAX.checked_shr(prefix.into())?;
    (prefix > 0 && prefix < 31).then_some(IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() | hosts)))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use super::*;
    use crate::edge::interfaces::{InterfaceFilter, Interfaces};

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn everywhere() -> Udp {
        let mut udp =
            Udp::bind(&[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)], Some(0))
                .unwrap();
        let filter = InterfaceFilter::new(Vec::new(), None, &[]);
        udp.set_interfaces(&Interfaces::new(Arc::new(filter)).changed().unwrap(), false);
        udp
    }

    async fn say(udp: &mut Udp, to: Destination, bytes: &[u8]) {
        let transmit = Transmit { to, segment_bytes: bytes.len(), hops: None, cut: false };
        poll_fn(|cx| udp.poll_send(cx, &transmit, bytes)).await;
    }

    async fn hear(udp: &mut Udp) -> Vec<(Route, Vec<u8>)> {
        let mut heard = Vec::new();
        poll_fn(|cx| udp.poll_recv(cx, |route, datagram| heard.push((route, datagram.to_vec())))).await;
        heard
    }

    /// A port that no daemon of this machine uses for hellos.
    fn free_port() -> u16 {
        std::net::UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_port_of_hellos_that_another_program_held_is_had_when_that_ends() {
        tokio::time::pause();
        let alone = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = alone.local_addr().unwrap().port();
        let mut udp = everywhere();
        assert_eq!(udp.open_hellos_at(port).state, HealthState::Warn);
        tokio::time::advance(HELLOS_AGAIN * 2).await;
        assert!(poll_fn(|cx| Poll::Ready(udp.poll_hellos(cx))).await.is_pending());
        drop(alone);
        assert_eq!(poll_fn(|cx| udp.poll_hellos(cx)).await.state, HealthState::Ok);
        assert_eq!(udp.hellos.len(), 2);
        assert!(
            poll_fn(|cx| Poll::Ready(udp.poll_hellos(cx))).await.is_pending(),
            "and no more is to be had"
        );
    }

    #[tokio::test]
    async fn every_daemon_of_one_host_hears_a_hello_and_knows_where_to_answer() {
        let port = free_port();
        let (mut left, mut right, mut third) = (everywhere(), everywhere(), everywhere());
        for udp in [&mut left, &mut right, &mut third] {
            assert_eq!(udp.open_hellos_at(port).state, HealthState::Ok);
        }
        say(&mut third, Destination::Everyone, b"hello").await;
        for udp in [&mut left, &mut right] {
            let (route, bytes) = hear(udp).await.remove(0);
            assert_eq!(bytes, b"hello");
            assert_eq!(route.remote.port(), third.port());
            say(udp, Destination::One(route), b"answer").await;
        }
        let answers = async {
            let mut answers = 0;
            while answers < 2 {
                answers += hear(&mut third).await.iter().filter(|(_, bytes)| bytes == b"answer").count();
            }
        };
        answers.await;
    }

    #[tokio::test]
    async fn a_hello_is_heard_on_each_address_by_everyone() {
        let port = free_port();
        let (mut left, mut right, mut third) = (everywhere(), everywhere(), everywhere());
        left.open_hellos_at(port);
        right.open_hellos_at(port);
        third.hello_port = port;
        for interface in third.interfaces.clone() {
            for route in everyone_on(&interface, port) {
                say(&mut third, Destination::One(route), b"hello").await;
                for udp in [&mut left, &mut right] {
                    let (heard, _) = hear(udp).await.remove(0);
                    assert_eq!(heard.remote.ip(), interface.addr, "{route:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn an_answer_comes_from_the_address_that_was_asked() {
        let mut asked = everywhere();
        let mut asker = Udp::bind(&[LOCALHOST], None).unwrap();
        let port = asked.port();
        asked.own.insert("127.0.0.9".parse().unwrap());
        let to = Route::to(SocketAddr::new("127.0.0.9".parse().unwrap(), port));
        say(&mut asker, Destination::One(to), b"?").await;
        let (route, _) = hear(&mut asked).await.remove(0);
        assert_eq!(route.local, Some("127.0.0.9".parse().unwrap()));
        say(&mut asked, Destination::One(route), b"!").await;
        assert_eq!(hear(&mut asker).await.remove(0).0.remote, to.remote);
    }

    #[tokio::test]
    async fn what_comes_by_an_interface_that_is_not_used_is_not_heard() {
        let (mut confined, mut sender) = (everywhere(), everywhere());
        let to = Destination::One(Route::to(SocketAddr::new(LOCALHOST, confined.port())));
        let loopback =
            confined.interfaces.iter().find(|interface| interface.addr == LOCALHOST).unwrap().clone();
        let other = InterfaceAddr { index: loopback.index + 1000, ..loopback.clone() };
        confined.set_interfaces(&[other], true);
        say(&mut sender, to, b"first").await;
        assert_eq!(hear(&mut confined).await, []);
        confined.set_interfaces(&[loopback], true);
        say(&mut sender, to, b"second").await;
        assert_eq!(hear(&mut confined).await.remove(0).1, b"second");
    }

    #[tokio::test]
    async fn both_families_have_one_port_and_a_taken_one_is_replaced_unless_it_was_asked_for() {
        let first = everywhere();
        let port = first.port();
        assert!(first.addrs().iter().all(|addr| addr.port() == port));
        let again = Udp::bind(&[IpAddr::V4(Ipv4Addr::UNSPECIFIED)], Some(port));
        assert!(matches!(again, Err(UdpError::Taken(taken)) if taken == port));

        let one = Udp::bind(&[LOCALHOST], None).unwrap();
        let other = Udp::bind(&[LOCALHOST], None).unwrap();
        assert_ne!(one.port(), other.port());
    }

    #[test]
    fn a_subnet_has_one_broadcast_address_and_a_link_of_two_has_none() {
        let of = |addr: &str, prefix| broadcast(addr.parse().unwrap(), prefix).map(|addr| addr.to_string());
        assert_eq!(of("192.168.1.7", 24).as_deref(), Some("192.168.1.255"));
        assert_eq!(of("10.0.3.1", 22).as_deref(), Some("10.0.3.255"));
        assert_eq!(of("127.0.0.1", 8).as_deref(), Some("127.255.255.255"));
        assert_eq!(of("10.0.0.1", 31), None);
        assert_eq!(of("10.0.0.1", 32), None);
    }
}
