//! A rendezvous server as people write it: `HOST:PORT#KEY`, or without the key.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::id::ServerKey;

/// Bytes of a host: the longest name that DNS knows.
const HOST_BYTES: usize = 253;

/// A server that introduces us to members elsewhere (rendezvous.md).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RendezvousServer {
    /// `host:port`.
    pub name: String,
    /// Its public key; none: the first one that it shows.
    pub key: Option<ServerKey>,
}

impl RendezvousServer {
    /// Each server of several lists once, where it comes first; its key is the first one that any list has.
    pub fn merge(lists: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for server in lists {
            match merged.iter_mut().find(|known| known.name == server.name) {
                Some(known) => known.key = known.key.or(server.key),
                None => merged.push(server),
            }
        }
        merged
    }
}

/// Why a text names no rendezvous server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadServer {
    /// Before the key there is no `host:port`.
    #[error("it is not HOST:PORT, with # and the server's key behind it")]
    Address,
    /// What stands behind `#`.
    #[error("its key, behind #, is not the 52 characters that the server printed")]
    Key,
}

impl FromStr for RendezvousServer {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let (name, key) = match text.trim().split_once('#') {
            Some((name, key)) => (name, Some(key.parse().map_err(|_| BadServer::Key)?)),
            None => (text.trim(), None),
        };
        // What could not be told from the rest of an invitation, or would steer a terminal, is in no host's name.
        let odd = |char: char| {
            matches!(char, ',' | '@' | '~') || char.is_whitespace() || crate::id::unprintable(char)
        };
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        if !is_host_port(name) || host.len() > HOST_BYTES || host.contains(odd) {
            return Err(BadServer::Address);
        }
        Ok(Self { name: name.to_owned(), key })
    }
}

impl fmt::Display for RendezvousServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}#{key}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whether `text` is a host and a port, an IPv6 address in brackets.
pub fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let v6 = host.starts_with('[') && host.ends_with(']');
    !host.is_empty() && (v6 || !host.contains(':')) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<RendezvousServer, BadServer> {
        text.parse()
    }

    #[test]
    fn a_server_reads_back_from_its_text_and_junk_is_refused_for_its_reason() {
        let key = "b".repeat(51) + "a";
        for text in ["a.example:1", "[fe80::1%eth0]:28283", &format!("192.0.2.1:28283#{key}")] {
            assert_eq!(server(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ":1",
            "a",
            "a:0",
            "::1:5",
            "a,b:1",
            "a@b:1",
            "a~b:1",
            "a b:1",
            "a\u{1b}[2J:1",
            &("a".repeat(254) + ":1"),
        ] {
            assert_eq!(server(text), Err(BadServer::Address), "{text:?}");
        }
        assert_eq!(server("a:1#"), Err(BadServer::Key));
        assert_eq!(server(&format!("a:1#{key}#")), Err(BadServer::Key));
    }

    #[test]
    fn of_a_server_that_is_named_twice_the_first_key_counts() {
        let (one, two) = ("b".repeat(51) + "a", "c".repeat(51) + "a");
        let texts = ["a:1".to_owned(), format!("a:1#{one}"), "b:2".to_owned(), format!("a:1#{two}")];
        let merged = RendezvousServer::merge(texts.iter().map(|text| server(text).unwrap()));
        let merged: Vec<_> = merged.iter().map(ToString::to_string).collect();
        assert_eq!(merged, [format!("a:1#{one}"), "b:2".to_owned()]);
    }
}
