//! One connection to the daemon: lines in and lines out, each whole, whichever future is dropped meanwhile.

use std::future::poll_fn;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zeroize::{Zeroize, Zeroizing};

use super::request::Line;
use super::{Error, odd, socket};
use crate::limits;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// The part of a line that has come so far.
    line: Vec<u8>,
    /// What has not been written yet; a secret may be in it.
    output: Zeroizing<Vec<u8>>,
}

impl Connection {
    /// Connects at once or not at all, so that no connection is lost with a future that is dropped.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let connect = || {
            socket::check(path)?;
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
            UnixStream::from_std(socket.into())
        };
        let stream = connect().map_err(|source| Error::Unreachable { path: path.to_owned(), source })?;
        let (reader, writer) = stream.into_split();
        let reader = BufReader::with_capacity(READ_BYTES, reader);
        Ok(Self { reader, writer, line: Vec::new(), output: Zeroizing::default() })
    }

    /// Puts a line to what is to be written; [`Connection::line`] writes it.
    pub(super) fn put(&mut self, line: &Line<'_>) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.output, line).map_err(odd)?;
        self.output.push(b'\n');
        Ok(())
    }

    /// Bytes that have not been written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.output.len()
    }

    /// Writes what the socket takes now.
    pub(super) fn write_now(&mut self) {
        if let Ok(written) = self.writer.try_write(&self.output) {
            self.output.drain(..written);
        }
    }

    /// Overwrites what was to be written.
    pub(super) fn wipe(&mut self) {
        self.output.zeroize();
    }

    /// The next line, without its newline. Meanwhile writes what there is to write: the daemon stops reading an app
    /// that does not read. What is here already is taken first, so that all that answers it is written at once.
    pub(super) async fn line(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            if let Some(line) = self.take_line()? {
                return Ok(line);
            }
            tokio::select! {
                filled = self.reader.fill_buf() => match filled {
                    Ok(bytes) if !bytes.is_empty() => {}
                    _ => return Err(Error::Closed),
                },
                written = self.writer.write(&self.output), if !self.output.is_empty() => match written {
                    Ok(written) => drop(self.output.drain(..written)),
                    // The daemon's last words may still be there to be read.
                    Err(_) => self.output.clear(),
                }
            }
        }
    }

    /// The next line, if it has come already.
    pub(super) async fn line_now(&mut self) -> Option<Result<Vec<u8>, Error>> {
        loop {
            match self.take_line() {
                Ok(Some(line)) => return Some(Ok(line)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            let reader = &mut self.reader;
            let filled = poll_fn(|context| {
                let filled = Pin::new(&mut *reader).poll_fill_buf(context);
                Poll::Ready(filled.map_ok(|bytes| !bytes.is_empty()))
            });
            match filled.await {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Some(Err(Error::Closed)),
                Poll::Pending => return None,
            }
        }
    }

    fn take_line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let available = self.reader.buffer();
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        self.line.extend_from_slice(&available[..taken]);
        Pin::new(&mut self.reader).consume(end.map_or(taken, |end| end + 1));
        if self.line.len() >= limits::LINE_BYTES {
            return Err(Error::Protocol(format!("a line of more than {} bytes", limits::LINE_BYTES)));
        }
        Ok(end.is_some().then(|| std::mem::take(&mut self.line)))
    }
}
