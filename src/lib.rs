//! atonce: every program on every device of yours can talk to every other one, by name, at once.
//!
//! This crate is the daemon `atonced`, the command `atonce`, and the library for apps. An app needs [`Client`] only
//! (`default-features = false, features = ["client"]` builds nothing else), or no library at all: the daemon takes and
//! gives JSON lines, or frames, on a Unix socket (`docs/socket.md`). All else here is the daemon's inside, and this page
//! its manual.
//!
//! # Three layers
//!
//! - [`wire`] and [`crypto`] know bytes and keys: no addresses, no timers, no operating system.
//! - [`core`] decides. [`core::Node`] is a state machine that is told what happened and when, and asked what to do. It
//!   reads no clock and opens no socket, so the tests run many of them in one process, on one virtual clock.
//!   [`server`] beside it is the same for the rendezvous server `atonce-rendezvous`.
//! - [`edge`] touches the world: sockets, clocks, files, multicast DNS. It decides nothing.
//!
//! Nothing imports anything above it. [`id`], [`time`], [`route`], [`pasted`] and [`limits`] are for all.
//!
//! # The way of a datagram
//!
//! ```text
//!            in                                                  out
//!
//!   network                                              app, a line or frame
//!      |                                                      |
//!   edge::udp         batch, route                    edge::local      cut into these
//!      |                                                      |
//!   core::Node        handle_datagram                 wire::local      parsed
//!      |                                                      |
//!   wire::packet      which kind, which session       core::Node       handle_request, _frame
//!      |                                                      |
//!   crypto::session   decrypted in place              core::requests   who is meant
//!      |                                                      |
//!   wire::message     records, one by one             core::delivery   numbered, kept, retried
//!      |                                                      |
//!   core::messages    each to its noun                core::outbox     into the peer's open datagram
//!      |                                                      |
//!   core::clients     written into its output         crypto::session  encrypted in place
//!      |                                                      |
//!   edge::local       written to the app              edge::udp        one train, one system call
//! ```
//!
//! # Where to begin
//!
//! Read `core/mod.rs`: its methods are all that can happen to a node. Then follow one kind of input to the file of its
//! noun. `edge/run.rs` is the loop that drives it; `limits.rs` says how much of anything there may be. The bytes are in
//! `docs/protocol.md`, the reasons in `docs/design.md`.
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "daemon")]
pub mod core;
#[cfg(feature = "daemon")]
pub mod crypto;
#[cfg(feature = "daemon")]
pub mod edge;
pub mod id;
pub mod limits;
pub mod pasted;
mod places;
#[cfg(feature = "daemon")]
pub mod route;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
mod source;
#[cfg(feature = "daemon")]
pub mod tag;
#[cfg(feature = "daemon")]
pub mod time;
pub mod wire;

#[cfg(feature = "client")]
pub use client::Client;
