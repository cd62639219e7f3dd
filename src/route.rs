//! The way of a datagram.

use std::net::{IpAddr, SocketAddr};

/// The way of a datagram: the far address, and the own one that it came to or leaves from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The far address; a link-local one carries its interface.
    pub remote: SocketAddr,
    /// Our address on it, so that a host with several answers from the one that was asked.
    pub local: Option<IpAddr>,
}
