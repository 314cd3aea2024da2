//! Kelos' label, annotation and finalizer keys, and the stand-in's own.

/// Label on a Task and on a spawner's runtime objects: the spawner's name (kelos §3).
pub const SPAWNER: &str = "kelos.dev/taskspawner";
/// Label on a Job and its pods: the Task's name (kelos §6.3).
pub const TASK: &str = "kelos.dev/task";
/// Label on every object that Kelos builds.
pub const NAME: &str = "kelos.dev/name";
/// Label that tells agent Jobs (`task`) from spawner runtimes (`spawner`).
pub const COMPONENT: &str = "kelos.dev/component";
/// Label that names the controller.
pub const MANAGED_BY: &str = "kelos.dev/managed-by";
/// Label on a Task: which entry of the spawner's credentials pool it got.
pub const CREDENTIAL: &str = "kelos.dev/spawner-credential";
/// Label on a runner pod: the pool's name (kelos §7).
pub const WORKER_POOL: &str = "kelos.dev/workerpool";

/// Annotation on a Task: `issue` or `pull-request` (kelos S15).
pub const SOURCE_KIND: &str = "kelos.dev/source-kind";
/// Annotation on a Task: the number at the issue source (kelos S15).
pub const SOURCE_NUMBER: &str = "kelos.dev/source-number";
/// Annotation on a webhook Task: the repository's owner.
pub const SOURCE_OWNER: &str = "kelos.dev/source-owner";
/// Annotation on a webhook Task: the repository's name.
pub const SOURCE_REPO: &str = "kelos.dev/source-repo";
/// Annotation on a Task whose spawner reports to GitHub.
pub const GITHUB_REPORTING: &str = "kelos.dev/github-reporting";
/// Annotation beside [`GITHUB_REPORTING`]: `PerTask` or `Sticky`.
pub const GITHUB_COMMENT_MODE: &str = "kelos.dev/github-comment-mode";

/// Annotation on a runner pod: the Task it works on.
pub const ASSIGNED_TASK: &str = "kelos.dev/assigned-task";
/// Annotation on a runner pod: `running`, `succeeded` or `failed`.
pub const TASK_STATUS: &str = "kelos.dev/task-status";
/// Annotation on a runner pod: why the Task failed.
pub const TASK_FAILURE_REASON: &str = "kelos.dev/task-failure-reason";
/// Annotation on a runner pod: how many Tasks it has finished.
pub const TASKS_COMPLETED: &str = "kelos.dev/tasks-completed";
/// Annotation on a runner pod: the Task whose agent it must kill.
pub const CANCEL_TASK: &str = "kelos.dev/cancel-task";

/// Finalizer of Kelos' controller on every Task (kelos S16).
pub const TASK_FINALIZER: &str = "kelos.dev/finalizer";
/// Finalizer of Kelos' controller on every `TaskSpawner`.
pub const SPAWNER_FINALIZER: &str = "kelos.dev/taskspawner-finalizer";
/// Owner kind and API version that Kelos writes.
pub const API_VERSION: &str = "kelos.dev/v1alpha2";

/// The stand-in's own: what the agent container would have logged. Without a kubelet no pod has a
/// log, so the log's tail travels in this annotation on the pod.
pub const AGENT_LOG: &str = "standin.kelos.dev/agent-log";
/// The main container of an agent pod.
pub const AGENT_CONTAINER: &str = "kelos-agent";
