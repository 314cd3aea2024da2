//! A Task's Job and its pods, and how taskgate fails a Job.
//!
//! Imports `context`, `error`, `kubernetes`, `task`, `workqueue`. Called by `breaker`, `cancellation`, `metadata`, `queueing`
//! and `retry`.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{is_object_name, job, kelos};

use crate::{
    context::Context,
    error::Error,
    kubernetes::{self, json_of, rfc3339},
    task::Subject,
    workqueue::StepResult,
};

/// The Job of this name, whichever Task it belongs to.
pub(crate) async fn find(context: &Context, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
    let jobs = Api::<Job>::namespaced(context.client.clone(), namespace);
    let found = kubernetes::find(&jobs, name).await;
    let found = found.map_err(|error| Error::new("reading", "Job", namespace, name, error))?;
    Ok(found.as_ref().map(json_of))
}

/// The Task's Job. Kelos finds it by name only; a Job of another owner is none.
pub(crate) async fn of_task(context: &Context, subject: &Subject) -> Result<Option<Value>, Error> {
    let found = find(context, &subject.namespace, &subject.state.name).await?;
    Ok(found.filter(|job| is_of(job, subject)))
}

/// Whether the Task owns `job`.
pub(crate) fn is_of(job: &Value, subject: &Subject) -> bool {
    let owner = job::Job::of(job).task();
    owner.is_some_and(|owner| owner.uid == subject.state.uid)
}

/// The pods that carry the label of the Task `name`.
pub(crate) async fn pods_of_task(context: &Context, namespace: &str, name: &str) -> Result<Vec<Value>, Error> {
    if name.len() > kelos::MAX_TASK_NAME || !is_object_name(name) {
        return Ok(Vec::new());
    }
    let pods = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let label = format!("{}={name}", kelos::TASK_LABEL);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| Error::new("listing", "the pods of Task", namespace, name, error))?;
    Ok(found.iter().map(json_of).collect())
}

/// Whether the Job is in a queue, suspended, and has no pods. While Kueue evicts a Job, it removes `status.startTime`, and the API
/// server then refuses every try of the job controller to end the Job without one (Kueue 0.18 on Kubernetes 1.36). With no pods
/// there is nothing to wait for: such a Job can end in the same write.
pub(crate) fn is_parked(job: &Value) -> bool {
    let view = job::Job::of(job);
    let none = |field: &str| job.pointer(field).and_then(Value::as_u64).unwrap_or(0) == 0;
    let counted = ["succeeded", "failed"].iter().all(|list| {
        let uncounted = job.pointer(&format!("/status/uncountedTerminatedPods/{list}"));
        uncounted.and_then(Value::as_array).is_none_or(Vec::is_empty)
    });
    view.queue().is_some() && view.is_suspended() && none("/status/active") && none("/status/terminating") && counted
}

/// Fails the Task's Job, which has not ended, through its status: the job controller kills its pods and ends it. A Job that is
/// failing already gets what it lacks to end. `Changed`: the Job fails now; `AwaitChange`: it is gone.
pub(crate) async fn fail(
    context: &Context,
    subject: &Subject,
    job: &Value,
    reason: &str,
    message: &str,
) -> Result<StepResult<Job>, Error> {
    let mut conditions = job
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let now = rfc3339(context.now());
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
    // The API server refuses the end of a Job that never started.
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
    StepResult::of_write(patched).map_err(|error| subject.error("failing", "Job", error))
}
