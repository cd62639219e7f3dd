//! Two apps on the sockets of daemons, in either mode: one sends as fast as its daemon reads, one counts what comes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How apps speak with their daemons.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Json,
    Binary,
}

/// The bytes of requests, in one mode.
pub struct Speech {
    pub mode: Mode,
    to: String,
    payload: usize,
    ack: bool,
}

const TOPIC: &str = "bench";
const PREFACE: &[u8] = b"@ONCE\0\0\x01";
const HEADER: usize = 16;
const REQUEST: u8 = 0x01;
const OPEN: u8 = 0x02;
const SEND: u8 = 0x04;
const RESULT: u8 = 0x82;
const MESSAGE: u8 = 0x83;
/// What is written at once.
const BATCH_BYTES: usize = 64 * 1024;
/// An app that waits for this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

impl Speech {
    pub fn new(mode: Mode, to: &str, payload: usize, ack: bool) -> Self {
        Self { mode, to: to.to_owned(), payload, ack }
    }

    /// Whether each message is answered.
    pub const fn is_acknowledged(&self) -> bool {
        self.ack
    }

    /// Begins a connection; what was answered has been read.
    pub fn connect(&self, socket: &Path, listens: bool) -> UnixStream {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        if self.mode == Mode::Binary {
            bytes.extend_from_slice(PREFACE);
        }
        let listen = format!(r#"{{"op":"listen","topic":"{TOPIC}","id":1}}"#);
        let hello = r#"{"op":"hello","id":1}"#.to_owned();
        self.write_request(&mut bytes, if listens { &listen } else { &hello });
        stream.write_all(&bytes).unwrap();
        let mut answers = Answers::new(self.mode);
        if self.mode == Mode::Binary {
            stream.read_exact(&mut [0; 8]).unwrap();
        }
        answers.until(&mut stream, 1, |answer| answer == Answer::Other);
        if self.mode == Mode::Binary && !listens {
            let body = format!(r#"{{"to":"{}","topic":"{TOPIC}","timeout_ms":60000}}"#, self.to);
            let mut frame = Vec::new();
            write_frame(&mut frame, OPEN, 0, 1, 0, body.as_bytes());
            stream.write_all(&frame).unwrap();
        }
        stream
    }

    fn write_request(&self, bytes: &mut Vec<u8>, line: &str) {
        match self.mode {
            Mode::Json => {
                bytes.extend_from_slice(line.as_bytes());
                bytes.push(b'\n');
            }
            Mode::Binary => write_frame(bytes, REQUEST, 0, 0, 1, line.as_bytes()),
        }
    }

    /// One message.
    pub fn message(&self) -> Vec<u8> {
        let (to, ack) = (&self.to, self.ack);
        match self.mode {
            Mode::Json => {
                let id = if ack { r#""id":1,"# } else { "" };
                let text = "x".repeat(self.payload);
                let rest = format!(r#""ack":{ack},"timeout_ms":60000,"text":"{text}""#);
                format!("{{\"op\":\"send\",{id}\"to\":\"{to}\",\"topic\":\"{TOPIC}\",{rest}}}\n").into_bytes()
            }
            Mode::Binary => {
                let mut frame = Vec::new();
                write_frame(&mut frame, SEND, u8::from(ack), 1, u64::from(ack), &vec![b'x'; self.payload]);
                frame
            }
        }
    }

    /// Bytes of each message.
    pub const fn payload(&self) -> usize {
        self.payload
    }

    /// As many as are written at once, at most `most`.
    pub fn batch(&self, most: usize) -> (Vec<u8>, usize) {
        let message = self.message();
        let count = (BATCH_BYTES / message.len()).clamp(1, most);
        (message.repeat(count), count)
    }
}

fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, chan: u16, id: u64, body: &[u8]) {
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&chan.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(body);
}

/// What a daemon says, as far as it is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Message,
    Delivered,
    Refused,
    Other,
}

/// Reads and counts.
pub struct Answers {
    mode: Mode,
    bytes: Vec<u8>,
    at: usize,
}

impl Answers {
    pub fn new(mode: Mode) -> Self {
        Self { mode, bytes: Vec::with_capacity(1 << 20), at: 0 }
    }

    /// Reads until so many were counted.
    pub fn until(&mut self, stream: &mut UnixStream, count: usize, counts: impl Fn(Answer) -> bool) {
        let mut seen = 0;
        self.each(stream, |answer| {
            seen += usize::from(counts(answer));
            seen < count
        });
        assert_eq!(seen, count, "the daemon said no more");
    }

    /// Reads as long as `more` wants and something comes.
    pub fn each(&mut self, stream: &mut UnixStream, mut more: impl FnMut(Answer) -> bool) {
        loop {
            while let Some(answer) = self.next() {
                if !more(answer) {
                    return;
                }
            }
            self.bytes.drain(..self.at);
            self.at = 0;
            let old = self.bytes.len();
            self.bytes.resize(old + (256 << 10), 0);
            let read = stream.read(&mut self.bytes[old..]).unwrap_or(0);
            self.bytes.truncate(old + read);
            if read == 0 {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<Answer> {
        let rest = &self.bytes[self.at..];
        match self.mode {
            Mode::Json => {
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                let line = &rest[..end];
                self.at += end + 1;
                Some(if line.starts_with(br#"{"ev":"message""#) {
                    Answer::Message
                } else if line.starts_with(br#"{"ev":"result""#) {
                    let delivered = line.windows(11).any(|word| word == b"\"delivered\"");
                    if delivered { Answer::Delivered } else { Answer::Refused }
                } else {
                    Answer::Other
                })
            }
            Mode::Binary => {
                let header: &[u8; HEADER] = rest.first_chunk()?;
                let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
                let body = rest.get(HEADER..HEADER + length)?;
                self.at += HEADER + length;
                Some(match header[4] {
                    MESSAGE => Answer::Message,
                    RESULT if body[0] == 1 => Answer::Delivered,
                    RESULT => Answer::Refused,
                    _ => Answer::Other,
                })
            }
        }
    }
}
