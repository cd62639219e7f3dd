//! The key file's text: what this is, the key, what it is bound to, and a checksum that a cut or edited file does not have.
//!
//! ```text
//! atonce-identity-2
//! 52 characters of base32: the secret key
//! serial 26 characters                        any number of parts of the machine, see `hardware`
//! card 26 characters
//! adapter 26 characters
//! 16 characters: the checksum
//! ```
//!
//! Version 1 had no parts; it is read as a key that is bound to nothing yet.

use blake2::{Blake2s256, Digest};
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::edge::hardware::Binding;
use crate::id::{base32, base32_32};
use crate::pasted;

const VERSION: &str = "atonce-identity-2";
const VERSION_1: &str = "atonce-identity-1";

/// A key as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// The secret key.
    pub secret: Zeroizing<[u8; 32]>,
    /// The machine that it belongs to.
    pub binding: Binding,
}

impl StoredKey {
    /// The file's text.
    pub fn to_text(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(base32(&self.secret));
        // As long as it will be from the start: growing would leave a copy behind that is not wiped.
        let parts = self.binding.lines();
        let bytes = 128 + parts.iter().map(|line| line.len() + 1).sum::<usize>();
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        for line in [VERSION, &key].into_iter().chain(parts.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        let sum = checksum(&text);
        text.push_str(&sum);
        text.push('\n');
        text
    }

    /// What such a file holds; none if it is cut, edited or foreign.
    pub fn parse(text: &str) -> Option<Self> {
        let text = Zeroizing::new(pasted::lines(text).into_owned());
        let mut lines: Vec<&str> = text.lines().collect();
        let sum = lines.pop()?;
        let (version, key) = (*lines.first()?, *lines.get(1)?);
        let whole = match version {
            VERSION => sum == checksum(text.get(..text.rfind(sum)?)?),
            VERSION_1 => lines.len() == 2 && sum == checksum(&Zeroizing::new(format!("{VERSION_1}{key}"))),
            _ => false,
        };
        if !whole {
            return None;
        }
        let binding = Binding::parse(lines.into_iter().skip(2))?;
        Some(Self { secret: Zeroizing::new(base32_32(key)?), binding })
    }
}

impl std::fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredKey").finish_non_exhaustive()
    }
}

/// By which a text is known to be whole.
pub(super) fn checksum(text: &str) -> String {
    let digest = Blake2s256::new().chain_update(text).finalize();
    BASE32_NOPAD.encode(&digest[..10]).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::hardware::tests::with_card;

    #[test]
    fn a_key_reads_back_with_what_it_is_bound_to_and_no_cut_or_edited_one_does() {
        let secret = Zeroizing::new([7; 32]);
        let binding = with_card("b8:27:eb:01:02:03").binding(&secret);
        let stored = StoredKey { secret, binding };
        let text = stored.to_text();
        assert_eq!(StoredKey::parse(&text), Some(stored));
        for end in 0..text.len() - 1 {
            assert_eq!(StoredKey::parse(&text[..end]), None, "{end}");
        }
        for at in 0..text.len() - 1 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert_eq!(String::from_utf8(bytes).ok().and_then(|text| StoredKey::parse(&text)), None, "{at}");
        }
        assert_eq!(format!("{:?}", StoredKey::parse(&text)), "Some(StoredKey { .. })");
        let copied = format!("\u{feff}{}\r\n", text.replace('\n', " \r\n"));
        assert_eq!(StoredKey::parse(&copied), StoredKey::parse(&text), "an editor may have saved it");
    }

    #[test]
    fn a_key_file_of_the_first_version_is_a_key_without_parts() {
        let old = "atonce-identity-1\n\
                   a4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dqobyha4dq\n\
                   r3nkvygllndv4sci\n";
        let stored = StoredKey::parse(old).unwrap();
        assert_eq!((*stored.secret, stored.binding.is_empty()), ([7; 32], true));
        assert_eq!(StoredKey::parse(&format!("{old}more\n")), None);
    }
}
