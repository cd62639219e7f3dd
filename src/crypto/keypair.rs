//! An X25519 key pair: a node's identity for life, or one handshake's ephemeral.

use x25519_dalek::{PublicKey, StaticSecret};

use crate::crypto::hash::Key;

/// A secret key and its public key; the secret is wiped when it goes.
#[derive(Clone)]
pub(crate) struct KeyPair {
    secret: StaticSecret,
    public: [u8; 32],
}

impl KeyPair {
    /// `GENERATE_KEYPAIR()` of the Noise specification, with the randomness handed in.
    pub(crate) fn from_secret(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    pub(crate) fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        self.secret.as_bytes()
    }

    /// `DH(key_pair, public_key)`; none if the result is all zero, which a public key of small order brings
    /// about: such a result depends on no secret, so it proves nothing (RFC 7748, 6.1).
    pub(crate) fn dh(&self, public: &[u8; 32]) -> Option<Key> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        shared.was_contributory().then(|| Key::new(shared.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_key_exchange_get_the_same_secret() {
        let (ours, theirs) = (KeyPair::from_secret([1; 32]), KeyPair::from_secret([2; 32]));
        let shared = ours.dh(theirs.public()).unwrap();
        assert_eq!(shared, theirs.dh(ours.public()).unwrap());
        assert_ne!(shared, ours.dh(KeyPair::from_secret([3; 32]).public()).unwrap());
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        // u = 0, 1 and p - 1, and 0 and 1 once more as p and p + 1, which the curve takes too.
        let mut points = [[0; 32]; 5];
        points[1][0] = 1;
        for (point, low) in points[2..].iter_mut().zip([0xec, 0xed, 0xee]) {
            *point = [0xff; 32];
            (point[0], point[31]) = (low, 0x7f);
        }
        for point in points {
            assert!(KeyPair::from_secret([1; 32]).dh(&point).is_none(), "{point:?}");
        }
    }
}
