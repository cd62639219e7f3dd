//! Who is there: the peers that proved their key, now or in an earlier run.
//!
//! A peer is `online` from its first session until it leaves or questions stay without an answer. Nothing enters this table because of an advert,
//! and nothing leaves it because one vanished. Names stand beside it (`pins`); who makes room when it is full, in `room`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::api::{KnownPeer, Route};
use crate::core::budget::Holdings;
use crate::core::delivery::{Delivery, Numbered};
use crate::core::flight::Flight;
use crate::core::inbox::Inbox;
use crate::core::lan::Comparison;
use crate::core::liveness::Liveness;
use crate::core::origin::Origin;
use crate::core::outbox::Train;
use crate::core::pace::Pace;
use crate::core::path_mtu::PathMtu;
use crate::core::paths::{Candidates, RoundTrip, Source};
use crate::core::pins::{Apart, Pins};
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
pub(crate) const FRIENDSHIP: Duration = Duration::from_secs(10);

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
    /// Where it proved its key last, in this run.
    pub(crate) origin: Option<Origin>,
    /// The smaller, the longer it is known.
    pub(crate) seniority: u64,
    /// An app meant it by its name or id.
    pub(crate) used: bool,
    /// It was here for a while, before it went or in an earlier run.
    pub(crate) stayed: bool,
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
    pub(crate) fn new(name: NodeName, seniority: u64) -> Self {
        Self {
            name,
            origin: None,
            seniority,
            used: false,
            stayed: false,
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
    pub(crate) fn has_stayed(&self, now: Instant) -> bool {
        let heard = if self.is_online() { Some(now) } else { self.heard };
        let stayed = |(met, heard): (Instant, Instant)| heard.since(met) >= FRIENDSHIP;
        self.stayed || self.met.zip(heard).is_some_and(stayed)
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
    pins: Pins,
    online: usize,
    digest: u64,
    /// Of the next one that is met.
    seniority: u64,
    /// The highest numbers of messages to those who were forgotten: when one comes back it must not take a new message for
    /// one that it had.
    numbered: Numbered,
    used: usize,
    /// Who makes room next, the first of them last.
    pub(super) chosen: Vec<NodeId>,
    /// When they were chosen.
    pub(super) chosen_at: Instant,
}

impl Peers {
    /// The peers of earlier runs, those known longest first. Who finds no room in the table keeps its name.
    pub(crate) fn remembered(known: &[KnownPeer]) -> Self {
        let mut peers = Self::default();
        for known in known.iter().take(limits::PEERS + limits::PINS_APART) {
            let seniority = peers.next_seniority();
            if known.pinned {
                peers.pins.pin(&known.name, known.id);
            }
            if peers.is_full() {
                peers.pins.part(known.id, Apart { seniority, last_seen: known.last_seen });
                continue;
            }
            let mut peer = Peer::new(known.name.clone(), seniority);
            for addr in known.addrs.iter().rev() {
                peer.candidates.add(Route::to(*addr), Source::Proved);
            }
            (peer.seen_before, peer.stayed) = (known.last_seen, true);
            peers.by_id.insert(known.id, peer);
        }
        peers
    }

    const fn next_seniority(&mut self) -> u64 {
        self.seniority += 1;
        self.seniority
    }

    /// Whether somebody has to make room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.by_id.len() >= limits::PEERS
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
        self.by_id.get(id).is_some_and(|peer| !peer.forgotten) || self.pins.is_apart(id)
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
        self.pins.owner(name)
    }

    /// Whether messages by the name of `id` go to it.
    pub(crate) fn is_pinned(&self, id: &NodeId) -> bool {
        self.pins.name_of(id).is_some()
    }

    /// Those of whom only the name is known, after `id` in the order of ids.
    pub(crate) fn apart_after(
        &self,
        id: Option<NodeId>,
    ) -> impl Iterator<Item = (&NodeId, &NodeName, &Apart)> {
        self.pins.apart_after(id)
    }

    /// How many these are.
    pub(crate) fn count_apart(&self) -> usize {
        self.pins.count_apart()
    }

    /// The peer `id`, which just proved its key and says that it is called `name`, or whose name is known. In a full table
    /// somebody has to make room first: `None` says so.
    pub(crate) fn admit(&mut self, id: NodeId, name: Option<&NodeName>) -> Option<&mut Peer> {
        if !self.by_id.contains_key(&id) {
            if self.is_full() {
                return None;
            }
            let apart = self.pins.rejoin(&id);
            let pinned = self.pins.name_of(&id).cloned();
            let first_name = name.cloned().or(pinned).unwrap_or_else(|| short_name(&id));
            let seniority = apart.map_or_else(|| self.next_seniority(), |apart| apart.seniority);
            let mut peer = Peer::new(first_name, seniority);
            (peer.seen_before, peer.stayed) = (apart.and_then(|apart| apart.last_seen), apart.is_some());
            peer.delivery.number_after(self.numbered);
            self.by_id.insert(id, peer);
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
        peer.name = name.clone();
        if self.pins.name_of(&id).is_some_and(|pinned| pinned != name) {
            self.free(&id);
        }
        self.pins.pin(name, id);
    }

    /// An app means `id`, which is in the table: it does not make room for others any more, unless too many do not.
    pub(crate) fn mean(&mut self, id: &NodeId) {
        if self.used < limits::PEERS_USED
            && let Some(peer) = self.by_id.get_mut(id).filter(|peer| !peer.used)
        {
            peer.used = true;
            self.used += 1;
        }
    }

    /// Nobody has the name of `id` any more: it goes to another who is called so, best to one that is there, else to the
    /// last one that was.
    fn free(&mut self, id: &NodeId) {
        let Some(name) = self.pins.free(id) else { return };
        let heirs = self.known().filter(|(other, peer)| peer.name == name && *other != id);
        let heir = heirs.max_by_key(|(_, peer)| (peer.is_online(), peer.heard, peer.seen_before));
        if let Some(heir) = heir.map(|(id, _)| *id) {
            self.pins.pin(&name, heir);
        }
    }

    /// Forgets all that people know of `id`, which has no session: it may come back as if it were new.
    pub(crate) fn forget(&mut self, id: NodeId) {
        if let Some(peer) = self.by_id.get_mut(&id) {
            peer.forgotten = true;
            peer.candidates = Candidates::default();
            (peer.heard, peer.seen_before, peer.met, peer.stayed) = (None, None, None, false);
            self.used -= usize::from(std::mem::take(&mut peer.used));
        }
        self.free(&id);
    }

    /// Takes `id`, which is offline, out of the table. If it `stayed` its name stays its own.
    pub(crate) fn remove(&mut self, id: NodeId, stayed: bool, last_seen: Option<Duration>) {
        let Some(peer) = self.by_id.remove(&id) else { return };
        self.used -= usize::from(peer.used);
        self.numbered = self.numbered.max(peer.delivery.numbered());
        if stayed {
            self.pins.part(id, Apart { seniority: peer.seniority, last_seen });
        } else {
            self.free(&id);
        }
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
        assert!(!peers.is_pinned(&id(2)));
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
    fn who_left_the_table_keeps_its_name_if_it_had_stayed_and_messages_to_it_go_on_counting() {
        let mut peers = Peers::default();
        for n in 1..=2 {
            let name = name(&format!("pi-{n}"));
            peers.admit(id(n), Some(&name)).unwrap().delivery.last_number = 7;
            peers.remove(id(n), n == 1, None);
        }
        assert_eq!((peers.by_name("pi-1"), peers.by_name("pi-2")), (Some(id(1)), None));
        assert!(peers.is_known(&id(1)) && !peers.is_known(&id(2)));
        peers.admit(id(3), Some(&name("pi-1")));
        assert_eq!(peers.by_name("pi-1"), Some(id(1)));
        let back = peers.admit(id(1), None).unwrap();
        assert_eq!((back.name.as_str(), back.delivery.last_number), ("pi-1", 7));
        assert_eq!(peers.count_apart(), 0);
        peers.forget(id(1));
        assert_eq!(peers.by_name("pi-1"), Some(id(3)));
    }
}
