//! The rendezvous server's state machine, asked by members that are made by hand.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "nobody outside of the tests sees this; a test that cannot go on has failed"
)]

mod blocks;
mod clock;
mod contract;
mod echoes;
mod hostile;
mod member;
mod members;
mod memory;
mod restart;
mod second_port;
mod sources;
mod unasked;
mod world;
