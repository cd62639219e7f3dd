//! What `listen --exec` does with a message: a program of the shell gets it, and what it writes may be the reply.
//!
//! One program at a time, so that messages are handled in their order. Whoever sends faster than they run is told that we
//! are busy: meanwhile nothing is read from the daemon.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use atonce::Client;
use atonce::client::{Message, Outcome, SendOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::output::Output;
use crate::peers::path_word;

/// How long what a program started may keep its standard output open after it.
const LINGER: Duration = Duration::from_secs(1);

/// What is run for each message.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) command: &'a str,
    /// Its standard output is the reply.
    pub(crate) reply: bool,
    /// How long the reply may take to arrive.
    pub(crate) timeout: Duration,
}

impl Program<'_> {
    /// Runs it to its end. That it fails is a note: the next message is another matter.
    pub(crate) async fn run(
        &self,
        client: &mut Client,
        message: &Message,
        output: &Output,
    ) -> Result<(), Failure> {
        let most = usize::try_from(client.hello().payload_bytes).unwrap_or(usize::MAX);
        let (status, written) = match self.feed(client.socket(), message, most).await {
            Ok(ended) => ended,
            Err(error) => {
                output.note(&format!("sh could not be run: {error}"));
                return Ok(());
            }
        };
        if !status.success() {
            output.note(&format!("the command ended with {status}{}", self.unanswered()));
            return Ok(());
        }
        let Some(to) = message.reply_to.as_ref().filter(|_| self.reply) else { return Ok(()) };
        if written.len() > most {
            output.note(&format!(
                "the command wrote more than the {most} bytes of a message; no reply is sent"
            ));
            return Ok(());
        }
        let options = SendOptions { timeout: self.timeout, ..SendOptions::default() };
        match client.reply(to, &written, options).await {
            Ok(sent) if sent.outcome == Outcome::Delivered => {}
            Ok(sent) => {
                let name = &message.from.name;
                output.note(&format!("the reply did not reach {name}: {}", sent.outcome.words()));
            }
            // The connection comes back by itself.
            Err(error) => output.note(&format!("the reply was not sent: {error}")),
        }
        Ok(())
    }

    const fn unanswered(&self) -> &'static str {
        if self.reply { "; no reply is sent" } else { "" }
    }

    /// Runs it with the message on its standard input: how it ended, and, for a reply, what it wrote (of more than `most`
    /// bytes, one more).
    async fn feed(&self, socket: &Path, message: &Message, most: usize) -> io::Result<(ExitStatus, Vec<u8>)> {
        let mut command = Command::new("sh");
        command
            .args(["-c", self.command])
            // What it says to `atonce` is for the same daemon.
            .env("ATONCE_SOCKET", socket)
            .env("ATONCE_FROM", &*message.from.name)
            .env("ATONCE_FROM_ID", message.from.id.to_string())
            .env("ATONCE_TOPIC", &message.topic)
            .env("ATONCE_PATH", path_word(message.path))
            .env("ATONCE_AT", &message.at)
            .stdin(Stdio::piped());
        if self.reply {
            command.stdout(Stdio::piped());
        }
        let mut child = command.spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut written = Vec::new();
        let status = {
            let mut reading = pin!(read(output, most, &mut written));
            let mut writing = pin!(write(input, &message.payload));
            let (mut is_written, mut is_read) = (false, false);
            // The three together: a program may write before it has read, or end without reading.
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status?,
                    () = &mut writing, if !is_written => is_written = true,
                    () = &mut reading, if !is_read => is_read = true,
                }
            };
            if !is_read {
                // What it wrote last is in the pipe; what it left running may hold that open for ever.
                let _ = timeout(LINGER, reading).await;
            }
            status
        };
        Ok((status, written))
    }
}

/// A program need not read its input: then the pipe breaks, or it ends, and that is all.
async fn write(input: Option<ChildStdin>, payload: &[u8]) {
    if let Some(mut input) = input {
        let _ = input.write_all(payload).await;
    }
}

/// Reads to the end, so that the program can write it all, and keeps `most` bytes and one more.
async fn read(output: Option<impl AsyncRead + Unpin>, most: usize, written: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = output.read(&mut piece).await {
        let room = most.saturating_add(1).saturating_sub(written.len());
        written.extend_from_slice(&piece[..count.min(room)]);
    }
}
