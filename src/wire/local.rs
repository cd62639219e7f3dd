//! What travels on the Unix socket (socket.md): one JSON object a line, both ways, or frames with the same objects and
//! messages as bytes.
//!
//! [`Request::parse`] reads what an app wrote in a line, [`frame`] what it wrote in a frame; [`Event`] is what the daemon
//! tells, and what the client library reads back. Unknown fields are ignored both ways.

mod event;
pub mod frame;
mod reply_to;
mod request;
mod status;
mod text;

pub(crate) use event::id_text;
pub use event::{
    Ending, ErrorCode, Event, Outcome, PathInfo, PathKind, PeerInfo, PeerOutcome, PeerRef, PeerState,
    RoundTrips, SecretLine,
};
pub use reply_to::{BadReplyTo, ReplyTo};
pub use request::{BadLine, NetworkOp, Op, Opening, Outgoing, Payload, Request, Subject, Text, WhenFull};
pub use status::{
    Health, HealthState, Hello, InterfaceInfo, NetworkInfo, PeerCounts, Reloaded, RendezvousInfo, Status,
};
pub(crate) use text::text_or_data;
