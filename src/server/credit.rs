//! What a member may be sent unasked: a few times what it sent itself.
//!
//! An event goes to all members because one of them changed, so whoever has many members at one address could draw many
//! bytes to it with few. Therefore each address of a member has a credit: it grows with every true question from there
//! and pays for every event that goes there. Whose credit is small gets only the hint that there is news.

/// Bytes of credit for each byte of a question. A member that only keeps, 88 bytes each 25 s, can so pay for an event
/// of one usual change about as often; who lists what it missed can pay for many.
const GAIN: usize = 4;
/// Bytes that can be saved: a hundred changes that come one by one, as when a site's power comes back. More would let
/// many members of one address be saved up for one flood.
const SAVED_MAX: u16 = 20_000;

/// What is left, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit(u16);

impl Credit {
    /// A question of so many bytes came.
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = u16::try_from(bytes * GAIN).unwrap_or(u16::MAX);
        self.0 = self.0.saturating_add(earned).min(SAVED_MAX);
    }

    /// Whether it is enough for so many bytes.
    pub(super) fn covers(self, bytes: usize) -> bool {
        usize::from(self.0) >= bytes
    }

    /// So many bytes go there.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(u16::try_from(bytes).unwrap_or(u16::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_pays_for_four_and_a_hundred_small_events_can_be_saved() {
        let mut credit = Credit::default();
        assert!(!credit.covers(1));
        credit.earn(88);
        assert!(credit.covers(352) && !credit.covers(353));
        credit.spend(194);
        assert!(credit.covers(158) && !credit.covers(159));
        (0..1000).for_each(|_| credit.earn(1200));
        assert!(credit.covers(100 * 194) && !credit.covers(20_001));
    }
}
