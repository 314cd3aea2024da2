//! Kelos' objects as its Go types see them: nothing else survives a write (kelos S28).
//!
//! Only `v1alpha2` is spoken, as by Kelos itself. Docstrings name a field's Kelos meaning only
//! where its name does not.

mod agent;
mod pool;
mod record;
mod spawner;
mod task;
mod trigger;
mod workspace;

pub use agent::{AgentConfigRef, Credentials, NameRef, PodOverrides, WorkerSpec};
pub use pool::{WorkerPool, WorkerPoolSpec, WorkerPoolStatus};
pub use record::{TaskRecord, TaskRecordSpec, TaskRef};
pub use spawner::{NamedCredentials, TaskSpawner, TaskSpawnerSpec, TaskSpawnerStatus, TaskTemplate, TemplateMetadata};
pub use task::{Task, TaskSpec, TaskStatus, TaskUsage};
pub use trigger::{
    CommentPolicy, Cron, FilePatterns, GitHubIssues, GitHubPullRequests, GitHubWebhook, LinearWebhook, Reporting,
    ReportingChecks, ReportingComments, Slack, Webhook, When,
};
pub use workspace::{GhProxy, Workspace, WorkspaceFile, WorkspaceRemote, WorkspaceSpec};

/// Whether Go's `omitempty` leaves the field out.
pub(crate) fn empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
