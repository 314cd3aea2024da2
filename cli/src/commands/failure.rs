//! How a command ended, and the exit code that says so: 0 fine, 1 denied or failed, 2 usage, 3 warnings only.

use std::process::ExitCode;

/// A command came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There is nothing to complain about.
    Fine,
    /// Something was denied, or failed. The command has said what.
    Denied,
    /// There are warnings, and nothing worse.
    Warned,
}

impl Outcome {
    /// The exit code of the process.
    pub(crate) fn code(self) -> ExitCode {
        match self {
            Self::Fine => ExitCode::SUCCESS,
            Self::Denied => ExitCode::FAILURE,
            Self::Warned => ExitCode::from(3),
        }
    }
}

/// A command that has nothing to say but that it was done.
impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Fine
    }
}

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
