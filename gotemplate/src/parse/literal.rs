//! The values of constants: numbers, characters and quoted text.

use super::ast::Number;

/// Parses the number `text`.
pub(crate) fn number(text: &str) -> Result<Number, String> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let bad = || format!("illegal number syntax: {text}");
    let lower = digits.to_ascii_lowercase();
    let (radix, body) = match lower.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.ends_with('i') {
        return Err("complex constants are not supported".into());
    }
    if !underscores_separate_digits(digits, radix) || body.starts_with('+') {
        return Err(bad());
    }
    if radix == 16 && lower.contains(['.', 'p']) {
        return Err("hexadecimal floating-point constants are not supported".into());
    }
    let body = body.replace('_', "");
    if let Ok(magnitude) = u64::from_str_radix(&body, radix) {
        return match (i128::from(magnitude), negative) {
            (magnitude, true) => i64::try_from(-magnitude)
                .map(Number::Int)
                .map_err(|_| "integer overflow".into()),
            (magnitude, false) => Ok(i64::try_from(magnitude).map_or(Number::Overflow, Number::Int)),
        };
    }
    let float = text.replace('_', "").parse().ok();
    float
        .filter(|float: &f64| lower.contains(['.', 'e']) && float.is_finite())
        .map(Number::Float)
        .ok_or_else(bad)
}

/// Go's rule: an underscore stands between digits, or between the base prefix and a digit.
fn underscores_separate_digits(digits: &str, radix: u32) -> bool {
    let is_digit = |c: char| c.is_digit(if radix == 16 { 16 } else { 10 });
    let parts: Vec<_> = digits.split('_').collect();
    parts.windows(2).all(|pair| {
        let is_prefix = matches!(pair[0], "0x" | "0X" | "0o" | "0O" | "0b" | "0B");
        (is_prefix || pair[0].ends_with(is_digit)) && pair[1].starts_with(is_digit)
    })
}

/// The number of the character between single quotes.
pub(crate) fn character(token: &str) -> Result<i64, String> {
    let bad = || format!("malformed character constant: {token}");
    let inner = token.get(1..token.len() - 1).ok_or_else(bad)?;
    let mut chars = inner.chars();
    let value = match chars.next() {
        Some('\\') => match escape(&mut chars, '\'').ok_or_else(bad)? {
            EscapedChar::Byte(byte) => i64::from(byte),
            EscapedChar::Char(c) => i64::from(u32::from(c)),
        },
        Some(c) if c != '\'' => i64::from(u32::from(c)),
        _ => return Err(bad()),
    };
    chars.next().is_none().then_some(value).ok_or_else(bad)
}

/// The bytes between double quotes.
pub(crate) fn quoted(token: &str) -> Result<Vec<u8>, String> {
    let bad = || "invalid syntax in a quoted string".to_owned();
    let inner = token.get(1..token.len() - 1).ok_or_else(bad)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => escape(&mut chars, '"').ok_or_else(bad)?,
            c => EscapedChar::Char(c),
        };
        match c {
            EscapedChar::Byte(byte) => bytes.push(byte),
            EscapedChar::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

/// The bytes between back quotes: carriage returns are not part of them.
pub(crate) fn raw(token: &str) -> Vec<u8> {
    token.trim_matches('`').replace('\r', "").into_bytes()
}

enum EscapedChar {
    Char(char),
    /// `\xff` and `\377` are bytes, not characters.
    Byte(u8),
}

/// Parses an escape sequence after its backslash.
fn escape(chars: &mut std::str::Chars<'_>, quote: char) -> Option<EscapedChar> {
    let first = chars.next()?;
    let mut digits = |radix: u32, first: Option<char>, count: usize| {
        let mut value = first.map_or(Some(0), |first| first.to_digit(radix))?;
        for _ in 0..count {
            value = value * radix + chars.next()?.to_digit(radix)?;
        }
        Some(value)
    };
    Some(match first {
        'a' => EscapedChar::Char('\u{7}'),
        'b' => EscapedChar::Char('\u{8}'),
        'f' => EscapedChar::Char('\u{c}'),
        'n' => EscapedChar::Char('\n'),
        'r' => EscapedChar::Char('\r'),
        't' => EscapedChar::Char('\t'),
        'v' => EscapedChar::Char('\u{b}'),
        '\\' => EscapedChar::Char('\\'),
        c if c == quote => EscapedChar::Char(c),
        'x' => EscapedChar::Byte(u8::try_from(digits(16, None, 2)?).ok()?),
        'u' => EscapedChar::Char(char::from_u32(digits(16, None, 4)?)?),
        'U' => EscapedChar::Char(char::from_u32(digits(16, None, 8)?)?),
        '0'..='7' => EscapedChar::Byte(u8::try_from(digits(8, Some(first), 2)?).ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_parse_as_in_go() {
        for (text, expected) in [
            ("0", Number::Int(0)),
            ("-12", Number::Int(-12)),
            ("+7", Number::Int(7)),
            ("0x1F", Number::Int(31)),
            ("0b101", Number::Int(5)),
            ("0o17", Number::Int(15)),
            ("017", Number::Int(15)),
            ("1_000", Number::Int(1000)),
            ("0x_ff", Number::Int(255)),
            ("1.5", Number::Float(1.5)),
            ("1e3", Number::Float(1000.0)),
            (".5", Number::Float(0.5)),
            ("018446744073709551615.0", Number::Float(1.844_674_407_370_955_2e19)),
            ("18446744073709551615", Number::Overflow),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for bad in [
            "",
            "-",
            ".",
            "08",
            "1__0",
            "_1",
            "1_",
            "1_e5",
            "1e_5",
            "0._5",
            "++5",
            "0x+5",
            "1+2",
            "1i",
            "+inf",
            "0x",
            "0x1p4",
            "1e999",
            "99999999999999999999",
        ] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn escapes_are_those_of_go() {
        assert_eq!(quoted(r#""a\n\x41\u00e9\101\"""#), Ok("a\nAéA\"".into()));
        assert_eq!(quoted(r#""\xff""#), Ok(vec![0xff]));
        for bad in [r#""\'""#, r#""\q""#, r#""\x4""#, r#""\ud800""#, r#""\400""#] {
            assert!(quoted(bad).is_err(), "{bad}");
        }
        assert_eq!(character(r"'\''"), Ok(39));
        assert_eq!(character("'é'"), Ok(233));
        assert!(character("''").is_err() && character("'ab'").is_err());
    }
}
