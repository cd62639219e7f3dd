//! How an app is spoken to: the same events as lines of JSON or as frames, and what comes of other apps.
//!
//! In frames a message has a number in the place of its sender and topic. The number is announced before it is used
//! first, and again when it means somebody else or the sender has another name.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::core::clock_text::write_time;
use crate::id::{AppChannel, NodeId, NodeName, RequestId, Topic, TopicNumber};
use crate::limits;
use crate::wire::local::{Event, PathKind, PeerRef, ReplyTo, WhenNoListener, frame, text_or_data};

/// The mode of one app's connection.
#[derive(Debug, Default)]
pub(crate) enum Encoder {
    /// One JSON object a line.
    #[default]
    Lines,
    /// Frames.
    Frames(Box<Channels>),
}

/// The numbers that stand for names, each way.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// Where the app's messages go.
    pub(crate) destinations: BTreeMap<AppChannel, Arc<Destination>>,
    sources: Sources,
}

impl Channels {
    /// Bytes that they take, about.
    pub(crate) fn memory(&self) -> usize {
        (self.destinations.len() + self.sources.by_number.len()) * CHANNEL_BYTES
    }
}

/// Bytes of one channel, with its names: each way a quarter of a kilobyte.
const CHANNEL_BYTES: usize = 256;

/// Where a channel goes.
#[derive(Debug)]
pub(crate) struct Destination {
    /// Name or id of a peer; none: it is published.
    pub(crate) to: Option<String>,
    pub(crate) topic: Topic,
    pub(crate) replies: Option<NonZeroU32>,
    pub(crate) timeout: Duration,
    pub(crate) when_no_listener: WhenNoListener,
}

/// A message or a reply on its way into the queues of apps.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) from: NodeId,
    pub(crate) name: &'a NodeName,
    pub(crate) subject: Subject<'a>,
    pub(crate) path: PathKind,
    /// The time, since 1970.
    pub(crate) at: Duration,
    pub(crate) payload: &'a [u8],
}

/// Why it comes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// The app listens to the topic.
    Topic { number: TopicNumber, topic: &'a Topic, reply_to: Option<ReplyTo> },
    /// The app asked.
    ReplyTo(RequestId),
}

/// The memory in which a line's words are written.
#[derive(Debug, Default)]
pub(crate) struct Words {
    at: String,
    data: String,
    reply_to: String,
}

impl<'a> Incoming<'a> {
    /// The same as an event.
    pub(crate) fn event(&self, words: &'a mut Words) -> Event<'a> {
        use std::fmt::Write;

        write_time(self.at, &mut words.at);
        let (text, data) = text_or_data(self.payload, &mut words.data);
        let from = PeerRef { name: self.name.as_str().into(), id: self.from };
        let (text, data) = (text.map(Into::into), data.map(Into::into));
        let (path, at) = (self.path, words.at.as_str().into());
        match self.subject {
            Subject::Topic { topic, reply_to, .. } => {
                words.reply_to.clear();
                let reply_to = reply_to.map(|reply_to| {
                    // Writing into a String cannot fail.
                    let _ = write!(words.reply_to, "{reply_to}");
                    words.reply_to.as_str().into()
                });
                Event::Message { from, topic: topic.as_str().into(), text, data, path, at, reply_to }
            }
            Subject::ReplyTo(id) => Event::Reply { id, from, text, data, path, at },
        }
    }
}

impl Encoder {
    pub(crate) const fn is_frames(&self) -> bool {
        matches!(self, Self::Frames(_))
    }

    /// Writes an event that is no message.
    pub(crate) fn write(&self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Lines => {
                // Nothing in an event fails to be JSON, and a Vec takes all.
                let written = serde_json::to_writer(&mut *out, event);
                debug_assert!(written.is_ok());
                out.push(b'\n');
            }
            Self::Frames(_) => frame::push_event(out, event),
        }
    }

    /// Writes a message; `event` is the same for lines.
    pub(crate) fn write_incoming(
        &mut self,
        incoming: &Incoming<'_>,
        event: Option<&Event<'_>>,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::Lines => {
                if let Some(event) = event {
                    self.write(event, out);
                }
            }
            Self::Frames(channels) => channels.sources.write(incoming, out),
        }
    }
}

/// The sources that an app knows by a number, from 1.
#[derive(Debug, Default)]
struct Sources {
    by_key: BTreeMap<SourceKey, usize>,
    by_number: Vec<Source>,
    /// When all numbers are taken, the one that is given away next.
    oldest: usize,
}

/// From whom, and on which topic; replies are on none.
type SourceKey = (NodeId, Option<TopicNumber>);

#[derive(Debug)]
struct Source {
    key: SourceKey,
    /// As it was announced.
    name: NodeName,
}

impl Sources {
    fn write(&mut self, incoming: &Incoming<'_>, out: &mut Vec<u8>) {
        let Incoming { from, name, subject, path, at, payload } = incoming;
        let topic = match subject {
            Subject::Topic { number, topic, .. } => Some((*number, *topic)),
            Subject::ReplyTo(_) => None,
        };
        let (index, is_known) = self.index((*from, topic.map(|topic| topic.0)), name);
        let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
        if !is_known {
            let from = PeerRef { name: name.as_str().into(), id: *from };
            let topic = topic.map(|(_, topic)| topic.as_str().into());
            frame::push_event(out, &Event::Source { chan: number, from, topic });
        }
        let chan = AppChannel(number);
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        match subject {
            Subject::Topic { reply_to, .. } => {
                frame::push_message(out, chan, *path, at_ms, *reply_to, payload);
            }
            Subject::ReplyTo(id) => frame::push_reply(out, *id, chan, *path, at_ms, payload),
        }
    }

    /// Where the source stands, and whether it was announced as that.
    fn index(&mut self, key: SourceKey, name: &NodeName) -> (usize, bool) {
        if let Some(index) = self.by_key.get(&key).copied() {
            let Some(source) = self.by_number.get_mut(index) else { return (index, false) };
            let is_known = source.name == *name;
            if !is_known {
                source.name = name.clone();
            }
            return (index, is_known);
        }
        let source = Source { key, name: name.clone() };
        let index = if self.by_number.len() < limits::SOURCES {
            self.by_number.push(source);
            self.by_number.len() - 1
        } else {
            let index = self.oldest;
            self.oldest = (self.oldest + 1) % limits::SOURCES;
            self.by_key.remove(&self.by_number[index].key);
            self.by_number[index] = source;
            index
        };
        self.by_key.insert(key, index);
        (index, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_announced_once_until_its_number_or_name_is_another_one() {
        let (name, other) = ("pi".parse().unwrap(), "po".parse().unwrap());
        let mut sources = Sources::default();
        let key = |n: u64| (NodeId([1; 32]), Some(TopicNumber(n)));
        assert_eq!(sources.index(key(0), &name), (0, false));
        assert_eq!(sources.index(key(0), &name), (0, true));
        assert_eq!(sources.index(key(0), &other), (0, false));
        assert_eq!(sources.index((NodeId([1; 32]), None), &other), (1, false));
        for n in 1..limits::SOURCES as u64 - 1 {
            assert_eq!(sources.index(key(n), &name), (n as usize + 1, false));
        }
        // The oldest one gives its number away.
        assert_eq!(sources.index(key(9_999), &name), (0, false));
        assert_eq!(sources.index(key(9_999), &name), (0, true));
        assert_eq!(sources.index(key(0), &other), (1, false));
        assert_eq!(sources.by_key.len(), limits::SOURCES);
        assert_eq!(sources.by_number.len(), limits::SOURCES);
    }
}
