//! Whom a person means: an exact name or id, or the unique beginning of one.

use std::borrow::Cow;

use atonce::Client;
use atonce::client::{ErrorCode, PeerInfo, PeerRef, PeerState};
use atonce::id::NodeId;
use jiff::Timestamp;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::human;

/// Characters that the beginning of an id must have.
const ID_PREFIX: usize = 4;
/// Matches that an error lists.
pub(crate) const LISTED: usize = 10;

/// The peer that was meant, or this node.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) peer: PeerRef<'static>,
    /// Why it may not be reachable.
    pub(crate) absence: Option<String>,
    /// The peer that took its name later and is online.
    pub(crate) namesake: Option<NodeId>,
}

impl Found {
    /// What to try when it cannot be reached.
    pub(crate) fn when_unreachable(&self, failure: Failure) -> Failure {
        let (Some(other), name) = (self.namesake, &self.peer.name) else {
            return failure.try_this("atonce peers --all");
        };
        failure
            .because(format!("another peer called {name} is online"))
            .try_this(format!("its id, {}, or: atonce forget {name}", other.short()))
    }
}

/// Asks the daemon for its peers and finds the one that `text` means, this node included. A daemon that has just started
/// may meet it yet, and is given the time for that.
pub(crate) async fn find(client: &mut Client, text: &str) -> Result<Found, Failure> {
    match find_now(client, text).await {
        Err(failure) if failure.code == Some(ErrorCode::NoPeer) => {
            let peers = client.peers_settled().await?;
            found(client, text, &peers)
        }
        found => found,
    }
}

/// The same among those who are known now.
pub(crate) async fn find_now(client: &mut Client, text: &str) -> Result<Found, Failure> {
    let peers = client.peers().await?;
    found(client, text, &peers)
}

fn found(client: &Client, text: &str, peers: &[PeerInfo<'_>]) -> Result<Found, Failure> {
    let peer = choose(text, &candidates(client, peers))?;
    let info = peers.iter().find(|info| info.id == peer.id);
    let namesake = info.filter(|info| !info.conflict).and_then(|info| namesake(info, peers));
    Ok(Found { peer, absence: info.and_then(absence), namesake })
}

fn candidates(client: &Client, peers: &[PeerInfo<'_>]) -> Vec<Candidate> {
    let peer = |peer: &PeerInfo<'_>| Candidate { peer: reference(peer), pretender: peer.conflict };
    std::iter::once(Candidate::own(&client.hello().node)).chain(peers.iter().map(peer)).collect()
}

/// Whether `text` may mean this peer: its name or id, or the beginning of one.
pub(crate) fn may_mean(text: &str, peer: &PeerRef<'_>) -> bool {
    begins_name(text, peer) || begins_id(text, peer)
}

/// One of those that can be meant.
#[derive(Debug)]
struct Candidate {
    peer: PeerRef<'static>,
    /// Another peer had its name first.
    pretender: bool,
}

impl Candidate {
    fn own(node: &PeerRef<'static>) -> Self {
        Self { peer: node.clone(), pretender: false }
    }

    /// Whether it calls itself so, and the name is another one's.
    fn takes(&self, name: &str) -> bool {
        self.pretender && self.peer.name == name
    }
}

fn choose(text: &str, all: &[Candidate]) -> Result<PeerRef<'static>, Failure> {
    let ways: [&dyn Fn(&Candidate) -> bool; 4] = [
        &|known| known.peer.name == text && !known.pretender,
        &|known| known.peer.id.to_string() == text.to_ascii_lowercase(),
        // Who took the whole name later is never meant by it.
        &|known| begins_name(text, &known.peer) && !text.is_empty() && !known.takes(text),
        &|known| begins_id(text, &known.peer),
    ];
    for way in ways {
        let matches: Vec<_> = all.iter().filter(|known| way(known)).collect();
        match matches[..] {
            [] => {}
            [only] => return Ok(only.peer.clone()),
            // This node itself comes first: a peer with its name is a pretender to it.
            [own, ..] if own.peer.name == text => return Ok(own.peer.clone()),
            _ => return Err(ambiguous(text, &matches)),
        }
    }
    if let Some(pretender) = all.iter().find(|known| known.takes(text)) {
        return Err(Failure::new(
            Exit::NoPeer,
            format!("{text} is the name of another peer, which is not known any more"),
        )
        .because(format!("messages by that name do not go to who has it now, {}", pretender.peer.id.short()))
        .try_this("its id, if that one is meant")
        .with_code(ErrorCode::NoPeer));
    }
    Err(Failure::new(Exit::NoPeer, format!("no peer is called {text}"))
        .because("nobody with such a name or id has been seen by this node")
        .try_this("atonce peers --all")
        .with_code(ErrorCode::NoPeer))
}

fn ambiguous(text: &str, matches: &[&Candidate]) -> Failure {
    let failure = Failure::new(Exit::NoPeer, format!("{text} may be one of {}", matches.len()))
        .with_code(ErrorCode::Ambiguous)
        .try_this("a longer part of the name, or the id");
    let listed = matches.iter().take(LISTED).map(|known| format!("{}  {}", known.peer.name, known.peer.id));
    let more = (matches.len() > LISTED).then(|| format!("and {} more", matches.len() - LISTED));
    listed.chain(more).fold(failure, Failure::because)
}

/// A member that was never met has no name yet: the beginning of its id stands there.
fn begins_name(text: &str, peer: &PeerRef<'_>) -> bool {
    peer.name.starts_with(text) && peer.name != peer.id.short()
}

fn begins_id(text: &str, peer: &PeerRef<'_>) -> bool {
    text.len() >= ID_PREFIX && peer.id.to_string().starts_with(&text.to_ascii_lowercase())
}

fn reference(peer: &PeerInfo<'_>) -> PeerRef<'static> {
    PeerRef { name: Cow::Owned(peer.name.clone().into_owned()), id: peer.id }
}

fn namesake(peer: &PeerInfo<'_>, peers: &[PeerInfo<'_>]) -> Option<NodeId> {
    let later =
        |other: &&PeerInfo<'_>| other.name == peer.name && other.conflict && other.state == PeerState::Online;
    peers.iter().find(later).map(|other| other.id)
}

fn absence(peer: &PeerInfo<'_>) -> Option<String> {
    let state = match peer.state {
        PeerState::Online => return None,
        PeerState::Connecting => "connecting",
        PeerState::Offline => "offline",
    };
    let seen = peer.last_seen.as_deref().and_then(|time| human::age(time, Timestamp::now()));
    let mut text = format!("it is {state}");
    match seen.as_deref() {
        Some("now") => text.push_str(", last seen just now"),
        Some(age) => text.push_str(&format!(", last seen {age} ago")),
        None => {}
    }
    match peer.why.as_deref() {
        Some(why) if !why.is_empty() => text.push_str(&format!(": {why}")),
        _ => {}
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Candidate> {
        let node = |name: &str, byte, pretender| {
            let peer = PeerRef { name: Cow::Owned(name.to_owned()), id: NodeId([byte; 32]) };
            Candidate { peer, pretender }
        };
        vec![
            node("here", 1, false),
            node("pi", 2, false),
            node("pi-attic", 3, false),
            node("pi-attic", 4, true),
            node("garage", 5, false),
            node("here", 6, true),
        ]
    }

    fn chosen(text: &str) -> Result<u8, (Option<ErrorCode>, usize)> {
        match choose(text, &known()) {
            Ok(peer) => Ok(peer.id.as_bytes()[0]),
            Err(failure) => Err((failure.code, failure.why.len())),
        }
    }

    #[test]
    fn an_exact_name_goes_before_a_beginning_and_to_who_had_it_first() {
        assert_eq!(chosen("pi"), Ok(2));
        assert_eq!(chosen("pi-attic"), Ok(3));
        assert_eq!(chosen("here"), Ok(1));
    }

    #[test]
    fn the_unique_beginning_of_a_name_or_id_is_enough() {
        assert_eq!(chosen("gar"), Ok(5));
        let id = NodeId([4; 32]).to_string();
        assert_eq!(chosen(&id), Ok(4));
        assert_eq!(chosen(&id[..4]), Ok(4));
        assert_eq!(chosen(&id.to_uppercase()), Ok(4));
        assert_eq!(chosen(&id[..3]), Err((Some(ErrorCode::NoPeer), 1)));
    }

    #[test]
    fn a_letter_means_nobody_who_has_no_name_yet() {
        let id = NodeId([7; 32]);
        let unmet = PeerRef { name: Cow::Owned(id.short()), id };
        let all = [Candidate { peer: unmet, pretender: false }];
        assert!(choose(&id.to_string()[..1], &all).is_err());
        assert_eq!(choose(&id.to_string()[..4], &all).unwrap().id, id);
    }

    #[test]
    fn who_took_a_name_is_not_meant_by_it_even_if_its_owner_is_not_listed() {
        let mut all = known();
        all.remove(2);
        let failure = choose("pi-attic", &all).unwrap_err();
        assert_eq!(failure.code, Some(ErrorCode::NoPeer));
        assert_eq!(choose(&NodeId([4; 32]).to_string(), &all).unwrap().id, NodeId([4; 32]));
    }

    #[test]
    fn an_ambiguous_beginning_lists_all_that_fit() {
        assert_eq!(chosen("pi-"), Err((Some(ErrorCode::Ambiguous), 2)));
        assert_eq!(chosen("nobody"), Err((Some(ErrorCode::NoPeer), 1)));
        assert_eq!(chosen(""), Err((Some(ErrorCode::NoPeer), 1)));
    }
}
