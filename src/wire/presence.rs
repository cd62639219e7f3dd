//! What nodes tell each other through a rendezvous server: it is sealed, so that the server reads none of it
//! (docs/rendezvous.md, 5).
//!
//! postcard, and zeros behind it up to one of a few lengths. Kinds of candidates that we do not know are left out: the
//! lists only ever grow.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::id::{BootId, NodeId};

/// Candidates in one message.
pub const CANDIDATES_MAX: usize = 8;
/// Bytes of the longest presence: id, boot as a varint, flags, the count, and eight IPv6 candidates.
pub const PRESENCE_MAX: usize = 32 + 10 + 1 + 1 + CANDIDATES_MAX * CANDIDATE_BYTES_MAX;
/// Bytes of the longest introduction.
pub const INTRODUCTION_MAX: usize = PRESENCE_MAX + 32 + 1;
/// Kind, family, address, and the port as a varint.
const CANDIDATE_BYTES_MAX: usize = 1 + 1 + 16 + 3;

/// Who and where a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The node.
    pub id: NodeId,
    /// Its life.
    pub boot: BootId,
    /// What is to be known of it.
    pub flags: Flags,
    /// Where it may be reached.
    pub candidates: Vec<Candidate>,
}

/// What one member tells another one: where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Who tells it.
    pub id: NodeId,
    /// Whom it is meant for.
    pub to: NodeId,
    /// The life of who tells it.
    pub boot: BootId,
    /// How far they are.
    pub step: Step,
    /// What is to be known of who tells it.
    pub flags: Flags,
    /// Where it may be reached.
    pub candidates: Vec<Candidate>,
}

/// How far two members are in meeting each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let us meet: send to me, and answer by an introduction.
    Meet,
    /// I send to you from now on.
    Sending,
}

/// What is to be known of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// It goes through relays if it has to.
    pub const RELAY: Self = Self(1);
    /// Its address translator gives each destination another port.
    pub const VARYING_PORT: Self = Self(2);
    /// It guesses ports if it is asked to.
    pub const GUESSES: Self = Self(4);
    /// It has opened many ports: guess them. Only in introductions.
    pub const MANY_PORTS: Self = Self(8);

    /// Whether all of `flags` are among these.
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These and `flags`.
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

/// An address at which a node may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// How it is known.
    pub kind: CandidateKind,
    /// The address.
    pub addr: SocketAddr,
}

/// How a candidate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of the machine itself.
    Own = 0,
    /// As a rendezvous server sees it.
    Server = 1,
    /// Mapped by the router, which was asked to.
    Mapped = 2,
    /// As a peer sees it.
    Peer = 3,
    /// A fresh port as a server sees it: to others it is that one or one near it.
    Near = 4,
}

impl CandidateKind {
    const ALL: [Self; 5] = [Self::Own, Self::Server, Self::Mapped, Self::Peer, Self::Near];
}

#[derive(Serialize, Deserialize)]
struct PresenceFields {
    id: NodeId,
    boot: BootId,
    flags: Flags,
    candidates: Vec<(u8, SocketAddr)>,
}

#[derive(Serialize, Deserialize)]
struct IntroductionFields {
    id: NodeId,
    to: NodeId,
    boot: BootId,
    step: u8,
    flags: Flags,
    candidates: Vec<(u8, SocketAddr)>,
}

impl Presence {
    /// Its bytes, without padding. Candidates above the limit are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let candidates = written(&self.candidates);
        bytes(&PresenceFields { id: self.id, boot: self.boot, flags: self.flags, candidates })
    }

    /// What such bytes say, whatever follows them.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (fields, _) = postcard::take_from_bytes::<PresenceFields>(bytes).ok()?;
        let candidates = read(&fields.candidates)?;
        Some(Self { id: fields.id, boot: fields.boot, flags: fields.flags, candidates })
    }
}

impl Introduction {
    /// Its bytes, without padding. Candidates above the limit are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        bytes(&IntroductionFields {
            id: self.id,
            to: self.to,
            boot: self.boot,
            step: self.step as u8,
            flags: self.flags,
            candidates: written(&self.candidates),
        })
    }

    /// What such bytes say, whatever follows them.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (fields, _) = postcard::take_from_bytes::<IntroductionFields>(bytes).ok()?;
        let step = [Step::Meet, Step::Sending].into_iter().find(|step| *step as u8 == fields.step)?;
        let candidates = read(&fields.candidates)?;
        Some(Self { id: fields.id, to: fields.to, boot: fields.boot, step, flags: fields.flags, candidates })
    }
}

fn bytes(fields: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(fields).unwrap_or_else(|_| unreachable!("memory is all that it needs"))
}

fn written(candidates: &[Candidate]) -> Vec<(u8, SocketAddr)> {
    candidates.iter().take(CANDIDATES_MAX).map(|candidate| (candidate.kind as u8, candidate.addr)).collect()
}

/// None if there are more than there may be.
fn read(candidates: &[(u8, SocketAddr)]) -> Option<Vec<Candidate>> {
    let known = |(number, addr): &(u8, SocketAddr)| {
        let kind = *CandidateKind::ALL.get(usize::from(*number))?;
        Some(Candidate { kind, addr: *addr })
    };
    (candidates.len() <= CANDIDATES_MAX).then(|| candidates.iter().filter_map(known).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn presence(candidates: usize) -> Presence {
        let candidate = |n: usize| {
            let kind = CandidateKind::ALL[n % CandidateKind::ALL.len()];
            Candidate { kind, addr: ([0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16], 65_535).into() }
        };
        Presence {
            id: NodeId([7; 32]),
            boot: BootId(u64::MAX),
            flags: Flags::RELAY.with(Flags::VARYING_PORT),
            candidates: (0..candidates).map(candidate).collect(),
        }
    }

    pub(crate) fn introduction(candidates: usize) -> Introduction {
        let Presence { id, boot, flags, candidates } = presence(candidates);
        Introduction { id, to: NodeId([8; 32]), boot, step: Step::Sending, flags, candidates }
    }

    #[test]
    fn they_read_back_whatever_padding_follows_and_are_at_most_so_long() {
        for candidates in 0..=CANDIDATES_MAX {
            let (presence, introduction) = (presence(candidates), introduction(candidates));
            let bytes = [presence.to_bytes(), vec![0; 9]].concat();
            assert_eq!(Presence::parse(&bytes), Some(presence.clone()));
            for end in 0..presence.to_bytes().len() {
                assert_eq!(Presence::parse(&bytes[..end]), None, "{end}");
            }
            let bytes = [introduction.to_bytes(), vec![0; 9]].concat();
            assert_eq!(Introduction::parse(&bytes), Some(introduction));
        }
        assert_eq!(presence(CANDIDATES_MAX).to_bytes().len(), PRESENCE_MAX);
        assert_eq!(introduction(CANDIDATES_MAX).to_bytes().len(), INTRODUCTION_MAX);
    }

    #[test]
    fn a_ninth_candidate_is_never_written_and_refused_when_read() {
        let written = Presence::parse(&presence(9).to_bytes()).unwrap();
        assert_eq!(written.candidates.len(), CANDIDATES_MAX);
        let all = presence(9);
        let candidates = all.candidates.iter().map(|candidate| (0, candidate.addr)).collect();
        let nine = PresenceFields { id: all.id, boot: all.boot, flags: all.flags, candidates };
        assert_eq!(Presence::parse(&bytes(&nine)), None);
    }

    #[test]
    fn a_kind_of_a_later_version_is_left_out_and_a_step_of_one_refused() {
        let addr = ([192, 0, 2, 7], 7).into();
        let fields = PresenceFields {
            id: NodeId([7; 32]),
            boot: BootId(1),
            flags: Flags(0xff),
            candidates: vec![(CandidateKind::ALL.len() as u8, addr), (1, addr)],
        };
        let read = Presence::parse(&bytes(&fields)).unwrap();
        assert_eq!(read.candidates, [Candidate { kind: CandidateKind::Server, addr }]);
        assert!(read.flags.has(Flags::RELAY));
        let mut bytes = introduction(0).to_bytes();
        let step = bytes.len() - 3;
        assert_eq!(bytes[step], 1);
        bytes[step] = 2;
        assert_eq!(Introduction::parse(&bytes), None);
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_within_the_limits(garbage in prop::collection::vec(0_u8.., 0..400)) {
            if let Some(presence) = Presence::parse(&garbage) {
                prop_assert!(presence.candidates.len() <= CANDIDATES_MAX);
            }
            if let Some(introduction) = Introduction::parse(&garbage) {
                prop_assert!(introduction.candidates.len() <= CANDIDATES_MAX);
            }
        }
    }
}
