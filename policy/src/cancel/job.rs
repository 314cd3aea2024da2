//! The Job of a Task that is cancelled: admitted, so that Kelos keeps no lock, but never run.

use jiff::Timestamp;
use serde_json::Value;
use taskgate_api::{job::Job, keys, kueue};

use crate::{
    decision::{Effect, Finding},
    patch::Edit,
};

use super::{CancelDetail, Cancellation, conclusion};

/// Stops the Job of the cancelled `task`: suspended, without a queue that would start it, marked. The controller fails it
/// like any other. Denying it would keep Kelos' branch lock (kelos T1, T2).
pub(crate) fn finding(task: Option<&Value>, job: Job<'_>, now: Timestamp) -> Option<Finding<'static>> {
    let cancellation = Cancellation::of(task?);
    if !cancellation.stops_jobs(now) {
        return None;
    }
    let message = conclusion(&cancellation);
    let mut edits = vec![Edit::Suspend, Edit::Annotation(keys::STOPPED.into(), message.clone())];
    if job.queue().is_some() {
        edits.push(Edit::RemoveLabel(kueue::QUEUE_NAME.into()));
    }
    Some(Finding::cancellation(
        CancelDetail::JobStopped { message },
        Effect::Change(edits),
    ))
}
