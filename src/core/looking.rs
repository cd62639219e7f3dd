//! Looking on for whom we miss (protocol.md, 7.4): everybody while we are alone, else a configured or known peer that is
//! not here.
//!
//! A kick is loud and short (`lan.rs`). What it does not find is looked for from then on, for ever, since a network may
//! begin to forward at any time and nothing tells us. A look is one hello, one question of multicast DNS while nobody is
//! here, and one first message to some of those who are missed. The pauses grow from [`FIRST`] to [`OFTEN`], and to
//! [`SELDOM`] when the last kick is [`YOUNG`] ago. Who is not alone shares that with those who are here, as they miss the
//! same; and who misses nobody does not look.

use std::time::Duration;

use crate::core::Node;
use crate::core::api::Destination;
use crate::core::prospects::{GLANCE, PROSPECTS};
use crate::core::timers::Timer;
use crate::id::NodeId;
use crate::time::Instant;

/// From a kick to the first look; then each pause is as long as the kick is ago. The kick itself greets and asks within
/// the first seconds.
const FIRST: Duration = Duration::from_secs(2);
/// The longest pause while the last kick is young: a tenth more is still less than the half minute after which people
/// go and look for what is wrong.
const OFTEN: Duration = Duration::from_secs(26);
/// How long it is young: switches and access points are up after some minutes.
const YOUNG: Duration = Duration::from_secs(600);
/// The pause after that: the packets of a look, 4.25 on average, are less than four a minute then, and two nodes meet
/// within 75 s.
pub(super) const SELDOM: Duration = Duration::from_secs(67);
/// Every so many of these the hello goes to the broadcast addresses too: few networks pass nothing else.
const BROADCAST_EACH: u32 = 4;
/// First messages of one look, counted as datagrams: half of them for those who were here last, the others by turns. So
/// all who are missed cost less than 30 packets a minute, and 80 in the first ten minutes, however many they are.
const DATAGRAMS: usize = 32;

/// How we look on.
#[derive(Debug, Default)]
pub(crate) struct Looking {
    /// Since the last kick.
    since: Instant,
    looks: u32,
    /// Where the turns of those who were not here for long go on.
    turn: usize,
}

impl Node {
    /// A kick looks for everybody: what it misses is looked for from now on.
    pub(super) fn look_anew(&mut self) {
        (self.looking.since, self.looking.looks) = (self.now, 0);
        self.timers.clear(Timer::Look);
        self.look_on();
    }

    /// Somebody may be missed: it is looked for, after a pause.
    pub(crate) fn look_on(&mut self) {
        let ago = self.now.since(self.looking.since);
        let pause = ago.clamp(FIRST, self.longest_pause(self.looking.since));
        let (online, _) = self.peers.counts();
        let sharing = u32::try_from(online.div_ceil(2)).unwrap_or(u32::MAX).max(1);
        let pause = self.a_little_off(pause * sharing);
        self.timers.set_sooner(Timer::Look, self.now + pause);
    }

    /// Between two tries to reach somebody who has been missed since then.
    pub(super) fn longest_pause(&self, since: Instant) -> Duration {
        if self.now.since(since) < YOUNG { OFTEN } else { SELDOM }
    }

    pub(crate) fn on_look_timer(&mut self) {
        if !self.misses_somebody() {
            return;
        }
        self.looking.looks = self.looking.looks.saturating_add(1);
        let seldom = self.longest_pause(self.looking.since) == SELDOM;
        if self.config.hello {
            let everyone = !seldom || self.looking.looks.is_multiple_of(BROADCAST_EACH);
            self.say_hello(if everyone { Destination::Everyone } else { Destination::Groups });
        }
        if self.config.mdns && (self.is_alone() || !self.config.hello) {
            self.browse_briefly();
        }
        self.look_where_they_were();
        self.look_on();
    }

    /// Since when, and how often, we have looked in vain; none if somebody is here.
    pub(crate) fn looked_in_vain(&self) -> Option<(Duration, u32)> {
        self.is_alone().then(|| (self.now.since(self.looking.since), self.looking.looks))
    }

    pub(super) fn is_alone(&self) -> bool {
        self.peers.counts().0 == 0
    }

    fn misses_somebody(&self) -> bool {
        self.is_alone() || self.misses_configured() || self.missing().next().is_some()
    }

    /// The known peers that are not here: with their last time here, and the number of their addresses.
    fn missing(&self) -> impl Iterator<Item = (LastHere, NodeId, usize)> {
        let missing = self.peers.known().filter(|(_, peer)| !peer.is_online() && !peer.candidates.is_empty());
        missing.map(|(id, peer)| ((peer.heard, peer.seen_before), *id, peer.candidates.iter().count()))
    }

    /// Seeks the peers of earlier runs where they were last, those first that were here last.
    pub(crate) fn seek_remembered(&mut self) {
        let known = self.peers.iter().filter(|(_, p)| !p.candidates.is_empty() && !p.is_online());
        let mut known: Vec<_> = known.map(|(id, p)| (p.heard, p.seen_before, *id)).collect();
        known.sort_unstable();
        for (.., id) in known.into_iter().rev().take(PROSPECTS / 2) {
            self.seek(id, None, None);
        }
    }

    /// Tries a peer that we miss once, where it was last; each time with the next of our networks.
    fn glance(&mut self, id: NodeId, turn: u32) {
        let network = self.config.network.current().tag();
        let Some(prospect) = self.prospect(network, id, None) else { return };
        prospect.series = &GLANCE;
        prospect.turns = turn as usize;
        self.send_first_message(id);
    }

    /// Sends a first message to some of those who are missed.
    fn look_where_they_were(&mut self) {
        let mut missing: Vec<_> = self.missing().filter(|(_, id, _)| !self.prospects.seeks(id)).collect();
        missing.sort_unstable_by_key(|(last_here, id, _)| std::cmp::Reverse((*last_here, *id)));
        let recent = within(missing.iter(), DATAGRAMS / 2);
        let mut rest = missing.split_off(recent);
        let turn = self.looking.turn % rest.len().max(1);
        rest.rotate_left(turn);
        let spent: usize = missing.iter().map(|(.., addrs)| addrs).sum();
        // One at least, however many addresses it has.
        let turns = within(rest.iter(), DATAGRAMS.saturating_sub(spent)).max(1);
        self.looking.turn = turn + turns;
        for (_, id, _) in missing.into_iter().chain(rest.into_iter().take(turns)) {
            self.glance(id, self.looking.looks);
        }
    }
}

/// When a peer was heard, in this run or before.
type LastHere = (Option<Instant>, Option<Duration>);

/// How many of them have no more addresses together than that.
fn within<'a>(missing: impl Iterator<Item = &'a (LastHere, NodeId, usize)>, most: usize) -> usize {
    let mut sum = 0;
    let fits = |(.., addrs): &&(LastHere, NodeId, usize)| {
        sum += addrs;
        sum <= most
    };
    missing.take_while(fits).count()
}
