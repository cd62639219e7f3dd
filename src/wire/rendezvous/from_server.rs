//! What the server says to a node.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use super::fields::{Reader, Writer};
use super::{BadMessage, Cookie, Entries, Handle, Kind, NamespaceTag, Nonce, ServerTime, Token, size};
use crate::id::ServerKey;

/// A message of the server. All but retry, nope, echo and here end in a mac.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// So I see you; and ask again with this cookie.
    Retry(Retry),
    /// You are a member, and so are these.
    Welcome(Welcome<'a>),
    /// You are still a member.
    Kept(Kept),
    /// These are here.
    Page(Page<'a>),
    /// These came, changed or went.
    Event(Event<'a>),
    /// A member has given me this for you.
    Knock(Knock<'a>),
    /// Not now.
    Nope(Nope),
    /// What was asked for by a probe.
    Echo(Echo),
    /// So my second port sees you.
    Here(Here),
}

/// So I see you; and ask again with this cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Of the question.
    pub nonce: Nonce,
    /// Goes into register.
    pub cookie: Cookie,
    /// Where the question came from.
    pub seen: SocketAddr,
    /// The server's key.
    pub server: ServerKey,
    /// Its time.
    pub time: ServerTime,
}

/// You are a member, and so are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome<'a> {
    /// Of the register.
    pub nonce: Nonce,
    /// Where it came from.
    pub seen: SocketAddr,
    /// Goes into keep, list, intro and bye.
    pub token: Token,
    /// The server's time.
    pub time: ServerTime,
    /// Seconds after which the server forgets who keeps silent.
    pub lease_seconds: u16,
    /// Seconds between two keeps, at most.
    pub keep_seconds: u16,
    /// The port at which the server only tells how it sees whoever asks, if it has one.
    pub second_port: Option<NonZeroU16>,
    /// Of the namespace.
    pub version: u64,
    /// How far the entries go.
    pub upto: u64,
    /// How many members the namespace has.
    pub members: u16,
    /// Who changed since what the node knew, the oldest change first.
    pub entries: Entries<'a>,
}

/// You are still a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of the keep.
    pub nonce: Nonce,
    /// Where it came from.
    pub seen: SocketAddr,
    /// A new token.
    pub token: Token,
    /// The server's time.
    pub time: ServerTime,
    /// Seconds after which the server forgets who keeps silent.
    pub lease_seconds: u16,
    /// Seconds between two keeps, at most.
    pub keep_seconds: u16,
    /// Of the namespace.
    pub version: u64,
    /// After how many seconds the node is to register again, if at all: the server does not know its blob.
    pub register_after_seconds: Option<u16>,
}

/// These are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Of the list.
    pub nonce: Nonce,
    /// Of the namespace.
    pub version: u64,
    /// How far the entries go.
    pub upto: u64,
    /// How many members the namespace has.
    pub members: u16,
    /// Who changed since what the node knew, the oldest change first.
    pub entries: Entries<'a>,
}

/// These came, changed or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Where.
    pub namespace: NamespaceTag,
    /// The version to which the changes apply.
    pub since: u64,
    /// The version that results.
    pub upto: u64,
    /// Who, the oldest change first.
    pub entries: Entries<'a>,
}

/// A member has given me this for you.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock<'a> {
    /// Where.
    pub namespace: NamespaceTag,
    /// Of the intro.
    pub nonce: Nonce,
    /// From whom.
    pub from: Handle,
    /// What, sealed.
    pub payload: &'a [u8],
}

/// Not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nope {
    /// Of the register.
    pub nonce: Nonce,
    /// Why.
    pub refusal: Refusal,
    /// Seconds after which to try again.
    pub again_seconds: u16,
}

/// What was asked for by a probe, some time ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Of the probe.
    pub nonce: Nonce,
    /// Where it came from, and this goes to.
    pub seen: SocketAddr,
}

/// So my second port sees you.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Here {
    /// Of the question.
    pub nonce: Nonce,
    /// Where it came from.
    pub seen: SocketAddr,
}

/// Why a node is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Too many namespaces or registers of this address.
    Address,
    /// The namespace is full.
    Namespace,
    /// The server is full.
    Server,
    /// A reason of a later version.
    Other(u8),
}

impl Refusal {
    const fn number(self) -> u8 {
        match self {
            Self::Address => 1,
            Self::Namespace => 2,
            Self::Server => 3,
            Self::Other(number) => number,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Address,
            2 => Self::Namespace,
            3 => Self::Server,
            other => Self::Other(other),
        }
    }
}

impl<'a> FromServer<'a> {
    /// The message in `datagram`; its mac is not verified.
    ///
    /// # Errors
    ///
    /// It is none, or none of a server.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, BadMessage> {
        let kind = Kind::of(datagram).ok_or(BadMessage::Kind)?;
        if datagram.len() > size::MESSAGE_MAX {
            return Err(BadMessage::Length);
        }
        let has_mac = !matches!(kind, Kind::Retry | Kind::Nope | Kind::Echo | Kind::Here);
        let end = datagram.len().checked_sub(if has_mac { size::MAC } else { 0 });
        let body = end.and_then(|end| datagram.get(size::HEADER..end)).ok_or(BadMessage::Length)?;
        let mut reader = Reader::new(body);
        match kind {
            Kind::Retry => {
                let nonce = reader.nonce()?;
                let cookie = reader.cookie()?;
                let seen = reader.hidden(nonce)?;
                let server = ServerKey(reader.array()?);
                let time = reader.time()?;
                reader.end()?;
                Ok(Self::Retry(Retry { nonce, cookie, seen, server, time }))
            }
            Kind::Welcome => {
                let nonce = reader.nonce()?;
                Ok(Self::Welcome(Welcome {
                    nonce,
                    seen: reader.hidden(nonce)?,
                    token: reader.token()?,
                    time: reader.time()?,
                    lease_seconds: reader.u16()?,
                    keep_seconds: reader.u16()?,
                    second_port: NonZeroU16::new(reader.u16()?),
                    version: reader.u64()?,
                    upto: reader.u64()?,
                    members: reader.u16()?,
                    entries: Entries::parse(reader.rest())?,
                }))
            }
            Kind::Kept => {
                let nonce = reader.nonce()?;
                let kept = Kept {
                    nonce,
                    seen: reader.hidden(nonce)?,
                    token: reader.token()?,
                    time: reader.time()?,
                    lease_seconds: reader.u16()?,
                    keep_seconds: reader.u16()?,
                    version: reader.u64()?,
                    register_after_seconds: reader.u16()?.checked_sub(1),
                };
                reader.end()?;
                Ok(Self::Kept(kept))
            }
            Kind::Page => Ok(Self::Page(Page {
                nonce: reader.nonce()?,
                version: reader.u64()?,
                upto: reader.u64()?,
                members: reader.u16()?,
                entries: Entries::parse(reader.rest())?,
            })),
            Kind::Event => Ok(Self::Event(Event {
                namespace: reader.tag()?,
                since: reader.u64()?,
                upto: reader.u64()?,
                entries: Entries::parse(reader.rest())?,
            })),
            Kind::Knock => {
                let knock = Knock {
                    namespace: reader.tag()?,
                    nonce: reader.nonce()?,
                    from: reader.handle()?,
                    payload: {
                        let length = reader.u16()?;
                        reader.slice(length.into(), size::PAYLOAD_MAX)?
                    },
                };
                reader.end()?;
                Ok(Self::Knock(knock))
            }
            Kind::Nope => {
                let nonce = reader.nonce()?;
                let refusal = Refusal::of(reader.u8()?);
                reader.u8()?;
                let again_seconds = reader.u16()?;
                reader.end()?;
                Ok(Self::Nope(Nope { nonce, refusal, again_seconds }))
            }
            Kind::Echo => {
                let nonce = reader.nonce()?;
                let echo = Echo { nonce, seen: reader.hidden(nonce)? };
                reader.end()?;
                Ok(Self::Echo(echo))
            }
            Kind::Here => {
                let nonce = reader.nonce()?;
                let here = Here { nonce, seen: reader.hidden(nonce)? };
                reader.end()?;
                Ok(Self::Here(here))
            }
            Kind::Hail
            | Kind::Register
            | Kind::Keep
            | Kind::List
            | Kind::Intro
            | Kind::Bye
            | Kind::Probe
            | Kind::Where => Err(BadMessage::Kind),
        }
    }

    /// What kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Retry(_) => Kind::Retry,
            Self::Welcome(_) => Kind::Welcome,
            Self::Kept(_) => Kind::Kept,
            Self::Page(_) => Kind::Page,
            Self::Event(_) => Kind::Event,
            Self::Knock(_) => Kind::Knock,
            Self::Nope(_) => Kind::Nope,
            Self::Echo(_) => Kind::Echo,
            Self::Here(_) => Kind::Here,
        }
    }

    /// Writes it in the place of what `out` held, all but its mac.
    pub fn write(&self, out: &mut Vec<u8>) {
        let writer = Writer::new(out, self.kind());
        match self {
            Self::Retry(it) => {
                let writer = writer.put(&it.nonce.0).put(&it.cookie.0).hidden(it.seen, it.nonce);
                writer.put(it.server.as_bytes()).time(it.time);
            }
            Self::Welcome(it) => {
                let writer = writer.put(&it.nonce.0).hidden(it.seen, it.nonce).put(&it.token.0).time(it.time);
                let writer = writer.u16(it.lease_seconds).u16(it.keep_seconds);
                let writer =
                    writer.u16(it.second_port.map_or(0, NonZeroU16::get)).u64(it.version).u64(it.upto);
                writer.u16(it.members).put(it.entries.bytes());
            }
            Self::Kept(it) => {
                let writer = writer.put(&it.nonce.0).hidden(it.seen, it.nonce).put(&it.token.0).time(it.time);
                let writer = writer.u16(it.lease_seconds).u16(it.keep_seconds).u64(it.version);
                writer.u16(it.register_after_seconds.map_or(0, |seconds| seconds.saturating_add(1)));
            }
            Self::Page(it) => {
                let writer = writer.put(&it.nonce.0).u64(it.version).u64(it.upto);
                writer.u16(it.members).put(it.entries.bytes());
            }
            Self::Event(it) => {
                writer.put(&it.namespace.0).u64(it.since).u64(it.upto).put(it.entries.bytes());
            }
            Self::Knock(it) => {
                let writer = writer.put(&it.namespace.0).put(&it.nonce.0).put(&it.from.0);
                writer.counted(it.payload, size::PAYLOAD_MAX);
            }
            Self::Nope(it) => {
                writer.put(&it.nonce.0).put(&[it.refusal.number(), 0]).u16(it.again_seconds);
            }
            Self::Echo(it) => {
                writer.put(&it.nonce.0).hidden(it.seen, it.nonce);
            }
            Self::Here(it) => {
                writer.put(&it.nonce.0).hidden(it.seen, it.nonce);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Day;
    use super::super::{Entry, VERSION};
    use super::*;

    fn messages<'a>(byte: u8, number: u64, seen: SocketAddr, entries: &'a [u8]) -> [FromServer<'a>; 9] {
        let (nonce, cookie, token) = (Nonce([byte; 8]), Cookie([byte; 16]), Token([byte; 16]));
        let time = ServerTime { day: Day(number as u32), second: 7 };
        let (lease_seconds, keep_seconds, members) = (number as u16, 25, number as u16);
        let (server, namespace, from) = (ServerKey([byte; 32]), NamespaceTag([byte; 8]), Handle([byte; 16]));
        let (version, upto, since) = (number, number / 2, number / 3);
        let payload = &entries[..entries.len().min(size::PAYLOAD_MAX)];
        let register_after_seconds = (number as u16 % 100).checked_sub(1);
        let entries = Entries::parse(entries).unwrap();
        let (refusal, second_port) = (Refusal::of(byte), NonZeroU16::new(byte.into()));
        [
            FromServer::Retry(Retry { nonce, cookie, seen, server, time }),
            FromServer::Welcome(Welcome {
                nonce,
                seen,
                token,
                time,
                lease_seconds,
                keep_seconds,
                second_port,
                version,
                upto,
                members,
                entries,
            }),
            FromServer::Kept(Kept {
                nonce,
                seen,
                token,
                time,
                lease_seconds,
                keep_seconds,
                version,
                register_after_seconds,
            }),
            FromServer::Page(Page { nonce, version, upto, members, entries }),
            FromServer::Event(Event { namespace, since, upto, entries }),
            FromServer::Knock(Knock { namespace, nonce, from, payload }),
            FromServer::Nope(Nope { nonce, refusal, again_seconds: number as u16 }),
            FromServer::Echo(Echo { nonce, seen }),
            FromServer::Here(Here { nonce, seen }),
        ]
    }

    fn written(message: &FromServer<'_>) -> Vec<u8> {
        let mut out = b"what was before".to_vec();
        message.write(&mut out);
        if !matches!(message.kind(), Kind::Retry | Kind::Nope | Kind::Echo | Kind::Here) {
            out.extend([9; size::MAC]);
        }
        out
    }

    proptest! {
        #[test]
        fn every_message_reads_back_and_none_of_its_pieces_does(
            byte: u8, number: u64, ip: u32, port: u16, six: bool,
            blobs in prop::collection::vec(prop::option::of(prop::collection::vec(0_u8.., 0..200)), 0..4),
        ) {
            let mut seen = SocketAddr::from((ip.to_be_bytes(), port));
            if six {
                seen = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, port], port));
            }
            let mut entries = Vec::new();
            for (seq, blob) in (0..).zip(&blobs) {
                Entry { handle: Handle([byte; 16]), seq, blob: blob.as_deref() }.push(&mut entries);
            }
            for message in messages(byte, number, seen, &entries) {
                let out = written(&message);
                prop_assert_eq!(FromServer::parse(&out), Ok(message));
                for end in 0..out.len() {
                    // Entries may end after each of them.
                    let read = FromServer::parse(&out[..end]);
                    let shorter = matches!(
                        read,
                        Ok(FromServer::Welcome(_) | FromServer::Page(_) | FromServer::Event(_))
                    );
                    prop_assert!(read.is_err() || shorter, "{:?} {}", message.kind(), end);
                }
            }
        }

        #[test]
        fn garbage_behind_a_header_is_a_message_or_an_error(
            kind in 0_u8..20, garbage in prop::collection::vec(0_u8.., 0..1300),
        ) {
            let datagram = [&[0x40, 0x31, kind, VERSION], &garbage[..]].concat();
            if let Ok(message) = FromServer::parse(&datagram) {
                prop_assert_eq!(message.kind() as u8, kind);
                prop_assert!(datagram.len() <= size::MESSAGE_MAX);
            }
        }
    }

    #[test]
    fn the_lengths_are_those_of_the_specification_and_no_answer_is_longer_than_its_question() {
        let lengths = messages(1, 2, ([1, 2, 3, 4], 5).into(), &[]).map(|message| written(&message).len());
        assert_eq!(lengths, [86, 94, 84, 46, 44, 54, 16, 30, 30]);
        const {
            assert!(size::RETRY <= size::HAIL && size::RETRY <= size::KEEP && size::RETRY <= size::LIST);
            assert!(size::RETRY <= size::INTRO && size::RETRY <= size::REGISTER);
            assert!(size::WELCOME <= size::REGISTER && size::NOPE <= size::REGISTER);
            assert!(size::ECHO <= size::PROBE && size::HERE <= size::WHERE);
            assert!(size::KEPT <= size::KEEP && size::PAGE <= size::LIST && size::KNOCK <= size::INTRO);
        }
    }
}
