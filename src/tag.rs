//! What proves something to whoever can make it again: a MAC, a cookie, a token.
//!
//! Two are compared in a time that does not depend on where they differ, else who measures it learns the right one byte by
//! byte. The comparison is that of the type, so that `==` is right wherever it stands.

use std::fmt;

use subtle::ConstantTimeEq;

/// Sixteen bytes that nobody may guess.
#[derive(Clone, Copy, Default)]
pub struct Tag([u8; Self::BYTES]);

impl Tag {
    /// How many bytes it has.
    pub const BYTES: usize = 16;

    /// One that was made here or came from elsewhere.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// To be sent.
    pub const fn bytes(self) -> [u8; Self::BYTES] {
        self.0
    }
}

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Tag {}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tag").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_equal_if_all_their_bits_are_and_are_not_shown() {
        let tag = Tag::new([7; 16]);
        assert_eq!(tag, Tag::new([7; 16]));
        for bit in 0..128 {
            let mut other = tag.bytes();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(tag, Tag::new(other), "{bit}");
        }
        assert_eq!(format!("{tag:?}"), "Tag { .. }");
    }
}
