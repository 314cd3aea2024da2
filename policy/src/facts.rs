//! What is kept of Kelos' objects around a Task, so that caches stay small.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use taskgate_api::metadata::Metadata;

use crate::source::Source;

/// What is kept of a `TaskSpawner`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpawnerFacts {
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The repository that it polls, where that is not the Workspace's: `owner/name` or a URL.
    pub repository: Option<String>,
    /// The schedule of a cron source.
    pub schedule: Option<String>,
    /// Whether its items live in a tracker that taskgate can ask.
    pub has_tracker: bool,
}

impl SpawnerFacts {
    /// The facts of the `TaskSpawner` `object` (kelos §2.3).
    pub fn of(object: &Value) -> Self {
        let metadata = Metadata::of(object);
        let text = |path: &str| {
            let value = object.pointer(path).and_then(Value::as_str);
            value.filter(|value| !value.is_empty()).map(ToOwned::to_owned)
        };
        Self {
            uid: metadata.uid().unwrap_or_default().to_owned(),
            labels: metadata
                .labels()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            repository: text("/spec/when/githubIssues/repo").or_else(|| text("/spec/when/githubPullRequests/repo")),
            schedule: text("/spec/when/cron/schedule"),
            has_tracker: Source::of(object).is_ok(),
        }
    }
}

/// What is kept of a `Workspace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkspaceFacts {
    /// The repository's URL; empty when there is none.
    pub repo: String,
    /// The branch, tag or commit that is checked out.
    pub reference: Option<String>,
}

impl WorkspaceFacts {
    /// The facts of the `Workspace` `object` (kelos §2.5).
    pub fn of(object: &Value) -> Self {
        let text = |path: &str| {
            let value = object.pointer(path).and_then(Value::as_str);
            value.filter(|value| !value.is_empty()).map(ToOwned::to_owned)
        };
        Self {
            repo: text("/spec/repo").unwrap_or_default(),
            reference: text("/spec/ref"),
        }
    }
}

/// What is known of the Workspace that a Task names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workspace {
    /// Nothing: the Task names none, or nobody could say.
    #[default]
    Unknown,
    /// There is none of that name.
    Absent,
    /// It exists.
    Present(Arc<WorkspaceFacts>),
}

impl Workspace {
    /// Its facts, if it exists.
    pub fn facts(&self) -> Option<&WorkspaceFacts> {
        match self {
            Self::Present(facts) => Some(facts),
            Self::Unknown | Self::Absent => None,
        }
    }
}
