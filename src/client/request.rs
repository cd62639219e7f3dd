//! What the client asks: one line for every request.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::ReplyTo;
use crate::id::RequestId;
use crate::limits;
use crate::wire::local::{WhenFull, WhenNoListener, text_or_data};

/// How a message is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions {
    /// Ask for the outcome; without it the message leaves once, and nobody tells what became of it.
    pub ack: bool,
    /// When to give up.
    pub timeout: Duration,
    /// What to do when it cannot leave at once.
    pub when_full: WhenFull,
    /// What to do while nobody listens.
    pub when_no_listener: WhenNoListener,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            ack: true,
            timeout: limits::DEFAULT_TIMEOUT,
            when_full: WhenFull::Wait,
            when_no_listener: WhenNoListener::End,
        }
    }
}

/// How a question is to be sent, and how long its replies may take.
#[derive(Clone, Copy, Debug)]
pub struct RequestOptions {
    /// How long to wait, for the message to arrive and for the replies together.
    pub timeout: Duration,
    /// What to do when it cannot leave at once.
    pub when_full: WhenFull,
    /// What to do while nobody listens.
    pub when_no_listener: WhenNoListener,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            timeout: limits::DEFAULT_TIMEOUT,
            when_full: WhenFull::Wait,
            when_no_listener: WhenNoListener::End,
        }
    }
}

impl RequestOptions {
    /// The same for the message that asks, which is acknowledged: a question that was lost is sent again.
    pub(super) const fn sending(self) -> SendOptions {
        SendOptions {
            ack: true,
            timeout: self.timeout,
            when_full: self.when_full,
            when_no_listener: self.when_no_listener,
        }
    }
}

/// How a peer is to be asked for signs of life.
#[derive(Clone, Copy, Debug)]
pub struct PingOptions {
    /// How many times, at least once.
    pub count: u32,
    /// From one to the next.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub timeout: Duration,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self { count: 1, interval: Duration::from_secs(1), timeout: limits::DEFAULT_TIMEOUT }
    }
}

/// A request as it is written.
#[derive(Clone, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) when_full: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) when_no_listener: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replies: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reply_to: Option<&'a ReplyTo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) keep: Option<bool>,
}

impl<'a> Line<'a> {
    pub(super) fn op(op: &'static str) -> Self {
        Self { op, ..Self::default() }
    }

    pub(super) fn message(op: &'static str, topic: &'a str, options: SendOptions) -> Self {
        let when_full = match options.when_full {
            WhenFull::Wait => None,
            WhenFull::Drop => Some("drop"),
        };
        let when_no_listener = match options.when_no_listener {
            WhenNoListener::End => None,
            WhenNoListener::Wait => Some("wait"),
        };
        let timeout_ms = Some(milliseconds(options.timeout));
        Self {
            topic: Some(topic),
            ack: Some(options.ack),
            timeout_ms,
            when_full,
            when_no_listener,
            ..Self::op(op)
        }
    }

    /// The same with what the message carries: as text if that is UTF-8 and fits a line, which base64 always does.
    pub(super) fn carrying(self, payload: &'a [u8]) -> Self {
        let mut memory = String::new();
        let (text, _) = text_or_data(payload, &mut memory);
        let data = text.is_none().then(|| memory.into());
        Self { text, data, ..self }
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    // At least one: no time at all is no deadline that the daemon takes.
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
