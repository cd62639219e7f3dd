//! Bytes to values and back: no state, no keys, no clock.
//!
//! [`packet`] is the UDP datagram, [`message`] what travels inside a session, [`txt`] the DNS-SD advert and [`local`]
//! what travels on the Unix socket. Nothing here can panic, whatever the bytes: a parser returns a value or says what
//! is wrong. The bytes are specified in `docs/protocol.md` and `docs/socket.md`.

pub mod local;
pub mod message;
pub mod packet;
pub mod txt;
