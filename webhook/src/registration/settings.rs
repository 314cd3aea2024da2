//! The settings of an installation's webhook configurations, as types whose values are valid.

use std::{num::NonZeroU8, str::FromStr};

use super::rules::CONFIGURATION;

/// How the API server reaches taskgate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTarget {
    /// Through a Service.
    Service {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Its port.
        port: u16,
    },
    /// Directly, for development: `https://host:port`, without a path.
    Url(String),
}

/// What the API server does with a request when taskgate does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It admits the request.
    Ignore,
    /// It rejects the request.
    Fail,
}

/// The name of a webhook configuration: a DNS subdomain that sorts before `kueue-` (C14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationName(String);

/// The text cannot be the name of the webhook configurations.
#[derive(Debug, thiserror::Error)]
pub enum InvalidName {
    /// Not a legal object name.
    #[error("{0:?} is not a lower-case DNS subdomain")]
    NotSubdomain(String),
    /// It sorts after Kueue's.
    #[error("{0:?} does not sort before \"kueue-\": Kueue would not see the queue that taskgate sets")]
    AfterKueue(String),
}

/// How long the API server waits, in whole seconds, at most 5: the object's creator waits as long (C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutSeconds(NonZeroU8);

/// The number cannot be a timeout.
#[derive(Debug, thiserror::Error)]
#[error("a webhook timeout is a whole number of seconds from 1 to {}", TimeoutSeconds::MAX)]
pub struct InvalidTimeout;

impl TimeoutSeconds {
    /// The longest, in seconds.
    pub const MAX: u8 = 5;
    /// How long a mutating answer may take by default.
    pub const MUTATING: Self = Self(NonZeroU8::new(2).expect("2 is not zero"));
    /// How long a validating answer may take by default.
    pub const VALIDATING: Self = Self(NonZeroU8::new(3).expect("3 is not zero"));

    /// A timeout of `seconds`.
    pub fn new(seconds: u8) -> Result<Self, InvalidTimeout> {
        NonZeroU8::new(seconds)
            .filter(|seconds| seconds.get() <= Self::MAX)
            .map(Self)
            .ok_or(InvalidTimeout)
    }

    /// In seconds.
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

impl FromStr for TimeoutSeconds {
    type Err = InvalidTimeout;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse().map_err(|_| InvalidTimeout)?)
    }
}

impl ConfigurationName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ConfigurationName {
    fn default() -> Self {
        Self(CONFIGURATION.to_owned())
    }
}

impl FromStr for ConfigurationName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let label = |label: &str| {
            label.starts_with(inner) && label.ends_with(inner) && label.chars().all(|c| inner(c) || c == '-')
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(InvalidName::NotSubdomain(text.to_owned()));
        }
        if text >= "kueue-" {
            return Err(InvalidName::AfterKueue(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_be_legal_and_run_before_kueue() {
        assert!(CONFIGURATION.parse::<ConfigurationName>().is_ok());
        for (bad, kueue) in [
            ("", false),
            ("A.b", false),
            ("a..b", false),
            ("-a", false),
            ("taskgate", true),
        ] {
            let error = bad.parse::<ConfigurationName>().unwrap_err();
            assert_eq!(matches!(error, InvalidName::AfterKueue(_)), kueue, "{bad}: {error}");
        }
    }

    #[test]
    fn a_timeout_is_from_one_to_five_seconds() {
        for (text, good) in [
            ("0", false),
            ("1", true),
            ("5", true),
            ("6", false),
            ("2s", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<TimeoutSeconds>().is_ok(), good, "{text:?}");
        }
    }
}
