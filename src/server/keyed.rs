//! Hashing with a key: who chooses what is hashed must not choose where it lands.

use rand_core::CryptoRng;
use siphasher::sip::SipHasher13;

/// A keyed hash for tables.
#[derive(Clone, Copy)]
pub(super) struct Keyed(SipHasher13);

impl Keyed {
    pub(super) fn new(rng: &mut dyn CryptoRng) -> Self {
        Self(SipHasher13::new_with_keys(rng.next_u64(), rng.next_u64()))
    }

    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        self.0.hash(bytes)
    }
}
