//! What the commands print. A reader that has gone away (`taskgate … | head`) is no error, and never a panic.

mod age;
mod format;
mod progress;
mod style;
mod table;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

pub(crate) use age::age;
pub(crate) use format::{Format, to_json, to_yaml};
pub(crate) use progress::Progress;
pub(crate) use style::Style;
pub(crate) use table::table;

/// Prints `text` to standard output, as it is.
pub(crate) fn print(text: &str) -> Result<()> {
    try_print(text).map(drop)
}

/// The same, for who would print more later: whether there still is a reader.
pub(crate) fn try_print(text: &str) -> Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("writing to standard output"),
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
