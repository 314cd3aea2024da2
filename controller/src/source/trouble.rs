//! Why a source cannot be read, for people and for programs.

use std::fmt;

use jiff::Timestamp;

/// Why an item could not be read. Never changes what is remembered of the item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A Secret, or the tracker itself, may not be read.
    Forbidden(String),
    /// The Secret with the token is not there, or has no token.
    SecretMissing(String),
    /// The tracker asks for patience.
    RateLimited {
        /// Where.
        base: String,
        /// Until when.
        until: Timestamp,
    },
    /// No answer, or one that tells of an outage.
    Unreachable(String),
    /// An answer that is none.
    BadAnswer(String),
    /// A host that the operator does not allow.
    HostNotAllowed(String),
    /// A source that taskgate does not know how to read.
    Unsupported(String),
}

impl Trouble {
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

    /// Whether it may pass by itself at the next try.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::BadAnswer(_))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text)
            | Self::SecretMissing(text)
            | Self::Unreachable(text)
            | Self::BadAnswer(text)
            | Self::HostNotAllowed(text)
            | Self::Unsupported(text) => f.write_str(text),
            Self::RateLimited { base, until } => {
                write!(f, "{base} limits requests until {}", until.strftime("%FT%TZ"))
            }
        }
    }
}
