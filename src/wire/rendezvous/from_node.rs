//! What a node says to the server.

use super::fields::{Reader, Writer};
use super::{BadMessage, Cookie, Handle, Kind, Namespace, Nonce, Reveal, Token, size};

/// A message of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromNode<'a> {
    /// Who are you, and how do you see me?
    Hail(Nonce),
    /// I am here.
    Register(Register<'a>),
    /// I am still here.
    Keep(Keep),
    /// Who else is here?
    List(List),
    /// Give this to that member.
    Intro(Intro<'a>),
    /// I am leaving.
    Bye(Bye),
    /// Say something to me after some time.
    Probe(Probe),
    /// How does your second port see me?
    Where(Nonce),
}

/// I am here. A mac follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<'a> {
    /// Of this question.
    pub nonce: Nonce,
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub handle: Handle,
    /// From a retry.
    pub cookie: Cookie,
    /// That it is its owner who says so.
    pub reveal: Reveal,
    /// Higher with each register of one handle, from 1.
    pub seq: u32,
    /// How far the node knows the others; zero: not at all.
    pub known: u64,
    /// What the others are to hear.
    pub blob: &'a [u8],
}

/// I am still here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Of this question.
    pub nonce: Nonce,
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub handle: Handle,
    /// From the last welcome or kept.
    pub token: Token,
    /// How far the node knows the others.
    pub known: u64,
    /// An answer is wanted even if there is nothing new.
    pub answer: bool,
}

/// Who else is here?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// Of this question.
    pub nonce: Nonce,
    /// Where.
    pub namespace: Namespace,
    /// Who asks.
    pub handle: Handle,
    /// From the last welcome or kept.
    pub token: Token,
    /// How far the node knows the others; zero: not at all.
    pub known: u64,
}

/// Give this to that member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intro<'a> {
    /// Goes with it.
    pub nonce: Nonce,
    /// Where.
    pub namespace: Namespace,
    /// From whom.
    pub handle: Handle,
    /// From the last welcome or kept.
    pub token: Token,
    /// For whom.
    pub target: Handle,
    /// What, sealed.
    pub payload: &'a [u8],
}

/// I am leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bye {
    /// Of no use yet.
    pub nonce: Nonce,
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub handle: Handle,
    /// From the last welcome or kept.
    pub token: Token,
}

/// Say something to me after some time: does it still arrive?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Of this question.
    pub nonce: Nonce,
    /// From a retry.
    pub cookie: Cookie,
    /// After how many seconds: 1 to [`PROBE_SECONDS_MAX`](super::PROBE_SECONDS_MAX).
    pub after_seconds: u16,
}

impl<'a> FromNode<'a> {
    /// The message in `datagram`.
    ///
    /// # Errors
    ///
    /// It is none, or none of a node.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, BadMessage> {
        let kind = Kind::of(datagram).ok_or(BadMessage::Kind)?;
        let mut reader = Reader::new(&datagram[size::HEADER..]);
        let length = datagram.len();
        match kind {
            Kind::Hail => is(length == size::HAIL).and_then(|()| reader.nonce()).map(Self::Hail),
            Kind::Register => {
                is(length <= size::MESSAGE_MAX)?;
                let register = Register {
                    nonce: reader.nonce()?,
                    namespace: reader.namespace()?,
                    handle: reader.handle()?,
                    cookie: reader.cookie()?,
                    reveal: reader.reveal()?,
                    seq: reader.u32()?,
                    known: reader.u64()?,
                    blob: {
                        let length = reader.u16()?;
                        reader.slice(length.into(), size::BLOB_MAX)?
                    },
                };
                is(reader.rest().len() >= size::MAC)?;
                Ok(Self::Register(register))
            }
            Kind::Keep => {
                is(length == size::KEEP)?;
                Ok(Self::Keep(Keep {
                    nonce: reader.nonce()?,
                    namespace: reader.namespace()?,
                    handle: reader.handle()?,
                    token: reader.token()?,
                    known: reader.u64()?,
                    answer: reader.u8()? != 0,
                }))
            }
            Kind::List => {
                is((size::LIST..=size::MESSAGE_MAX).contains(&length))?;
                Ok(Self::List(List {
                    nonce: reader.nonce()?,
                    namespace: reader.namespace()?,
                    handle: reader.handle()?,
                    token: reader.token()?,
                    known: reader.u64()?,
                }))
            }
            Kind::Intro => {
                let intro = Intro {
                    nonce: reader.nonce()?,
                    namespace: reader.namespace()?,
                    handle: reader.handle()?,
                    token: reader.token()?,
                    target: reader.handle()?,
                    payload: {
                        let length = reader.u16()?;
                        reader.slice(length.into(), size::PAYLOAD_MAX)?
                    },
                };
                reader.end()?;
                Ok(Self::Intro(intro))
            }
            Kind::Bye => {
                is(length == size::BYE)?;
                Ok(Self::Bye(Bye {
                    nonce: reader.nonce()?,
                    namespace: reader.namespace()?,
                    handle: reader.handle()?,
                    token: reader.token()?,
                }))
            }
            Kind::Probe => {
                is(length == size::PROBE)?;
                Ok(Self::Probe(Probe {
                    nonce: reader.nonce()?,
                    cookie: reader.cookie()?,
                    after_seconds: reader.u16()?,
                }))
            }
            Kind::Where => is(length == size::WHERE).and_then(|()| reader.nonce()).map(Self::Where),
            Kind::Retry
            | Kind::Welcome
            | Kind::Kept
            | Kind::Page
            | Kind::Event
            | Kind::Knock
            | Kind::Nope
            | Kind::Echo
            | Kind::Here => Err(BadMessage::Kind),
        }
    }

    /// What kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hail(_) => Kind::Hail,
            Self::Register(_) => Kind::Register,
            Self::Keep(_) => Kind::Keep,
            Self::List(_) => Kind::List,
            Self::Intro(_) => Kind::Intro,
            Self::Bye(_) => Kind::Bye,
            Self::Probe(_) => Kind::Probe,
            Self::Where(_) => Kind::Where,
        }
    }

    /// Writes it in the place of what `out` held. A register (whose mac is still missing) and a list are padded so that
    /// the answer may have `answer_bytes`; the others have their length.
    pub fn write(&self, answer_bytes: usize, out: &mut Vec<u8>) {
        let answer_bytes = answer_bytes.min(size::MESSAGE_MAX);
        let writer = Writer::new(out, self.kind());
        match self {
            Self::Hail(nonce) => writer.put(&nonce.0).pad(size::HAIL),
            Self::Where(nonce) => writer.put(&nonce.0).pad(size::WHERE),
            Self::Register(it) => {
                let writer = writer.put(&it.nonce.0).put(&it.namespace.0).put(&it.handle.0).put(&it.cookie.0);
                let writer = writer.put(&it.reveal.0).u32(it.seq).u64(it.known);
                writer.counted(it.blob, size::BLOB_MAX).pad(answer_bytes.saturating_sub(size::MAC));
            }
            Self::Keep(it) => {
                let writer = writer.put(&it.nonce.0).put(&it.namespace.0).put(&it.handle.0).put(&it.token.0);
                writer.u64(it.known).put(&[u8::from(it.answer)]).pad(size::KEEP);
            }
            Self::List(it) => {
                let writer = writer.put(&it.nonce.0).put(&it.namespace.0).put(&it.handle.0).put(&it.token.0);
                writer.u64(it.known).pad(answer_bytes.max(size::LIST));
            }
            Self::Intro(it) => {
                let writer = writer.put(&it.nonce.0).put(&it.namespace.0).put(&it.handle.0).put(&it.token.0);
                writer.put(&it.target.0).counted(it.payload, size::PAYLOAD_MAX);
            }
            Self::Bye(it) => {
                writer.put(&it.nonce.0).put(&it.namespace.0).put(&it.handle.0).put(&it.token.0);
            }
            Self::Probe(it) => {
                writer.put(&it.nonce.0).put(&it.cookie.0).u16(it.after_seconds).pad(size::PROBE);
            }
        }
    }
}

fn is(right: bool) -> Result<(), BadMessage> {
    if right { Ok(()) } else { Err(BadMessage::Length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::VERSION;
    use super::*;

    fn messages<'a>(bytes: [u8; 40], number: u64, blob: &'a [u8]) -> [FromNode<'a>; 8] {
        let [a, b, ..] = bytes;
        let (nonce, namespace) = (Nonce([a; 8]), Namespace([b; 32]));
        let (handle, token) = (Handle(*bytes.first_chunk().unwrap()), Token(*bytes.last_chunk().unwrap()));
        let (known, target) = (number, Handle([a; 16]));
        let payload = &blob[..blob.len().min(size::PAYLOAD_MAX)];
        let (cookie, reveal, seq) = (Cookie(token.0), Reveal(token.0), number as u32);
        [
            FromNode::Hail(nonce),
            FromNode::Register(Register { nonce, namespace, handle, cookie, reveal, seq, known, blob }),
            FromNode::Keep(Keep { nonce, namespace, handle, token, known, answer: number & 1 == 0 }),
            FromNode::List(List { nonce, namespace, handle, token, known }),
            FromNode::Intro(Intro { nonce, namespace, handle, token, target, payload }),
            FromNode::Bye(Bye { nonce, namespace, handle, token }),
            FromNode::Probe(Probe { nonce, cookie, after_seconds: number as u16 }),
            FromNode::Where(nonce),
        ]
    }

    proptest! {
        #[test]
        fn every_message_reads_back_with_any_padding_and_none_of_its_pieces_does(
            bytes in prop::array::uniform32(0_u8..), number: u64,
            blob in prop::collection::vec(0_u8.., 0..=size::BLOB_MAX), answer in 0_usize..1400,
        ) {
            let mut all = [0; 40];
            all[..32].copy_from_slice(&bytes);
            for message in messages(all, number, &blob) {
                let mut out = b"what was before".to_vec();
                message.write(answer, &mut out);
                if message.kind() == Kind::Register {
                    out.extend([9; size::MAC]);
                }
                prop_assert!(out.len() <= size::MESSAGE_MAX);
                prop_assert_eq!(FromNode::parse(&out), Ok(message));
                let least = match message {
                    FromNode::Register(it) => size::REGISTER + it.blob.len(),
                    FromNode::List(_) => size::LIST,
                    FromNode::Hail(_)
                    | FromNode::Keep(_)
                    | FromNode::Intro(_)
                    | FromNode::Bye(_)
                    | FromNode::Probe(_)
                    | FromNode::Where(_) => out.len(),
                };
                for end in 0..least {
                    prop_assert!(FromNode::parse(&out[..end]).is_err(), "{:?} {}", message.kind(), end);
                }
                out.resize(size::MESSAGE_MAX + 1, 0);
                prop_assert_eq!(FromNode::parse(&out), Err(BadMessage::Length));
            }
        }

        #[test]
        fn garbage_behind_a_header_is_a_message_or_an_error(
            kind in 0_u8..20, garbage in prop::collection::vec(0_u8.., 0..1300),
        ) {
            let datagram = [&[0x40, 0x31, kind, VERSION], &garbage[..]].concat();
            if let Ok(message) = FromNode::parse(&datagram) {
                prop_assert_eq!(message.kind() as u8, kind);
            }
        }
    }

    #[test]
    fn the_lengths_are_those_of_the_specification() {
        let lengths = messages([7; 40], 3, &[]).map(|message| {
            let mut out = Vec::new();
            message.write(0, &mut out);
            out.len()
        });
        assert_eq!(lengths, [88, 122 - 16, 88, 88, 94, 76, 32, 30]);
    }

    #[test]
    fn a_register_is_as_long_as_the_answer_that_it_makes_room_for() {
        let mut out = Vec::new();
        messages([7; 40], 3, &[1; 128])[1].write(700, &mut out);
        assert_eq!(out.len() + size::MAC, 700);
    }
}
