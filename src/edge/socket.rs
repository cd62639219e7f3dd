//! One UDP socket: trains of datagrams in one system call where the kernel can, singly where it cannot.
//!
//! Nothing that the network or the kernel answers ends it: a datagram that cannot be sent is one that was lost.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, recvmsg};
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use crate::limits;

/// Asked for, both ways: a burst at full rate must survive a moment in which the daemon does not run. The kernel
/// grants less where its limit is lower.
const BUFFER_BYTES: usize = 4 << 20;
/// Errors of the kernel read in a row before the others get their turn.
const ERRORS_IN_A_ROW: usize = 16;
/// After an error of the network tokio takes a socket for writable for ever; then a full one is tried again so soon.
const FULL_RETRY: Duration = Duration::from_millis(1);

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
    /// One after the other.
    pub(super) bytes: &'a [u8],
    /// The length of each but the last.
    pub(super) segment_bytes: usize,
    /// After how many routers they end, if that is said.
    pub(super) hops: Option<u8>,
}

/// One bound socket.
pub(super) struct Socket {
    io: Arc<UdpSocket>,
    addr: SocketAddr,
    /// Two views of one socket: an error that a single datagram meets must not end the sending of trains.
    trains: UdpSocketState,
    singles: UdpSocketState,
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
        let trains = UdpSocketState::new((&*io).into())?;
        let singles = UdpSocketState::new((&*io).into())?;
        if purpose != Purpose::Hellos {
            singles.enable_transport_errors((&*io).into())?;
        }
        let errors = errors_of(&io);
        Ok(Self { addr: io.local_addr()?, io, trains, singles, errors, errors_waiting: false, full: None })
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
                self.io.try_io(Interest::READABLE, || self.singles.recv((&*self.io).into(), buffers, meta));
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
        if let Some(full) = &mut self.full {
            ready!(full.as_mut().poll(cx));
            self.full = None;
        }
        while *sent < train.bytes.len() {
            let rest = Train { bytes: &train.bytes[*sent..], ..train };
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
                Err(error) => {
                    tracing::debug!(to = %train.to, reason = %error, "sending failed");
                    return Poll::Ready(());
                }
            }
        }
        Poll::Ready(())
    }

    /// An address for which the network answered that nobody listens there, or that there is no way.
    pub(super) fn poll_unreachable(&mut self, cx: &mut Context<'_>) -> Poll<SocketAddr> {
        for _ in 0..ERRORS_IN_A_ROW {
            if !self.errors_waiting {
                ready!(self.errors.as_mut().poll(cx));
                self.errors_waiting = true;
            }
            match self.io.try_io(Interest::ERROR, || Ok(read_error(&self.io)?)) {
                Ok(Some(addr)) => return Poll::Ready(addr),
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

    /// The same with the hops that the train may make: quinn-udp has no say in them, so the socket's own limit is
    /// another one for so long.
    fn send_some(&mut self, train: Train<'_>) -> io::Result<usize> {
        let Some(hops) = train.hops else { return self.send_far(train) };
        let usual = self.hops()?;
        self.set_hops(u32::from(hops))?;
        let result = self.send_far(train);
        self.set_hops(usual)?;
        result
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
        let io = &*self.io;
        let segments = self.trains.max_gso_segments().clamp(1, limits::TRAIN_DATAGRAMS);
        let bytes = train.bytes.len().min(segments * train.segment_bytes.max(1));
        if bytes <= train.segment_bytes {
            return send_single(&self.singles, io, Train { bytes: &train.bytes[..bytes], ..train });
        }
        match send_with(&self.trains, io, Train { bytes: &train.bytes[..bytes], ..train }) {
            Err(error) if refuses_arguments(&error) => {}
            result => return result.map(|()| bytes),
        }
        // Either this card or kernel cannot send trains, and quinn-udp has noted it, or this address is bad: then a
        // single datagram fails as well, or leaves only without its source address, and trains are as good as before.
        let single = Train { bytes: &train.bytes[..train.segment_bytes], ..train };
        match send_with(&self.singles, io, single) {
            Ok(()) => {
                tracing::info!("this network sends no trains of datagrams: sending each by itself");
                Ok(train.segment_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                self.trains = UdpSocketState::new(io.into())?;
                send_single(&self.singles, io, single)
            }
        }
    }
}

/// One datagram; again without its source address if that one is gone.
fn send_single(state: &UdpSocketState, io: &UdpSocket, train: Train<'_>) -> io::Result<usize> {
    match send_with(state, io, train) {
        Err(error) if train.from.is_some() && refuses_arguments(&error) => {
            send_with(state, io, Train { from: None, ..train })?;
        }
        result => result?,
    }
    Ok(train.bytes.len())
}

fn send_with(state: &UdpSocketState, io: &UdpSocket, train: Train<'_>) -> io::Result<()> {
    let transmit = Transmit {
        destination: train.to,
        ecn: None,
        contents: train.bytes,
        segment_size: (train.bytes.len() > train.segment_bytes).then_some(train.segment_bytes),
        src_ip: train.from,
    };
    match state.try_send(io.into(), &transmit) {
        // What the network answered to an earlier datagram fails the next call, whatever that one is: ask again.
        Err(error) if answers_an_earlier_datagram(&error) => state.try_send(io.into(), &transmit),
        result => result,
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn refuses_arguments(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::IO | Errno::ADDRNOTAVAIL | Errno::NETUNREACH)
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
        )
    )
}

fn errors_of(io: &Arc<UdpSocket>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let io = Arc::clone(io);
    Box::pin(async move {
        if io.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// Takes one error from the socket's queue: the address to which the datagram was sent, if it tells one.
fn read_error(io: &UdpSocket) -> rustix::io::Result<Option<SocketAddr>> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut control = RecvAncillaryBuffer::new(&mut []);
    let message = recvmsg(io, &mut buffers, &mut control, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT)?;
    Ok(message.address.and_then(|addr| SocketAddr::try_from(addr).ok()))
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
        let train = Train {
            to: to.addr(),
            from: Some(LOCALHOST),
            bytes: &[7; 4500],
            segment_bytes: 1000,
            hops: None,
        };
        send(&mut from, train).await;
        assert_eq!(lengths(&to, 5).await, [1000, 1000, 1000, 1000, 500]);
    }

    #[tokio::test]
    async fn the_hops_of_one_datagram_are_not_those_of_the_next() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let bind = || Socket::bind(any.parse().unwrap(), Purpose::Sessions).unwrap();
            let (mut from, to) = (bind(), bind());
            let usual = from.hops().unwrap();
            let near = Train { to: to.addr(), from: None, bytes: b"near", segment_bytes: 4, hops: Some(1) };
            send(&mut from, near).await;
            assert_eq!(lengths(&to, 1).await, [4]);
            assert_eq!(from.hops().unwrap(), usual);
        }
    }

    #[tokio::test]
    async fn a_source_address_that_is_gone_neither_loses_the_datagram_nor_ends_the_trains() {
        let (mut from, to) = (session(), session());
        let segments = from.trains.max_gso_segments();
        let gone = Some("192.0.2.1".parse().unwrap());
        send(
            &mut from,
            Train { to: to.addr(), from: gone, bytes: &[7; 2500], segment_bytes: 1000, hops: None },
        )
        .await;
        assert_eq!(lengths(&to, 3).await, [1000, 1000, 500]);
        assert_eq!(from.trains.max_gso_segments(), segments);
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_sent_to_ends_neither_the_socket_nor_the_trains() {
        let mut from = Socket::bind("[::1]:0".parse().unwrap(), Purpose::Sessions).unwrap();
        let segments = from.trains.max_gso_segments();
        let no_scope = "[fe80::1]:5".parse().unwrap();
        send(
            &mut from,
            Train { to: no_scope, from: None, bytes: &[7; 2500], segment_bytes: 1000, hops: None },
        )
        .await;
        assert_eq!(from.trains.max_gso_segments(), segments);
        let to = Socket::bind("[::1]:0".parse().unwrap(), Purpose::Sessions).unwrap();
        send(&mut from, Train { to: to.addr(), from: None, bytes: &[7; 10], segment_bytes: 10, hops: None })
            .await;
        assert_eq!(lengths(&to, 1).await, [10]);
    }

    #[tokio::test]
    async fn the_address_at_which_nobody_listens_is_told_each_time_and_others_still_get_theirs() {
        let (mut from, to) = (session(), session());
        let nobody = session().addr();
        for _ in 0..3 {
            send(&mut from, Train { to: nobody, from: None, bytes: b"?", segment_bytes: 1, hops: None })
                .await;
            assert_eq!(poll_fn(|cx| from.poll_unreachable(cx)).await, nobody);
        }
        send(&mut from, Train { to: nobody, from: None, bytes: b"?", segment_bytes: 1, hops: None }).await;
        send(&mut from, Train { to: to.addr(), from: None, bytes: b"hi", segment_bytes: 2, hops: None })
            .await;
        assert_eq!(lengths(&to, 1).await, [2]);
    }
}
