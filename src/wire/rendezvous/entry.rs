//! What the server tells of its members, one after the other.

use super::fields::Reader;
use super::{BadMessage, Handle, size};

/// In the place of a blob's length: there is none, the member left.
const LEFT: u16 = 0xffff;

/// One member as the others hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Who.
    pub handle: Handle,
    /// The number of its register.
    pub seq: u32,
    /// What it tells the others, sealed; none: it left.
    pub blob: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// How many bytes it takes.
    pub fn length(&self) -> usize {
        size::ENTRY + self.blob.map_or(0, <[u8]>::len)
    }

    /// Appends it.
    pub fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.handle.0);
        out.extend_from_slice(&self.seq.to_le_bytes());
        let length = self.blob.map_or(LEFT, |blob| u16::try_from(blob.len()).unwrap_or(LEFT));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.blob.unwrap_or_default());
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, BadMessage> {
        let (handle, seq) = (reader.handle()?, reader.u32()?);
        let blob = match reader.u16()? {
            LEFT => None,
            length => Some(reader.slice(length.into(), size::BLOB_MAX)?),
        };
        Ok(Self { handle, seq, blob })
    }
}

/// Entries one after the other, each known to be whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Those in `bytes`.
    ///
    /// # Errors
    ///
    /// One is cut, or its blob is longer than a blob may be.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadMessage> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut reader = Reader::new(rest);
            Entry::read(&mut reader)?;
            rest = reader.rest();
        }
        Ok(Self(bytes))
    }

    pub(super) const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut reader = Reader::new(self.0);
        let entry = Entry::read(&mut reader).ok()?;
        self.0 = reader.rest();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_and_a_cut_one_spoils_all() {
        let blob = [7; size::BLOB_MAX];
        let entries = [
            Entry { handle: Handle([1; 16]), seq: 1, blob: Some(&blob) },
            Entry { handle: Handle([2; 16]), seq: 2, blob: None },
            Entry { handle: Handle([3; 16]), seq: 3, blob: Some(&[]) },
        ];
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| entry.push(&mut bytes));
        assert_eq!(bytes.len(), entries.iter().map(Entry::length).sum::<usize>());
        assert_eq!(Entries::parse(&bytes).unwrap().collect::<Vec<_>>(), entries);
        let whole = [0, size::ENTRY + blob.len(), size::ENTRY * 2 + blob.len(), bytes.len()];
        for end in 0..bytes.len() {
            assert_eq!(Entries::parse(&bytes[..end]).is_ok(), whole.contains(&end), "{end}");
        }
        let mut long = Vec::new();
        Entry { blob: Some(&[7; size::BLOB_MAX + 1]), ..entries[0] }.push(&mut long);
        assert_eq!(Entries::parse(&long), Err(BadMessage::Length));
    }
}
