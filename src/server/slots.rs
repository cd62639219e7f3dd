//! How a table of a million places grows.

/// Adds an empty place. A usual `Vec` has up to twice the room that it needs; this one has an eighth more, at the price
/// of being moved more often.
pub(super) fn add_one<T>(slots: &mut Vec<Option<T>>) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact(slots.len() / 8 + 16);
    }
    slots.push(None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_little_more_room_than_needed_and_it_is_seldom_moved() {
        let mut slots: Vec<Option<Box<u8>>> = Vec::new();
        let mut moves = 0;
        for count in 1..=100_000_usize {
            let before = slots.capacity();
            add_one(&mut slots);
            moves += u32::from(slots.capacity() != before);
            assert!(slots.len() == count && slots.capacity() <= count + count / 8 + 16);
        }
        assert!(moves < 100, "{moves}");
    }
}
