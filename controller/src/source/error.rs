//! Why an issue source cannot be read, for people and for programs.

use std::fmt;

use jiff::Timestamp;

use crate::kubernetes::rfc3339;

/// Why an item could not be read. It never changes the item's `WorkItem`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceError {
    /// RBAC forbids to read the Secret, or the source does not accept the token.
    Forbidden(String),
    /// The Secret does not exist, or has no token.
    SecretMissing(String),
    /// The source limits requests.
    RateLimited {
        /// The address.
        base: String,
        /// The end of the limit.
        until: Timestamp,
    },
    /// No answer, or one of an outage.
    Unreachable(String),
    /// An answer that is not understood.
    BadAnswer(String),
    /// A host that the operator does not allow.
    HostNotAllowed(String),
    /// A source that taskgate does not know how to read.
    Unsupported(String),
}

impl SourceError {
    /// The condition's reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden(_) => "Forbidden",
            Self::SecretMissing(_) => "SecretMissing",
            Self::RateLimited { .. } => "RateLimited",
            Self::Unreachable(_) => "Unreachable",
            Self::BadAnswer(_) => "BadAnswer",
            Self::HostNotAllowed(_) => "HostNotAllowed",
            Self::Unsupported(_) => "Unsupported",
        }
    }

    /// Whether the next try may succeed without any change.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::BadAnswer(_))
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text)
            | Self::SecretMissing(text)
            | Self::Unreachable(text)
            | Self::BadAnswer(text)
            | Self::HostNotAllowed(text)
            | Self::Unsupported(text) => f.write_str(text),
            Self::RateLimited { base, until } => {
                write!(f, "{base} limits requests until {}", rfc3339(*until))
            }
        }
    }
}
