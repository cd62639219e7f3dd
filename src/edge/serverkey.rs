//! What a rendezvous server keeps: its key, and the secret of its tokens.
//!
//! ```text
//! atonce-rendezvous-1
//! 52 characters of base32: the secret key
//! 52 characters of base32: the secret of the tokens
//! 16 characters: a checksum
//! ```
//!
//! A key that was replaced in silence would make all nodes stay away, so a file that is none ends the start.

use std::io;

use getrandom::SysRng;
use rand_core::TryRng;
use zeroize::Zeroizing;

use crate::crypto::namespace::ServerSecret;
use crate::edge::keyfile::{StateDir, StateError, failed};
use crate::edge::{keytext, statefile};
use crate::id::{base32, base32_32};
use crate::pasted;
use crate::server::Secrets;

const FILE: &str = "rendezvous.key";
const VERSION: &str = "atonce-rendezvous-1";

/// The secrets of earlier runs, else new ones.
///
/// # Errors
///
/// The file is none of ours, or cannot be read or written.
pub fn secrets(state: &StateDir) -> Result<Secrets, StateError> {
    let path = state.path().join(FILE);
    match statefile::read(&path) {
        Ok(Some(text)) => {
            let secrets = parse(&text).ok_or_else(|| StateError::BadKey(path.clone()))?;
            match statefile::tighten(&path) {
                Ok(false) => {}
                Ok(true) => {
                    tracing::warn!(file = %path.display(), "others could read the server's key; now they cannot");
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "others can read the server's key");
                }
            }
            Ok(secrets)
        }
        Ok(None) => {
            let mut random = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
            for bytes in &mut random {
                SysRng.try_fill_bytes(&mut **bytes).map_err(StateError::Random)?;
            }
            let [key, tokens] = random;
            let why = format!("there is no key in {}", state.path().display());
            statefile::write(&path, to_text(&key, &tokens).as_bytes()).map_err(state.no_key(&why))?;
            Ok(Secrets { key: ServerSecret::new(*key), tokens })
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(StateError::BadKey(path)),
        Err(error) => Err(failed("read", &path)(error)),
    }
}

fn to_text(key: &[u8; 32], tokens: &[u8; 32]) -> Zeroizing<String> {
    let (key, tokens) = (Zeroizing::new(base32(key)), Zeroizing::new(base32(tokens)));
    let body = Zeroizing::new(format!("{VERSION}\n{}\n{}\n", *key, *tokens));
    Zeroizing::new(format!("{}{}\n", *body, keytext::checksum(&body)))
}

fn parse(text: &str) -> Option<Secrets> {
    let text = Zeroizing::new(pasted::lines(text).into_owned());
    let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let body = Zeroizing::new(format!("{body}\n"));
    let mut lines = body.lines();
    if lines.next()? != VERSION || sum != keytext::checksum(&body) {
        return None;
    }
    let mut secret = || lines.next().and_then(base32_32).map(Zeroizing::new);
    let (key, tokens) = (secret()?, secret()?);
    lines.next().is_none().then(|| Secrets { key: ServerSecret::new(*key), tokens })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_secrets_of_the_first_start_are_those_of_the_second_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let first = secrets(&StateDir::open(dir.path()).unwrap()).unwrap();
        let second = secrets(&StateDir::open(dir.path()).unwrap()).unwrap();
        assert_eq!((first.key.public(), &first.tokens), (second.key.public(), &second.tokens));
        assert_eq!(fs::metadata(dir.path().join(FILE)).unwrap().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let other = secrets(&StateDir::open(other.path()).unwrap()).unwrap();
        assert_ne!((other.key.public(), &other.tokens), (first.key.public(), &first.tokens));
    }

    #[test]
    fn a_cut_or_edited_key_ends_the_start_and_stays_where_it_is() {
        let text = to_text(&[7; 32], &[8; 32]);
        assert_eq!(*parse(&text).unwrap().tokens, [8; 32]);
        // Its last newline may be missing, as that of any text.
        let copied = format!("\u{feff}{}", text.trim_end().replace('\n', "\r\n"));
        assert_eq!(*parse(&copied).unwrap().tokens, [8; 32]);
        for end in 0..text.len() - 1 {
            assert!(parse(&text[..end]).is_none(), "{end}");
        }
        for at in 0..text.len() - 1 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(parse(&String::from_utf8(bytes).unwrap()).is_none(), "{at}");
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), &text[..50]).unwrap();
        let error = secrets(&StateDir::open(dir.path()).unwrap()).unwrap_err().to_string();
        assert!(error.contains("rendezvous.key is cut or foreign"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), text[..50]);
    }
}
