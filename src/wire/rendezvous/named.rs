//! A rendezvous server as people write it: `HOST:PORT#KEY`, or without the key.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::id::ServerKey;
use crate::pasted;

/// Bytes of a host: the longest name that DNS knows.
const HOST_BYTES: usize = 253;
/// Bytes of one label of it (RFC 1035, 2.3.4).
const LABEL_BYTES: usize = 63;

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
    /// Before the key stands an address of nobody.
    #[error("{0}")]
    Nowhere(BadHostPort),
}

/// Why nobody can be reached at a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadHostPort {
    /// It is something else.
    #[error("it is not HOST:PORT, an IPv6 address in brackets")]
    Form,
    /// What would be the host is neither a name nor an address.
    #[error("its host can be no name and no address")]
    Host,
    /// An address of none or of many.
    #[error("no single host can be at this address")]
    Nowhere,
    /// A link-local address, which many networks have.
    #[error("a link-local address needs its interface, as in [fe80::7%eth0]:28282")]
    Scope,
}

impl FromStr for RendezvousServer {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let text = pasted::cleaned(text);
        let (name, key) = match text.split_once('#') {
            Some((name, key)) => {
                (pasted::cleaned(name), Some(pasted::cleaned(key).parse().map_err(|_| BadServer::Key)?))
            }
            None => (text, None),
        };
        check_host_port(name).map_err(|bad| match bad {
            BadHostPort::Form | BadHostPort::Host => BadServer::Address,
            BadHostPort::Nowhere | BadHostPort::Scope => BadServer::Nowhere(bad),
        })?;
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

/// Whether somebody may be reached at `text`: a name or an address and a port, an IPv6 address in brackets.
///
/// # Errors
///
/// Nobody ever can.
pub fn check_host_port(text: &str) -> Result<(), BadHostPort> {
    let (host, port) = text.rsplit_once(':').ok_or(BadHostPort::Form)?;
    let is_port =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse().is_ok_and(|port: u16| port != 0);
    if !is_port || host.is_empty() {
        return Err(BadHostPort::Form);
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let (addr, scope) =
            inside.split_once('%').map_or((inside, None), |(addr, scope)| (addr, Some(scope)));
        let addr: Ipv6Addr = addr.parse().map_err(|_| BadHostPort::Host)?;
        return match scope {
            Some(scope) if scope.is_empty() || scope.contains(odd) => Err(BadHostPort::Host),
            None if addr.is_unicast_link_local() => Err(BadHostPort::Scope),
            _ => check_addr(addr.to_canonical()),
        };
    }
    if host.contains(':') {
        return Err(BadHostPort::Form);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let is_bare = !label.starts_with('-') && !label.ends_with('-') && !label.contains(odd);
        (1..=LABEL_BYTES).contains(&label.len()) && is_bare
    };
    if name.len() > HOST_BYTES || !name.split('.').all(is_label) {
        return Err(BadHostPort::Host);
    }
    if !name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(());
    }
    // No name is all digits: the address was mistyped.
    check_addr(IpAddr::V4(host.parse().map_err(|_| BadHostPort::Host)?))
}

/// What would steer a terminal, or could not be told from the rest of an invitation or of an address.
fn odd(char: char) -> bool {
    ",@~#/\\?%[]\"'`".contains(char) || char.is_whitespace() || crate::id::unprintable(char)
}

fn check_addr(addr: IpAddr) -> Result<(), BadHostPort> {
    let is_nobody = match addr {
        // All of 0.0.0.0/8 is "this network" (RFC 1122, 3.2.1.3).
        IpAddr::V4(addr) => addr.octets()[0] == 0 || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unspecified(),
    };
    if is_nobody || addr.is_multicast() { Err(BadHostPort::Nowhere) } else { Ok(()) }
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
        assert_eq!(server(&format!("\u{feff} a:1 # {key}\r\n")).unwrap().to_string(), format!("a:1#{key}"));
        assert_eq!(server("0.0.0.0:1"), Err(BadServer::Nowhere(BadHostPort::Nowhere)));
        for length in [50, 51, 53] {
            assert_eq!(server(&format!("a:1#{}", "a".repeat(length))), Err(BadServer::Key), "{length}");
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
    fn an_address_at_which_nobody_can_ever_be_is_refused_for_its_reason() {
        for text in [
            "pi:1",
            "pi.:1",
            "my_pi.lan:65535",
            "tür.local:1",
            "10.0.0.1:1",
            "127.0.0.1:1",
            "[::1]:1",
            "[fe80::1%3]:1",
            "[::ffff:10.0.0.1]:1",
            "4.example:1",
        ] {
            assert_eq!(check_host_port(text), Ok(()), "{text}");
        }
        let long = format!("{}:1", "a".repeat(64));
        for (wrong, texts) in [
            (
                BadHostPort::Form,
                &["", "pi", "pi:", "pi:0", "pi:+1", "pi:70000", ":28282", "http://x", "http://x:80", "::1:5"]
                    [..],
            ),
            (
                BadHostPort::Host,
                &[
                    "a b:1",
                    "a..b:1",
                    ".a:1",
                    "-a:1",
                    "a/b:1",
                    &long,
                    "256.0.0.1:1",
                    "1.2.3:1",
                    "[pi]:1",
                    "[10.0.0.1]:1",
                    "[fe80::1%]:1",
                    "a\u{1b}:1",
                ],
            ),
            (
                BadHostPort::Nowhere,
                &[
                    "0.0.0.0:1",
                    "0.1.2.3:1",
                    "224.0.0.251:1",
                    "255.255.255.255:1",
                    "[::]:1",
                    "[ff02::fb]:1",
                    "[::ffff:0.0.0.0]:1",
                ],
            ),
            (BadHostPort::Scope, &["[fe80::1]:1"]),
        ] {
            for text in texts {
                assert_eq!(check_host_port(text), Err(wrong), "{text}");
            }
        }
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
