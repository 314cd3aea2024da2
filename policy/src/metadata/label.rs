//! What becomes of text that is no legal label value.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::names;

/// How much of the text stays readable. With the hash it fits the 63 characters of a label value.
const READABLE: usize = 54;

/// `text` as a legal label value: itself if it is one; else what is readable of it, and a hash of the whole.
///
/// What is not a letter, a digit, `-`, `_` or `.` becomes `-`, in one run. The hash (8 hexadecimal digits of SHA-256) keeps
/// different texts apart that look alike afterwards: `a/b` and `a:b`, or titles that differ at the end only. A legal value
/// is never changed, so doing it twice is doing it once.
pub(crate) fn legal(text: &str) -> String {
    if names::is_label_value(text) {
        return text.to_owned();
    }
    let mut readable = String::new();
    for c in text.chars() {
        if readable.len() == READABLE {
            break;
        }
        match c {
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.') => readable.push(c),
            _ if readable.ends_with('-') => {}
            _ => readable.push('-'),
        }
    }
    let readable = readable.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let hash = Sha256::digest(text.as_bytes())
        .iter()
        .take(4)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
    match readable {
        "" => hash,
        readable => format!("{readable}-{hash}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_legal_stays_and_everything_else_is_readable_with_a_hash() {
        assert_eq!(legal("critical"), "critical");
        assert_eq!(legal(""), "");
        assert_eq!(legal("priority/critical"), "priority-critical-a2ab1192");
        assert_eq!(legal("-edge-"), "edge-8074bfea");
        for hostile in [
            "\"; kubectl delete ns prod",
            "two\nlines",
            "{{.Title}}",
            "zero\u{200b}width",
            "\u{202e}live",
            "😀",
            "-",
            " ",
            "é",
        ] {
            let value = legal(hostile);
            assert!(
                names::is_label_value(&value) && !value.is_empty(),
                "{hostile:?}: {value}"
            );
        }
        assert_ne!(legal("a/b"), legal("a:b"));
        assert_ne!(legal(&"x".repeat(64)), legal(&"x".repeat(65)));
    }

    proptest! {
        #[test]
        fn always_legal_and_done_once(text in "\\PC{0,90}") {
            let value = legal(&text);
            prop_assert!(names::is_label_value(&value), "{value}");
            prop_assert_eq!(legal(&value), value);
        }
    }
}
