//! A Task that a worker pool runs: Kelos' own way of cancelling (kelos §7).

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::kelos;

use super::look::Found;
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    task::{Outcome, Subject},
};

/// Asks the runner to kill the agent and to let go; Kelos then makes the Task Failed. The version that was seen keeps us
/// from asking a runner that has the next Task by now.
pub(crate) async fn release(context: &Context, subject: &Subject, found: &Found) -> Result<Outcome, Error> {
    let Some((name, version)) = &found.runner else {
        return Ok(Outcome::Again);
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
        Ok(_) => Ok(Outcome::Again),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(Outcome::Conflict),
        Err(error) => Err(Error::of("annotating", "the runner of Task", subject, error)),
    }
}
