//! Errors of the loops that talk to the API server.

use kelos_standin::Key;

/// A reconcile, or an agent's step, that did not come through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{doing} {key}: {source}")]
    Kube {
        /// What was attempted.
        doing: &'static str,
        /// The object.
        key: Key,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A test asked for something of a task that is not there, or not in time.
    #[error("{doing} {key}: not in time")]
    Late {
        /// What was attempted.
        doing: &'static str,
        /// The object.
        key: Key,
    },
    /// An object is no JSON object.
    #[error("writing {key}: {source}")]
    Json {
        /// The object.
        key: Key,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
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

    /// For `map_err`.
    pub(crate) fn json(key: &Key) -> impl FnOnce(serde_json::Error) -> Self {
        let key = key.clone();
        move |source| Self::Json { key, source }
    }

    /// Whether the object was refused for what it is, by the API server or by Foreman's webhook: no later try will
    /// fare better.
    pub(crate) fn is_invalid(&self) -> bool {
        matches!(self, Self::Kube { source, .. } if has_code(source, 422))
    }
}

/// Whether the API server answered with this code.
pub(crate) fn has_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// Takes "not found" as done.
pub(crate) fn tolerate_gone<K>(answer: kube::Result<K>) -> kube::Result<()> {
    match answer {
        Err(error) if !has_code(&error, 404) => Err(error),
        _ => Ok(()),
    }
}
