//! What a command sends: an argument or standard input.

use std::io::{self, BufRead, IsTerminal, Read};

use atonce::id::{BadName, Topic};
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;

/// The topic of an argument.
pub(crate) fn parse_topic(text: &str) -> Result<String, String> {
    Topic::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// The topic of an argument that is to be listened to, which the daemon refuses of its own ones.
pub(crate) fn parse_listened(text: &str) -> Result<String, String> {
    let topic: Topic = text.parse().map_err(|error: BadName| error.to_string())?;
    if topic.is_reserved() {
        return Err(format!("{text} is a topic of the daemon's own; choose another name"));
    }
    Ok(text.to_owned())
}

/// The message: `text`, or all of standard input if there is none or it is `-`. Of more than `most` bytes only one more
/// is read, so that it is too big.
pub(crate) async fn message(text: Option<&str>, most: u64, output: &Output) -> io::Result<Vec<u8>> {
    if let Some(text) = text.filter(|text| *text != "-") {
        return Ok(text.as_bytes().to_owned());
    }
    if io::stdin().is_terminal() {
        output.note("the message is read from the terminal; Ctrl-D ends it");
    }
    blocking(move || {
        let mut message = Vec::new();
        io::stdin().lock().take(most.saturating_add(1)).read_to_end(&mut message)?;
        Ok(message)
    })
    .await
}

/// `--lines`, and a text too.
pub(crate) fn lines_and_text() -> Failure {
    Failure::new(Exit::Usage, "--lines sends standard input, and there is a TEXT too")
        .try_this("leaving one of them out")
}

/// The lines of standard input, read ahead by a thread of their own while others are under way.
#[derive(Debug)]
pub(crate) struct Lines(mpsc::Receiver<io::Result<Vec<u8>>>);

/// Lines that are read ahead.
const READ_AHEAD: usize = 64;

impl Lines {
    /// Of a line with more than `most` bytes only the beginning is read, and that is too big.
    pub(crate) fn new(most: u64) -> Self {
        let (tell, told) = mpsc::channel(READ_AHEAD);
        tokio::task::spawn_blocking(move || {
            while let Some(line) = read_line(most).transpose() {
                let is_error = line.is_err();
                if tell.blocking_send(line).is_err() || is_error {
                    return;
                }
            }
        });
        Self(told)
    }

    /// The next line without its newline.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.0.recv().await.transpose()
    }
}

fn read_line(most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut stdin = io::stdin().lock().take(most.saturating_add(2));
    if stdin.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line))
}

/// Runs on a thread of its own what may wait for standard input, so that a signal still ends us.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
