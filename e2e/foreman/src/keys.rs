//! Foreman's label and annotation keys, and the stand-in's own.

/// API version of everything here.
pub const API_VERSION: &str = "foreman.llmkube.dev/v1alpha1";
/// Label on an AgenticTask: the Workload's name. Children are found by it, and by nothing else (F12).
pub const WORKLOAD: &str = "foreman.llmkube.dev/workload";
/// Label on an AgenticTask: the step's name.
pub const STEP: &str = "foreman.llmkube.dev/step";
/// Annotation on a terminal AgenticTask: its audit record is written (F18).
pub const AUDITED: &str = "foreman.llmkube.dev/audited";
/// Annotation on an AgenticTask: how often its node was lost (F20).
pub const CLAIM_EXPIRIES: &str = "foreman.llmkube.dev/claim-expiries";
/// Label on a Job: the AgenticTask's name (F15).
pub const TASK_NAME: &str = "foreman.llmkube.dev/task-name";
/// Label on a Job: the AgenticTask's namespace.
pub const TASK_NAMESPACE: &str = "foreman.llmkube.dev/task-namespace";
/// Label on a Job and its pods: `foreman-coder` or `foreman-gate`.
pub const APP: &str = "app.kubernetes.io/name";
/// Annotation that the dispatch bridge writes on a Workload, and that Foreman does not know: the run's number.
pub const ATTEMPT: &str = "foreman.llmkube.dev/attempt";

/// The stand-in's own, on a Workload: for how many seconds its children outlive their deletion.
pub const LINGERS: &str = "standin.foreman.llmkube.dev/lingers";
/// The stand-in's own finalizer on such a child.
pub const LINGERING: &str = "standin.foreman.llmkube.dev/lingering";
