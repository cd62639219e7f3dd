//! All that touches the world: clock, files, sockets, multicast DNS, the service manager. It decides nothing.
//!
//! [`run`] drives one [`Node`](crate::core::Node), [`rendezvous`] one [`Server`](crate::server::Server); every other file
//! is one of the things that they hold.

mod alarm;
pub mod clock;
pub mod config;
pub mod frames;
mod glob;
pub mod hardware;
pub mod interfaces;
pub mod keyfile;
pub mod keytext;
pub mod lines;
pub mod listener;
pub mod local;
pub mod log;
pub mod mdns;
mod mdns_port;
mod metrics;
mod netlink;
mod network;
pub mod peerfile;
mod portmap;
mod power;
pub mod process;
mod reload;
mod remember;
pub mod rendezvous;
mod resolve;
pub mod run;
mod sender;
pub mod serverkey;
mod serverpins;
mod socket;
mod statefile;
pub mod systemd;
pub mod udp;
