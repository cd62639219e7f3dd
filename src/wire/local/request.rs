//! What an app asks, one line at a time (socket.md).
//!
//! A message is parsed without an allocation of its own as long as its text needs no unescaping.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::{BadReplyTo, ErrorCode, ReplyTo};
use crate::id::{BadName, RequestId, Topic};
use crate::limits;
use crate::wire::complaint;

/// What an app asks.
#[derive(Debug, PartialEq)]
pub struct Request<'a> {
    /// Echoed in what answers it; without it only errors are told.
    pub id: Option<RequestId>,
    /// What to do.
    pub op: Op<'a>,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Op<'a> {
    /// Say who you are and what you can do.
    Hello,
    /// Give me the messages of a topic.
    Listen {
        /// Which.
        topic: Topic,
    },
    /// No more of them.
    Unlisten {
        /// Which.
        topic: Topic,
    },
    /// One message to the listeners on one peer.
    Send {
        /// Exact name or id of the peer.
        to: Text<'a>,
        /// On which topic, and whether replies are awaited.
        subject: Subject<'a>,
        /// What to send, and how.
        message: Outgoing<'a>,
    },
    /// One message to the listeners on every peer.
    Publish {
        /// On which topic, and whether replies are awaited.
        subject: Subject<'a>,
        /// What to send, and how.
        message: Outgoing<'a>,
    },
    /// One message to who sent a request.
    Reply {
        /// What the request's message had.
        reply_to: ReplyTo,
        /// What to send, and how.
        message: Outgoing<'a>,
    },
    /// Tell me who and what is there, and then every change.
    Watch {
        /// Of the topics of this node's apps too.
        own: bool,
    },
    /// List the peers.
    Peers {
        /// Not before this node has looked around for the first time.
        settled: bool,
    },
    /// Tell me how you are.
    Status,
    /// Measure the way to a peer.
    Ping {
        /// Exact name or id of the peer.
        to: Text<'a>,
        /// How many times, at least once.
        count: u32,
        /// From one to the next.
        interval: Duration,
        /// How long to wait for each answer.
        timeout: Duration,
    },
    /// Forget a peer and its claim to its name.
    Forget {
        /// Exact name or id of the peer.
        to: Text<'a>,
    },
    /// Show or change the network that the node belongs to.
    Network(NetworkOp<'a>),
    /// Tell me the line that makes another node a member.
    Invite,
    /// Read the configuration again.
    Reload,
}

/// What to do with the network.
#[derive(Debug, PartialEq)]
pub enum NetworkOp<'a> {
    /// Tell which one it is.
    Show,
    /// Become a member of a private one.
    Join {
        /// The secret's line or an invitation, not yet read.
        secret: Text<'a>,
        /// Go on with the members of the private network of before.
        keep: bool,
    },
    /// Talk no more to members of the network of before.
    Settle,
    /// Go back to the open one.
    Leave,
}

/// What a message is about.
#[derive(Debug, PartialEq)]
pub struct Subject<'a> {
    /// A legal topic name.
    pub topic: Text<'a>,
    /// It is a request, and at most so many replies to it are awaited.
    pub replies: Option<NonZeroU32>,
}

/// A message on its way out of an app.
#[derive(Debug, PartialEq)]
pub struct Outgoing<'a> {
    /// The bytes; at most [`limits::PAYLOAD_BYTES`] can be sent.
    pub payload: Payload<'a>,
    /// Report the outcome.
    pub ack: bool,
    /// When to give up.
    pub timeout: Duration,
    /// What to do when it cannot leave at once.
    pub when_full: WhenFull,
    /// What to do while nobody listens.
    pub when_no_listener: WhenNoListener,
}

/// What to do with a message that cannot leave at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Keep it until it can, or until its deadline.
    #[default]
    Wait,
    /// Drop it and say so: for data that ages.
    Drop,
}

/// What to do with a message while nobody listens to its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenNoListener {
    /// Keep it for as long as the app there may just be restarting ([`limits::LISTENER_GRACE`]), then say so.
    #[default]
    End,
    /// Keep it until somebody listens, or until its deadline.
    Wait,
}

/// A piece of JSON text, borrowed from the line where it needed no unescaping.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The bytes of a message, however they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// They came as `text`.
    Text(Text<'a>),
    /// They came as `data`, in base64.
    Data(Vec<u8>),
    /// They came as they are, in a frame.
    Raw(&'a [u8]),
}

impl Payload<'_> {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Data(data) => data,
            Self::Raw(bytes) => bytes,
        }
    }
}

/// Why a line is not a request: the app's mistake.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BadLine {
    /// The id of the request, if it could be read.
    pub id: Option<RequestId>,
    /// What kind of mistake.
    pub code: ErrorCode,
    /// The mistake in words.
    pub message: String,
}

impl BadLine {
    /// A line over the limit; its bytes were not kept.
    pub fn too_long() -> Self {
        let message = format!("a line has at most {} bytes", limits::LINE_BYTES);
        Self { id: None, code: ErrorCode::TooLong, message }
    }

    /// The writing side was closed behind the beginning of a line.
    pub fn unfinished() -> Self {
        let message = "the last line has no newline, so it may be cut and was not read";
        Self { id: None, code: ErrorCode::BadJson, message: message.to_owned() }
    }

    /// The writing side was closed behind the beginning of a frame.
    pub fn unfinished_frame() -> Self {
        let message = "the last frame is not whole, so it was not read";
        Self { id: None, code: ErrorCode::BadRequest, message: message.to_owned() }
    }

    /// A preface of the binary mode that is not ours.
    pub fn other_preface() -> Self {
        let message = "this daemon speaks version 1 of the binary mode: its preface is @ONCE\\0\\0\\1";
        Self { id: None, code: ErrorCode::BadRequest, message: message.to_owned() }
    }
}

impl Request<'_> {
    /// Whether the line has a network secret in it, which is not to stay in memory.
    pub const fn has_secret(&self) -> bool {
        matches!(self.op, Op::Network(NetworkOp::Join { .. }))
    }
}

impl<'a> Request<'a> {
    /// Reads one line, without its newline.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadLine> {
        let fields: Fields<'a> = serde_json::from_slice(line).map_err(|error| bad_json(line, &error))?;
        let id = fields.id;
        let op = fields.into_op().map_err(|(code, message)| BadLine { id, code, message })?;
        Ok(Self { id, op })
    }

    /// Reads the body of a frame, whose header has the id.
    pub(super) fn parse_body(body: &'a [u8], id: Option<RequestId>) -> Result<Self, BadLine> {
        let of_header = |bad: BadLine| BadLine { id, ..bad };
        let fields: Fields<'a> =
            serde_json::from_slice(body).map_err(|error| of_header(bad_json(body, &error)))?;
        let op =
            Fields { id, ..fields }.into_op().map_err(|(code, message)| BadLine { id, code, message })?;
        Ok(Self { id, op })
    }

    /// Reads the body of a frame that opens a channel.
    pub(super) fn parse_opening(body: &'a [u8], id: Option<RequestId>) -> Result<Opening<'a>, BadLine> {
        let of_header = |bad: BadLine| BadLine { id, ..bad };
        let mut fields: Fields<'a> =
            serde_json::from_slice(body).map_err(|error| of_header(bad_json(body, &error)))?;
        let opening = (|| {
            let (to, timeout) = (fields.to.take(), fields.timeout()?);
            fields.id = Some(RequestId(0));
            let when_no_listener = fields.when_no_listener.unwrap_or_default();
            Ok(Opening { to, subject: fields.subject()?, timeout, when_no_listener })
        })();
        opening.map_err(|(code, message)| BadLine { id, code, message })
    }
}

/// Where what is sent on a channel goes.
#[derive(Debug, PartialEq)]
pub struct Opening<'a> {
    /// Exact name or id of a peer; without it everything is published.
    pub to: Option<Text<'a>>,
    /// On which topic, and whether replies are awaited.
    pub subject: Subject<'a>,
    /// When to give up, for each message.
    pub timeout: Duration,
    /// What to do with each while nobody listens.
    pub when_no_listener: WhenNoListener,
}

fn bad_json(line: &[u8], error: &serde_json::Error) -> BadLine {
    if error.classify() != serde_json::error::Category::Data {
        return BadLine { id: None, code: ErrorCode::BadJson, message: format!("not JSON: {error}") };
    }
    let id = serde_json::from_slice::<JustId>(line).ok().and_then(|line| line.id);
    let fields: serde_json::Map<String, Value> = match serde_json::from_slice(line) {
        Ok(fields) => fields,
        Err(_) => {
            return BadLine { id, code: ErrorCode::BadRequest, message: "it is no JSON object".to_owned() };
        }
    };
    // serde does not say which field it is: the first one that does not fit even alone.
    let wrong = fields.into_iter().find_map(|(key, value)| {
        let alone = Value::Object(serde_json::Map::from_iter([(key.clone(), value)]));
        let error = Fields::deserialize(&alone).err()?;
        Some(format!("\"{key}\" is {}", complaint::of(&error.to_string())))
    });
    let message = wrong.unwrap_or_else(|| complaint::of(&error.to_string()));
    BadLine { id, code: ErrorCode::BadRequest, message }
}

#[derive(Deserialize)]
struct JustId {
    id: Option<RequestId>,
}

/// Every field that any request has: a flat structure reads without the buffering that a tagged enum needs.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    op: Option<Text<'a>>,
    id: Option<RequestId>,
    to: Option<Text<'a>>,
    topic: Option<Text<'a>>,
    replies: Option<u32>,
    reply_to: Option<Text<'a>>,
    text: Option<Text<'a>>,
    data: Option<Text<'a>>,
    ack: Option<bool>,
    own: Option<bool>,
    timeout_ms: Option<u64>,
    when_full: Option<WhenFull>,
    when_no_listener: Option<WhenNoListener>,
    settled: Option<bool>,
    count: Option<u32>,
    interval_ms: Option<u64>,
    action: Option<Text<'a>>,
    secret: Option<Text<'a>>,
    keep: Option<bool>,
}

pub(super) type Mistake = (ErrorCode, String);

impl<'a> Fields<'a> {
    fn into_op(mut self) -> Result<Op<'a>, Mistake> {
        let op = self.op.take().ok_or_else(|| bad("a request has an \"op\""))?;
        match op.as_str() {
            "hello" => Ok(Op::Hello),
            "listen" => Ok(Op::Listen { topic: self.topic()? }),
            "unlisten" => Ok(Op::Unlisten { topic: self.topic()? }),
            "send" => {
                let to = self.to.take().ok_or_else(|| bad("send needs \"to\", a name or an id"))?;
                Ok(Op::Send { to, subject: self.subject()?, message: self.outgoing(true)? })
            }
            "publish" => Ok(Op::Publish { subject: self.subject()?, message: self.outgoing(false)? }),
            "reply" => {
                let reply_to = self.reply_to.as_ref().ok_or_else(|| bad("reply needs \"reply_to\""))?;
                let reply_to =
                    reply_to.as_str().parse().map_err(|error: BadReplyTo| bad(&error.to_string()))?;
                Ok(Op::Reply { reply_to, message: self.outgoing(true)? })
            }
            "watch" => Ok(Op::Watch { own: self.own.unwrap_or(false) }),
            "peers" => Ok(Op::Peers { settled: self.settled.unwrap_or(false) }),
            "status" => Ok(Op::Status),
            "ping" => self.ping(),
            "forget" => {
                let to = self.to.ok_or_else(|| bad("forget needs \"to\", a name or an id"))?;
                Ok(Op::Forget { to })
            }
            "network" => self.network(),
            "invite" => Ok(Op::Invite),
            "reload" => Ok(Op::Reload),
            other => Err((ErrorCode::UnknownOp, format!("no op is called {}", complaint::word(other)))),
        }
    }

    fn topic(&self) -> Result<Topic, Mistake> {
        let topic = self.topic.as_ref().ok_or_else(|| bad("it needs a \"topic\""))?;
        topic.as_str().parse().map_err(|error: BadName| bad(&error.to_string()))
    }

    fn subject(&mut self) -> Result<Subject<'a>, Mistake> {
        let topic = self.topic.take().ok_or_else(|| bad("it needs a \"topic\""))?;
        Topic::check(topic.as_str()).map_err(|error| bad(&error.to_string()))?;
        Ok(Subject { topic, replies: checked_replies(self.replies, self.id.is_some())? })
    }

    fn outgoing(self, ack: bool) -> Result<Outgoing<'a>, Mistake> {
        let timeout = self.timeout()?;
        let payload = match (self.text, self.data) {
            (Some(text), None) => Payload::Text(text),
            (None, Some(data)) => Payload::Data(
                BASE64
                    .decode(data.as_str().as_bytes())
                    .map_err(|error| bad(&format!("\"data\" is not base64: {error}")))?,
            ),
            (None, None) => return Err(bad("it needs \"text\", or \"data\" in base64")),
            (Some(_), Some(_)) => return Err(bad("it has both \"text\" and \"data\"")),
        };
        let when_full = self.when_full.unwrap_or_default();
        let when_no_listener = self.when_no_listener.unwrap_or_default();
        if (when_full, when_no_listener) == (WhenFull::Drop, WhenNoListener::Wait) {
            return Err(bad("what is dropped \"when_full\" cannot wait \"when_no_listener\""));
        }
        Ok(Outgoing { payload, ack: self.ack.unwrap_or(ack), timeout, when_full, when_no_listener })
    }

    fn ping(self) -> Result<Op<'a>, Mistake> {
        let timeout = self.timeout()?;
        let count = self.count.unwrap_or(1);
        if count == 0 {
            return Err(bad("\"count\" is at least 1"));
        }
        let interval = Duration::from_millis(self.interval_ms.unwrap_or(1000).clamp(10, 60_000));
        let to = self.to.ok_or_else(|| bad("ping needs \"to\", a name or an id"))?;
        Ok(Op::Ping { to, count, interval, timeout })
    }

    fn network(self) -> Result<Op<'a>, Mistake> {
        let action =
            self.action.ok_or_else(|| bad("network needs an \"action\": show, join, settle or leave"))?;
        Ok(Op::Network(match action.as_str() {
            "show" => NetworkOp::Show,
            "join" => {
                let secret = self.secret.ok_or_else(|| bad("join needs a \"secret\""))?;
                NetworkOp::Join { secret, keep: self.keep.unwrap_or(false) }
            }
            "settle" => NetworkOp::Settle,
            "leave" => NetworkOp::Leave,
            _ => return Err(bad("\"action\" is show, join, settle or leave")),
        }))
    }

    fn timeout(&self) -> Result<Duration, Mistake> {
        checked_timeout(self.timeout_ms)
    }
}

/// The deadline that `timeout_ms` names.
pub(super) fn checked_timeout(timeout_ms: Option<u64>) -> Result<Duration, Mistake> {
    let Some(milliseconds) = timeout_ms else { return Ok(limits::DEFAULT_TIMEOUT) };
    let timeout = Duration::from_millis(milliseconds);
    if timeout.is_zero() || timeout > limits::TIMEOUT_MAX {
        return Err(bad(&format!("\"timeout_ms\" is 1 to {}", limits::TIMEOUT_MAX.as_millis())));
    }
    Ok(timeout)
}

/// How many replies are awaited: only a request with an id can say of what they are.
fn checked_replies(replies: Option<u32>, has_id: bool) -> Result<Option<NonZeroU32>, Mistake> {
    let Some(count) = replies else { return Ok(None) };
    let replies = NonZeroU32::new(count).filter(|count| count.get() <= limits::REPLIES);
    if replies.is_none() {
        return Err(bad(&format!("\"replies\" is 1 to {}", limits::REPLIES)));
    }
    if !has_id {
        return Err(bad("with \"replies\" it needs an \"id\""));
    }
    Ok(replies)
}

pub(super) fn bad(message: &str) -> Mistake {
    (ErrorCode::BadRequest, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::local::Event;

    fn refused(line: &str) -> (ErrorCode, Option<RequestId>) {
        let error = Request::parse(line.as_bytes()).unwrap_err();
        (error.code, error.id)
    }

    #[test]
    fn a_send_borrows_its_text_from_the_line() {
        let line = br#"{"op":"send","id":7,"to":"pi","topic":"chat","text":"hi","unknown":[1]}"#;
        let Request { id, op: Op::Send { to, message, .. } } = Request::parse(line).unwrap() else {
            panic!()
        };
        assert_eq!(id, Some(RequestId(7)));
        assert!(matches!(to.0, Cow::Borrowed("pi")));
        assert!(matches!(message.payload, Payload::Text(Text(Cow::Borrowed("hi")))));
        assert!(message.ack);
        assert_eq!(message.timeout, limits::DEFAULT_TIMEOUT);
    }

    #[test]
    fn each_mistake_is_answered_with_its_own_code_and_the_id_of_the_request() {
        assert_eq!(refused("hello"), (ErrorCode::BadJson, None));
        assert_eq!(refused("{"), (ErrorCode::BadJson, None));
        assert_eq!(refused("[]"), (ErrorCode::BadRequest, None));
        assert_eq!(refused(r#"{"id":1}"#), (ErrorCode::BadRequest, Some(RequestId(1))));
        assert_eq!(refused(r#"{"op":"dance","id":2}"#), (ErrorCode::UnknownOp, Some(RequestId(2))));
        assert_eq!(
            refused(r#"{"op":"listen","topic":7,"id":3}"#),
            (ErrorCode::BadRequest, Some(RequestId(3)))
        );
        for line in [
            r#"{"op":"listen"}"#,
            r#"{"op":"listen","topic":"No"}"#,
            r#"{"op":"send","topic":"a","text":"x"}"#,
            r#"{"op":"send","to":"pi","topic":"a"}"#,
            r#"{"op":"send","to":"pi","topic":"a","text":"x","data":"eA=="}"#,
            r#"{"op":"send","to":"pi","topic":"a","data":"%"}"#,
            r#"{"op":"send","to":"pi","topic":"a","text":"x","timeout_ms":0}"#,
            r#"{"op":"send","to":"pi","topic":"a","text":"x","when_full":"burn"}"#,
            r#"{"op":"send","to":"pi","topic":"a","text":"x","when_no_listener":"burn"}"#,
            r#"{"op":"send","to":"pi","topic":"a","text":"x","when_full":"drop","when_no_listener":"wait"}"#,
            r#"{"op":"ping","to":"pi","count":0}"#,
            r#"{"op":"forget"}"#,
            r#"{"op":"network"}"#,
            r#"{"op":"network","action":"join"}"#,
        ] {
            assert_eq!(refused(line), (ErrorCode::BadRequest, None), "{line}");
        }
    }

    #[test]
    fn a_value_of_a_wrong_type_is_told_with_its_field_on_one_readable_line() {
        for (line, told) in [
            (r#"{"op":"listen","topic":7}"#, r#""topic" is 7, and should be a string"#),
            (r#"{"op":"send","ack":"a\nb"}"#, r#""ack" is a string, and should be true or false"#),
            (r#"{"op":"send","ack":"yes"}"#, r#""ack" is "yes", and should be true or false"#),
            (
                r#"{"op":"ping","count":-1}"#,
                r#""count" is -1, and should be a whole number up to 4294967295"#,
            ),
            (
                r#"{"op":"send","when_full":"burn"}"#,
                r#""when_full" is "burn", and should be `wait` or `drop`"#,
            ),
            (r#"{"op":["status"]}"#, r#""op" is a list, and should be a string"#),
            (r#"{"op":"st\natus"}"#, "no op is called \"st\u{fffd}atus\""),
            ("[]", "it is no JSON object"),
            (r#"{"op":"status","op":"status"}"#, "duplicate field `op`"),
        ] {
            assert_eq!(Request::parse(line.as_bytes()).unwrap_err().message, told, "{line}");
        }
    }

    #[test]
    fn the_answer_to_a_bad_line_is_short_however_long_the_line_is() {
        let long = "\u{7f}".repeat(limits::LINE_BYTES - 100);
        for line in [format!(r#"{{"op":"send","when_full":"{long}"}}"#), format!(r#"{{"id":"{long}"}}"#)] {
            let BadLine { id, code, message } = Request::parse(line.as_bytes()).unwrap_err();
            let answer = Event::Error { id, code, message: message.into(), hint: "".into() };
            assert!(serde_json::to_vec(&answer).unwrap().len() < 2000);
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let _ = Request::parse(&bytes);
        });
    }
}
