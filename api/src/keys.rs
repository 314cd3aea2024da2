//! Every label, annotation and finalizer that taskgate reads or writes, in one place.

use std::collections::BTreeMap;

/// Prefix of all keys that belong to taskgate; no policy can set them.
pub const PREFIX: &str = "taskgate.dev/";

/// Label or annotation on a Task: the work item it belongs to, stated by its creator. Wins over everything derived.
pub const ITEM: &str = "taskgate.dev/item";
/// Annotation that admission puts on a Task: the full key that the policy's `itemKey` gave, so that the identity does not
/// change with the policy later.
pub const ITEM_KEY: &str = "taskgate.dev/item-key";
/// Label that admission puts on a Task: the name of its `WorkItem`.
pub const WORK_ITEM: &str = "taskgate.dev/work-item";
/// Finalizer that admission adds to a Task; the controller removes it once the attempt is recorded in its `WorkItem`.
pub const ACCOUNTING: &str = "taskgate.dev/accounting";
/// Annotation on a Task: the TTL in seconds that admission moved out of `spec.ttlSecondsAfterFinished`.
pub const TTL: &str = "taskgate.dev/ttl-seconds-after-finished";
/// Annotation on a Task: the UID of the `WorkItem` in which its end is recorded. A Task with it is never counted again.
pub const RECORDED: &str = "taskgate.dev/recorded";
/// Annotation that admission puts on a Task: which labels and annotations of its policies were left out, and why.
pub const SKIPPED: &str = "taskgate.dev/metadata-skipped";
/// Annotation on a Task: the labels and annotations that it still waits for until its issue source was read.
pub const PENDING: &str = "taskgate.dev/metadata-pending";
/// Annotation on a Job: why it must not run. Admission made it suspended; the controller fails it.
pub const STOPPED: &str = "taskgate.dev/stopped";

/// Annotation on a Job: why it has no queue although it should, as `Reason: message`. The controller sets the Task's condition.
pub const NOT_QUEUED: &str = "taskgate.dev/not-queued";

/// Annotation on a Task: why it is to be cancelled. A user who may delete the Task sets it, and removes it to withdraw the request.
pub const CANCEL: &str = "taskgate.dev/cancel";
/// Annotation on a Task, beside [`CANCEL`]: how many seconds the agent has until then. Absent: none.
pub const CANCEL_GRACE: &str = "taskgate.dev/cancel-grace";
/// Annotation on a Task: who asked, as `user:ann` or `spawner:fixer`. Stamped by admission, as the four below.
pub const CANCELLED_BY: &str = "taskgate.dev/cancelled-by";
/// Annotation on a Task: what set the cancellation off.
pub const CANCEL_TRIGGER: &str = "taskgate.dev/cancel-trigger";
/// Annotation on a Task: when the cancellation was asked for.
pub const CANCEL_REQUESTED: &str = "taskgate.dev/cancel-requested";
/// Annotation on a Task, its Job and its pods: when the Task is cancelled.
pub const CANCEL_DEADLINE: &str = "taskgate.dev/cancel-deadline";
/// Annotation on a Task: the state of its cancellation.
pub const CANCEL_STATE: &str = "taskgate.dev/cancel-state";
/// Annotation on a Task: the head of the pull request that it works on, as the issue source had it first.
pub const SOURCE_HEAD: &str = "taskgate.dev/source-head";
/// Everything about a cancellation that only taskgate writes.
pub const CANCELLATION_OWN: [&str; 5] = [
    CANCELLED_BY,
    CANCEL_TRIGGER,
    CANCEL_REQUESTED,
    CANCEL_DEADLINE,
    CANCEL_STATE,
];
/// Everything about a cancellation.
pub const CANCELLATION: [&str; 7] = [
    CANCEL,
    CANCEL_GRACE,
    CANCELLED_BY,
    CANCEL_TRIGGER,
    CANCEL_REQUESTED,
    CANCEL_DEADLINE,
    CANCEL_STATE,
];

/// Annotation on an object that taskgate created to retry another: the UID of that one.
pub const RETRY_OF: &str = "taskgate.dev/retry-of";
/// Annotation on such an object: why its predecessor failed, where the object has no field for it.
pub const RETRY_FEEDBACK: &str = "taskgate.dev/retry-feedback";
/// Annotation on such an object: the owner of its predecessor before a policy took it over.
pub const TAKEN_OVER: &str = "taskgate.dev/taken-over-from";

/// Annotation on a `WorkItem`: why its failures are to be reset. A user who may patch the WorkItem sets it; the controller resets
/// the failures and removes it.
pub const RESET: &str = "taskgate.dev/reset";
/// Annotation on a `WorkItem`, beside [`RESET`]: who asked. Stamped by admission.
pub const RESET_BY: &str = "taskgate.dev/reset-by";
/// Annotation on a `WorkItem`: which failed object is to be run again, as JSON
/// ([`RetryOrder`](crate::retry_status::RetryOrder)). The controller removes it once that is done.
pub const RETRY: &str = "taskgate.dev/retry";
/// Annotation on a `WorkItem`, beside [`RETRY`]: who asked. Stamped by admission.
pub const RETRY_BY: &str = "taskgate.dev/retry-by";
/// What users ask of a `WorkItem`: the annotation of the request, and the one with who asked.
pub const REQUESTS: [(&str, &str); 2] = [(RESET, RESET_BY), (RETRY, RETRY_BY)];

/// Annotation on a TaskSpawner: a copy of the fields that taskgate adds to its spec, as JSON. Only taskgate writes it.
pub const KELOS_FIELDS: &str = "taskgate.dev/kelos-fields";
/// Annotation on a Task: the queue that admission moved out of `spec.queueName`.
pub const QUEUE: &str = "taskgate.dev/queue-name";

/// The keys of [`PREFIX`] that users may set on a new Task, as label or annotation. All others belong to taskgate. A
/// TaskSpawner's `taskTemplate.metadata` becomes a Task's, so the same holds there.
pub const SETTABLE_ON_TASKS: [&str; 1] = [ITEM];
/// The annotations of an existing Task or Job that only taskgate changes, besides [`CANCELLATION_OWN`].
pub const PROTECTED_ANNOTATIONS: [&str; 12] = [
    ITEM_KEY,
    TTL,
    QUEUE,
    RECORDED,
    SKIPPED,
    PENDING,
    SOURCE_HEAD,
    RETRY_OF,
    RETRY_FEEDBACK,
    TAKEN_OVER,
    STOPPED,
    NOT_QUEUED,
];
/// The labels of an existing Task that only taskgate changes.
pub const PROTECTED_LABELS: [&str; 1] = [WORK_ITEM];

/// Namespaces that taskgate never touches, besides its own.
pub const EXCLUDED_NAMESPACES: [&str; 2] = ["kube-system", "kube-node-lease"];
/// Label on a namespace: `disabled` keeps the API server from sending its objects to taskgate.
pub const ADMISSION: &str = "taskgate.dev/admission";
/// The value of [`ADMISSION`] that opts a namespace out.
pub const ADMISSION_DISABLED: &str = "disabled";

/// Whether the namespace with these labels is opted out: nothing of it is sent to admission, and the controller only removes its
/// finalizers there.
pub fn is_opted_out(labels: &BTreeMap<String, String>) -> bool {
    labels.get(ADMISSION).is_some_and(|value| value == ADMISSION_DISABLED)
}

/// Label that taskgate's own objects (webhook configurations, Secret, Lease) carry.
pub const PART_OF: &str = "app.kubernetes.io/part-of";
/// The value of [`PART_OF`].
pub const PART_OF_TASKGATE: &str = "taskgate";
