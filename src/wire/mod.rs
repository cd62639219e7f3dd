//! Bytes to values and back: no state, no keys, no clock.
//!
//! [`packet`] is the UDP datagram, [`message`] what travels inside a session, [`rendezvous`] what a rendezvous server is
//! told and tells, [`presence`] what nodes seal for each other there, [`txt`] the DNS-SD advert and [`local`] what travels
//! on the Unix socket; `complaint` is what is wrong with a value, for people. Nothing here can panic, whatever the bytes: a parser returns a value or says what
//! is wrong. The bytes are specified in `docs/protocol.md`, `docs/rendezvous.md` and
//! `docs/socket.md`.

pub(crate) mod complaint;
pub mod local;
#[cfg(feature = "daemon")]
pub mod message;
#[cfg(feature = "daemon")]
pub mod packet;
#[cfg(feature = "daemon")]
pub mod presence;
#[cfg(feature = "daemon")]
pub mod rendezvous;
#[cfg(feature = "daemon")]
pub mod txt;
