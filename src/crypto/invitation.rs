//! An invitation: the secret of a network and the rendezvous servers of its members, in one line.
//!
//! ```text
//! atonce-secret-<52 characters>@HOST:PORT#KEY,HOST:PORT
//! ```
//!
//! Without servers it is the line of the secret alone, and wherever that is read, an invitation is read too.

use std::fmt::Write as _;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::crypto::network::{BadSecret, NetworkSecret};
use crate::limits;
use crate::wire::rendezvous::RendezvousServer;

/// Bytes of the longest line, more or less: it is written into one piece of memory, which is wiped.
const LINE_BYTES: usize = 80 + limits::RENDEZVOUS_SERVERS * 320;

/// What makes a node a member, wherever it is.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The secret of the network.
    pub secret: NetworkSecret,
    /// The servers at which its members meet; at most [`limits::RENDEZVOUS_SERVERS`].
    pub servers: Vec<RendezvousServer>,
}

impl Invitation {
    /// The line that people copy, without a newline.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES));
        line.push_str(&self.secret.to_line());
        for (number, server) in self.servers.iter().enumerate() {
            line.push(if number == 0 { '@' } else { ',' });
            // Writing to a string cannot fail.
            let _ = write!(line, "{server}");
        }
        line
    }
}

impl FromStr for Invitation {
    type Err = BadSecret;

    /// Reads the line, however white space was wrapped into it.
    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let Some((secret, named)) = text.split_once('@') else {
            return Ok(Self { secret: text.parse()?, servers: Vec::new() });
        };
        let secret = secret.parse()?;
        if named.split(',').nth(limits::RENDEZVOUS_SERVERS).is_some() {
            return Err(BadSecret::TooManyServers);
        }
        let mut servers = Vec::new();
        for server in named.split(',') {
            let server: String = server.chars().filter(|char| !char.is_whitespace()).collect();
            servers.push(server.parse().map_err(BadSecret::Server)?);
        }
        Ok(Self { secret, servers: RendezvousServer::merge(servers) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::BadServer;

    fn secret() -> String {
        format!("atonce-secret-{}a", "b".repeat(51))
    }

    fn refused(servers: &str) -> BadSecret {
        format!("{}@{servers}", secret()).parse::<Invitation>().unwrap_err()
    }

    #[test]
    fn an_invitation_reads_back_from_its_line_however_that_was_wrapped() {
        let key = "c".repeat(51) + "a";
        for servers in ["", "@a.example:1", &format!("@a.example:1#{key},[fe80::1%Eth0]:2")] {
            let line = format!("{}{servers}", secret());
            let spaced: String = line.chars().flat_map(|char| [char, ' ', '\n']).collect();
            let loud = format!("{}{servers}", secret().to_uppercase());
            for text in [&line, &spaced, &loud] {
                assert_eq!(*text.parse::<Invitation>().unwrap().to_line(), line);
            }
        }
    }

    #[test]
    fn an_invitation_with_junk_for_servers_is_refused_for_its_reason_and_never_repeated() {
        for junk in ["", ",", "a:1,", "a:1@b:2", "nothing", "a\u{1b}[2J:1", "a:0", &"x".repeat(65_536)] {
            assert_eq!(refused(junk), BadSecret::Server(BadServer::Address), "{junk:?}");
        }
        assert_eq!(refused("a:1#key"), BadSecret::Server(BadServer::Key));
        assert!(refused("nothing").to_string().len() < 200);
        assert!(!refused("nothing").to_string().contains("nothing"));
        assert_eq!("@a:1".parse::<Invitation>().unwrap_err(), BadSecret::Empty);
    }

    #[test]
    fn as_many_servers_as_a_node_may_have_are_read_and_one_more_is_refused() {
        let named = |count: usize| (0..count).map(|n| format!("s{n}:1")).collect::<Vec<_>>().join(",");
        let line = format!("{}@{}", secret(), named(limits::RENDEZVOUS_SERVERS));
        assert_eq!(line.parse::<Invitation>().unwrap().servers.len(), limits::RENDEZVOUS_SERVERS);
        assert_eq!(refused(&named(limits::RENDEZVOUS_SERVERS + 1)), BadSecret::TooManyServers);
        assert_eq!(refused(&",".repeat(65_536)), BadSecret::TooManyServers);
    }

    #[test]
    fn the_longest_line_is_written_into_memory_that_does_not_move() {
        let key = "c".repeat(51) + "a";
        let servers = (0..limits::RENDEZVOUS_SERVERS).map(|n| format!("{n}{}:28283#{key}", "a".repeat(252)));
        let line = format!("{}@{}", secret(), servers.collect::<Vec<_>>().join(","));
        let written = line.parse::<Invitation>().unwrap().to_line();
        assert_eq!((written.as_str(), written.capacity()), (line.as_str(), LINE_BYTES));
    }
}
