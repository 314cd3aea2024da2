//! Reports on the Task how far its Job is: condition, Event and metric, only when that changed.

use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::{Value, json};
use taskgate_api::{job::Job, metadata::Metadata};
use taskgate_policy::QueueState;
use tracing::debug;

use super::{
    QueueingReconciler,
    condition::{self, ConditionChange},
};
use crate::{
    error::{Error, is_absent, is_conflict},
    events,
    kubernetes::{json_of, namespace_of},
    task::TaskResult,
};

/// Writes `state` of its Job to the Task `cached`. The cache is enough to see that the Task states it already; a write follows a
/// read of the API server and carries its resource version, since Kelos writes the whole status. `Conflict`: try again.
pub(super) async fn report(
    queueing: &QueueingReconciler,
    cached: &Value,
    job: &Value,
    state: &QueueState,
) -> Result<TaskResult, Error> {
    let context = &*queueing.context;
    let created = Job::of(job).created();
    if condition::change(cached, state, created, Timestamp::now()).is_none() {
        return Ok(TaskResult::AwaitChange);
    }
    let (namespace, uid) = (namespace_of(cached), Metadata::of(cached).uid());
    let name = Metadata::of(cached).name().unwrap_or_default();
    let failed = |doing, error| Error::new(doing, "Task", namespace, name, error);
    let tasks = context.tasks(namespace);
    let Some(fresh) = tasks.get_opt(name).await.map_err(|error| failed("reading", error))? else {
        return Ok(TaskResult::AwaitChange);
    };
    if fresh.uid().as_deref() != uid || fresh.metadata.deletion_timestamp.is_some() {
        return Ok(TaskResult::AwaitChange);
    }
    let fresh = json_of(&fresh);
    let Some(change) = condition::change(&fresh, state, created, Timestamp::now()) else {
        return Ok(TaskResult::AwaitChange);
    };
    let patch = json!({
        "metadata": {"uid": uid, "resourceVersion": fresh.pointer("/metadata/resourceVersion")},
        "status": {"conditions": change.conditions},
    });
    match tasks
        .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => {
            record(queueing, &fresh, job, state, &change);
            Ok(TaskResult::AwaitChange)
        }
        Err(error) if is_absent(&error) => Ok(TaskResult::AwaitChange),
        Err(error) if is_conflict(&error) => Ok(TaskResult::Conflict),
        Err(error) => Err(failed("patching", error)),
    }
}

/// Records the Event and the metric.
fn record(queueing: &QueueingReconciler, task: &Value, job: &Value, state: &QueueState, change: &ConditionChange) {
    if !change.reason_changed {
        return;
    }
    let queue = Job::of(job).queue().unwrap_or_default();
    debug!(
        namespace = namespace_of(task),
        name = Metadata::of(task).name(),
        reason = state.reason.as_str(),
        "queue"
    );
    queueing
        .metrics
        .state_changed(namespace_of(task), queue, state.reason, change.waited);
    let type_ = if state.reason.is_trap() {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let reference = events::reference(task);
    let reason = state.reason.as_str();
    let events = &queueing.context.events;
    events.publish(type_, reason, "Queue", &change.message, &reference);
}
