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
//! No more than this one pattern, and no buffers: a message is a slice of the right length. Each function
//! computes on a state of its own and gives it back only if all was verified, so that a forgery costs nothing
//! but time. What packets the messages travel in is [`handshake`](crate::crypto::handshake)'s business.

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
/// `k` is never empty when it is used, since a psk pattern mixes a key with its first token; until then it is
/// zero.
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

/// The responder writes message 2, `<- e, ee, se, psk`, to `out`: [`MESSAGE_2_OVERHEAD`] longer than
/// `payload`.
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

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const PSK: [u8; 32] = [7; 32];

    fn initiator() -> KeyPair {
        KeyPair::from_secret([1; 32])
    }

    fn responder() -> KeyPair {
        KeyPair::from_secret([2; 32])
    }

    /// Both messages of one handshake and the state that awaits the second.
    fn handshake() -> (SymmetricState, Vec<u8>, Vec<u8>) {
        let mut message_1 = vec![0; MESSAGE_1_OVERHEAD + 5];
        let e = KeyPair::from_secret([3; 32]);
        let state =
            write_message_1(b"p", &initiator(), responder().public(), &e, b"hello", &mut message_1).unwrap();
        let read = read_message_1(b"p", &responder(), &message_1, &mut [0; 5]).unwrap();
        let mut message_2 = vec![0; MESSAGE_2_OVERHEAD + 2];
        write_message_2(&read, &KeyPair::from_secret([4; 32]), &PSK, b"hi", &mut message_2).unwrap();
        (state, message_1, message_2)
    }

    fn read_2(state: &SymmetricState, psk: [u8; 32], message: &[u8]) -> Result<[u8; 2], HandshakeError> {
        let mut payload = [0; 2];
        let e = KeyPair::from_secret([3; 32]);
        read_message_2(state, &initiator(), &e, &psk, message, &mut payload).map(|_| payload)
    }

    #[test]
    fn the_published_vector_comes_out_byte_for_byte_on_both_sides() {
        let vector: Value = serde_json::from_str(include_str!("../../tests/vectors/ikpsk2.json")).unwrap();
        let bytes = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let key = |value: &Value| <[u8; 32]>::try_from(bytes(value)).unwrap();
        let message = |at: usize| {
            let message = &vector["messages"][at];
            (bytes(&message["payload"]), bytes(&message["ciphertext"]))
        };
        assert_eq!(vector["protocol_name"].as_str().unwrap().as_bytes(), PROTOCOL_NAME);
        let prologue = bytes(&vector["init_prologue"]);
        let psk = key(&vector["init_psks"][0]);
        let [init_s, init_e, resp_s, resp_e] =
            ["init_static", "init_ephemeral", "resp_static", "resp_ephemeral"]
                .map(|name| KeyPair::from_secret(key(&vector[name])));
        assert_eq!(*resp_s.public(), key(&vector["init_remote_static"]));

        let (payload, ciphertext) = message(0);
        let mut out = vec![0; payload.len() + MESSAGE_1_OVERHEAD];
        let awaiting =
            write_message_1(&prologue, &init_s, resp_s.public(), &init_e, &payload, &mut out).unwrap();
        assert_eq!(out, ciphertext);
        let mut read = vec![0; payload.len()];
        let message_1 = read_message_1(&prologue, &resp_s, &ciphertext, &mut read).unwrap();
        assert_eq!(read, payload);
        assert_eq!(message_1.rs, *init_s.public());

        let (payload, ciphertext) = message(1);
        let mut out = vec![0; payload.len() + MESSAGE_2_OVERHEAD];
        let responder = write_message_2(&message_1, &resp_e, &psk, &payload, &mut out).unwrap();
        assert_eq!(out, ciphertext);
        let mut read = vec![0; payload.len()];
        let initiator = read_message_2(&awaiting, &init_s, &init_e, &psk, &ciphertext, &mut read).unwrap();
        assert_eq!(read, payload);

        assert_eq!(initiator.handshake_hash(), key(&vector["handshake_hash"]));
        assert_eq!(responder.handshake_hash(), initiator.handshake_hash());
        let keys = initiator.split();
        assert_eq!(responder.split(), keys);
        // Then the initiator speaks first, and each counts its own messages from 0.
        let messages = vector["messages"].as_array().unwrap().len();
        assert_eq!(messages, 6);
        for at in 2..messages {
            let (payload, ciphertext) = message(at);
            let mut text = payload;
            let tag = Pure::from(keys[at % 2].clone()).seal((at as u64 - 2) / 2, &[], &mut text);
            assert_eq!([&text[..], &tag].concat(), ciphertext, "message {at}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused_and_the_real_message_is_taken_afterwards() {
        let (state, message_1, message_2) = handshake();
        for bit in 0..message_1.len() * 8 {
            let mut forged = message_1.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let read = read_message_1(b"p", &responder(), &forged, &mut [0; 5]);
            assert_eq!(read.err(), Some(HandshakeError::Tag), "bit {bit} of message 1");
        }
        for bit in 0..message_2.len() * 8 {
            let mut forged = message_2.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_2(&state, PSK, &forged), Err(HandshakeError::Tag), "bit {bit} of message 2");
        }
        assert_eq!(read_2(&state, PSK, &message_2), Ok(*b"hi"));
    }

    #[test]
    fn another_psk_or_prologue_or_responder_is_refused() {
        let (state, message_1, message_2) = handshake();
        assert_eq!(read_2(&state, [8; 32], &message_2), Err(HandshakeError::Tag));
        let read = |prologue: &[u8], s: &KeyPair| read_message_1(prologue, s, &message_1, &mut [0; 5]).err();
        assert_eq!(read(b"p", &responder()), None);
        assert_eq!(read(b"q", &responder()), Some(HandshakeError::Tag));
        assert_eq!(read(b"p", &KeyPair::from_secret([9; 32])), Some(HandshakeError::Tag));
    }

    /// Key compromise impersonation: whoever stole a responder's key can compute `ss` with anybody's public key, so it
    /// can write a message 1 of anybody. It cannot compute `se`, so it never gets the keys of the session.
    #[test]
    fn who_stole_a_key_begins_as_somebody_else_to_its_owner_and_never_gets_the_keys() {
        let (stolen, victim) = (responder(), initiator());
        let e = KeyPair::from_secret([3; 32]);
        let mut forged = vec![0; MESSAGE_1_OVERHEAD + 5];
        let (e_out, rest) = forged.split_at_mut(DH);
        let (s_out, payload_out) = rest.split_at_mut(DH + size::TAG);
        let mut state = SymmetricState::initialize(b"p", stolen.public());
        e_out.copy_from_slice(e.public());
        state.mix_hash(e.public());
        state.mix_key(e.public());
        state.mix_key(&*e.dh(stolen.public()).unwrap());
        state.encrypt_and_hash(victim.public(), s_out);
        state.mix_key(&*stolen.dh(victim.public()).unwrap());
        state.encrypt_and_hash(b"hello", payload_out);

        let read = read_message_1(b"p", &stolen, &forged, &mut [0; 5]).unwrap();
        assert_eq!(read.rs, *victim.public());
        let mut message_2 = vec![0; MESSAGE_2_OVERHEAD + 2];
        write_message_2(&read, &KeyPair::from_secret([4; 32]), &PSK, b"hi", &mut message_2).unwrap();
        let finish = |s: &KeyPair| read_message_2(&state, s, &e, &PSK, &message_2, &mut [0; 2]).err();
        for known in [&stolen, &e, &KeyPair::from_secret([5; 32])] {
            assert_eq!(finish(known), Some(HandshakeError::Tag));
        }
        assert_eq!(finish(&victim), None);
    }

    #[test]
    fn a_public_key_that_is_none_is_refused_wherever_it_stands() {
        let (state, mut message_1, mut message_2) = handshake();
        let mut out = [0; MESSAGE_1_OVERHEAD];
        assert!(write_message_1(b"p", &initiator(), &[0; 32], &responder(), &[], &mut out).is_none());
        let message = Message1 { state: state.clone(), re: [0; 32], rs: *initiator().public() };
        assert!(write_message_2(&message, &responder(), &PSK, &[], &mut [0; MESSAGE_2_OVERHEAD]).is_none());
        let message = Message1 { state: state.clone(), re: *initiator().public(), rs: [0; 32] };
        assert!(write_message_2(&message, &responder(), &PSK, &[], &mut [0; MESSAGE_2_OVERHEAD]).is_none());

        message_1[..DH].fill(0);
        message_2[..DH].fill(0);
        let read = read_message_1(b"p", &responder(), &message_1, &mut [0; 5]);
        assert_eq!(read.err(), Some(HandshakeError::Key));
        assert_eq!(read_2(&state, PSK, &message_2), Err(HandshakeError::Key));
    }

    #[test]
    fn a_message_that_was_cut_off_is_refused_at_every_length() {
        let (state, message_1, message_2) = handshake();
        for length in 0..message_1.len() {
            assert!(
                read_message_1(b"p", &responder(), &message_1[..length], &mut [0; 5]).is_err(),
                "{length}"
            );
        }
        for length in 0..message_2.len() {
            assert!(read_2(&state, PSK, &message_2[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(0_u8.., 0..200)) {
            let mut payload = vec![0; garbage.len().saturating_sub(MESSAGE_1_OVERHEAD)];
            prop_assert!(read_message_1(b"p", &responder(), &garbage, &mut payload).is_err());
            let (state, _, _) = handshake();
            prop_assert!(read_2(&state, PSK, &garbage).is_err());
        }
    }
}
