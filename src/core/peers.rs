//! Who is there: the peers that proved their key, now or in an earlier run.
//!
//! A peer is `online` from its first session until it leaves or questions stay without an answer. Nothing enters this table because of an advert,
//! and nothing leaves it because one vanished.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::api::{KnownPeer, Route};
use crate::core::budget::Holdings;
use crate::core::delivery::Delivery;
use crate::core::flight::Flight;
use crate::core::inbox::Inbox;
use crate::core::lan::Comparison;
use crate::core::liveness::Liveness;
use crate::core::outbox::Train;
use crate::core::pace::Pace;
use crate::core::path_mtu::PathMtu;
use crate::core::paths::{Candidates, RoundTrip, Source};
use crate::core::presence;
use crate::core::reassembly::Reassembly;
use crate::core::receipts::Receipts;
use crate::core::relays::is_relayed;
use crate::core::sessions::Established;
use crate::core::topics::RemoteTopics;
use crate::crypto::network::NetworkTag;
use crate::id::{BootId, NodeId, NodeName};
use crate::limits;
use crate::time::Instant;
use crate::wire::local::PathKind;

/// Who has been here for this long is not forgotten for somebody who was not.
const FRIENDSHIP: Duration = Duration::from_secs(10);

/// Names that a peer takes at once, and a second: a host is renamed now and then.
const RENAMES_AT_ONCE: u32 = 8;
const RENAMES_A_SECOND: u32 = 1;
/// Peers that another one says it lost, at once and a second: all of them when a network is parted.
const VERDICTS_AT_ONCE: u32 = limits::PEERS as u32;
const VERDICTS_A_SECOND: u32 = 64;

/// Another node of our network, as this node knows it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: NodeName,
    /// Messages by its name go to it, and not to another of the same name.
    pub(crate) pinned: bool,
    /// The session that we send in.
    pub(crate) current: Option<Box<Established>>,
    /// The one before, for what is still under way.
    pub(crate) previous: Option<Box<Established>>,
    /// Whose secret made the last session.
    pub(crate) network: Option<NetworkTag>,
    /// Its life, as the last committed session told.
    pub(crate) boot: Option<BootId>,
    /// Its earlier lives: no session is made with them again.
    pub(crate) past_boots: VecDeque<BootId>,
    /// The highest handshake counter of this boot that was committed.
    pub(crate) handshake_counter: u64,
    /// The way that we send; none while it is offline.
    pub(crate) path: Option<Route>,
    /// Since when.
    pub(crate) path_since: Instant,
    /// What kind of way it was, for when there is none any more.
    pub(crate) last_kind: PathKind,
    /// When the path was heard last.
    pub(crate) path_heard: Instant,
    pub(crate) candidates: Candidates,
    /// Of the path.
    pub(crate) round_trip: RoundTrip,
    /// How it sees us, if a translator may be between.
    pub(crate) sees_us: Option<SocketAddr>,
    /// When the ways to it were compared last.
    pub(crate) compared: Instant,
    pub(crate) liveness: Liveness,
    pub(crate) topics: RemoteTopics,
    pub(crate) delivery: Delivery,
    pub(crate) inbox: Inbox,
    /// What it holds of the budgets of all peers.
    pub(crate) held: Holdings,
    /// Of what apps that watch are told of it.
    pub(crate) presence_pace: Pace,
    /// Of its own names, and of what it says of others that it lost.
    pub(crate) renames: Pace,
    pub(crate) verdicts: Pace,
    pub(crate) reassembly: Reassembly,
    pub(crate) flight: Flight,
    pub(crate) receipts: Receipts,
    pub(crate) path_mtu: PathMtu,
    /// Bytes of the datagrams that it is sent.
    pub(crate) datagram_bytes: usize,
    pub(crate) train: Train,
    /// Whether it was counted as online, and as near.
    counted: (bool, bool),
    /// When it proved itself first in this run.
    pub(crate) met: Option<Instant>,
    /// When it was heard last, in this run.
    pub(crate) heard: Option<Instant>,
    /// Since when it has not answered, if it did not say goodbye.
    pub(crate) lost: Option<Instant>,
    /// When it was heard last in an earlier run, as the time since 1970.
    pub(crate) seen_before: Option<Duration>,
    /// When its acquaintances were compared with ours and differed.
    pub(crate) comparison: Option<Comparison>,
    /// Hints of its that led nowhere, and until when its hints are ignored.
    pub(crate) failed_hints: u32,
    pub(crate) hints_ignored_until: Instant,
    /// Why it is offline.
    pub(crate) why: &'static str,
    /// An app had us forget it: nobody is told of it before it comes back. The numbers of messages stay, since it keeps
    /// them too.
    pub(crate) forgotten: bool,
}

impl Peer {
    /// A peer that nothing is known of but its name.
    pub(crate) fn new(name: NodeName, pinned: bool) -> Self {
        Self {
            name,
            pinned,
            current: None,
            previous: None,
            network: None,
            boot: None,
            past_boots: VecDeque::new(),
            handshake_counter: 0,
            path: None,
            path_since: Instant::default(),
            last_kind: PathKind::Lan,
            path_heard: Instant::default(),
            candidates: Candidates::default(),
            round_trip: RoundTrip::default(),
            sees_us: None,
            compared: Instant::default(),
            liveness: Liveness::default(),
            topics: RemoteTopics::default(),
            delivery: Delivery::default(),
            inbox: Inbox::default(),
            held: Holdings::default(),
            presence_pace: presence::pace(),
            renames: Pace::new(RENAMES_AT_ONCE, RENAMES_A_SECOND),
            verdicts: Pace::new(VERDICTS_AT_ONCE, VERDICTS_A_SECOND),
            reassembly: Reassembly::default(),
            flight: Flight::default(),
            receipts: Receipts::default(),
            path_mtu: PathMtu::default(),
            datagram_bytes: limits::DATAGRAM_BYTES,
            train: Train::default(),
            counted: (false, false),
            met: None,
            heard: None,
            lost: None,
            seen_before: None,
            comparison: None,
            failed_hints: 0,
            hints_ignored_until: Instant::default(),
            why: "not seen since the daemon started",
            forgotten: false,
        }
    }

    /// Whether it has been here for a while, in this run or in an earlier one.
    pub(crate) fn is_friend(&self) -> bool {
        let stayed = |(met, heard): (Instant, Instant)| heard.since(met) >= FRIENDSHIP;
        self.seen_before.is_some() || self.met.zip(self.heard).is_some_and(stayed)
    }

    /// Whether it is there, and reached without a relay.
    pub(crate) fn is_near(&self) -> bool {
        self.path.is_some_and(|path| !is_relayed(path.remote.ip()))
    }

    /// Whether it is there: it has a session, or had one and was not missed since.
    pub(crate) const fn is_online(&self) -> bool {
        self.path.is_some()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_id: BTreeMap<NodeId, Peer>,
    /// Whom messages by a name go to: the first who had it, for as long as it is remembered.
    pins: BTreeMap<NodeName, NodeId>,
    online: usize,
    digest: u64,
}

impl Peers {
    /// The peers of earlier runs.
    pub(crate) fn remembered(known: &[KnownPeer]) -> Self {
        let mut peers = Self::default();
        for known in known.iter().take(limits::PEERS) {
            let pinned = known.pinned && !peers.pins.contains_key(&known.name);
            let mut peer = Peer::new(known.name.clone(), pinned);
            if pinned {
                peers.pins.insert(known.name.clone(), known.id);
            }
            for addr in known.addrs.iter().rev() {
                peer.candidates.add(Route::to(*addr), Source::Proved);
            }
            peer.seen_before = known.last_seen;
            peers.by_id.insert(known.id, peer);
        }
        peers
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Peer> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.by_id.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut Peer)> {
        self.by_id.iter_mut()
    }

    /// Whether `id` was met, and not forgotten since.
    pub(crate) fn is_known(&self, id: &NodeId) -> bool {
        self.by_id.get(id).is_some_and(|peer| !peer.forgotten)
    }

    /// Those that were not forgotten.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&NodeId, &Peer)> {
        self.known_after(None)
    }

    /// Those of them after `id` in the order of ids, `id` itself excluded.
    pub(crate) fn known_after(&self, id: Option<NodeId>) -> impl Iterator<Item = (&NodeId, &Peer)> {
        use std::ops::Bound;
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range((start, Bound::Unbounded)).filter(|(_, peer)| !peer.forgotten)
    }

    /// The ids of the peers that are online.
    pub(crate) fn online(&self) -> Vec<NodeId> {
        self.by_id.iter().filter(|(_, peer)| peer.is_online()).map(|(id, _)| *id).collect()
    }

    /// How many are online, and how many there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.online, self.by_id.len())
    }

    /// A digest of the ids of the peers that are online.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The ids of those that are reached without a relay.
    pub(crate) fn near(&self) -> Vec<NodeId> {
        self.by_id.iter().filter(|(_, peer)| peer.is_near()).map(|(id, _)| *id).collect()
    }

    /// Takes note that a peer came or went, or is reached in another way; says whether it is near now and was not, or the
    /// other way round. Who is reached through a relay is not passed on: it is not in the digest.
    pub(crate) fn recount(&mut self, id: NodeId) -> bool {
        let Some(peer) = self.by_id.get_mut(&id) else { return false };
        let (online, near) = (peer.is_online(), peer.is_near());
        match (std::mem::replace(&mut peer.counted.0, online), online) {
            (false, true) => self.online += 1,
            (true, false) => self.online = self.online.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        let changed = std::mem::replace(&mut peer.counted.1, near) != near;
        if changed {
            self.digest ^= id.digest();
        }
        changed
    }

    /// Whom messages by `name` go to.
    pub(crate) fn by_name(&self, name: &str) -> Option<NodeId> {
        self.pins.get(name).copied()
    }

    /// The peer `id`, which just proved its key and says that it is called `name`. A full table forgets the offline
    /// peer that was heard longest ago; with 4096 online there is no room, and `None` says so.
    pub(crate) fn admit(&mut self, id: NodeId, name: Option<&NodeName>) -> Option<&mut Peer> {
        if !self.by_id.contains_key(&id) {
            if self.by_id.len() >= limits::PEERS {
                self.forget_one()?;
            }
            let fallback = || short_name(&id);
            let first_name = name.cloned().unwrap_or_else(fallback);
            self.by_id.insert(id, Peer::new(first_name, false));
        }
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.forgotten = false;
        }
        if let Some(name) = name {
            self.rename(id, name);
        }
        self.by_id.get_mut(&id)
    }

    fn rename(&mut self, id: NodeId, name: &NodeName) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        if peer.pinned && peer.name == *name {
            return;
        }
        let old = std::mem::replace(&mut peer.name, name.clone());
        if std::mem::take(&mut peer.pinned) {
            self.free(&old);
        }
        if !self.pins.contains_key(name) {
            self.pin(id);
        }
    }

    /// Messages by the name of `id` go to it from now on.
    fn pin(&mut self, id: NodeId) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        peer.pinned = true;
        self.pins.insert(peer.name.clone(), id);
    }

    /// Nobody has `name` any more: it goes to another who is called so, best to one that is there, else to the last one
    /// that was.
    fn free(&mut self, name: &NodeName) {
        self.pins.remove(name);
        let heirs = self.known().filter(|(_, peer)| peer.name == *name);
        let heir = heirs.max_by_key(|(_, peer)| (peer.is_online(), peer.heard, peer.seen_before));
        if let Some(heir) = heir.map(|(id, _)| *id) {
            self.pin(heir);
        }
    }

    /// Forgets all that people know of `id`, which has no session: it may come back as if it were new.
    pub(crate) fn forget(&mut self, id: NodeId) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        peer.forgotten = true;
        peer.candidates = Candidates::default();
        (peer.heard, peer.seen_before) = (None, None);
        let name = peer.name.clone();
        if std::mem::take(&mut peer.pinned) {
            self.free(&name);
        }
    }

    /// Makes room: acquaintances go before friends, so that a stranger with many keys cannot take a friend's name.
    fn forget_one(&mut self) -> Option<()> {
        let offline = self.by_id.iter().filter(|(_, peer)| !peer.is_online() && peer.delivery.is_empty());
        let age = |peer: &Peer| (peer.is_friend(), peer.heard, peer.seen_before);
        let oldest = offline.min_by_key(|(_, peer)| age(peer)).map(|(id, _)| *id)?;
        let peer = self.by_id.remove(&oldest)?;
        if peer.pinned {
            self.free(&peer.name);
        }
        Some(())
    }
}

/// What a peer is called until it says its name.
pub(crate) fn short_name(id: &NodeId) -> NodeName {
    id.short().parse().unwrap_or_else(|_| unreachable!("base32 is printable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_stays_with_the_key_that_had_it_first() {
        let mut peers = Peers::default();
        peers.admit(id(1), Some(&name("pi")));
        peers.admit(id(2), Some(&name("pi")));
        assert_eq!(peers.by_name("pi"), Some(id(1)));
        assert!(!peers.get(&id(2)).unwrap().pinned);
    }

    #[test]
    fn a_peer_that_takes_another_name_frees_the_old_one() {
        let mut peers = Peers::default();
        peers.admit(id(1), Some(&name("pi")));
        peers.admit(id(1), Some(&name("attic")));
        assert_eq!(peers.by_name("pi"), None);
        peers.admit(id(2), Some(&name("pi")));
        assert_eq!(peers.by_name("pi"), Some(id(2)));
    }

    #[test]
    fn a_stranger_with_many_keys_does_not_make_us_forget_a_friend() {
        let known = KnownPeer {
            id: id(1),
            name: name("pi"),
            pinned: true,
            addrs: vec![],
            last_seen: Some(Duration::from_secs(1)),
        };
        let mut peers = Peers::remembered(&[known]);
        for n in 0..2 * limits::PEERS {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let now = Instant::from_origin(Duration::from_secs(1 + n as u64));
            let peer = peers.admit(NodeId(bytes), Some(&name(&format!("ghost {n}")))).unwrap();
            (peer.met, peer.heard) = (Some(now), Some(now));
        }
        assert_eq!(peers.by_name("pi"), Some(id(1)));
    }

    #[test]
    fn a_freed_name_goes_to_who_was_heard_last_among_those_that_have_it() {
        let mut peers = Peers::default();
        for n in 1..=4 {
            let heard = Instant::from_origin(Duration::from_secs(if n == 3 { 9 } else { n }));
            peers.admit(id(n as u8), Some(&name("pi"))).unwrap().heard = Some(heard);
        }
        peers.forget(id(1));
        assert_eq!(peers.by_name("pi"), Some(id(3)));
        assert_eq!(peers.known().count(), 3);
        peers.admit(id(3), Some(&name("attic")));
        assert_eq!(peers.by_name("pi"), Some(id(4)));
        peers.admit(id(1), Some(&name("pi")));
        assert_eq!((peers.by_name("pi"), peers.known().count()), (Some(id(4)), 4));
    }

    #[test]
    fn pins_outlive_a_restart() {
        let known =
            |n, pinned| KnownPeer { id: id(n), name: name("pi"), pinned, addrs: vec![], last_seen: None };
        let peers = Peers::remembered(&[known(1, false), known(2, true)]);
        assert_eq!(peers.by_name("pi"), Some(id(2)));
    }

    #[test]
    fn a_full_table_forgets_the_offline_peer_heard_longest_ago() {
        let mut peers = Peers::default();
        for n in 0..limits::PEERS {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let peer = peers.admit(NodeId(bytes), None).unwrap();
            peer.heard = Some(Instant::from_origin(Duration::from_secs(1 + n as u64)));
        }
        peers.get_mut(&NodeId([0; 32])).unwrap().met = None;
        assert!(peers.admit(id(9), None).is_some());
        assert_eq!(peers.counts().1, limits::PEERS);
        assert!(peers.get(&NodeId([0; 32])).is_none());
    }
}
