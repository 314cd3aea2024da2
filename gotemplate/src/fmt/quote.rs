//! `%q`: text and characters as Go writes them in source.

use std::fmt::Write as _;

/// `bytes` between double quotes; `ascii` escapes everything beyond ASCII.
pub(crate) fn text(bytes: &[u8], ascii: bool) -> String {
    let mut quoted = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape(&mut quoted, c, '"', ascii);
        }
        for byte in chunk.invalid() {
            let _ = write!(quoted, "\\x{byte:02x}");
        }
    }
    quoted.push('"');
    quoted
}

/// The character of number `code` between single quotes.
pub(crate) fn character(code: i64, ascii: bool) -> String {
    let mut quoted = String::from('\'');
    escape(&mut quoted, char_of(code), '\'', ascii);
    quoted.push('\'');
    quoted
}

/// The character of number `code`; an invalid number becomes U+FFFD.
pub(crate) fn char_of(code: i64) -> char {
    u32::try_from(code)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn escape(quoted: &mut String, c: char, quote: char, ascii: bool) {
    match c {
        c if c == quote || c == '\\' => quoted.extend(['\\', c]),
        '\u{7}' => quoted.push_str("\\a"),
        '\u{8}' => quoted.push_str("\\b"),
        '\u{c}' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\u{b}' => quoted.push_str("\\v"),
        ' '..='~' => quoted.push(c),
        c if !ascii && is_print(c) => quoted.push(c),
        c => {
            let _ = match u32::from(c) {
                code if code < 0x80 => write!(quoted, "\\x{code:02x}"),
                code if code < 0x1_0000 => write!(quoted, "\\u{code:04x}"),
                code => write!(quoted, "\\U{code:08x}"),
            };
        }
    }
}

/// Whether `c` is printable in Go: letters, marks, numbers, punctuation and symbols. The standard library uses the
/// same rule when it escapes the inside of a string for debugging.
fn is_print(c: char) -> bool {
    let inside: String = ['x', c].iter().collect();
    inside.escape_debug().nth(1) == Some(c)
}
