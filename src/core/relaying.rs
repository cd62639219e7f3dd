//! Relaying for others (protocol.md, 10): what we do for two peers of ours that do not reach each other.
//!
//! We pass on packets that we cannot read, inside the sessions that we have with both. Nobody is relayed to whom we
//! ourselves reach through a relay: one hop, no loops. Whoever wants to be relayed asks; the other end needs no word: what
//! comes to it proves itself.

use std::collections::BTreeMap;

use tracing::debug;

use crate::core::Node;
use crate::core::api::Dropped;
use crate::core::pace::Pace;
use crate::crypto::network::NetworkKind;
use crate::id::{Channel, NodeId};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::Record;

/// Bytes in this many go through us for free: handshakes, questions and goodbyes are not held up by somebody's bulk.
const SMALL_BYTES: usize = 256;
/// What the pace counts: with packets of one kilobyte a rate in bytes would be too fine.
const UNIT_BYTES: usize = 64;

/// The channels that go through us.
#[derive(Debug)]
pub(crate) struct Relaying {
    ends: BTreeMap<Channel, End>,
    next: u32,
    pace: Pace,
    /// Packets passed on, and refused because there were too many.
    pub(super) passed: u64,
    pub(super) refused: u64,
}

/// One end of a channel.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Whose end it is.
    peer: NodeId,
    /// The end at the other one.
    other: Channel,
    used: Instant,
}

impl Default for Relaying {
    fn default() -> Self {
        let units = |bytes: usize| u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let pace = Pace::new(units(limits::RELAY_BURST_BYTES), units(limits::RELAY_BYTES_A_SECOND));
        Self { ends: BTreeMap::new(), next: 1, pace, passed: 0, refused: 0 }
    }
}

impl Relaying {
    /// The end of `peer` of the channel between the two; a new one if there is none.
    fn open(&mut self, peer: NodeId, target: NodeId, now: Instant) -> Channel {
        let there = |(_, end): &(&Channel, &End)| {
            end.peer == peer && self.ends.get(&end.other).is_some_and(|other| other.peer == target)
        };
        if let Some((channel, _)) = self.ends.iter().find(there) {
            return *channel;
        }
        if self.ends.len() >= 2 * limits::RELAY_CHANNELS
            && let Some(oldest) =
                self.ends.iter().min_by_key(|(_, end)| end.used).map(|(channel, _)| *channel)
        {
            self.close(oldest);
        }
        let [own, other] = [self.free(), self.free()];
        self.ends.insert(own, End { peer, other, used: now });
        self.ends.insert(other, End { peer: target, other: own, used: now });
        own
    }

    fn free(&mut self) -> Channel {
        let channel = Channel(self.next);
        self.next = (self.next + 1) & Channel::MASK;
        channel
    }

    fn close(&mut self, channel: Channel) {
        if let Some(end) = self.ends.remove(&channel) {
            self.ends.remove(&end.other);
        }
    }
}

impl Node {
    /// Whether we relay for others.
    fn is_relaying(&self) -> bool {
        self.config.relay
            && !self.config.metered
            && self.config.network.current().kind() == NetworkKind::Private
    }

    /// `peer` wants to reach `target` through us.
    pub(crate) fn on_relay(&mut self, peer: NodeId, target: NodeId) {
        let near = |id: &NodeId| self.peers.get(id).is_some_and(|it| it.is_near() && it.current.is_some());
        let channel = if self.is_relaying() && peer != target && near(&peer) && near(&target) {
            debug!(?peer, ?target, "relaying");
            Some(self.relaying.open(peer, target, self.now))
        } else {
            None
        };
        self.tell(peer, &Record::Relayed { target, channel: channel.map_or(0, |channel| channel.0) });
    }

    /// A packet of `peer` for the other end of one of our channels.
    pub(super) fn pass_on(
        &mut self,
        peer: NodeId,
        channel: Channel,
        packet: &mut [u8],
    ) -> Result<(), Dropped> {
        let now = self.now;
        let relaying = &mut self.relaying;
        let end =
            relaying.ends.get_mut(&channel).filter(|end| end.peer == peer).ok_or(Dropped::UnknownSession)?;
        end.used = now;
        let other = end.other;
        let target = relaying.ends.get_mut(&other).map(|end| {
            end.used = now;
            end.peer
        });
        let target = target.ok_or(Dropped::UnknownSession)?;
        if !crate::core::relays::is_whole(packet) {
            return Err(Dropped::Malformed);
        }
        if packet.len() > SMALL_BYTES && !relaying.pace.take_many(packet.len().div_ceil(UNIT_BYTES), now) {
            relaying.refused += 1;
            return Err(Dropped::OverLimit);
        }
        relaying.passed += 1;
        let Some(known) = self.peers.get_mut(&target).filter(|known| known.is_near()) else {
            return Err(Dropped::UnknownSession);
        };
        let (Some(path), Some(current)) = (known.path, known.current.as_mut()) else {
            return Err(Dropped::UnknownSession);
        };
        let mut wrapped = self.outbox.buffer();
        let sealed = current.session.seal_relayed(other.to_end(), packet, &mut wrapped);
        if sealed.is_ok() {
            self.outbox.push(crate::core::api::Destination::One(path), &wrapped);
        }
        self.outbox.recycle(wrapped);
        Ok(())
    }

    /// `peer` is gone, or is not near any more: who reached it through us is told.
    pub(super) fn stop_relaying(&mut self, peer: NodeId) {
        let gone: Vec<_> =
            self.relaying.ends.iter().filter(|(_, end)| end.peer == peer).map(|(_, end)| end.other).collect();
        for channel in gone {
            let other = self.relaying.ends.get(&channel).map(|end| end.peer);
            self.relaying.close(channel);
            if let Some(other) = other {
                self.tell(other, &Record::Relayed { target: peer, channel: 0 });
            }
        }
    }
}
