//! Bytes of a stream cut into frames, of which none has a longer body than it may have.

use crate::limits;
use crate::wire::local::frame::Header;

/// Finds the frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// So many bytes are still to come of a body that is too long; that was told.
    skipping: usize,
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// All of it.
    Whole(Header, &'a [u8]),
    /// Its body is over the limit; it is skipped.
    TooLong(Header),
}

impl Frames {
    /// At the beginning of a stream, behind the preface.
    pub const fn new() -> Self {
        Self { skipping: 0 }
    }

    /// The next frame of `data` from `at` on, which moves behind it. After `None` what is left from `at` on must come
    /// again, with more behind it.
    pub fn next<'a>(&mut self, data: &'a [u8], at: &mut usize) -> Option<Cut<'a>> {
        let skipped = self.skipping.min(data.len() - *at);
        self.skipping -= skipped;
        *at += skipped;
        let (header, rest) = data[*at..].split_first_chunk::<{ Header::BYTES }>()?;
        let header = Header::from_bytes(header);
        let length = header.body_bytes as usize;
        if length > limits::FRAME_BODY_BYTES {
            self.skipping = length;
            *at += Header::BYTES;
            return Some(Cut::TooLong(header));
        }
        let body = rest.get(..length)?;
        *at += Header::BYTES + length;
        Some(Cut::Whole(header, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AppChannel;

    fn frame(id: u64, body: &[u8]) -> Vec<u8> {
        let body_bytes = u32::try_from(body.len()).unwrap();
        let header = Header { body_bytes, kind: 4, flags: 0, chan: AppChannel(1), id };
        [&header.to_bytes()[..], body].concat()
    }

    /// Id and length of body of each frame when the bytes arrive in such pieces; a too long one has no length.
    fn lengths(bytes: &[u8], pieces: &[usize]) -> Vec<(u64, Option<usize>)> {
        let (mut frames, mut data, mut found) = (Frames::new(), Vec::new(), Vec::new());
        let mut sizes = pieces.iter().copied().cycle();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(sizes.next().unwrap().clamp(1, bytes.len()));
            bytes = rest;
            data.extend_from_slice(piece);
            let mut at = 0;
            while let Some(cut) = frames.next(&data, &mut at) {
                found.push(match cut {
                    Cut::Whole(header, body) => (header.id, Some(body.len())),
                    Cut::TooLong(header) => (header.id, None),
                });
            }
            data.drain(..at);
            assert!(data.len() < limits::FRAME_BODY_BYTES + Header::BYTES);
        }
        found
    }

    #[test]
    fn a_body_over_the_limit_is_told_once_and_the_next_frame_is_read() {
        let limit = limits::FRAME_BODY_BYTES;
        let bytes =
            [frame(1, &vec![7; limit]), frame(2, &vec![7; limit * 3]), frame(3, b"ok"), vec![1]].concat();
        for pieces in [&[limit * 9][..], &[1000], &[65_536], &[limit + 16, 1]] {
            assert_eq!(lengths(&bytes, pieces), [(1, Some(limit)), (2, None), (3, Some(2))], "{pieces:?}");
        }
    }

    #[test]
    fn the_frames_are_the_same_however_their_bytes_arrive() {
        let length =
            proptest::prop_oneof![0..40_usize, limits::FRAME_BODY_BYTES - 2..limits::FRAME_BODY_BYTES + 3];
        let lengths_of = proptest::collection::vec(length, 0..8);
        let pieces = proptest::collection::vec(1_usize..200_000, 1..6);
        let config = proptest::prelude::ProptestConfig::with_cases(64);
        proptest::proptest!(config, |(lengths_of in lengths_of, pieces in pieces)| {
            let bytes: Vec<u8> =
                lengths_of.iter().enumerate().flat_map(|(n, length)| frame(n as u64, &vec![9; *length])).collect();
            proptest::prop_assert_eq!(lengths(&bytes, &pieces), lengths(&bytes, &[usize::MAX]));
        });
    }
}
