//! atonce
#![forbid(unsafe_code)]
pub mod client;
pub mod core;
pub mod crypto;
pub mod edge;
pub mod id;
pub mod limits;
pub mod time;
pub mod wire;

pub use client::Client;
