//! One UDP socket: trains of datagrams in one system call where the kernel can, singly where it cannot.
//!
//! Nothing that the network or the kernel answers ends it: a datagram that cannot be sent is one that was lost.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use crate::edge::sender::{Leave, Sender, Trouble, read_trouble};
use crate::limits;
use crate::wire::packet::size;

/// Asked for, both ways: a burst at full rate must survive a moment in which the daemon does not run. The kernel
/// grants less where its limit is lower.
const BUFFER_BYTES: usize = 4 << 20;
/// Errors of the kernel read in a row before the others get their turn.
const ERRORS_IN_A_ROW: usize = 16;
/// After an error of the network tokio takes a socket for writable for ever; then a full one is tried again so soon.
const FULL_RETRY: Duration = Duration::from_millis(1);

/// Bytes of datagrams that may leave in fragments where a link takes no more: IPv4 promises far less than these, and what
/// cannot be smaller has to get there. Longer ones only ask whether they pass whole.
const CUT_BYTES: usize = limits::DATAGRAM_BYTES + size::RELAY_OVERHEAD;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It has its port alone, sends, and is told what could not be delivered.
    Sessions,
    /// The same, and perhaps one of many that are there for a moment.
    Extra,
    /// It shares its port with the other daemons of this host, and only hears.
    Hellos,
}

/// Datagrams for one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Train<'a> {
    /// Where to.
    pub(super) to: SocketAddr,
    /// From which of our addresses; the kernel chooses if none is named or it is gone.
    pub(super) from: Option<IpAddr>,
    /// By which of our interfaces; the kernel chooses if none is named or it is gone.
    pub(super) interface: Option<NonZeroU32>,
    /// One after the other.
    pub(super) bytes: &'a [u8],
    /// The length of each but the last.
    pub(super) segment_bytes: usize,
    /// After how many routers they end, if that is said. With none they stay on the link.
    pub(super) hops: Option<u8>,
    /// Routers may cut them up.
    pub(super) cut: bool,
}

/// One bound socket.
pub(super) struct Socket {
    io: Arc<UdpSocket>,
    addr: SocketAddr,
    state: UdpSocketState,
    sender: Sender,
    /// Datagrams of one train; 1 where the card or the kernel cannot send any.
    segments: usize,
    /// Resolves when the kernel has an error to tell.
    errors: Pin<Box<dyn Future<Output = ()> + Send>>,
    errors_waiting: bool,
    full: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Binds it.
    pub(super) fn bind(addr: SocketAddr, purpose: Purpose) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if purpose == Purpose::Hellos {
            // Not SO_REUSEPORT: with it each datagram would go to one socket, with this a multicast or broadcast goes
            // to all.
            socket.set_reuse_address(true)?;
        }
        if purpose != Purpose::Extra {
            let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(BUFFER_BYTES);
        }
        if addr.is_ipv4() {
            socket.set_broadcast(true)?;
            socket.set_multicast_ttl_v4(1)?;
            socket.set_multicast_loop_v4(true)?;
        } else {
            socket.set_multicast_hops_v6(1)?;
            socket.set_multicast_loop_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;

        let io = Arc::new(UdpSocket::from_std(socket.into())?);
        let state = UdpSocketState::new((&*io).into())?;
        if purpose != Purpose::Hellos {
            state.enable_transport_errors((&*io).into())?;
        }
        let errors = errors_of(&io);
        let (sender, segments) = (Sender::new(addr.is_ipv4()), state.max_gso_segments());
        let addr = io.local_addr()?;
        Ok(Self { addr, io, state, sender, segments, errors, errors_waiting: false, full: None })
    }

    /// What it is bound to.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// One batch of what has arrived: `meta` tells what is in each buffer.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<usize> {
        for _ in 0..ERRORS_IN_A_ROW {
            if let Err(error) = ready!(self.io.poll_recv_ready(cx)) {
                tracing::debug!(reason = %error, "a socket cannot be waited for");
                return Poll::Pending;
            }
            let received =
                self.io.try_io(Interest::READABLE, || self.state.recv((&*self.io).into(), buffers, meta));
            match received {
                Ok(count) => return Poll::Ready(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => tracing::debug!(reason = %error, "receiving failed"),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what is left of the train after the first `sent` bytes, and counts it there. What cannot be sent is lost.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>, train: Train<'_>, sent: &mut usize) -> Poll<()> {
        let mut cut = train.cut;
        if let Some(full) = &mut self.full {
            ready!(full.as_mut().poll(cx));
            self.full = None;
        }
        while *sent < train.bytes.len() {
            let rest = Train { bytes: &train.bytes[*sent..], cut, ..train };
            // Tried at once: tokio knows only after its next turn that a new socket is writable.
            let mut result = self.send_some(rest);
            if would_block(&result) {
                if ready!(self.io.poll_send_ready(cx)).is_err() {
                    return Poll::Ready(());
                }
                let io = Arc::clone(&self.io);
                result = io.try_io(Interest::WRITABLE, || self.send_some(rest));
            }
            match result {
                Ok(bytes) => *sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_full(cx)),
                // No link of ours takes it whole; the node hears of that as a trouble.
                Err(error) if is_too_large(&error) && !cut && self.may_cut(train.segment_bytes) => cut = true,
                Err(error) => {
                    tracing::debug!(to = %train.to, reason = %error, "sending failed");
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// What the network or the kernel answered to something that was sent.
    pub(super) fn poll_trouble(&mut self, cx: &mut Context<'_>) -> Poll<Trouble> {
        for _ in 0..ERRORS_IN_A_ROW {
            if !self.errors_waiting {
                ready!(self.errors.as_mut().poll(cx));
                self.errors_waiting = true;
            }
            match self.io.try_io(Interest::ERROR, || read_trouble(&*self.io)) {
                Ok(Some(trouble)) => return Poll::Ready(trouble),
                Ok(None) => {}
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::debug!(reason = %error, "the errors of a socket cannot be read");
                    }
                    self.errors_waiting = false;
                    self.errors = errors_of(&self.io);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits until a full socket may have room.
    fn poll_full(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.io.poll_send_ready(cx).is_pending() {
            return Poll::Pending;
        }
        let mut retry = Box::pin(sleep(FULL_RETRY));
        let waiting = retry.as_mut().poll(cx);
        self.full = Some(retry);
        waiting
    }

    /// The same with the hops that the train may make, and whether it may be cut up: the kernel takes neither with a
    /// datagram, so the socket has another setting for so long.
    fn send_some(&mut self, train: Train<'_>) -> io::Result<usize> {
        if train.cut && self.addr.is_ipv4() {
            set_ip_mtu_discover(&*self.io, Ipv4PathMtuDiscovery::DONT)?;
            let result = self.send_near(train);
            set_ip_mtu_discover(&*self.io, Ipv4PathMtuDiscovery::PROBE)?;
            return result;
        }
        self.send_near(train)
    }

    fn send_near(&mut self, train: Train<'_>) -> io::Result<usize> {
        let Some(hops) = train.hops.filter(|hops| *hops > 0) else { return self.send_far(train) };
        let usual = self.hops()?;
        self.set_hops(u32::from(hops))?;
        let result = self.send_far(train);
        self.set_hops(usual)?;
        result
    }

    /// IPv6 has links of 1280 bytes at least, and no cutting on the way.
    const fn may_cut(&self, bytes: usize) -> bool {
        self.addr.is_ipv4() && bytes <= CUT_BYTES
    }

    fn hops(&self) -> io::Result<u32> {
        let socket = SockRef::from(&*self.io);
        if self.addr.is_ipv4() { socket.ttl_v4() } else { socket.unicast_hops_v6() }
    }

    fn set_hops(&self, hops: u32) -> io::Result<()> {
        let socket = SockRef::from(&*self.io);
        if self.addr.is_ipv4() { socket.set_ttl_v4(hops) } else { socket.set_unicast_hops_v6(hops) }
    }

    /// Sends as much as one system call takes and tells how many bytes that were.
    fn send_far(&mut self, train: Train<'_>) -> io::Result<usize> {
        // The kernel cuts up no train.
        let segments = if train.cut { 1 } else { self.segments.clamp(1, limits::TRAIN_DATAGRAMS) };
        let bytes = train.bytes.len().min(segments * train.segment_bytes.max(1));
        let train = Train { bytes: &train.bytes[..bytes], ..train };
        if bytes <= train.segment_bytes {
            return self.send_single(train);
        }
        match self.send_with(train) {
            Err(error) if refuses_arguments(&error) || is_too_large(&error) => {}
            result => return result.map(|()| bytes),
        }
        // Either this card or kernel cannot send trains, or this way is bad: then a single datagram fails as well, or
        // leaves only by another way, and trains are as good as before.
        let single = Train { bytes: &train.bytes[..train.segment_bytes], ..train };
        match self.send_with(single) {
            Ok(()) => {
                tracing::info!("this network sends no trains of datagrams: sending each by itself");
                self.segments = 1;
                Ok(train.segment_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => self.send_single(single),
        }
    }

    /// One datagram; again without its source address if that one is gone, and by whichever interface if that is.
    fn send_single(&mut self, train: Train<'_>) -> io::Result<usize> {
        let bytes = train.bytes.len();
        let weaker = [Train { from: None, ..train }, Train { from: None, interface: None, ..train }];
        let mut result = self.send_with(train);
        for weaker in weaker {
            if train.from.is_none() && train.interface.is_none()
                || !result.as_ref().is_err_and(refuses_arguments)
            {
                break;
            }
            result = self.send_with(weaker);
        }
        result.map(|()| bytes)
    }

    fn send_with(&mut self, train: Train<'_>) -> io::Result<()> {
        let on_link = train.hops == Some(0);
        let leave = Leave { to: train.to, from: train.from, interface: train.interface, on_link };
        let segment_bytes =
            u16::try_from(train.segment_bytes).ok().filter(|bytes| train.bytes.len() > usize::from(*bytes));
        match self.sender.send(&*self.io, leave, train.bytes, segment_bytes) {
            // What the network answered to an earlier datagram fails the next call, whatever that one is: ask again.
            Err(error) if answers_an_earlier_datagram(&error) => {
                self.sender.send(&*self.io, leave, train.bytes, segment_bytes)
            }
            result => result,
        }
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn refuses_arguments(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::IO | Errno::ADDRNOTAVAIL | Errno::NETUNREACH | Errno::NODEV | Errno::NXIO)
    )
}

fn answers_an_earlier_datagram(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNREFUSED
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::PROTO
                | Errno::ACCESS
                | Errno::HOSTDOWN
                | Errno::MSGSIZE
        )
    )
}

fn is_too_large(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

fn errors_of(io: &Arc<UdpSocket>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let io = Arc::clone(io);
    Box::pin(async move {
        if io.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn session() -> Socket {
        Socket::bind((LOCALHOST, 0).into(), Purpose::Sessions).unwrap()
    }

    fn train(to: SocketAddr, bytes: &[u8], segment_bytes: usize) -> Train<'_> {
        Train { to, from: None, interface: None, bytes, segment_bytes, hops: None, cut: false }
    }

    async fn send(socket: &mut Socket, train: Train<'_>) {
        let mut sent = 0;
        poll_fn(|cx| socket.poll_send(cx, train, &mut sent)).await;
    }

    /// The lengths of `count` datagrams.
    async fn lengths(socket: &Socket, count: usize) -> Vec<usize> {
        let mut found = Vec::new();
        while found.len() < count {
            let mut memory = vec![0; 65_536];
            let mut meta = [RecvMeta::default()];
            poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut memory)], &mut meta)).await;
            let stride = meta[0].stride;
            found.extend(memory[..meta[0].len].chunks(stride).map(<[u8]>::len));
        }
        found
    }

    #[tokio::test]
    async fn a_train_arrives_as_its_datagrams() {
        let (mut from, to) = (session(), session());
        let train = Train { from: Some(LOCALHOST), ..train(to.addr(), &[7; 4500], 1000) };
        send(&mut from, train).await;
        assert_eq!(lengths(&to, 5).await, [1000, 1000, 1000, 1000, 500]);
    }

    #[tokio::test]
    async fn the_hops_of_one_datagram_are_not_those_of_the_next() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let bind = || Socket::bind(any.parse().unwrap(), Purpose::Sessions).unwrap();
            let (mut from, to) = (bind(), bind());
            let usual = from.hops().unwrap();
            let near = Train { hops: Some(1), ..train(to.addr(), b"near", 4) };
            send(&mut from, near).await;
            assert_eq!(lengths(&to, 1).await, [4]);
            assert_eq!(from.hops().unwrap(), usual);
        }
    }

    #[tokio::test]
    async fn a_source_address_that_is_gone_neither_loses_the_datagram_nor_ends_the_trains() {
        let (mut from, to) = (session(), session());
        let segments = from.segments;
        let gone = Some("192.0.2.1".parse().unwrap());
        send(&mut from, Train { from: gone, ..train(to.addr(), &[7; 2500], 1000) }).await;
        assert_eq!(lengths(&to, 3).await, [1000, 1000, 500]);
        assert_eq!(from.segments, segments);
    }

    #[tokio::test]
    async fn an_interface_that_is_gone_neither_loses_the_datagram_nor_ends_the_trains() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let bind = || Socket::bind(any.parse().unwrap(), Purpose::Sessions).unwrap();
            let (mut from, to) = (bind(), bind());
            let segments = from.segments;
            let gone = NonZeroU32::new(54_321);
            let source = Some(to.addr().ip());
            for source in [None, source] {
                let train = Train { from: source, interface: gone, ..train(to.addr(), &[7; 2500], 1000) };
                send(&mut from, train).await;
                assert_eq!(lengths(&to, 3).await, [1000, 1000, 500]);
            }
            assert_eq!(from.segments, segments);
        }
    }

    #[tokio::test]
    async fn a_datagram_that_may_be_cut_leaves_no_other_one_to_be_cut() {
        let (mut from, to) = (session(), session());
        send(&mut from, Train { cut: true, ..train(to.addr(), &[7; 2500], 1000) }).await;
        assert_eq!(lengths(&to, 3).await, [1000, 1000, 500]);
        let setting = rustix::net::sockopt::ip_mtu_discover(&*from.io).unwrap();
        assert_eq!(setting, Ipv4PathMtuDiscovery::PROBE);
    }

    #[tokio::test]
    async fn what_no_link_takes_fails_by_itself_and_the_next_one_leaves() {
        let (mut from, to) = (session(), session());
        // No UDP datagram is longer than 65,507 bytes, and loopback takes no packet of more than 65,536.
        let long = vec![7; 65_530];
        send(&mut from, train(to.addr(), &long, long.len())).await;
        send(&mut from, train(to.addr(), b"next", 4)).await;
        assert_eq!(lengths(&to, 1).await, [4]);
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_sent_to_ends_neither_the_socket_nor_the_trains() {
        let mut from = Socket::bind("[::1]:0".parse().unwrap(), Purpose::Sessions).unwrap();
        let segments = from.segments;
        let no_scope = "[fe80::1]:5".parse().unwrap();
        send(&mut from, train(no_scope, &[7; 2500], 1000)).await;
        assert_eq!(from.segments, segments);
        let to = Socket::bind("[::1]:0".parse().unwrap(), Purpose::Sessions).unwrap();
        send(&mut from, train(to.addr(), &[7; 10], 10)).await;
        assert_eq!(lengths(&to, 1).await, [10]);
    }

    #[tokio::test]
    async fn the_address_at_which_nobody_listens_is_told_each_time_and_others_still_get_theirs() {
        let (mut from, to) = (session(), session());
        let nobody = session().addr();
        for _ in 0..3 {
            send(&mut from, train(nobody, b"?", 1)).await;
            assert_eq!(poll_fn(|cx| from.poll_trouble(cx)).await, Trouble::Unreachable(nobody));
        }
        send(&mut from, train(nobody, b"?", 1)).await;
        send(&mut from, train(to.addr(), b"hi", 2)).await;
        assert_eq!(lengths(&to, 1).await, [2]);
    }
}
