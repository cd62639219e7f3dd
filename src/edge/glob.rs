//! Patterns for interface names: `*` is any characters, `?` is one, `[0-9a-f]` is one of these, `[!0-9]` one that is none
//! of these. A `[` that nothing closes is itself.

/// Whether `name` fits `pattern`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the present reading of the last star turns out wrong.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(bytes) = one(&pattern[p..], name[n]) {
            p += bytes;
            n += 1;
        } else {
            let Some((star_p, star_n)) = star else { return false };
            star = Some((star_p, star_n + 1));
            p = star_p + 1;
            n = star_n + 1;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How many bytes of the pattern stand for `byte`, if its first sign does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    let (first, rest) = pattern.split_first()?;
    // The first place in brackets may be a bracket.
    let end = rest.iter().skip(1).position(|byte| *byte == b']').map(|at| at + 1).filter(|_| *first == b'[');
    match end {
        Some(end) => is_in(&rest[..end], byte).then_some(end + 2),
        None => (*first == b'?' || *first == byte).then_some(1),
    }
}

fn is_in(class: &[u8], byte: u8) -> bool {
    let (negated, mut rest) = match class {
        [b'!', rest @ ..] if !rest.is_empty() => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    while let [first, behind @ ..] = rest {
        if let [b'-', last, behind @ ..] = behind {
            found |= (*first..=*last).contains(&byte);
            rest = behind;
        } else {
            found |= *first == byte;
            rest = behind;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_question_marks_and_brackets_stand_for_what_they_say() {
        for (pattern, name, fits) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("docker*", "docker0", true),
            ("docker*", "docker", true),
            ("br-*", "br0", false),
            ("*", "", true),
            ("*0", "wlan10", true),
            ("w*n*0", "wlan00", true),
            ("w*n*1", "wlan00", false),
            ("**a", "ba", true),
            ("", "x", false),
            ("br-[0-9a-f][0-9a-f]", "br-0f", true),
            ("br-[0-9a-f][0-9a-f]", "br-0g", false),
            ("br-[0-9a-f][0-9a-f]", "br-0f1", false),
            ("*[0-9]", "lan-5", true),
            ("*[0-9]", "lan-x", false),
            ("eth[!0]", "eth1", true),
            ("eth[!0]", "eth0", false),
            ("eth[02]", "eth2", true),
            ("eth[02]", "eth1", false),
            ("a[-b]", "a-", true),
            ("a[]b]", "a]", true),
            ("a[b", "a[b", true),
            ("a[b", "ab", false),
            ("a[]", "a[]", true),
            ("[!]", "!", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
