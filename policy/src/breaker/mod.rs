//! The circuit breaker (`failurePolicy`): counting the failures of a work item, and stopping further Tasks at its limit.
//!
//! ```text
//! Task created:  accounting (finalizer, label, TTL), evaluate::task_finding (denial, the safety net)
//! Job created:   evaluate::job_finding (suspended and marked, never denied)
//! both:          near_limit (whether a cached state is enough)
//! Task ended:    lifecycle (next action) -> failure_cause -> attempt_history (the WorkItem's status, fitted by fit)
//! source read:   attempt_history::evaluate_source (resetOnChange)
//! ```
//!
//! Imports `kubernetes`, `issue_source`, `matching`, `decision` and `cancellation` (a cancelled Task did not fail). Imported by
//! `retry`, `interests` and `admission`; the controller calls [`next_action`], [`classify`] and the functions of
//! `attempt_history`.

mod accounting;
mod attempt_history;
mod backoff;
mod evaluate;
mod failure_cause;
mod fit;
mod lifecycle;
mod near_limit;
mod task_state;

pub(crate) use accounting::findings as accounting_findings;
pub use attempt_history::{
    HISTORY, ItemPresence, SourceVerdict, add_late_usage, attempt, baseline, evaluate_source, failures_to_reset,
    record, refresh, reset, reset_by,
};
pub use backoff::next_attempt;
pub(crate) use backoff::{jittered, wait};
pub use evaluate::{ItemSnapshot, allowance, breaker_state};
pub(crate) use evaluate::{job_finding, open_reason, task_finding};
pub use failure_cause::{CIRCUIT_BROKEN, Ending, RunObjects, classify, depends_on_job};
pub use fit::{fit, minimal};
pub use lifecycle::{Retrying, TaskAction, TaskContext, next_action};
pub use near_limit::is_far_from_limit;
pub use task_state::{TaskPhase, TaskState, UninstallAction, uninstall_action};
