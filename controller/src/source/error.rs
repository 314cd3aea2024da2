//! Why an issue source cannot be read, for people and for programs.

/// Why an item could not be read. It never changes the item's `WorkItem`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SourceError {
    /// RBAC forbids to read the Secret, or the source does not accept the token.
    #[error("{0}")]
    Forbidden(String),
    /// The Secret does not exist, or has no token.
    #[error("{0}")]
    SecretMissing(String),
    /// The source limits requests.
    #[error("{0}")]
    RateLimited(String),
    /// No answer, or one of an outage.
    #[error("{0}")]
    Unreachable(String),
    /// An answer that is not understood.
    #[error("{0}")]
    BadAnswer(String),
    /// A host that the operator does not allow.
    #[error("{0}")]
    HostNotAllowed(String),
    /// A source that taskgate does not know how to read.
    #[error("{0}")]
    Unsupported(String),
    /// The API server did not answer, which says nothing about the source.
    #[error("the API server does not answer how the source is reached")]
    AccessUnknown,
}

impl SourceError {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "Forbidden",
            Self::SecretMissing(_) => "SecretMissing",
            Self::RateLimited(_) => "RateLimited",
            Self::Unreachable(_) => "Unreachable",
            Self::BadAnswer(_) => "BadAnswer",
            Self::HostNotAllowed(_) => "HostNotAllowed",
            Self::Unsupported(_) => "Unsupported",
            Self::AccessUnknown => "AccessUnknown",
        }
    }

    /// Whether the next try may succeed without any change.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::BadAnswer(_))
    }
}
