//! What waits to be read by one app: one buffer of finished lines or frames, from which the edge writes.
//!
//! Its memory grows by quarters and is given back when all is read, so that it costs about what waits in it.

use std::collections::VecDeque;

use zeroize::Zeroize;

/// The buffer, and where in it each entry ends.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    /// How much of `bytes` has been written.
    written: usize,
    /// Where the first entry starts that has not been written whole.
    first: usize,
    /// The lengths of the entries from there on.
    entries: VecDeque<(usize, Kind)>,
    messages: usize,
    answers: usize,
    /// There is a secret in it, or was: what has been written is overwritten.
    is_secret: bool,
}

/// What an entry is, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message or a reply of another app.
    Message,
    /// The end of what the app asked.
    Answer,
    /// Anything else: it is bounded by its bytes alone.
    State,
}

/// Bytes of an empty buffer that are kept for what comes next: a burst of small messages, or one large.
const KEPT: usize = 16 * 1024;
/// Bytes by which a larger buffer grows at least: the largest line.
const SPARE: usize = 96 * 1024;

impl Queue {
    /// What is to be written.
    pub(crate) fn output(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<(usize, Kind)>()
    }

    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// How many messages have not been written whole.
    pub(crate) const fn messages(&self) -> usize {
        self.messages
    }

    /// How many answers have not been written whole.
    pub(crate) const fn answers(&self) -> usize {
        self.answers
    }

    /// Appends an entry, which `write` writes.
    pub(crate) fn append(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        if self.bytes.capacity() - start < SPARE && self.bytes.capacity() > KEPT {
            // A buffer that doubles would take twice what waits.
            self.bytes.reserve_exact(SPARE.max(start / 4));
        }
        write(&mut self.bytes);
        self.entries.push_back((self.bytes.len() - start, kind));
        self.messages += usize::from(kind == Kind::Message);
        self.answers += usize::from(kind == Kind::Answer);
    }

    /// From now on, until it is empty, what was written is overwritten, too.
    pub(crate) const fn keep_secret(&mut self) {
        self.is_secret = true;
    }

    /// The first `bytes` of the output were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes.min(self.len());
        while let Some((length, kind)) = self.entries.front().copied()
            && self.first + length <= self.written
        {
            self.first += length;
            self.messages -= usize::from(kind == Kind::Message);
            self.answers -= usize::from(kind == Kind::Answer);
            self.entries.pop_front();
        }
        if self.is_secret && self.len() == 0 {
            // All of its memory: an older copy may lie behind what is in use.
            self.bytes.zeroize();
            (self.written, self.first, self.is_secret) = (0, 0, false);
        }
        // Moving the rest to the front costs no more than what was written since the last time.
        if self.first >= self.bytes.len() / 2 {
            self.bytes.drain(..self.first);
            self.written -= self.first;
            self.first = 0;
            if self.bytes.is_empty() && self.bytes.capacity() > KEPT {
                *self = Self::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_secret_that_was_written() {
        let mut queue = Queue::default();
        queue.append(Kind::State, |out| out.extend_from_slice(b"before"));
        queue.append(Kind::Answer, |out| out.extend_from_slice(b"secret"));
        queue.keep_secret();
        queue.wrote(8);
        queue.wrote(4);
        assert_eq!((queue.len(), queue.answers(), queue.bytes.len()), (0, 0, 0));
        // What is appended next lies on memory that is all zeros.
        let capacity = queue.bytes.capacity();
        assert!(capacity >= 12);
        queue.append(Kind::State, |out| out.extend_from_slice(b"next"));
        assert_eq!(
            (queue.output(), queue.bytes.capacity(), queue.is_secret),
            (&b"next"[..], capacity, false)
        );
    }

    #[test]
    fn entries_are_counted_right_however_they_are_written() {
        let kinds = [Kind::Message, Kind::Answer, Kind::State];
        let steps = proptest::collection::vec((0..3_usize, 0..60_usize, 0..400_usize), 1..200);
        proptest::proptest!(|(steps in steps)| {
            let mut queue = Queue::default();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (kind, length, bytes) in steps {
                let entry = vec![length as u8; length + 1];
                queue.append(kinds[kind], |out| out.extend_from_slice(&entry));
                expected.extend_from_slice(&entry);
                let taken = bytes.min(queue.len());
                got.extend_from_slice(&queue.output()[..taken]);
                queue.wrote(taken);
                let count = |kind| queue.entries.iter().filter(|entry| entry.1 == kind).count();
                proptest::prop_assert_eq!(queue.messages, count(Kind::Message));
                proptest::prop_assert_eq!(queue.answers, count(Kind::Answer));
            }
            got.extend_from_slice(queue.output());
            queue.wrote(queue.len());
            proptest::prop_assert_eq!(got, expected);
            proptest::prop_assert!(queue.entries.is_empty() && queue.messages + queue.answers == 0);
        });
    }
}
