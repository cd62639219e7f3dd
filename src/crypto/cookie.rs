//! Cookies: under load, whoever wants a handshake first proves that it receives at the address it sends from.
//!
//! ```text
//! initiation, mac2 zero        -->
//!                              <--  cookie packet: a keyed hash of the source address, sealed
//! initiation, mac2 = MAC(cookie) -->
//! ```
//!
//! The server keeps nothing but two secrets. The cookie is sealed under a key that members of the network
//! have, and bound to the mac1 of the initiation that it answers, so that nobody else can plant a false one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

use crate::crypto::aead;
use crate::crypto::hash::{self, Key};
use crate::crypto::network::NetworkKeys;
use crate::id::NodeId;
use crate::wire::packet::{Kind, field, size};

/// The side under load: makes cookies, and knows its own again.
pub struct CookieJar {
    secret: Key,
    previous: Option<Key>,
}

impl CookieJar {
    /// A jar whose cookies come from `secret`, 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret: Key::new(secret), previous: None }
    }

    /// Makes cookies from another secret from now on; those of the one before are taken until the next time.
    pub fn rotate(&mut self, secret: [u8; 32]) {
        self.previous = Some(std::mem::replace(&mut self.secret, Key::new(secret)));
    }

    /// The cookie for whoever sends from `source`.
    pub fn cookie_for(&self, source: &SocketAddr) -> [u8; size::MAC] {
        cookie(&self.secret, source)
    }

    /// Whether the mac2 of `packet`, an initiation or a response from `source`, is keyed by a cookie of ours.
    pub fn check_mac2(&self, source: &SocketAddr, packet: &[u8]) -> bool {
        let Some((body, mac2)) = packet.split_last_chunk::<{ size::MAC }>() else { return false };
        let secrets = std::iter::once(&self.secret).chain(&self.previous);
        secrets.map(|secret| cookie(secret, source)).any(|cookie| hash::verify(&cookie, &[body], mac2))
    }

    /// The answer of the node `own` to `initiation`, which came from `source` and passed
    /// [`check_mac1`](crate::crypto::handshake::check_mac1). `nonce` is fresh random bytes.
    pub fn reply(
        &self,
        network: &NetworkKeys,
        own: &NodeId,
        initiation: &[u8; size::INITIATION],
        source: &SocketAddr,
        nonce: [u8; size::NONCE],
    ) -> [u8; size::COOKIE] {
        let cookie = Zeroizing::new(self.cookie_for(source));
        let mut packet = [0; size::COOKIE];
        packet[0] = Kind::Cookie as u8;
        packet[field::RECEIVER].copy_from_slice(&initiation[field::SENDER]);
        packet[field::NONCE].copy_from_slice(&nonce);
        let mac1 = &initiation[field::INITIATION_MAC1];
        aead::seal_blob(&network.cookie_key(own), &nonce, mac1, &*cookie, &mut packet[field::COOKIE]);
        packet
    }
}

impl fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieJar").finish_non_exhaustive()
    }
}

/// The cookie in a packet that answers our initiation to `responder`, whose mac1 was `sent_mac1`.
pub fn open_cookie(
    network: &NetworkKeys,
    responder: &NodeId,
    packet: &[u8; size::COOKIE],
    sent_mac1: &[u8; size::MAC],
) -> Option<[u8; size::MAC]> {
    let nonce = packet[field::NONCE].try_into().ok()?;
    aead::open_blob(&network.cookie_key(responder), nonce, sent_mac1, &packet[field::COOKIE])
}

/// The same for both ways in which a socket may write one IPv4 address. The interface of a link-local address
/// does not count: what is proved is receiving, and an answer goes to where the question came from.
fn cookie(secret: &Key, source: &SocketAddr) -> [u8; size::MAC] {
    let port = source.port().to_le_bytes();
    match source.ip().to_canonical() {
        IpAddr::V4(ip) => hash::mac(&**secret, &[&ip.octets(), &port]).bytes(),
        IpAddr::V6(ip) => hash::mac(&**secret, &[&ip.octets(), &port]).bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::handshake::{Initiator, Received, check_mac1, set_mac2};
    use crate::crypto::identity::Identity;
    use crate::id::SessionIndex;

    const NONCE: [u8; size::NONCE] = [6; size::NONCE];

    fn alice() -> Identity {
        Identity::from_secret([1; 32])
    }

    fn bob() -> Identity {
        Identity::from_secret([2; 32])
    }

    fn network() -> NetworkKeys {
        NetworkKeys::open()
    }

    fn source() -> SocketAddr {
        ([192, 168, 1, 7], 28282).into()
    }

    fn initiation() -> [u8; size::INITIATION] {
        let index = SessionIndex::from_bits(0x030201);
        let payload = [0; size::INITIATION_PAYLOAD];
        Initiator::start(&alice(), &network(), &bob().id(), index, [3; 32], &payload).unwrap().1
    }

    fn mac1() -> [u8; size::MAC] {
        initiation()[field::INITIATION_MAC1].try_into().unwrap()
    }

    #[test]
    fn a_cookie_makes_the_way_free_for_both_kinds_of_packets() {
        let jar = CookieJar::new([9; 32]);
        let mut initiation = initiation();
        assert!(!jar.check_mac2(&source(), &initiation));
        let reply = jar.reply(&network(), &bob().id(), &initiation, &source(), NONCE);
        assert_eq!(reply[..4], [3, 1, 2, 3]);
        let cookie = open_cookie(&network(), &bob().id(), &reply, &mac1()).unwrap();
        assert_eq!(cookie, jar.cookie_for(&source()));
        set_mac2(&mut initiation, &cookie);
        assert!(jar.check_mac2(&source(), &initiation));
        assert!(check_mac1(&network(), &bob().id(), &initiation));

        let received = Received::read(&bob(), &initiation).unwrap();
        let payload = [0; size::RESPONSE_PAYLOAD];
        let (_, mut response) =
            received.respond(&network(), SessionIndex::from_bits(1), [4; 32], &payload).unwrap();
        assert!(!jar.check_mac2(&source(), &response));
        set_mac2(&mut response, &cookie);
        assert!(jar.check_mac2(&source(), &response));
    }

    #[test]
    fn a_cookie_is_for_one_address_and_port_and_packet() {
        let jar = CookieJar::new([9; 32]);
        let mut packet = initiation();
        set_mac2(&mut packet, &jar.cookie_for(&source()));
        let elsewhere: [SocketAddr; 3] = [
            ([192, 168, 1, 8], 28282).into(),
            ([192, 168, 1, 7], 28283).into(),
            ([0xfe80, 0, 0, 0, 0, 0, 0, 1], 28282).into(),
        ];
        for source in elsewhere {
            assert!(!jar.check_mac2(&source, &packet), "{source}");
        }
        for bit in 0..packet.len() * 8 {
            let mut forged = packet;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!jar.check_mac2(&source(), &forged), "{bit}");
        }
        assert!(!jar.check_mac2(&source(), &packet[..15]));
        assert!(!jar.check_mac2(&source(), &[]));
    }

    #[test]
    fn both_ways_to_write_an_ipv4_address_have_one_cookie() {
        let jar = CookieJar::new([9; 32]);
        let mapped: SocketAddr = "[::ffff:192.168.1.7]:28282".parse().unwrap();
        assert_eq!(jar.cookie_for(&mapped), jar.cookie_for(&source()));
    }

    #[test]
    fn a_cookie_lives_until_the_secret_changed_twice() {
        let mut jar = CookieJar::new([9; 32]);
        let mut packet = initiation();
        set_mac2(&mut packet, &jar.cookie_for(&source()));
        jar.rotate([10; 32]);
        assert!(jar.check_mac2(&source(), &packet));
        set_mac2(&mut packet, &jar.cookie_for(&source()));
        jar.rotate([11; 32]);
        assert!(jar.check_mac2(&source(), &packet));
        jar.rotate([12; 32]);
        assert!(!jar.check_mac2(&source(), &packet));
    }

    #[test]
    fn a_cookie_packet_that_answers_something_else_or_was_changed_is_refused() {
        let jar = CookieJar::new([9; 32]);
        let reply = jar.reply(&network(), &bob().id(), &initiation(), &source(), NONCE);
        let secret = format!("atonce-secret-{}", "a".repeat(52)).parse().unwrap();
        assert_eq!(open_cookie(&NetworkKeys::private(&secret), &bob().id(), &reply, &mac1()), None);
        assert_eq!(open_cookie(&network(), &alice().id(), &reply, &mac1()), None);
        assert_eq!(open_cookie(&network(), &bob().id(), &reply, &[0; size::MAC]), None);
        for bit in field::NONCE.start * 8..size::COOKIE * 8 {
            let mut forged = reply;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_cookie(&network(), &bob().id(), &forged, &mac1()), None, "{bit}");
        }
        assert!(open_cookie(&network(), &bob().id(), &reply, &mac1()).is_some());
    }
}
