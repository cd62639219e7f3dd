//! The binary mode: frames with a fixed header, for apps that have many messages (socket.md, 9).
//!
//! ```text
//!  0        4      5       6      8                16
//!  | body_len u32 | type u8 | flags u8 | chan u16 | id u64 | body
//! ```
//!
//! All numbers are little-endian. What is rare is the same JSON as in lines, as the body of a frame; a message is its
//! bytes, and its names are a channel's number.

use std::time::Duration;

use super::request::bad;
use super::{
    BadLine, Ending, ErrorCode, Event, Opening, Outcome, Outgoing, PathKind, Payload, ReplyTo, Request,
    WhenFull, WhenNoListener,
};
use crate::id::{AppChannel, NodeId, RequestId};
use crate::limits;

/// What an app in binary mode writes first, and the daemon too; the last byte is the version.
pub const PREFACE: [u8; 8] = *b"@ONCE\0\0\x01";

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body that follows.
    pub body_bytes: u32,
    /// What kind of frame: one of [`kind`].
    pub kind: u8,
    /// What it means depends on the kind; bits without a meaning are zero.
    pub flags: u8,
    /// A channel, or zero.
    pub chan: AppChannel,
    /// What an app calls its request; zero: it wants no answer.
    pub id: u64,
}

/// Types of frames.
pub mod kind {
    /// From an app: a request in JSON.
    pub const REQUEST: u8 = 0x01;
    /// From an app: `chan` goes to this destination from now on.
    pub const OPEN: u8 = 0x02;
    /// From an app: `chan` goes nowhere any more.
    pub const CLOSE: u8 = 0x03;
    /// From an app: a message on `chan`.
    pub const SEND: u8 = 0x04;
    /// From an app: a reply.
    pub const REPLY: u8 = 0x05;
    /// From the daemon: an event in JSON.
    pub const EVENT: u8 = 0x81;
    /// From the daemon: the end of a send or a reply.
    pub const RESULT: u8 = 0x82;
    /// From the daemon: a message of the source `chan`.
    pub const MESSAGE: u8 = 0x83;
    /// From the daemon: a reply of the source `chan`.
    pub const REPLIED: u8 = 0x84;
}

/// Bits of the flags.
pub mod flag {
    /// Of a send and a reply: its outcome is awaited.
    pub const ACK: u8 = 1;
    /// Of a send and a reply: drop it if it cannot leave at once.
    pub const DROP: u8 = 2;
    /// Of a result: replies were asked for.
    pub const REPLIES: u8 = 1;
    /// Of a message: a reply is awaited. The lower bits are the path.
    pub const REQUEST: u8 = 8;
}

impl Header {
    /// Bytes of a header.
    pub const BYTES: usize = 16;

    /// As it is written.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.chan.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// The other way; any bytes are a header.
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let [a, b, c, d, kind, flags, low, high, id @ ..] = *bytes;
        Self {
            body_bytes: u32::from_le_bytes([a, b, c, d]),
            kind,
            flags,
            chan: AppChannel(u16::from_le_bytes([low, high])),
            id: u64::from_le_bytes(id),
        }
    }

    fn request_id(self) -> Option<RequestId> {
        (self.id != 0).then_some(RequestId(self.id))
    }
}

/// What an app says in one frame.
#[derive(Debug, PartialEq)]
pub enum Frame<'a> {
    /// As in a line.
    Request(Request<'a>),
    /// A channel begins.
    Open {
        /// Echoed in the answer.
        id: Option<RequestId>,
        /// How the app numbers it.
        chan: AppChannel,
        /// Where it goes.
        opening: Opening<'a>,
    },
    /// A channel ends.
    Close {
        /// Echoed in the answer.
        id: Option<RequestId>,
        /// Which.
        chan: AppChannel,
    },
    /// A message to where a channel goes.
    Send {
        /// Echoed in the result.
        id: Option<RequestId>,
        /// Which channel.
        chan: AppChannel,
        /// What, and how; its deadline, and whether it waits for a listener, are the channel's.
        message: Outgoing<'a>,
    },
}

impl Frame<'_> {
    /// Whether the frame has a network secret in it, which is not to stay in memory.
    pub const fn has_secret(&self) -> bool {
        matches!(self, Self::Request(request) if request.has_secret())
    }
}

impl<'a> Frame<'a> {
    /// Reads a frame whose body is whole.
    pub fn parse(header: Header, body: &'a [u8]) -> Result<Self, BadLine> {
        let id = header.request_id();
        let is_message = matches!(header.kind, kind::SEND | kind::REPLY);
        let has_chan = matches!(header.kind, kind::OPEN | kind::CLOSE | kind::SEND);
        let wrong = |message: String| {
            let (code, message) = bad(&message);
            BadLine { id, code, message }
        };
        if !matches!(header.kind, kind::REQUEST..=kind::REPLY) {
            let message = format!("no frame of an app has the type {:#04x}", header.kind);
            return Err(BadLine { id, code: ErrorCode::UnknownOp, message });
        }
        if header.flags & !if is_message { flag::ACK | flag::DROP } else { 0 } != 0 {
            return Err(wrong(format!("{:#04x} are no flags of this frame", header.flags)));
        }
        if has_chan != (header.chan.0 != 0) {
            let mistake = if has_chan { "this frame needs a chan" } else { "this frame has no chan" };
            return Err(wrong(format!("{mistake}, and its header has {}", header.chan.0)));
        }
        let chan = header.chan;
        match header.kind {
            kind::OPEN => Ok(Self::Open { id, chan, opening: Request::parse_opening(body, id)? }),
            kind::CLOSE if body.is_empty() => Ok(Self::Close { id, chan }),
            kind::CLOSE => Err(wrong("this frame has no body".to_owned())),
            kind::SEND => {
                let message = message_of(header, limits::DEFAULT_TIMEOUT, body);
                Ok(Self::Send { id, chan, message })
            }
            kind::REPLY => {
                let (op, message) = read_reply(header, body).map_err(wrong)?;
                Ok(Self::Request(Request { id, op: super::Op::Reply { reply_to: op, message } }))
            }
            _ => Request::parse_body(body, id).map(Self::Request),
        }
    }
}

impl BadLine {
    /// A frame whose body is over the limit; its bytes were not kept.
    pub fn long_body(header: Header) -> Self {
        let most = limits::FRAME_BODY_BYTES;
        let message = format!("the body of a frame has at most {most} bytes, this one {}", header.body_bytes);
        Self { id: header.request_id(), code: ErrorCode::TooLong, message }
    }
}

fn message_of(header: Header, timeout: Duration, payload: &[u8]) -> Outgoing<'_> {
    let when_full = if header.flags & flag::DROP != 0 { WhenFull::Drop } else { WhenFull::Wait };
    Outgoing {
        payload: Payload::Raw(payload),
        ack: header.flags & flag::ACK != 0,
        timeout,
        when_full,
        when_no_listener: WhenNoListener::End,
    }
}

/// `reply_to`, the deadline in milliseconds or zero for the usual one, and the payload.
fn read_reply(header: Header, body: &[u8]) -> Result<(ReplyTo, Outgoing<'_>), String> {
    let short = || format!("a reply begins with {} bytes of reply_to and 4 of timeout_ms", ReplyTo::BYTES);
    let (reply_to, rest) = body.split_first_chunk().ok_or_else(short)?;
    let (timeout, payload) = rest.split_first_chunk().ok_or_else(short)?;
    let timeout_ms = Some(u32::from_le_bytes(*timeout)).filter(|timeout| *timeout != 0).map(u64::from);
    let timeout = super::request::checked_timeout(timeout_ms).map_err(|(_, message)| message)?;
    Ok((ReplyTo::from_bytes(reply_to), message_of(header, timeout, payload)))
}

/// Appends an event as its frame.
pub fn push_event(out: &mut Vec<u8>, event: &Event<'_>) {
    if let Event::Result { id: Some(id), ending: Ending::Send { outcome, peer, path, rtt_us, replies } } =
        event
    {
        return push_result(out, *id, *outcome, peer.id, *path, *rtt_us, *replies);
    }
    let start = out.len();
    out.extend_from_slice(&[0; Header::BYTES]);
    // Nothing in an event fails to be JSON, and a Vec takes all.
    let written = serde_json::to_writer(&mut *out, event);
    debug_assert!(written.is_ok());
    let header = Header {
        body_bytes: length_of(out.len() - start - Header::BYTES),
        kind: kind::EVENT,
        flags: 0,
        chan: if let Event::Source { chan, .. } = event { AppChannel(*chan) } else { AppChannel(0) },
        id: event.id().map_or(0, |id| id.0),
    };
    out[start..start + Header::BYTES].copy_from_slice(&header.to_bytes());
}

/// Bytes of a result's body: outcome, path, two of zero, replies u32, rtt_us u64, the peer's key.
const RESULT_BYTES: usize = 48;
/// In the place of a round trip: there was none.
const NO_ROUND_TRIP: u64 = u64::MAX;

fn push_result(
    out: &mut Vec<u8>,
    id: RequestId,
    outcome: Outcome,
    peer: NodeId,
    path: Option<PathKind>,
    rtt_us: Option<u64>,
    replies: Option<u32>,
) {
    let flags = if replies.is_some() { flag::REPLIES } else { 0 };
    let body_bytes = length_of(RESULT_BYTES);
    let header = Header { body_bytes, kind: kind::RESULT, flags, chan: AppChannel(0), id: id.0 };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&[number_of_outcome(outcome), path.map_or(0, number_of_path), 0, 0]);
    out.extend_from_slice(&replies.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&rtt_us.unwrap_or(NO_ROUND_TRIP).to_le_bytes());
    out.extend_from_slice(peer.as_bytes());
}

/// Appends a message: when it came, in milliseconds since 1970, what a reply names if one is awaited, and its bytes.
pub fn push_message(
    out: &mut Vec<u8>,
    source: AppChannel,
    path: PathKind,
    at_ms: u64,
    reply_to: Option<ReplyTo>,
    payload: &[u8],
) {
    let reply_to = reply_to.map(ReplyTo::to_bytes);
    let reply_to = reply_to.as_ref().map_or(&[][..], |bytes| bytes);
    let flags = number_of_path(path) | if reply_to.is_empty() { 0 } else { flag::REQUEST };
    let body_bytes = length_of(8 + reply_to.len() + payload.len());
    let header = Header { body_bytes, kind: kind::MESSAGE, flags, chan: source, id: 0 };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&at_ms.to_le_bytes());
    out.extend_from_slice(reply_to);
    out.extend_from_slice(payload);
}

/// Appends a reply to request `id`: when it came, and its bytes.
pub fn push_reply(
    out: &mut Vec<u8>,
    id: RequestId,
    source: AppChannel,
    path: PathKind,
    at_ms: u64,
    payload: &[u8],
) {
    let body_bytes = length_of(8 + payload.len());
    let flags = number_of_path(path);
    let header = Header { body_bytes, kind: kind::REPLIED, flags, chan: source, id: id.0 };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(&at_ms.to_le_bytes());
    out.extend_from_slice(payload);
}

fn length_of(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

const fn number_of_path(path: PathKind) -> u8 {
    match path {
        PathKind::Local => 1,
        PathKind::Lan => 2,
        PathKind::Direct => 3,
        PathKind::Relay => 4,
    }
}

const fn number_of_outcome(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Delivered => 1,
        Outcome::Sent => 2,
        Outcome::NoListener => 3,
        Outcome::Busy => 4,
        Outcome::TooBig => 5,
        Outcome::Unreachable => 6,
        Outcome::Timeout => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ReplyToken;
    use crate::wire::local::Op;

    fn header(kind: u8, flags: u8, chan: u16, id: u64) -> Header {
        Header { body_bytes: 0, kind, flags, chan: AppChannel(chan), id }
    }

    fn refused(header: Header, body: &[u8]) -> (ErrorCode, Option<RequestId>) {
        let bad = Frame::parse(header, body).unwrap_err();
        (bad.code, bad.id)
    }

    #[test]
    fn a_header_reads_back_as_itself_and_is_where_the_document_says() {
        let all = Header { body_bytes: 1, kind: 2, flags: 3, chan: AppChannel(4), id: 5 };
        let bytes = all.to_bytes();
        assert_eq!(bytes, [1, 0, 0, 0, 2, 3, 4, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Header::from_bytes(&bytes), all);
    }

    #[test]
    fn a_request_in_a_frame_is_the_request_of_a_line_with_the_id_of_the_header() {
        let body = br#"{"op":"send","id":9,"to":"pi","topic":"t","text":"hi","replies":3}"#;
        let Ok(Frame::Request(framed)) = Frame::parse(header(kind::REQUEST, 0, 0, 7), body) else { panic!() };
        let line = Request::parse(body).unwrap();
        assert_eq!((framed.id, &framed.op), (Some(RequestId(7)), &line.op));
        let without = header(kind::REQUEST, 0, 0, 0);
        assert_eq!(refused(without, body), (ErrorCode::BadRequest, None), "replies need an id");
        assert_eq!(refused(header(kind::REQUEST, 0, 0, 7), b"{"), (ErrorCode::BadJson, Some(RequestId(7))));
    }

    #[test]
    fn a_message_and_a_reply_are_their_bytes() {
        let Ok(Frame::Send { id, chan, message }) = Frame::parse(header(kind::SEND, 3, 2, 1), b"\xff{")
        else {
            panic!()
        };
        assert_eq!((id, chan), (Some(RequestId(1)), AppChannel(2)));
        assert_eq!(
            (message.payload.as_bytes(), message.ack, message.when_full),
            (&b"\xff{"[..], true, WhenFull::Drop)
        );
        let reply_to = ReplyTo { node: NodeId([3; 32]), token: ReplyToken(4) };
        let body = [&reply_to.to_bytes()[..], &250_u32.to_le_bytes(), b"yes"].concat();
        let Ok(Frame::Request(Request { op: Op::Reply { reply_to: read, message }, .. })) =
            Frame::parse(header(kind::REPLY, 0, 0, 0), &body)
        else {
            panic!()
        };
        assert_eq!((read, message.payload.as_bytes()), (reply_to, &b"yes"[..]));
        assert_eq!((message.ack, message.timeout), (false, Duration::from_millis(250)));
    }

    #[test]
    fn each_mistake_in_a_frame_is_told_with_its_code_and_the_id_of_the_header() {
        let id = Some(RequestId(7));
        for unknown in [0, 6, 0x81, 0xff] {
            assert_eq!(refused(header(unknown, 0, 0, 7), b""), (ErrorCode::UnknownOp, id));
        }
        let open = br#"{"topic":"t"}"#;
        for (wrong, body) in [
            (header(kind::REQUEST, 1, 0, 7), &br#"{"op":"hello"}"#[..]),
            (header(kind::REQUEST, 0, 1, 7), br#"{"op":"hello"}"#),
            (header(kind::SEND, 4, 1, 7), b""),
            (header(kind::SEND, 0, 0, 7), b""),
            (header(kind::OPEN, 0, 0, 7), open),
            (header(kind::OPEN, 1, 1, 7), open),
            (header(kind::OPEN, 0, 1, 7), b"{}"),
            (header(kind::OPEN, 0, 1, 7), br#"{"topic":"t","replies":0}"#),
            (header(kind::OPEN, 0, 1, 7), br#"{"topic":"t","timeout_ms":0}"#),
            (header(kind::CLOSE, 0, 1, 7), b"x"),
            (header(kind::REPLY, 0, 0, 7), &[0; 43]),
            (header(kind::REPLY, 0, 0, 7), &[0xff; 44]),
            (header(kind::REPLY, 0, 1, 7), &[0; 44]),
        ] {
            assert_eq!(refused(wrong, body), (ErrorCode::BadRequest, id), "{wrong:?}");
        }
    }

    #[test]
    fn any_frame_is_read_without_a_panic() {
        proptest::proptest!(|(head: [u8; 16], body: Vec<u8>)| {
            let _ = Frame::parse(Header::from_bytes(&head), &body);
        });
    }
}
