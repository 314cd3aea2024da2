//! What the commands print. A reader that has gone away (`taskgate … | head`) is no error, and never a panic.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

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
