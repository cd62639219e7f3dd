//! Any bytes as each of the files that a daemon reads: key, secret, known peers, configuration.

use std::path::Path;

use atonce::crypto::membership::NetworkSecrets;
use atonce::edge::config::{Given, Options, rendezvous};
use atonce::edge::keytext::StoredKey;
use atonce::edge::peerfile;
use atonce::limits;

pub fn run(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 4 {
        0 => key(text),
        1 => secret(text),
        2 => peers(text),
        _ => configuration(text),
    }
}

fn key(text: &str) {
    let Some(key) = StoredKey::parse(text) else { return };
    assert_eq!(StoredKey::parse(&key.to_text()), Some(key));
}

fn secret(text: &str) {
    match text.parse::<NetworkSecrets>() {
        Ok(secrets) => {
            assert!(secrets.servers().len() <= 2 * limits::RENDEZVOUS_SERVERS);
            let lines = secrets.to_lines();
            assert_eq!(lines.parse::<NetworkSecrets>().unwrap().to_lines(), lines);
        }
        // It may be a mistyped secret, and errors go to logs.
        Err(error) => assert!(error.to_string().len() < 200),
    }
}

fn peers(text: &str) {
    let Ok(known) = peerfile::parse(text) else { return };
    assert!(known.len() <= limits::PEERS);
    let again = peerfile::to_text(&known).unwrap();
    assert_eq!(peerfile::parse(std::str::from_utf8(&again).unwrap()), Ok(known));
}

fn configuration(text: &str) {
    let of_server = Given::<rendezvous::Options>::default();
    if let Ok(settings) = of_server.settle_with(text, Path::new("atonce-rendezvous.toml")) {
        assert!(settings.bind.iter().all(|addr| addr.port() == settings.bind[0].port()));
    }
    match Given::<Options>::default().settle_with(text, Path::new("atonce.toml")) {
        Ok(settings) => {
            assert!((1..=limits::NAME_BYTES).contains(&settings.name.as_str().len()));
            assert!(!settings.bind.is_empty());
            assert!(settings.peers.iter().all(|peer| peer.contains(':')));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
