//! Which network we belong to, and going to another one (protocol.md, 1.2).
//!
//! A member is removed by a new secret. While the others get it one after the other, each of them keeps the secret of
//! before beside it: sessions go on, and are made anew with the new secret as soon as both sides have it. At the end the
//! old secret is dropped, and with it every session that it made.

use tracing::info;

use crate::core::Node;
use crate::core::api::{Event as NodeEvent, NetworkChange};
use crate::crypto::invitation::Invitation;
use crate::crypto::membership::Membership;
use crate::id::{ClientId, RequestId};
use crate::time::Instant;
use crate::wire::complaint;
use crate::wire::local::{ErrorCode, Event, Health, HealthState, NetworkInfo, NetworkOp, SecretLine};

impl Node {
    pub(crate) fn network(&mut self, client: ClientId, id: Option<RequestId>, op: NetworkOp<'_>) {
        let change = match op {
            NetworkOp::Show => return self.show_network(client, id),
            _ if !self.may_administer(client, id, "changing the network") => return,
            NetworkOp::Join { secret, keep } => match secret.as_str().parse::<Invitation>() {
                Ok(invitation) => NetworkChange::Join { invitation, keep },
                Err(error) => {
                    let hint = "copy the whole line of atonce invite, or of atonce network create";
                    return self.refuse(client, id, ErrorCode::BadRequest, error.to_string().into(), hint);
                }
            },
            NetworkOp::Settle => NetworkChange::Settle,
            NetworkOp::Leave => NetworkChange::Leave,
        };
        self.events.push_back(NodeEvent::Network { client, id, change });
    }

    fn show_network(&mut self, client: ClientId, id: Option<RequestId>) {
        let network = &self.config.network;
        let info = NetworkInfo {
            kind: network.current().kind().as_str().into(),
            fingerprint: Some(network.current().fingerprint().into()),
            also: network.before().map(|before| before.fingerprint().into()),
            source: self.config.network_source.clone().map(Into::into),
            servers: self.known_servers().iter().map(|server| server.to_string().into()).collect(),
        };
        self.answer(client, id, None, Some(info));
    }

    pub(crate) fn invite(&mut self, client: ClientId, id: Option<RequestId>) {
        if self.may_administer(client, id, "inviting to the network") {
            self.events.push_back(NodeEvent::Invite { client, id });
        }
    }

    /// The line that a [`NodeEvent::Invite`] asked for; none if the network has no secret.
    pub fn handle_invitation(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        line: Option<&str>,
        now: Instant,
    ) {
        self.advance(now);
        if let Some(line) = line {
            if let Some(known) = self.clients.get_mut(client) {
                known.tell(&Event::Invitation { id, line: SecretLine(line.into()) });
                known.keep_secret();
            }
        } else {
            let message = "the open network has no secret to invite with: everybody on the LAN is in it";
            let hint = "make it a private one: atonce network create | atonce network join";
            self.refuse(client, id, ErrorCode::BadRequest, message.into(), hint);
        }
        self.tell_output(client);
    }

    /// What came of an [`NodeEvent::Network`]: the keys to use from now on and where their secret stands, or why not, and
    /// behind `try:`, on a line of its own, what to do.
    pub fn handle_network(
        &mut self,
        client: ClientId,
        id: Option<RequestId>,
        outcome: Result<(Membership, Option<String>), String>,
        now: Instant,
    ) {
        match outcome {
            Ok((network, source)) => {
                self.follow_network(network, source, now);
                self.show_network(client, id);
            }
            Err(reason) => {
                self.advance(now);
                let (reason, hint) = reason.split_once("\ntry: ").unwrap_or((&reason, "atonce status"));
                self.refuse(client, id, ErrorCode::Internal, complaint::one_line(reason).into(), hint);
            }
        }
        self.tell_output(client);
    }

    /// The network as the configuration has it now, and where its secret stands. Tells whether anything of it changed.
    pub fn follow_network(&mut self, network: Membership, source: Option<String>, now: Instant) -> bool {
        self.advance(now);
        self.config.network_source = source;
        let tags = |network: &Membership| (network.current().tag(), network.before().map(|keys| keys.tag()));
        if tags(&network) == tags(&self.config.network) {
            return false;
        }
        info!(network = %network.current().fingerprint(), "another network, or another secret of it");
        self.part_from_others(&network);
        self.forget_handshakes();
        self.config.network = network;
        self.change_network();
        // Whoever has the new secret already goes on with it.
        let current = self.config.network.current().tag();
        for id in self.peers.online() {
            if self.peers.get(&id).is_some_and(|peer| peer.network != Some(current)) {
                self.seek(id, None, None);
            }
        }
        true
    }

    /// Ends every session that was made with a secret which `network` does not hold.
    fn part_from_others(&mut self, network: &Membership) {
        for id in self.peers.online() {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if let Some(gone) = peer.previous.take_if(|session| !network.holds(session.network)) {
                self.handshakes.indices.remove(&gone.index);
            }
            if peer.network.is_some_and(|made| !network.holds(made)) {
                self.say_goodbye(id);
                self.exit(id, "this node went to another network");
            }
        }
    }

    /// What `status` says while two secrets are valid.
    pub(super) fn network_health(&self) -> Option<Health<'static>> {
        let (current, before) = (self.config.network.current(), self.config.network.before()?);
        let state = |tag| {
            let with = |peer: &crate::core::peers::Peer| peer.is_online() && peer.network == Some(tag);
            self.peers.iter().filter(|(_, peer)| with(peer)).count()
        };
        let online = state(current.tag());
        let why = format!(
            "two network secrets are valid: {} with {online} {} online, and {} of before with {}; who has only that one is \
             still a member",
            current.fingerprint(),
            if online == 1 { "peer" } else { "peers" },
            before.fingerprint(),
            state(before.tag())
        );
        let fix = "when all have the new one: atonce network settle, or remove the second line of the secret's file";
        Some(Health { check: "network".into(), state: HealthState::Warn, why: why.into(), fix: fix.into() })
    }
}
