//! How a command ends. Exit codes: 0 success; 1 something was denied or failed; 2 usage; 3, or that of a flag, warnings only.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::output;

/// A command that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// There is nothing to report.
    Success,
    /// Something was denied, or failed; the command has printed what.
    Failure,
    /// There are warnings, and nothing worse.
    Warnings,
}

/// The command line is wrong or ambiguous, such as a name that several objects have.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The exit code of a command; `warnings` is that of warnings only. Its error is printed.
pub(crate) fn code(result: Result<ExitStatus>, warnings: u8) -> ExitCode {
    match result {
        Ok(ExitStatus::Success) => ExitCode::SUCCESS,
        Ok(ExitStatus::Failure) => ExitCode::FAILURE,
        Ok(ExitStatus::Warnings) => ExitCode::from(warnings),
        Err(error) => {
            output::print_error(&format!("{error:#}"));
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

/// The end of a command on several objects, of which `failed` were reported: one failure does not keep it from the others.
pub(crate) fn all_done(failed: usize, what: &str) -> Result<ExitStatus> {
    ensure!(failed == 0, "{failed} not {what}");
    Ok(ExitStatus::Success)
}
