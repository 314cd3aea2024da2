//! A writer with a limit, so that no template fills the memory.

use std::io::{self, Write};

/// Text of a bounded length.
#[derive(Debug)]
pub(crate) struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    full: bool,
}

impl Bounded {
    /// Takes at most `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max,
            full: false,
        }
    }

    /// Whether something did not fit.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// What was written.
    pub(crate) fn into_text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.max - self.bytes.len() {
            self.full = true;
            return Err(io::Error::other(format!("the text is longer than {} bytes", self.max)));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
