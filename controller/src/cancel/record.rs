//! What is written to the Task that is cancelled.

use jiff::Timestamp;
use kube::{
    api::{DynamicObject, Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::{Map, Value, json};
use taskgate_api::{
    condition::CANCELLED,
    kelos::{self, Task},
    keys,
};
use taskgate_policy::{CancelState, Cancellation, announcement, conclusion, requester};

use super::{job, tell};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    hold,
    task::{Outcome, Subject},
    tasks::{json_of, trim},
};

/// Notes how far the cancellation is.
pub(super) async fn progress(context: &Context, subject: &Subject, progress: CancelState) -> Result<Outcome, Error> {
    let change = json!({"annotations": {keys::CANCEL_STATE: progress.as_str()}});
    hold::patch(context, subject, change).await
}

/// Notes that the agent is being warned, and tells people.
pub(super) async fn announce(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<Outcome, Error> {
    let outcome = progress(context, subject, CancelState::Announced).await?;
    if let (Outcome::Changed(_), Some(stamp)) = (&outcome, &cancellation.stamp) {
        let note = announcement(stamp, cancellation);
        tell::each_time(context, subject, "CancelAnnounced", &note).await;
    }
    Ok(outcome)
}

/// Takes everything back that was written.
pub(super) async fn withdraw(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    job::untell(context, subject).await?;
    let nothing: Map<String, Value> = keys::CANCELLATION
        .iter()
        .map(|key| ((*key).to_owned(), Value::Null))
        .collect();
    let outcome = hold::patch(context, subject, json!({"annotations": nothing})).await?;
    if let Outcome::Changed(_) = &outcome {
        let note = "the cancellation was withdrawn";
        tell::each_time(context, subject, "CancelWithdrawn", note).await;
    }
    Ok(outcome)
}

/// Notes that nothing is done, and tells people why.
pub(super) async fn give_up(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
    end: CancelState,
) -> Result<Outcome, Error> {
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
    tell::once(context, subject, EventType::Warning, reason, &note).await;
    progress(context, subject, end).await
}

/// Fails a Task that has no Job, as Kelos itself would have.
pub(super) async fn fail(context: &Context, subject: &Subject, cancellation: &Cancellation) -> Result<Outcome, Error> {
    let status = json!({
        "phase": kelos::FAILED,
        "message": conclusion(cancellation),
        "completionTime": now(),
    });
    let version = subject.object.pointer("/metadata/resourceVersion");
    write_status(context, subject, version, status).await
}

/// Records that the Task was cancelled: Event, status, and last the annotation that says that all of it is done.
pub(super) async fn conclude(
    context: &Context,
    subject: &Subject,
    cancellation: &Cancellation,
) -> Result<Outcome, Error> {
    let note = conclusion(cancellation);
    tell::once(context, subject, EventType::Normal, "TaskCancelled", &note).await;
    // Whole: the list of conditions is written back, and what is cached has none.
    let tasks = context.tasks(&subject.namespace);
    let found = tasks.get_opt(&subject.state.name).await;
    let found = found.map_err(|error| Error::of("reading", "Task", subject, error))?;
    let Some(object) = found else {
        return Ok(Outcome::Gone);
    };
    let json = json_of(&object);
    let mut seen = object;
    if let Some(status) = concluded(&json, cancellation, context.flavour.knows_cancelled()) {
        match write_status(context, subject, json.pointer("/metadata/resourceVersion"), status).await? {
            Outcome::Changed(changed) => seen = *changed,
            other => return Ok(other),
        }
    }
    trim(&mut seen);
    let outcome = hold::patch(
        context,
        &subject.at(&seen),
        json!({
            "annotations": {keys::CANCEL_STATE: CancelState::Cancelled.as_str()},
        }),
    )
    .await?;
    if let (Outcome::Changed(_), Some(stamp)) = (&outcome, &cancellation.stamp) {
        let kind = Task::of(&subject.object).agent_type().unwrap_or_default();
        let known = context.flavour.knows_cancelled();
        context
            .metrics
            .cancelled(&subject.namespace, kind, stamp.trigger.as_str(), known);
    }
    Ok(outcome)
}

/// The status of the Task `object` that says who cancelled it and why; `None` when it says so already. A Kelos that has
/// adopted proposal 001 has a phase and a field for it.
fn concluded(object: &Value, cancellation: &Cancellation, adopted: bool) -> Option<Value> {
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
    let said = conditions
        .iter()
        .any(|known| known["type"] == CANCELLED && known["status"] == "True" && known["message"] == message);
    if said && (!adopted || Task::of(object).phase() == kelos::CANCELLED) {
        return None;
    }
    conditions.retain(|known| known["type"] != CANCELLED);
    conditions.push(json!({
        "type": CANCELLED, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": now(), "observedGeneration": object.pointer("/metadata/generation"),
    }));
    let mut status = json!({"conditions": conditions, "message": message});
    if adopted {
        status["phase"] = kelos::CANCELLED.into();
        status["cancelledBy"] = requester(cancellation).into();
    }
    Some(status)
}

pub(crate) async fn write_status(
    context: &Context,
    subject: &Subject,
    version: Option<&Value>,
    status: Value,
) -> Result<Outcome, Error> {
    let patch = json!({
        "metadata": {"resourceVersion": version, "uid": subject.state.uid},
        "status": status,
    });
    let tasks = context.tasks(&subject.namespace);
    let patched: Result<DynamicObject, _> = tasks
        .patch_status(&subject.state.name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Ok(mut object) => {
            trim(&mut object);
            Ok(Outcome::Changed(Box::new(object)))
        }
        Err(error) if is_absent(&error) => Ok(Outcome::Gone),
        Err(error) if is_conflict(&error) => Ok(Outcome::Conflict),
        Err(error) => Err(Error::of("writing the status of", "Task", subject, error)),
    }
}

fn now() -> String {
    Timestamp::now().strftime("%FT%TZ").to_string()
}
