//! Writes to the Task that is cancelled.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::runtime::events::EventType;
use serde_json::{Value, json};
use taskgate_api::{
    condition::{CANCELLED, Condition},
    kelos::{self, Task},
    keys,
};
use taskgate_cache::trim_task;
use taskgate_policy::{CancelState, Cancellation, announcement, conclusion, requester};

use super::{CancelledFields, TaskCancellation};
use crate::{
    error::Error,
    kubernetes::{json_of, rfc3339, with_condition},
    task::{self, TaskResult},
};

impl TaskCancellation<'_> {
    /// Annotates how far the cancellation is.
    pub(super) async fn progress(&self, progress: CancelState) -> Result<TaskResult, Error> {
        self.annotate_task(json!({keys::CANCEL_STATE: progress.as_ref()})).await
    }

    pub(super) async fn annotate_task(&self, annotations: Value) -> Result<TaskResult, Error> {
        task::patch(self.context, self.subject, json!({"annotations": annotations})).await
    }

    /// Annotates that the agent is being warned, and records an Event.
    pub(super) async fn announce(&self) -> Result<TaskResult, Error> {
        let outcome = self.progress(CancelState::Announced).await?;
        if let (TaskResult::Changed(_), Some(stamp)) = (&outcome, &self.cancellation.stamp) {
            self.record("CancelAnnounced", &announcement(stamp, self.cancellation));
        }
        Ok(outcome)
    }

    /// Removes everything that was written.
    pub(super) async fn withdraw(&self) -> Result<TaskResult, Error> {
        self.remove_deadline().await?;
        let nothing: BTreeMap<_, _> = keys::CANCELLATION.iter().map(|key| (*key, Value::Null)).collect();
        let outcome = self.annotate_task(json!(nothing)).await?;
        if let TaskResult::Changed(_) = &outcome {
            self.record("CancelWithdrawn", "the cancellation was withdrawn");
        }
        Ok(outcome)
    }

    /// Annotates that the cancellation is refused or too late, and records an Event.
    pub(super) async fn give_up(&self, end: CancelState) -> Result<TaskResult, Error> {
        let (reason, note) = if end == CancelState::Refused {
            let note = "the request has no valid stamp of taskgate's admission: it was made while admission was unavailable. \
                        Remove the annotation taskgate.dev/cancel and set it again";
            ("CancelRefused", note.to_owned())
        } else {
            let by = requester(self.cancellation);
            (
                "CancelTooLate",
                format!("asked for by {by}, but the Task ended by itself"),
            )
        };
        self.record_once(EventType::Warning, reason, &note).await;
        self.progress(end).await
    }

    /// Fails a Task that has no Job, as Kelos itself would have.
    pub(super) async fn fail(&self) -> Result<TaskResult, Error> {
        let status = json!({
            "phase": kelos::FAILED,
            "message": conclusion(self.cancellation),
            "completionTime": rfc3339(self.context.now()),
        });
        task::patch_status(self.context, self.subject, self.subject.resource_version(), status).await
    }

    /// Records that the Task was cancelled: Event, status, and last the annotation that completes it.
    pub(super) async fn conclude(&self) -> Result<TaskResult, Error> {
        let Self {
            reconciler,
            context,
            subject,
            ..
        } = *self;
        let fields = *reconciler.cancelled_fields.lock();
        let note = conclusion(self.cancellation);
        self.record_once(EventType::Normal, "TaskCancelled", &note).await;
        // The list of conditions is written back, and the cached object lacks it.
        let Some(mut latest) = task::read_untrimmed(context, subject).await? else {
            return Ok(TaskResult::AwaitChange);
        };
        let json = json_of(&latest);
        if let Some(status) = concluded(&json, self.cancellation, fields, context.now()) {
            match task::patch_status(context, subject, json.pointer("/metadata/resourceVersion"), status).await? {
                TaskResult::Changed(changed) => latest = *changed,
                other => return Ok(other),
            }
        }
        trim_task(&mut latest);
        let subject = &subject.at(&latest);
        let outcome = TaskCancellation { subject, ..*self }
            .progress(CancelState::Cancelled)
            .await?;
        if let (TaskResult::Changed(_), Some(stamp)) = (&outcome, &self.cancellation.stamp) {
            let metrics = &reconciler.metrics;
            let is_phase = fields == CancelledFields::Phase;
            metrics.cancelled(&subject.object, stamp.trigger.into(), is_phase);
        }
        Ok(outcome)
    }
}

/// The status of the Task `object` that says who cancelled it and why, in the `fields` that there are for it; `None` when it says
/// so already.
fn concluded(object: &Value, cancellation: &Cancellation, fields: CancelledFields, now: Timestamp) -> Option<Value> {
    let stamp = cancellation.stamp.as_ref();
    let reason = stamp.map_or("ByHand", |stamp| stamp.trigger.into());
    let message = conclusion(cancellation);
    let known = Condition::find(object, CANCELLED);
    let by = requester(cancellation);
    let is_stated = known.is_some_and(|known| known.is_true() && known.message() == message);
    let has_fields = match fields {
        CancelledFields::None => true,
        CancelledFields::Requester => Task::of(object).cancelled_by() == Some(by),
        CancelledFields::Phase => Task::of(object).phase() == kelos::CANCELLED,
    };
    if is_stated && has_fields {
        return None;
    }
    let condition = json!({
        "type": CANCELLED, "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": rfc3339(now), "observedGeneration": object.pointer("/metadata/generation"),
    });
    let mut status = json!({"conditions": with_condition(object, condition), "message": message});
    if fields != CancelledFields::None {
        status["cancelledBy"] = by.into();
    }
    if fields == CancelledFields::Phase {
        status["phase"] = kelos::CANCELLED.into();
    }
    Some(status)
}
