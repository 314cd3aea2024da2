//! Stops a Task that runs although the breaker of its item is open: its Job is failed through its status, and Kelos moves the Task
//! to Failed and releases its branch. Denying or deleting the Job would not do: Kelos would keep the branch lock, or create the
//! Job again.

use jiff::{SignedDuration, Timestamp};
use kube::runtime::events::EventType;
use serde_json::json;
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_policy::{CIRCUIT_BROKEN, JobEnd, TaskRun};

use crate::{
    cancellation::run,
    context::Context,
    error::Error,
    events::reference,
    job,
    kubernetes::rfc3339,
    task::{self, Subject, TaskResult},
    workqueue::StepResult,
};

/// The message on the Job or the Task where admission has not stated one.
const STOPPED: &str = "taskgate: stopped: the breaker of the Task's item is open";

/// How old a Task must be for Kelos to have named its Job.
const UNNAMED: SignedDuration = SignedDuration::from_secs(10);

/// Fails the Task's Job; with `marked` only one that admission marked. Without a Job there is nothing to wait for: the Task
/// changes when Kelos creates one.
pub(crate) async fn stop(context: &Context, subject: &Subject, marked: bool) -> Result<TaskResult, Error> {
    // Admission marks Jobs; a Task of a worker pool has none.
    if !marked && kelos::Task::of(&subject.object).worker_pool().is_some() {
        return stop_in_pool(context, subject).await;
    }
    if marked && let Some(moment) = until_job(context, subject) {
        return Ok(TaskResult::RequeueAt(moment));
    }
    let Some(job) = job::of_task(context, subject).await? else {
        return Ok(TaskResult::AwaitChange);
    };
    if JobEnd::of(&job) != JobEnd::Open {
        return Ok(TaskResult::AwaitChange);
    }
    let stated = Metadata::of(&job).annotation(keys::STOPPED);
    if marked && stated.is_none() {
        return Ok(TaskResult::AwaitChange);
    }
    let message = stated.unwrap_or(STOPPED);
    match job::fail(context, subject, &job, CIRCUIT_BROKEN, message).await? {
        StepResult::Changed(_) => {
            record_event(context, subject, message);
            Ok(TaskResult::AwaitChange)
        }
        result => Ok(result.for_other()),
    }
}

/// When the Job of a young Task is read that does not name it yet. Kelos names it right after it created the Job; should it be killed
/// between the two, it never does.
fn until_job(context: &Context, subject: &Subject) -> Option<Timestamp> {
    let is_named = kelos::Task::of(&subject.object).job_name().is_some();
    let moment = subject.state.created.checked_add(UNNAMED).ok()?;
    (!is_named && moment > context.now()).then_some(moment)
}

/// Stops a Task that a worker pool runs, as its cancellation would: the runner is asked to release it, and Kelos moves the Task to
/// Failed; one without a runner is failed itself. The Task is annotated first, as it has no Job that could carry the message.
async fn stop_in_pool(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    if Metadata::of(&subject.object).annotation(keys::STOPPED).is_none() {
        let result = task::patch(context, subject, json!({"annotations": {keys::STOPPED: STOPPED}})).await?;
        if matches!(result, TaskResult::Changed(_)) {
            record_event(context, subject, STOPPED);
        }
        return Ok(result);
    }
    let found = run::read_runner(context, subject).await?;
    match found.run {
        TaskRun::Runner { asked: true } => Ok(TaskResult::AwaitChange),
        TaskRun::Runner { asked: false } => run::release_runner(context, subject, &found).await,
        _ => {
            let status = json!({
                "phase": kelos::FAILED, "message": STOPPED, "completionTime": rfc3339(context.now()),
            });
            task::patch_status(context, subject, subject.resource_version(), status).await
        }
    }
}

fn record_event(context: &Context, subject: &Subject, message: &str) {
    let regarding = reference(&subject.object);
    context
        .events
        .publish(EventType::Warning, "TaskStopped", "Stop", message, &regarding);
}
