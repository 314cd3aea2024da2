//! The parts of TaskSpawners and Workspaces that decisions need, so that caches stay small.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use taskgate_api::metadata::Metadata;

use super::IssueSource;

/// The parts of a `TaskSpawner` that decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpawnerInfo {
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The repository that it polls, where that is not the Workspace's: `owner/name` or a URL.
    pub repository: Option<String>,
    /// The schedule of a cron source.
    pub schedule: Option<String>,
    /// Whether taskgate can read its issue source.
    pub has_issue_source: bool,
}

impl SpawnerInfo {
    /// Reads the `TaskSpawner` `object`.
    pub fn of(object: &Value) -> Self {
        let metadata = Metadata::of(object);
        let text = |path| text(object, path);
        Self {
            uid: metadata.uid().unwrap_or_default().to_owned(),
            labels: metadata
                .labels()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            repository: text("/spec/when/githubIssues/repo").or_else(|| text("/spec/when/githubPullRequests/repo")),
            schedule: text("/spec/when/cron/schedule"),
            has_issue_source: IssueSource::of(object).is_ok(),
        }
    }
}

/// The parts of a `Workspace` that decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkspaceInfo {
    /// The repository's URL; empty when there is none.
    pub repo: String,
    /// The branch, tag or commit that is checked out.
    pub reference: Option<String>,
}

impl WorkspaceInfo {
    /// Reads the `Workspace` `object`.
    pub fn of(object: &Value) -> Self {
        let text = |path| text(object, path);
        Self {
            repo: text("/spec/repo").unwrap_or_default(),
            reference: text("/spec/ref"),
        }
    }
}

/// The Workspace that a Task names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workspace {
    /// Not known: the Task names none, or it was not read.
    #[default]
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<WorkspaceInfo>),
}

impl Workspace {
    /// Its parts, if it exists.
    pub fn info(&self) -> Option<&WorkspaceInfo> {
        match self {
            Self::Present(info) => Some(info),
            Self::Unknown | Self::Absent => None,
        }
    }
}

/// The text at `path`, unless it is empty.
fn text(object: &Value, path: &str) -> Option<String> {
    let value = object.pointer(path).and_then(Value::as_str);
    value.filter(|value| !value.is_empty()).map(ToOwned::to_owned)
}
