//! An invitation: the secret of a network and the rendezvous servers of its members, in one line.
//!
//! ```text
//! atonce-invite-<52 characters of the secret>@HOST:PORT#KEY,HOST:PORT~<8 characters that say that it is whole>
//! ```
//!
//! Without servers there is no `@`. Wherever the line of a secret is read, an invitation is read too. It begins with another
//! word than a secret, so that no piece of it can be taken for one: its reader would be a member that finds nobody.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::crypto::network::{BadSecret, NetworkSecret, PREFIX};
use crate::limits;
use crate::pasted;
use crate::wire::rendezvous::RendezvousServer;

/// What an invitation begins with.
pub(crate) const INVITATION: &str = "atonce-invite-";
/// What is hashed before the line, so that the check is none of anything else.
const LABEL: &[u8] = b"atonce 1 invitation";
/// Bytes of the check: one in a trillion of the damaged lines passes.
const CHECK_BYTES: usize = 5;
/// Bytes that something has at least to be hidden like a secret: files may be called `atonce-secret-home`.
const SECRET_AT_LEAST: usize = 16;
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
    /// The line that is kept on disk, without a newline: that of the secret alone where there are no servers.
    pub fn to_line(&self) -> Zeroizing<String> {
        if self.servers.is_empty() { self.secret.to_line() } else { self.to_invite() }
    }

    /// The line that people copy, without a newline: with its check also where there are no servers, since a changed letter
    /// of a secret alone is just another network.
    pub fn to_invite(&self) -> Zeroizing<String> {
        let secret = self.secret.to_line();
        let characters = secret.strip_prefix(PREFIX).unwrap_or(&secret);
        let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES));
        line.push_str(INVITATION);
        line.push_str(characters);
        for (number, server) in self.servers.iter().enumerate() {
            line.push(if number == 0 { '@' } else { ',' });
            // Writing to a string cannot fail.
            let _ = write!(line, "{server}");
        }
        let check = check_of(&line);
        line.push('~');
        line.push_str(&check);
        line
    }
}

impl FromStr for Invitation {
    type Err = BadSecret;

    /// Reads the line, however white space was wrapped into it.
    fn from_str(text: &str) -> Result<Self, BadSecret> {
        // As long as the text from the start: growing would leave a copy behind that is not wiped.
        let mut line = Zeroizing::new(String::with_capacity(text.len()));
        line.extend(pasted::squeezed(text));
        let is_invitation = line
            .split_at_checked(INVITATION.len())
            .is_some_and(|(start, _)| start.eq_ignore_ascii_case(INVITATION));
        if !is_invitation {
            return Ok(Self { secret: line.parse()?, servers: Vec::new() });
        }
        // The case of a secret does not matter, that of an interface's name behind an address does.
        let end = line.find('@').unwrap_or(line.len());
        line[..end].make_ascii_lowercase();
        let (line, check) = line.rsplit_once('~').ok_or(BadSecret::Damaged)?;
        if !check.eq_ignore_ascii_case(&check_of(line)) {
            return Err(BadSecret::Damaged);
        }
        let (secret, named) =
            line.split_once('@').map_or((line, None), |(secret, named)| (secret, Some(named)));
        let mut whole = Zeroizing::new(String::with_capacity(secret.len()));
        whole.push_str(PREFIX);
        whole.push_str(&secret[INVITATION.len()..]);
        let secret = whole.parse()?;
        let named = || named.into_iter().flat_map(|named| named.split(','));
        if named().nth(limits::RENDEZVOUS_SERVERS).is_some() {
            return Err(BadSecret::TooManyServers);
        }
        let mut servers = Vec::new();
        for server in named() {
            servers.push(server.parse().map_err(BadSecret::Server)?);
        }
        Ok(Self { secret, servers: RendezvousServer::merge(servers) })
    }
}

/// The text with every secret and invitation in it cut off after its first word: people give them where they do not belong,
/// and what complains of that must not show them again.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let start = [PREFIX, INVITATION].iter().filter_map(|word| Some(lower.find(word)? + word.len())).min();
    let Some(start) = start else { return Cow::Borrowed(text) };
    let (before, behind) = text.split_at(start);
    let length =
        behind.find(|char: char| char.is_whitespace() || "'\"`".contains(char)).unwrap_or(behind.len());
    let (word, rest) = behind.split_at(length);
    if word.len() < SECRET_AT_LEAST {
        return Cow::Owned(format!("{before}{word}{}", without_secrets(rest)));
    }
    Cow::Owned(format!("{before}…{}", without_secrets(rest)))
}

/// What says that a line is whole: the beginning of its hash, in base32.
fn check_of(line: &str) -> String {
    let mut check = BASE32_NOPAD.encode(&hash::hash(&[LABEL, line.as_bytes()])[..CHECK_BYTES]);
    check.make_ascii_lowercase();
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rendezvous::BadServer;

    fn characters() -> String {
        "b".repeat(51) + "a"
    }

    /// The whole line with these servers.
    fn line(servers: &str) -> String {
        let line = format!("{INVITATION}{}@{servers}", characters());
        format!("{line}~{}", check_of(&line))
    }

    fn refused(text: &str) -> BadSecret {
        text.parse::<Invitation>().unwrap_err()
    }

    #[test]
    fn an_invitation_reads_back_from_its_line_however_that_was_wrapped() {
        let key = "c".repeat(51) + "a";
        let secret = format!("{PREFIX}{}", characters());
        for line in [secret, line("a.example:1"), line(&format!("a.example:1#{key},[fe80::1%Eth0]:2"))] {
            let spaced: String = line.chars().flat_map(|char| [char, ' ', '\n']).collect();
            let end = line.find('@').unwrap_or(line.len());
            let loud = line[..end].to_uppercase() + &line[end..];
            for text in [&line, &spaced, &loud] {
                assert_eq!(*text.parse::<Invitation>().unwrap().to_line(), line);
            }
        }
    }

    #[test]
    fn an_invitation_without_servers_is_known_to_be_whole_too() {
        let secret = format!("{PREFIX}{}", characters());
        let invite = secret.parse::<Invitation>().unwrap().to_invite();
        let (body, check) = invite.split_once('~').unwrap();
        assert_eq!((body.strip_prefix(INVITATION), check), (Some(&*characters()), "wduy7ild"));
        assert_eq!(invite.to_uppercase().parse::<Invitation>().unwrap().to_line().as_str(), secret);
        for at in INVITATION.len()..invite.len() {
            let other = if &invite[at..=at] == "c" { "d" } else { "c" };
            let changed = format!("{}{other}{}", &invite[..at], &invite[at + 1..]);
            assert_eq!(refused(&changed), BadSecret::Damaged, "{at}");
            assert_eq!(refused(&invite[..at]), BadSecret::Damaged, "{at}");
        }
        let servers = line("a.example:1");
        assert_eq!(servers.parse::<Invitation>().unwrap().to_invite().as_str(), servers);
    }

    // The check is what Python's hashlib.blake2s says.
    #[test]
    fn the_check_is_the_hash_of_the_line() {
        assert_eq!(line("a.example:1").rsplit_once('~').unwrap().1, "k5me33nf");
    }

    #[test]
    fn an_invitation_that_was_cut_or_changed_anywhere_is_refused() {
        let whole = line(&format!("a.example:1#{},b.example:2", "c".repeat(51) + "a"));
        for at in 0..whole.len() {
            let expected = match at {
                0 => BadSecret::Empty,
                _ if at < INVITATION.len() => BadSecret::Prefix,
                _ => BadSecret::Damaged,
            };
            assert_eq!(refused(&whole[..at]), expected, "{at}");
            assert!(whole[at..].parse::<Invitation>().is_err() || at == 0, "{at}");
            let other = if &whole[at..=at] == "x" { "y" } else { "x" };
            let changed = format!("{}{other}{}", &whole[..at], &whole[at + 1..]);
            assert!(changed.parse::<Invitation>().is_err(), "{at}");
            let lost = format!("{}{}", &whole[..at], &whole[at + 1..]);
            assert!(lost.parse::<Invitation>().is_err(), "{at}");
        }
        assert_eq!(refused(&(whole.clone() + "a")), BadSecret::Damaged);
        assert_eq!(refused(&(whole.clone() + &whole)), BadSecret::Damaged);
        assert!(BadSecret::Damaged.to_string().contains("atonce invite"));
    }

    #[test]
    fn no_secret_is_left_in_a_text_that_repeats_what_was_given() {
        let secret = format!("{PREFIX}{}", characters());
        let given = format!("unexpected '{secret}' and {} found", line("a.example:1"));
        let shown = "unexpected 'atonce-secret-…' and atonce-invite-… found";
        assert_eq!(without_secrets(&given), shown);
        assert_eq!(without_secrets(&secret.to_uppercase()), "ATONCE-SECRET-…");
        for harmless in ["cannot read /etc/atonce-secret-home: no such file", "atonce-secret-", "", "ü"] {
            assert_eq!(without_secrets(harmless), harmless);
        }
    }

    #[test]
    fn an_invitation_with_junk_for_servers_is_refused_for_its_reason_and_never_repeated() {
        for junk in
            ["", ",", "a:1,", "a:1@b:2", "a~b:1", "nothing", "a\u{1b}[2J:1", "a:0", &"x".repeat(65_536)]
        {
            assert_eq!(refused(&line(junk)), BadSecret::Server(BadServer::Address), "{junk:?}");
        }
        assert_eq!(refused(&line("a:1#key")), BadSecret::Server(BadServer::Key));
        let told = refused(&line("nothing")).to_string();
        assert!(told.len() < 200 && !told.contains("nothing"), "{told}");
        assert_eq!(refused("@a:1"), BadSecret::Prefix);
        // Servers behind a secret that nobody could tell whole from cut.
        assert!(matches!(refused(&format!("{PREFIX}{}@a:1", characters())), BadSecret::Length(_)));
    }

    #[test]
    fn as_many_servers_as_a_node_may_have_are_read_and_one_more_is_refused() {
        let named = |count: usize| (0..count).map(|n| format!("s{n}:1")).collect::<Vec<_>>().join(",");
        let most = line(&named(limits::RENDEZVOUS_SERVERS));
        assert_eq!(most.parse::<Invitation>().unwrap().servers.len(), limits::RENDEZVOUS_SERVERS);
        assert_eq!(refused(&line(&named(limits::RENDEZVOUS_SERVERS + 1))), BadSecret::TooManyServers);
        assert_eq!(refused(&line(&",".repeat(65_536))), BadSecret::TooManyServers);
    }

    #[test]
    fn the_longest_line_is_written_into_memory_that_does_not_move() {
        let key = "c".repeat(51) + "a";
        // 253 characters: four labels of at most 63, with dots between.
        let labels = [62, 63, 63, 61].map(|bytes| "a".repeat(bytes)).join(".");
        let servers = (0..limits::RENDEZVOUS_SERVERS).map(|n| format!("{n}{labels}:28283#{key}"));
        let line = line(&servers.collect::<Vec<_>>().join(","));
        let written = line.parse::<Invitation>().unwrap().to_line();
        assert_eq!((written.as_str(), written.capacity()), (line.as_str(), LINE_BYTES));
    }
}
