//! The forms that Kubernetes demands of names, label keys and label values, and cutting text to length.

use taskgate_api::is_object_name;

/// The API server cuts warnings and audit values at 256 characters (anchors, "What the API server imposes" 5).
pub(crate) const MAX_MESSAGE: usize = 256;

/// The longest note of an Event, in bytes (`events.k8s.io/v1`).
const MAX_NOTE: usize = 1024;

/// `text` as the note of an Event, cut to its length in bytes and defused as [`clip`] does.
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

/// Characters that reorder the text around them: an item's name must not be able to rewrite our message.
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

#[cfg(test)]
mod tests {
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
}
