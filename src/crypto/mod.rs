//! Keys and sessions: who somebody is, who belongs together, and how two of them talk unheard.
//!
//! ```text
//! identity   a node's key pair                      network   the keys that all members share
//!        \                                          /
//!         handshake   Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, two packets
//!             |                                     cookie   "prove your address first", under load
//!          session   data packets, numbered         replay   which numbers were seen
//!
//!         namespace   what a network is to a rendezvous server      claim       whose handle it is there
//!         signature   what a member says there, by its identity
//! ```
//!
//! Nothing here knows an address book, a clock or a source of randomness: random bytes are arguments. Nothing
//! changes before a tag is verified: whatever arrives, the state is able to take the real packet afterwards.
//! Keys are wiped when they are dropped, and no `Debug` prints one.

pub(crate) mod aead;
pub mod claim;
pub mod cookie;
pub mod handshake;
pub(crate) mod hash;
pub mod identity;
pub mod invitation;
pub(crate) mod keypair;
pub mod membership;
pub mod namespace;
pub mod network;
pub(crate) mod noise;
pub mod replay;
pub mod session;
pub(crate) mod signature;
