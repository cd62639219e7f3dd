//! What the daemon tells an app, one line at a time (socket.md).

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Hello, NetworkInfo, Reloaded, Status};
use crate::id::{NodeId, RequestId};

/// What kind of mistake or trouble an error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is not JSON.
    BadJson,
    /// The line is longer than [`LINE_BYTES`](crate::limits::LINE_BYTES).
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

impl Outcome {
    /// It in words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Sent => "sent",
            Self::NoListener => "nobody listens",
            Self::Busy => "busy",
            Self::TooBig => "too big",
            Self::Unreachable => "unreachable",
            Self::Timeout => "no answer",
        }
    }
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
    /// It is there by the network secret of before: it has not shown that it has the new one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub old_secret: bool,
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
        /// How many replies came, if any were asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replies: Option<u32>,
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
        /// How many replies came, if any were asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replies: Option<u32>,
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
        /// To `reload`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reload: Option<Reloaded<'a>>,
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
    /// To `invite`.
    Invitation {
        /// Which request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<RequestId>,
        /// What `network` with `join` takes elsewhere.
        #[serde(borrow)]
        line: SecretLine<'a>,
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
        /// What a `reply` names, if the sender waits for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply_to: Option<Cow<'a, str>>,
    },
    /// A reply to a request of the app's.
    Reply {
        /// Which request.
        id: RequestId,
        /// Who replied.
        from: PeerRef<'a>,
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
    /// In binary mode: whose messages and replies carry this number from now on.
    Source {
        /// The number.
        chan: u16,
        /// From whom they are.
        from: PeerRef<'a>,
        /// On which topic; none for replies.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<Cow<'a, str>>,
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

impl Event<'_> {
    /// Which request it answers.
    pub(crate) const fn id(&self) -> Option<RequestId> {
        match self {
            Self::Ok { id, .. }
            | Self::Error { id, .. }
            | Self::Result { id, .. }
            | Self::Invitation { id, .. }
            | Self::Pong { id, .. } => *id,
            Self::Reply { id, .. } => Some(*id),
            Self::Peer(_)
            | Self::Message { .. }
            | Self::Source { .. }
            | Self::Enter { .. }
            | Self::Exit { .. }
            | Self::Path { .. }
            | Self::Listen { .. }
            | Self::Unlisten { .. }
            | Self::Lost { .. } => None,
        }
    }
}

/// A line with a secret in it, which no `Debug` prints.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretLine<'a>(pub Cow<'a, str>);

impl fmt::Debug for SecretLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretLine(..)")
    }
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
            replies: None,
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
    fn an_invitation_is_told_in_full_to_its_asker_and_in_no_log() {
        let line = SecretLine("atonce-secret-abc".into());
        let event = Event::Invitation { id: Some(RequestId(1)), line };
        let json = r#"{"ev":"invitation","id":1,"line":"atonce-secret-abc"}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<Event<'_>>(json).unwrap(), event);
        assert!(!format!("{event:?}").contains("abc"));
    }

    #[test]
    fn what_the_daemon_writes_the_client_library_reads() {
        let peer = PeerRef { name: "pi".into(), id: NodeId([3; 32]) };
        let trips = RoundTrips { min: 1, p50: 2, max: 3 };
        for ending in [
            Ending::Send {
                outcome: Outcome::Delivered,
                peer: peer.clone(),
                path: None,
                rtt_us: Some(1),
                replies: Some(2),
            },
            Ending::Publish {
                sent: 3,
                outcomes: Some(vec![PeerOutcome { peer: peer.clone(), outcome: Outcome::Busy }]),
                replies: Some(1),
            },
            Ending::Ping { peer, sent: 1, received: 1, rtt_us: Some(trips) },
        ] {
            let event = Event::Result { id: Some(RequestId(1)), ending };
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event<'_>>(&json).unwrap(), event, "{json}");
        }
    }
}
