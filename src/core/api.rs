//! What goes into a [`Node`](super::Node) and what comes out of it, beside datagrams and requests.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use thiserror::Error;

use crate::crypto::invitation::Invitation;
use crate::crypto::membership::Membership;
use crate::id::{ClientId, NodeId, NodeName, RequestId};
pub use crate::route::{OwnPort, Route};
use crate::wire::packet::BadPacket;
pub use crate::wire::rendezvous::{BadHostPort, BadServer, RendezvousServer, check_host_port};
use crate::wire::txt::Txt;

/// What a node is told when it is made.
#[derive(Debug)]
pub struct Config {
    /// What people call it.
    pub name: NodeName,
    /// The network that it belongs to.
    pub network: Membership,
    /// Where the network secret came from, for `network show`: `state`, or a file's path.
    pub network_source: Option<String>,
    /// What the session sockets are bound to; all have the same port.
    pub udp: Vec<SocketAddr>,
    /// The servers that introduce us to members elsewhere.
    pub rendezvous: Vec<RendezvousServer>,
    /// Peers of earlier runs: their names stay theirs, and their addresses are tried first.
    pub known: Vec<KnownPeer>,
    /// Advertise and browse by mDNS.
    pub mdns: bool,
    /// Greet by our own multicast datagram.
    pub hello: bool,
    /// Relay for peers, and be relayed for.
    pub relay: bool,
    /// Meet by many ports, and guess those of others, where nothing else helps.
    pub birthday_punch: bool,
    /// The network is paid by volume: nothing is relayed for others, and no ports are guessed.
    pub metered: bool,
}

/// A peer as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Its key.
    pub id: NodeId,
    /// The name it had last.
    pub name: NodeName,
    /// Whether messages by that name go to it.
    pub pinned: bool,
    /// Where it was last, the best address first.
    pub addrs: Vec<SocketAddr>,
    /// When it was heard last, as the time since 1970.
    pub last_seen: Option<Duration>,
}

/// Where datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To one address.
    One(Route),
    /// To all who listen on port [`HELLO_PORT`] of every network that we are on.
    Everyone,
    /// The same by multicast alone, without a broadcast.
    Groups,
}

/// The UDP port on which every daemon of a host hears hellos.
pub const HELLO_PORT: u16 = 28281;

/// Datagrams to be sent; their bytes are in the buffer that was given to `poll_transmit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where they go.
    pub to: Destination,
    /// The length of each but the last, which may be shorter.
    pub segment_bytes: usize,
    /// After how many routers they end; as far as the system sends by itself if that is not said. With none they stay on the
    /// link, whatever the routing table says.
    pub hops: Option<u8>,
    /// They cannot be shorter: where a link takes less they may be cut up.
    pub cut: bool,
}

/// One address of this machine on one interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceAddr {
    /// The interface's name.
    pub name: String,
    /// Its number, which is the scope of link-local addresses.
    pub index: u32,
    /// The address.
    pub addr: IpAddr,
    /// How many leading bits the addresses of its link share.
    pub prefix: u8,
    /// Its link has one other end, and nobody is found there by multicast as a rule: a tunnel.
    pub point_to_point: bool,
    /// Its link is Wi-Fi.
    pub wireless: bool,
    /// Bytes of the largest packet that its link takes, if that is known.
    pub mtu: Option<u32>,
}

/// What mDNS saw: a hint, never the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// An advert.
    Seen {
        /// The instance label, which is bound to the content.
        label: String,
        /// The UDP port.
        port: u16,
        /// Who it says it is.
        txt: Txt,
        /// Where; a link-local address carries the interface on which it was heard.
        addrs: Vec<IpAddrScoped>,
    },
    /// An advert that was taken back or ran out.
    Lost {
        /// The instance label.
        label: String,
    },
}

/// An address, and the interface to which it belongs if it is link-local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpAddrScoped {
    /// The address.
    pub addr: IpAddr,
    /// The interface's number; zero when it does not matter.
    pub scope: u32,
}

/// What we say of ourselves by mDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The instance label, at most 63 bytes.
    pub label: String,
    /// The host's label, without `.local`.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// Who we are.
    pub txt: Txt,
}

/// Whose an app is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user, as the kernel says.
    pub uid: u32,
    /// It may administer the daemon.
    pub admin: bool,
}

/// What the edge has to do, beside sending datagrams.
#[derive(Debug)]
pub enum Event {
    /// There are bytes for this app: see [`Node::output`](super::Node::output). Told once until they have been taken.
    Output(ClientId),
    /// Write what there is for this app, then close.
    Close(ClientId),
    /// Advertise this by mDNS, in place of what was advertised before.
    Announce(Advert),
    /// Take the advert back.
    Withdraw,
    /// Start browsing, or start again at the fast end of the schedule.
    Browse,
    /// Start browsing, and ask only those who are on other hosts, if that can be: a hello reaches who is on this one.
    Ask,
    /// Stop browsing.
    StopBrowse,
    /// Write the peers that outlive this run: see [`Node::known_peers`](super::Node::known_peers). It comes at a pace that a
    /// memory card stands; at the end they are written once more.
    Remember,
    /// Write the keys of rendezvous servers: see [`Node::proved_servers`](super::Node::proved_servers).
    RememberServers,
    /// Look this rendezvous server's name up, and answer with
    /// [`Node::handle_server_addrs`](super::Node::handle_server_addrs) whenever that brings something.
    Resolve(String),
    /// Answer with [`Node::handle_battery`](super::Node::handle_battery).
    AskBattery,
    /// Open one more UDP port, for IPv4: what is sent by it leaves there, and what comes there is told with it.
    OpenPort(OwnPort),
    /// Close it.
    ClosePort(OwnPort),
    /// Store this and answer with [`Node::handle_network`](super::Node::handle_network).
    Network {
        /// Who asked.
        client: ClientId,
        /// Which request.
        id: Option<RequestId>,
        /// What to store.
        change: NetworkChange,
    },
    /// Answer with [`Node::handle_invitation`](super::Node::handle_invitation).
    Invite {
        /// Who asked.
        client: ClientId,
        /// Which request.
        id: Option<RequestId>,
    },
    /// Read the configuration again and answer with [`Node::handle_reload`](super::Node::handle_reload).
    Reload {
        /// Who asked.
        client: ClientId,
        /// Which request.
        id: Option<RequestId>,
    },
}

/// A change of the network that an app asked for.
#[derive(Debug)]
pub enum NetworkChange {
    /// Become a member of this private network.
    Join {
        /// Its secret, and the servers at which its members meet.
        invitation: Invitation,
        /// Go on with the members of the private network of before.
        keep: bool,
    },
    /// Talk no more to members of the network of before.
    Settle,
    /// Go back to the open one.
    Leave,
}

/// Why a datagram changed nothing but a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Dropped {
    /// It is none of our packets.
    #[error("malformed")]
    Malformed,
    /// Its keyed hash or tag is wrong: a stranger, or damage.
    #[error("unauthenticated")]
    Unauthenticated,
    /// It was here before.
    #[error("replayed")]
    Replayed,
    /// It is for a session that we do not have.
    #[error("unknown-session")]
    UnknownSession,
    /// It is right, but not now: an answer to no question, ourselves, a handshake that lost against our own.
    #[error("unexpected")]
    Unexpected,
    /// In the open network, from an address that is not of a local network.
    #[error("foreign-address")]
    ForeignAddress,
    /// From a second machine with the key of a peer that is there, or from one that may be it.
    #[error("duplicate-identity")]
    Duplicate,
    /// A limit of `limits.rs` is reached.
    #[error("over-limit")]
    OverLimit,
}

impl From<BadPacket> for Dropped {
    fn from(_: BadPacket) -> Self {
        Self::Malformed
    }
}
