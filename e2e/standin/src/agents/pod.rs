//! What a kubelet writes on a pod.

use super::Outcome;
use crate::cache::Key;
use crate::error::{Error, has_code};
use crate::keys;
use crate::queue::Next;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

/// The Job that made the pod.
pub(super) fn job_uid(pod: &Pod) -> Option<&str> {
    pod.labels().get(CONTROLLER_UID).map(String::as_str)
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

pub(super) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// Since when it runs.
pub(super) fn started(pod: &Pod) -> Option<Timestamp> {
    if phase(pod) != Some("Running") {
        return None;
    }
    pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

/// Moves a pod to Running.
pub(super) async fn start(pods: &Api<Pod>, key: &Key, pod: &Pod) -> Result<Next, Error> {
    let now = time();
    let status = json!({
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        "containerStatuses": containers(pod, true, &json!({"running": {"startedAt": now}})),
    });
    write(pods, key, status).await?;
    Ok(Next::Wait)
}

/// Moves a pod to its end: the log first, as it can be read once the end shows.
pub(super) async fn end(client: &Client, key: &Key, pod: &Pod, outcome: &Outcome) -> Result<(), Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    if !outcome.log.is_empty() {
        let log = json!({"metadata": {"annotations": {keys::AGENT_LOG: outcome.log}}});
        let patched = pods
            .patch(&key.name, &PatchParams::default(), &Patch::Merge(&log))
            .await;
        tolerate_gone(patched).map_err(Error::kube("writing the log of pod", key))?;
    }
    let (phase, reason) = if outcome.succeeded {
        ("Succeeded", "Completed")
    } else {
        ("Failed", "Error")
    };
    let now = time();
    let ended = json!({"terminated": {
        "exitCode": outcome.exit_code, "reason": reason, "startedAt": now, "finishedAt": now,
    }});
    let status = json!({
        "phase": phase,
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
        "containerStatuses": containers(pod, false, &ended),
    });
    if outcome.at_once && !outcome.succeeded {
        fail_job(client, key, pod).await?;
    }
    write(&pods, key, status).await
}

/// Lets the job controller fail the Job, as if this had been the last attempt.
async fn fail_job(client: &Client, key: &Key, pod: &Pod) -> Result<(), Error> {
    let owner = pod.owner_references().iter().find(|o| o.kind == "Job");
    let Some(owner) = owner else {
        return Ok(());
    };
    let jobs: Api<Job> = Api::namespaced(client.clone(), &key.namespace);
    let now = time();
    let target = json!({"status": {"conditions": [{
        "type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded",
        "message": "Job has reached the specified backoff limit",
        "lastProbeTime": now, "lastTransitionTime": now,
    }]}});
    let patch = Patch::Strategic(&target);
    let patched = jobs.patch_status(&owner.name, &PatchParams::default(), &patch).await;
    tolerate_gone(patched).map_err(Error::kube("failing the Job of pod", key))
}

async fn write(pods: &Api<Pod>, key: &Key, status: Value) -> Result<(), Error> {
    let status = json!({"status": status});
    let patch = Patch::Strategic(&status);
    let patched = pods.patch_status(&key.name, &PatchParams::default(), &patch).await;
    tolerate_gone(patched).map_err(Error::kube("writing the status of pod", key))
}

fn tolerate_gone<K>(answer: kube::Result<K>) -> kube::Result<()> {
    match answer {
        Err(error) if !has_code(&error, 404) => Err(error),
        _ => Ok(()),
    }
}

fn containers(pod: &Pod, ready: bool, state: &Value) -> Vec<Value> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses = containers.map(|container| {
        json!({
            "name": container.name, "image": container.image, "imageID": "", "ready": ready,
            "started": ready, "restartCount": 0, "state": state,
        })
    });
    statuses.collect()
}

fn time() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
