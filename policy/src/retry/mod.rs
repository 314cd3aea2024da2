//! Bounded retry (seed 003): whose fault a failed run was, which number the next one has, what it is built from, and the one
//! next step towards it. Pure; the controller takes the steps.

mod admit;
mod condition;
mod dress;
mod failed;
mod failure;
mod feedback;
mod ledger;
mod mask;
mod object;
mod origin;
mod progress;
mod successor;
mod transition;

pub(crate) use admit::findings;
pub use condition::condition;
pub use dress::dress;
pub use failed::{FailedScene, FailedStep, GivenUp, attempt_number, failed_step};
pub use failure::{Failure, task_failure, workload_failure};
pub use feedback::{MAX_FEEDBACK, task_feedback, workload_feedback};
pub use ledger::{failed, forgotten, succeeded, told};
pub use object::{Retried, RunPhase};
pub use origin::{Origin, OriginWay, SourceState};
pub use progress::{Prepared, begun, blocked, closed, deleted, prepared, replanned, stopped};
pub use successor::{MAX_PREDECESSOR, Predecessor, Succession, successor};
pub use transition::{BLOCKED, Found, PATIENCE, Stopped, TransitionScene, TransitionStep, transition_step};
