//! Every label, annotation and finalizer that taskgate reads or writes, in one place.

/// Prefix of all keys that belong to taskgate; nobody else may set them through a policy.
pub const PREFIX: &str = "taskgate.dev/";

/// Label or annotation on a Task: the work item it belongs to, stated by its creator. Wins over everything derived.
pub const ITEM: &str = "taskgate.dev/item";
/// Annotation that admission puts on a Task: the full key that the policy's `itemKey` gave, so that the identity does not
/// change with the policy later.
pub const ITEM_KEY: &str = "taskgate.dev/item-key";
/// Label that admission puts on a Task: the name of its `WorkItem`.
pub const WORK_ITEM: &str = "taskgate.dev/work-item";
/// Finalizer that admission puts on a Task, released once the attempt stands in its `WorkItem`.
pub const ACCOUNTING: &str = "taskgate.dev/accounting";
/// Annotation on a Task: the TTL in seconds that admission moved out of `spec.ttlSecondsAfterFinished`.
pub const TTL: &str = "taskgate.dev/ttl-seconds-after-finished";
/// Annotation on a Task: the UID of the `WorkItem` in which its end stands. A Task with it is never counted again.
pub const RECORDED: &str = "taskgate.dev/recorded";
/// Annotation on a Job: why it must not run. Admission made it suspended; the controller fails it.
pub const STOPPED: &str = "taskgate.dev/stopped";

/// Annotation on a Job: why it has no queue although it ought to, as `Reason: message`. The controller tells its Task.
pub const NOT_QUEUED: &str = "taskgate.dev/not-queued";

/// Label on a namespace: `disabled` keeps the API server from sending its objects to taskgate.
pub const ADMISSION: &str = "taskgate.dev/admission";
/// The value of [`ADMISSION`] that opts a namespace out.
pub const ADMISSION_DISABLED: &str = "disabled";

/// Label that taskgate's own objects (webhook configurations, Secret, Lease) carry.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// The value of [`PART_OF`].
pub const PART_OF_TASKGATE: &str = "taskgate";
