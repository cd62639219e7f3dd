//! What a reader of JSON or TOML says of a value that does not fit, in words for people, on one line.
//!
//! serde speaks of the types of this program and repeats what it found as Rust would write it, over several lines at
//! times. A value may be long, secret, or steer a terminal, so only numbers and words are repeated.

use crate::id::unprintable;
use crate::limits;

/// Characters of a word that is repeated: a name has no more, a secret has.
const WORD: usize = limits::NAME_BYTES;
/// Characters of what we do not understand ourselves.
const CHARACTERS: usize = 200;

/// What is wrong, from what serde says: `a string, and should be a whole number`.
pub(crate) fn of(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line.split_once(" at line ").map_or(line, |(before, _)| before);
    let parts = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .find_map(|start| line.strip_prefix(start))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match parts {
        Some((found, expected)) => format!("{}, and should be {}", value(found), wanted(expected)),
        None => visible(line, CHARACTERS),
    }
}

/// A word or name of somebody else as an error repeats it.
pub(crate) fn word(text: &str) -> String {
    format!("\"{}\"", visible(text, WORD))
}

/// Several lines as one, for who shows no more.
#[cfg(feature = "daemon")]
pub(crate) fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// The value that was found.
fn value(found: &str) -> String {
    let (kind, rest) = found.split_at(found.find(['`', '"']).unwrap_or(found.len()));
    let shown = rest.trim_matches(['`', '"']);
    let is_short = shown.chars().count() <= WORD && !shown.contains(['\\', '"']);
    match kind.trim() {
        "integer" | "boolean" | "floating point" if is_short => shown.to_owned(),
        "string" | "" if is_short => word(shown),
        "string" | "" => "a string".to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a table of values".to_owned(),
        kind => visible(kind, WORD),
    }
}

/// What would fit.
fn wanted(expected: &str) -> String {
    match expected {
        "u8" => "a whole number up to 255".to_owned(),
        "u16" => "a whole number up to 65535".to_owned(),
        "u32" => "a whole number up to 4294967295".to_owned(),
        "u64" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a table of values".to_owned(),
        "IP address" => "an IP address".to_owned(),
        "path string" => "a path".to_owned(),
        other => visible(other, CHARACTERS),
    }
}

fn visible(text: &str, most: usize) -> String {
    text.chars().take(most).map(|char| if unprintable(char) { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_says_is_told_in_words_for_people() {
        for (said, told) in [
            (
                "invalid type: string \"x\", expected u16\nin `port`\n",
                "\"x\", and should be a whole number up to 65535",
            ),
            ("invalid type: integer `7`, expected a string at line 1 column 24", "7, and should be a string"),
            ("invalid type: sequence, expected a boolean", "a list, and should be true or false"),
            ("invalid value: integer `-1`, expected u64", "-1, and should be a whole number, 0 or more"),
            ("unknown variant `burn`, expected `wait` or `drop`", "\"burn\", and should be `wait` or `drop`"),
            ("invalid type: null, expected a sequence", "null, and should be a list"),
            ("unclosed string", "unclosed string"),
            ("", ""),
        ] {
            assert_eq!(of(said), told, "{said}");
        }
    }

    #[test]
    fn what_is_long_or_escaped_is_not_repeated_and_what_steers_is_not_either() {
        let long = format!("invalid type: string \"{}\", expected u16", "x".repeat(66));
        assert_eq!(of(&long), "a string, and should be a whole number up to 65535");
        let escaped = r#"invalid type: string "a\n, expected b", expected u16"#;
        assert_eq!(of(escaped), "a string, and should be a whole number up to 65535");
        assert_eq!(of("odd \u{1b}[2J"), "odd \u{fffd}[2J");
        assert_eq!(one_line("a is wrong\ntry: b\n"), "a is wrong; try: b");
        assert_eq!(word("a\nb"), "\"a\u{fffd}b\"");
        assert!(of(&"x".repeat(10_000)).len() <= CHARACTERS);
        proptest::proptest!(|(text: String)| {
            proptest::prop_assert!(!of(&text).contains(unprintable));
        });
    }
}
