//! What the reconcile loops share: the result of a step, when a failed reconcile is tried again, what a panic costs, and a work
//! queue with rate limits.
//!
//! Imports `error` and `metrics`. Called by every loop: `controller`, `breaker`, `queueing`, `retry`.

mod backoff;
mod panics;
pub(crate) mod rate_limited;

use std::time::Duration;

use jiff::Timestamp;

pub(crate) use backoff::ErrorBackoff;
pub(crate) use panics::{PanicGuard, PanicMetrics, restart_on_panic};

/// Until an object is reconciled again after another client wrote it first.
pub(crate) const AFTER_CONFLICT: Duration = Duration::from_millis(500);
/// Until an object is reconciled again while another one of its name is being deleted: finalizers may keep that one for long.
pub(crate) const WHILE_TERMINATING: Duration = Duration::from_secs(5);

/// What a step of a reconcile came to, and so what the loop does next. `T` is the object that is reconciled.
#[derive(Debug)]
pub(crate) enum StepResult<T> {
    /// The object was written, and is this now: the next step starts from it.
    Changed(Box<T>),
    /// The object is as it was: another object was written, or there was nothing to write. The next step follows.
    Unchanged,
    /// Another client wrote first: the object is read again.
    Conflict,
    /// Another object of its name is being deleted: requeue after [`WHILE_TERMINATING`].
    Terminating,
    /// The namespace is being deleted, and nothing can be created in it.
    NamespaceTerminating,
    /// There is nothing to do before this moment.
    RequeueAt(Timestamp),
    /// There is nothing to do until a watched object changes, or the object is gone.
    AwaitChange,
}

impl<T> StepResult<T> {
    /// The result for the reconcile of another object, which is as it was where this one was written.
    pub(crate) fn for_other<U>(self) -> StepResult<U> {
        match self {
            Self::Changed(_) | Self::Unchanged => StepResult::Unchanged,
            Self::Conflict => StepResult::Conflict,
            Self::Terminating => StepResult::Terminating,
            Self::NamespaceTerminating => StepResult::NamespaceTerminating,
            Self::RequeueAt(moment) => StepResult::RequeueAt(moment),
            Self::AwaitChange => StepResult::AwaitChange,
        }
    }
}

/// How long until `moment`; never less than a tenth of a second, so that a clock that stands still does not spin.
pub(crate) fn until(moment: Timestamp) -> Duration {
    let wait = moment.duration_since(Timestamp::now());
    Duration::try_from(wait)
        .unwrap_or_default()
        .max(Duration::from_millis(100))
}
