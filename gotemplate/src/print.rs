//! `print`, `println` and what an action does with its value: Go's `fmt`, as far as a template can reach it.

use crate::{
    Unprintable,
    error::Fault,
    value::Value,
    verb::{Flags, write_argument},
};

/// Where printed text is gathered.
#[derive(Debug)]
pub(crate) struct Printer {
    bytes: Vec<u8>,
    limit: usize,
    unprintable: Unprintable,
}

impl Printer {
    /// Gathers at most `limit` bytes.
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

    pub(crate) fn write(&mut self, text: impl AsRef<[u8]>) -> Result<(), Fault> {
        let text = text.as_ref();
        self.allow(text.len())?;
        self.bytes.extend_from_slice(text);
        Ok(())
    }

    /// Whether `count` more bytes fit.
    pub(crate) fn allow(&self, count: usize) -> Result<(), Fault> {
        if count > self.limit - self.bytes.len() {
            return Err(Fault::limit(format!("the output is longer than {} bytes", self.limit)));
        }
        Ok(())
    }

    /// Writes what Go writes for a value that is not there.
    pub(crate) fn nothing(&mut self, text: &str) -> Result<(), Fault> {
        match self.unprintable {
            Unprintable::Print => self.write(text),
            Unprintable::Refuse => Err(Fault::missing("a value to print is not there")),
        }
    }

    /// Writes what Go writes for a mistake in a format; `complaint` begins with `%!`.
    pub(crate) fn mistake(&mut self, complaint: &str) -> Result<(), Fault> {
        match self.unprintable {
            Unprintable::Print => self.write(complaint),
            Unprintable::Refuse => Err(Fault::misuse(format!("printf gives {complaint}"))),
        }
    }

    /// `fmt.Sprint`: a space between two operands of which neither is a string.
    pub(crate) fn print(&mut self, arguments: &[Value<'_>]) -> Result<(), Fault> {
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
    pub(crate) fn println(&mut self, arguments: &[Value<'_>]) -> Result<(), Fault> {
        for (index, argument) in arguments.iter().enumerate() {
            if index > 0 {
                self.write(" ")?;
            }
            write_argument(self, argument, 'v', Flags::default())?;
        }
        self.write("\n")
    }
}
