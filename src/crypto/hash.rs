//! BLAKE2s in its three uses: as a hash, keyed (a MAC, or a derivation), and in the HMAC and HKDF that Noise
//! asks for.

use blake2::digest::consts::{U16, U32};
use blake2::digest::{KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest};
use zeroize::Zeroizing;

use crate::tag::Tag;

/// HASHLEN of the Noise specification, for BLAKE2s; a key is as long.
pub(crate) const HASH: usize = 32;
/// BLOCKLEN of the Noise specification, for BLAKE2s.
const BLOCK: usize = 64;

/// A secret of 32 bytes that is wiped when it goes.
pub(crate) type Key = Zeroizing<[u8; HASH]>;

/// BLAKE2s-256 of the parts, one after another.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; HASH] {
    let mut state = Blake2s256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// The key that `key` gives for one use: BLAKE2s-256 keyed by it, of `label`.
pub(crate) fn derive(key: &[u8; HASH], label: &[u8]) -> Key {
    let mut state = Blake2sMac::<U32>::new(key.into());
    Mac::update(&mut state, label);
    let mut derived = Key::default();
    derived.copy_from_slice(state.finalize().as_bytes());
    derived
}

/// BLAKE2s-128 keyed by `key`, of the parts, one after another.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> Tag {
    Tag::new(keyed(key, parts).finalize().into_bytes().into())
}

/// Whether `tag` is the [`mac`] of the parts, in a time that does not depend on where they differ.
pub(crate) fn verify(key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
    keyed(key, parts).verify_slice(tag).is_ok()
}

fn keyed(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("a key of ours has 16 or 32 bytes");
    for part in parts {
        Mac::update(&mut state, part);
    }
    state
}

/// `HMAC-HASH(key, parts)` of RFC 2104; Noise never has a key longer than a block.
pub(crate) fn hmac(key: &[u8; HASH], parts: &[&[u8]]) -> Key {
    let pad = |byte: u8| {
        let mut block = Zeroizing::new([byte; BLOCK]);
        for (pad, key) in block.iter_mut().zip(key) {
            *pad ^= key;
        }
        block
    };
    let mut inner = Blake2s256::new();
    inner.update(*pad(0x36));
    for part in parts {
        inner.update(part);
    }
    let inner = Zeroizing::new(<[u8; HASH]>::from(inner.finalize()));
    Zeroizing::new(hash(&[&*pad(0x5c), &*inner]))
}

/// `HKDF(chaining_key, input_key_material, N)` of the Noise specification, 4.3: the first `N` outputs, at
/// most 255.
pub(crate) fn hkdf<const N: usize>(chaining_key: &[u8; HASH], input_key_material: &[u8]) -> [Key; N] {
    // temp_key = HMAC-HASH(chaining_key, input_key_material)
    let temp_key = hmac(chaining_key, &[input_key_material]);
    let mut outputs = std::array::from_fn(|_| Key::default());
    let mut number = 0;
    for at in 0..N {
        number += 1;
        // output1 = HMAC-HASH(temp_key, byte(0x01)), output2 = HMAC-HASH(temp_key, output1 || byte(0x02)) ...
        let before = at.checked_sub(1).map_or(&[][..], |before| &outputs[before][..]);
        outputs[at] = hmac(&temp_key, &[before, &[number]]);
    }
    outputs
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    const KEY: [u8; 32] = [
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
        28, 29, 30, 31,
    ];

    // The first is the first line of the reference implementation's blake2s-kat.txt, keyed; the others are
    // what Python's hashlib and hmac say.
    #[test]
    fn the_keyed_hashes_are_those_of_other_implementations() {
        let message: Vec<u8> = (0..100).collect();
        let derived = "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49";
        assert_eq!(HEXLOWER.encode(&*derive(&KEY, b"")), derived);
        assert_eq!(HEXLOWER.encode(&mac(&KEY, &[&message]).bytes()), "0b67d33f8b859c3157fbabd9e6e47ed0");
        assert_eq!(
            HEXLOWER.encode(&*hmac(&KEY, &[b"abc", b"def"])),
            "1ef2d7815adf4d6574d350f506c50442eda2fe590df41df56f470a9e0b6413d4"
        );
    }

    #[test]
    fn the_parts_of_a_message_are_one_message() {
        assert_eq!(mac(&KEY, &[b"ab", b"", b"c"]), mac(&KEY, &[b"abc"]));
        assert_eq!(hash(&[b"ab", b"", b"c"]), hash(&[b"abc"]));
    }

    #[test]
    fn a_mac_with_one_wrong_bit_or_of_another_length_is_refused() {
        let tag = mac(&KEY, &[b"abc"]).bytes();
        assert!(verify(&KEY, &[b"abc"], &tag));
        for bit in 0..128 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&KEY, &[b"abc"], &wrong), "{bit}");
        }
        assert!(!verify(&KEY, &[b"abc"], &tag[..15]));
        assert!(!verify(&KEY, &[b"abc"], &[]));
    }
}
