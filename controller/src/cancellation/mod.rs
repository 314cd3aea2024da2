//! Cancels Tasks (`cancellationPolicy`, or a user's annotation).
//!
//! - `desired`: which Tasks policies want cancelled.
//! - `running`: what runs for a Task.
//! - one file per object that is written: `task`, `job` (with its pods), `runner` (of a worker pool).
//! - `siblings`: the Tasks of each item. `capability`: what the installed Kelos can express.
//!
//! The policy crate decides the next step ([`taskgate_policy::cancel_step`]). Every write carries the version or the UID that was
//! read, and each step can be repeated. Imports `source` (observations of items) and the shared modules. Called by `controller`;
//! `breaker` uses `running` and `runner`.

mod capability;
mod desired;
mod events;
mod job;
mod metrics;
pub(crate) mod runner;
pub(crate) mod running;
mod siblings;
mod task;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::Value;
use taskgate_policy::{CancelContext, CancelState, CancelStep, CancelTask, Cancellation, TaskState, cancel_step};

use crate::{
    context::Context,
    error::Error,
    source::Sources,
    task::{Subject, TaskResult},
};

pub(crate) use capability::follow_capability;
pub use capability::knows_cancelled;
pub(crate) use desired::follow_sources;
pub(crate) use metrics::CancellationMetrics;

/// Until a Task that cannot be cancelled is reconciled again.
const BLOCKED: Duration = Duration::from_secs(10);

/// The state of cancellations beside the Tasks' annotations.
pub(crate) struct CancellationReconciler {
    context: Arc<Context>,
    sources: Arc<Sources>,
    metrics: CancellationMetrics,
    capability: capability::TaskCapability,
    pub(crate) siblings: siblings::Siblings,
}

/// What the cancellation of a Task leaves to the rest of its reconcile.
pub(crate) enum Cancelling {
    /// The Task is not being cancelled, or there is nothing to do about it.
    Idle,
    /// There is nothing to do before this moment.
    Waiting(Timestamp),
    /// A step was taken.
    Step(TaskResult),
    /// The Task must be deleted once its end is recorded, so that the spawner creates the next one.
    Replace,
}

impl CancellationReconciler {
    pub(crate) fn new(context: Arc<Context>, sources: Arc<Sources>, metrics: CancellationMetrics) -> Self {
        Self {
            context,
            sources,
            metrics,
            capability: capability::TaskCapability::default(),
            siblings: siblings::Siblings::default(),
        }
    }

    /// Whether the source shows the item again whose disappearance had the Task cancelled.
    pub(crate) fn is_wanted_again(&self, object: &Value, state: &TaskState) -> bool {
        desired::is_wanted_again(self, object, state)
    }

    /// Takes the next step of the Task's cancellation, if it is to be cancelled.
    pub(crate) async fn reconcile(&self, subject: &Subject) -> Result<Cancelling, Error> {
        let context = &*self.context;
        let cancellation = Cancellation::of(&subject.object);
        match desired::reconcile(self, subject, &cancellation).await? {
            Some(TaskResult::RequeueAt(moment)) => return Ok(Cancelling::Waiting(moment)),
            Some(result) => return Ok(Cancelling::Step(result)),
            None if cancellation.is_none() => return Ok(Cancelling::Idle),
            None => {}
        }
        let mut inputs = CancelContext {
            cancellation: &cancellation,
            task: CancelTask::of(&subject.object),
            run: None,
            wanted_again: subject.state.must_be_replaced && !cancellation.must_be_replaced(),
            now: Timestamp::now(),
        };
        let mut step = cancel_step(&inputs);
        let found = match step {
            CancelStep::ReadRun => {
                let found = running::read(context, subject, &cancellation).await?;
                inputs.run = Some(found.run);
                step = cancel_step(&inputs);
                found
            }
            _ => running::Running::default(),
        };
        tracing::debug!(
            namespace = subject.namespace,
            name = subject.state.name,
            ?step,
            "cancelling"
        );
        let result = match step {
            // With a run, no step asks for it again.
            CancelStep::Idle | CancelStep::ReadRun => return Ok(Cancelling::Idle),
            CancelStep::Wait(until) => return Ok(Cancelling::Waiting(until)),
            CancelStep::Replace => return Ok(Cancelling::Replace),
            CancelStep::Blocked => {
                record_blocked(context, subject, &cancellation).await;
                let later = jiff::SignedDuration::try_from(BLOCKED).unwrap_or_default();
                return Ok(Cancelling::Waiting(inputs.now.checked_add(later).unwrap_or(inputs.now)));
            }
            CancelStep::Announce => task::announce(context, subject, &cancellation).await?,
            CancelStep::SetDeadline => job::set_deadline(context, subject, &found, &cancellation).await?,
            CancelStep::Withdraw => task::withdraw(context, subject).await?,
            CancelStep::Execute => task::progress(context, subject, CancelState::Cancelling).await?,
            CancelStep::FailJob => job::fail(context, subject, &found, &cancellation).await?,
            CancelStep::FailTask => task::fail(context, subject, &cancellation).await?,
            CancelStep::ReleaseRunner => runner::release(context, subject, &found).await?,
            CancelStep::Conclude => task::conclude(self, subject, &cancellation).await?,
            CancelStep::GiveUp(progress) => task::give_up(context, subject, &cancellation, progress).await?,
            CancelStep::DeleteJob => job::delete(context, subject, &found).await?,
        };
        Ok(Cancelling::Step(result))
    }
}

/// Records once per Task why it cannot be cancelled, and what a user can do.
async fn record_blocked(context: &Context, subject: &Subject, cancellation: &Cancellation) {
    let note = format!(
        "asked for by {}, but Kelos has not created the Task's Job, or a Job of another owner has its name. Failing the Task \
         without its Job would keep its branch locked: find out why Kelos creates no Job, or delete the Task",
        taskgate_policy::requester(cancellation)
    );
    events::record_once(context, subject, EventType::Warning, "CancelBlocked", &note).await;
}
