//! Where a command writes: results to standard output, notes and errors to standard error.
//!
//! What came from the network never steers the terminal: [`escape`] is between it and every line of text. JSON has its
//! own escapes, for the same characters.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

/// The two streams and what may go there.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

/// An object with the kind of event that it is on the socket.
#[derive(Serialize)]
struct Tagged<'a, T> {
    ev: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    pub(crate) const fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Self { json, quiet, verbose }
    }

    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    pub(crate) const fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// A line of text, already [escaped](escape).
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// An object in JSON, on a line of its own.
    pub(crate) fn object(&self, object: &impl Serialize) -> io::Result<()> {
        self.line(&escape_json(&serde_json::to_string(object)?))
    }

    /// An object in JSON as the socket's event of a kind.
    pub(crate) fn event(&self, ev: &str, body: &impl Serialize) -> io::Result<()> {
        self.object(&Tagged { ev, body })
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Something good to know that is not the result.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.stderr(&format!("atonce: {}\n", escape(text)));
        }
    }

    /// Something to know for who wants to know more.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Lines of advice.
    pub(crate) fn advice(&self, lines: &str) {
        if !self.quiet {
            self.stderr(lines);
        }
    }

    /// A question to whoever types.
    pub(crate) fn prompt(&self, text: &str) {
        self.stderr(text);
    }

    /// Rows to look at, which were asked for.
    pub(crate) fn picture(&self, rows: &str) {
        self.stderr(rows);
    }

    /// What failed, why, and what to try.
    pub(crate) fn error(&self, what: &str, why: &[String], tries: Option<&str>) {
        let mut text = format!("atonce: {}\n", escape(what));
        for why in why {
            let _ = writeln!(text, "  {}", escape(why));
        }
        if let Some(tries) = tries {
            let _ = writeln!(text, "  try: {}", escape(tries));
        }
        self.stderr(&text);
    }

    fn stderr(&self, text: &str) {
        // Nobody is left to be told.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The text with everything made visible that would steer a terminal, break the line or turn its direction.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            _ if steers(character) => escaped.extend(character.escape_unicode()),
            _ => escaped.push(character),
        }
    }
    Cow::Owned(escaped)
}

/// Bytes as text: what is UTF-8 [escaped](escape), every other byte as `\xff`.
pub(crate) fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// JSON with the characters escaped that serde_json leaves as they are; they can only stand in strings.
fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if steers(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Controls, the marks that turn the direction of text (Unicode 9.9), separators of lines, and what has no shape at all
/// but the two joiners that scripts and emoji are written with.
const fn steers(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_the_network_cannot_steer_the_terminal_or_turn_the_line() {
        assert_eq!(escape("\u{1b}[31mred"), "\\u{1b}[31mred");
        assert_eq!(escape("a\u{202e}b\u{9b}c"), "a\\u{202e}b\\u{9b}c");
        assert_eq!(escape("two\nlines\tand\r"), "two\\nlines\\tand\\r");
        assert_eq!(escape("Küche 👩\u{200d}🍳"), "Küche 👩\u{200d}🍳");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(escape_bytes(b"ok\xff\x00"), "ok\\xff\\u{0}");
    }

    #[test]
    fn json_is_the_same_value_without_the_characters_that_steer() {
        let value = "a\u{202e}\u{7f}\u{e0041}\u{1b}";
        let json = serde_json::to_string(value).unwrap();
        let escaped = escape_json(&json);
        assert_eq!(escaped, "\"a\\u202e\\u007f\\udb40\\udc41\\u001b\"");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), value);
    }
}
