//! Bounded retry (seed 003): whose fault a failed run was, which number the next one has, what it is built from, and the one
//! next step towards it. Pure; the controller takes the steps.

mod admit;
mod failure;
mod feedback;
mod ledger;
mod mask;
mod object;
mod step;
mod successor;

pub(crate) use admit::findings;
pub use failure::{Failure, task_failure, workload_failure};
pub use feedback::{MAX_FEEDBACK, task_feedback, workload_feedback};
pub use ledger::{
    Prepared, begun, blocked, closed, condition, deleted, failed, forgotten, prepared, replanned, stopped, succeeded,
    told,
};
pub use object::{Retried, RunPhase};
pub use step::{
    BLOCKED, FailedScene, FailedStep, Found, GivenUp, PATIENCE, Stopped, TransitionScene, TransitionStep,
    attempt_number, failed_step, transition_step,
};
pub use successor::{Succession, remains, successor};
