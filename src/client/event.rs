//! What happens without being asked for, and the queue in which it waits while an answer is awaited.

use std::borrow::Cow;
use std::collections::VecDeque;

use data_encoding::BASE64;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Error, owned};
use crate::limits;
use crate::wire::local;
use crate::wire::local::{PathKind, PeerRef};

/// Changes of presence that are kept while an answer is awaited: the whole state of a network of 4096 peers with 15
/// topics each.
pub const PRESENCE_KEPT: usize = 65_536;

/// Something that happened without being asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "ev", rename_all = "kebab-case")]
pub enum Event {
    /// A message on a topic that we listen to.
    Message(Message),
    /// A peer is there.
    Enter {
        /// Which.
        peer: PeerRef<'static>,
        /// How we reach it.
        path: PathKind,
        /// It was there before we asked.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
    },
    /// A peer is gone.
    Exit {
        /// Which.
        peer: PeerRef<'static>,
        /// How we reached it last.
        path: PathKind,
    },
    /// A peer is reached in another way.
    Path {
        /// Which.
        peer: PeerRef<'static>,
        /// How.
        path: PathKind,
    },
    /// An app there listens to a topic.
    Listen {
        /// Where.
        peer: PeerRef<'static>,
        /// To what.
        topic: String,
        /// It did before we asked.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
    },
    /// No app there listens to it any more.
    Unlisten {
        /// Where.
        peer: PeerRef<'static>,
        /// To what.
        topic: String,
    },
    /// We did not read fast enough; this much was dropped here.
    Lost {
        /// How many messages.
        messages: u64,
        /// How many bytes of payload.
        bytes: u64,
    },
    /// The connection to the daemon ended, and is made anew as soon as that can be. What others send meanwhile, we do
    /// not get.
    Disconnected,
    /// There is a connection again, and on it everything that we listen to. If we watch, presence comes anew after this,
    /// as after [`Client::watch`](super::Client::watch): what was known of it before is void. It may be another daemon,
    /// of another version: [`Client::hello`](super::Client::hello) is its.
    Reconnected,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who sent it; its id is proved, its name is only what it calls itself.
    pub from: PeerRef<'static>,
    /// On which topic.
    pub topic: String,
    /// The bytes.
    #[serde(flatten, serialize_with = "text_or_data")]
    pub payload: Vec<u8>,
    /// How it came.
    pub path: PathKind,
    /// When it came, RFC 3339.
    pub at: String,
    /// Its sender waits for a reply: what [`Client::reply`](super::Client::reply) takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyTo>,
}

/// What a reply names: where the message came from, and which one it was, as only the daemon reads it. Any connection to
/// the same daemon may reply to it, as often as it likes, until its sender waits no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct ReplyTo(String);

impl ReplyTo {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ReplyTo {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// A reply to a message of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reply {
    /// Who replied; its id is proved, its name is only what it calls itself.
    pub from: PeerRef<'static>,
    /// The bytes.
    #[serde(flatten, serialize_with = "text_or_data")]
    pub payload: Vec<u8>,
    /// How it came.
    pub path: PathKind,
    /// When it came, RFC 3339.
    pub at: String,
}

/// The reply that an event is; the event itself if it is something else.
pub(super) fn reply_of(event: local::Event<'_>) -> Result<Result<Reply, local::Event<'_>>, Error> {
    let local::Event::Reply { from, text, data, path, at, .. } = event else { return Ok(Err(event)) };
    Ok(Ok(Reply { from: owned(from), payload: payload_of(text, data)?, path, at: at.into_owned() }))
}

fn payload_of(text: Option<Cow<'_, str>>, data: Option<Cow<'_, str>>) -> Result<Vec<u8>, Error> {
    match (text, data) {
        (Some(text), _) => Ok(text.into_owned().into_bytes()),
        (None, Some(data)) => BASE64
            .decode(data.as_bytes())
            .map_err(|error| Error::Protocol(format!("\"data\" is not base64: {error}"))),
        (None, None) => Ok(Vec::new()),
    }
}

fn text_or_data<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    match std::str::from_utf8(payload) {
        Ok(text) => map.serialize_entry("text", text)?,
        Err(_) => map.serialize_entry("data", &BASE64.encode(payload))?,
    }
    map.end()
}

pub(super) fn event_of(event: local::Event<'_>) -> Result<Option<Event>, Error> {
    Ok(Some(match event {
        local::Event::Message { from, topic, text, data, path, at, reply_to } => Event::Message(Message {
            from: owned(from),
            topic: topic.into_owned(),
            payload: payload_of(text, data)?,
            path,
            at: at.into_owned(),
            reply_to: reply_to.map(|text| ReplyTo(text.into_owned())),
        }),
        local::Event::Enter { peer, path, snapshot } => Event::Enter { peer: owned(peer), path, snapshot },
        local::Event::Exit { peer, path } => Event::Exit { peer: owned(peer), path },
        local::Event::Path { peer, path } => Event::Path { peer: owned(peer), path },
        local::Event::Listen { peer, topic, snapshot } => {
            Event::Listen { peer: owned(peer), topic: topic.into_owned(), snapshot }
        }
        local::Event::Unlisten { peer, topic } => {
            Event::Unlisten { peer: owned(peer), topic: topic.into_owned() }
        }
        local::Event::Lost { messages, bytes } => Event::Lost { messages, bytes },
        local::Event::Ok { .. }
        | local::Event::Error { .. }
        | local::Event::Result { .. }
        | local::Event::Invitation { .. }
        | local::Event::Peer(_)
        | local::Event::Reply { .. }
        | local::Event::Source { .. }
        | local::Event::Pong { .. } => return Ok(None),
    }))
}

/// The events that came while an answer was awaited.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    events: VecDeque<Event>,
    messages: usize,
    bytes: usize,
    lost_messages: u64,
    lost_bytes: u64,
}

impl Waiting {
    pub(super) fn push(&mut self, event: Event) -> Result<(), Error> {
        if let Event::Message(message) = &event {
            let bytes = message.payload.len();
            if self.messages >= limits::CLIENT_QUEUE_MESSAGES
                || self.bytes + bytes > limits::CLIENT_QUEUE_BYTES
            {
                self.lost_messages += 1;
                self.lost_bytes += bytes as u64;
                return Ok(());
            }
            if let Some(lost) = self.take_lost() {
                self.events.push_back(lost);
            }
            self.messages += 1;
            self.bytes += bytes;
        } else if self.events.len() - self.messages >= PRESENCE_KEPT {
            return Err(Error::Behind);
        }
        self.events.push_back(event);
        Ok(())
    }

    /// Tells of the connection. One that was there only between two things that the app reads is not told.
    pub(super) fn push_connection(&mut self, event: Event) {
        if event == Event::Disconnected && self.events.back() == Some(&Event::Reconnected) {
            self.events.pop_back();
        } else {
            self.events.push_back(event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let Some(event) = self.events.pop_front() else { return self.take_lost() };
        if let Event::Message(message) = &event {
            self.messages -= 1;
            self.bytes -= message.payload.len();
        }
        Some(event)
    }

    pub(super) fn take_lost(&mut self) -> Option<Event> {
        let messages = std::mem::take(&mut self.lost_messages);
        let bytes = std::mem::take(&mut self.lost_bytes);
        (messages > 0).then_some(Event::Lost { messages, bytes })
    }
}
