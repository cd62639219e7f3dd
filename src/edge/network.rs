//! The network of a running daemon: its secrets, where they stand, and at which servers its members meet.

use zeroize::Zeroizing;

use crate::core::{NetworkChange, RendezvousServer};
use crate::crypto::invitation::Invitation;
use crate::crypto::membership::{Membership, NetworkSecrets};
use crate::crypto::network::{NetworkKeys, NetworkSecret};
use crate::edge::config::Settings;
use crate::edge::keyfile::{self, StateDir, StateError};
use crate::limits;

/// What `network show` says of a secret that an app made us store.
const STATE_SOURCE: &str = "state";

/// The network that a daemon belongs to.
#[derive(Debug)]
pub(super) struct Network {
    /// None: the open one.
    secrets: Option<NetworkSecrets>,
    /// Where the secrets stand: `state`, or a file's path.
    pub(super) source: Option<String>,
}

impl Network {
    /// The network that the user named, else the one that was joined, else the open one.
    pub(super) fn read(settings: &Settings, state: &StateDir) -> Result<Self, StateError> {
        let Some(path) = &settings.network_secret_file else {
            return Ok(Self::stored(state.network_secrets()?));
        };
        Ok(Self { secrets: Some(keyfile::read_secrets(path)?), source: Some(path.display().to_string()) })
    }

    /// Stores what an app asked for, and gives the network that follows.
    pub(super) fn change(
        change: NetworkChange,
        settings: &Settings,
        state: &StateDir,
    ) -> Result<Self, String> {
        if let Some(path) = &settings.network_secret_file {
            let tries = if settings.secret_is_passed() {
                "change the credential, then: sudo systemctl restart atonced"
            } else {
                "change that file, then: atonce reload"
            };
            return Err(format!(
                "the network secret comes from {}: change it there\ntry: {tries}",
                path.display()
            ));
        }
        store(change, state).map(Self::stored).map_err(|error| error.to_string())
    }

    fn stored(secrets: Option<NetworkSecrets>) -> Self {
        let source = secrets.is_some().then(|| STATE_SOURCE.to_owned());
        Self { secrets, source }
    }

    /// Whose members we talk to.
    pub(super) fn membership(&self) -> Membership {
        self.secrets.as_ref().map_or_else(|| NetworkKeys::open().into(), Membership::from)
    }

    /// The servers that the secrets' lines name.
    pub(super) fn servers(&self) -> Vec<RendezvousServer> {
        self.secrets.as_ref().map(NetworkSecrets::servers).unwrap_or_default()
    }

    /// All servers in use: the configured ones first, then those of the secrets.
    pub(super) fn all_servers(&self, configured: &[RendezvousServer]) -> Vec<RendezvousServer> {
        let mut servers = RendezvousServer::merge(configured.iter().cloned().chain(self.servers()));
        if servers.len() > limits::RENDEZVOUS_SERVERS {
            let (most, named) = (limits::RENDEZVOUS_SERVERS, servers.len());
            tracing::warn!(most, named, "too many rendezvous servers: the last ones are not used");
            servers.truncate(most);
        }
        servers
    }

    /// The line that makes another node a member that finds us at `servers`; the open network has none.
    pub(super) fn invitation(&self, servers: Vec<RendezvousServer>) -> Option<Zeroizing<String>> {
        let secret = self.secrets.as_ref()?.current.secret.clone();
        Some(Invitation { secret, servers }.to_invite())
    }
}

fn store(change: NetworkChange, state: &StateDir) -> Result<Option<NetworkSecrets>, StateError> {
    let stored = state.network_secrets()?;
    let tag_of = |secret: &NetworkSecret| NetworkKeys::private(secret).tag();
    let secrets = match (change, stored) {
        (NetworkChange::Leave, _) | (NetworkChange::Settle, None) => {
            state.remove_network_secret()?;
            return Ok(None);
        }
        (NetworkChange::Settle, Some(stored)) => NetworkSecrets { before: None, ..stored },
        // The same once more: what it was joined beside still counts.
        (NetworkChange::Join { invitation, keep: true }, Some(stored))
            if tag_of(&invitation.secret) == tag_of(&stored.current.secret) =>
        {
            NetworkSecrets { current: invitation, ..stored }
        }
        (NetworkChange::Join { invitation, keep: true }, Some(stored)) => {
            NetworkSecrets { current: invitation, before: Some(stored.current) }
        }
        (NetworkChange::Join { invitation, .. }, _) => NetworkSecrets { current: invitation, before: None },
    };
    state.store_network_secrets(&secrets)?;
    Ok(Some(secrets))
}
