//! The way of a datagram.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

/// The way of a datagram: the far address, and the own one and the own interface that it came to or leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The far address; a link-local one carries its interface.
    pub remote: SocketAddr,
    /// Our address on it, so that a host with several answers from the one that was asked.
    pub local: Option<IpAddr>,
    /// Our interface on it, where several lead to the far address: the operating system would use one of them only, and
    /// that one may be dead. Where none is named it chooses.
    pub interface: Option<NonZeroU32>,
    /// Our port on it: an address translator may let in at one what it keeps out at another.
    pub port: OwnPort,
}

impl Route {
    /// From our usual port to `remote`; the operating system chooses the own address and the interface.
    pub const fn to(remote: SocketAddr) -> Self {
        Self { remote, local: None, interface: None, port: OwnPort::USUAL }
    }

    /// The interface of ours by which it leads, if it says which: a link-local address names it as well.
    pub fn interface(&self) -> Option<NonZeroU32> {
        match self.remote {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => NonZeroU32::new(v6.scope_id()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => self.interface,
        }
    }

    /// Whether both lead to one place by one interface and one port of ours, from whichever address.
    pub fn is_way_of(&self, other: &Self) -> bool {
        self.remote == other.remote && self.interface == other.interface && self.port == other.port
    }
}

/// A UDP port of ours: the usual one, or one that was opened beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnPort(u16);

impl OwnPort {
    /// That of all sessions which need no other.
    pub const USUAL: Self = Self(0);

    /// The `number`th that is opened beside it.
    pub const fn extra(number: NonZeroU16) -> Self {
        Self(number.get())
    }

    /// Which of those beside the usual one it is; zero: it is that one.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for OwnPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::USUAL { f.write_str("usual") } else { write!(f, "extra {}", self.0) }
    }
}
