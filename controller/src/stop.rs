//! A Task that slipped past the breaker: its Job is failed through its status, and Kelos moves the Task to Failed and frees
//! its branch by itself. Denying or deleting the Job would not do: Kelos would keep the lock, or make the Job again
//! (kelos T1, T2).

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{job, kelos, keys, metadata::Metadata};
use taskgate_policy::{CIRCUIT_BROKEN, JobEnd, TaskRun};

use crate::{
    cancel,
    context::Context,
    error::{Error, is_absent, is_conflict},
    events, evidence, hold,
    task::{Outcome, Subject},
};

/// Fails the Task's Job; with `marked` only one that admission marked. `None`: nothing is to be done until something changes.
/// No Job yet is no reason to wait: the Task changes when there is one.
pub(crate) async fn stop(context: &Context, subject: &Subject, marked: bool) -> Result<Option<Outcome>, Error> {
    // Admission marks Jobs; a Task of a worker pool has none.
    if !marked && kelos::Task::of(&subject.object).worker_pool().is_some() {
        return stop_in_pool(context, subject).await;
    }
    let Some(job) = evidence::job_of(context, subject).await? else {
        return Ok(None);
    };
    if JobEnd::of(&job) != JobEnd::Open {
        return Ok(None);
    }
    let told = Metadata::of(&job).annotation(keys::STOPPED);
    if marked && told.is_none() {
        return Ok(None);
    }
    let message = told.unwrap_or(STOPPED);
    match fail(context, subject, &job, CIRCUIT_BROKEN, message).await? {
        Failing::Now => {
            events::stopped(context, subject, message).await;
            Ok(None)
        }
        Failing::Changed => Ok(Some(Outcome::Conflict)),
        Failing::Gone => Ok(None),
    }
}

/// Stops a Task that a worker pool runs, as its cancellation would: the runner is asked to release it, and Kelos makes the Task
/// Failed; one without a runner is failed itself. First the Task says that it was stopped, as it has no Job that could.
async fn stop_in_pool(context: &Context, subject: &Subject) -> Result<Option<Outcome>, Error> {
    if Metadata::of(&subject.object).annotation(keys::STOPPED).is_none() {
        let outcome = hold::patch(context, subject, json!({"annotations": {keys::STOPPED: STOPPED}})).await?;
        if matches!(outcome, Outcome::Changed(_)) {
            events::stopped(context, subject, STOPPED).await;
        }
        return Ok(Some(outcome));
    }
    let found = cancel::look::runner(context, subject).await?;
    match found.run {
        TaskRun::Runner { asked: true } => Ok(None),
        TaskRun::Runner { asked: false } => cancel::runner::release(context, subject, &found).await.map(Some),
        _ => {
            let status = json!({
                "phase": kelos::FAILED, "message": STOPPED,
                "completionTime": Timestamp::now().strftime("%FT%TZ").to_string(),
            });
            let version = subject.object.pointer("/metadata/resourceVersion");
            let written = cancel::record::write_status(context, subject, version, status).await;
            written.map(Some)
        }
    }
}

/// What the Job or the Task says where admission has not said more.
const STOPPED: &str = "taskgate: stopped: the breaker of the Task's item is open";

/// What became of failing a Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// It is failing.
    Now,
    /// It is not what it was when we looked.
    Changed,
    /// It is gone.
    Gone,
}

/// Whether the Job is in a queue, suspended, and has no pods. As long as Kueue has it evicted, it takes `status.startTime`
/// away, and the job controller, which comes later, is refused to end a Job without one for ever (seen with Kueue 0.18 on
/// Kubernetes 1.36). With no pods there is nothing to wait for: such a Job can end in the same write.
pub(crate) fn is_parked(job: &Value) -> bool {
    let view = job::Job::of(job);
    let none = |field: &str| job.pointer(field).and_then(Value::as_u64).unwrap_or(0) == 0;
    let counted = ["succeeded", "failed"].iter().all(|list| {
        let uncounted = job.pointer(&format!("/status/uncountedTerminatedPods/{list}"));
        uncounted.and_then(Value::as_array).is_none_or(Vec::is_empty)
    });
    view.queue().is_some() && view.is_suspended() && none("/status/active") && none("/status/terminating") && counted
}

/// Fails the Job `job`, which has not ended, through its status: the job controller kills its pods and ends it. One that is
/// failing already gets what it lacks to end.
pub(crate) async fn fail(
    context: &Context,
    subject: &Subject,
    job: &Value,
    reason: &str,
    message: &str,
) -> Result<Failing, Error> {
    let mut conditions = job
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let now = Timestamp::now().strftime("%FT%TZ").to_string();
    let mut wanted = vec!["FailureTarget"];
    wanted.extend(is_parked(job).then_some("Failed"));
    for kind in wanted {
        if !conditions
            .iter()
            .any(|known| known["type"] == kind && known["status"] == "True")
        {
            conditions.push(json!({
                "type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": now, "lastProbeTime": now,
            }));
        }
    }
    let mut status = json!({"conditions": conditions});
    // A Job that never started is not allowed to end without a start (measured).
    if job.pointer("/status/startTime").is_none() {
        status["startTime"] = now.into();
    }
    let patch = json!({
        "metadata": {"resourceVersion": job.pointer("/metadata/resourceVersion"), "uid": job.pointer("/metadata/uid")},
        "status": status,
    });
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let patched = jobs
        .patch_status(&subject.state.name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Ok(_) => Ok(Failing::Now),
        Err(error) if is_conflict(&error) => Ok(Failing::Changed),
        Err(error) if is_absent(&error) => Ok(Failing::Gone),
        Err(error) => Err(Error::of("failing", "Job", subject, error)),
    }
}
