//! Another machine with our own key: looked for when somebody greets with our id, and told (protocol.md, 3.3).
//!
//! A greeting proves nothing. So a first message goes there, to our own id: only who has our key can answer it, and an
//! answer with our own boot id is our own echo. Both machines do that, and both tell it until the other one is gone.

use std::net::SocketAddr;
use std::time::Duration;

use tracing::{debug, error, info};

use crate::core::Node;
use crate::core::api::{Destination, Dropped, Route};
use crate::core::duplicates::FIX;
use crate::core::handshakes::Owner;
use crate::core::prospects::boot_and_name;
use crate::core::timers::Timer;
use crate::crypto::handshake::{Initiator, Received};
use crate::crypto::network::NetworkTag;
use crate::id::{BootId, SessionIndex};
use crate::time::Instant;
use crate::wire::local::{Health, HealthState};
use crate::wire::packet::size;

/// From one look to the next, whatever greets us: it costs a packet to an address that proved nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A question that is lost is asked again after this.
const RETRY: Duration = Duration::from_secs(1);
/// A copy that was found is asked so often whether it is still there.
const CHECK: Duration = Duration::from_secs(60);
/// After so many silent questions it is gone.
const SILENT: u32 = 5;

/// What we know of other machines with our key.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    question: Option<Question>,
    asked: Option<Instant>,
    found: Option<Found>,
}

#[derive(Debug)]
struct Question {
    initiator: Initiator,
    network: NetworkTag,
    route: Route,
    index: SessionIndex,
    tries: u32,
}

#[derive(Debug)]
struct Found {
    addr: SocketAddr,
    name: String,
}

impl Node {
    /// Somebody at `route` says that it is us.
    pub(super) fn look_for_copy(&mut self, route: Route) {
        let recent = self.copies.asked.is_some_and(|asked| self.now.since(asked) < LOOK_AGAIN);
        if !recent && self.copies.question.is_none() {
            self.ask_copy(route, 1);
        }
    }

    fn ask_copy(&mut self, route: Route, tries: u32) {
        self.forget_question();
        let (index, ephemeral) = (self.free_index(), self.random());
        // protocol.md, 3.2: boot id, counter, zeros
        let mut payload = [0; size::INITIATION_PAYLOAD];
        payload[..8].copy_from_slice(&self.boot.0.to_le_bytes());
        let (id, current) = (self.id, self.config.network.current().tag());
        let network = self.config.network.turn(current, tries as usize - 1);
        let keys = self.config.network.of(network);
        let made = Initiator::start(&self.identity, keys, &id, index, ephemeral, &payload);
        let Some((initiator, packet)) = made else { return };
        self.handshakes.indices.insert(index, Owner::Copy);
        self.copies.asked = Some(self.now);
        self.copies.question = Some(Question { initiator, network, route, index, tries });
        self.outbox.push(Destination::One(route), &packet);
        self.timers.set(Timer::Copy, self.now + RETRY);
    }

    /// A first message from our own id: an echo of ours, or from a machine with our key, or a recording of that. It is
    /// answered, and its sender is asked in turn; nothing else comes of it.
    pub(super) fn answer_copy(
        &mut self,
        via: Route,
        received: Received,
        boot: BootId,
        network: NetworkTag,
    ) -> Result<(), Dropped> {
        if boot == self.boot {
            return Err(Dropped::Unexpected);
        }
        let index = self.free_index();
        let (_, response) = self.respond(received, index, network)?;
        self.outbox.push(Destination::One(via), &response);
        self.look_for_copy(via);
        Ok(())
    }

    pub(super) fn on_copy_response(
        &mut self,
        via: Route,
        packet: &[u8; size::RESPONSE],
    ) -> Result<(), Dropped> {
        let question = self.copies.question.as_ref().ok_or(Dropped::UnknownSession)?;
        let finished =
            question.initiator.finish(&self.identity, self.config.network.of(question.network), packet);
        let (_, payload) = finished.map_err(|_| Dropped::Unauthenticated)?;
        let (boot, name) = boot_and_name(&payload).ok_or(Dropped::Malformed)?;
        if boot == self.boot {
            return Err(Dropped::Unexpected);
        }
        self.forget_question();
        if self.copies.found.is_none() {
            error!("duplicate-identity: another machine has the key of this node");
            debug!(addr = %via.remote, %name, "duplicate-identity");
        }
        self.copies.found = Some(Found { addr: via.remote, name: name.to_string() });
        self.timers.set(Timer::Copy, self.now + CHECK);
        Ok(())
    }

    pub(crate) fn on_copy_timer(&mut self) {
        match (&self.copies.question, &self.copies.found) {
            (Some(question), _) if question.tries < SILENT => {
                let (route, tries) = (question.route, question.tries + 1);
                self.ask_copy(route, tries);
            }
            (Some(_), None) => self.forget_question(),
            (Some(_), Some(_)) => {
                info!("the other machine with the key of this node is gone");
                self.forget_copy();
                // Peers that took it for us take no earlier life of ours for us again.
                self.begin_new_life("the other machine with this key is gone");
            }
            (None, Some(found)) => {
                let route = Route::to(found.addr);
                self.ask_copy(route, 1);
            }
            (None, None) => {}
        }
    }

    fn forget_question(&mut self) {
        if let Some(question) = self.copies.question.take() {
            self.handshakes.indices.remove(&question.index);
        }
    }

    pub(super) fn forget_copy(&mut self) {
        self.forget_question();
        self.copies = Copies::default();
        self.timers.clear(Timer::Copy);
    }

    /// What `status` says of a machine with our key.
    pub(super) fn copy_health(&self) -> Option<Health<'static>> {
        let found = self.copies.found.as_ref()?;
        let why = format!(
            "another machine, {} at {}, has the key of this node: others take one for the other, and talk to one of them only",
            found.name, found.addr
        );
        Some(Health {
            check: "duplicate-identity".into(),
            state: HealthState::Fail,
            why: why.into(),
            fix: FIX.into(),
        })
    }
}
