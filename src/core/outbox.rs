//! What waits to be sent: trains of datagrams, each for one destination.
//!
//! A record is written once, into the datagram in which it will leave: [`Train`] is the open one of a peer. It is
//! encrypted in place when it is full or when the edge asks for output, and equal-sized datagrams in a row leave as one
//! train, which the kernel cuts up (GSO). Buffers go round: the edge's empty one comes back for its full one.

use std::collections::VecDeque;

use crate::core::api::{Destination, Route, Transmit};
use crate::core::flight::Flight;
use crate::crypto::session::{Exhausted, Session};
use crate::limits;
use crate::time::Instant;
use crate::wire::message::{self, Record};
use crate::wire::packet::size;

/// Trains ready to leave, and buffers for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    ready: VecDeque<(Transmit, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    /// Trains dropped because the edge did not take what was ready.
    pub(crate) overflowed: u64,
}

impl Outbox {
    /// Queues one datagram.
    pub(crate) fn push(&mut self, to: Destination, datagram: &[u8]) {
        self.push_as_far_as(to, None, datagram);
    }

    /// Queues one datagram that ends after `hops` routers, if that is said.
    pub(crate) fn push_as_far_as(&mut self, to: Destination, hops: Option<u8>, datagram: &[u8]) {
        let mut bytes = self.buffer();
        bytes.extend_from_slice(datagram);
        self.push_train(Transmit { to, segment_bytes: datagram.len(), hops, cut: false }, bytes);
    }

    /// Queues one datagram that cannot be shorter: it may leave in fragments.
    pub(crate) fn push_cut(&mut self, to: Destination, datagram: &[u8]) {
        let mut bytes = self.buffer();
        bytes.extend_from_slice(datagram);
        let cut = datagram.len() > limits::SMALLEST_DATAGRAM_BYTES;
        self.push_train(Transmit { to, segment_bytes: datagram.len(), hops: None, cut }, bytes);
    }

    fn push_train(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        if self.ready.len() >= limits::TRAINS_QUEUED {
            self.overflowed += 1;
            self.recycle(bytes);
            return;
        }
        self.ready.push_back((transmit, bytes));
    }

    /// Takes the next train: swaps its bytes into `buffer`.
    pub(crate) fn pop(&mut self, buffer: &mut Vec<u8>) -> Option<Transmit> {
        let (transmit, bytes) = self.ready.pop_front()?;
        let emptied = std::mem::replace(buffer, bytes);
        self.recycle(emptied);
        Some(transmit)
    }

    /// Puts back what is left of a train that was taken.
    pub(crate) fn put_back(&mut self, transmit: Transmit, bytes: Vec<u8>) {
        self.ready.push_front((transmit, bytes));
    }

    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn recycle(&mut self, mut buffer: Vec<u8>) {
        // A handful covers a batch; more would only keep the memory of the largest burst.
        if self.spare.len() < 16 && buffer.capacity() > 0 {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// The datagrams that are being filled for one peer.
#[derive(Debug, Default)]
pub(crate) struct Train {
    bytes: Vec<u8>,
    /// Where the open datagram starts in `bytes`.
    open: usize,
    /// How long each datagram of the train is; zero until the first one is closed.
    segment_bytes: usize,
    datagrams: usize,
    /// The open datagram holds messages, so it is counted as under way.
    counted: bool,
}

/// What a train needs to leave.
pub(crate) struct Way<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) route: Route,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) flight: &'a mut Flight,
    /// Bytes of the largest datagram that the path carries.
    pub(crate) datagram_bytes: usize,
    /// Messages wait behind this one.
    pub(crate) backlog: bool,
    pub(crate) now: Instant,
}

/// A datagram is filled up to the train's length if that costs no more than this; otherwise the train ends with it.
const PADDING_BYTES: usize = 128;

impl Train {
    /// Whether it holds nothing.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what it holds: the session is gone.
    pub(crate) fn clear(&mut self, outbox: &mut Outbox, flight: &mut Flight) {
        flight.unfill();
        outbox.recycle(std::mem::take(self).bytes);
    }

    /// Bytes for a record, its prefix included: in the open datagram, or in a new one if that has less than `wanted`.
    pub(crate) fn room(&self, wanted: usize, way: &Way<'_>) -> usize {
        let whole = way.datagram_bytes - size::DATA_OVERHEAD;
        if self.is_empty() {
            return whole;
        }
        let datagram = self.datagram_bytes(way);
        let left = datagram.saturating_sub(self.bytes.len() - self.open + size::TAG);
        if left >= wanted { left } else { whole.min(datagram - size::DATA_OVERHEAD) }
    }

    fn datagram_bytes(&self, way: &Way<'_>) -> usize {
        if self.segment_bytes == 0 { way.datagram_bytes } else { self.segment_bytes }
    }

    /// Writes `record` into the open datagram, or into a new one when that is full; `counted`: it is a message.
    pub(crate) fn push(
        &mut self,
        record: &Record<'_>,
        counted: bool,
        way: &mut Way<'_>,
    ) -> Result<(), Exhausted> {
        if self.is_empty() {
            self.bytes = way.outbox.buffer();
            self.begin();
        }
        if self.fits(record, way) {
            self.counted |= counted;
            return Ok(());
        }
        if self.bytes.len() > self.open + size::DATA_HEADER {
            self.close(way)?;
        } else {
            // Nothing in it yet, but the train's datagrams are too short for this record.
            self.bytes.truncate(self.open);
            self.ship(way);
        }
        if self.is_empty() {
            self.bytes = way.outbox.buffer();
            self.begin();
        }
        if !self.fits(record, way) && self.datagrams > 0 {
            self.bytes.truncate(self.open);
            self.ship(way);
            self.bytes = way.outbox.buffer();
            self.begin();
            let fitted = self.fits(record, way);
            debug_assert!(fitted, "no record is longer than a datagram");
        }
        self.counted |= counted;
        Ok(())
    }

    /// Closes the open datagram and queues the train.
    pub(crate) fn flush(&mut self, way: &mut Way<'_>) -> Result<(), Exhausted> {
        if self.bytes.len() > self.open + size::DATA_HEADER {
            self.seal(way)?;
        } else {
            self.bytes.truncate(self.open);
        }
        self.ship(way);
        Ok(())
    }

    fn begin(&mut self) {
        self.open = self.bytes.len();
        self.bytes.extend_from_slice(&[0; size::DATA_HEADER]);
    }

    fn fits(&mut self, record: &Record<'_>, way: &Way<'_>) -> bool {
        let used = self.bytes.len() - self.open + size::TAG;
        let room = self.datagram_bytes(way).saturating_sub(used);
        message::push(&mut self.bytes, room, record)
    }

    fn close(&mut self, way: &mut Way<'_>) -> Result<(), Exhausted> {
        let length = self.bytes.len() - self.open + size::TAG;
        let short = self.segment_bytes.saturating_sub(length);
        if short <= PADDING_BYTES {
            self.bytes.resize(self.bytes.len() + short, 0);
        }
        self.seal(way)?;
        let full = self.datagrams == limits::TRAIN_DATAGRAMS
            || self.bytes.len() + self.segment_bytes > limits::TRAIN_BYTES
            || short > PADDING_BYTES;
        if full {
            self.ship(way);
        } else {
            self.begin();
        }
        Ok(())
    }

    fn seal(&mut self, way: &mut Way<'_>) -> Result<(), Exhausted> {
        let counter = way.session.sent();
        way.session.seal(&mut self.bytes, self.open)?;
        let length = self.bytes.len() - self.open;
        if std::mem::take(&mut self.counted) {
            way.flight.sent(way.session.remote(), counter, length, !way.backlog, way.now);
        }
        if self.segment_bytes == 0 {
            self.segment_bytes = length;
        }
        self.datagrams += 1;
        self.open = self.bytes.len();
        Ok(())
    }

    fn ship(&mut self, way: &mut Way<'_>) {
        let train = std::mem::take(self);
        if train.bytes.is_empty() {
            way.outbox.recycle(train.bytes);
            return;
        }
        let transmit = Transmit {
            to: Destination::One(way.route),
            segment_bytes: train.segment_bytes,
            hops: None,
            cut: false,
        };
        way.outbox.push_train(transmit, train.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::session::tests_support::pair;
    use crate::id::TopicNumber;
    use crate::wire::message::{Read, Records};

    fn route() -> Route {
        Route::to(([10, 0, 0, 1], 1).into())
    }

    fn sent(sizes: &[usize]) -> (Vec<Transmit>, Vec<usize>) {
        let (mut sender, mut receiver) = pair();
        let (mut outbox, mut train, mut flight) = (Outbox::default(), Train::default(), Flight::default());
        let mut way = Way {
            session: &mut sender,
            route: route(),
            outbox: &mut outbox,
            flight: &mut flight,
            datagram_bytes: limits::DATAGRAM_BYTES,
            backlog: false,
            now: Instant::default(),
        };
        for size in sizes {
            let payload = vec![7; *size];
            let record = Record::Message { topic: TopicNumber(1), payload: &payload };
            train.push(&record, true, &mut way).unwrap();
        }
        train.flush(&mut way).unwrap();
        let (mut transmits, mut arrived, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(transmit) = outbox.pop(&mut buffer) {
            assert!(buffer.len() <= limits::TRAIN_BYTES);
            for datagram in buffer.chunks_mut(transmit.segment_bytes) {
                assert!(datagram.len() <= limits::DATAGRAM_BYTES);
                for record in Records::new(receiver.open(datagram).unwrap()) {
                    let Ok(Read::Record(Record::Message { payload, .. })) = record else {
                        panic!("{record:?}")
                    };
                    arrived.push(payload.len());
                }
            }
            transmits.push(transmit);
        }
        (transmits, arrived)
    }

    #[test]
    fn small_messages_share_datagrams_and_equal_datagrams_share_a_train() {
        let sizes = [64; 600];
        let (transmits, arrived) = sent(&sizes);
        assert_eq!(arrived, sizes);
        assert_eq!(transmits.len(), 1, "{transmits:?}");
    }

    #[test]
    fn large_messages_leave_in_trains_of_at_most_what_one_send_takes() {
        let sizes = [limits::SMALL_PAYLOAD_BYTES; 130];
        let (transmits, arrived) = sent(&sizes);
        assert_eq!(arrived, sizes);
        assert_eq!(transmits.len(), 3, "54 datagrams of 1200 bytes fit one send");
    }

    #[test]
    fn messages_of_every_size_arrive_whole_and_in_order() {
        proptest::proptest!(|(sizes in proptest::collection::vec(0..=limits::SMALL_PAYLOAD_BYTES, 0..300))| {
            let (_, arrived) = sent(&sizes);
            proptest::prop_assert_eq!(arrived, sizes);
        });
    }
}
