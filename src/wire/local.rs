//! What travels on the Unix socket: one JSON object a line, both ways (socket.md).
//!
//! [`Request::parse`] reads what an app wrote; [`Event`] is what the daemon writes, and what the client library reads
//! back. Unknown fields are ignored both ways.

mod event;
mod request;
mod status;

#[cfg(feature = "daemon")]
pub(crate) use event::id_text;
pub use event::{
    Ending, ErrorCode, Event, Outcome, PathInfo, PathKind, PeerInfo, PeerOutcome, PeerRef, PeerState,
    RoundTrips, SecretLine,
};
pub use request::{BadLine, NetworkOp, Op, Outgoing, Payload, Request, Text, WhenFull};
pub use status::{
    Health, HealthState, Hello, InterfaceInfo, NetworkInfo, PeerCounts, Reloaded, RendezvousInfo, Status,
};
