//! The network: what all its members know, and what they tell each other apart from strangers with.
//!
//! One secret of 32 bytes, `K_net`; everything else is derived from it, one key for each use, so that nothing
//! made for one use can be passed off as made for another (protocol.md, 1.1):
//!
//! ```text
//! key of a use          = BLAKE2s-256(key: K_net, "atonce 1 " || use)
//! key of mac1, cookies  = BLAKE2s-256(key: key of the use, id of who receives the handshake)
//! ```
//!
//! The open network has a `K_net` that is written below for all to read: the same code, and no secret.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::crypto::aead;
use crate::crypto::hash::{self, Key};
use crate::id::NodeId;
use crate::limits;
use crate::pasted;
use crate::wire::packet::{Kind, field, size};
use crate::wire::rendezvous::BadServer;
use crate::wire::txt::SEALED_BYTES;

/// `K_net` of the open network.
const OPEN: &[u8; 32] = b"atonce open network known to all";
/// What the line of a network secret begins with.
pub(crate) const PREFIX: &str = "atonce-secret-";
/// Characters of base32 that 32 bytes take.
const CHARACTERS: usize = 52;

/// The secret that makes a private network: whoever has it is a member.
#[derive(Clone)]
pub struct NetworkSecret(Key);

impl NetworkSecret {
    /// A new one.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Key::default();
        rng.fill_bytes(&mut *secret);
        Self(secret)
    }

    /// The line that people copy: `atonce-secret-` and 52 characters, without a newline.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut characters = Zeroizing::new([0; CHARACTERS]);
        BASE32_NOPAD.encode_mut(&*self.0, &mut *characters);
        let mut line = Zeroizing::new(String::with_capacity(PREFIX.len() + CHARACTERS));
        line.push_str(PREFIX);
        line.extend(characters.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        line
    }
}

impl FromStr for NetworkSecret {
    type Err = BadSecret;

    /// Reads the line, in either case and however white space was wrapped into it.
    fn from_str(text: &str) -> Result<Self, BadSecret> {
        // As long as the text from the start: growing would leave a copy behind that is not wiped.
        let mut line = Zeroizing::new(String::with_capacity(text.len()));
        line.extend(pasted::squeezed(text).map(|char| char.to_ascii_uppercase()));
        if line.is_empty() {
            return Err(BadSecret::Empty);
        }
        let characters = match line.split_at_checked(PREFIX.len()) {
            Some((prefix, characters)) if prefix.eq_ignore_ascii_case(PREFIX) => characters,
            _ => return Err(BadSecret::Prefix),
        };
        let count = characters.chars().count();
        if count != CHARACTERS {
            return Err(BadSecret::Length(count));
        }
        if !characters.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7')) {
            return Err(BadSecret::Characters);
        }
        let mut secret = Key::default();
        if BASE32_NOPAD.decode_mut(characters.as_bytes(), &mut *secret).is_err() {
            return Err(BadSecret::Mistyped);
        }
        Ok(Self(secret))
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(..)")
    }
}

/// Why a text is no network secret. It never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadSecret {
    /// Nothing but white space.
    #[error("there is no network secret here: give the line that `atonce network create` printed")]
    Empty,
    /// Something else.
    #[error(
        "a network secret begins with `atonce-secret-`, an invitation with `atonce-invite-`: copy the whole line"
    )]
    Prefix,
    /// Cut off, or more than one line.
    #[error(
        "a network secret has 52 characters after `atonce-secret-`, not {0}: copy the whole line, and only it"
    )]
    Length(usize),
    /// An invitation that is not as it was made.
    #[error(
        "this invitation was cut or changed on its way: copy the whole line of `atonce invite`, to its last character"
    )]
    Damaged,
    /// Three or more.
    #[error("there are more than two network secrets here: the one to use, and the one of before")]
    Many,
    /// What stands behind `@`.
    #[error("a rendezvous server in this invitation is wrong: {0}")]
    Server(BadServer),
    /// More than [`limits::RENDEZVOUS_SERVERS`] of them.
    #[error("there are more than {} rendezvous servers in this invitation", limits::RENDEZVOUS_SERVERS)]
    TooManyServers,
    /// All characters are of the alphabet, and together they are none.
    #[error("this network secret was mistyped or cut on its way: copy the whole line again")]
    Mistyped,
    /// Misread or mistyped.
    #[error("a network secret has the characters a-z and 2-7, and one here is wrong: copy the line again")]
    Characters,
}

/// Whether a network has a secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkKind {
    /// No secret: everybody on the LAN is a member, and keys are trusted on first use.
    Open,
    /// One shared secret.
    Private,
}

impl NetworkKind {
    /// Its name, for people and programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Private => "private",
        }
    }
}

/// What tells one network from another inside a node; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkTag([u8; 5]);

/// Every key that the members of a network share.
#[derive(Clone)]
pub struct NetworkKeys {
    kind: NetworkKind,
    fingerprint: [u8; 5],
    psk: Key,
    mac1: Key,
    cookie: Key,
    advert: Key,
    hello: Key,
    whois: Key,
    here_is: Key,
    namespace: Key,
    presence: Key,
    intro: Key,
}

impl NetworkKeys {
    /// The keys of the open network.
    pub fn open() -> Self {
        Self::derive(NetworkKind::Open, OPEN)
    }

    /// The keys of the network whose secret is `secret`.
    pub fn private(secret: &NetworkSecret) -> Self {
        Self::derive(NetworkKind::Private, &secret.0)
    }

    fn derive(kind: NetworkKind, k_net: &[u8; 32]) -> Self {
        let of = |label: &[u8]| hash::derive(k_net, label);
        let [a, b, c, d, e, ..] = *of(b"atonce 1 fingerprint");
        Self {
            kind,
            fingerprint: [a, b, c, d, e],
            psk: of(b"atonce 1 psk"),
            mac1: of(b"atonce 1 mac1"),
            cookie: of(b"atonce 1 cookie"),
            advert: of(b"atonce 1 advert"),
            hello: of(b"atonce 1 hello"),
            whois: of(b"atonce 1 whois"),
            here_is: of(b"atonce 1 here-is"),
            namespace: of(b"atonce 1 namespace"),
            presence: of(b"atonce 1 presence"),
            intro: of(b"atonce 1 intro"),
        }
    }

    /// Whether the network has a secret.
    pub fn kind(&self) -> NetworkKind {
        self.kind
    }

    /// What tells it from other networks.
    pub const fn tag(&self) -> NetworkTag {
        NetworkTag(self.fingerprint)
    }

    /// 8 characters by which people see that two nodes are in the same network. It gives no help in finding
    /// the secret.
    pub fn fingerprint(&self) -> String {
        let mut text = BASE32_NOPAD.encode(&self.fingerprint);
        text.make_ascii_lowercase();
        text
    }

    /// The pre-shared key of handshakes.
    pub(crate) fn psk(&self) -> &[u8; 32] {
        &self.psk
    }

    /// What mac1 of a handshake packet for `receiver` is keyed by.
    pub(crate) fn mac1_key(&self, receiver: &NodeId) -> Key {
        hash::derive(&self.mac1, receiver.as_bytes())
    }

    /// What the cookies of `responder` are sealed under.
    pub(crate) fn cookie_key(&self, responder: &NodeId) -> Key {
        hash::derive(&self.cookie, responder.as_bytes())
    }

    /// What the namespaces at rendezvous servers are derived from.
    pub(crate) const fn namespace(&self) -> &Key {
        &self.namespace
    }

    /// What presence blobs are sealed under.
    pub(crate) const fn presence(&self) -> &Key {
        &self.presence
    }

    /// What introductions are sealed under.
    pub(crate) const fn intro(&self) -> &Key {
        &self.intro
    }

    /// What an advert with `label` and `port` says of who sent it; `nonce` is fresh random bytes.
    pub fn seal_txt(
        &self,
        id: &NodeId,
        nonce: [u8; size::NONCE],
        label: &str,
        port: u16,
    ) -> [u8; SEALED_BYTES] {
        let mut sealed = [0; SEALED_BYTES];
        let (nonce_out, id_out) = sealed.split_at_mut(size::NONCE);
        nonce_out.copy_from_slice(&nonce);
        aead::seal_blob(&self.advert, &nonce, &txt_ad(label, port), id.as_bytes(), id_out);
        sealed
    }

    /// Who sent the advert with `label` and `port`, if it is a member.
    pub fn open_txt(&self, sealed: &[u8; SEALED_BYTES], label: &str, port: u16) -> Option<NodeId> {
        let (nonce, sealed_id) = sealed.split_first_chunk()?;
        aead::open_blob(&self.advert, nonce, &txt_ad(label, port), sealed_id).map(NodeId)
    }

    /// "I am here, at this port"; `nonce` is fresh random bytes.
    pub fn seal_hello(&self, id: &NodeId, nonce: [u8; size::NONCE], port: u16) -> [u8; size::HELLO] {
        let mut packet = [0; size::HELLO];
        packet[0] = Kind::Hello as u8;
        packet[field::HELLO_PORT].copy_from_slice(&port.to_le_bytes());
        seal_id(&self.hello, id, nonce, &[], &mut packet);
        packet
    }

    /// Which member says that it is here, and at which port.
    pub fn open_hello(&self, packet: &[u8; size::HELLO]) -> Option<(NodeId, u16)> {
        let id = open_id(&self.hello, &[], packet)?;
        Some((id, u16::from_le_bytes(packet[field::HELLO_PORT].try_into().ok()?)))
    }

    /// "Who are you?"; `nonce` is fresh random bytes, to be kept for [`NetworkKeys::open_here_is`].
    pub fn ask_whois(&self, nonce: [u8; size::NONCE]) -> [u8; size::WHOIS] {
        let mut packet = [0; size::WHOIS];
        packet[0] = Kind::Whois as u8;
        packet[field::NONCE].copy_from_slice(&nonce);
        let (body, mac) = packet.split_at_mut(field::WHOIS_MAC.start);
        mac.copy_from_slice(&hash::mac(&*self.whois, &[body]).bytes());
        packet
    }

    /// The nonce of the question, if a member asks.
    pub fn check_whois(&self, packet: &[u8; size::WHOIS]) -> Option<[u8; size::NONCE]> {
        let (body, mac) = packet.split_at(field::WHOIS_MAC.start);
        let asked = hash::verify(&*self.whois, &[body], mac);
        asked.then(|| packet[field::NONCE].try_into().ok()).flatten()
    }

    /// The answer of `id` to the question with `question_nonce`; `nonce` is fresh random bytes.
    pub fn answer_whois(
        &self,
        question_nonce: &[u8; size::NONCE],
        id: &NodeId,
        nonce: [u8; size::NONCE],
    ) -> [u8; size::HERE_IS] {
        let mut packet = [0; size::HERE_IS];
        packet[0] = Kind::HereIs as u8;
        seal_id(&self.here_is, id, nonce, question_nonce, &mut packet);
        packet
    }

    /// Who answers our question with `question_nonce`, if it is a member.
    pub fn open_here_is(
        &self,
        packet: &[u8; size::HERE_IS],
        question_nonce: &[u8; size::NONCE],
    ) -> Option<NodeId> {
        open_id(&self.here_is, question_nonce, packet)
    }
}

impl fmt::Debug for NetworkKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKeys({} {})", self.kind.as_str(), self.fingerprint())
    }
}

/// The associated data of an advert: its label, which may have any length, and its port, which has two bytes.
fn txt_ad(label: &str, port: u16) -> Vec<u8> {
    [label.as_bytes(), &port.to_le_bytes()].concat()
}

/// The associated data of a hello or here-is: its first four bytes, and the nonce of the question if there is
/// one.
fn id_ad(packet: &[u8], question_nonce: &[u8]) -> Vec<u8> {
    [&packet[..field::NONCE.start], question_nonce].concat()
}

/// Fills in the nonce and the sealed id of a hello or here-is.
fn seal_id(key: &Key, id: &NodeId, nonce: [u8; size::NONCE], question_nonce: &[u8], packet: &mut [u8]) {
    packet[field::NONCE].copy_from_slice(&nonce);
    let ad = id_ad(packet, question_nonce);
    aead::seal_blob(key, &nonce, &ad, id.as_bytes(), &mut packet[field::SEALED_ID]);
}

fn open_id(key: &Key, question_nonce: &[u8], packet: &[u8]) -> Option<NodeId> {
    let nonce = packet[field::NONCE].try_into().ok()?;
    aead::open_blob(key, nonce, &id_ad(packet, question_nonce), &packet[field::SEALED_ID]).map(NodeId)
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    use super::*;

    const ID: NodeId = NodeId([7; 32]);
    const NONCE: [u8; size::NONCE] = [9; size::NONCE];
    const QUESTION: [u8; size::NONCE] = [8; size::NONCE];

    fn secret() -> NetworkSecret {
        NetworkSecret::generate(&mut ChaCha20Rng::from_seed([1; 32]))
    }

    fn keys() -> NetworkKeys {
        NetworkKeys::private(&secret())
    }

    /// Every copy of `packet` with one bit changed.
    fn altered<const N: usize>(packet: [u8; N]) -> impl Iterator<Item = [u8; N]> {
        (0..N * 8).map(move |bit| {
            let mut altered = packet;
            altered[bit / 8] ^= 1 << (bit % 8);
            altered
        })
    }

    #[test]
    fn a_secret_reads_back_from_its_line_however_that_was_wrapped() {
        let line = secret().to_line();
        assert_eq!(line.len(), 66);
        assert!(line.starts_with("atonce-secret-"));
        let spaced: String = line.chars().flat_map(|char| [char, '\u{a0}', '\n', '\u{200b}']).collect();
        let around = [("  ", "\r\n"), ("\u{feff}", "\r\n"), ("\"", "\""), ("“", "”\n")];
        let around = around.map(|(before, behind)| format!("{before}{}{behind}", *line));
        for text in [line.to_string(), line.to_uppercase(), spaced].iter().chain(&around) {
            let read: NetworkSecret = text.parse().unwrap();
            assert_eq!(read.0, secret().0);
            assert_eq!(read.to_line(), line);
        }
        let other = NetworkSecret::generate(&mut ChaCha20Rng::from_seed([2; 32]));
        assert_ne!(other.to_line(), line);
    }

    #[test]
    fn a_text_that_is_no_secret_is_refused_for_its_reason_and_never_repeated() {
        let line = secret().to_line();
        let read = |text: &str| text.parse::<NetworkSecret>().err();
        assert_eq!(read(" \n"), Some(BadSecret::Empty));
        assert_eq!(read(&line[14..]), Some(BadSecret::Prefix));
        assert_eq!(read("atonce-secre"), Some(BadSecret::Prefix));
        assert_eq!(read("ätonce-secret"), Some(BadSecret::Prefix));
        assert_eq!(read("atonce-secret-"), Some(BadSecret::Length(0)));
        assert_eq!(read(&line[..65]), Some(BadSecret::Length(51)));
        assert_eq!(read(&format!("{0}\n{0}", *line)), Some(BadSecret::Length(118)));
        assert_eq!(read(&line.replace(|char: char| char.is_ascii_digit(), "1")), Some(BadSecret::Characters));
        assert_eq!(read(&format!("{}é", &line[..65])), Some(BadSecret::Characters));
        // 52 characters have room for four bits more than 32 bytes: those are zero.
        assert_eq!(read(&format!("atonce-secret-{}b", "a".repeat(51))), Some(BadSecret::Mistyped));
        assert_eq!(read(&format!("atonce-secret-{}q", "a".repeat(51))), None);

        let reason = read(&line[..65]).unwrap().to_string();
        assert!(reason.contains("51") && !reason.contains(&line[14..20]), "{reason}");
        assert_eq!(format!("{:?}", secret()), "NetworkSecret(..)");
    }

    // What Python's hashlib.blake2s says of the derivation that stands in the module's head.
    #[test]
    fn the_keys_are_those_of_the_published_derivation() {
        let open = NetworkKeys::open();
        assert_eq!(open.fingerprint(), "btuv6spy");
        assert_eq!(
            HEXLOWER.encode(open.psk()),
            "8a7caf2c34822f1e244a31bd82ea8703eeafe996efe12c25fcbeb5b5dd9ce070"
        );
        assert_eq!(
            HEXLOWER.encode(&*open.mac1_key(&ID)),
            "4478e93368412b93b4ffaaed30953b1b9d0658b9cb6a6f149ab3c732026ef6a3"
        );
        assert_eq!(
            HEXLOWER.encode(&*open.cookie_key(&ID)),
            "64946787c882ff874df8ecc446fa4640739a8f4369214b80de90314d48c16311"
        );
        assert_eq!(
            HEXLOWER.encode(&open.ask_whois(NONCE)[field::WHOIS_MAC]),
            "087101670016720c39194b36df555890"
        );
    }

    #[test]
    fn no_two_keys_of_a_network_and_none_of_two_networks_are_alike() {
        let mut all = Vec::new();
        for keys in [keys(), NetworkKeys::open()] {
            let NetworkKeys { psk, mac1, cookie, advert, hello, whois, here_is, .. } = &keys;
            all.extend([psk, mac1, cookie, advert, hello, whois, here_is].map(|key| **key));
            all.extend([&keys.namespace, &keys.presence, &keys.intro].map(|key| **key));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20);
    }

    #[test]
    fn people_see_the_kind_and_the_fingerprint_and_no_key() {
        let keys = keys();
        assert_eq!(keys.kind(), NetworkKind::Private);
        assert_eq!(NetworkKeys::open().kind(), NetworkKind::Open);
        assert_eq!(keys.fingerprint().len(), 8);
        assert_ne!(keys.fingerprint(), NetworkKeys::open().fingerprint());
        assert_eq!(format!("{keys:?}"), format!("NetworkKeys(private {})", keys.fingerprint()));
    }

    #[test]
    fn an_advert_opens_for_members_under_its_own_label_and_port_only() {
        let sealed = keys().seal_txt(&ID, NONCE, "x7", 28282);
        assert_eq!(keys().open_txt(&sealed, "x7", 28282), Some(ID));
        assert_eq!(NetworkKeys::open().open_txt(&sealed, "x7", 28282), None);
        assert_eq!(keys().open_txt(&sealed, "x8", 28282), None);
        assert_eq!(keys().open_txt(&sealed, "x7", 28283), None);
        // No byte passes from the label to the port.
        assert_eq!(keys().open_txt(&keys().seal_txt(&ID, NONCE, "ab", 0x0063), "abc", 0), None);
        assert!(altered(sealed).all(|sealed| keys().open_txt(&sealed, "x7", 28282).is_none()));
        assert!(!sealed.windows(4).any(|window| window == &ID.as_bytes()[..4]));
    }

    #[test]
    fn a_hello_says_who_and_where_to_members_only() {
        let packet = keys().seal_hello(&ID, NONCE, 28282);
        assert_eq!(packet[..4], [5, 0, 0x7a, 0x6e]);
        assert_eq!(keys().open_hello(&packet), Some((ID, 28282)));
        assert_eq!(NetworkKeys::open().open_hello(&packet), None);
        assert!(altered(packet).all(|packet| keys().open_hello(&packet).is_none()));
    }

    #[test]
    fn a_question_is_known_by_members_only() {
        let packet = keys().ask_whois(QUESTION);
        assert_eq!(keys().check_whois(&packet), Some(QUESTION));
        assert_eq!(NetworkKeys::open().check_whois(&packet), None);
        assert!(altered(packet).all(|packet| keys().check_whois(&packet).is_none()));
    }

    #[test]
    fn an_answer_opens_for_its_own_question_only() {
        let packet = keys().answer_whois(&QUESTION, &ID, NONCE);
        assert_eq!(packet[..4], [7, 0, 0, 0]);
        assert_eq!(keys().open_here_is(&packet, &QUESTION), Some(ID));
        assert_eq!(keys().open_here_is(&packet, &NONCE), None);
        assert_eq!(NetworkKeys::open().open_here_is(&packet, &QUESTION), None);
        assert!(altered(packet).all(|packet| keys().open_here_is(&packet, &QUESTION).is_none()));
    }

    #[test]
    fn a_hello_cannot_pass_for_an_answer_nor_an_answer_for_a_hello() {
        let mut packet = keys().seal_hello(&ID, NONCE, 0);
        packet[0] = Kind::HereIs as u8;
        assert_eq!(keys().open_here_is(&packet, &QUESTION), None);
        let mut packet = keys().answer_whois(&QUESTION, &ID, NONCE);
        packet[0] = Kind::Hello as u8;
        assert_eq!(keys().open_hello(&packet), None);
    }

    proptest! {
        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(0_u8.., size::HELLO), text: String) {
            let packet: [u8; size::HELLO] = garbage.try_into().unwrap();
            prop_assert_eq!(keys().open_hello(&packet), None);
            prop_assert_eq!(keys().check_whois(&packet), None);
            prop_assert_eq!(keys().open_here_is(&packet, &QUESTION), None);
            prop_assert_eq!(keys().open_txt(packet.first_chunk().unwrap(), "x7", 28282), None);
            prop_assert!(text.parse::<NetworkSecret>().is_err());
            let prefixed = format!("atonce-secret-{text}");
            prop_assert!(prefixed.parse::<NetworkSecret>().is_err());
        }
    }
}
