//! Go's `fmt`, as far as templates use it: `print`, `println`, `printf`, and the text of a value.
//!
//! Imports `error` and `value`. Called by `exec`, and by `parse`, which checks constant formats.

pub(crate) mod directive;
mod float;
mod quote;

use std::slice::Iter;

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
            let message = format!("the output is longer than {} bytes", self.limit);
            return Err(EvalError::limit(message));
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
            self.argument(argument, 'v', Flags::default())?;
            after_text = is_text;
        }
        Ok(())
    }

    /// `fmt.Sprintln`
    pub(crate) fn println(&mut self, arguments: &[Value<'_>]) -> Result<(), EvalError> {
        self.separated(" ", arguments, |printer, argument| {
            printer.argument(argument, 'v', Flags::default())
        })?;
        self.write("\n")
    }

    /// `fmt.Sprintf`
    pub(crate) fn printf(&mut self, format: &[u8], arguments: &[Value<'_>]) -> Result<(), EvalError> {
        let mut arguments = arguments.iter();
        for piece in pieces(format) {
            match piece.map_err(EvalError::misuse)? {
                FormatPiece::Text(text) => self.write(text)?,
                FormatPiece::Directive(directive) => self.directive(&directive, &mut arguments)?,
            }
        }
        let extra = arguments.as_slice();
        if extra.is_empty() {
            return Ok(());
        }
        self.mistake("%!(EXTRA ")?;
        self.separated(", ", extra, |printer, argument| {
            if argument.is_nothing() {
                return printer.nothing("<nil>");
            }
            printer.write(argument.type_name())?;
            printer.write("=")?;
            printer.argument(argument, 'v', Flags::default())
        })?;
        self.write(")")
    }

    /// Writes the text of `directive` for the next of `arguments`.
    fn directive(&mut self, directive: &Directive, arguments: &mut Iter<'_, Value<'_>>) -> Result<(), EvalError> {
        let mut flags = directive.flags;
        match size(directive.width, arguments) {
            Ok(None) => {}
            Ok(Some(width)) => {
                if width < 0 {
                    flags.minus = true;
                    flags.zero = false;
                }
                flags.width = usize::try_from(width.unsigned_abs()).ok();
            }
            Err(IllegalSize) => self.mistake("%!(BADWIDTH)")?,
        }
        match size(directive.precision, arguments).map(|precision| precision.map(usize::try_from)) {
            Ok(None) => {}
            Ok(Some(Ok(precision))) => flags.precision = Some(precision),
            // In Go a negative precision is a bad one.
            Ok(Some(Err(_))) | Err(IllegalSize) => self.mistake("%!(BADPREC)")?,
        }
        let wide = flags.width.unwrap_or(0).max(flags.precision.unwrap_or(0));
        self.allow(wide)?;
        let Some(verb) = directive.verb else {
            return self.mistake("%!(NOVERB)");
        };
        if verb == '%' {
            return self.write("%");
        }
        let Some(argument) = arguments.next() else {
            return self.mistake(&format!("%!{verb}(MISSING)"));
        };
        if verb == 'v' {
            flags.plus = false;
        }
        self.argument(argument, verb, flags)
    }

    /// Writes an argument of `print` or `printf`.
    pub(crate) fn argument(&mut self, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), EvalError> {
        match value {
            Value::Missing | Value::Nil if verb == 'v' => {
                self.nothing(&String::from_utf8_lossy(&padded(b"<nil>".to_vec(), flags)))
            }
            Value::Missing | Value::Nil => self.nothing(&format!("%!{verb}(<nil>)")),
            value => self.value(value, verb, flags),
        }
    }

    /// Writes a value, and the elements of a list or a map under the same verb.
    fn value(&mut self, value: &Value<'_>, verb: char, flags: Flags) -> Result<(), EvalError> {
        match value {
            Value::List(list) => {
                self.write("[")?;
                self.separated(" ", list.items(), |printer, item| {
                    printer.value(&Value::of(item), verb, flags)
                })?;
                self.write("]")
            }
            Value::Map(map) => {
                self.write("map[")?;
                self.separated(" ", sorted(map), |printer, (key, item)| {
                    printer.value(&Value::Text(key.as_bytes().into()), verb, flags)?;
                    printer.write(":")?;
                    printer.value(&Value::of(item), verb, flags)
                })?;
                self.write("]")
            }
            Value::Missing | Value::Nil => self.nothing("<nil>"),
            scalar => {
                if let Some(text) = spelled(scalar, verb, flags) {
                    return self.write(text);
                }
                let text = spelled(scalar, 'v', flags).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                self.mistake(&format!("%!{verb}({}={text})", scalar.type_name()))
            }
        }
    }

    /// Writes `items` with `separator` between them.
    fn separated<T>(
        &mut self,
        separator: &str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.write(separator)?;
            }
            write(self, item)?;
        }
        Ok(())
    }
}

/// The argument for a star is no number, or too large.
struct IllegalSize;

/// A width or precision, which may be the next argument.
fn size(size: DirectiveSize, arguments: &mut Iter<'_, Value<'_>>) -> Result<Option<i64>, IllegalSize> {
    match size {
        DirectiveSize::None => Ok(None),
        DirectiveSize::Number(number) => Ok(i64::try_from(number).ok()),
        DirectiveSize::Star => {
            let number = arguments.next().and_then(Value::integer);
            let legal = number.filter(|number| number.unsigned_abs() <= MAX_NUMBER);
            legal.map(Some).ok_or(IllegalSize)
        }
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
    let spelled = match verb {
        'v' | 's' => truncated(value, flags.precision).to_vec(),
        'q' => quote::text(truncated(value, flags.precision), flags.plus).into_bytes(),
        'x' | 'X' => {
            let value = &value[..flags.precision.unwrap_or(usize::MAX).min(value.len())];
            let separator = if flags.space { " " } else { "" };
            let digits = value.iter().map(|byte| format!("{byte:02x}"));
            let digits = digits.collect::<Vec<_>>().join(separator);
            if verb == 'X' { digits.to_uppercase() } else { digits }.into_bytes()
        }
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
