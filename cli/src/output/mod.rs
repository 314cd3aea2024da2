//! What the commands print. A reader that has gone away (`taskgate … | head`) is no error, and never a panic.

mod format;
mod progress;
mod style;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

pub(crate) use format::{Format, to_json, to_yaml};
pub(crate) use progress::Progress;
pub(crate) use style::Style;

/// Prints `text` to standard output, as it is.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        _ => Ok(()),
    }
}

/// Tells `message` on standard error, under the program's name. There is nobody to tell when that fails.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "taskgate: {message}");
}

/// Writes `text` to standard error, as it is: for programs that read it there.
pub(crate) fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
