//! One value under one verb of `printf`.

use crate::{
    error::Fault,
    float,
    print::Printer,
    quote,
    value::{Value, sorted},
};

/// What stands between `%` and the verb.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "fmt has these four flags, each on its own")]
pub(crate) struct Flags {
    pub(crate) plus: bool,
    pub(crate) minus: bool,
    pub(crate) space: bool,
    pub(crate) zero: bool,
    pub(crate) width: Option<usize>,
    pub(crate) precision: Option<usize>,
}

/// Writes an argument of `print` or `printf`.
pub(crate) fn write_argument(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), Fault> {
    match value {
        Value::Missing | Value::Nil if verb == 'v' => {
            out.nothing(&String::from_utf8_lossy(&padded(b"<nil>".to_vec(), flags)))
        }
        Value::Missing | Value::Nil => out.nothing(&format!("%!{verb}(<nil>)")),
        value => write_value(out, value, verb, flags),
    }
}

/// Writes a value, and the elements of a list or a map under the same verb.
fn write_value(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), Fault> {
    match value {
        Value::List(list) => {
            out.write("[")?;
            for (index, item) in list.items().iter().enumerate() {
                if index > 0 {
                    out.write(" ")?;
                }
                write_value(out, &Value::of(item), verb, flags)?;
            }
            out.write("]")
        }
        Value::Map(map) => {
            out.write("map[")?;
            for (index, (key, item)) in sorted(map).into_iter().enumerate() {
                if index > 0 {
                    out.write(" ")?;
                }
                write_value(out, &Value::Text(key.as_bytes().into()), verb, flags)?;
                out.write(":")?;
                write_value(out, &Value::of(item), verb, flags)?;
            }
            out.write("]")
        }
        Value::Missing | Value::Nil => out.nothing("<nil>"),
        scalar => match spelled(scalar, verb, flags) {
            Some(text) => out.write(text),
            None => bad_verb(out, scalar, verb, flags),
        },
    }
}

/// `%!d(string=x)`
fn bad_verb(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), Fault> {
    let text = spelled(value, 'v', flags).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    out.mistake(&format!("%!{verb}({}={text})", value.type_name()))
}

/// `value` under `verb`; `None` if the verb is not for values of its type.
fn spelled(value: &Value<'_>, verb: char, flags: Flags) -> Option<Vec<u8>> {
    match value {
        Value::Bool(value) if matches!(verb, 'v' | 't') => Some(padded(value.to_string().into_bytes(), flags)),
        Value::Int(value) => integer(*value, verb, flags),
        Value::Byte(value) => integer(i64::from(*value), verb, flags),
        Value::Float(value) => float(*value, verb, flags),
        Value::Text(value) => text(value, verb, flags),
        _ => None,
    }
}

fn integer(value: i64, verb: char, flags: Flags) -> Option<Vec<u8>> {
    let magnitude = value.unsigned_abs();
    let digits = match verb {
        'v' | 'd' => magnitude.to_string(),
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        'c' => return Some(padded(quote::char_of(value).to_string().into_bytes(), flags)),
        'q' => return Some(padded(quote::character(value, flags.plus).into_bytes(), flags)),
        'U' => {
            let digits = flags.precision.unwrap_or(4).max(4);
            let code = format!("U+{:0digits$X}", value.cast_unsigned());
            return Some(padded(code.into_bytes(), Flags { zero: false, ..flags }));
        }
        _ => return None,
    };
    let unsigned = Flags { zero: false, ..flags };
    let sign = sign(value < 0, flags);
    let least = match (flags.precision, flags.width) {
        (Some(0), _) if value == 0 => return Some(padded(Vec::new(), unsigned)),
        (Some(precision), _) => precision,
        (None, Some(width)) if flags.zero && !flags.minus => width.saturating_sub(sign.len()),
        _ => 0,
    };
    let prefix = if verb == 'O' { "0o" } else { "" };
    Some(padded(
        format!("{sign}{prefix}{digits:0>least$}").into_bytes(),
        unsigned,
    ))
}

fn sign(negative: bool, flags: Flags) -> &'static str {
    match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    }
}

fn float(value: f64, verb: char, flags: Flags) -> Option<Vec<u8>> {
    let (form, precision) = match verb {
        'v' => ('g', flags.precision),
        'g' | 'G' => (verb, flags.precision),
        'f' | 'F' => ('f', flags.precision.or(Some(6))),
        'e' | 'E' => (verb, flags.precision.or(Some(6))),
        _ => return None,
    };
    let text = float::format(value, form, precision);
    let magnitude = text.trim_start_matches(['-', '+']);
    let sign = sign(text.starts_with('-'), flags);
    let zeros = match flags.width {
        Some(width) if flags.zero && !flags.minus => width.saturating_sub(sign.len()),
        _ => 0,
    };
    let unsigned = Flags { zero: false, ..flags };
    Some(padded(format!("{sign}{magnitude:0>zeros$}").into_bytes(), unsigned))
}

fn text(value: &[u8], verb: char, flags: Flags) -> Option<Vec<u8>> {
    let hexadecimal = |upper: bool| {
        let value = &value[..flags.precision.unwrap_or(usize::MAX).min(value.len())];
        let separator = if flags.space { " " } else { "" };
        let digits = value.iter().map(|byte| format!("{byte:02x}"));
        let digits = digits.collect::<Vec<_>>().join(separator);
        if upper { digits.to_uppercase() } else { digits }.into_bytes()
    };
    let spelled = match verb {
        'v' | 's' => truncated(value, flags.precision).to_vec(),
        'q' => quote::text(truncated(value, flags.precision), flags.plus).into_bytes(),
        'x' => hexadecimal(false),
        'X' => hexadecimal(true),
        _ => return None,
    };
    Some(padded(spelled, flags))
}

/// The first `precision` characters.
fn truncated(text: &[u8], precision: Option<usize>) -> &[u8] {
    let Some(precision) = precision else { return text };
    let mut end = 0;
    for length in lengths(text).take(precision) {
        end += length;
    }
    &text[..end]
}

fn padded(mut text: Vec<u8>, flags: Flags) -> Vec<u8> {
    let missing = flags.width.unwrap_or(0).saturating_sub(lengths(&text).count());
    if flags.minus {
        text.resize(text.len() + missing, b' ');
        return text;
    }
    let mut padded = vec![if flags.zero { b'0' } else { b' ' }; missing];
    padded.append(&mut text);
    padded
}

/// The lengths of the characters of `text`; a byte that belongs to none counts as one.
fn lengths(text: &[u8]) -> impl Iterator<Item = usize> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(char::len_utf8);
        valid.chain(chunk.invalid().iter().map(|_| 1))
    })
}
