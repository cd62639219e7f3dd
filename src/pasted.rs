//! Text that people copy: out of mails, editors and other systems, into files, variables, options and prompts.
//!
//! It comes with a byte order mark, the line ends of Windows, blanks, characters without a width, or in quotes; and it
//! means what stands between. Whatever is read from people goes through here, so that it is read alike everywhere.

use std::borrow::Cow;

use thiserror::Error;

/// Quotes that people and editors put around a text.
const QUOTES: [(char, char); 5] = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’')];
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why bytes are no text of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadText {
    /// Two bytes a character.
    #[error("it is UTF-16, which some editors of Windows call Unicode: save it as UTF-8")]
    Utf16,
    /// Something else.
    #[error("it is no text in UTF-8")]
    Other,
}

/// Whether nobody sees this character: white space, marks of direction, characters without a width.
pub fn is_blank(character: char) -> bool {
    character.is_whitespace()
        || character == '\u{ad}'
        || (crate::id::unprintable(character) && !character.is_control())
}

/// The text without what nobody sees, and without quotes, around it.
pub fn cleaned(text: &str) -> &str {
    let mut text = text.trim_matches(is_blank);
    while let Some(inner) = unquoted(text) {
        text = inner.trim_matches(is_blank);
    }
    text
}

/// The characters of a word that has neither blanks nor quotes in it, however it was wrapped on its way.
pub fn squeezed(text: &str) -> impl Iterator<Item = char> {
    let is_quote = |char: char| QUOTES.iter().any(|(open, close)| char == *open || char == *close);
    text.chars().filter(move |char| !is_blank(*char) && !is_quote(*char))
}

/// The entries of a list with commas between: each cleaned, and none empty.
pub fn listed(text: &str) -> impl Iterator<Item = &str> {
    cleaned(text).split(',').map(cleaned).filter(|entry| !entry.is_empty())
}

/// The text of a file, without its byte order mark.
///
/// # Errors
///
/// It is in another encoding. The bytes are not in the error, so a caller can wipe them.
pub fn decoded(bytes: &[u8]) -> Result<&str, BadText> {
    // Without a mark UTF-16 is known by its zeros, which are in no text of people.
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err(BadText::Utf16);
    }
    std::str::from_utf8(bytes.strip_prefix(MARK).unwrap_or(bytes)).map_err(|_| BadText::Other)
}

/// The lines of a file of ours, as we wrote them: an editor may have put another end to each.
pub fn lines(text: &str) -> Cow<'_, str> {
    let tidy = |line: &str| line.len() == line.trim_matches(is_blank).len() && !line.is_empty();
    if text.ends_with('\n') && text.split_terminator('\n').all(tidy) {
        return Cow::Borrowed(text);
    }
    // As long as the text and one newline: growing would leave a copy behind that is not wiped.
    let mut lines = String::with_capacity(text.len() + 1);
    for line in text.lines().map(|line| line.trim_matches(is_blank)).filter(|line| !line.is_empty()) {
        lines.push_str(line);
        lines.push('\n');
    }
    Cow::Owned(lines)
}

fn unquoted(text: &str) -> Option<&str> {
    QUOTES.iter().find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_with_something_around_it_is_what_stands_between() {
        for text in [
            "a b",
            "\u{feff}a b\r\n",
            " \t a b \n\n",
            "\u{a0}a b\u{200b}",
            "\"a b\"",
            "'a b'\r",
            "“a b”",
            "\u{feff}\" a b \"\r\n",
        ] {
            assert_eq!(cleaned(text), "a b", "{text:?}");
        }
        for blank in ["", " ", "\r", "\u{feff}", "\"\"", "' '", "\u{200b}\u{a0}\r\n"] {
            assert_eq!(cleaned(blank), "", "{blank:?}");
        }
        // What is no pair stays, and so does what steers a terminal: that is told, not hidden.
        assert_eq!(cleaned("a \"b\""), "a \"b\"");
        assert_eq!(cleaned("\""), "\"");
        assert_eq!(cleaned("\u{1b}a"), "\u{1b}a");
    }

    #[test]
    fn a_list_may_have_blanks_around_its_commas_and_a_comma_at_its_end() {
        assert_eq!(listed(" a , b,\r\n").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(listed("\"a, b\"").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(listed(" , ,").count(), 0);
    }

    #[test]
    fn a_file_in_another_encoding_is_told_as_that() {
        assert_eq!(decoded(b"\xef\xbb\xbfatonce\r\n"), Ok("atonce\r\n"));
        let wide = |order: fn(u16) -> [u8; 2], mark: &str| {
            format!("{mark}atonce").encode_utf16().flat_map(order).collect::<Vec<u8>>()
        };
        for mark in ["\u{feff}", ""] {
            assert_eq!(decoded(&wide(u16::to_le_bytes, mark)), Err(BadText::Utf16));
            assert_eq!(decoded(&wide(u16::to_be_bytes, mark)), Err(BadText::Utf16));
        }
        assert_eq!(decoded(b"\xe4"), Err(BadText::Other));
    }

    #[test]
    fn the_lines_of_a_file_are_the_same_whatever_editor_saved_it() {
        for text in ["a\nb\n", "a\r\nb\r\n", "\u{feff}a\nb", "\n a\n\nb \n\n"] {
            assert_eq!(lines(text), "a\nb\n", "{text:?}");
        }
        assert!(matches!(lines("a\nb\n"), Cow::Borrowed(_)));
        assert_eq!(lines(""), "");
    }
}
