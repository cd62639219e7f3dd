//! The network that a node belongs to; and, while its members change their secret, the one of before.
//!
//! A node announces itself with the current secret only. It answers in the network in which it was asked, so it can talk
//! to members that have changed already, and to those that have not.

use std::str::FromStr;

use zeroize::Zeroizing;

use crate::crypto::invitation::{INVITATION, Invitation};
use crate::crypto::network::{BadSecret, NetworkKeys, NetworkKind, NetworkTag, PREFIX};
use crate::pasted;
use crate::wire::rendezvous::RendezvousServer;

/// Whose members we talk to.
#[derive(Clone, Debug)]
pub struct Membership {
    current: NetworkKeys,
    before: Option<NetworkKeys>,
}

impl Membership {
    /// `before` counts in private networks only: the open one has no members that could be kept.
    pub fn new(current: NetworkKeys, before: Option<NetworkKeys>) -> Self {
        let is_other = |before: &NetworkKeys| {
            current.kind() == NetworkKind::Private
                && before.kind() == NetworkKind::Private
                && before.tag() != current.tag()
        };
        Self { before: before.filter(is_other), current }
    }

    /// With which we announce ourselves.
    pub const fn current(&self) -> &NetworkKeys {
        &self.current
    }

    /// Whose members we still answer.
    pub const fn before(&self) -> Option<&NetworkKeys> {
        self.before.as_ref()
    }

    /// Whether we talk to members of the network with this tag.
    pub fn holds(&self, tag: NetworkTag) -> bool {
        self.current.tag() == tag || self.before.as_ref().is_some_and(|before| before.tag() == tag)
    }

    /// The network with this tag; the current one if it is none of ours.
    pub fn of(&self, tag: NetworkTag) -> &NetworkKeys {
        self.before.as_ref().filter(|before| before.tag() == tag).unwrap_or(&self.current)
    }

    /// The network in which `open` succeeds, and what it gave.
    pub fn find<T>(&self, mut open: impl FnMut(&NetworkKeys) -> Option<T>) -> Option<(T, NetworkTag)> {
        let mut all = std::iter::once(&self.current).chain(&self.before);
        all.find_map(|keys| open(keys).map(|opened| (opened, keys.tag())))
    }

    /// In which network to try for the time `attempt` (from 0) whom `first` is the best guess for: by turns.
    pub fn turn(&self, first: NetworkTag, attempt: usize) -> NetworkTag {
        let first = self.of(first).tag();
        match &self.before {
            Some(before) if attempt % 2 == 1 => {
                if before.tag() == first {
                    self.current.tag()
                } else {
                    before.tag()
                }
            }
            _ => first,
        }
    }
}

impl From<NetworkKeys> for Membership {
    fn from(current: NetworkKeys) -> Self {
        Self::new(current, None)
    }
}

impl From<&NetworkSecrets> for Membership {
    fn from(secrets: &NetworkSecrets) -> Self {
        let before = secrets.before.as_ref().map(|before| NetworkKeys::private(&before.secret));
        Self::new(NetworkKeys::private(&secrets.current.secret), before)
    }
}

/// The secret of a private network, and the one that it had before if that still counts: one line each, with
/// the servers at which its members meet.
#[derive(Clone, Debug)]
pub struct NetworkSecrets {
    /// The first line.
    pub current: Invitation,
    /// The second line.
    pub before: Option<Invitation>,
}

impl NetworkSecrets {
    /// The lines, each with its newline.
    pub fn to_lines(&self) -> Zeroizing<String> {
        let lines: Vec<_> = self.invitations().map(Invitation::to_line).collect();
        let bytes = lines.iter().map(|line| line.len() + 1).sum();
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// The servers of all lines, each once.
    pub fn servers(&self) -> Vec<RendezvousServer> {
        RendezvousServer::merge(self.invitations().flat_map(|line| line.servers.iter().cloned()))
    }

    fn invitations(&self) -> impl Iterator<Item = &Invitation> {
        std::iter::once(&self.current).chain(&self.before)
    }
}

impl FromStr for NetworkSecrets {
    type Err = BadSecret;

    /// Reads one or two secrets, however white space was wrapped into them.
    fn from_str(text: &str) -> Result<Self, BadSecret> {
        // As long as the text from the start: growing would leave a copy behind that is not wiped.
        let mut line = Zeroizing::new(String::with_capacity(text.len()));
        line.extend(pasted::squeezed(text));
        // The case of a secret does not matter, that of an interface's name behind an address does.
        let lower = Zeroizing::new(line.to_ascii_lowercase());
        let mut starts: Vec<_> = [PREFIX, INVITATION]
            .iter()
            .flat_map(|word| lower.match_indices(word))
            .map(|(at, _)| at)
            .collect();
        starts.sort_unstable();
        match starts[..] {
            [0, second] => {
                let (current, before) = line.split_at(second);
                Ok(Self { current: current.parse()?, before: Some(before.parse()?) })
            }
            [0, _, ..] => Err(BadSecret::Many),
            _ => Ok(Self { current: line.parse()?, before: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(letter: &str) -> String {
        format!("atonce-secret-{}a", letter.repeat(51))
    }

    fn private(letter: &str) -> NetworkKeys {
        NetworkKeys::private(&line(letter).parse().unwrap())
    }

    #[test]
    fn one_or_two_secrets_are_read_and_a_third_is_refused() {
        let one: NetworkSecrets = line("b").parse().unwrap();
        assert!(one.before.is_none());
        assert_eq!(*one.to_lines(), format!("{}\n", line("b")));
        for between in ["\n", "", " \r\n\r\n", "\"\r\n\"", "\u{feff}"] {
            let text = format!(" {}{between}{}\n", line("b"), line("c").to_uppercase());
            let two: NetworkSecrets = text.parse().unwrap();
            assert_eq!(*two.to_lines(), format!("{}\n{}\n", line("b"), line("c")));
        }
        let read = |text: String| text.parse::<NetworkSecrets>().unwrap_err();
        assert_eq!(read(format!("{0}\n{0}\n{0}", line("b"))), BadSecret::Many);
        assert_eq!(read(format!("{}\n{}", line("b"), &line("c")[..65])), BadSecret::Length(51));
        assert_eq!(read(format!("x{}", line("b"))), BadSecret::Prefix);
        assert_eq!(read(String::new()), BadSecret::Empty);
        assert_eq!(read(line("b").repeat(1000)), BadSecret::Many);
    }

    #[test]
    fn each_line_may_carry_servers_and_all_of_them_count_once() {
        let key = "c".repeat(51) + "a";
        let invitation = |letter: &str, servers: &[&str]| {
            let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
            Invitation { secret: line(letter).parse().unwrap(), servers }.to_line()
        };
        let (one, two) =
            (invitation("b", &["a:1", "b:2"]), invitation("c", &["[fe80::1%Eth0]:3", &format!("a:1#{key}")]));
        let loud = two.replacen(&"c".repeat(51), &"C".repeat(51), 1);
        for between in ["\n", "", " \r\n\r\n", "\"\r\n\"", "\u{feff}"] {
            let secrets: NetworkSecrets = format!("{}{between}{loud}\n", *one).parse().unwrap();
            let servers: Vec<_> = secrets.servers().iter().map(ToString::to_string).collect();
            assert_eq!(servers, [format!("a:1#{key}"), "b:2".to_owned(), "[fe80::1%Eth0]:3".to_owned()]);
            assert_eq!(*secrets.to_lines(), format!("{}\n{}\n", *one, *two));
        }
        let mixed = format!("{}\n{}", *one, line("c"));
        assert_eq!(mixed.parse::<NetworkSecrets>().unwrap().servers().len(), 2);
        let mixed = format!("{}\n{}", line("c"), *one);
        assert_eq!(mixed.parse::<NetworkSecrets>().unwrap().servers().len(), 2);
        let cut = format!("{}\n{}", &one[..one.len() - 1], line("c"));
        assert_eq!(cut.parse::<NetworkSecrets>().unwrap_err(), BadSecret::Damaged);
        let many = format!("{}\n{}\n{}", *one, line("c"), *two);
        assert_eq!(many.parse::<NetworkSecrets>().unwrap_err(), BadSecret::Many);
    }

    #[test]
    fn only_another_private_network_is_kept_beside_a_private_one() {
        let kept = |current, before| Membership::new(current, Some(before)).before().is_some();
        assert!(kept(private("b"), private("c")));
        assert!(!kept(private("b"), private("b")));
        assert!(!kept(private("b"), NetworkKeys::open()));
        assert!(!kept(NetworkKeys::open(), private("b")));
    }

    #[test]
    fn a_guess_goes_first_and_then_both_by_turns() {
        let (new, old) = (private("b"), private("c"));
        let both = Membership::new(new.clone(), Some(old.clone()));
        let turns = |first| [0, 1, 2].map(|attempt| both.turn(first, attempt));
        assert_eq!(turns(new.tag()), [new.tag(), old.tag(), new.tag()]);
        assert_eq!(turns(old.tag()), [old.tag(), new.tag(), old.tag()]);
        assert_eq!(turns(NetworkKeys::open().tag()), turns(new.tag()));
        let alone = Membership::from(new.clone());
        assert_eq!([0, 1].map(|attempt| alone.turn(old.tag(), attempt)), [new.tag(); 2]);
    }
}
