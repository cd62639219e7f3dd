//! What travels on the Unix socket: one JSON object a line, both ways (socket.md).
//!
//! [`Request::parse`] reads what an app wrote; [`Event`] is what the daemon writes, and what the client library reads
//! back. Unknown fields are ignored both ways. A message is parsed and written without an allocation of its own as
//! long as its text needs no escapes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{BadName, NodeId, RequestId, Topic};
use crate::limits;

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
        /// What to send, and how.
        message: Outgoing<'a>,
    },
    /// One message to the listeners on every peer.
    Publish {
        /// What to send, and how.
        message: Outgoing<'a>,
    },
    /// Tell me who and what is there, and then every change.
    Watch,
    /// List the peers.
    Peers,
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
    /// Show or change the network that the node belongs to.
    Network(NetworkOp<'a>),
}

/// What to do with the network.
#[derive(Debug, PartialEq)]
pub enum NetworkOp<'a> {
    /// Tell which one it is.
    Show,
    /// Become a member of a private one.
    Join {
        /// The secret's line, not yet read.
        secret: Text<'a>,
    },
    /// Go back to the open one.
    Leave,
}

/// A message on its way out of an app.
#[derive(Debug, PartialEq)]
pub struct Outgoing<'a> {
    /// A legal topic name.
    pub topic: Text<'a>,
    /// The bytes; at most [`limits::PAYLOAD_BYTES`] can be sent.
    pub payload: Payload<'a>,
    /// Report the outcome.
    pub ack: bool,
    /// When to give up.
    pub timeout: Duration,
    /// What to do when it cannot leave at once.
    pub when_full: WhenFull,
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
}

impl Payload<'_> {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Data(data) => data,
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

    /// The preface of the binary mode.
    pub fn binary() -> Self {
        let message = "this daemon speaks JSON lines only: start with {".to_owned();
        Self { id: None, code: ErrorCode::BadRequest, message }
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
}

fn bad_json(line: &[u8], error: &serde_json::Error) -> BadLine {
    if error.classify() != serde_json::error::Category::Data {
        return BadLine { id: None, code: ErrorCode::BadJson, message: format!("not JSON: {error}") };
    }
    let id = serde_json::from_slice::<JustId>(line).ok().and_then(|line| line.id);
    // It may repeat a value that fills the whole line, and escaped twice that is no legal line any more.
    let message = shortened(&error.to_string(), MESSAGE_CHARACTERS);
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
    text: Option<Text<'a>>,
    data: Option<Text<'a>>,
    ack: Option<bool>,
    timeout_ms: Option<u64>,
    when_full: Option<WhenFull>,
    count: Option<u32>,
    interval_ms: Option<u64>,
    action: Option<Text<'a>>,
    secret: Option<Text<'a>>,
}

type Mistake = (ErrorCode, String);

impl<'a> Fields<'a> {
    fn into_op(self) -> Result<Op<'a>, Mistake> {
        let op = self.op.as_ref().ok_or_else(|| bad("a request has an \"op\""))?;
        match op.as_str() {
            "hello" => Ok(Op::Hello),
            "listen" => Ok(Op::Listen { topic: self.topic()? }),
            "unlisten" => Ok(Op::Unlisten { topic: self.topic()? }),
            "send" => {
                let (to, message) = self.outgoing(true)?;
                Ok(Op::Send { to: to.ok_or_else(|| bad("send needs \"to\", a name or an id"))?, message })
            }
            "publish" => Ok(Op::Publish { message: self.outgoing(false)?.1 }),
            "watch" => Ok(Op::Watch),
            "peers" => Ok(Op::Peers),
            "status" => Ok(Op::Status),
            "ping" => self.ping(),
            "network" => self.network(),
            other => Err((
                ErrorCode::UnknownOp,
                format!("no op is called {:?}", shortened(other, WORD_CHARACTERS)),
            )),
        }
    }

    fn topic(&self) -> Result<Topic, Mistake> {
        let topic = self.topic.as_ref().ok_or_else(|| bad("it needs a \"topic\""))?;
        topic.as_str().parse().map_err(|error: BadName| bad(&error.to_string()))
    }

    fn outgoing(self, ack: bool) -> Result<(Option<Text<'a>>, Outgoing<'a>), Mistake> {
        let timeout = self.timeout()?;
        let topic = self.topic.ok_or_else(|| bad("it needs a \"topic\""))?;
        Topic::check(topic.as_str()).map_err(|error| bad(&error.to_string()))?;
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
        Ok((self.to, Outgoing { topic, payload, ack: self.ack.unwrap_or(ack), timeout, when_full }))
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
        let action = self.action.ok_or_else(|| bad("network needs an \"action\": show, join or leave"))?;
        Ok(Op::Network(match action.as_str() {
            "show" => NetworkOp::Show,
            "join" => NetworkOp::Join { secret: self.secret.ok_or_else(|| bad("join needs a \"secret\""))? },
            "leave" => NetworkOp::Leave,
            _ => return Err(bad("\"action\" is show, join or leave")),
        }))
    }

    fn timeout(&self) -> Result<Duration, Mistake> {
        let Some(milliseconds) = self.timeout_ms else { return Ok(limits::DEFAULT_TIMEOUT) };
        let timeout = Duration::from_millis(milliseconds);
        if timeout.is_zero() || timeout > limits::TIMEOUT_MAX {
            return Err(bad(&format!("\"timeout_ms\" is 1 to {}", limits::TIMEOUT_MAX.as_millis())));
        }
        Ok(timeout)
    }
}

fn bad(message: &str) -> Mistake {
    (ErrorCode::BadRequest, message.to_owned())
}

/// As much of an unknown word as an error should repeat.
const WORD_CHARACTERS: usize = 32;
/// As much of a parser's complaint as an error should repeat.
const MESSAGE_CHARACTERS: usize = 200;

fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// What kind of mistake or trouble an error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is not JSON.
    BadJson,
    /// The line is longer than [`limits::LINE_BYTES`].
    TooLong,
    /// The op has a name that this daemon does not know.
    UnknownOp,
    /// A field is missing or has a value that it cannot have.
    BadRequest,
    /// Nobody ever had that name or id.
    NoPeer,
    /// More than one peer fits.
    Ambiguous,
    /// This app may not do that.
    Denied,
    /// A limit is reached.
    Limit,
    /// The app did not read; the connection is closed.
    SlowConsumer,
    /// The daemon's own trouble.
    Internal,
}

/// What became of a message, as its app learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is in the queue of at least one listening app there.
    Delivered,
    /// It left this node; nobody asked for more.
    Sent,
    /// Nobody listens to the topic there.
    NoListener,
    /// The queues of all who listen are full, or it could not leave at once and was to be dropped then.
    Busy,
    /// It is larger than a message may be.
    TooBig,
    /// No usable path to the peer within the deadline.
    Unreachable,
    /// It was sent, and no answer came within the deadline.
    Timeout,
}

/// How we reach a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// It is ourselves.
    Local,
    /// On a network that we are on too.
    Lan,
    /// Across routers.
    Direct,
    /// Through another peer.
    Relay,
}

/// A peer in an event: what people call it, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRef<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its id.
    #[serde(with = "id_text")]
    pub id: NodeId,
}

/// A path in the list of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// What kind.
    pub kind: PathKind,
    /// The far address.
    pub addr: SocketAddr,
    /// The id of the peer that relays, if one does.
    pub via: Option<String>,
}

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// There is a session.
    Online,
    /// We are trying.
    Connecting,
    /// There is none, and nothing to try.
    Offline,
}

/// One peer of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo<'a> {
    /// Its id.
    #[serde(with = "id_text")]
    pub id: NodeId,
    /// Its name.
    pub name: Cow<'a, str>,
    /// Whether it is there.
    pub state: PeerState,
    /// Why it is not, when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Cow<'a, str>>,
    /// How we reach it, when we do.
    pub path: Option<PathInfo>,
    /// The smoothed round trip in microseconds.
    pub rtt_us: Option<u64>,
    /// When it was heard last, RFC 3339.
    pub last_seen: Option<String>,
    /// What its apps listen to.
    pub topics: Vec<Cow<'a, str>>,
    /// Another peer had this name first: messages by name go there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
}

/// Round trips in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min: u64,
    /// The one in the middle.
    pub p50: u64,
    /// The longest.
    pub max: u64,
}

/// What became of one copy of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerOutcome<'a> {
    /// Whose copy.
    #[serde(borrow)]
    pub peer: PeerRef<'a>,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a request ended. Read in this order: each has a field that those after it lack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ending<'a> {
    /// Of a `send`.
    Send {
        /// What became of it.
        outcome: Outcome,
        /// To whom it was.
        #[serde(borrow)]
        peer: PeerRef<'a>,
        /// How it went, if it did.
        path: Option<PathKind>,
        /// From its first departure to the answer, in microseconds.
        rtt_us: Option<u64>,
    },
    /// Of a `ping`.
    Ping {
        /// Whom.
        peer: PeerRef<'a>,
        /// How many questions.
        sent: u64,
        /// How many answers.
        received: u64,
        /// How long they took, if any came.
        rtt_us: Option<RoundTrips>,
    },
    /// Of a `publish`.
    Publish {
        /// How many peers it was sent to; apps of this node are not counted.
        sent: u64,
        /// What became of each copy, if that was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcomes: Option<Vec<PeerOutcome<'a>>>,
    },
}

/// One line from the daemon to an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ev", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// Done; what was asked for, if anything was.
    Ok {
        /// Which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// To `hello`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hello: Option<Hello<'a>>,
        /// To `status`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<Box<Status<'a>>>,
        /// To `network`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<NetworkInfo<'a>>,
    },
    /// Not done.
    Error {
        /// Which request, if it was read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// What kind of trouble.
        code: ErrorCode,
        /// What failed and why.
        message: Cow<'a, str>,
        /// What to try.
        hint: Cow<'a, str>,
    },
    /// The end of a `send`, `publish` or `ping`.
    Result {
        /// Which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// How it ended.
        #[serde(flatten, borrow)]
        ending: Ending<'a>,
    },
    /// One peer of the list.
    Peer(PeerInfo<'a>),
    /// A message on a topic that the app listens to.
    Message {
        /// Who sent it.
        from: PeerRef<'a>,
        /// On which topic.
        topic: Cow<'a, str>,
        /// The bytes, when they are UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Cow<'a, str>>,
        /// The bytes in base64, when they are not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<Cow<'a, str>>,
        /// How it came.
        path: PathKind,
        /// When it came, RFC 3339.
        at: Cow<'a, str>,
    },
    /// A peer is there.
    Enter {
        /// Which.
        peer: PeerRef<'a>,
        /// How we reach it.
        path: PathKind,
        /// It was there before the app asked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
    },
    /// A peer is gone.
    Exit {
        /// Which.
        peer: PeerRef<'a>,
        /// How we reached it last.
        path: PathKind,
    },
    /// A peer is reached in another way.
    Path {
        /// Which.
        peer: PeerRef<'a>,
        /// How.
        path: PathKind,
    },
    /// An app there listens to a topic.
    Listen {
        /// Where.
        peer: PeerRef<'a>,
        /// To what.
        topic: Cow<'a, str>,
        /// It did before the app asked.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
    },
    /// No app there listens to it any more.
    Unlisten {
        /// Where.
        peer: PeerRef<'a>,
        /// To what.
        topic: Cow<'a, str>,
    },
    /// One answer to a `ping`, or none.
    Pong {
        /// Which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// Who answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<PeerRef<'a>>,
        /// Which question, from 1.
        seq: u64,
        /// How long it took, in microseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rtt_us: Option<u64>,
        /// How it went.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathKind>,
        /// The far address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        addr: Option<SocketAddr>,
        /// Why there is no answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Outcome>,
    },
    /// The app did not read fast enough; this much was dropped here.
    Lost {
        /// How many messages.
        messages: u64,
        /// How many bytes of payload.
        bytes: u64,
    },
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello<'a> {
    /// The version of this protocol.
    pub v: u32,
    /// The daemon's version.
    pub version: Cow<'a, str>,
    /// The node.
    #[serde(borrow)]
    pub node: PeerRef<'a>,
    /// Bytes of the largest payload.
    pub payload_bytes: u64,
    /// Bytes of the longest line.
    pub line_bytes: u64,
}

/// The answer to `network`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo<'a> {
    /// `open` or `private`.
    pub kind: Cow<'a, str>,
    /// Eight characters that are equal on all members, and tell nothing of the secret.
    pub fingerprint: Option<Cow<'a, str>>,
    /// Where the secret comes from: `state`, or the file that was named at start; none in the open network.
    pub source: Option<Cow<'a, str>>,
}

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status<'a> {
    /// The version of this object's shape.
    pub v: u32,
    /// The node's name.
    pub name: Cow<'a, str>,
    /// Its id.
    #[serde(with = "id_text")]
    pub id: NodeId,
    /// `open` or `private`.
    pub network: Cow<'a, str>,
    /// The daemon's version.
    pub version: Cow<'a, str>,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The addresses that its session sockets are bound to.
    pub udp: Vec<SocketAddr>,
    /// The interfaces it uses.
    pub interfaces: Vec<InterfaceInfo<'a>>,
    /// The servers that introduce it: none in this version.
    pub rendezvous: Vec<serde_json::Value>,
    /// How many peers.
    pub peers: PeerCounts,
    /// How many apps are connected, the asker included.
    pub apps: u64,
    /// Everything that was dropped or refused, by reason.
    pub counters: Vec<(Cow<'a, str>, u64)>,
    /// What is well and what is not.
    pub health: Vec<Health<'a>>,
}

/// One interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceInfo<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its addresses.
    pub addrs: Vec<std::net::IpAddr>,
}

/// How many peers are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCounts {
    /// With a session.
    pub online: u64,
    /// Without one, but we are trying.
    #[serde(default)]
    pub connecting: u64,
    /// Without one.
    pub offline: u64,
}

/// One check of the daemon's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health<'a> {
    /// What was looked at.
    pub check: Cow<'a, str>,
    /// How it is.
    pub state: HealthState,
    /// Why.
    pub why: Cow<'a, str>,
    /// What mends it; empty if nothing needs to be mended.
    pub fix: Cow<'a, str>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// As it should be.
    Ok,
    /// It works, but not as it should.
    Warn,
    /// It does not work.
    Fail,
}

/// A node id as its 52 characters.
pub(crate) mod id_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::id::NodeId;

    pub(crate) fn serialize<S: Serializer>(id: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> (ErrorCode, Option<RequestId>) {
        let error = Request::parse(line.as_bytes()).unwrap_err();
        (error.code, error.id)
    }

    #[test]
    fn a_send_borrows_its_text_from_the_line() {
        let line = br#"{"op":"send","id":7,"to":"pi","topic":"chat","text":"hi","unknown":[1]}"#;
        let Request { id, op: Op::Send { to, message } } = Request::parse(line).unwrap() else { panic!() };
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
            r#"{"op":"ping","to":"pi","count":0}"#,
            r#"{"op":"network"}"#,
            r#"{"op":"network","action":"join"}"#,
        ] {
            assert_eq!(refused(line), (ErrorCode::BadRequest, None), "{line}");
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
    fn the_shapes_that_scripts_rely_on_are_as_they_are_written_down() {
        let peer = PeerRef { name: "pi".into(), id: NodeId([0; 32]) };
        let id = "a".repeat(52);
        let json = |event: &Event<'_>| serde_json::to_string(event).unwrap();
        let send = Ending::Send {
            outcome: Outcome::NoListener,
            peer: peer.clone(),
            path: Some(PathKind::Lan),
            rtt_us: Some(812),
        };
        assert_eq!(
            json(&Event::Result { id: Some(RequestId(7)), ending: send }),
            format!(
                r#"{{"ev":"result","id":7,"outcome":"no-listener","peer":{{"name":"pi","id":"{id}"}},"path":"lan","rtt_us":812}}"#
            )
        );
        assert_eq!(
            json(&Event::Enter { peer: peer.clone(), path: PathKind::Lan, snapshot: true }),
            format!(r#"{{"ev":"enter","peer":{{"name":"pi","id":"{id}"}},"path":"lan","snapshot":true}}"#)
        );
        let lost = Event::Pong {
            id: None,
            peer: None,
            seq: 2,
            rtt_us: None,
            path: None,
            addr: None,
            error: Some(Outcome::Timeout),
        };
        assert_eq!(json(&lost), r#"{"ev":"pong","seq":2,"error":"timeout"}"#);
    }

    #[test]
    fn what_the_daemon_writes_the_client_library_reads() {
        let peer = PeerRef { name: "pi".into(), id: NodeId([3; 32]) };
        let trips = RoundTrips { min: 1, p50: 2, max: 3 };
        for ending in [
            Ending::Send { outcome: Outcome::Delivered, peer: peer.clone(), path: None, rtt_us: Some(1) },
            Ending::Publish {
                sent: 3,
                outcomes: Some(vec![PeerOutcome { peer: peer.clone(), outcome: Outcome::Busy }]),
            },
            Ending::Ping { peer, sent: 1, received: 1, rtt_us: Some(trips) },
        ] {
            let event = Event::Result { id: Some(RequestId(1)), ending };
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event<'_>>(&json).unwrap(), event, "{json}");
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let _ = Request::parse(&bytes);
        });
    }
}
