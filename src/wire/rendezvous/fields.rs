//! Fields of fixed length, one after the other.

use std::net::SocketAddr;

use super::{
    BadMessage, Cookie, Day, Handle, Kind, MAGIC, Namespace, NamespaceTag, Nonce, Reveal, ServerTime, Token,
    VERSION, address_bytes, address_from, hide,
};

/// What is left of a message.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        let (array, rest) = self.0.split_first_chunk().ok_or(BadMessage::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    /// The next `length` bytes, at most `max`.
    pub(super) fn slice(&mut self, length: usize, max: usize) -> Result<&'a [u8], BadMessage> {
        let (slice, rest) =
            self.0.split_at_checked(length).filter(|_| length <= max).ok_or(BadMessage::Length)?;
        self.0 = rest;
        Ok(slice)
    }

    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// That nothing is left.
    pub(super) const fn end(self) -> Result<(), BadMessage> {
        if self.0.is_empty() { Ok(()) } else { Err(BadMessage::Length) }
    }

    pub(super) fn u8(&mut self) -> Result<u8, BadMessage> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, BadMessage> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BadMessage> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadMessage> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn nonce(&mut self) -> Result<Nonce, BadMessage> {
        self.array().map(Nonce)
    }

    pub(super) fn handle(&mut self) -> Result<Handle, BadMessage> {
        self.array().map(Handle)
    }

    pub(super) fn namespace(&mut self) -> Result<Namespace, BadMessage> {
        self.array().map(Namespace)
    }

    pub(super) fn tag(&mut self) -> Result<NamespaceTag, BadMessage> {
        self.array().map(NamespaceTag)
    }

    pub(super) fn cookie(&mut self) -> Result<Cookie, BadMessage> {
        self.array().map(Cookie)
    }

    pub(super) fn reveal(&mut self) -> Result<Reveal, BadMessage> {
        self.array().map(Reveal)
    }

    pub(super) fn token(&mut self) -> Result<Token, BadMessage> {
        self.array().map(Token)
    }

    pub(super) fn hidden(&mut self, nonce: Nonce) -> Result<SocketAddr, BadMessage> {
        let mut address = self.array()?;
        hide(&mut address, nonce);
        Ok(address_from(address))
    }

    pub(super) fn time(&mut self) -> Result<ServerTime, BadMessage> {
        Ok(ServerTime { day: Day(self.u32()?), second: self.u32()? })
    }
}

/// Writes a message in the place of what `out` held.
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, kind: Kind) -> Self {
        out.clear();
        let [a, b] = MAGIC;
        out.extend([a, b, kind as u8, VERSION]);
        Self(out)
    }

    pub(super) fn put(self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u16(self, value: u16) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn hidden(self, addr: SocketAddr, nonce: Nonce) -> Self {
        let mut address = address_bytes(addr);
        hide(&mut address, nonce);
        self.put(&address)
    }

    pub(super) fn time(self, time: ServerTime) -> Self {
        self.u32(time.day.0).u32(time.second)
    }

    /// The length of what follows, and it; cut at `max`, which a caller of ours never passes.
    pub(super) fn counted(self, bytes: &[u8], max: usize) -> Self {
        let bytes = &bytes[..bytes.len().min(max)];
        self.u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX)).put(bytes)
    }

    /// Zeros up to `length`.
    pub(super) fn pad(self, length: usize) {
        if self.0.len() < length {
            self.0.resize(length, 0);
        }
    }
}
