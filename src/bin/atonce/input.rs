//! What a command sends: an argument or standard input.

use std::io::{self, BufRead, IsTerminal, Read};

use atonce::id::Topic;

use crate::output::Output;

/// The topic of an argument.
pub(crate) fn parse_topic(text: &str) -> Result<String, String> {
    Topic::check(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
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

/// The next line of standard input without its newline. Of one with more than `most` bytes only the beginning is read,
/// and that is too big.
pub(crate) async fn next_line(most: u64) -> io::Result<Option<Vec<u8>>> {
    blocking(move || {
        let mut line = Vec::new();
        let mut stdin = io::stdin().lock().take(most.saturating_add(2));
        if stdin.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some(line))
    })
    .await
}

/// Runs on a thread of its own what may wait for standard input, so that a signal still ends us.
pub(crate) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
