//! Why a command did not do what was asked, and the exit code that says so.

use std::process::ExitCode;

/// A command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line cannot be meant as it is, such as a name that fits several objects. As clap's own errors: 2.
    #[error("{0}")]
    Usage(String),
    /// It could not be done, or not all of it.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// The exit code of the process.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}
