//! Who a node is: an X25519 key pair for life, whose public half is the node's id.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::crypto::keypair::KeyPair;
use crate::id::NodeId;

/// A node's key pair.
#[derive(Clone)]
pub struct Identity(KeyPair);

impl Identity {
    /// The identity whose secret key is `secret`: any 32 bytes are one.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self(KeyPair::from_secret(secret))
    }

    /// A new identity.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *secret);
        Self::from_secret(*secret)
    }

    /// What others call it.
    pub fn id(&self) -> NodeId {
        NodeId(*self.0.public())
    }

    /// The secret key, for the key file.
    pub fn secret_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.0.secret())
    }

    pub(crate) fn key_pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_identity_comes_back_from_its_secret_and_prints_none_of_it() {
        let made = Identity::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        let read = Identity::from_secret(*made.secret_bytes());
        assert_eq!(read.id(), made.id());
        assert_eq!(format!("{read:?}"), format!("Identity({})", made.id().short()));
        let other = Identity::generate(&mut ChaCha20Rng::from_seed([2; 32]));
        assert_ne!(made.id(), other.id());
    }
}
