//! Many messages on their way at once: [`Client::start_send`] starts one, [`Client::next_outcome`] tells what became of
//! one, in the order in which they end.
//!
//! The next message need not wait for the outcome of the one before, so a pipe, a file or a measurement goes as fast as
//! the way takes it. At [`limits::CLIENT_QUEUE_MESSAGES`] messages or [`limits::CLIENT_QUEUE_BYTES`] of payload under way
//! the next start waits, as the daemon would stop reading us there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Instant, timeout_at};

use super::request::Line;
use super::{Client, Error, GRACE, PRESENCE_KEPT, SendOptions, Sent, accepted};
use crate::id::RequestId;
use crate::limits;
use crate::wire::local;

/// Bytes that are not kept for the next occasion to write.
const UNWRITTEN_BYTES: usize = 64 * 1024;

/// A send that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(RequestId);

/// The end of a send that was started.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub id: SendId,
    /// What [`Client::send`] would have returned.
    pub result: Result<Sent, Error>,
}

impl Client {
    /// Starts to send a message, as [`Client::send`] does, and does not wait for what becomes of it:
    /// [`Client::next_outcome`] tells. It waits only while there is no connection or too much is under way.
    ///
    /// Small messages are collected, and written when the client is waited with the next time, for anything: messages
    /// that start together leave together. Call [`Client::next_outcome`] for each.
    pub async fn start_send(
        &mut self,
        to: &str,
        topic: &str,
        payload: &[u8],
        options: SendOptions,
    ) -> Result<SendId, Error> {
        self.check_size(payload)?;
        let patience = options.timeout + GRACE;
        let deadline = Instant::now() + patience;
        self.ready(deadline, patience).await?;
        while !self.sends.have_room_for(payload.len()) {
            match timeout_at(deadline, self.step()).await {
                Ok(step) => step?,
                Err(_) => return Err(Error::Timeout(patience)),
            }
            self.ready(deadline, patience).await?;
        }
        if self.sends.ended.len() >= PRESENCE_KEPT {
            return Err(Error::Behind);
        }
        let line = Line { to: Some(to), ..Line::message("send", topic, options) };
        let id = self.put(line.carrying(payload))?;
        self.sends.start(id, payload.len(), deadline);
        if let Some(connection) = self.link.connection().filter(|link| link.unwritten() >= UNWRITTEN_BYTES) {
            connection.write_now();
        }
        Ok(SendId(id))
    }

    /// What became of the next message that ends, of those that were started; none when none is under way. Events that
    /// come meanwhile are kept for [`Client::next_event`].
    ///
    /// When the connection breaks, all that were under way end as [`Error::Closed`], perhaps delivered.
    pub async fn next_outcome(&mut self) -> Result<Option<Ended>, Error> {
        loop {
            if let Some(ended) = self.sends.ended.pop_front() {
                return Ok(Some(ended));
            }
            let Some(deadline) = self.sends.deadline() else { return Ok(None) };
            match timeout_at(deadline, self.step()).await {
                Ok(step) => step?,
                Err(_) => self.sends.expire(Instant::now()),
            }
        }
    }

    /// How many messages that were started have not ended.
    pub fn under_way(&self) -> usize {
        self.sends.under_way.len()
    }
}

/// The sends that were started, and how those ended that nobody has asked for yet.
#[derive(Debug, Default)]
pub(super) struct Sends {
    under_way: BTreeMap<RequestId, UnderWay>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    bytes: usize,
    ended: VecDeque<Ended>,
}

#[derive(Debug)]
struct UnderWay {
    bytes: usize,
    deadline: Instant,
    started: Instant,
}

impl Sends {
    pub(super) fn awaits(&self, id: RequestId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// One message always has room.
    fn have_room_for(&self, bytes: usize) -> bool {
        self.under_way.is_empty()
            || self.under_way.len() < limits::CLIENT_QUEUE_MESSAGES
                && self.bytes + bytes <= limits::CLIENT_QUEUE_BYTES
    }

    fn start(&mut self, id: RequestId, bytes: usize, deadline: Instant) {
        self.bytes += bytes;
        self.deadlines.insert((deadline, id));
        self.under_way.insert(id, UnderWay { bytes, deadline, started: Instant::now() });
    }

    /// Takes the daemon's last word on a message.
    pub(super) fn answered(&mut self, id: RequestId, event: local::Event<'_>) {
        self.end(id, accepted(event).and_then(Sent::of));
    }

    /// The connection is gone, and with it all that was under way.
    pub(super) fn broken(&mut self) {
        while let Some((&id, _)) = self.under_way.first_key_value() {
            self.end(id, Err(Error::Closed));
        }
    }

    fn end(&mut self, id: RequestId, result: Result<Sent, Error>) {
        let Some(send) = self.under_way.remove(&id) else { return };
        self.bytes -= send.bytes;
        self.deadlines.remove(&(send.deadline, id));
        self.ended.push_back(Ended { id: SendId(id), result });
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let started = self.under_way.get(&id).map_or(deadline, |send| send.started);
            self.end(id, Err(Error::Timeout(deadline - started)));
        }
    }
}
