//! The forms of names, label keys and label values, text that is cut to length, and problems of fields.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use taskgate_api::is_object_name;

/// The longest message, in characters: the API server cuts warnings and audit values there.
pub(crate) const MAX_MESSAGE: usize = 256;

/// The longest user name that is recorded, in characters.
pub(crate) const MAX_USER: usize = 256;

/// The longest note of an Event, in bytes (`events.k8s.io/v1`).
const MAX_NOTE: usize = 1024;

/// `text` as the note of an Event: cut to its length in bytes, and on one line as [`clip`] makes it.
pub fn note(text: &str) -> String {
    let mut note = clip(text, MAX_NOTE);
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}

/// `text`, cut at `max` characters with an ellipsis, on one line: control characters become spaces.
pub fn clip(text: &str, max: usize) -> String {
    let defused = |c: char| if c.is_control() || is_bidi(c) { ' ' } else { c };
    let mut chars = text.chars().map(defused);
    let mut clipped: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() && clipped.pop().is_some() {
        clipped.push('…');
    }
    clipped
}

/// Whether `c` reorders the text around it: an item's name must not be able to rewrite a message.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The part of a label or annotation key after the optional prefix; a non-empty label value has the same form.
fn is_qualified_part(part: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&part.len())
        && edge(part.bytes().next())
        && edge(part.bytes().last())
        && part
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// A label or annotation key: `name` or `dns.prefix/name`.
pub(crate) fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_object_name(prefix) && is_qualified_part(name),
        None => is_qualified_part(key),
    }
}

/// A label value: empty, or at most 63 characters of the qualified form.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_qualified_part(value)
}

/// How much of a text stays readable in a label value. With the hash it fits into 63 characters.
const READABLE: usize = 54;

/// `text` as a legal label value: itself if it is one; else its readable part, and a hash of the whole.
///
/// Each run of other characters than letters, digits, `_` and `.` becomes one `-`. The hash (8 hexadecimal digits of SHA-256)
/// keeps texts apart that are alike afterwards: `a/b` and `a:b`, or titles that differ at the end only. A legal value is never
/// changed, so the function is idempotent.
pub(crate) fn label_value(text: &str) -> String {
    if is_label_value(text) {
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
    let hash = hex(&sha256(text.as_bytes())[..4]);
    match readable.trim_matches(|c: char| !c.is_ascii_alphanumeric()) {
        "" => hash,
        readable => format!("{readable}-{hash}"),
    }
}

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// `bytes` in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// `count` and its `noun`: `1 failure`, `2 failures`.
pub fn counted(count: u32, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// How often something happened: `once`, `2 times`, with `in a row` where that adds something.
pub(crate) fn in_a_row(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times in a row"),
    }
}

/// The letters and digits of `text`, at most 64, as a reason in a column or of an Event.
pub(crate) fn one_word(text: &str) -> String {
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    if word.is_empty() { "Unknown".to_owned() } else { word }
}

/// What is wrong with a field of a policy: mostly an error that keeps the policy from being applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Problem {
    /// The field's path, such as `spec.metadata.labels[team]`.
    pub field: String,
    /// The error.
    pub message: String,
}

/// What is wrong with a policy, collected while it is compiled.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    /// What keeps it from being applied.
    pub(crate) errors: Vec<Problem>,
    /// What may go wrong for some objects.
    pub(crate) doubts: Vec<Problem>,
}

impl Problems {
    /// Adds an error in `field`.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(Problem {
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// Adds a doubt about `field`.
    pub(crate) fn doubt(&mut self, field: &str, message: String) {
        let field = field.to_owned();
        self.doubts.push(Problem { field, message });
    }

    /// The value of `result`; its error is one in `field`.
    pub(crate) fn check<T, E: ToString>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys() {
        for good in ["a", "team", "team.example.com/area", "A_b.c-9", "x.y/Z"] {
            assert!(is_key(good), "{good}");
        }
        let long = "k".repeat(64);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "a-",
            "ä",
            "Team.example.com/x",
            "a b",
            long.as_str(),
        ] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn label_values() {
        let (fits, long) = ("v".repeat(63), "v".repeat(64));
        for good in ["", "a", "A.b_c-9", fits.as_str()] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["-a", "a-", " ", "a b", "é", long.as_str()] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn clipping_counts_characters_and_defuses_control_characters() {
        assert_eq!(clip("héllo", 5), "héllo");
        assert_eq!(clip("héllo!", 5), "héll…");
        assert_eq!(clip("a\nb\u{202e}c", 9), "a b c");
        assert_eq!((clip("abc", 1), clip("abc", 0)), ("…".into(), String::new()));
    }

    #[test]
    fn a_note_fits_in_bytes() {
        assert_eq!(note("short\nnote"), "short note");
        let ascii = "a".repeat(1024);
        assert_eq!(note(&ascii), ascii);
        for text in ["ä".repeat(900), "項".repeat(1000), "a".repeat(2000), "😀".repeat(300)] {
            let note = note(&text);
            assert!(
                (1020..=1024).contains(&note.len()) && note.ends_with('…'),
                "{}",
                note.len()
            );
        }
    }

    #[test]
    fn a_legal_value_stays_and_any_other_text_is_readable_with_a_hash() {
        assert_eq!(label_value("critical"), "critical");
        assert_eq!(label_value(""), "");
        assert_eq!(label_value("priority/critical"), "priority-critical-a2ab1192");
        assert_eq!(label_value("-edge-"), "edge-8074bfea");
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
            let value = label_value(hostile);
            assert!(is_label_value(&value) && !value.is_empty(), "{hostile:?}: {value}");
        }
        assert_ne!(label_value("a/b"), label_value("a:b"));
        assert_ne!(label_value(&"x".repeat(64)), label_value(&"x".repeat(65)));
    }

    proptest! {
        #[test]
        fn a_label_value_is_legal_and_made_once(text in "\\PC{0,90}") {
            let value = label_value(&text);
            prop_assert!(is_label_value(&value), "{value}");
            prop_assert_eq!(label_value(&value), value);
        }
    }
}
