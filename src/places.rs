//! Places of which nobody can take the last: a number for whoever comes first, and some that are kept for who has few.
//!
//! So a single user has all places, and one who has taken all of them keeps nobody else out.

/// How many there are.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// For whoever comes first.
    pub open: usize,
    /// Beyond these, for who has few.
    pub kept: usize,
    /// Who has fewer than so many has few.
    pub few: usize,
}

impl Places {
    /// Whether one who has `own` of the `taken` places may have one more.
    pub const fn has_one(self, taken: usize, own: usize) -> bool {
        taken < self.open || own < self.few && taken < self.open + self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_has_all_open_places_and_one_who_comes_later_still_has_a_few() {
        let places = Places { open: 64, kept: 16, few: 4 };
        let mut one = 0;
        while places.has_one(one, one) {
            one += 1;
        }
        assert_eq!(one, 64);
        let mut other = 0;
        while places.has_one(one + other, other) {
            other += 1;
        }
        assert_eq!(other, 4);
    }
}
