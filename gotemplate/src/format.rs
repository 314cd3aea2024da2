//! `printf`: the format and its arguments.

use crate::{
    directive::{Directive, MAX_NUMBER, Piece, Size, pieces},
    error::Fault,
    print::Printer,
    value::Value,
    verb::{Flags, write_argument},
};

impl Printer {
    /// `fmt.Sprintf`
    pub(crate) fn printf(&mut self, format: &[u8], arguments: &[Value<'_>]) -> Result<(), Fault> {
        let mut arguments = Arguments {
            all: arguments,
            used: 0,
        };
        for piece in pieces(format) {
            match piece.map_err(Fault::misuse)? {
                Piece::Text(text) => self.write(text)?,
                Piece::Directive(directive) => arguments.write(self, &directive)?,
            }
        }
        arguments.extra(self)
    }
}

/// The arguments of a format, and how many of them are used by now.
struct Arguments<'v, 'a> {
    all: &'v [Value<'a>],
    used: usize,
}

impl<'a> Arguments<'_, 'a> {
    /// Writes what `directive` asks for.
    fn write(&mut self, out: &mut Printer, directive: &Directive) -> Result<(), Fault> {
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

    fn width(&mut self, out: &mut Printer, width: Size, flags: &mut Flags) -> Result<(), Fault> {
        match width {
            Size::None => {}
            Size::Number(width) => flags.width = Some(width),
            Size::Star => {
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

    fn precision(&mut self, out: &mut Printer, precision: Size, flags: &mut Flags) -> Result<(), Fault> {
        flags.precision = match precision {
            Size::None => None,
            Size::Number(precision) => Some(precision),
            // Go takes a negative precision for a bad one.
            Size::Star => match self.star().map(usize::try_from) {
                Some(Ok(precision)) => Some(precision),
                _ => return out.mistake("%!(BADPREC)"),
            },
        };
        Ok(())
    }

    /// The argument that a star stands for, if it is a number that may be one.
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

    /// Tells of arguments that no verb asked for.
    fn extra(&self, out: &mut Printer) -> Result<(), Fault> {
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
