//! Bounded retry (`retry`) of Workloads, and of Tasks that no spawner creates again: the cause of a failed run, the number of the
//! next one, its spec, and the next step towards it.
//!
//! ```text
//! run failed:    workload_failure or task_failure, then failed_run_action: record, wait, give up, or begin a transition
//! transition:    transition_step: prepare, delete, wait, create; each step is recorded in the WorkItem (status) before it is taken
//! successor:     successor (with feedback), then apply_sections for what current policies add
//! ```
//!
//! Imports `kubernetes`, `template`, `matching`, `decision`, `metadata` and `breaker`. Imported by `admission`; the controller takes
//! the steps.

mod failed_run;
mod feedback;
mod object;
mod status;
mod successor;
mod transition;

pub use failed_run::{
    FailedRunAction, FailedRunContext, FailureCause, GivenUp, NextAttempt, attempt_number, failed_run_action,
    following, task_failure, workload_failure,
};
pub use feedback::{MAX_FEEDBACK, task_feedback, workload_feedback};
pub use object::{MAX_ATTEMPT, Origin, Retried, RunPhase, SourceAccess, SourceState};
pub use status::{
    BACKING_OFF, Prepared, begun, blocked, closed, condition, deleted, failed, gave_up, prepared, replanned, revived,
    run_deleted, running_successor, scheduled, stopped, succeeded, successor_deleted,
};
pub(crate) use successor::findings;
pub use successor::{MAX_PREDECESSOR, Predecessor, Succession, apply_sections, successor};
pub use transition::{BLOCKED, NamedObject, PATIENCE, Stopped, TransitionContext, TransitionStep, transition_step};
