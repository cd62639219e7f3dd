//! A member of a network by hand: it says what it is told to say, and knows what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use atonce::crypto::claim::Claim;
use atonce::crypto::namespace::NamespaceKeys;
use atonce::crypto::network::{NetworkKeys, NetworkSecret};
use atonce::id::ServerKey;
use atonce::wire::rendezvous::{
    Bye, Cookie, Day, Entries, FromNode, FromServer, Handle, Intro, Keep, Kind, List, Nonce, Probe, Register,
    ServerTime, Token, size,
};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

/// What every blob here is made of, so that an address stands out.
const FILLING: u8 = 0xee;

pub struct Member {
    pub addr: SocketAddr,
    pub keys: NamespaceKeys,
    pub handle: Handle,
    pub claim: Claim,
    pub seq: u32,
    pub cookie: Cookie,
    pub token: Token,
    pub known: u64,
    pub time: ServerTime,
    pub register_after: Option<u16>,
    pub second_port: Option<NonZeroU16>,
    /// Whom it was told of.
    pub others: BTreeMap<Handle, Vec<u8>>,
    /// How many members there are, as the server says.
    pub members: u16,
    /// It heard of changes whose predecessors it does not know.
    pub lacks_some: bool,
    pub blob_bytes: usize,
    nonces: u64,
}

pub fn network(number: u64) -> NetworkKeys {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    NetworkKeys::private(&NetworkSecret::generate(&mut ChaCha20Rng::from_seed(seed)))
}

impl Member {
    pub fn new(network: &NetworkKeys, server: &ServerKey, day: Day, number: u32, addr: SocketAddr) -> Self {
        let keys = NamespaceKeys::of_day(network, server, day).unwrap();
        Self::with_keys(keys, number, addr)
    }

    pub fn with_keys(keys: NamespaceKeys, number: u32, addr: SocketAddr) -> Self {
        let mut seed = [0xa5; 16];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let claim = Claim::from_seed(keys.namespace(), seed);
        Self {
            addr,
            keys,
            handle: claim.handle(),
            claim,
            seq: 0,
            cookie: Cookie::default(),
            token: Token::default(),
            known: 0,
            time: ServerTime::default(),
            register_after: None,
            second_port: None,
            others: BTreeMap::new(),
            members: 0,
            lacks_some: false,
            blob_bytes: 128,
            nonces: 0,
        }
    }

    fn nonce(&mut self) -> Nonce {
        self.nonces += 1;
        Nonce((self.nonces | 0x5a5a_0000_0000_0000).to_le_bytes())
    }

    pub fn hail(&mut self) -> Vec<u8> {
        let message = FromNode::Hail(self.nonce());
        written(&message, 0)
    }

    /// With room for an answer of `room` bytes.
    pub fn register(&mut self, room: usize) -> Vec<u8> {
        self.seq += 1;
        if self.claim.reveal(self.seq).is_none() {
            // A handle is good for so many.
            self.claim = Claim::from_seed(self.keys.namespace(), self.handle.0);
            (self.handle, self.seq) = (self.claim.handle(), 1);
        }
        self.register_again(room)
    }

    pub fn register_again(&mut self, room: usize) -> Vec<u8> {
        let (nonce, namespace) = (self.nonce(), *self.keys.namespace());
        let Self { handle, cookie, seq, known, .. } = *self;
        let reveal = self.claim.reveal(seq).unwrap();
        let blob = &vec![FILLING; self.blob_bytes];
        let register = Register { nonce, namespace, handle, cookie, reveal, seq, known, blob };
        let mut message = written(&FromNode::Register(register), room);
        self.keys.finish_register(self.addr, &mut message);
        message
    }

    pub fn keep(&mut self, answer: bool) -> Vec<u8> {
        let (nonce, namespace) = (self.nonce(), *self.keys.namespace());
        let Self { handle, token, known, .. } = *self;
        written(&FromNode::Keep(Keep { nonce, namespace, handle, token, known, answer }), 0)
    }

    pub fn list(&mut self, room: usize) -> Vec<u8> {
        let (nonce, namespace) = (self.nonce(), *self.keys.namespace());
        let Self { handle, token, known, .. } = *self;
        written(&FromNode::List(List { nonce, namespace, handle, token, known }), room)
    }

    pub fn intro(&mut self, target: Handle, payload: &[u8]) -> Vec<u8> {
        let (nonce, namespace) = (self.nonce(), *self.keys.namespace());
        let Self { handle, token, .. } = *self;
        written(&FromNode::Intro(Intro { nonce, namespace, handle, token, target, payload }), 0)
    }

    pub fn bye(&mut self) -> Vec<u8> {
        let (nonce, namespace) = (self.nonce(), *self.keys.namespace());
        let Self { handle, token, .. } = *self;
        written(&FromNode::Bye(Bye { nonce, namespace, handle, token }), 0)
    }

    pub fn probe(&mut self, after_seconds: u16) -> Vec<u8> {
        let (nonce, cookie) = (self.nonce(), self.cookie);
        written(&FromNode::Probe(Probe { nonce, cookie, after_seconds }), 0)
    }

    /// For the server's second port.
    pub fn ask_where(&mut self) -> Vec<u8> {
        written(&FromNode::Where(self.nonce()), 0)
    }

    /// Reads what the server says, which must be right, and tells what it was.
    pub fn hear(&mut self, datagram: &[u8]) -> Kind {
        let message = FromServer::parse(datagram).unwrap();
        let has_mac = !matches!(
            message,
            FromServer::Retry(_) | FromServer::Nope(_) | FromServer::Echo(_) | FromServer::Here(_)
        );
        assert!(!has_mac || self.keys.check(datagram), "{message:?}");
        match message {
            FromServer::Retry(retry) => {
                assert_eq!(retry.seen, self.addr);
                (self.cookie, self.time) = (retry.cookie, retry.time);
            }
            FromServer::Welcome(welcome) => {
                assert_eq!((welcome.seen, welcome.lease_seconds), (self.addr, 120));
                (self.token, self.time, self.members) = (welcome.token, welcome.time, welcome.members);
                self.second_port = welcome.second_port;
                self.learn(welcome.entries, welcome.upto);
            }
            FromServer::Kept(kept) => {
                assert_eq!((kept.seen, kept.lease_seconds), (self.addr, 120));
                (self.token, self.time) = (kept.token, kept.time);
                self.register_after = kept.register_after_seconds;
                self.lacks_some |= kept.version != self.known;
            }
            FromServer::Page(page) => {
                self.members = page.members;
                self.learn(page.entries, page.upto);
                self.lacks_some = page.upto != page.version;
            }
            FromServer::Event(event) => {
                assert_eq!(event.namespace, self.keys.namespace().tag());
                if event.since > self.known {
                    self.lacks_some = true;
                } else if event.upto > self.known {
                    self.learn(event.entries, event.upto);
                }
            }
            FromServer::Knock(knock) => assert_eq!(knock.namespace, self.keys.namespace().tag()),
            FromServer::Nope(_) => {}
            FromServer::Echo(echo) => assert_eq!(echo.seen, self.addr),
            FromServer::Here(here) => assert_eq!(here.seen, self.addr),
        }
        message.kind()
    }

    fn learn(&mut self, entries: Entries<'_>, upto: u64) {
        for entry in entries {
            match entry.blob {
                _ if entry.handle == self.handle => {}
                Some(blob) => drop(self.others.insert(entry.handle, blob.to_vec())),
                None => drop(self.others.remove(&entry.handle)),
            }
        }
        self.known = upto;
    }
}

fn written(message: &FromNode<'_>, room: usize) -> Vec<u8> {
    let mut out = Vec::new();
    message.write(room, &mut out);
    assert!(out.len() <= size::MESSAGE_MAX);
    out
}
