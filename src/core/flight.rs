//! The packets with messages that are under way to one peer: which of them came, which were lost, and when the next one
//! may leave (protocol.md, 5.6).
//!
//! Each packet is sent once; what it held goes in a new one when it was lost. A packet is lost when a later one came and
//! it had the time to come as well (RACK: RFC 8985). When nothing comes at all the oldest are sent again as a question.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::core::congestion::{Arrival, Congestion};
use crate::core::paths::{RETRY_MAX, RoundTrip};
use crate::id::SessionIndex;
use crate::limits;
use crate::time::Instant;

/// All packets under way to one peer, and the pace of the next ones.
#[derive(Debug)]
pub(crate) struct Flight {
    /// In the order of sending; the first one is under way.
    packets: VecDeque<Packet>,
    /// What they hold, in the same order.
    contents: VecDeque<Content>,
    next: PacketId,
    /// The latest sessions, in their order.
    eras: VecDeque<(SessionIndex, u32)>,
    /// Bytes under way.
    bytes: usize,
    congestion: Congestion,
    /// Bytes that arrived so far, and when the last ones did.
    arrived: u64,
    arrived_at: Instant,
    /// When the packet was sent that arrived last.
    first_sent: Instant,
    /// How often in a row nothing came, and when that was found last.
    silences: u32,
    asked: Instant,
    pacer: Pacer,
    /// What is to be sent again, the first one first.
    resend: VecDeque<Content>,
    /// The same, when another message has ended.
    postponed: VecDeque<Content>,
    /// So many of these may leave though no more may be under way: they ask whether anything comes.
    asking: usize,
    /// Packets above the size that would be gone back to that were lost since one of them came.
    large_lost: u32,
    /// That size.
    smaller: usize,
    /// Bytes of the largest packet that came on this path.
    largest_came: usize,
}

/// Packets count from 0 for each peer, over all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PacketId(u64);

/// A piece of a message as it was put into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    packet: PacketId,
    /// Of which tracked message.
    pub(crate) number: u64,
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
struct Packet {
    id: PacketId,
    era: u32,
    counter: u64,
    bytes: usize,
    sent: Instant,
    state: State,
    /// As they were when it was sent.
    arrived: u64,
    arrived_at: Instant,
    first_sent: Instant,
    app_limited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    Arrived,
    Lost,
}

/// So long a receiver may wait before it says that a packet came, if nobody waits for the answer (protocol.md, 5.6).
pub(crate) const RECEIPT_DELAY: Duration = Duration::from_millis(20);
/// What had this much longer than a round trip and did not come when later ones did is lost.
const LATE_SHARE: u32 = 4;
/// The least of that: hosts wake up late.
const LATE_MIN: Duration = Duration::from_millis(1);
/// Sessions whose packets may still be under way.
const SESSIONS_REMEMBERED: usize = 3;
/// Packets without anything to send again that are given up when nothing comes.
const LET_GO: usize = 2;
/// Contents sent again when nothing comes.
const QUESTIONS: usize = 8;
/// Silences in a row after which the datagrams may be too large for the path.
const SILENCES_OF_A_HOLE: u32 = 2;
/// The same where datagrams of the usual size came before: rather it is a queue that is full.
const SILENCES_OF_A_LATE_HOLE: u32 = 6;
/// Large packets lost without one that came, after which they may be too large.
const LARGE_LOST_IN_A_HOLE: u32 = 6;

impl Default for Flight {
    fn default() -> Self {
        Self {
            packets: VecDeque::new(),
            contents: VecDeque::new(),
            next: PacketId(0),
            eras: VecDeque::new(),
            bytes: 0,
            congestion: Congestion::new(limits::DATAGRAM_BYTES),
            arrived: 0,
            arrived_at: Instant::default(),
            first_sent: Instant::default(),
            silences: 0,
            asked: Instant::default(),
            pacer: Pacer::default(),
            resend: VecDeque::new(),
            postponed: VecDeque::new(),
            asking: 0,
            large_lost: 0,
            smaller: smaller_than(limits::DATAGRAM_BYTES),
            largest_came: 0,
        }
    }
}

impl Flight {
    /// Whether a packet may leave now.
    pub(crate) fn may_send(&mut self, now: Instant) -> bool {
        self.has_room() && self.pacer.is_open(&self.congestion, now)
    }

    fn has_room(&self) -> bool {
        self.bytes < self.congestion.window() && self.packets.len() < limits::PACKETS_IN_FLIGHT
    }

    /// When a packet may leave that has to wait for the pace, and only for that.
    pub(crate) fn opens_at(&mut self, now: Instant) -> Option<Instant> {
        let waits = self.has_room() && !self.pacer.is_open(&self.congestion, now);
        waits.then(|| self.pacer.opens_at(&self.congestion, now))
    }

    /// A piece of a tracked message is in the packet that is being filled.
    pub(crate) fn put(&mut self, number: u64, at: usize, bytes: usize) {
        self.contents.push_back(Content { packet: self.next, number, at, bytes });
    }

    /// The packet that was being filled is sealed; `app_limited`: there was nothing more to send.
    pub(crate) fn sent(
        &mut self,
        session: SessionIndex,
        counter: u64,
        bytes: usize,
        app_limited: bool,
        now: Instant,
    ) {
        if self.bytes == 0 {
            self.first_sent = now;
            self.arrived_at = now;
            self.silences = 0;
        }
        if self.eras.back().is_none_or(|(last, _)| *last != session) {
            let era = self.eras.back().map_or(0, |(_, era)| era + 1);
            self.eras.push_back((session, era));
            if self.eras.len() > SESSIONS_REMEMBERED {
                self.eras.pop_front();
            }
        }
        let era = self.eras.back().map_or(0, |(_, era)| *era);
        self.pacer.spend(bytes);
        self.packets.push_back(Packet {
            id: self.next,
            era,
            counter,
            bytes,
            sent: now,
            state: State::UnderWay,
            arrived: self.arrived,
            arrived_at: self.arrived_at,
            first_sent: self.first_sent,
            app_limited,
        });
        self.next.0 += 1;
        self.bytes += bytes;
    }

    /// The packet that was being filled is never sent: what it holds goes into another one.
    pub(crate) fn unfill(&mut self) {
        while self.contents.back().is_some_and(|content| content.packet == self.next) {
            self.resend.extend(self.contents.pop_back());
        }
    }

    /// The peer has those packets of a session, `ago` before it said so: `upto`, and those in `runs` below it. `each` is
    /// told what they held.
    pub(crate) fn on_receipt(
        &mut self,
        receipt: Receipt<'_>,
        round_trip: &mut RoundTrip,
        now: Instant,
        mut each: impl FnMut(Content),
    ) {
        let mut latest: Option<usize> = None;
        let (mut bytes, mut count) = (0, 0);
        let era = self.eras.iter().rev().find(|(session, _)| *session == receipt.session);
        let Some(era) = era.map(|(_, era)| *era) else { return };
        for counters in receipt.ranges() {
            let start = self
                .packets
                .partition_point(|packet| (packet.era, packet.counter) < (era, *counters.start()));
            for at in start..self.packets.len() {
                let packet = &mut self.packets[at];
                if packet.era != era || packet.counter > *counters.end() {
                    break;
                }
                if packet.state == State::Arrived {
                    continue;
                }
                if packet.state == State::UnderWay {
                    self.bytes -= packet.bytes;
                }
                packet.state = State::Arrived;
                bytes += packet.bytes;
                count += 1;
                self.largest_came = self.largest_came.max(packet.bytes);
                if packet.bytes > self.smaller {
                    self.large_lost = 0;
                }
                let id = packet.id;
                latest = Some(latest.map_or(at, |latest| latest.max(at)));
                let first = self.contents.partition_point(|content| content.packet < id);
                for content in self.contents.range(first..).take_while(|content| content.packet == id) {
                    each(*content);
                }
            }
        }
        let Some(latest) = latest else { return };
        (self.silences, self.asking) = (0, 0);
        self.arrived += bytes as u64;
        self.arrived_at = now;
        let packet = &self.packets[latest];
        let took = now.since(packet.sent).saturating_sub(receipt.ago);
        if packet.counter == receipt.upto {
            round_trip.sample(took);
        }
        let sending = packet.sent.since(packet.first_sent);
        let arriving = now.since(packet.arrived_at);
        let interval = sending.max(arriving).max(Duration::from_micros(1));
        let rate = u128::from(self.arrived - packet.arrived) * 1_000_000 / interval.as_micros().max(1);
        let arrival = Arrival {
            bytes,
            packets: count,
            total: self.arrived,
            total_when_sent: packet.arrived,
            rate: Some(u64::try_from(rate).unwrap_or(u64::MAX)),
            app_limited: packet.app_limited,
            round_trip: (packet.counter == receipt.upto).then_some(took),
            in_flight: self.bytes,
        };
        self.first_sent = packet.sent;
        self.congestion.on_arrival(arrival, now);
        let (id, sent) = (packet.id, packet.sent);
        self.find_lost(id, sent, round_trip, now);
        self.drop_done();
    }

    /// Packets that were sent before `sent`, the time of one that arrived, and had the time to arrive too, are lost.
    fn find_lost(&mut self, arrived: PacketId, sent: Instant, round_trip: &RoundTrip, now: Instant) {
        let patience = patience(round_trip);
        let before = self.bytes;
        let (mut bytes, mut count) = (0, 0);
        for packet in self.packets.iter_mut().take_while(|packet| packet.id < arrived) {
            if packet.state == State::UnderWay && packet.sent <= sent && now.since(packet.sent) >= patience {
                packet.state = State::Lost;
                self.bytes -= packet.bytes;
                bytes += packet.bytes;
                count += 1;
                // Most paths carry the usual size: where it came once, a full queue has lost the others.
                let usual_came = packet.bytes <= limits::DATAGRAM_BYTES && packet.bytes <= self.largest_came;
                if packet.bytes > self.smaller && !usual_came {
                    self.large_lost += 1;
                }
                let id = packet.id;
                let first = self.contents.partition_point(|content| content.packet < id);
                let lost = self.contents.range(first..).take_while(|content| content.packet == id);
                self.resend.extend(lost.copied());
            }
        }
        if count > 0 {
            self.congestion.on_loss(bytes, count, before);
        }
    }

    fn drop_done(&mut self) {
        while self.packets.front().is_some_and(|packet| packet.state != State::UnderWay) {
            self.packets.pop_front();
        }
        let first = self.packets.front().map_or(self.next, |packet| packet.id);
        while self.contents.front().is_some_and(|content| content.packet < first) {
            self.contents.pop_front();
        }
    }

    /// When to look again whether packets were lost, or nothing comes at all.
    pub(crate) fn deadline(&self, round_trip: &RoundTrip) -> Option<Instant> {
        let first = self.packets.front()?;
        // One that came after it makes it late; without such a one the silence counts.
        let overtaken = self.packets.iter().any(|packet| packet.state == State::Arrived);
        let late = first.sent + patience(round_trip);
        Some(if overtaken { late } else { self.quiet_since(first) + self.silence(round_trip) })
    }

    fn quiet_since(&self, first: &Packet) -> Instant {
        first.sent.max(self.arrived_at).max(self.asked)
    }

    fn silence(&self, round_trip: &RoundTrip) -> Duration {
        let usual = round_trip.retry_after() + RECEIPT_DELAY;
        let longest = RETRY_MAX.max(round_trip.smoothed().unwrap_or_default() * 2);
        (usual * 2_u32.saturating_pow(self.silences.min(8))).min(longest)
    }

    /// Looks for what was lost; says whether nothing came at all for too long.
    pub(crate) fn on_timer(&mut self, round_trip: &RoundTrip, now: Instant) -> bool {
        let latest = self.packets.iter().rev().find(|packet| packet.state == State::Arrived);
        if let Some((id, sent)) = latest.map(|packet| (packet.id, packet.sent)) {
            self.find_lost(id, sent, round_trip, now);
            self.drop_done();
        }
        let Some(first) = self.packets.front() else { return false };
        if now < self.quiet_since(first) + self.silence(round_trip) {
            return false;
        }
        self.silences += 1;
        self.asked = now;
        if self.silences > FORGOTTEN_AFTER {
            self.give_up();
        } else {
            self.ask_again(QUESTIONS);
            if self.resend.is_empty() {
                self.let_go();
            }
        }
        true
    }

    /// Of what nobody reports on nothing is sent again: new packets take the places of the oldest, and ask.
    fn let_go(&mut self) {
        let under_way = self.packets.iter_mut().filter(|packet| packet.state == State::UnderWay);
        for packet in under_way.take(LET_GO) {
            packet.state = State::Lost;
            self.bytes -= packet.bytes;
        }
        self.drop_done();
    }

    /// The oldest `count` contents under way are sent again, at once.
    pub(crate) fn ask_again(&mut self, count: usize) {
        self.asking = count;
        if !self.resend.is_empty() {
            return;
        }
        let under_way = self.packets.iter().filter(|packet| packet.state == State::UnderWay);
        let mut left = count;
        for packet in under_way {
            if left == 0 {
                break;
            }
            let first = self.contents.partition_point(|content| content.packet < packet.id);
            let held = self.contents.range(first..).take_while(|content| content.packet == packet.id);
            for content in held.take(left) {
                self.resend.push_back(*content);
                left -= 1;
            }
        }
    }

    /// What is to be sent again now, if that may leave.
    pub(crate) fn next_again(&mut self, now: Instant) -> Option<Content> {
        if self.resend.is_empty() || self.asking == 0 && !self.may_send(now) {
            return None;
        }
        self.asking = self.asking.saturating_sub(1);
        self.resend.pop_front()
    }

    /// That has to wait until another message has ended.
    pub(crate) fn postpone(&mut self, content: Content) {
        self.postponed.push_back(content);
    }

    /// A message has ended: what was postponed may go.
    pub(crate) fn resume_postponed(&mut self) {
        self.resend.append(&mut self.postponed);
    }

    /// That, of a tracked message, is to be sent again.
    pub(crate) fn send_again(&mut self, number: u64, at: usize, bytes: usize) {
        self.resend.push_back(Content { packet: self.next, number, at, bytes });
    }

    /// Whether something is to be sent again.
    pub(crate) fn has_losses(&self) -> bool {
        !self.resend.is_empty()
    }

    /// Another path: what is under way on the old one is sent again, and nothing is known of the new one.
    pub(crate) fn change_path(&mut self, datagram: usize) {
        self.give_up();
        self.congestion = Congestion::new(datagram);
        self.pacer = Pacer::default();
        self.large_lost = 0;
        self.smaller = smaller_than(datagram);
    }

    /// All that is under way counts as lost, which says nothing of the path's capacity.
    fn give_up(&mut self) {
        for packet in self.packets.drain(..).filter(|packet| packet.state == State::UnderWay) {
            let first = self.contents.partition_point(|content| content.packet < packet.id);
            let held = self.contents.range(first..).take_while(|content| content.packet == packet.id);
            self.resend.extend(held.copied());
        }
        // What is in the packet that is being filled stays.
        let next = self.next;
        self.contents.retain(|content| content.packet == next);
        self.bytes = 0;
    }

    /// Whether the larger datagrams seem to vanish.
    pub(crate) const fn is_in_hole(&self) -> bool {
        let may_be_late = self.smaller < limits::DATAGRAM_BYTES && self.largest_came > self.smaller;
        let silences = if may_be_late { SILENCES_OF_A_LATE_HOLE } else { SILENCES_OF_A_HOLE };
        self.silences >= silences || self.large_lost >= LARGE_LOST_IN_A_HOLE
    }

    /// Nothing came by the path that is used from now on.
    pub(crate) fn begin_path(&mut self, datagram: usize) {
        self.largest_came = 0;
        self.set_datagram(datagram);
    }

    /// The datagrams of this path have another size from now on.
    pub(crate) fn set_datagram(&mut self, bytes: usize) {
        self.congestion.set_datagram(bytes);
        self.large_lost = 0;
        self.smaller = smaller_than(bytes);
    }
}

/// After so many silences in a row, some seconds, nothing is waited for any more.
const FORGOTTEN_AFTER: u32 = 10;

/// The size that is gone back to when datagrams of `bytes` vanish.
const fn smaller_than(bytes: usize) -> usize {
    if bytes > limits::DATAGRAM_BYTES { limits::DATAGRAM_BYTES } else { limits::SMALLEST_DATAGRAM_BYTES }
}

fn patience(round_trip: &RoundTrip) -> Duration {
    let usual = round_trip.smoothed().unwrap_or(RETRY_MAX);
    usual + (usual / LATE_SHARE).max(LATE_MIN)
}

/// What a peer says of the packets of one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Receipt<'a> {
    pub(crate) session: SessionIndex,
    pub(crate) upto: u64,
    /// How long it waited before it said so.
    pub(crate) ago: Duration,
    pub(crate) runs: &'a [u8],
}

impl Receipt<'_> {
    /// The counters that came, the highest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        let mut rest = self.runs;
        let mut next = Some(self.upto);
        std::iter::from_fn(move || {
            let top = next?;
            let came = varint(&mut rest)?.checked_sub(1)?;
            let bottom = top.checked_sub(came)?;
            next = varint(&mut rest).and_then(|missing| bottom.checked_sub(missing)?.checked_sub(1));
            Some(bottom..=top)
        })
    }
}

/// Reads one number of seven bits a byte, the lowest first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        if shift > 56 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

/// Spends what the rate allows; what is not used is kept up to one burst.
#[derive(Debug, Default)]
struct Pacer {
    /// Bytes that may leave; below zero: a packet has left before its time.
    room: i64,
    filled: Option<Instant>,
}

impl Pacer {
    fn fill(&mut self, congestion: &Congestion, now: Instant) {
        let burst = i64::try_from(congestion.burst()).unwrap_or(i64::MAX);
        let Some(rate) = congestion.rate() else {
            self.room = burst;
            return;
        };
        let Some(filled) = self.filled.replace(now) else {
            self.room = burst;
            return;
        };
        let earned = u128::from(rate) * now.since(filled).as_micros() / 1_000_000;
        if earned == 0 {
            // So that many short moments add up.
            self.filled = Some(filled);
            return;
        }
        self.room = self.room.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(burst);
    }

    fn is_open(&mut self, congestion: &Congestion, now: Instant) -> bool {
        self.fill(congestion, now);
        self.room > 0
    }

    fn spend(&mut self, bytes: usize) {
        self.room -= i64::try_from(bytes).unwrap_or(i64::MAX);
    }

    /// When it opens; waiting a little longer lets several packets leave in one train.
    fn opens_at(&self, congestion: &Congestion, now: Instant) -> Instant {
        let Some(rate) = congestion.rate() else { return now };
        let millisecond = i64::try_from(rate / 1000).unwrap_or(0);
        let missing = u64::try_from(millisecond.max(1) - self.room).unwrap_or(1);
        let wait = u128::from(missing) * 1_000_000 / u128::from(rate.max(1)) + 1;
        self.filled.unwrap_or(now) + Duration::from_micros(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}
