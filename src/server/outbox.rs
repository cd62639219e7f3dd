//! What waits to be sent: answers, and one message that goes to many.

use std::collections::VecDeque;

use crate::limits;
use crate::route::Route;

/// Datagrams ready to leave, and buffers for the next ones.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    ready: VecDeque<(Route, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    /// One message, and to whom it still goes.
    shared: Vec<u8>,
    to: Vec<Route>,
}

impl Outbox {
    /// An empty buffer; it comes back by [`Outbox::push`].
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Queues a datagram; tells whether there was room.
    pub(super) fn push(&mut self, to: Route, datagram: Vec<u8>) -> bool {
        let room = self.ready.len() < limits::ANSWERS_QUEUED;
        if room {
            self.ready.push_back((to, datagram));
        } else {
            self.recycle(datagram);
        }
        room
    }

    /// A message for all of `to`, once everything else has left; only when the last one has.
    pub(super) fn share(&mut self, message: Vec<u8>, to: Vec<Route>) {
        let before = std::mem::replace(&mut self.shared, message);
        self.recycle(before);
        self.to = to;
    }

    /// Takes the next datagram: its bytes replace those of `buffer`.
    pub(super) fn pop(&mut self, buffer: &mut Vec<u8>) -> Option<Route> {
        if let Some((to, datagram)) = self.ready.pop_front() {
            let emptied = std::mem::replace(buffer, datagram);
            self.recycle(emptied);
            return Some(to);
        }
        let to = self.to.pop()?;
        buffer.clear();
        buffer.extend_from_slice(&self.shared);
        Some(to)
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        // As many as one batch may need; more would only keep the memory of the largest burst.
        if self.spare.len() < 512 && buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
    }
}
