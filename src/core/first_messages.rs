//! The first message to a prospect: made late, kept for a few seconds, forgotten with it (protocol.md, 3.4 and 3.5).

use std::time::Duration;

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Route};
use crate::core::handshakes::Owner;
use crate::core::prospects::RETRY;
use crate::core::timers::Timer;
use crate::crypto::cookie;
use crate::crypto::handshake::{self, Initiator};
use crate::crypto::network::NetworkTag;
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::packet::{field, index_at, size};

/// One first message is used for this long; then a new one is made, so that an answer never meets old keys.
pub(super) const FIRST_MESSAGE_LIFE: Duration = Duration::from_secs(5);

/// One first message, the same bytes to all addresses.
#[derive(Debug)]
pub(super) struct FirstMessage {
    pub(super) initiator: Initiator,
    pub(super) network: NetworkTag,
    packet: [u8; size::INITIATION],
    pub(super) made: Instant,
}

impl Node {
    /// Our first message to a prospect, as it is now; none if there can be none.
    pub(super) fn first_packet(&mut self, id: NodeId) -> Option<[u8; size::INITIATION]> {
        let now = self.now;
        let prospect = self.prospects.by_id.get(&id)?;
        let network = self.config.network.turn(prospect.network, prospect.turns);
        let stale =
            |first: &FirstMessage| now.since(first.made) >= FIRST_MESSAGE_LIFE || first.network != network;
        if prospect.first_message.as_ref().is_none_or(stale) && !self.make_first_message(id, network) {
            return None;
        }
        Some(self.prospects.by_id.get(&id)?.first_message.as_ref()?.packet)
    }

    /// Sends our first message once more: its receiver is awake now, and said so in a message as long as ours.
    pub(super) fn repeat_first_message(&mut self, id: NodeId, via: Route) {
        let Some(prospect) = self.prospects.by_id.get_mut(&id) else { return };
        // Unless that just happened.
        let Some(first) = prospect.first_message.as_ref().filter(|_| prospect.last_sent != Some(self.now))
        else {
            return;
        };
        prospect.last_sent = Some(self.now);
        self.outbox.push(Destination::One(via), &first.packet);
    }

    fn make_first_message(&mut self, id: NodeId, network: NetworkTag) -> bool {
        self.forget_first_message(id);
        let index = self.free_index();
        let ephemeral = self.random();
        self.prospects.counter += 1;
        // protocol.md, 3.2: boot id, counter, zeros
        let mut payload = [0; size::INITIATION_PAYLOAD];
        payload[..8].copy_from_slice(&self.boot.0.to_le_bytes());
        payload[8..16].copy_from_slice(&self.prospects.counter.to_le_bytes());
        let keys = self.config.network.of(network);
        let made = Initiator::start(&self.identity, keys, &id, index, ephemeral, &payload);
        let Some((initiator, packet)) = made else {
            self.give_up(id, "its id is no key");
            return false;
        };
        self.handshakes.indices.insert(index, Owner::Prospect(id));
        if let Some(prospect) = self.prospects.by_id.get_mut(&id) {
            prospect.first_message = Some(FirstMessage { initiator, network, packet, made: self.now });
        }
        true
    }

    pub(super) fn forget_first_message(&mut self, id: NodeId) {
        let prospect = self.prospects.by_id.get_mut(&id);
        if let Some(first) = prospect.and_then(|prospect| prospect.first_message.take()) {
            self.handshakes.indices.remove(&first.initiator.sender());
        }
    }

    pub(crate) fn on_cookie(&mut self, packet: &[u8; size::COOKIE]) -> Result<(), Dropped> {
        let index = index_at(packet, field::RECEIVER);
        let Some(Owner::Prospect(peer)) = self.handshakes.indices.get(&index).copied() else {
            return Err(Dropped::UnknownSession);
        };
        let prospect = self.prospects.by_id.get_mut(&peer);
        let first =
            prospect.and_then(|prospect| prospect.first_message.as_mut()).ok_or(Dropped::UnknownSession)?;
        let mut mac1 = [0; size::MAC];
        mac1.copy_from_slice(&first.packet[field::INITIATION_MAC1]);
        let cookie = cookie::open_cookie(self.config.network.of(first.network), &peer, packet, &mac1);
        // Used at the next retry: a cookie makes nothing leave at once, so a forged or repeated one cannot either.
        handshake::set_mac2(&mut first.packet, &cookie.ok_or(Dropped::Unauthenticated)?);
        if let Some(prospect) = self.prospects.by_id.get_mut(&peer).filter(|prospect| prospect.is_glance()) {
            // Somebody is there.
            prospect.seek_in_earnest(self.now);
        }
        self.timers.set_sooner(Timer::Handshake(peer), self.now + RETRY[0]);
        Ok(())
    }

    pub(super) fn has_first_message(&self, peer: &NodeId) -> bool {
        self.prospects.by_id.get(peer).is_some_and(|prospect| prospect.first_message.is_some())
    }
}
