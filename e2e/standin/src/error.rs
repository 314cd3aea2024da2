//! Errors of the loops that talk to the API server.

use crate::cache::Key;
use crate::metrics::CycleResult;

/// A reconcile or a cycle that did not come through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{doing} {key}: {}", message(source))]
    Kube {
        /// What was attempted.
        doing: &'static str,
        /// The object.
        key: Key,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The cache does not hold the object any more.
    #[error("{doing} {key}: not found")]
    Gone {
        /// What was attempted.
        doing: &'static str,
        /// The object.
        key: Key,
    },
    /// GitHub could not be asked, or its answer not be read: no status is written (kelos S12).
    #[error("discovering items: {0}")]
    Discover(#[source] crate::spawner::DiscoverError),
    /// A spawner's configuration cannot be used at all.
    #[error("{0}")]
    Configuration(String),
    /// Some items of a cycle failed; the status says which (kelos S6).
    #[error("{0}")]
    Items(String),
    /// As `Items`, and none of them met anything but a Task that went between two looks at it (kelos S5).
    #[error("{0}")]
    Missed(String),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn kube(doing: &'static str, key: &Key) -> impl FnOnce(kube::Error) -> Self {
        let key = key.clone();
        move |source| Self::Kube {
            doing,
            key,
            source: Box::new(source),
        }
    }

    pub(crate) fn gone(doing: &'static str, key: &Key) -> Self {
        let key = key.clone();
        Self::Gone { doing, key }
    }

    /// How a spawner's cycle with this error ended.
    pub(crate) fn of_cycle(&self) -> CycleResult {
        match self {
            Self::Missed(_) => CycleResult::Missed,
            _ => CycleResult::Failure,
        }
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Kube { source, .. } => has_code(source, 404),
            Self::Gone { .. } => true,
            _ => false,
        }
    }

    /// Whether another client wrote in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube { source, .. } if has_code(source, 409))
    }
}

/// Whether the API server answered with this code.
pub(crate) fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Whether a create met an object of that name; a conflict has the same code.
pub(crate) fn already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.reason == "AlreadyExists")
}

/// The text that client-go's errors show: the server's own message.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
