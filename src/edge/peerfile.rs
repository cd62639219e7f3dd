//! `peers.json`: whom this node knew in earlier runs. Hints and names only; losing it costs a moment of discovery.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::KnownPeer;
use crate::edge::statefile;
use crate::id::NodeId;
use crate::limits;
use crate::wire::local::{Health, HealthState, id_text};

const VERSION: u32 = 1;
/// Peers written and read: those of the table, and names that stay with others.
const PEERS_MAX: usize = limits::PEERS + limits::PINS_APART;
/// Addresses read of one peer: as many as a node ever writes of one.
const ADDRS_MAX: usize = 16;

/// The file.
#[derive(Clone, Debug)]
pub struct PeerFile {
    path: PathBuf,
}

impl PeerFile {
    /// The file in a state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join("peers.json") }
    }

    /// The peers in it. A file that cannot be read is kept aside and told; single entries that make no sense are
    /// left out.
    pub fn load(&self) -> (Vec<KnownPeer>, Option<Health<'static>>) {
        let reason = match statefile::read(&self.path) {
            Ok(None) => return (Vec::new(), None),
            Ok(Some(text)) => match parse(&text) {
                Ok(known) => return (known, None),
                Err(reason) => reason,
            },
            Err(error) => error.to_string(),
        };
        let kept = statefile::keep_aside(&self.path).map_or_else(
            |error| format!("it cannot be renamed: {error}"),
            |aside| format!("it is now {}", aside.display()),
        );
        tracing::warn!(file = %self.path.display(), reason, kept, "the file of known peers cannot be read");
        let health = Health {
            check: "peers-file".into(),
            state: HealthState::Warn,
            why: format!(
                "{} cannot be read ({reason}), so no peer of earlier runs is known; {kept}",
                self.path.display()
            )
            .into(),
            fix: "nothing, unless names were pinned: then put a good copy back and restart".into(),
        };
        (Vec::new(), Some(health))
    }

    /// Replaces what is in it.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old content is still there then.
    pub fn store(&self, peers: &[KnownPeer]) -> io::Result<()> {
        statefile::write(&self.path, &to_text(peers)?)
    }
}

/// The peers in the text of such a file; single entries that make no sense are left out.
///
/// # Errors
///
/// It is cut, foreign, or of another version: why, for people.
pub fn parse(text: &str) -> Result<Vec<KnownPeer>, String> {
    let content: Content<serde_json::Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    if content.v != VERSION {
        return Err(format!("it has version {}, this daemon reads {VERSION}", content.v));
    }
    Ok(content.known())
}

/// The text of the file that holds these peers.
///
/// # Errors
///
/// None that these types can cause.
pub fn to_text(peers: &[KnownPeer]) -> serde_json::Result<Vec<u8>> {
    let entries: Vec<Entry> = peers.iter().take(PEERS_MAX).map(Entry::from).collect();
    let mut text = serde_json::to_vec_pretty(&Content { v: VERSION, peers: entries })?;
    text.push(b'\n');
    Ok(text)
}

/// How the storing went, for `status`.
pub fn stored_health(outcome: &io::Result<()>, path: &Path) -> Health<'static> {
    let (state, why, fix) = match outcome {
        Ok(()) => (HealthState::Ok, "known peers are kept".to_owned(), String::new()),
        Err(error) => (
            HealthState::Warn,
            format!("known peers cannot be kept in {}: {error}", path.display()),
            "make room on the disk, or give a --state-dir that can be written".to_owned(),
        ),
    };
    Health { check: "state-dir".into(), state, why: why.into(), fix: fix.into() }
}

#[derive(Serialize, Deserialize)]
struct Content<T> {
    v: u32,
    peers: Vec<T>,
}

impl Content<serde_json::Value> {
    fn known(self) -> Vec<KnownPeer> {
        let entries = self.peers.into_iter().filter_map(|entry| serde_json::from_value::<Entry>(entry).ok());
        entries.filter_map(Entry::known).take(PEERS_MAX).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(with = "id_text")]
    id: NodeId,
    name: String,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    addrs: Vec<SocketAddr>,
    /// Seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_seen: Option<u64>,
}

impl From<&KnownPeer> for Entry {
    fn from(peer: &KnownPeer) -> Self {
        Self {
            id: peer.id,
            name: peer.name.to_string(),
            pinned: peer.pinned,
            addrs: peer.addrs.clone(),
            last_seen: peer.last_seen.map(|time| time.as_secs()),
        }
    }
}

impl Entry {
    fn known(self) -> Option<KnownPeer> {
        let addrs = self.addrs.into_iter().filter(|addr| is_somewhere(*addr)).take(ADDRS_MAX).collect();
        Some(KnownPeer {
            id: self.id,
            name: self.name.parse().ok()?,
            pinned: self.pinned,
            addrs,
            last_seen: self.last_seen.map(Duration::from_secs),
        })
    }
}

/// Whether one host can be at this address.
fn is_somewhere(addr: SocketAddr) -> bool {
    let ip = addr.ip();
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && ip != std::net::Ipv4Addr::BROADCAST
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn peer(number: u8) -> KnownPeer {
        KnownPeer {
            id: NodeId([number; 32]),
            name: format!("pi-{number}").parse().unwrap(),
            pinned: number.is_multiple_of(2),
            addrs: vec!["192.168.1.42:28282".parse().unwrap(), "[fe80::1%3]:28282".parse().unwrap()],
            last_seen: Some(Duration::from_secs(1_700_000_000)),
        }
    }

    #[test]
    fn what_was_stored_is_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = PeerFile::new(dir.path());
        assert_eq!(file.load(), (Vec::new(), None));
        file.store(&[peer(1), peer(2)]).unwrap();
        assert_eq!(file.load(), (vec![peer(1), peer(2)], None));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_kept_aside_and_told() {
        for text in ["", "{\"v\":1,\"peers\":[", "{\"v\":2,\"peers\":[]}"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("peers.json"), text).unwrap();
            let (peers, health) = PeerFile::new(dir.path()).load();
            assert_eq!(peers, []);
            assert!(health.unwrap().why.contains("peers.json.bad-1"));
            assert_eq!(fs::read_to_string(dir.path().join("peers.json.bad-1")).unwrap(), text);
        }
    }

    #[test]
    fn entries_that_make_no_sense_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let id = "a".repeat(52);
        let text = format!(
            r#"{{"v":1,"peers":[{{"id":"x","name":"a"}},{{"id":"{id}","name":"\u001b[2J"}},7,
               {{"id":"{id}","name":"good","addrs":["0.0.0.0:1","224.0.0.1:5","10.0.0.1:0","10.0.0.1:7"]}}]}}"#
        );
        fs::write(dir.path().join("peers.json"), text).unwrap();
        let (peers, health) = PeerFile::new(dir.path()).load();
        assert_eq!(health, None);
        assert_eq!(peers.len(), 1);
        assert_eq!(peers[0].name.as_str(), "good");
        assert_eq!(peers[0].addrs, ["10.0.0.1:7".parse().unwrap()]);
    }
}
