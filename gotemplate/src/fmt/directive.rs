//! Parses the format of `printf` without its arguments, so that unsupported formats are found in the template.

use super::Flags;

/// The greatest width and precision that Go takes.
pub(crate) const MAX_NUMBER: u64 = 1_000_000;

/// A piece of a format.
#[derive(Debug)]
pub(crate) enum FormatPiece<'f> {
    /// Literal text.
    Text(&'f [u8]),
    /// A directive, from its percent sign on.
    Directive(Directive),
}

/// `%`, flags, width, precision, verb.
#[derive(Debug)]
pub(crate) struct Directive {
    /// Without width and precision, which may be arguments.
    pub(crate) flags: Flags,
    pub(crate) width: DirectiveSize,
    pub(crate) precision: DirectiveSize,
    /// `None` at the end of the format.
    pub(crate) verb: Option<char>,
}

/// A width or a precision.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DirectiveSize {
    None,
    Number(u64),
    /// The next argument.
    Star,
}

/// The pieces of `format`; an unsupported one is an error.
pub(crate) fn pieces(format: &[u8]) -> Pieces<'_> {
    Pieces { rest: format }
}

/// An iterator over the pieces of a format.
pub(crate) struct Pieces<'f> {
    rest: &'f [u8],
}

impl<'f> Iterator for Pieces<'f> {
    type Item = Result<FormatPiece<'f>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.starts_with(b'%') {
            self.skip();
            return Some(self.directive().map(FormatPiece::Directive));
        }
        let percent = self.rest.iter().position(|byte| *byte == b'%');
        let (text, rest) = self.rest.split_at(percent.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!text.is_empty()).then_some(Ok(FormatPiece::Text(text)))
    }
}

impl Pieces<'_> {
    fn starts_with(&self, byte: u8) -> bool {
        self.rest.first() == Some(&byte)
    }

    fn skip(&mut self) {
        self.rest = &self.rest[1..];
    }

    fn directive(&mut self) -> Result<Directive, String> {
        let flags = self.flags()?;
        self.refuse_index()?;
        let width = self.size();
        let mut precision = DirectiveSize::None;
        // A point at the very end is no precision, but a verb that does not exist.
        if self.starts_with(b'.') && self.rest.len() > 1 {
            self.skip();
            self.refuse_index()?;
            precision = match self.size() {
                DirectiveSize::None => DirectiveSize::Number(0),
                size => size,
            };
        }
        self.refuse_index()?;
        let verb = self.verb();
        match verb {
            Some(verb @ ('T' | 'p' | 'w')) => Err(format!("printf: the verb %{verb} is not supported")),
            verb => Ok(Directive {
                flags,
                width,
                precision,
                verb,
            }),
        }
    }

    fn flags(&mut self) -> Result<Flags, String> {
        let mut flags = Flags::default();
        loop {
            match self.rest.first() {
                Some(b'+') => flags.plus = true,
                Some(b'-') => flags.minus = true,
                Some(b' ') => flags.space = true,
                Some(b'0') => flags.zero = true,
                Some(b'#') => return Err("printf: the flag # is not supported".to_owned()),
                _ => return Ok(flags),
            }
            self.skip();
        }
    }

    fn refuse_index(&self) -> Result<(), String> {
        if self.starts_with(b'[') {
            return Err("printf: argument indexes such as %[1]d are not supported".to_owned());
        }
        Ok(())
    }

    /// A star or a number. A number that is too large consumes the rest of the format.
    fn size(&mut self) -> DirectiveSize {
        if self.starts_with(b'*') {
            self.skip();
            return DirectiveSize::Star;
        }
        let mut size = DirectiveSize::None;
        while let Some(digit) = self.rest.first().filter(|byte| byte.is_ascii_digit()) {
            let number = match size {
                DirectiveSize::Number(number) => number,
                _ => 0,
            };
            if number > MAX_NUMBER {
                self.rest = &[];
                return DirectiveSize::None;
            }
            size = DirectiveSize::Number(number * 10 + u64::from(digit - b'0'));
            self.skip();
        }
        size
    }

    fn verb(&mut self) -> Option<char> {
        let chunk = self.rest.utf8_chunks().next()?;
        let verb = chunk.valid().chars().next();
        let length = verb.map_or(1, char::len_utf8);
        self.rest = &self.rest[length..];
        Some(verb.unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}
