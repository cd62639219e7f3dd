//! One file a target: what may be asked of a piece of the program, whatever the bytes are.
//!
//! [`rig`] is a node with everything that is asserted of each of them; [`stranger`] is another node, by hand, and
//! [`member`] one that a rendezvous server knows.

pub mod client_events;
pub mod datagram;
pub mod files;
pub mod handshake;
pub mod hello;
pub mod local_frames;
pub mod local_lines;
#[allow(dead_code, reason = "it knows more than is asked of it here")]
#[path = "../../server/member.rs"]
pub mod member;
pub mod packet;
pub mod promises;
pub mod records;
pub mod rendezvous_client;
pub mod rendezvous_messages;
pub mod rendezvous_server;
mod rig;
mod stranger;
pub mod txt;
