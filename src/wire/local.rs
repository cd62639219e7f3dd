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

#[cfg(feature = "daemon")]
pub(crate) use event::id_text;
pub use event::{
    Ending, ErrorCode, Event, Outcome, PathInfo, PathKind, PeerInfo, PeerOutcome, PeerRef, PeerState,
    RoundTrips, SecretLine,
};
pub use reply_to::{BadReplyTo, ReplyTo};
pub use request::{
    BadLine, NetworkOp, Op, Opening, Outgoing, Payload, Request, Subject, Text, WhenFull, WhenNoListener,
};
pub use status::{
    Health, HealthState, Hello, InterfaceInfo, LookingInfo, NetworkInfo, PeerCounts, Reloaded,
    RendezvousInfo, Status,
};
pub(crate) use text::text_or_data;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::frame::{Frame, Header, kind};
    use super::*;
    use crate::id::AppChannel;

    /// Every line of the examples in JSON.
    fn examples() -> Vec<&'static str> {
        let document = include_str!("../../docs/socket.md");
        let blocks = document.split("```").skip(1).step_by(2);
        blocks.filter_map(|block| block.strip_prefix("json\n")).flat_map(str::lines).collect()
    }

    #[test]
    fn every_request_in_the_document_is_one_and_says_what_it_said_before() {
        let (mut requests, mut openings) = (0, 0);
        for line in examples().into_iter().filter(|line| !line.contains("\"ev\"")) {
            if line.contains("\"op\"") {
                requests += 1;
                assert!(Request::parse(line.as_bytes()).is_ok(), "{line}");
            } else {
                openings += 1;
                let body_bytes = u32::try_from(line.len()).unwrap();
                let header = Header { body_bytes, kind: kind::OPEN, flags: 0, chan: AppChannel(1), id: 1 };
                assert!(matches!(Frame::parse(header, line.as_bytes()), Ok(Frame::Open { .. })), "{line}");
            }
        }
        assert!(requests >= 17 && openings >= 2);
    }

    #[test]
    fn every_event_in_the_document_is_read_and_written_as_it_stands_there() {
        let events: Vec<_> = examples().into_iter().filter(|line| line.contains("\"ev\"")).collect();
        assert!(events.len() >= 22);
        for line in events {
            let event: Event<'_> =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            let written = serde_json::to_string(&event).unwrap();
            let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(value(&written), value(line));
        }
    }

    #[test]
    fn the_numbers_in_the_document_are_those_of_the_frames() {
        let document = include_str!("../../docs/socket.md");
        for (number, name) in [
            (kind::REQUEST, "request"),
            (kind::OPEN, "open"),
            (kind::CLOSE, "close"),
            (kind::SEND, "send"),
            (kind::REPLY, "reply"),
            (kind::EVENT, "event"),
            (kind::RESULT, "result"),
            (kind::MESSAGE, "message"),
            (kind::REPLIED, "reply"),
        ] {
            assert!(document.contains(&format!("| {number:#04x} `{name}` |")), "{name}");
        }
        let preface = frame::PREFACE.map(|byte| format!("{byte:02x}")).join(" ");
        assert!(document.contains(&preface));
    }
}
