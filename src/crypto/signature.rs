//! Signatures by an identity: what it tells all members of its network, each of them can check, and none can make.
//!
//! An identity is an X25519 key. It signs by Ed25519 with the same secret scalar, as XEdDSA does: each Montgomery point is
//! two Edwards points, and the one whose sign is 0 is the key that verifies. The prefix that makes the nonces is derived from
//! the secret, as in RFC 8032. The Noise handshakes of the identity are not weakened by that: they never reveal a function of
//! the scalar that a signature could be made of, and all that is signed begins with a label of its own.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::crypto::hash;
use crate::crypto::keypair::KeyPair;

/// Bytes of a signature.
pub(crate) const SIGNATURE: usize = 64;

/// The signature of `pair` under the parts, one after another.
pub(crate) fn sign(pair: &KeyPair, parts: &[&[u8]]) -> [u8; SIGNATURE] {
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order(clamp_integer(*pair.secret())));
    let point = EdwardsPoint::mul_base(&scalar);
    let is_negative = point.compress().0[31] >> 7 == 1;
    let (scalar, point) = if is_negative { (-*scalar, -point) } else { (*scalar, point) };
    let hash_prefix = *hash::derive(pair.secret(), b"atonce signature 1");
    let key = ExpandedSecretKey { scalar, hash_prefix };
    raw_sign::<Sha512>(&key, &parts.concat(), &VerifyingKey::from(point)).to_bytes()
}

/// Whether the owner of the X25519 key `public` signed the parts.
pub(crate) fn verify(public: &[u8; 32], parts: &[&[u8]], signature: &[u8; SIGNATURE]) -> bool {
    let Some(point) = MontgomeryPoint(*public).to_edwards(0) else { return false };
    let key = VerifyingKey::from(point);
    key.verify_strict(&parts.concat(), &Signature::from_bytes(signature)).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_an_identity_signs_verifies_by_its_id_and_nothing_else_does(secret: [u8; 32], other: [u8; 32], message: Vec<u8>) {
            let pair = KeyPair::from_secret(secret);
            let signature = sign(&pair, &[b"label", &message]);
            prop_assert!(verify(pair.public(), &[b"label", &message], &signature));
            prop_assert!(!verify(pair.public(), &[b"Label", &message], &signature));
            prop_assert!(!verify(KeyPair::from_secret(other).public(), &[b"label", &message], &signature));
            for bit in 0..SIGNATURE * 8 {
                let mut changed = signature;
                changed[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(!verify(pair.public(), &[b"label", &message], &changed), "{}", bit);
            }
        }
    }

    #[test]
    fn under_a_key_of_small_order_or_of_no_point_nothing_verifies() {
        let signature = sign(&KeyPair::from_secret([1; 32]), &[b"x"]);
        let mut low = [[0; 32]; 4];
        low[1][0] = 1;
        low[2] = [0xff; 32];
        (low[2][0], low[2][31]) = (0xec, 0x7f);
        // No point of the curve has this one.
        low[3][0] = 2;
        for public in low {
            for signature in [signature, [0; SIGNATURE]] {
                assert!(!verify(&public, &[b"x"], &signature), "{public:?}");
            }
        }
    }

    #[test]
    fn equal_words_have_equal_signatures_and_others_share_no_half() {
        let pair = KeyPair::from_secret([1; 32]);
        let [one, same, other] = [b"x", b"x", b"y"].map(|word| sign(&pair, &[word]));
        assert_eq!(one, same);
        assert!(one[..32] != other[..32] && one[32..] != other[32..]);
    }
}
