//! Bounded retry (`retry`) of Workloads, and of Tasks that no spawner creates again: the cause of a failed run, the number of the
//! next one, its spec, and the next step towards it.
//!
//! ```text
//! run failed:    failure, then failed_run_action: record, wait, give up, or begin a transition
//! transition:    transition_step: prepare, delete, wait, create; each step is recorded in the WorkItem (status) before it is taken
//! successor:     successor (with feedback), then sections for what current policies add
//! ```
//!
//! Imports `kubernetes`, `template`, `matching`, `decision`, `metadata` and `breaker`. Imported by `admission`; the controller takes
//! the steps.

mod failed_run;
mod failure;
mod feedback;
mod object;
mod secrets;
mod sections;
mod status;
mod successor;
mod transition;

pub use failed_run::{
    FailedRunAction, FailedRunContext, GivenUp, NextAttempt, attempt_number, failed_run_action, following,
};
pub use failure::{FailureCause, task_failure, workload_failure};
pub use feedback::{MAX_FEEDBACK, task_feedback, workload_feedback};
pub use object::{MAX_ATTEMPT, Origin, Retried, RunPhase, SourceAccess, SourceState};
pub use sections::apply_sections;
pub(crate) use sections::findings;
pub use status::{
    BACKING_OFF, Prepared, begun, blocked, closed, condition, deleted, failed, gave_up, prepared, replanned, revived,
    run_deleted, running_successor, scheduled, stopped, succeeded, successor_deleted,
};
pub use successor::{MAX_PREDECESSOR, Predecessor, Succession, successor};
pub use transition::{BLOCKED, NamedObject, PATIENCE, Stopped, TransitionContext, TransitionStep, transition_step};
