//! `TaskSpawner.spec.when` (kelos §2.3): the sources.

use super::empty;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where items come from. Exactly one is expected, none is enforced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct When {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_issues: Option<GitHubIssues>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_pull_requests: Option<GitHubPullRequests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<Cron>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github_webhook: Option<GitHubWebhook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_webhook: Option<LinearWebhook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
}

impl When {
    /// Whether the spawner has a loop of its own.
    pub fn polls(&self) -> bool {
        self.github_issues.is_some() || self.github_pull_requests.is_some()
    }

    /// Whether a central server creates the Tasks.
    pub fn is_pushed(&self) -> bool {
        self.github_webhook.is_some() || self.linear_webhook.is_some() || self.webhook.is_some() || self.slack.is_some()
    }
}

/// Issues, and pull requests as issues, by polling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct GitHubIssues {
    #[serde(skip_serializing_if = "empty")]
    pub repo: String,
    #[serde(skip_serializing_if = "empty")]
    pub types: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_labels: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub state: String,
    #[serde(skip_serializing_if = "empty")]
    pub assignee: String,
    #[serde(skip_serializing_if = "empty")]
    pub author: String,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_authors: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub priority_labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment_policy: Option<CommentPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting: Option<Reporting>,
    #[serde(skip_serializing_if = "empty")]
    pub poll_interval: String,
}

/// Pull requests by polling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct GitHubPullRequests {
    #[serde(skip_serializing_if = "empty")]
    pub repo: String,
    #[serde(skip_serializing_if = "empty")]
    pub labels: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_labels: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub state: String,
    #[serde(skip_serializing_if = "empty")]
    pub review_state: String,
    #[serde(skip_serializing_if = "empty")]
    pub author: String,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_authors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<bool>,
    #[serde(skip_serializing_if = "empty")]
    pub priority_labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_patterns: Option<FilePatterns>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment_policy: Option<CommentPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting: Option<Reporting>,
    #[serde(skip_serializing_if = "empty")]
    pub poll_interval: String,
}

/// Which changed files matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct FilePatterns {
    #[serde(skip_serializing_if = "empty")]
    pub include: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub exclude: Vec<String>,
}

/// Which comments start, restart or silence an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct CommentPolicy {
    #[serde(skip_serializing_if = "empty")]
    pub trigger_comment: String,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_comments: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub allowed_users: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub allowed_teams: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub minimum_permission: String,
}

/// What Kelos writes back to GitHub. The stand-in stamps the annotations and reports nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct Reporting {
    #[serde(skip_serializing_if = "empty")]
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comments: Option<ReportingComments>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<ReportingChecks>,
}

impl Reporting {
    /// Whether comments are on, in the old spelling or the new one.
    pub fn comments_on(&self) -> bool {
        self.enabled || self.comments.is_some()
    }
}

/// How comments are reported: `PerTask` or `Sticky`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct ReportingComments {
    #[serde(skip_serializing_if = "empty")]
    pub mode: String,
}

/// How check runs are reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct ReportingChecks {
    #[serde(skip_serializing_if = "empty")]
    pub name: String,
}

/// Ticks of a clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cron {
    /// Five cron fields, UTC.
    pub schedule: String,
}

/// GitHub pushes events to a central server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct GitHubWebhook {
    pub events: Vec<String>,
    #[serde(skip_serializing_if = "empty")]
    pub repository: String,
    #[serde(skip_serializing_if = "empty")]
    pub exclude_authors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting: Option<Reporting>,
}

/// Linear pushes events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct LinearWebhook {
    pub types: Vec<String>,
}

/// Anything pushes events; `fieldMapping` must contain `id`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct Webhook {
    pub source: String,
    pub field_mapping: BTreeMap<String, String>,
}

/// Slack pushes messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are Kelos' own")]
pub struct Slack {
    #[serde(skip_serializing_if = "empty")]
    pub channels: Vec<String>,
}
