//! How a command ends. Exit codes: 0 success; 1 something was denied or failed; 2 usage; 3 warnings only.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};

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

impl From<()> for ExitStatus {
    fn from((): ()) -> Self {
        Self::Success
    }
}

/// A command that could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The command line is wrong or ambiguous, such as a name that several objects have.
    #[error("{0}")]
    Usage(String),
    /// It failed, wholly or in part.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// Runs a command and turns its result into an exit code.
pub(crate) fn run<T: Into<ExitStatus>>(
    command: impl Future<Output = Result<T, CommandError>>,
) -> anyhow::Result<ExitCode> {
    Ok(match block_on(command)? {
        Ok(status) => match status.into() {
            ExitStatus::Success => ExitCode::SUCCESS,
            ExitStatus::Failure => ExitCode::FAILURE,
            ExitStatus::Warnings => ExitCode::from(3),
        },
        Err(error) => {
            output::print_error(&error.to_string());
            match error {
                CommandError::Usage(_) => ExitCode::from(2),
                CommandError::Failed(_) => ExitCode::FAILURE,
            }
        }
    })
}

/// Runs `future` on a runtime, with the crypto provider installed.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("a crypto provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.context("starting the runtime")?.block_on(future))
}

/// The end of a command on several objects, of which `failed` were reported: one failure does not keep it from the others.
pub(crate) fn all_done(failed: usize, what: &str) -> Result<(), CommandError> {
    match failed {
        0 => Ok(()),
        failed => Err(anyhow!("{failed} not {what}").into()),
    }
}
