//! Cookies: under load, whoever wants a handshake first proves that it receives at the address it sends from.
//!
//! ```text
//! initiation, mac2 zero        -->
//!                              <--  cookie packet: a keyed hash of the source address, sealed
//! initiation, mac2 = MAC(cookie) -->
//! ```
//!
//! The server keeps nothing but two secrets. The cookie is sealed under a key that members of the network have, and
//! bound to the mac1 of the initiation that it answers, so that nobody else can plant a false one.

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

/// The same for both ways in which a socket may write one IPv4 address. The interface of a link-local address does not
/// count: what is proved is receiving, and an answer goes to where the question came from.
fn cookie(secret: &Key, source: &SocketAddr) -> [u8; size::MAC] {
    let port = source.port().to_le_bytes();
    match source.ip().to_canonical() {
        IpAddr::V4(ip) => hash::mac(&**secret, &[&ip.octets(), &port]),
        IpAddr::V6(ip) => hash::mac(&**secret, &[&ip.octets(), &port]),
    }
}
