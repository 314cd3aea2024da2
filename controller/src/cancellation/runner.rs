//! Releases the runner of a Task that a worker pool runs: Kelos' own way of cancelling (kelos §7).

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::kelos;

use super::running::Running;
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    task::{Subject, TaskResult},
};

/// Asks the runner to kill the agent and to release the Task; Kelos then moves the Task to Failed. The resource version that was read
/// keeps taskgate from asking a runner that has the next Task by now.
pub(crate) async fn release(context: &Context, subject: &Subject, found: &Running) -> Result<TaskResult, Error> {
    let Some((name, version)) = &found.runner else {
        return Ok(TaskResult::Unchanged);
    };
    let patch = json!({"metadata": {
        "resourceVersion": version,
        "annotations": {kelos::CANCEL_TASK: subject.state.name},
    }});
    let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
    match pods
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(TaskResult::Unchanged),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(TaskResult::Conflict),
        Err(error) => Err(subject.error("annotating", "the runner of Task", error)),
    }
}
