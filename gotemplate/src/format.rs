//! `printf`: the format and its arguments.

use crate::{
    error::Fault,
    print::Printer,
    value::Value,
    verb::{Flags, write_argument},
};

/// The greatest width and precision that Go takes.
const MAX_NUMBER: usize = 1_000_000;

impl Printer {
    /// `fmt.Sprintf`
    pub(crate) fn printf(&mut self, format: &[u8], arguments: &[Value<'_>]) -> Result<(), Fault> {
        let mut directive = Directives {
            rest: format,
            arguments,
            used: 0,
        };
        while let Some(percent) = directive.rest.iter().position(|byte| *byte == b'%') {
            let (text, rest) = directive.rest.split_at(percent);
            directive.rest = &rest[1..];
            self.write(text)?;
            directive.next(self)?;
        }
        self.write(directive.rest)?;
        directive.extra(self)
    }
}

/// What is left of a format, and of its arguments.
struct Directives<'f, 'a> {
    rest: &'f [u8],
    arguments: &'f [Value<'a>],
    used: usize,
}

impl<'a> Directives<'_, 'a> {
    /// Writes what follows a percent sign.
    fn next(&mut self, out: &mut Printer) -> Result<(), Fault> {
        let mut flags = self.flags()?;
        self.width(out, &mut flags)?;
        self.precision(out, &mut flags)?;
        let wide = flags.width.unwrap_or(0).max(flags.precision.unwrap_or(0));
        out.allow(wide)?;
        let Some(verb) = self.verb() else {
            return out.mistake("%!(NOVERB)");
        };
        if verb == '%' {
            return out.write("%");
        }
        let Some(argument) = self.argument() else {
            return out.mistake(&format!("%!{verb}(MISSING)"));
        };
        if matches!(verb, 'T' | 'p' | 'w') {
            return Err(Fault::misuse(format!("printf: the verb %{verb} is not supported")));
        }
        if verb == 'v' {
            flags.plus = false;
        }
        write_argument(out, argument, verb, flags)
    }

    fn flags(&mut self) -> Result<Flags, Fault> {
        let mut flags = Flags::default();
        loop {
            match self.rest.first() {
                Some(b'+') => flags.plus = true,
                Some(b'-') => flags.minus = true,
                Some(b' ') => flags.space = true,
                Some(b'0') => flags.zero = true,
                Some(b'#') => return Err(Fault::misuse("printf: the flag # is not supported")),
                _ => return Ok(flags),
            }
            self.rest = &self.rest[1..];
        }
    }

    fn width(&mut self, out: &mut Printer, flags: &mut Flags) -> Result<(), Fault> {
        self.refuse_index()?;
        if self.rest.first() != Some(&b'*') {
            flags.width = self.number();
            return Ok(());
        }
        match self.star() {
            Some(width) => {
                if width < 0 {
                    flags.minus = true;
                    flags.zero = false;
                }
                flags.width = usize::try_from(width.unsigned_abs()).ok();
                Ok(())
            }
            None => out.mistake("%!(BADWIDTH)"),
        }
    }

    fn precision(&mut self, out: &mut Printer, flags: &mut Flags) -> Result<(), Fault> {
        // A point at the very end is no precision, but a verb that does not exist.
        if self.rest.first() != Some(&b'.') || self.rest.len() < 2 {
            return Ok(());
        }
        self.rest = &self.rest[1..];
        self.refuse_index()?;
        if self.rest.first() != Some(&b'*') {
            flags.precision = Some(self.number().unwrap_or(0));
            return Ok(());
        }
        match self.star() {
            Some(precision) => flags.precision = usize::try_from(precision).ok(),
            None => return out.mistake("%!(BADPREC)"),
        }
        // Go takes a negative precision for a bad one.
        match flags.precision {
            Some(_) => Ok(()),
            None => out.mistake("%!(BADPREC)"),
        }
    }

    fn refuse_index(&self) -> Result<(), Fault> {
        if self.rest.first() == Some(&b'[') {
            return Err(Fault::misuse(
                "printf: argument indexes such as %[1]d are not supported",
            ));
        }
        Ok(())
    }

    /// The number that the format goes on with. One that is too large takes the rest of the format with it.
    fn number(&mut self) -> Option<usize> {
        let mut number = None;
        while let Some(digit) = self.rest.first().filter(|byte| byte.is_ascii_digit()) {
            if number.unwrap_or(0) > MAX_NUMBER {
                self.rest = &[];
                return None;
            }
            number = Some(number.unwrap_or(0) * 10 + usize::from(digit - b'0'));
            self.rest = &self.rest[1..];
        }
        number
    }

    /// The argument that a star stands for, if it is a number that may be one.
    fn star(&mut self) -> Option<i64> {
        self.rest = &self.rest[1..];
        let number = match self.argument()? {
            Value::Int(number) => *number,
            Value::Byte(number) => i64::from(*number),
            _ => return None,
        };
        usize::try_from(number.unsigned_abs())
            .is_ok_and(|size| size <= MAX_NUMBER)
            .then_some(number)
    }

    fn argument(&mut self) -> Option<&Value<'a>> {
        let argument = self.arguments.get(self.used)?;
        self.used += 1;
        Some(argument)
    }

    fn verb(&mut self) -> Option<char> {
        let chunk = self.rest.utf8_chunks().next()?;
        let verb = chunk.valid().chars().next();
        let length = verb.map_or(1, char::len_utf8);
        self.rest = &self.rest[length..];
        Some(verb.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Tells of arguments that no verb asked for.
    fn extra(&self, out: &mut Printer) -> Result<(), Fault> {
        let extra = self.arguments.get(self.used..).unwrap_or_default();
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
