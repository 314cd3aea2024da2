//! taskgate's decision core: what happens to a Task, a Job or a policy that is written, and why.
//!
//! Pure: no IO, no clock, no globals, no kube client. Every input of a decision is an argument, time included, so that the webhook,
//! the command line and any audit get the same decision from the same input.
//!
//! One directory per feature, named after the field of the policy. Imports point upwards in this list, never downwards:
//!
//! | Directory | Purpose |
//! |---|---|
//! | `kubernetes` | forms of names and values, quantities, JSON patches |
//! | `issue_source` | where the items of a spawner are, and how answers of GitHub are read |
//! | `template` | templates of policies, bounded in time and output |
//! | `matching` | compiled policies, and [`PolicyScope`]: which policies apply to an object |
//! | `decision` | the vocabulary of a review: request, finding, reason, decision |
//! | `cancellation` | `cancellationPolicy` |
//! | `queueing` | `queueName` |
//! | `kelos_fields` | the fields of these names on Kelos' own kinds |
//! | `metadata` | `metadata` |
//! | `breaker` | `failurePolicy` |
//! | `retry` | `retry` |
//! | `interests` | the items that are read at issue sources |
//! | `admission` | [`govern`] finds the policies of a request, [`decide()`] collects the findings and applies the mode |
//!
//! Depends on `taskgate-api` and `taskgate-gotemplate`. Called by `taskgate-webhook`, `taskgate-controller`, `taskgate-offline` and
//! the `taskgate` binary, which use the names below and do not depend on the layout.

mod admission;
mod breaker;
mod cancellation;
mod decision;
#[cfg(test)]
mod fixtures;
mod interests;
mod issue_source;
pub mod kelos_fields;
mod kubernetes;
mod matching;
pub mod metadata;
mod queueing;
pub mod retry;
mod template;

pub use admission::{
    Right, decide, govern, has_reserved_keys, never_starts, required_rights, reserved_keys_changed, retry_order,
    review_task_update, right_missing, without_reserved_keys,
};
pub use breaker::{
    CIRCUIT_BROKEN, Ending, HISTORY, ItemSnapshot, Retrying, RunObjects, TaskAction, TaskContext, TaskPhase, TaskState,
    UninstallAction, add_late_usage, allowance, attempt, baseline, breaker_state, classify, depends_on_job,
    failures_to_reset, fit, is_far_from_limit, minimal, next_action, next_attempt, record, refresh, reset, reset_by,
    uninstall_action,
};
pub use cancellation::{
    CancelContext, CancelIntent, CancelIntentContext, CancelReview, CancelState, CancelStep, CancelTask, Cancellation,
    DesiredCancellation, JobEnd, SourceObservation, Stamp, TASK_CANCELLED, TaskRun, Trigger,
    annotations as cancel_annotations, announcement, cancel_step, conclusion, desired_cancellation, is_rediscovered,
    needs_permission_check, next_run, requester, review_cancellation,
};
pub use decision::{
    AdmissionContext, BreakerRefusal, CancelDetail, Decision, Denial, Detail, Governed, Kind, KueueInfo, MAX_GRACE,
    MAX_REASON, NotQueued, Operation, Phase, QueueDetail, Reason, Request, Verdict,
};
pub use issue_source::{SpawnerInfo, Workspace, WorkspaceInfo};
pub use kubernetes::{Problem, canonical_quantity, clip, counted, note, sha256};
pub use matching::{
    Acceptance, Candidate, Claim, FailureRule, GoverningSection, ItemIdentity, KnownPolicies, MAX_POLICIES, Mismatch,
    Policy, PolicyName, PolicyScope, PolicySet, PolicyState, RetryRule, Section, identify, spec_of_spawner,
};
pub use queueing::{
    InstalledKueue, QueueContext, QueueObservation, QueueReason, QueueState, has_queue_field, queue_state,
    requests_queue,
};
pub use template::{TEMPLATE_FIELDS, is_template};

/// Issue sources: where a spawner's items are, which items are read, and what follows from an answer.
pub mod source {
    pub use crate::{
        breaker::{ItemPresence, SourceVerdict, evaluate_source},
        interests::{Interest, Interests, add_task, add_work_item},
        issue_source::{
            Comment, Filter, IssueEndpoint, IssueSource, RateHeaders, Repository, SourceItem, Unsupported, backoff,
            ghproxy_service, github, pause,
        },
        matching::SourceKey,
    };
}
