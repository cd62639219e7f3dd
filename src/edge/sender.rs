//! What leaves a UDP socket: a datagram or a train of them in one system call, from the address and by the interface that
//! are wanted.
//!
//! Linux takes the interface from a control message beside the datagram, and no library for QUIC writes it. The headers
//! are made once and filled in place, so that nothing is allocated for what is sent.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{
    MSG_DONTROUTE, SO_EE_ORIGIN_LOCAL, in_addr, in_pktinfo, in6_addr, in6_pktinfo, sock_extended_err,
};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmsg, sendmmsg,
};

/// By which way something leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    pub(super) to: SocketAddr,
    /// From which of our addresses; none: the kernel chooses.
    pub(super) from: Option<IpAddr>,
    /// By which of our interfaces; none: the kernel chooses.
    pub(super) interface: Option<NonZeroU32>,
    /// No router is to pass it on: whoever has the address is on the link, whatever the routing table says.
    pub(super) on_link: bool,
}

/// The headers of one socket.
pub(super) struct Sender {
    single: MultiHeaders<SockaddrStorage>,
    train: MultiHeaders<SockaddrStorage>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    /// Headers for a socket of IPv4 or of IPv6.
    pub(super) fn new(ipv4: bool) -> Self {
        // The kernel takes what is left of the room for one more message, so it has to fit.
        let (single, train) = if ipv4 {
            (cmsg_space!(in_pktinfo), cmsg_space!(in_pktinfo, u16))
        } else {
            (cmsg_space!(in6_pktinfo), cmsg_space!(in6_pktinfo, u16))
        };
        let headers = |room| MultiHeaders::preallocate(1, Some(room));
        Self { single: headers(single), train: headers(train) }
    }

    /// Sends `bytes`: as one datagram, or as a train of them that are so long each.
    pub(super) fn send(
        &mut self,
        socket: &impl AsRawFd,
        leave: Leave,
        bytes: &[u8],
        segment_bytes: Option<u16>,
    ) -> io::Result<()> {
        let interface = leave.interface.map_or(0, NonZeroU32::get);
        match leave.to {
            SocketAddr::V4(_) => {
                let from = match leave.from {
                    Some(IpAddr::V4(from)) => from,
                    Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
                };
                let info = in_pktinfo {
                    ipi_ifindex: i32::try_from(interface).unwrap_or(0),
                    ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                    ipi_addr: in_addr { s_addr: 0 },
                };
                self.give(socket, leave, bytes, ControlMessage::Ipv4PacketInfo(&info), segment_bytes)
            }
            SocketAddr::V6(_) => {
                let from = match leave.from {
                    Some(IpAddr::V6(from)) => from,
                    Some(IpAddr::V4(_)) | None => Ipv6Addr::UNSPECIFIED,
                };
                let info =
                    in6_pktinfo { ipi6_addr: in6_addr { s6_addr: from.octets() }, ipi6_ifindex: interface };
                self.give(socket, leave, bytes, ControlMessage::Ipv6PacketInfo(&info), segment_bytes)
            }
        }
    }

    fn give(
        &mut self,
        socket: &impl AsRawFd,
        leave: Leave,
        bytes: &[u8],
        info: ControlMessage<'_>,
        segment_bytes: Option<u16>,
    ) -> io::Result<()> {
        let (fd, slices, to) =
            (socket.as_raw_fd(), [[IoSlice::new(bytes)]], [Some(SockaddrStorage::from(leave.to))]);
        let flags = MsgFlags::from_bits_retain(if leave.on_link { MSG_DONTROUTE } else { 0 });
        loop {
            let sent = match &segment_bytes {
                None => sendmmsg(fd, &mut self.single, &slices, to, [info], flags).map(drop),
                Some(segment) => {
                    let messages = [info, ControlMessage::UdpGsoSegments(segment)];
                    sendmmsg(fd, &mut self.train, &slices, to, messages, flags).map(drop)
                }
            };
            match sent {
                Err(Errno::EINTR) => {}
                sent => return Ok(sent?),
            }
        }
    }
}

/// What the network or the kernel answered to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens there, or there is no way.
    Unreachable(SocketAddr),
    /// No packet that is longer than this gets there. The port is zero where any may be meant.
    TooLarge {
        /// Where to.
        remote: SocketAddr,
        /// Bytes, all headers included.
        mtu: u32,
        /// Our own kernel refused it. Else somebody in the network says so, or says that he is in it.
        here: bool,
    },
}

/// Takes one error from the queue of a socket, and tells it if it is about an address.
pub(super) fn read_trouble(socket: &impl AsRawFd) -> io::Result<Option<Trouble>> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    // An error, and the address of who sent it.
    let mut room = cmsg_space!(sock_extended_err, nix::libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut room), flags)?;
    let Some(remote) = message.address.as_ref().and_then(socket_addr) else { return Ok(None) };
    let told = message.cmsgs().ok().into_iter().flatten().find_map(|message| {
        let (ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _)) =
            message
        else {
            return None;
        };
        Some(error)
    });
    let too_large = told.filter(|error| error.ee_errno == Errno::EMSGSIZE as u32);
    Ok(Some(match too_large {
        Some(error) => {
            let here = error.ee_origin == SO_EE_ORIGIN_LOCAL;
            Trouble::TooLarge { remote, mtu: error.ee_info, here }
        }
        None => Trouble::Unreachable(remote),
    }))
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| SocketAddr::from((addr.ip(), addr.port())));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| std::net::SocketAddrV6::from(*addr).into()))
}
