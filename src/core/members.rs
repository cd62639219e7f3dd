//! Members that rendezvous servers or they themselves told us of: who they are, and where they say that they are
//! (rendezvous.md, 5).
//!
//! Each is described once for each place in which it was heard of, and by nobody but itself: descriptions are signed. They
//! are no peers before they have proved their keys; `introductions.rs` tries to meet them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::Node;
use crate::core::extra_ports::is_far_v4;
use crate::core::introductions::is_link_local;
use crate::core::registrations::{Place, RegistrationId};
use crate::core::relays::is_relayed;
use crate::core::timers::Timer;
use crate::crypto::network::NetworkTag;
use crate::id::NodeId;
use crate::limits;
use crate::time::Instant;
use crate::wire::presence::{CANDIDATES_MAX, Candidate, Flags, Presence};

/// Who introduced itself within this time is there. It does so again and again while it is being met, ever less often.
const JUST_KNOCKED: Duration = Duration::from_secs(10);
/// Handles by which one member is known: two servers, two families. It has more around midnight and after a move; the
/// newest tell where it is.
const PLACES: usize = 4;

/// A member, as it describes itself to members.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) network: NetworkTag,
    pub(super) since: Instant,
    /// One for each handle, the newest first.
    pub(super) told: Vec<Description>,
    /// When it introduced itself last.
    pub(super) knocked: Option<Instant>,
    /// When we answered an introduction of its last, and followed one to ports that only guessing finds.
    pub(super) answered: Option<Instant>,
    pub(super) tried_near: Option<Instant>,
    /// Meetings in a row that came to nothing.
    pub(super) failures: u32,
}

/// What was told of a member in one place.
#[derive(Debug)]
pub(super) struct Description {
    /// None: by itself, in a session.
    pub(super) place: Option<Place>,
    pub(super) flags: Flags,
    pub(super) candidates: Vec<Candidate>,
}

impl Member {
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.told.iter().filter_map(|told| told.place)
    }

    /// Takes back what was told in some places; says whether nothing is left. What it told itself, in a session, stays.
    fn take_back(&mut self, is_there: impl Fn(Place) -> bool) -> bool {
        self.told.retain(|told| told.place.is_none_or(|place| !is_there(place)));
        self.told.is_empty()
    }

    /// Whether it is elsewhere than it said before there, or anywhere.
    pub(super) fn has_moved(&self, place: Place, candidates: &[Candidate]) -> bool {
        let here = |told: &&Description| told.place.is_some_and(|known| known.handle == place.handle);
        match self.told.iter().find(here) {
            Some(before) => before.candidates != candidates,
            None => self.told.iter().all(|before| before.candidates != candidates),
        }
    }

    /// What was told last goes first.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.told.iter().flat_map(|told| &told.candidates)
    }

    pub(super) fn flags(&self) -> Flags {
        self.told.first().map(|told| told.flags).unwrap_or_default()
    }
}

impl Node {
    /// Whether `id` can be reached through an introduction.
    pub(super) fn may_meet(&self, id: &NodeId) -> bool {
        self.introductions.members.contains_key(id)
    }

    /// Whether a member may be sought at this address, which it or somebody in its name has told.
    pub(super) fn may_be_met_at(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        addr.port() != 0
            && !ip.is_unspecified()
            && !ip.is_loopback()
            && !ip.is_multicast()
            && !is_link_local(ip)
            && !is_relayed(ip)
            && !self.links.is_broadcast(ip)
            && !self.links.is_own(ip)
            // Nor ourselves around our own router: some take that for an attack.
            && !self.seen_by_servers().contains(&addr)
    }

    /// What was told of a member's addresses, if it is one.
    pub(super) fn member(&self, id: &NodeId) -> Option<Vec<Candidate>> {
        Some(self.introductions.members.get(id)?.candidates().copied().collect())
    }

    /// What a member said of itself last.
    pub(super) fn flags_of_member(&self, id: &NodeId) -> Flags {
        self.introductions.members.get(id).map(Member::flags).unwrap_or_default()
    }

    /// Where a member is on the internet of IPv4, each address once.
    pub(super) fn far_addrs_of_member(&self, id: &NodeId) -> impl Iterator<Item = SocketAddr> + use<> {
        let mut addrs: Vec<_> = self.member(id).unwrap_or_default().iter().map(|it| it.addr).collect();
        addrs.retain(|addr| is_far_v4(*addr) && self.may_be_met_at(*addr));
        addrs.truncate(CANDIDATES_MAX);
        let mut known = BTreeSet::new();
        addrs.retain(|addr| known.insert(*addr));
        addrs.into_iter()
    }

    pub(super) fn note_member(&mut self, presence: Presence, network: NetworkTag, place: Option<Place>) {
        let Presence { id, boot: _, flags, candidates } = presence;
        let now = self.now;
        let members = &mut self.introductions.members;
        if members.len() >= limits::PEERS && !members.contains_key(&id) {
            // Made-up members must not keep true ones out, who come later.
            let unmet = members.iter().filter(|(known, _)| self.peers.get(known).is_none());
            let Some(oldest) = unmet.min_by_key(|(_, it)| it.since).map(|(known, _)| *known) else { return };
            self.forget_member(oldest);
        }
        let members = &mut self.introductions.members;
        let new = Member {
            network,
            since: now,
            told: Vec::new(),
            answered: None,
            knocked: None,
            tried_near: None,
            failures: 0,
        };
        let member = members.entry(id).or_insert(new);
        member.network = network;
        let handle = |place: Option<Place>| place.map(|place| place.handle);
        member.told.retain(|told| handle(told.place) != handle(place));
        member.told.insert(0, Description { place, flags, candidates });
        member.told.truncate(PLACES);
    }

    /// A registration ended: nobody is found there any more.
    pub(super) fn forget_place(&mut self, registration: RegistrationId) {
        let is_there = |place: Place| place.registration == registration;
        self.introductions.members.retain(|_, member| !member.take_back(is_there));
    }

    /// A member left a place.
    pub(super) fn member_left(&mut self, id: NodeId, place: Place) {
        let member = self.introductions.members.get_mut(&id);
        if member.is_some_and(|member| member.take_back(|known| known.handle == place.handle)) {
            self.forget_member(id);
        }
    }

    pub(super) fn forget_member(&mut self, id: NodeId) {
        self.introductions.members.remove(&id);
        self.timers.clear(Timer::Meet(id));
        if self.peers.get(&id).is_none() && self.is_meeting(&id) {
            self.give_up(id, "it left");
        }
    }

    /// Whether `id` introduced itself just now: it is there, and no memory of a server.
    pub(super) fn has_knocked(&self, id: &NodeId) -> bool {
        let knocked = self.introductions.members.get(id).and_then(|member| member.knocked);
        knocked.is_some_and(|at| self.now.since(at) < JUST_KNOCKED)
    }

    /// Whether `id` is reached without a relay, as far as we know: then nothing more is to be tried for it.
    pub(super) fn is_met(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.is_near() && !peer.liveness.is_suspect())
    }

    /// The first member after `after`, in the order of ids, that we have never met.
    pub(super) fn unmet_after(&self, after: Option<NodeId>) -> Option<NodeId> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let members = self.introductions.members.range((start, Bound::Unbounded));
        members.map(|(id, _)| *id).find(|id| self.peers.get(id).is_none())
    }

    /// How many members that we have never met we are trying to.
    pub(super) fn unmet_meetings(&self) -> u64 {
        let unmet = self.introductions.members.keys().filter(|id| self.peers.get(id).is_none());
        unmet.filter(|id| self.is_meeting(id)).count() as u64
    }

    /// Whether a member has an address of a family in which we have one, or tells none.
    pub(super) fn shares_a_family(&self, id: &NodeId) -> bool {
        let theirs = self.member(id).unwrap_or_default();
        let ours = self.own_candidates();
        let is_common = |theirs: &Candidate| {
            let v4 = theirs.addr.ip().to_canonical().is_ipv4();
            ours.iter().any(|ours| ours.addr.ip().to_canonical().is_ipv4() == v4)
        };
        theirs.is_empty() || ours.is_empty() || theirs.iter().any(is_common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::registrations::tests::place;

    #[test]
    fn what_a_member_told_itself_stays_when_it_leaves_a_server_or_we_do() {
        let told = |place| Description { place, flags: Flags::default(), candidates: Vec::new() };
        let (one, other) = (place(1, 1), place(2, 2));
        let network = crate::crypto::network::NetworkKeys::open().tag();
        let mut member = Member {
            network,
            since: Instant::from_origin(Duration::ZERO),
            told: vec![told(None), told(Some(one)), told(Some(other))],
            knocked: None,
            answered: None,
            tried_near: None,
            failures: 0,
        };
        assert!(!member.take_back(|place| place.handle == one.handle));
        assert_eq!(member.places().collect::<Vec<_>>(), [other]);
        assert!(!member.take_back(|place| place.registration == other.registration));
        assert_eq!(member.told.len(), 1);
        // What it told through the server only is gone with that.
        member.told = vec![told(Some(one))];
        assert!(!member.take_back(|place| place.handle == other.handle));
        assert!(member.take_back(|place| place.handle == one.handle));
    }
}
