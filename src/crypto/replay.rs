//! Which packets of a session were seen: a sliding bitmap in the shape of RFC 6479.
//!
//! The bitmap is a ring of 64-bit words, one more than the window needs: advancing clears whole words, so the
//! newest word may be partly empty while the window stays complete.

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same, remembering everything.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn would_accept(&self, counter: u64) -> bool {
            let oldest = self.0.last().map_or(0, |highest| highest.saturating_sub(REPLAY_WINDOW - 1));
            counter >= oldest && !self.0.contains(&counter)
        }
    }

    /// Counters as a network brings them: about the newest one, at the edge of the window, and far ahead.
    fn step() -> impl Strategy<Value = i64> {
        let window = REPLAY_WINDOW as i64;
        prop_oneof![
            6 => -200..200_i64,
            2 => -window - 70..-window + 70,
            2 => -window - 70..1,
            2 => 0..window * 3,
            1 => window * 3..1 << 40,
        ]
    }

    proptest! {
        #[test]
        fn it_accepts_what_a_memory_of_everything_would(steps in proptest::collection::vec(step(), 1..400)) {
            let (mut window, mut model, mut highest) = (ReplayWindow::default(), Model::default(), 0_u64);
            for step in steps {
                let counter = highest.saturating_add_signed(step);
                let accept = model.would_accept(counter);
                prop_assert_eq!(window.would_accept(counter), accept, "{} after {}", counter, highest);
                if accept {
                    window.commit(counter);
                    model.0.insert(counter);
                    highest = highest.max(counter);
                }
                prop_assert!(!window.would_accept(counter));
            }
        }

        #[test]
        fn asking_and_committing_never_panic_and_what_was_committed_is_refused(counters: Vec<u64>) {
            let mut window = ReplayWindow::default();
            for counter in counters {
                window.commit(counter);
                prop_assert!(!window.would_accept(counter));
            }
        }
    }

    #[test]
    fn the_oldest_that_is_told_apart_is_one_window_back() {
        let mut window = ReplayWindow::default();
        window.commit(0);
        window.commit(REPLAY_WINDOW);
        assert!(window.would_accept(1));
        window.commit(REPLAY_WINDOW + 1);
        assert!(!window.would_accept(1));
        assert!(window.would_accept(2));
        assert!(!window.would_accept(0));
    }

    #[test]
    fn a_window_full_of_packets_in_reverse_order_is_taken_once() {
        let mut window = ReplayWindow::default();
        for expected in [REPLAY_WINDOW, 0] {
            let accepted = (1000..1000 + REPLAY_WINDOW).rev().filter(|counter| {
                let accept = window.would_accept(*counter);
                window.commit(*counter);
                accept
            });
            assert_eq!(accepted.count() as u64, expected);
        }
    }

    #[test]
    fn a_jump_to_the_end_of_all_counters_forgets_the_past_and_nothing_else() {
        let mut window = ReplayWindow::default();
        window.commit(5);
        window.commit(u64::MAX);
        assert!(!window.would_accept(u64::MAX));
        assert!(!window.would_accept(5));
        assert!((1..REPLAY_WINDOW).all(|back| window.would_accept(u64::MAX - back)));
        assert!(!window.would_accept(u64::MAX - REPLAY_WINDOW));
    }
}
