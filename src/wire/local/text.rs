//! The bytes of a message in a line: as text where they are text, else in base64.

use data_encoding::BASE64;

use crate::limits;

/// Bytes of a line that are kept for all but the text: names, ids, the time, and what stands between them.
const REST_BYTES: usize = 1024;

/// The payload as `text`, or as `data`, which is written into `memory`: when it is no UTF-8, or its escapes would make
/// the line too long.
pub(crate) fn text_or_data<'p, 'm>(
    payload: &'p [u8],
    memory: &'m mut String,
) -> (Option<&'p str>, Option<&'m str>) {
    match std::str::from_utf8(payload) {
        Ok(text) if fits_a_line(text) => (Some(text), None),
        _ => {
            memory.clear();
            BASE64.encode_append(payload, memory);
            (None, Some(memory))
        }
    }
}

fn fits_a_line(text: &str) -> bool {
    let most = limits::LINE_BYTES - REST_BYTES;
    text.len() <= most / 6 || escaped_len(text) <= most
}

/// Bytes of a text in JSON, without its quotes.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::wire::local::{Event, PathKind, PeerRef};

    /// The line of a message with such a payload, where all else is as long as it can be.
    fn line(payload: &[u8]) -> (String, bool) {
        let mut memory = String::new();
        let (text, data) = text_or_data(payload, &mut memory);
        let event = Event::Message {
            from: PeerRef { name: "\"".repeat(limits::NAME_BYTES).into(), id: NodeId([7; 32]) },
            topic: "t".repeat(limits::NAME_BYTES).into(),
            text: text.map(Into::into),
            data: data.map(Into::into),
            path: PathKind::Direct,
            at: "2026-11-23T16:00:00.250Z".into(),
            reply_to: Some("r".repeat(128).into()),
        };
        (serde_json::to_string(&event).unwrap() + "\n", text.is_some())
    }

    #[test]
    fn sixty_kibibytes_of_anything_are_one_legal_line() {
        for (unit, as_text) in [("x", true), ("é", true), ("\"", false), ("\u{1}", false), ("\u{7f}", true)]
        {
            let payload = unit.repeat(61_440 / unit.len());
            let (line, is_text) = line(payload.as_bytes());
            assert!(line.len() <= limits::LINE_BYTES, "{unit:?}: {}", line.len());
            assert_eq!(is_text, as_text, "{unit:?}");
        }
        let (line, is_text) = line(&[0xff; 61_440]);
        assert!(!is_text && line.len() <= limits::LINE_BYTES);
    }

    #[test]
    fn a_text_is_told_as_text_up_to_the_length_that_a_line_has() {
        for escapes in 0..61_440_usize / 6 {
            // A step of a prime, so that both sides of the border are met at many places.
            let text = "\u{1}".repeat(escapes * 7 % 20_000) + &"y".repeat(30_000);
            if escapes % 101 == 0 {
                let (line, is_text) = line(text.as_bytes());
                assert!(line.len() <= limits::LINE_BYTES);
                assert_eq!(is_text, escaped_len(&text) <= limits::LINE_BYTES - REST_BYTES);
            }
        }
    }

    #[test]
    fn the_length_in_json_is_the_true_one() {
        proptest::proptest!(|(text: String, low in "[\\x00-\\x30\\\\]{0,40}")| {
            for text in [text, low] {
                let json = serde_json::to_string(&text).unwrap();
                proptest::prop_assert_eq!(escaped_len(&text) + 2, json.len());
            }
        });
    }
}
