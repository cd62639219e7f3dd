//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`, line by line after the Noise specification, revision 34.
//!
//! ```text
//! IKpsk2:
//!   <- s
//!   ...
//!   -> e, es, s, ss
//!   <- e, ee, se, psk
//! ```
//!
//! No more than this one pattern, and no buffers: a message is a slice of the right length. Each function computes on a
//! state of its own and gives it back only if all was verified, so that a forgery costs nothing but time. What packets
//! the messages travel in is [`handshake`](crate::crypto::handshake)'s business.

use crate::crypto::aead::{BadTag, Cipher, Pure};
use crate::crypto::handshake::HandshakeError;
use crate::crypto::hash::{self, HASH, Key};
use crate::crypto::keypair::KeyPair;
use crate::wire::packet::size;

const PROTOCOL_NAME: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/// DHLEN of the Noise specification, for 25519.
pub(crate) const DH: usize = 32;
/// The bytes of message 1 beside its payload: e, the sealed s, and the payload's tag.
pub(crate) const MESSAGE_1_OVERHEAD: usize = DH + DH + size::TAG + size::TAG;
/// The bytes of message 2 beside its payload: e, and the payload's tag.
pub(crate) const MESSAGE_2_OVERHEAD: usize = DH + size::TAG;

/// The SymmetricState and CipherState of the specification, 5.1 and 5.2.
///
/// `k` is never empty when it is used, since a psk pattern mixes a key with its first token; until then it is zero.
#[derive(Clone)]
pub(crate) struct SymmetricState {
    ck: Key,
    h: [u8; HASH],
    k: Key,
    n: u64,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)`, `MixHash(prologue)`, and the pre-message `<- s`.
    fn initialize(prologue: &[u8], responder: &[u8; DH]) -> Self {
        // h = HASH(protocol_name), for it is longer than HASHLEN; ck = h; k = empty
        let h = hash::hash(&[PROTOCOL_NAME]);
        let mut state = Self { ck: Key::new(h), h, k: Key::default(), n: 0 };
        // MixHash(prologue)
        state.mix_hash(prologue);
        // MixHash(rs)
        state.mix_hash(responder);
        state
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        // h = HASH(h || data)
        self.h = hash::hash(&[&self.h, data]);
    }

    pub(crate) fn mix_key(&mut self, input_key_material: &[u8]) {
        // ck, temp_k = HKDF(ck, input_key_material, 2)
        let [ck, temp_k] = hash::hkdf(&self.ck, input_key_material);
        // InitializeKey(temp_k): k = temp_k, n = 0
        (self.ck, self.k, self.n) = (ck, temp_k, 0);
    }

    pub(crate) fn mix_key_and_hash(&mut self, input_key_material: &[u8]) {
        // ck, temp_h, temp_k = HKDF(ck, input_key_material, 3)
        let [ck, temp_h, temp_k] = hash::hkdf(&self.ck, input_key_material);
        self.ck = ck;
        // MixHash(temp_h)
        self.mix_hash(&*temp_h);
        // InitializeKey(temp_k): k = temp_k, n = 0
        (self.k, self.n) = (temp_k, 0);
    }

    /// Into `out`, which is longer than `plaintext` by the tag.
    pub(crate) fn encrypt_and_hash(&mut self, plaintext: &[u8], out: &mut [u8]) {
        // ciphertext = ENCRYPT(k, n++, h, plaintext)
        let (text, tag) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        tag.copy_from_slice(&Pure::from(self.k.clone()).seal(self.n, &self.h, text));
        self.n += 1;
        // MixHash(ciphertext)
        self.mix_hash(out);
    }

    /// Into `out`, which is shorter than `ciphertext` by the tag. After an error the state is of no use.
    pub(crate) fn decrypt_and_hash(&mut self, ciphertext: &[u8], out: &mut [u8]) -> Result<(), BadTag> {
        // plaintext = DECRYPT(k, n++, h, ciphertext)
        let (text, tag) = ciphertext.split_last_chunk().ok_or(BadTag)?;
        if text.len() != out.len() {
            return Err(BadTag);
        }
        out.copy_from_slice(text);
        Pure::from(self.k.clone()).open(self.n, &self.h, out, tag)?;
        self.n += 1;
        // MixHash(ciphertext)
        self.mix_hash(ciphertext);
        Ok(())
    }

    /// What the initiator seals its data with, and what the responder does.
    pub(crate) fn split(self) -> [Key; 2] {
        // temp_k1, temp_k2 = HKDF(ck, zerolen, 2)
        hash::hkdf(&self.ck, &[])
    }

    #[cfg(test)]
    pub(crate) fn handshake_hash(&self) -> [u8; HASH] {
        self.h
    }
}

/// What message 1 told its reader.
pub(crate) struct Message1 {
    /// The state after it.
    pub(crate) state: SymmetricState,
    /// The initiator's ephemeral key.
    pub(crate) re: [u8; DH],
    /// The initiator's static key.
    pub(crate) rs: [u8; DH],
}

/// The initiator writes message 1, `-> e, es, s, ss`, to `out`: [`MESSAGE_1_OVERHEAD`] longer than `payload`.
///
/// None if `rs` is no key.
pub(crate) fn write_message_1(
    prologue: &[u8],
    s: &KeyPair,
    rs: &[u8; DH],
    e: &KeyPair,
    payload: &[u8],
    out: &mut [u8],
) -> Option<SymmetricState> {
    let (e_out, rest) = out.split_at_mut(DH);
    let (s_out, payload_out) = rest.split_at_mut(DH + size::TAG);
    let mut state = SymmetricState::initialize(prologue, rs);
    // e: buffer || e.public_key, MixHash(e.public_key), and in psk handshakes MixKey(e.public_key)
    e_out.copy_from_slice(e.public());
    state.mix_hash(e.public());
    state.mix_key(e.public());
    // es: MixKey(DH(e, rs))
    state.mix_key(&*e.dh(rs)?);
    // s: buffer || EncryptAndHash(s.public_key)
    state.encrypt_and_hash(s.public(), s_out);
    // ss: MixKey(DH(s, rs))
    state.mix_key(&*s.dh(rs)?);
    // buffer || EncryptAndHash(payload)
    state.encrypt_and_hash(payload, payload_out);
    Some(state)
}

/// The responder reads message 1, `-> e, es, s, ss`; `payload` is [`MESSAGE_1_OVERHEAD`] shorter than it.
pub(crate) fn read_message_1(
    prologue: &[u8],
    s: &KeyPair,
    message: &[u8],
    payload: &mut [u8],
) -> Result<Message1, HandshakeError> {
    let (re, rest) = message.split_first_chunk::<DH>().ok_or(HandshakeError::Tag)?;
    let (sealed_rs, sealed_payload) = rest.split_at_checked(DH + size::TAG).ok_or(HandshakeError::Tag)?;
    let mut state = SymmetricState::initialize(prologue, s.public());
    // e: re = 32 bytes, MixHash(re), and in psk handshakes MixKey(re)
    state.mix_hash(re);
    state.mix_key(re);
    // es: MixKey(DH(s, re))
    state.mix_key(&*s.dh(re).ok_or(HandshakeError::Key)?);
    // s: rs = DecryptAndHash(48 bytes)
    let mut rs = [0; DH];
    state.decrypt_and_hash(sealed_rs, &mut rs)?;
    // ss: MixKey(DH(s, rs))
    state.mix_key(&*s.dh(&rs).ok_or(HandshakeError::Key)?);
    // payload = DecryptAndHash(all that is left)
    state.decrypt_and_hash(sealed_payload, payload)?;
    Ok(Message1 { state, re: *re, rs })
}

/// The responder writes message 2, `<- e, ee, se, psk`, to `out`: [`MESSAGE_2_OVERHEAD`] longer than `payload`.
///
/// None if a key of the initiator's is none.
pub(crate) fn write_message_2(
    message_1: &Message1,
    e: &KeyPair,
    psk: &[u8; HASH],
    payload: &[u8],
    out: &mut [u8],
) -> Option<SymmetricState> {
    let Message1 { state, re, rs } = message_1;
    let (e_out, payload_out) = out.split_at_mut(DH);
    let mut state = state.clone();
    // e: buffer || e.public_key, MixHash(e.public_key), and in psk handshakes MixKey(e.public_key)
    e_out.copy_from_slice(e.public());
    state.mix_hash(e.public());
    state.mix_key(e.public());
    // ee: MixKey(DH(e, re))
    state.mix_key(&*e.dh(re)?);
    // se: MixKey(DH(e, rs)), for the responder
    state.mix_key(&*e.dh(rs)?);
    // psk: MixKeyAndHash(psk)
    state.mix_key_and_hash(psk);
    // buffer || EncryptAndHash(payload)
    state.encrypt_and_hash(payload, payload_out);
    Some(state)
}

/// The initiator reads message 2, `<- e, ee, se, psk`; `payload` is [`MESSAGE_2_OVERHEAD`] shorter than it.
///
/// `state` is the one that [`write_message_1`] gave; it stays as it is.
pub(crate) fn read_message_2(
    state: &SymmetricState,
    s: &KeyPair,
    e: &KeyPair,
    psk: &[u8; HASH],
    message: &[u8],
    payload: &mut [u8],
) -> Result<SymmetricState, HandshakeError> {
    let (re, sealed_payload) = message.split_first_chunk::<DH>().ok_or(HandshakeError::Tag)?;
    let mut state = state.clone();
    // e: re = 32 bytes, MixHash(re), and in psk handshakes MixKey(re)
    state.mix_hash(re);
    state.mix_key(re);
    // ee: MixKey(DH(e, re))
    state.mix_key(&*e.dh(re).ok_or(HandshakeError::Key)?);
    // se: MixKey(DH(s, re)), for the initiator
    state.mix_key(&*s.dh(re).ok_or(HandshakeError::Key)?);
    // psk: MixKeyAndHash(psk)
    state.mix_key_and_hash(psk);
    // payload = DecryptAndHash(all that is left)
    state.decrypt_and_hash(sealed_payload, payload)?;
    Ok(state)
}
