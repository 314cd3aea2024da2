//! What is written to the Job of a Task that is cancelled, and to its pods.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use taskgate_api::{keys, metadata::Metadata};
use taskgate_policy::{Cancellation, TASK_CANCELLED, conclusion};

use super::look::{Found, untold};
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    hold, stop,
    task::{Outcome, Subject},
};

/// Writes the deadline on the Job and its pods, where the agent can read it through the downward API.
pub(super) async fn tell(
    context: &Context,
    subject: &Subject,
    found: &Found,
    cancellation: &Cancellation,
) -> Result<Outcome, Error> {
    let Some((job, stamp)) = found.job.as_ref().zip(cancellation.stamp.as_ref()) else {
        return Ok(Outcome::Again);
    };
    annotate(context, subject, job, Some(&stamp.deadline.to_string())).await?;
    Ok(Outcome::Again)
}

/// Takes the deadline off the Job and its pods.
pub(super) async fn untell(context: &Context, subject: &Subject) -> Result<(), Error> {
    match crate::evidence::job_of(context, subject).await? {
        Some(job) => annotate(context, subject, &job, None).await,
        None => Ok(()),
    }
}

/// Pods first: the Job's annotation then says that all of them have it.
async fn annotate(context: &Context, subject: &Subject, job: &Value, deadline: Option<&str>) -> Result<(), Error> {
    let gone = |error: &kube::Error| is_absent(error) || is_conflict(error);
    let failed = |kind, error| Error::of("annotating", kind, subject, error);
    let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
    let annotations = json!({keys::CANCEL_DEADLINE: deadline});
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    for pod in untold(context, subject, job, deadline).await? {
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
    found: &Found,
    cancellation: &Cancellation,
) -> Result<Outcome, Error> {
    let Some(job) = &found.job else {
        return Ok(Outcome::Again);
    };
    // Whether it was, or somebody else was faster, the next look tells.
    stop::fail(context, subject, job, TASK_CANCELLED, &conclusion(cancellation)).await?;
    Ok(Outcome::Again)
}

/// Deletes the Job whose end is recorded. Only where the Task has ended as seen now: of any other Kelos would make the
/// Job again.
pub(super) async fn delete(context: &Context, subject: &Subject, found: &Found) -> Result<Outcome, Error> {
    let uid = found
        .job
        .as_ref()
        .and_then(|job| Metadata::of(job).uid().map(ToOwned::to_owned));
    let Some(task) = hold::read(context, subject).await? else {
        return Ok(Outcome::Gone);
    };
    let now = taskgate_policy::TaskState::of(&crate::tasks::json_of(&task));
    if now.is_none_or(|now| !now.is_terminal()) {
        return Ok(Outcome::Changed(Box::new(task)));
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    match jobs.delete(&subject.state.name, &params).await {
        Ok(_) => Ok(Outcome::Again),
        Err(error) if is_absent(&error) || is_conflict(&error) => Ok(Outcome::Again),
        Err(error) => Err(Error::of("deleting", "Job", subject, error)),
    }
}
