//! ChaCha20-Poly1305: the AEAD of handshakes, of data packets, and with 24-byte nonces of blobs.
//!
//! Handshakes and blobs always use the chacha20poly1305 crate. Data packets go through [`DataCipher`], which
//! is ring's where the feature `ring` is on (seven times faster for a small packet) and that crate's where it
//! is not.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, XChaCha20Poly1305};

use crate::crypto::hash::Key;
use crate::wire::packet::size;

/// The tag does not belong to the key, the nonce, the associated data and the ciphertext.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTag;

/// The ChaChaPoly cipher of the Noise specification, 12.2: the nonce is 4 zero bytes and `counter`
/// little-endian.
pub(crate) trait Cipher: From<Key> {
    /// `ENCRYPT(k, n, ad, plaintext)`, in place, with the tag apart.
    fn seal(&self, counter: u64, ad: &[u8], text: &mut [u8]) -> [u8; size::TAG];
    /// `DECRYPT(k, n, ad, ciphertext)`, in place, with the tag apart. With a bad tag `text` holds nothing of
    /// use.
    fn open(&self, counter: u64, ad: &[u8], text: &mut [u8], tag: &[u8; size::TAG]) -> Result<(), BadTag>;
}

/// What data packets are sealed with.
#[cfg(feature = "ring")]
pub(crate) type DataCipher = Ring;
/// What data packets are sealed with.
#[cfg(not(feature = "ring"))]
pub(crate) type DataCipher = Pure;

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// The chacha20poly1305 crate: Rust alone, on every machine.
pub(crate) struct Pure(Key);

impl From<Key> for Pure {
    fn from(key: Key) -> Self {
        Self(key)
    }
}

impl Cipher for Pure {
    fn seal(&self, counter: u64, ad: &[u8], text: &mut [u8]) -> [u8; size::TAG] {
        let cipher = ChaCha20Poly1305::new((&*self.0).into());
        let tag = cipher.encrypt_inout_detached(&nonce(counter).into(), ad, text.into());
        tag.expect("a packet is far below the cipher's limit of 256 GiB").into()
    }

    fn open(&self, counter: u64, ad: &[u8], text: &mut [u8], tag: &[u8; size::TAG]) -> Result<(), BadTag> {
        let cipher = ChaCha20Poly1305::new((&*self.0).into());
        let opened = cipher.decrypt_inout_detached(&nonce(counter).into(), ad, text.into(), tag.into());
        opened.map_err(|_| BadTag)
    }
}

/// ring. Its key type is not wiped when it goes, so we keep the bytes, which are, and make that key for each
/// packet.
#[cfg(feature = "ring")]
pub(crate) struct Ring(Key);

#[cfg(feature = "ring")]
impl Ring {
    fn key(&self) -> ring::aead::LessSafeKey {
        let key = ring::aead::UnboundKey::new(&ring::aead::CHACHA20_POLY1305, &*self.0);
        ring::aead::LessSafeKey::new(key.expect("a ChaCha20-Poly1305 key has 32 bytes"))
    }
}

#[cfg(feature = "ring")]
impl From<Key> for Ring {
    fn from(key: Key) -> Self {
        Self(key)
    }
}

#[cfg(feature = "ring")]
impl Cipher for Ring {
    fn seal(&self, counter: u64, ad: &[u8], text: &mut [u8]) -> [u8; size::TAG] {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(counter));
        let tag = self.key().seal_in_place_separate_tag(nonce, ring::aead::Aad::from(ad), text);
        let tag = tag.expect("a packet is far below the cipher's limit of 256 GiB");
        tag.as_ref().try_into().expect("a Poly1305 tag has 16 bytes")
    }

    fn open(&self, counter: u64, ad: &[u8], text: &mut [u8], tag: &[u8; size::TAG]) -> Result<(), BadTag> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(nonce(counter));
        let ad = ring::aead::Aad::from(ad);
        let opened = self.key().open_in_place_separate_tag(nonce, ad, (*tag).into(), text, 0..);
        opened.map(|_| ()).map_err(|_| BadTag)
    }
}

/// Seals `plaintext` with XChaCha20-Poly1305 into `out`, which is longer by the tag.
pub(crate) fn seal_blob(key: &Key, nonce: &[u8; size::NONCE], ad: &[u8], plaintext: &[u8], out: &mut [u8]) {
    let (text, tag_out) = out.split_at_mut(plaintext.len());
    text.copy_from_slice(plaintext);
    let cipher = XChaCha20Poly1305::new((&**key).into());
    let tag = cipher.encrypt_inout_detached(nonce.into(), ad, text.into());
    tag_out.copy_from_slice(&tag.expect("a blob is far below the cipher's limit of 256 GiB"));
}

/// Opens `N` bytes that were sealed by [`seal_blob`].
pub(crate) fn open_blob<const N: usize>(
    key: &Key,
    nonce: &[u8; size::NONCE],
    ad: &[u8],
    sealed: &[u8],
) -> Option<[u8; N]> {
    let (text, tag) = sealed.split_first_chunk::<N>()?;
    let mut text = *text;
    open_in_place(key, nonce, ad, &mut text, tag.try_into().ok()?).then_some(text)
}

/// Opens as many bytes as were sealed by [`seal_blob`].
pub(crate) fn open_blob_vec(
    key: &Key,
    nonce: &[u8; size::NONCE],
    ad: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    let (text, tag) = sealed.split_last_chunk()?;
    let mut text = text.to_vec();
    open_in_place(key, nonce, ad, &mut text, tag).then_some(text)
}

fn open_in_place(
    key: &Key,
    nonce: &[u8; size::NONCE],
    ad: &[u8],
    text: &mut [u8],
    tag: &[u8; size::TAG],
) -> bool {
    let cipher = XChaCha20Poly1305::new((&**key).into());
    cipher.decrypt_inout_detached(nonce.into(), ad, text.into(), tag.into()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; size::NONCE] = [3; size::NONCE];

    fn key() -> Key {
        Key::new([1; 32])
    }

    #[cfg(feature = "ring")]
    proptest::proptest! {
        #[test]
        fn both_ciphers_make_the_same_bytes_and_open_each_others(
            key: [u8; 32],
            counter: u64,
            ad in proptest::collection::vec(0_u8.., 0..40),
            text in proptest::collection::vec(0_u8.., 0..1500),
        ) {
            let (ring, pure) = (Ring::from(Key::new(key)), Pure::from(Key::new(key)));
            let (mut by_ring, mut by_pure) = (text.clone(), text.clone());
            let tag = ring.seal(counter, &ad, &mut by_ring);
            proptest::prop_assert_eq!(tag, pure.seal(counter, &ad, &mut by_pure));
            proptest::prop_assert_eq!(&by_ring, &by_pure);

            proptest::prop_assert_eq!(ring.open(counter, &ad, &mut by_pure, &tag), Ok(()));
            proptest::prop_assert_eq!(pure.open(counter, &ad, &mut by_ring, &tag), Ok(()));
            proptest::prop_assert_eq!(&by_ring, &text);
            proptest::prop_assert_eq!(&by_pure, &text);
        }
    }

    fn refuses_whatever_was_changed(cipher: &impl Cipher) {
        let mut sealed = *b"attack at dawn";
        let tag = cipher.seal(5, b"ad", &mut sealed);
        let open = |counter, ad: &[u8], mut text: [u8; 14], tag| cipher.open(counter, ad, &mut text, &tag);
        assert_eq!(open(5, b"ad", sealed, tag), Ok(()));
        assert_eq!(open(6, b"ad", sealed, tag), Err(BadTag));
        assert_eq!(open(5 + (1 << 32), b"ad", sealed, tag), Err(BadTag));
        assert_eq!(open(5, b"da", sealed, tag), Err(BadTag));
        let (mut other_text, mut other_tag) = (sealed, tag);
        other_text[13] ^= 0x80;
        other_tag[15] ^= 0x80;
        assert_eq!(open(5, b"ad", other_text, tag), Err(BadTag));
        assert_eq!(open(5, b"ad", sealed, other_tag), Err(BadTag));
    }

    #[test]
    fn a_cipher_refuses_another_counter_or_text_or_tag_or_associated_data() {
        refuses_whatever_was_changed(&Pure::from(key()));
        #[cfg(feature = "ring")]
        refuses_whatever_was_changed(&Ring::from(key()));
    }

    #[test]
    fn a_blob_opens_with_its_key_and_nonce_and_associated_data_only() {
        let mut sealed = [0; 20];
        seal_blob(&key(), &NONCE, b"ad", b"four", &mut sealed);
        assert_ne!(sealed[..4], *b"four");
        assert_eq!(open_blob(&key(), &NONCE, b"ad", &sealed), Some(*b"four"));
        assert_eq!(open_blob::<4>(&Key::new([2; 32]), &NONCE, b"ad", &sealed), None);
        assert_eq!(open_blob::<4>(&key(), &[4; size::NONCE], b"ad", &sealed), None);
        assert_eq!(open_blob::<4>(&key(), &NONCE, b"da", &sealed), None);
        assert_eq!(open_blob::<4>(&key(), &NONCE, b"ad", &sealed[..19]), None);
        assert_eq!(open_blob::<3>(&key(), &NONCE, b"ad", &sealed), None);
    }
}
