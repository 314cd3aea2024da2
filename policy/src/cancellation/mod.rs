//! Cancellation (`cancellationPolicy`): stopping a Task whose work has become pointless, in a way that makes Kelos terminate it.
//!
//! The whole state of a cancellation is in annotations of the Task: the requester, the reason, the deadline ([`Cancellation`]) and
//! the state ([`CancelState`]). A crash between any two steps therefore loses nothing and repeats nothing:
//!
//! ```text
//! requested -> Announced -> Cancelling -> Job failed -> Kelos terminal -> Cancelled -> Job deleted
//!     └── withdrawn ──┘         │             (or the Task, where there is no Job)
//!                               └─> TooLate: it ended before
//! ```
//!
//! A user asks for it (admission checks and stamps the request: [`review_cancellation`]), or a policy does
//! ([`desired_cancellation`]). The controller takes the steps ([`cancel_step`]).
//!
//! Imports `kubernetes`, `issue_source` and `decision`. Imported by `breaker`, `interests` and `admission`.

mod annotations;
mod intent;
mod review;
mod step;

pub use annotations::{
    CancelState, Cancellation, Stamp, TASK_CANCELLED, Trigger, annotations, announcement, conclusion, requester,
};
pub use intent::{
    CancelIntent, CancelIntentContext, DesiredCancellation, SourceObservation, desired_cancellation, is_rediscovered,
    next_run,
};
pub(crate) use review::job_finding;
pub use review::{CancelReview, needs_permission_check, review_cancellation};
pub use step::{CancelContext, CancelStep, CancelTask, JobEnd, TaskRun, cancel_step};
