//! Cookies and tokens: proofs that somebody receives at the address that it sends from. The server keeps none of them,
//! only two secrets: that of the cookies is drawn at each start, that of the tokens outlives it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rand_core::CryptoRng;

use crate::crypto::hash::{self, Key};
use crate::time::Instant;
use crate::wire::rendezvous::{Cookie, Handle, Namespace, Token, address_bytes};

/// How long cookies of one slot are made; they are good in that slot and the next.
const COOKIE_SLOT: Duration = Duration::from_secs(120);
/// How long tokens of one hour are made; likewise.
const TOKEN_HOUR: Duration = Duration::from_secs(3600);

/// Makes the proofs, and knows its own again.
pub(super) struct Proofs {
    cookies: Key,
    tokens: Key,
}

impl Proofs {
    pub(super) fn new(tokens: Key, rng: &mut dyn CryptoRng) -> Self {
        let mut cookies = Key::default();
        rng.fill_bytes(&mut *cookies);
        Self { cookies, tokens }
    }

    pub(super) fn cookie(&self, source: SocketAddr, now: Instant) -> Cookie {
        self.cookie_of(source, slot(now.since_origin(), COOKIE_SLOT))
    }

    pub(super) fn check_cookie(&self, cookie: Cookie, source: SocketAddr, now: Instant) -> bool {
        let slot = slot(now.since_origin(), COOKIE_SLOT);
        [slot, slot.wrapping_sub(1)].into_iter().any(|slot| self.cookie_of(source, slot) == cookie)
    }

    /// `wall`: the time since 1970.
    pub(super) fn token(
        &self,
        namespace: &Namespace,
        handle: Handle,
        source: SocketAddr,
        wall: Duration,
    ) -> Token {
        self.token_of(namespace, handle, source, slot(wall, TOKEN_HOUR))
    }

    pub(super) fn check_token(
        &self,
        token: Token,
        namespace: &Namespace,
        handle: Handle,
        source: SocketAddr,
        wall: Duration,
    ) -> bool {
        let hour = slot(wall, TOKEN_HOUR);
        let is = |hour| self.token_of(namespace, handle, source, hour) == token;
        is(hour) || is(hour.wrapping_sub(1))
    }

    fn cookie_of(&self, source: SocketAddr, slot: u64) -> Cookie {
        Cookie(hash::mac(&*self.cookies, &[&address_bytes(source), &slot.to_le_bytes()]).bytes())
    }

    fn token_of(&self, namespace: &Namespace, handle: Handle, source: SocketAddr, hour: u64) -> Token {
        let parts = [&namespace.0[..], &handle.0, &address_bytes(source), &hour.to_le_bytes()];
        Token(hash::mac(&*self.tokens, &parts).bytes())
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proofs").finish_non_exhaustive()
    }
}

fn slot(time: Duration, length: Duration) -> u64 {
    time.as_secs() / length.as_secs()
}
