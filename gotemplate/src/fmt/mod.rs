//! Go's `fmt`, as far as templates use it: `print`, `println`, `printf`, and the text of a value.
//!
//! Imports `error` and `value`. Called by `exec`, and by `parse`, which checks constant formats.

pub(crate) mod directive;
mod float;
mod quote;

use crate::{
    error::EvalError,
    value::{Value, sorted},
};
use directive::{Directive, DirectiveSize, FormatPiece, MAX_NUMBER, pieces};

/// What to do where Go would print `<no value>`, `<nil>` or `%!d(string=x)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unprintable {
    /// The render ends with an error that names the missing value.
    #[default]
    Refuse,
    /// The text is printed, as in Go.
    Print,
}

/// Collects printed text, within a limit.
#[derive(Debug)]
pub(crate) struct Printer {
    bytes: Vec<u8>,
    limit: usize,
    unprintable: Unprintable,
}

impl Printer {
    /// A printer of at most `limit` bytes.
    pub(crate) fn new(limit: usize, unprintable: Unprintable) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            unprintable,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn write(&mut self, text: impl AsRef<[u8]>) -> Result<(), EvalError> {
        let text = text.as_ref();
        self.allow(text.len())?;
        self.bytes.extend_from_slice(text);
        Ok(())
    }

    /// Errors unless `count` more bytes fit.
    fn allow(&self, count: usize) -> Result<(), EvalError> {
        if count > self.limit - self.bytes.len() {
            return Err(EvalError::limit(format!(
                "the output is longer than {} bytes",
                self.limit
            )));
        }
        Ok(())
    }

    /// Writes Go's text for a missing value.
    fn nothing(&mut self, text: &str) -> Result<(), EvalError> {
        match self.unprintable {
            Unprintable::Print => self.write(text),
            Unprintable::Refuse => Err(EvalError::missing("a value to print is not there")),
        }
    }

    /// Writes Go's text for a mistake in a format; `complaint` begins with `%!`.
    fn mistake(&mut self, complaint: &str) -> Result<(), EvalError> {
        match self.unprintable {
            Unprintable::Print => self.write(complaint),
            Unprintable::Refuse => Err(EvalError::misuse(format!("printf gives {complaint}"))),
        }
    }

    /// `fmt.Sprint`: a space between two operands of which neither is a string.
    pub(crate) fn print(&mut self, arguments: &[Value<'_>]) -> Result<(), EvalError> {
        let mut after_text = true;
        for argument in arguments {
            let is_text = matches!(argument, Value::Text(_));
            if !is_text && !after_text {
                self.write(" ")?;
            }
            write_argument(self, argument, 'v', Flags::default())?;
            after_text = is_text;
        }
        Ok(())
    }

    /// `fmt.Sprintln`
    pub(crate) fn println(&mut self, arguments: &[Value<'_>]) -> Result<(), EvalError> {
        for (index, argument) in arguments.iter().enumerate() {
            if index > 0 {
                self.write(" ")?;
            }
            write_argument(self, argument, 'v', Flags::default())?;
        }
        self.write("\n")
    }
}

impl Printer {
    /// `fmt.Sprintf`
    pub(crate) fn printf(&mut self, format: &[u8], arguments: &[Value<'_>]) -> Result<(), EvalError> {
        let mut arguments = FormatArguments {
            all: arguments,
            used: 0,
        };
        for piece in pieces(format) {
            match piece.map_err(EvalError::misuse)? {
                FormatPiece::Text(text) => self.write(text)?,
                FormatPiece::Directive(directive) => arguments.write(self, &directive)?,
            }
        }
        arguments.extra(self)
    }
}

/// The arguments of a format, and the number of used ones.
struct FormatArguments<'v, 'a> {
    all: &'v [Value<'a>],
    used: usize,
}

impl<'a> FormatArguments<'_, 'a> {
    /// Writes the text of `directive`.
    fn write(&mut self, out: &mut Printer, directive: &Directive) -> Result<(), EvalError> {
        let mut flags = directive.flags;
        self.width(out, directive.width, &mut flags)?;
        self.precision(out, directive.precision, &mut flags)?;
        let wide = flags.width.unwrap_or(0).max(flags.precision.unwrap_or(0));
        out.allow(wide)?;
        let Some(verb) = directive.verb else {
            return out.mistake("%!(NOVERB)");
        };
        if verb == '%' {
            return out.write("%");
        }
        let Some(argument) = self.next() else {
            return out.mistake(&format!("%!{verb}(MISSING)"));
        };
        if verb == 'v' {
            flags.plus = false;
        }
        write_argument(out, argument, verb, flags)
    }

    fn width(&mut self, out: &mut Printer, width: DirectiveSize, flags: &mut Flags) -> Result<(), EvalError> {
        match width {
            DirectiveSize::None => {}
            DirectiveSize::Number(width) => flags.width = Some(width),
            DirectiveSize::Star => {
                let Some(width) = self.star() else {
                    return out.mistake("%!(BADWIDTH)");
                };
                if width < 0 {
                    flags.minus = true;
                    flags.zero = false;
                }
                flags.width = usize::try_from(width.unsigned_abs()).ok();
            }
        }
        Ok(())
    }

    fn precision(&mut self, out: &mut Printer, precision: DirectiveSize, flags: &mut Flags) -> Result<(), EvalError> {
        flags.precision = match precision {
            DirectiveSize::None => None,
            DirectiveSize::Number(precision) => Some(precision),
            // In Go a negative precision is a bad one.
            DirectiveSize::Star => match self.star().map(usize::try_from) {
                Some(Ok(precision)) => Some(precision),
                _ => return out.mistake("%!(BADPREC)"),
            },
        };
        Ok(())
    }

    /// The argument for a star, if it is a legal number.
    fn star(&mut self) -> Option<i64> {
        let number = match self.next()? {
            Value::Int(number) => *number,
            Value::Byte(number) => i64::from(*number),
            _ => return None,
        };
        usize::try_from(number.unsigned_abs())
            .is_ok_and(|size| size <= MAX_NUMBER)
            .then_some(number)
    }

    fn next(&mut self) -> Option<&Value<'a>> {
        let argument = self.all.get(self.used)?;
        self.used += 1;
        Some(argument)
    }

    /// Writes Go's text for arguments that no verb used.
    fn extra(&self, out: &mut Printer) -> Result<(), EvalError> {
        let extra = self.all.get(self.used..).unwrap_or_default();
        if extra.is_empty() {
            return Ok(());
        }
        out.mistake("%!(EXTRA ")?;
        for (index, argument) in extra.iter().enumerate() {
            if index > 0 {
                out.write(", ")?;
            }
            if argument.is_nothing() {
                out.nothing("<nil>")?;
            } else {
                out.write(argument.type_name())?;
                out.write("=")?;
                write_argument(out, argument, 'v', Flags::default())?;
            }
        }
        out.write(")")
    }
}

/// The flags between `%` and the verb.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "fmt has these four independent flags")]
pub(crate) struct Flags {
    pub(crate) plus: bool,
    pub(crate) minus: bool,
    pub(crate) space: bool,
    pub(crate) zero: bool,
    pub(crate) width: Option<usize>,
    pub(crate) precision: Option<usize>,
}

/// Writes an argument of `print` or `printf`.
pub(crate) fn write_argument(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), EvalError> {
    match value {
        Value::Missing | Value::Nil if verb == 'v' => {
            out.nothing(&String::from_utf8_lossy(&padded(b"<nil>".to_vec(), flags)))
        }
        Value::Missing | Value::Nil => out.nothing(&format!("%!{verb}(<nil>)")),
        value => write_value(out, value, verb, flags),
    }
}

/// Writes a value, and the elements of a list or a map under the same verb.
fn write_value(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), EvalError> {
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
fn bad_verb(out: &mut Printer, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), EvalError> {
    let text = spelled(value, 'v', flags).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    out.mistake(&format!("%!{verb}({}={text})", value.type_name()))
}

/// The text of `value` under `verb`; `None` if the verb does not apply to its type.
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
