//! How far each of the two webhook configurations is.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// One of the two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The `MutatingWebhookConfiguration`.
    Mutating,
    /// The `ValidatingWebhookConfiguration`.
    Validating,
}

/// How far a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionState {
    /// Neither the configuration nor a bundle was seen yet.
    Unknown,
    /// There is no such configuration. Normal: it may come at any time.
    Absent,
    /// Every webhook in it trusts what is served, and what is to be served next.
    Carried,
    /// Somebody else is to write the bundle and has not, or not yet.
    Awaited,
    /// Somebody else declares the bundle as theirs and it is another one. It is left alone.
    Conflict(String),
    /// The bundle could not be written; it is tried again.
    Failed(String),
}

/// How far each configuration is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Injection(Arc<Mutex<[(Target, InjectionState); 2]>>);

impl Injection {
    /// Nothing was seen yet.
    pub(super) fn new() -> Self {
        let states = [Target::Mutating, Target::Validating].map(|target| (target, InjectionState::Unknown));
        Self(Arc::new(Mutex::new(states)))
    }

    /// The state of each configuration.
    pub fn states(&self) -> [(Target, InjectionState); 2] {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes `state`; whether it is news.
    pub(super) fn set(&self, target: Target, state: &InjectionState) -> bool {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, entry)) = states.iter_mut().find(|(key, _)| *key == target) else {
            return false;
        };
        let news = entry != state;
        entry.clone_from(state);
        news
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mutating => "MutatingWebhookConfiguration",
            Self::Validating => "ValidatingWebhookConfiguration",
        })
    }
}

impl fmt::Display for InjectionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => formatter.write_str("not seen yet"),
            Self::Absent => formatter.write_str("does not exist"),
            Self::Carried => formatter.write_str("carries our certificate authority"),
            Self::Awaited => formatter.write_str("does not carry our certificate authority yet"),
            Self::Conflict(who) => write!(formatter, "another field manager owns its caBundle: {who}"),
            Self::Failed(error) => write!(formatter, "its caBundle cannot be set: {error}"),
        }
    }
}
