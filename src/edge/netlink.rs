//! The kernel's word that an address, a link or a route of this machine changed.
//!
//! Only that something changed is taken from it; what there is now is read anew. So nothing of the messages has to be
//! understood, and a lost one (the kernel says so) is a change like any other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Room for any message: what is longer is cut, and cut does just as well.
const MESSAGE_BYTES: usize = 4096;

/// Tells when to look at the addresses again. A netlink(7) socket, read like a pipe.
#[derive(Debug)]
pub(super) struct AddressChanges(Receiver);

impl AddressChanges {
    /// Subscribes to changes.
    ///
    /// # Errors
    ///
    /// There is no such socket here: it is not permitted.
    pub(super) fn subscribe() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(Receiver::from_owned_fd_unchecked(socket)?))
    }

    /// Ready when something changed since the last time; takes all that was said until now.
    pub(super) fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = false;
        loop {
            let mut message = [0; MESSAGE_BYTES];
            match Pin::new(&mut self.0).poll_read(cx, &mut ReadBuf::new(&mut message)) {
                Poll::Ready(Ok(())) => changed = true,
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    changed = true;
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(reason = %error, "a change of this machine's addresses was not understood");
                    return Poll::Ready(());
                }
                Poll::Pending if changed => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
