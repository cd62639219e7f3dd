//! Bytes of a stream cut into lines, of which none is longer than a line may be. A line of white space says nothing and
//! is skipped: the carriage return of other systems' line ends among it.

use crate::limits;

/// Finds the lines. What comes after the last newline is no line, even when the stream ends: its writer may have died.
#[derive(Debug, Default)]
pub struct Lines {
    /// So many bytes of the unfinished line are known to hold no newline.
    scanned: usize,
    /// The line at hand is too long; that was told.
    skipping: bool,
}

/// One line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// With something on it.
    Whole(&'a [u8]),
    /// Over the limit; the rest of it is skipped.
    TooLong,
}

impl Lines {
    /// At the beginning of a stream.
    pub const fn new() -> Self {
        Self { scanned: 0, skipping: false }
    }

    /// The next line of `data` from `at` on, which moves behind it. After `None` what is left from `at` on must come
    /// again, with more behind it.
    pub fn next<'a>(&mut self, data: &'a [u8], at: &mut usize) -> Option<Line<'a>> {
        loop {
            let rest = &data[*at..];
            let found = rest[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(found) = found else { return self.unfinished(rest.len(), at) };
            let line = &rest[..self.scanned + found];
            *at += line.len() + 1;
            self.scanned = 0;
            if std::mem::take(&mut self.skipping) || is_white(line) {
                continue;
            }
            return Some(if line.len() < limits::LINE_BYTES { Line::Whole(line) } else { Line::TooLong });
        }
    }

    /// Whether `rest`, which came after the last newline of a stream that has ended, says nothing.
    pub fn is_blank(&self, rest: &[u8]) -> bool {
        self.skipping || is_white(rest)
    }

    fn unfinished(&mut self, length: usize, at: &mut usize) -> Option<Line<'static>> {
        let too_long = !self.skipping && length >= limits::LINE_BYTES;
        self.skipping |= too_long;
        if self.skipping {
            *at += length;
            self.scanned = 0;
        } else {
            self.scanned = length;
        }
        too_long.then_some(Line::TooLong)
    }
}

/// Whether JSON has nothing but white space here (RFC 8259, 2).
fn is_white(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the lines when the bytes arrive in such pieces; a too long one is `None`.
    fn lengths(bytes: &[u8], pieces: &[usize]) -> Vec<Option<usize>> {
        let (mut lines, mut data, mut found) = (Lines::new(), Vec::new(), Vec::new());
        let mut sizes = pieces.iter().copied().cycle();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(sizes.next().unwrap().clamp(1, bytes.len()));
            bytes = rest;
            data.extend_from_slice(piece);
            let mut at = 0;
            while let Some(line) = lines.next(&data, &mut at) {
                found.push(match line {
                    Line::Whole(line) => Some(line.len()),
                    Line::TooLong => None,
                });
            }
            data.drain(..at);
            assert!(data.len() < limits::LINE_BYTES);
        }
        found
    }

    #[test]
    fn a_line_over_the_limit_is_told_once_and_the_next_one_is_read() {
        let limit = limits::LINE_BYTES;
        let bytes = [vec![b'a'; limit - 1], vec![b'\n'], vec![b'b'; limit], b"\n\nok\ncut".to_vec()].concat();
        for pieces in [&[limit * 3][..], &[1000], &[65_536], &[limit]] {
            assert_eq!(lengths(&bytes, pieces), [Some(limit - 1), None, Some(2)], "{pieces:?}");
        }
    }

    #[test]
    fn a_line_of_white_space_alone_is_skipped() {
        assert_eq!(lengths(b"\r\n\n \t\r\na\r\n\r\n b\n", &[100]), [Some(2), Some(2)]);
        let lines = Lines::new();
        assert!(lines.is_blank(b"") && lines.is_blank(b" \r") && !lines.is_blank(b"\r{"));
    }

    #[test]
    fn the_lines_are_the_same_however_their_bytes_arrive() {
        let line = proptest::prop_oneof![
            proptest::collection::vec(proptest::num::u8::ANY, 0..40),
            proptest::strategy::Just(vec![b'x'; limits::LINE_BYTES + 5]),
        ];
        let lines = proptest::collection::vec(line, 0..8);
        let pieces = proptest::collection::vec(1_usize..200_000, 1..6);
        proptest::proptest!(proptest::prelude::ProptestConfig::with_cases(64), |(lines in lines, pieces in pieces)| {
            let bytes = lines.join(&b'\n');
            proptest::prop_assert_eq!(lengths(&bytes, &pieces), lengths(&bytes, &[usize::MAX]));
        });
    }
}
