//! What travels between a node and a rendezvous server (docs/rendezvous.md, 3).
//!
//! ```text
//! every message | 0x40 0x31 | kind 1 | version 1 | the fields of its kind |      [`FromNode`], [`FromServer`]
//! entry         | handle 16 | seq 4 | blob length 2 | blob |                     [`Entry`]
//! ```
//!
//! A parser borrows from the datagram; it checks lengths and nothing else. Builders write all but the `mac` at the end,
//! which [`crate::crypto::namespace`] makes and verifies. Numbers are little-endian.

mod entry;
mod fields;
mod from_node;
mod from_server;
mod named;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::tag::Tag;

pub use self::entry::{Entries, Entry};
pub use self::from_node::{Bye, FromNode, Intro, Keep, List, Probe, Register};
pub use self::from_server::{
    Echo, Event, FromServer, Here, Kept, Knock, Nope, Page, Refusal, Retry, Welcome,
};
pub use self::named::{BadHostPort, BadServer, RendezvousServer, check_host_port};

/// What every message begins with; no packet between nodes does.
pub const MAGIC: [u8; 2] = [0x40, 0x31];
/// The version of the messages, their fourth byte.
pub const VERSION: u8 = 2;
/// The port of a server whose address names none.
pub const PORT: u16 = 28283;
/// The longest time after which a probe is answered: few translators keep a mapping longer, and nobody waits longer.
pub const PROBE_SECONDS_MAX: u16 = 180;
/// Seconds of a day.
pub const DAY_SECONDS: u32 = 86_400;

/// The lengths of messages.
pub mod size {
    /// Magic, kind and version.
    pub const HEADER: usize = 4;
    /// The longest message.
    pub const MESSAGE_MAX: usize = 1200;
    /// The keyed hash at the end of some.
    pub const MAC: usize = 16;
    /// Hail.
    pub const HAIL: usize = 88;
    /// Retry.
    pub const RETRY: usize = 86;
    /// Register, without its blob.
    pub const REGISTER: usize = 122;
    /// Welcome, without its entries.
    pub const WELCOME: usize = 94;
    /// Keep.
    pub const KEEP: usize = 88;
    /// Kept.
    pub const KEPT: usize = 84;
    /// The shortest list.
    pub const LIST: usize = 88;
    /// Page, without its entries.
    pub const PAGE: usize = 46;
    /// Event, without its entries.
    pub const EVENT: usize = 44;
    /// Intro, without its payload.
    pub const INTRO: usize = 94;
    /// Knock, without its payload.
    pub const KNOCK: usize = 54;
    /// Bye.
    pub const BYE: usize = 76;
    /// Nope.
    pub const NOPE: usize = 16;
    /// Probe.
    pub const PROBE: usize = 32;
    /// Echo.
    pub const ECHO: usize = 30;
    /// Where.
    pub const WHERE: usize = 30;
    /// Here.
    pub const HERE: usize = 30;
    /// An entry, without its blob.
    pub const ENTRY: usize = 22;
    /// The longest presence blob.
    pub const BLOB_MAX: usize = 384;
    /// The longest payload of intro and knock.
    pub const PAYLOAD_MAX: usize = 352;
}

/// What kind a message is; the value is its third byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Who are you, and how do you see me?
    Hail = 1,
    /// So; and ask again with this cookie.
    Retry = 2,
    /// I am here.
    Register = 3,
    /// You are, and so are these.
    Welcome = 4,
    /// I am still here.
    Keep = 5,
    /// You are.
    Kept = 6,
    /// Who else is here?
    List = 7,
    /// These.
    Page = 8,
    /// These came, changed or went.
    Event = 9,
    /// Give this to that member.
    Intro = 10,
    /// A member has given me this for you.
    Knock = 11,
    /// I am leaving.
    Bye = 12,
    /// Not now.
    Nope = 13,
    /// Say something to me after some time.
    Probe = 14,
    /// Now.
    Echo = 15,
    /// How does your second port see me?
    Where = 16,
    /// So.
    Here = 17,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Hail,
        Self::Retry,
        Self::Register,
        Self::Welcome,
        Self::Keep,
        Self::Kept,
        Self::List,
        Self::Page,
        Self::Event,
        Self::Intro,
        Self::Knock,
        Self::Bye,
        Self::Nope,
        Self::Probe,
        Self::Echo,
        Self::Where,
        Self::Here,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hail => "hail",
            Self::Retry => "retry",
            Self::Register => "register",
            Self::Welcome => "welcome",
            Self::Keep => "keep",
            Self::Kept => "kept",
            Self::List => "list",
            Self::Page => "page",
            Self::Event => "event",
            Self::Intro => "intro",
            Self::Knock => "knock",
            Self::Bye => "bye",
            Self::Nope => "nope",
            Self::Probe => "probe",
            Self::Echo => "echo",
            Self::Where => "where",
            Self::Here => "here",
        }
    }

    /// The kind of `datagram`, if it is a message of ours and of this version.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let [a, b, kind, VERSION] = *datagram.first_chunk::<{ size::HEADER }>()? else { return None };
        let index = usize::from(kind).checked_sub(1)?;
        Self::ALL.get(index).copied().filter(|_| [a, b] == MAGIC)
    }
}

/// Whether a datagram is for or from a rendezvous server, whatever else is right or wrong with it.
pub fn is_rendezvous(datagram: &[u8]) -> bool {
    datagram.starts_with(&MAGIC)
}

/// What a question and its answer have in common: drawn anew for each question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub [u8; 8]);

/// By which the server calls one member of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub [u8; 16]);

/// What only the owner of a handle can show, another one with each register ([`crate::crypto::claim`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reveal(pub [u8; 16]);

/// What the server calls a network for one day: a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(pub [u8; 32]);

impl Namespace {
    /// The first 8 bytes, by which events and knocks name it.
    pub fn tag(&self) -> NamespaceTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0[..8]);
        NamespaceTag(tag)
    }
}

/// The first 8 bytes of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceTag(pub [u8; 8]);

/// What proves that its sender receives at the address that it sends from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cookie(pub [u8; 16]);

impl PartialEq for Cookie {
    fn eq(&self, other: &Self) -> bool {
        Tag::new(self.0) == Tag::new(other.0)
    }
}

impl Eq for Cookie {}

/// What proves that a member registered from the address that it sends from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Token(pub [u8; 16]);

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        Tag::new(self.0) == Tag::new(other.0)
    }
}

impl Eq for Token {}

/// A day as the server counts them, from 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u32);

/// The server's time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerTime {
    /// Its day.
    pub day: Day,
    /// The second of that day.
    pub second: u32,
}

/// Why a datagram is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadMessage {
    /// Something else begins so, or it is a kind or version that we do not know, or that goes the other way.
    #[error("a message of no known kind")]
    Kind,
    /// Too short or too long for its kind, or for the lengths inside.
    #[error("a message whose length does not fit")]
    Length,
}

/// An address as 18 bytes: both families as IPv6, and the port. The interface of a link-local one is not told.
pub fn address_bytes(addr: SocketAddr) -> [u8; 18] {
    let ip = match addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&addr.port().to_le_bytes());
    bytes
}

/// The address that [`address_bytes`] wrote; IPv4 comes back as IPv4.
pub fn address_from(bytes: [u8; 18]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    let port = u16::from_le_bytes([bytes[16], bytes[17]]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port)
}

/// Some routers rewrite their own address wherever they see it: so it is never seen.
fn hide(address: &mut [u8; 18], nonce: Nonce) {
    for (byte, mask) in address.iter_mut().zip(nonce.0.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_tells_a_server_s_message_from_its_peers_by_the_first_byte() {
        assert!(is_rendezvous(&[0x40, 0x31, 99, 7]));
        for kind in 1..=31 {
            assert!(!is_rendezvous(&[kind, 0x31]), "{kind}");
        }
        assert!(!is_rendezvous(&[0x40]) && !is_rendezvous(&[]));
        assert_eq!(Kind::of(&[0x40, 0x31, 15, 2]), Some(Kind::Echo));
        for other in [[0x40, 0x31, 18, 2], [0x40, 0x31, 0, 2], [0x40, 0x31, 1, 1], [0x41, 0x31, 1, 2]] {
            assert_eq!(Kind::of(&other), None, "{other:?}");
        }
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&[0x40, 0x31, kind as u8, 2]), Some(kind));
        }
    }

    #[test]
    fn an_address_reads_back_and_hidden_it_is_nowhere_to_be_seen() {
        for text in ["192.0.2.7:28282", "[2001:db8::7]:1"] {
            let addr: SocketAddr = text.parse().unwrap();
            let mut bytes = address_bytes(addr);
            assert_eq!(address_from(bytes), addr);
            hide(&mut bytes, Nonce([0x5a; 8]));
            assert_ne!(address_from(bytes), addr);
            assert!(!bytes.windows(4).any(|window| window == [192, 0, 2, 7]));
            hide(&mut bytes, Nonce([0x5a; 8]));
            assert_eq!(address_from(bytes), addr);
        }
    }
}
