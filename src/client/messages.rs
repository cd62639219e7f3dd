//! Messages, one at a time: send, publish, request, reply.

use tokio::time::Instant;

use super::event::reply_of;
use super::request::Line;
use super::{Client, Error, Found, GRACE, Published, Reply, ReplyTo, RequestOptions, SendOptions, Sent};
use crate::wire::local;

/// What became of a question to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requested {
    /// What became of the question itself.
    pub sent: Sent,
    /// The reply, if one came in time.
    pub reply: Option<Reply>,
}

impl Client {
    /// Sends one message to the listeners of a topic on one peer, and waits for what becomes of it.
    ///
    /// `to` is an exact name or id. A name that nobody ever had is an [`Error::Refused`]; that a known peer did not get
    /// the message is an outcome.
    pub async fn send(
        &mut self,
        to: &str,
        topic: &str,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<Sent, Error> {
        let line = Line { to: Some(to), ..Line::message("send", topic, options) };
        self.ask_message(line, payload, options, |event| Found::Break(Sent::of(event))).await
    }

    /// Sends one message to the listeners of a topic on every peer. With [`SendOptions::ack`] it waits for what becomes of
    /// each copy, without it is best effort and done at once.
    pub async fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<Published, Error> {
        let line = Line::message("publish", topic, options);
        self.ask_message(line, payload, options, |event| Found::Break(Published::of(event))).await
    }

    /// Asks the listeners of a topic on one peer, and waits for the first reply.
    ///
    /// Nobody replied if [`Requested::reply`] is none; the outcome of the question tells whether it was delivered at all.
    pub async fn request(
        &mut self,
        to: &str,
        topic: &str,
        payload: &[u8],
        options: RequestOptions,
    ) -> Result<Requested, Error> {
        let options = options.sending();
        let line = Line { to: Some(to), replies: Some(1), ..Line::message("send", topic, options) };
        let mut reply = None;
        let take = |event: local::Event<'_>| with_replies(event, |first| reply = Some(first), Sent::of);
        let sent = self.ask_message(line, payload, options, take).await?;
        Ok(Requested { sent, reply })
    }

    /// Asks the listeners of a topic on every peer, those of this node included, and waits until `most` (1 to 1024) replies
    /// have come or its time is over; `each` is called with every reply as it comes.
    pub async fn request_all(
        &mut self,
        topic: &str,
        payload: &[u8],
        most: u32,
        options: RequestOptions,
        mut each: impl FnMut(Reply),
    ) -> Result<Published, Error> {
        let options = options.sending();
        let line = Line { replies: Some(most), ..Line::message("publish", topic, options) };
        let take = |event: local::Event<'_>| with_replies(event, &mut each, Published::of);
        self.ask_message(line, payload, options, take).await
    }

    /// Replies to a message. The outcome is `delivered` when the asking app has it in its queue, `no-listener` when nobody
    /// waits for it any more.
    pub async fn reply(&mut self, to: &ReplyTo, payload: &[u8], options: SendOptions) -> Result<Sent, Error> {
        let line = Line { reply_to: Some(to), topic: None, ..Line::message("reply", "", options) };
        self.ask_message(line, payload, options, |event| Found::Break(Sent::of(event))).await
    }

    async fn ask_message<T>(
        &mut self,
        line: Line<'_>,
        payload: &[u8],
        options: SendOptions,
        mut take: impl FnMut(local::Event<'_>) -> Found<T>,
    ) -> Result<T, Error> {
        // Of another daemon than the last one, another size may be the largest.
        let patience = options.timeout + GRACE;
        self.ready(Instant::now() + patience, patience).await?;
        self.check_size(payload)?;
        self.ask(line.carrying(payload), patience, |event, _| take(event)).await
    }

    pub(super) fn check_size(&self, payload: &[u8]) -> Result<(), Error> {
        let most = usize::try_from(self.hello.payload_bytes).unwrap_or(usize::MAX);
        if payload.len() > most {
            return Err(Error::TooBig { bytes: payload.len(), most });
        }
        Ok(())
    }
}

fn with_replies<T>(
    event: local::Event<'_>,
    mut each: impl FnMut(Reply),
    end: impl FnOnce(local::Event<'_>) -> Result<T, Error>,
) -> Found<T> {
    match reply_of(event) {
        Ok(Ok(reply)) => {
            each(reply);
            Found::Continue(())
        }
        Ok(Err(event)) => Found::Break(end(event)),
        Err(error) => Found::Break(Err(error)),
    }
}
