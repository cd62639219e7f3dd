//! What the user wrote and that makes no sense: where it stands, what is wrong, and what to try.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// Where something was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line, by the flag of this key.
    Flag(String),
    /// In the environment, by this variable.
    Variable(String),
    /// In a credential of the service manager.
    Credential,
    /// In a file.
    File {
        /// Which.
        path: PathBuf,
        /// Its line, from 1, unless the whole of it is meant.
        line: Option<usize>,
    },
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{}", key.replace('_', "-")),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Credential => f.write_str("credential"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
    /// What to try, unless that is said already.
    pub tries: Option<String>,
    /// The daemon does not start with it.
    pub serious: bool,
}

impl Mistake {
    pub(super) fn serious(origin: Origin, what: String, tries: &str) -> Self {
        Self { origin, what, tries: Some(tries.to_owned()), serious: true }
    }

    /// A key that is none of `keys`. It does no harm, so that a file can be older or newer than the daemon.
    pub(super) fn unknown_key(origin: Origin, key: &str, keys: &[&str], program: &str) -> Self {
        let what = format!("unknown key `{}`", key.escape_debug());
        match nearest(key, keys) {
            Some(near) => {
                Self { origin, what: format!("{what}, did you mean `{near}`?"), tries: None, serious: false }
            }
            None => {
                let tries = format!("`{program} --help`: its options are the keys, with underscores");
                Self { serious: false, ..Self::serious(origin, what, &tries) }
            }
        }
    }

    /// A variable that begins with `start`, and then has none of `keys`. Like an unknown key it does no harm.
    pub(super) fn unknown_variable(name: &str, start: &str, keys: &[&str], program: &str) -> Self {
        let origin = Origin::Variable(name.escape_debug().to_string());
        let what = "unknown variable".to_owned();
        let word = name.strip_prefix(start).unwrap_or(name).to_lowercase();
        let (what, tries) = match nearest(&word, keys) {
            Some(near) => (format!("{what}, did you mean {start}{}?", near.to_uppercase()), None),
            None => (what, Some(format!("`{program} --help`, which tells them all"))),
        };
        Self { origin, what, tries, serious: false }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)?;
        self.tries.as_ref().map_or(Ok(()), |tries| write!(f, "\ntry: {tries}"))
    }
}

/// All that makes no sense.
#[derive(Debug, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Mistakes(pub Vec<Mistake>);

/// The known key that was probably meant, if one is like it.
fn nearest<'a>(key: &str, keys: &[&'a str]) -> Option<&'a str> {
    let near = keys.iter().map(|known| (distance(key, known), *known)).min()?;
    (near.0 <= key.chars().count() / 2).then_some(near.1)
}

/// How many letters must be put in, taken out or changed to make one word of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let changed = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_the_key_that_was_meant_if_one_is_like_it() {
        let keys = ["name", "no_mdns", "port", "socket"];
        for (wrong, right) in [
            ("no-mdns", Some("no_mdns")),
            ("nmae", Some("name")),
            ("ports", Some("port")),
            ("socket_path", Some("socket")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, &keys), right, "{wrong}");
            let told = Mistake::unknown_key(Origin::Default, wrong, &keys, "atonced").to_string();
            assert_eq!(told.contains("did you mean"), right.is_some(), "{told}");
        }
    }
}
