//! Which packets of a session were seen: a sliding bitmap in the shape of RFC 6479.
//!
//! The bitmap is a ring of 64-bit words, one more than the window needs: advancing clears whole words, so the newest
//! word may be partly empty while the window stays complete.

use crate::limits::REPLAY_WINDOW;

const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: u64 = REPLAY_WINDOW / WORD_BITS + 1;
const _: () = assert!(REPLAY_WINDOW.is_multiple_of(WORD_BITS), "the ring has whole words");

/// The counters that were seen among the last [`REPLAY_WINDOW`]; older ones count as seen.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    highest: u64,
    seen: [u64; WORDS as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { highest: 0, seen: [0; WORDS as usize] }
    }
}

impl ReplayWindow {
    /// Whether `counter` is neither seen nor too old to tell.
    pub fn would_accept(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        let (word, bit) = place(counter);
        self.highest - counter < REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    /// Counts `counter` as seen: call it once its packet is verified. One too old to tell changes nothing.
    pub fn commit(&mut self, counter: u64) {
        let words_ahead = (counter / WORD_BITS).saturating_sub(self.highest / WORD_BITS);
        for ahead in 1..=words_ahead.min(WORDS) {
            // Fewer than 2^58 words exist, so this cannot overflow.
            let word = (self.highest / WORD_BITS + ahead) % WORDS;
            self.seen[word as usize] = 0;
        }
        self.highest = self.highest.max(counter);
        if self.highest - counter < REPLAY_WINDOW {
            let (word, bit) = place(counter);
            self.seen[word] |= bit;
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    ((counter / WORD_BITS % WORDS) as usize, 1 << (counter % WORD_BITS))
}
