//! The keys of Kueue that taskgate touches. Source: Kueue v0.18, `pkg/controller/constants`.

/// Prefix of Kueue's keys. None of them may stand in a pod template: Kueue then refuses to start the Job (kueue §2).
pub const PREFIX: &str = "kueue.x-k8s.io/";
/// Label on a Job: the `LocalQueue` that admits it.
pub const QUEUE_NAME: &str = "kueue.x-k8s.io/queue-name";
/// Label on a Job: its `WorkloadPriorityClass`.
pub const PRIORITY_CLASS: &str = "kueue.x-k8s.io/priority-class";
