//! One file a target: what may be asked of a piece of the program, whatever the bytes are.
//!
//! [`rig`] is a node with everything that is asserted of each of them; [`stranger`] is another node, by hand.

pub mod client_events;
pub mod datagram;
pub mod files;
pub mod handshake;
pub mod hello;
pub mod local_lines;
pub mod packet;
pub mod records;
mod rig;
mod stranger;
pub mod txt;
