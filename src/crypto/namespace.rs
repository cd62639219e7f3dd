//! How the members of a network find each other through a rendezvous server that cannot read who they are
//! (docs/rendezvous.md, 2 and 5).
//!
//! ```text
//! network secret, server's key, day --> namespace secret --> namespace, a public key: all that the server learns
//!                                              \
//!                                    X25519     >  key to the server, key from the server
//!                                              /
//!          server's secret, namespace --------
//! ```
//!
//! What members tell each other there is sealed under keys of the network, so that nobody else reads it, and signed by who
//! says it (`signature.rs`), since a member could seal it in the name of any other one. Both are bound to where it is said.

use std::fmt;
use std::net::SocketAddr;

use crate::crypto::aead;
use crate::crypto::hash::{self, Key};
use crate::crypto::identity::Identity;
use crate::crypto::keypair::KeyPair;
use crate::crypto::network::NetworkKeys;
use crate::crypto::signature::{self, SIGNATURE};
use crate::id::{NodeId, ServerKey};
use crate::wire::packet::size::{NONCE, TAG};
use crate::wire::presence::{INTRODUCTION_MAX, Introduction, PRESENCE_MAX, Presence};
use crate::wire::rendezvous::{Day, Handle, Namespace, Nonce, address_bytes, size};

/// What signing and sealing add.
const SEAL: usize = SIGNATURE + NONCE + TAG;
/// The lengths of a presence blob: a few, so that they tell little. The first has room for four addresses of IPv4.
const BLOBS: [usize; 3] = [192, 256, size::BLOB_MAX];
/// The lengths of an introduction's payload.
const PAYLOADS: [usize; 3] = [224, 288, size::PAYLOAD_MAX];
/// What signatures begin with, so that one never passes for another.
const PRESENCE: &[u8] = b"atonce presence 1";
const INTRODUCTION: &[u8] = b"atonce introduction 1";

const _: () = assert!(PRESENCE_MAX + SEAL <= size::BLOB_MAX && INTRODUCTION_MAX + SEAL <= size::PAYLOAD_MAX);

/// The key pair of a rendezvous server, for life.
#[derive(Clone)]
pub struct ServerSecret(KeyPair);

impl ServerSecret {
    /// The one whose secret key is `secret`: any 32 bytes are one.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(KeyPair::from_secret(secret))
    }

    /// What stands behind `#` in the server's address.
    pub fn public(&self) -> ServerKey {
        ServerKey(*self.0.public())
    }
}

impl fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerSecret({})", self.public())
    }
}

/// What a member and the server know of one namespace, and nobody else.
#[derive(Clone)]
pub struct NamespaceKeys {
    namespace: Namespace,
    up: Key,
    down: Key,
}

impl NamespaceKeys {
    /// As a member of `network` knows them; none if the server's key is no honest one.
    pub fn of_day(network: &NetworkKeys, server: &ServerKey, day: Day) -> Option<Self> {
        let label = [&server.as_bytes()[..], &day.0.to_le_bytes()].concat();
        let pair = KeyPair::from_secret(*hash::derive(network.namespace(), &label));
        Some(Self::new(&pair.dh(server.as_bytes())?, Namespace(*pair.public()), server))
    }

    /// As the server knows them; none if there can be no such namespace.
    pub fn of_server(secret: &ServerSecret, namespace: &Namespace) -> Option<Self> {
        Some(Self::new(&secret.0.dh(&namespace.0)?, *namespace, &secret.public()))
    }

    fn new(shared: &Key, namespace: Namespace, server: &ServerKey) -> Self {
        let of = |label: &[u8]| hash::derive(shared, &[label, &namespace.0, server.as_bytes()].concat());
        Self { namespace, up: of(b"atonce rendezvous 1 up"), down: of(b"atonce rendezvous 1 down") }
    }

    /// What the server calls it.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Appends the mac of a register that the server will see coming from `source`.
    pub fn finish_register(&self, source: SocketAddr, register: &mut Vec<u8>) {
        let mac = hash::mac(&*self.up, &[register, &address_bytes(source)]);
        register.extend_from_slice(&mac.bytes());
    }

    /// Whether a register from `source` comes from a member.
    pub fn check_register(&self, source: SocketAddr, datagram: &[u8]) -> bool {
        let Some((body, mac)) = datagram.split_last_chunk::<{ size::MAC }>() else { return false };
        hash::verify(&*self.up, &[body, &address_bytes(source)], mac)
    }

    /// Appends the mac of a message of the server.
    pub fn finish(&self, message: &mut Vec<u8>) {
        let mac = hash::mac(&*self.down, &[message]);
        message.extend_from_slice(&mac.bytes());
    }

    /// Whether a message comes from the server.
    pub fn check(&self, datagram: &[u8]) -> bool {
        let Some((body, mac)) = datagram.split_last_chunk::<{ size::MAC }>() else { return false };
        hash::verify(&*self.down, &[body], mac)
    }
}

impl fmt::Debug for NamespaceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NamespaceKeys({:?})", self.namespace.tag())
    }
}

/// Who introduces itself to whom, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Where.
    pub namespace: Namespace,
    /// Who.
    pub from: Handle,
    /// To whom.
    pub target: Handle,
    /// Of the intro.
    pub nonce: Nonce,
}

impl Meeting {
    fn ad(&self) -> Vec<u8> {
        [&self.namespace.0[..], &self.from.0, &self.target.0, &self.nonce.0].concat()
    }
}

impl NetworkKeys {
    /// The blob of the member `handle` with its register `seq`, in the name of `identity`; `nonce` is fresh random bytes.
    pub fn seal_presence(
        &self,
        identity: &Identity,
        presence: &Presence,
        namespace: &Namespace,
        handle: Handle,
        seq: u32,
        nonce: [u8; NONCE],
    ) -> Vec<u8> {
        let place = Said { key: self.presence(), label: PRESENCE, ad: presence_ad(namespace, handle, seq) };
        place.seal(identity, presence.to_bytes(), nonce, &BLOBS)
    }

    /// What a member says of itself, if it is one of ours and nobody else says it.
    pub fn open_presence(
        &self,
        blob: &[u8],
        namespace: &Namespace,
        handle: Handle,
        seq: u32,
    ) -> Option<Presence> {
        let place = Said { key: self.presence(), label: PRESENCE, ad: presence_ad(namespace, handle, seq) };
        place.open(blob, size::BLOB_MAX, |text| Presence::parse(text).map(|said| (said.id, said)))
    }

    /// The payload of an intro, in the name of `identity`; `nonce` is fresh random bytes.
    pub fn seal_introduction(
        &self,
        identity: &Identity,
        introduction: &Introduction,
        meeting: &Meeting,
        nonce: [u8; NONCE],
    ) -> Vec<u8> {
        let place = Said { key: self.intro(), label: INTRODUCTION, ad: meeting.ad() };
        place.seal(identity, introduction.to_bytes(), nonce, &PAYLOADS)
    }

    /// What a knock says, if the member of ours sent it that it names.
    pub fn open_introduction(&self, payload: &[u8], meeting: &Meeting) -> Option<Introduction> {
        let place = Said { key: self.intro(), label: INTRODUCTION, ad: meeting.ad() };
        place.open(payload, size::PAYLOAD_MAX, |text| Introduction::parse(text).map(|said| (said.id, said)))
    }
}

fn presence_ad(namespace: &Namespace, handle: Handle, seq: u32) -> Vec<u8> {
    [&namespace.0[..], &handle.0, &seq.to_le_bytes()].concat()
}

/// What is said, and where: under which key it is sealed, and what the signature and the seal are bound to.
struct Said<'a> {
    key: &'a Key,
    label: &'static [u8],
    ad: Vec<u8>,
}

impl Said<'_> {
    /// The signature and the text, padded with zeros so that it has one of the `lengths` when it is sealed.
    fn seal(&self, identity: &Identity, mut text: Vec<u8>, nonce: [u8; NONCE], lengths: &[usize]) -> Vec<u8> {
        let length = lengths.iter().find(|length| text.len() + SEAL <= **length);
        text.resize(length.map_or(text.len(), |length| length - SEAL), 0);
        let signature = signature::sign(identity.key_pair(), &[self.label, &self.ad, &text]);
        let signed = [&signature[..], &text].concat();
        let mut sealed = vec![0; text.len() + SEAL];
        let (nonce_out, out) = sealed.split_at_mut(NONCE);
        nonce_out.copy_from_slice(&nonce);
        aead::seal_blob(self.key, &nonce, &self.ad, &signed, out);
        sealed
    }

    /// What `parse` reads, if the one signed it who it says that it is.
    fn open<T>(&self, sealed: &[u8], max: usize, parse: impl Fn(&[u8]) -> Option<(NodeId, T)>) -> Option<T> {
        let (nonce, sealed) = sealed.split_first_chunk().filter(|_| sealed.len() <= max)?;
        let signed = aead::open_blob_vec(self.key, nonce, &self.ad, sealed)?;
        let (signature, text) = signed.split_first_chunk()?;
        let (id, said) = parse(text)?;
        signature::verify(&id.0, &[self.label, &self.ad, text], signature).then_some(said)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::crypto::network::NetworkSecret;
    use crate::wire::presence::tests::{introduction, presence};
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    const HANDLE: Handle = Handle([3; 16]);

    fn network(seed: u8) -> NetworkKeys {
        NetworkKeys::private(&NetworkSecret::generate(&mut ChaCha20Rng::from_seed([seed; 32])))
    }

    fn identity(n: u8) -> Identity {
        Identity::from_secret([n; 32])
    }

    fn server() -> ServerSecret {
        ServerSecret::new([5; 32])
    }

    fn member() -> NamespaceKeys {
        NamespaceKeys::of_day(&network(1), &server().public(), Day(20_000)).unwrap()
    }

    fn source() -> SocketAddr {
        ([192, 0, 2, 7], 28282).into()
    }

    #[test]
    fn both_sides_have_the_same_keys_and_another_day_server_or_network_has_others() {
        let member = member();
        let server_side = NamespaceKeys::of_server(&server(), member.namespace()).unwrap();
        assert_eq!((&member.up, &member.down), (&server_side.up, &server_side.down));
        assert_ne!(member.up, member.down);
        let others = [
            NamespaceKeys::of_day(&network(1), &server().public(), Day(20_001)),
            NamespaceKeys::of_day(&network(1), &ServerSecret::new([6; 32]).public(), Day(20_000)),
            NamespaceKeys::of_day(&network(2), &server().public(), Day(20_000)),
        ];
        for other in others.map(Option::unwrap) {
            assert_ne!(other.namespace(), member.namespace());
            assert_ne!(other.up, member.up);
        }
    }

    // What Python's hashlib and an X25519 of RFC 7748's own pseudocode say.
    #[test]
    fn the_namespace_of_the_open_network_s_keys_is_the_one_of_the_specification() {
        let keys = NamespaceKeys::of_day(&NetworkKeys::open(), &server().public(), Day(20_000)).unwrap();
        assert_eq!(HEXLOWER.encode(&keys.namespace().0), NAMESPACE);
        assert_eq!(HEXLOWER.encode(&*keys.up), UP);
        assert_eq!(HEXLOWER.encode(&*keys.down), DOWN);
    }
    const NAMESPACE: &str = "25379dd3f71c4c377a29734203ccef673c04c655a32de9c8c3df95c565141638";
    const UP: &str = "b5d1a4548c02e7e294b724cbdb491fcf2fa3a3e94b30ac201a77f588b14df6be";
    const DOWN: &str = "02055b17ae5d69a0edfa14a02685635b3e7d34105e0c12ff94432152069b0a26";

    #[test]
    fn a_key_of_small_order_is_refused_on_both_sides() {
        assert!(NamespaceKeys::of_server(&server(), &Namespace([0; 32])).is_none());
        assert!(NamespaceKeys::of_day(&network(1), &ServerKey([0; 32]), Day(1)).is_none());
    }

    #[test]
    fn a_register_counts_from_its_own_address_only_and_unchanged() {
        let mut register = b"a register".to_vec();
        member().finish_register(source(), &mut register);
        let server_side = NamespaceKeys::of_server(&server(), member().namespace()).unwrap();
        assert!(server_side.check_register(source(), &register));
        assert!(!server_side.check_register(([192, 0, 2, 7], 28283).into(), &register));
        assert!(!server_side.check_register(([192, 0, 2, 8], 28282).into(), &register));
        assert!(!server_side.check(&register));
        for bit in 0..register.len() * 8 {
            let mut changed = register.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!server_side.check_register(source(), &changed), "{bit}");
        }
        assert!(!server_side.check_register(source(), &[]));
    }

    #[test]
    fn a_message_of_the_server_verifies_for_members_only() {
        let server_side = NamespaceKeys::of_server(&server(), member().namespace()).unwrap();
        let mut message = b"a message".to_vec();
        server_side.finish(&mut message);
        assert!(member().check(&message));
        let other = NamespaceKeys::of_day(&network(2), &server().public(), Day(20_000)).unwrap();
        assert!(!other.check(&message) && !member().check(&message[1..]) && !member().check(&[]));
    }

    #[test]
    fn a_presence_opens_for_members_in_its_own_place_and_has_one_of_three_lengths() {
        let (keys, namespace) = (network(1), *member().namespace());
        for candidates in 0..=8 {
            let (one, other) = (identity(7), identity(8));
            let presence = Presence { id: one.id(), ..presence(candidates) };
            let blob = keys.seal_presence(&one, &presence, &namespace, HANDLE, 7, [9; NONCE]);
            assert!(BLOBS.contains(&blob.len()), "{}", blob.len());
            assert_eq!(keys.open_presence(&blob, &namespace, HANDLE, 7), Some(presence.clone()));
            assert_eq!(keys.open_presence(&blob, &namespace, HANDLE, 8), None);
            assert_eq!(keys.open_presence(&blob, &namespace, Handle([4; 16]), 7), None);
            assert_eq!(keys.open_presence(&blob, &Namespace([1; 32]), HANDLE, 7), None);
            assert_eq!(network(2).open_presence(&blob, &namespace, HANDLE, 7), None);
            let lie = keys.seal_presence(&other, &presence, &namespace, HANDLE, 7, [9; NONCE]);
            assert_eq!(keys.open_presence(&lie, &namespace, HANDLE, 7), None);
            for end in 0..blob.len() {
                assert_eq!(keys.open_presence(&blob[..end], &namespace, HANDLE, 7), None);
            }
        }
    }

    #[test]
    fn an_introduction_opens_for_its_own_meeting_only() {
        let keys = network(1);
        let (namespace, target, nonce) = (*member().namespace(), Handle([4; 16]), Nonce([1; 8]));
        let meeting = Meeting { namespace, from: HANDLE, target, nonce };
        for candidates in 0..=8 {
            let (one, other) = (identity(7), identity(8));
            let introduction = Introduction { id: one.id(), ..introduction(candidates) };
            let payload = keys.seal_introduction(&one, &introduction, &meeting, [9; NONCE]);
            assert!(PAYLOADS.contains(&payload.len()), "{}", payload.len());
            assert_eq!(keys.open_introduction(&payload, &meeting), Some(introduction.clone()));
            for other in [
                Meeting { from: target, target: HANDLE, ..meeting },
                Meeting { nonce: Nonce([2; 8]), ..meeting },
                Meeting { namespace: Namespace([1; 32]), ..meeting },
            ] {
                assert_eq!(keys.open_introduction(&payload, &other), None);
            }
            assert_eq!(network(2).open_introduction(&payload, &meeting), None);
            let lie = keys.seal_introduction(&other, &introduction, &meeting, [9; NONCE]);
            assert_eq!(keys.open_introduction(&lie, &meeting), None);
        }
    }

    #[test]
    fn nothing_prints_a_key() {
        assert!(format!("{:?}", server()).len() < 80);
        assert!(format!("{:?}", member()).len() < 100);
    }
}
