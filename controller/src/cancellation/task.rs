//! Writes to the Task that is cancelled.

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Map, Value, json};
use taskgate_api::{
    condition::CANCELLED,
    kelos::{self, Task},
    keys,
};
use taskgate_cache::trim_task;
use taskgate_policy::{CancelState, Cancellation, announcement, conclusion, requester};

use super::{CancellationReconciler, events, job};
use crate::{
    context::Context,
    error::Error,
    kubernetes::{json_of, rfc3339},
    task::{self, Subject, TaskResult},
};

/// Annotates how far the cancellation is.
pub(super) async fn progress(context: &Context, subject: &Subject, progress: CancelState) -> Result<TaskResult, Error> {
    let change = json!({"annotations": {keys::CANCEL_STATE: progress.as_str()}});
    task::patch(context, subject, change).await
}

/// Annotates that the agent is being warned, and records an Event.
pub(super) async fn announce(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<TaskResult, Error> {
    let outcome = progress(context, subject, CancelState::Announced).await?;
    if let (TaskResult::Changed(_), Some(stamp)) = (&outcome, &cancellation.stamp) {
        let note = announcement(stamp, cancellation);
        events::record(context, subject, "CancelAnnounced", &note);
    }
    Ok(outcome)
}

/// Removes everything that was written.
pub(super) async fn withdraw(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    job::remove_deadline(context, subject).await?;
    let nothing: Map<String, Value> = keys::CANCELLATION
        .iter()
        .map(|key| ((*key).to_owned(), Value::Null))
        .collect();
    let outcome = task::patch(context, subject, json!({"annotations": nothing})).await?;
    if let TaskResult::Changed(_) = &outcome {
        let note = "the cancellation was withdrawn";
        events::record(context, subject, "CancelWithdrawn", note);
    }
    Ok(outcome)
}

/// Annotates that the cancellation is refused or too late, and records an Event.
pub(super) async fn give_up(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
    end: CancelState,
) -> Result<TaskResult, Error> {
    let (reason, note) = match end {
        CancelState::Refused => (
            "CancelRefused",
            "the request has no valid stamp of taskgate's admission: it was made while admission was unavailable. Remove the \
             annotation taskgate.dev/cancel and set it again"
                .to_owned(),
        ),
        _ => (
            "CancelTooLate",
            format!("asked for by {}, but the Task ended by itself", requester(cancellation)),
        ),
    };
    events::record_once(context, subject, EventType::Warning, reason, &note).await;
    progress(context, subject, end).await
}

/// Fails a Task that has no Job, as Kelos itself would have.
pub(super) async fn fail(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<TaskResult, Error> {
    let status = json!({
        "phase": kelos::FAILED,
        "message": conclusion(cancellation),
        "completionTime": rfc3339(Timestamp::now()),
    });
    task::patch_status(context, subject, subject.resource_version(), status).await
}

/// Records that the Task was cancelled: Event, status, and last the annotation that completes it.
pub(super) async fn conclude(
    reconciler: &CancellationReconciler,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<TaskResult, Error> {
    let context = &reconciler.context;
    let knows_cancelled = reconciler.capability.knows_cancelled();
    let note = conclusion(cancellation);
    events::record_once(context, subject, EventType::Normal, "TaskCancelled", &note).await;
    // The list of conditions is written back, and the cached object lacks it.
    let Some(object) = task::read_untrimmed(context, subject).await? else {
        return Ok(TaskResult::AwaitChange);
    };
    let json = json_of(&object);
    let mut latest = object;
    if let Some(status) = concluded(&json, cancellation, knows_cancelled) {
        match task::patch_status(context, subject, json.pointer("/metadata/resourceVersion"), status).await? {
            TaskResult::Changed(changed) => latest = *changed,
            other => return Ok(other),
        }
    }
    trim_task(&mut latest);
    let outcome = task::patch(
        context,
        &subject.at(&latest),
        json!({
            "annotations": {keys::CANCEL_STATE: CancelState::Cancelled.as_str()},
        }),
    )
    .await?;
    if let (TaskResult::Changed(_), Some(stamp)) = (&outcome, &cancellation.stamp) {
        let kind = Task::of(&subject.object).agent_type().unwrap_or_default();
        reconciler
            .metrics
            .cancelled(&subject.namespace, kind, stamp.trigger.as_str(), knows_cancelled);
    }
    Ok(outcome)
}

/// The status of the Task `object` that says who cancelled it and why; `None` when it says so already. A Kelos that knows
/// cancelled Tasks has a phase and a field for it.
fn concluded(object: &Value, cancellation: &Cancellation, knows_cancelled: bool) -> Option<Value> {
    let reason = cancellation
        .stamp
        .as_ref()
        .map_or("ByHand", |stamp| stamp.trigger.as_str());
    let message = conclusion(cancellation);
    let mut conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let is_stated = conditions
        .iter()
        .any(|known| known["type"] == CANCELLED && known["status"] == "True" && known["message"] == message);
    if is_stated && (!knows_cancelled || Task::of(object).phase() == kelos::CANCELLED) {
        return None;
    }
    conditions.retain(|known| known["type"] != CANCELLED);
    conditions.push(json!({
        "type": CANCELLED, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": rfc3339(Timestamp::now()), "observedGeneration": object.pointer("/metadata/generation"),
    }));
    let mut status = json!({"conditions": conditions, "message": message});
    if knows_cancelled {
        status["phase"] = kelos::CANCELLED.into();
        status["cancelledBy"] = requester(cancellation).into();
    }
    Some(status)
}
