//! Writes to the Job of a Task that is cancelled, and to its pods.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{keys, metadata::Metadata};
use taskgate_policy::{Cancellation, TASK_CANCELLED, conclusion};

use super::running::{Running, pods_without_deadline};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    job,
    kubernetes::{delete_only, json_of},
    task::{self, Subject, TaskResult},
};

/// Writes the deadline on the Job and its pods, where the agent can read it through the downward API.
pub(super) async fn set_deadline(
    context: &Context,
    subject: &Subject,
    found: &Running,
    cancellation: &Cancellation,
) -> Result<TaskResult, Error> {
    let Some((job, stamp)) = found.job.as_ref().zip(cancellation.stamp.as_ref()) else {
        return Ok(TaskResult::Unchanged);
    };
    annotate(context, subject, job, Some(&stamp.deadline.to_string())).await?;
    Ok(TaskResult::Unchanged)
}

/// Removes the deadline from the Job and its pods.
pub(super) async fn remove_deadline(context: &Context, subject: &Subject) -> Result<(), Error> {
    match job::of_task(context, subject).await? {
        Some(job) => annotate(context, subject, &job, None).await,
        None => Ok(()),
    }
}

/// Annotates the pods first: the Job's annotation then means that all of them have it.
async fn annotate(context: &Context, subject: &Subject, job: &Value, deadline: Option<&str>) -> Result<(), Error> {
    let gone = |error: &kube::Error| is_absent(error) || is_conflict(error);
    let failed = |kind, error| subject.error("annotating", kind, error);
    let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
    let annotations = json!({keys::CANCEL_DEADLINE: deadline});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    for pod in pods_without_deadline(context, subject, job, deadline).await? {
        match pods.patch_metadata(&pod, &PatchParams::default(), &patch).await {
            Err(error) if !gone(&error) => return Err(failed("a pod of Task", error)),
            _ => {}
        }
    }
    if Metadata::of(job).annotation(keys::CANCEL_DEADLINE) == deadline {
        return Ok(());
    }
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let patch = json!({"metadata": {"uid": job.pointer("/metadata/uid"), "annotations": annotations}});
    match jobs
        .patch_metadata(&subject.state.name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Err(error) if !gone(&error) => Err(failed("Job", error)),
        _ => Ok(()),
    }
}

/// Fails the Job through its status.
pub(super) async fn fail(
    context: &Context,
    subject: &Subject,
    found: &Running,
    cancellation: &Cancellation,
) -> Result<TaskResult, Error> {
    let Some(job) = &found.job else {
        return Ok(TaskResult::Unchanged);
    };
    // The next step reads the Job again, whatever the result.
    job::fail(context, subject, job, TASK_CANCELLED, &conclusion(cancellation)).await?;
    Ok(TaskResult::Unchanged)
}

/// Deletes the Job whose end is recorded, if the Task, read again, has ended: otherwise Kelos would create the Job again.
pub(super) async fn delete(context: &Context, subject: &Subject, found: &Running) -> Result<TaskResult, Error> {
    let uid = found
        .job
        .as_ref()
        .and_then(|job| Metadata::of(job).uid().map(ToOwned::to_owned));
    let Some(task) = task::read(context, subject).await? else {
        return Ok(TaskResult::AwaitChange);
    };
    let now = taskgate_policy::TaskState::of(&json_of(&task));
    if now.is_none_or(|now| !now.is_terminal()) {
        return Ok(TaskResult::Changed(Box::new(task)));
    }
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    match jobs.delete(&subject.state.name, &delete_only(uid, None)).await {
        Ok(_) => Ok(TaskResult::Unchanged),
        Err(error) if is_absent(&error) || is_conflict(&error) => Ok(TaskResult::Unchanged),
        Err(error) => Err(subject.error("deleting", "Job", error)),
    }
}
