//! Who makes room when the table of peers is full.
//!
//! Three kinds are told apart. *Passing* is who has not been here for ten seconds, *stayed* who has, in this run or in an
//! earlier one, and *used* whom an app of ours ever addressed: the last never makes room. Who is offline and was only passing
//! goes first. Of those who are passing the oldest makes room, so that each has its time to stay, and only while they are
//! many; else, of those who stayed, the one known last, so that a flood pushes out its own. Both from where most come from.

use std::time::Duration;

use tracing::info;

use crate::core::Node;
use crate::core::origin::Crowd;
use crate::core::peers::{Peer, Peers};
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::limits;
use crate::time::Instant;

/// So many are chosen at once: to look at all of them for each newcomer would be more work than its handshake.
const CHOSEN_AT_ONCE: usize = 32;
/// And not for longer: who was only passing may have stayed since.
const CHOSEN_FOR: Duration = Duration::from_secs(1);
/// Why a peer that made room is offline.
pub(crate) const MADE_ROOM: &str = "it made room for others, too many peers were there";

impl Node {
    /// Makes sure that `id` finds a place in the table; says whether it does.
    pub(crate) fn make_room(&mut self, id: NodeId) -> bool {
        if self.peers.get(&id).is_some() || !self.peers.is_full() {
            return true;
        }
        let Some(goes) = self.peers.who_makes_room(self.now) else { return false };
        let Some(peer) = self.peers.get(&goes) else { return false };
        let stayed = peer.has_stayed(self.now);
        let last_seen = peer.heard.map(|heard| self.clock.since_1970(heard)).or(peer.seen_before);
        info!(peer = %goes.short(), "made room for another peer");
        self.end_messages(goes);
        for (client, number) in self.pings.of_peer(&goes) {
            self.end_ping(client, number);
        }
        self.exit(goes, MADE_ROOM);
        self.give_up(goes, "made room");
        for timer in [Timer::Lost(goes), Timer::Delivery(goes), Timer::Reassembly(goes)] {
            self.timers.clear(timer);
        }
        self.peers.remove(goes, stayed, last_seen);
        true
    }

    /// An app means `id`: it is in the table from now on, and does not make room.
    pub(crate) fn mean(&mut self, id: NodeId) {
        if id == self.id {
            return;
        }
        if self.peers.get(&id).is_none() && self.make_room(id) {
            // Only its name was known.
            self.peers.admit(id, None);
        }
        self.peers.mean(&id);
    }
}

impl Peers {
    /// The next one to make room.
    fn who_makes_room(&mut self, now: Instant) -> Option<NodeId> {
        if now.since(self.chosen_at) >= CHOSEN_FOR {
            self.chosen.clear();
        }
        let next = |peers: &mut Self| {
            while let Some(chosen) = peers.chosen.pop() {
                if peers.get(&chosen).is_some_and(|peer| !peer.used) {
                    return Some(chosen);
                }
            }
            None
        };
        next(self).or_else(|| {
            (self.chosen, self.chosen_at) = (self.choose(now), now);
            next(self)
        })
    }

    /// The next ones, the first of them last.
    fn choose(&self, now: Instant) -> Vec<NodeId> {
        let unused: Vec<_> = self.iter().filter(|(_, peer)| !peer.used).collect();
        let crowd = Crowd::of(unused.iter().filter_map(|(_, peer)| peer.origin));
        let (passing, stayed): (Vec<_>, Vec<_>) =
            unused.into_iter().partition(|(_, peer)| !peer.has_stayed(now));
        let (passing, gone): (Vec<_>, Vec<_>) = passing.into_iter().partition(|(_, peer)| peer.is_online());
        let weight = |peer: &Peer| std::cmp::Reverse(crowd.weight(peer.origin));
        let mut chosen = first(gone, |peer| (!peer.forgotten, peer.heard));
        if passing.len() > limits::PEERS_PASSING || stayed.is_empty() {
            chosen.extend(first(passing, |peer| (weight(peer), peer.seniority)));
        }
        chosen.extend(first(stayed, |peer| (weight(peer), std::cmp::Reverse(peer.seniority))));
        chosen.truncate(CHOSEN_AT_ONCE);
        chosen.reverse();
        chosen
    }
}

/// The first in the order of `key`.
fn first<K: Ord>(peers: Vec<(&NodeId, &Peer)>, key: impl Fn(&Peer) -> K) -> Vec<NodeId> {
    let mut keyed: Vec<_> = peers.into_iter().map(|(id, peer)| (key(peer), *id)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, id)| id).take(CHOSEN_AT_ONCE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api::KnownPeer;
    use crate::core::links::Links;
    use crate::core::origin::Origin;
    use crate::core::peers::FRIENDSHIP;
    use crate::id::NodeName;

    fn id(n: usize) -> NodeId {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        NodeId(bytes)
    }

    fn name(n: usize) -> NodeName {
        format!("ghost {n}").parse().unwrap()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    /// The `n`th comes at `now` from `addr`, and is heard for so many seconds; says who made room for it.
    fn come(peers: &mut Peers, n: usize, now: u64, addr: [u8; 4], stays: u64) -> Option<NodeId> {
        let goes = peers.is_full().then(|| peers.who_makes_room(at(now)).unwrap());
        if let Some(goes) = goes {
            let stayed = peers.get(&goes).unwrap().has_stayed(at(now));
            peers.remove(goes, stayed, None);
        }
        let peer = peers.admit(id(n), Some(&name(n))).unwrap();
        (peer.met, peer.heard) = (Some(at(now)), Some(at(now + stays)));
        peer.origin = Some(Origin::of(addr.into(), &Links::default()));
        goes
    }

    fn remembered() -> Peers {
        let last_seen = Some(Duration::from_secs(1));
        let nas = KnownPeer {
            id: id(1 << 40),
            name: "nas".parse().unwrap(),
            pinned: true,
            addrs: vec![],
            last_seen,
        };
        Peers::remembered(&[nas])
    }

    #[test]
    fn neither_strangers_that_pass_nor_strangers_that_stay_take_the_name_of_one_that_was_known_before() {
        for stays in [0, FRIENDSHIP.as_secs()] {
            let mut peers = remembered();
            for n in 0..limits::PEERS + limits::PINS_APART + 2000 {
                come(&mut peers, n, 100 + n as u64 / 64, [10, 0, (n >> 8) as u8, n as u8], stays);
            }
            assert_eq!(peers.by_name("nas"), Some(id(1 << 40)));
            assert!(peers.get(&id(1 << 40)).is_some(), "its addresses are known too");
            assert!(peers.count_apart() <= limits::PINS_APART);
        }
    }

    #[test]
    fn whom_an_app_addressed_stays_and_so_does_its_name_even_if_it_came_with_the_flood() {
        let mut peers = Peers::default();
        for n in 0..limits::PEERS {
            come(&mut peers, n, 100, [10, 0, 0, 1], 60);
        }
        peers.mean(&id(limits::PEERS - 1));
        for n in limits::PEERS..3 * limits::PEERS {
            come(&mut peers, n, 200, [10, 0, 0, 1], 60);
        }
        assert!(peers.get(&id(limits::PEERS - 1)).is_some());
    }

    #[test]
    fn the_flood_pushes_out_its_own_whether_it_comes_from_few_addresses_or_was_there_last() {
        let mut peers = Peers::default();
        for n in 0..limits::PEERS {
            let honest = n % 16 == 0;
            let addr = if honest { [10, 0, 1, (n / 16) as u8] } else { [10, 0, 0, (n % 4) as u8] };
            come(&mut peers, n, 100, addr, 60);
        }
        for n in limits::PEERS..limits::PEERS + 1000 {
            let goes = come(&mut peers, n, 200, [10, 0, 2, 2], 60).unwrap();
            let number = u64::from_be_bytes(goes.0[..8].try_into().unwrap());
            assert!(
                number % 16 != 0 || number >= limits::PEERS as u64,
                "{number} is the only one at its address"
            );
        }
        let mut peers = Peers::default();
        for n in 0..limits::PEERS + 1000 {
            let addr = [10, 1, (n >> 8) as u8, n as u8];
            if let Some(goes) = come(&mut peers, n, 300, addr, 60) {
                let number = u64::from_be_bytes(goes.0[..8].try_into().unwrap()) as usize;
                assert!(number >= limits::PEERS - CHOSEN_AT_ONCE, "{number} was there before");
            }
        }
    }

    #[test]
    fn those_who_pass_have_their_time_and_those_who_left_go_first() {
        let mut peers = Peers::default();
        for n in 0..limits::PEERS {
            come(&mut peers, n, 100, [10, 1, (n >> 8) as u8, n as u8], 0);
        }
        // Offline, heard at the same time: then the one of the smallest id.
        assert_eq!(come(&mut peers, limits::PEERS, 101, [10, 9, 9, 9], 0), Some(id(0)));
        let route = crate::core::api::Route::to(([10, 1, 0, 1], 1).into());
        for (_, peer) in peers.iter_mut() {
            peer.path = Some(route);
        }
        assert_eq!(come(&mut peers, limits::PEERS + 1, 102, [10, 9, 9, 8], 0), Some(id(1)));
    }

    #[test]
    fn apps_that_address_everybody_leave_room_to_newcomers() {
        let mut peers = Peers::default();
        for n in 0..2 * limits::PEERS {
            come(&mut peers, n, 100, [10, 1, 0, 1], 60);
            peers.mean(&id(n));
        }
        assert!(peers.get(&id(2 * limits::PEERS - 1)).is_some());
        assert_eq!(peers.iter().filter(|(_, peer)| peer.used).count(), limits::PEERS_USED);
    }
}
