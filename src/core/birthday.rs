//! The birthday punch (rendezvous.md, 6.2): for a translator that gives each destination another port, at random.
//!
//! The side behind it opens many ports towards the other one; that one, whose port is always the same, tries ports at
//! random. As two people of a small party have one birthday, soon one of many meets one of many: of 64,512 ports 256 open
//! ones are met by 1024 tries in 98 of 100 times.
//!
//! It costs two translators a thousand entries for a moment, so it is done for one peer at a time, twice in ten minutes
//! towards one address, not where a user says no, and not on a battery or a metered network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tracing::debug;

use crate::core::Node;
use crate::core::api::{Destination, Event, Route};
use crate::core::extra_ports::{Use, is_far_v4};
use crate::core::pace::Pace;
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::presence::{CandidateKind, Flags};

/// With so many first messages, 0.8 s after the first one: whatever is easier has been tried.
const AFTER: usize = 6;
/// Ports that are opened, and ports that are tried.
const OPENED: u16 = 256;
const GUESSED: u32 = 1024;
/// Of what counts in all only.
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Both happen at this pace, a hundred a second: routers at home lose others' mappings when thousands come at once.
const STEP: Duration = Duration::from_millis(100);
const A_STEP: u32 = 10;
/// From its beginning until the last port was tried, and a little more for the way.
const LIFE: Duration = Duration::from_secs(13);
/// To one address, and in all, it is tried so often in [`REMEMBERED`]: who asks may be anybody of the network, by any name,
/// and means any address.
const TIMES: usize = 2;
const TIMES_IN_ALL: usize = 20;
const REMEMBERED: Duration = Duration::from_secs(600);
/// Whether we are on a battery is not asked more often.
const ASK_BATTERY_AGAIN: Duration = Duration::from_secs(60);
/// Addresses of one peer that the ports are opened to.
const ADDRS: usize = 2;
/// The ports that translators give out: all above the well-known ones.
const PORTS: std::ops::RangeInclusive<u16> = 1024..=u16::MAX;

/// Ours, as either side of it.
#[derive(Debug)]
pub(crate) struct Birthday {
    opening: Option<Opening>,
    guessing: Option<Guessing>,
    /// When it was begun towards which address.
    tried: Vec<(Instant, IpAddr)>,
    /// Of guesses near a port that was told.
    pace: Pace,
    on_battery: bool,
    asked_battery: Option<Instant>,
}

/// We open ports.
#[derive(Debug)]
struct Opening {
    peer: NodeId,
    to: Vec<SocketAddr>,
    opened: u16,
    ends: Instant,
}

/// We try ports.
#[derive(Debug)]
struct Guessing {
    peer: NodeId,
    ip: Ipv4Addr,
    /// The next port's place among [`PORTS`], and how far it is from there to the one after it.
    place: u32,
    stride: u32,
    left: u32,
}

impl Default for Birthday {
    fn default() -> Self {
        let pace = Pace::new(44, 44);
        let tried = Vec::new();
        Self { opening: None, guessing: None, tried, pace, on_battery: false, asked_battery: None }
    }
}

impl Guessing {
    fn new(peer: NodeId, ip: Ipv4Addr, random: u64) -> Self {
        let count = u32::from(*PORTS.end() - *PORTS.start()) + 1;
        // Without a common divisor every port has its turn once.
        let coprime = |stride: &u32| gcd(*stride, count) == 1;
        let first = 1 + (random >> 32) as u32 % (count - 1);
        let stride = (first..count).chain(1..first).find(coprime).unwrap_or(1);
        Self { peer, ip, place: random as u32 % count, stride, left: GUESSED }
    }

    fn next(&mut self) -> Option<SocketAddr> {
        self.left = self.left.checked_sub(1)?;
        let count = u32::from(*PORTS.end() - *PORTS.start()) + 1;
        let port = u32::from(*PORTS.start()) + self.place;
        self.place = (self.place + self.stride) % count;
        Some(SocketAddr::new(self.ip.into(), u16::try_from(port).ok()?))
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Node {
    /// The machine runs on a battery, or no more.
    pub fn handle_battery(&mut self, on_battery: bool, now: Instant) {
        self.advance(now);
        self.birthday.on_battery = on_battery;
    }

    /// Has it looked up whether we are on a battery, since that may matter soon.
    pub(super) fn ask_battery(&mut self) {
        let now = self.now;
        if self.birthday.asked_battery.is_none_or(|at| now.since(at) >= ASK_BATTERY_AGAIN) {
            self.birthday.asked_battery = Some(now);
            self.events.push_back(Event::AskBattery);
        }
    }

    /// Whether this node takes part in it at all.
    pub(super) fn has_birthdays(&self) -> bool {
        self.config.birthday_punch && !self.config.metered && !self.birthday.on_battery
    }

    pub(super) fn is_having_birthday_with(&self, id: &NodeId) -> bool {
        self.birthday.opening.as_ref().is_some_and(|opening| opening.peer == *id)
    }

    /// Whether one more port near one that was told may be tried now.
    pub(super) fn may_guess(&mut self) -> bool {
        self.birthday.pace.take(self.now)
    }

    /// `id` is being met and has not been with so many first messages: opens many ports, if that may help.
    pub(super) fn try_birthday(&mut self, id: NodeId, attempts: usize) {
        let theirs = self.flags_of_member(&id);
        if attempts < AFTER
            || self.birthday.opening.is_some()
            || !self.has_varying_port()
            || theirs.has(Flags::VARYING_PORT)
            || !theirs.has(Flags::GUESSES)
            // A server answers, and so does whom it is for: neither the network nor the member is gone.
            || self.fresh_port_for(&id).is_none()
            || !self.has_knocked(&id)
        {
            return;
        }
        let to: Vec<_> = self.far_addrs_of_member(&id).take(ADDRS).collect();
        if to.first().is_none_or(|addr| !self.may_try(addr.ip())) {
            return;
        }
        debug!(peer = ?id, "many ports");
        let now = self.now;
        self.birthday.opening = Some(Opening { peer: id, to, opened: 0, ends: now + LIFE });
        self.timers.set_sooner(Timer::Punch, now);
        self.tell_whereabouts_to(id);
    }

    /// A member has opened many ports: tries some of all that there are.
    pub(super) fn try_guessing(&mut self, id: NodeId) {
        let theirs = self.flags_of_member(&id);
        if self.birthday.guessing.is_some()
            || !theirs.has(Flags::VARYING_PORT.with(Flags::MANY_PORTS))
            || self.has_varying_port()
        {
            return;
        }
        let Some(member) = self.member(&id) else { return };
        let outside =
            |kind| matches!(kind, CandidateKind::Server | CandidateKind::Near | CandidateKind::Peer);
        let seen = member.iter().filter(|it| outside(it.kind) && is_far_v4(it.addr)).map(|it| it.addr);
        let seen = seen.filter(|addr| self.may_be_met_at(*addr)).find_map(|addr| match addr {
            SocketAddr::V4(addr) => Some(*addr.ip()),
            SocketAddr::V6(_) => None,
        });
        let Some(ip) = seen else { return };
        if !self.may_try(ip.into()) {
            return;
        }
        debug!(peer = ?id, "guessing its ports");
        let random = self.rng.next_u64();
        self.birthday.guessing = Some(Guessing::new(id, ip, random));
        self.timers.set_sooner(Timer::Punch, self.now);
    }

    /// Whether it may be begun towards `ip` once more; then that counts.
    fn may_try(&mut self, ip: IpAddr) -> bool {
        let (now, allowed) = (self.now, self.has_birthdays());
        let tried = &mut self.birthday.tried;
        tried.retain(|(at, _)| now.since(*at) < REMEMBERED);
        let there = tried.iter().filter(|(_, known)| *known == ip).count();
        let may = allowed && there < TIMES && tried.len() < TIMES_IN_ALL;
        if may {
            tried.push((now, ip));
        }
        may
    }

    /// Others see us elsewhere: what was tried in vain was tried behind another translator.
    pub(super) fn forget_birthdays(&mut self) {
        self.birthday.tried.iter_mut().for_each(|(_, ip)| *ip = ANY);
    }

    pub(crate) fn on_punch_timer(&mut self) {
        let opens = self.open_some();
        let guesses = self.guess_some();
        if opens || guesses {
            self.timers.set(Timer::Punch, self.now + STEP);
        }
        self.close_idle_ports();
    }

    /// Opens the next ports; says whether more are to follow.
    fn open_some(&mut self) -> bool {
        let Some(Opening { peer, opened, ends, .. }) = &self.birthday.opening else { return false };
        let (peer, opened, ends) = (*peer, *opened, *ends);
        if self.now >= ends || !self.is_meeting(&peer) {
            self.end_opening(peer);
            return false;
        }
        let count = (OPENED - opened).min(A_STEP as u16);
        let Some(packet) = self.first_packet(peer).filter(|_| count > 0) else { return true };
        for _ in 0..count {
            let Some(port) = self.open_port(Use::OneOfMany(peer)) else { break };
            let Some(opening) = &mut self.birthday.opening else { break };
            opening.opened += 1;
            for addr in opening.to.clone() {
                self.send_opening(peer, Route { port, ..Route::to(addr) }, &packet);
            }
        }
        true
    }

    /// Tries the next ports; says whether more are to follow.
    fn guess_some(&mut self) -> bool {
        let Some(guessing) = &self.birthday.guessing else { return false };
        let peer = guessing.peer;
        let packet = if self.is_meeting(&peer) { self.first_packet(peer) } else { None };
        let (Some(guessing), Some(packet)) = (&mut self.birthday.guessing, packet) else {
            self.birthday.guessing = None;
            return false;
        };
        for _ in 0..A_STEP {
            let Some(addr) = guessing.next() else {
                self.birthday.guessing = None;
                return false;
            };
            self.outbox.push(Destination::One(Route::to(addr)), &packet);
        }
        true
    }

    fn end_opening(&mut self, peer: NodeId) {
        self.birthday.opening = None;
        self.close_many_of(peer);
    }

    /// `id` was met: nothing more is to be opened or tried for it, and what was counts no more.
    pub(super) fn end_birthday(&mut self, id: NodeId) {
        if let Some(path) = self.peers.get(&id).and_then(|peer| peer.path) {
            let there = self.birthday.tried.iter_mut().filter(|(_, ip)| *ip == path.remote.ip());
            there.for_each(|(_, ip)| *ip = ANY);
        }
        if self.is_having_birthday_with(&id) {
            self.end_opening(id);
        }
        self.birthday.guessing.take_if(|guessing| guessing.peer == id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_guessed_twice_and_none_of_the_well_known_ones() {
        proptest::proptest!(|(random: u64)| {
            let mut guessing = Guessing::new(NodeId([1; 32]), Ipv4Addr::new(1, 2, 3, 4), random);
            let ports: BTreeSet<_> = std::iter::from_fn(|| guessing.next()).map(|addr| addr.port()).collect();
            proptest::prop_assert_eq!(ports.len(), GUESSED as usize);
            proptest::prop_assert!(ports.iter().all(|port| PORTS.contains(port)));
        });
    }
}
