//! Tells the Task how far its Job is: as condition, Event and metric, and only when that changed.

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

use super::condition::{self, Change};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    events,
    tasks::{json_of, namespace_of},
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The Task says so.
    Done,
    /// Somebody else wrote the Task meanwhile: try again.
    Conflict,
}

/// Makes the Task `cached` say `state` of its Job. The cache is enough to see that it says so already; what is written
/// rests on a fresh read, and on nothing having changed since: Kelos writes the whole status.
pub(super) async fn tell(context: &Context, cached: &Value, job: &Value, state: &QueueState) -> Result<Told, Error> {
    let created = Job::of(job).created();
    if condition::change(cached, state, created, Timestamp::now()).is_none() {
        return Ok(Told::Done);
    }
    let (namespace, uid) = (namespace_of(cached), Metadata::of(cached).uid());
    let name = Metadata::of(cached).name().unwrap_or_default();
    let failed = |doing, source| Error {
        doing,
        kind: "Task",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(source),
    };
    let tasks = context.tasks(namespace);
    let Some(fresh) = tasks.get_opt(name).await.map_err(|error| failed("reading", error))? else {
        return Ok(Told::Done);
    };
    if fresh.uid().as_deref() != uid || fresh.metadata.deletion_timestamp.is_some() {
        return Ok(Told::Done);
    }
    let fresh = json_of(&fresh);
    let Some(change) = condition::change(&fresh, state, created, Timestamp::now()) else {
        return Ok(Told::Done);
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
            publish(context, &fresh, job, state, &change).await;
            Ok(Told::Done)
        }
        Err(error) if is_absent(&error) => Ok(Told::Done),
        Err(error) if is_conflict(&error) => Ok(Told::Conflict),
        Err(error) => Err(failed("patching", error)),
    }
}

async fn publish(context: &Context, task: &Value, job: &Value, state: &QueueState, change: &Change) {
    if !change.is_news {
        return;
    }
    let queue = Job::of(job).queue().unwrap_or_default();
    debug!(
        namespace = namespace_of(task),
        name = Metadata::of(task).name(),
        reason = state.reason.as_str(),
        "queue"
    );
    context
        .metrics
        .queue
        .told(namespace_of(task), queue, state.reason, change.waited);
    let type_ = if state.reason.is_trap() {
        EventType::Warning
    } else {
        EventType::Normal
    };
    let reference = events::reference(task);
    events::publish(
        context,
        type_,
        state.reason.as_str(),
        "Queue",
        &change.message,
        &reference,
    )
    .await;
}
