//! Tasks of a worker pool (kelos §7): no Job, a protocol of annotations on runner pods. The pods
//! themselves come from the test that plays the pool; there is no `StatefulSet`.

use super::{Controller, status};
use crate::cache::Key;
use crate::error::Error;
use crate::keys;
use crate::queue::Next;
use crate::types::Task;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::time::Duration;

/// How often a free runner is searched.
const NO_RUNNER: Duration = Duration::from_secs(5);
/// How often a lost write is tried again, and a runner asked whether it has released the Task.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a runner is polled.
const POLL: Duration = Duration::from_secs(10);

impl Controller {
    fn pod_api(&self, key: &Key) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    async fn runner(&self, key: &Key, name: &str) -> Result<Option<Pod>, Error> {
        let pods = self.pod_api(key);
        let pod = pods.get_opt(name).await;
        pod.map_err(Error::kube("reading the runner pod of Task", key))
    }

    pub(super) async fn reconcile_pool_task(&self, key: &Key) -> Result<Next, Error> {
        let Some(task) = self.tasks.get(key) else {
            return Ok(Next::Wait);
        };
        if task.meta().deletion_timestamp.is_some() {
            return Ok(self.release_runner(key, &task).await?.unwrap_or(Next::Wait));
        }
        let current = task.current();
        match current.phase.as_str() {
            "Succeeded" | "Failed" => {
                self.record(key, &task).await?;
                if let Some(pod) = self.runner(key, &current.pod_name).await?
                    && assigned(&pod) == Some(&key.name)
                {
                    self.clear(key, &pod).await?;
                }
                Ok(Next::Wait)
            }
            "Running" | "Pending" if !current.pod_name.is_empty() => self.watch(key, &task).await,
            _ => self.assign(key, &task).await,
        }
    }

    /// Claims the first free runner. None free: no status at all, the phase stays empty.
    async fn assign(&self, key: &Key, task: &Task) -> Result<Next, Error> {
        let pool = task.spec.worker_pool_ref.as_ref();
        let pool = pool.map(|pool| pool.name.as_str()).unwrap_or_default();
        let pods = self.pods.list(&key.namespace);
        let Some(pod) = pods.iter().find(|pod| is_free(pod, pool)) else {
            return Ok(Next::After(NO_RUNNER));
        };
        let claim = json!({"metadata": {
            "resourceVersion": pod.resource_version(),
            "annotations": {
                keys::ASSIGNED_TASK: key.name, keys::TASK_STATUS: null,
                keys::TASK_FAILURE_REASON: null, keys::CANCEL_TASK: null,
            },
        }});
        let name = pod.name_any();
        let pods = self.pod_api(key);
        let claimed = pods.patch(&name, &PatchParams::default(), &Patch::Merge(&claim)).await;
        let Ok(claimed) = claimed else {
            return Ok(Next::After(AGAIN));
        };
        let written = self.update_status(key, |status| {
            "Pending".clone_into(&mut status.phase);
            status.pod_name.clone_from(&name);
            status.start_time = Some(status::now());
        });
        if written.await.is_err() {
            self.clear(key, &claimed).await?;
            return Ok(Next::After(AGAIN));
        }
        let note = format!("Assigned to worker pod {name}");
        self.note(task, "TaskAssigned", note).await;
        Ok(Next::After(POLL))
    }

    async fn watch(&self, key: &Key, task: &Task) -> Result<Next, Error> {
        let current = task.current();
        let Some(pod) = self.runner(key, &current.pod_name).await? else {
            self.complete(key, "Failed", "Worker pod was deleted").await?;
            return Ok(Next::Wait);
        };
        let annotation = |name| pod.annotations().get(name).map(String::as_str);
        match annotation(keys::TASK_STATUS) {
            Some("succeeded") => self.complete(key, "Succeeded", "").await?,
            Some("failed") => {
                let reason = annotation(keys::TASK_FAILURE_REASON).unwrap_or_default();
                self.complete(key, "Failed", reason).await?;
            }
            Some("running") | None if current.phase != "Running" => {
                self.update_status(key, |status| "Running".clone_into(&mut status.phase))
                    .await?;
                return Ok(Next::After(POLL));
            }
            _ => return Ok(Next::After(POLL)),
        }
        self.clear(key, &pod).await?;
        Ok(Next::Wait)
    }

    async fn complete(&self, key: &Key, phase: &str, message: &str) -> Result<(), Error> {
        let pod = self.tasks.get(key).map(|task| task.current().pod_name);
        let found = self.read_outputs(key, &pod.unwrap_or_default()).await;
        let written = self
            .update_status(key, |status| {
                phase.clone_into(&mut status.phase);
                message.clone_into(&mut status.message);
                status.completion_time = Some(status::now());
                if let Some((outputs, results)) = found.clone() {
                    status.usage = super::usage(&results);
                    status.outputs = outputs;
                    status.results = results;
                }
            })
            .await?;
        self.count_usage(key, &written);
        self.record(key, &written).await
    }

    /// Asks the runner to kill a deleted Task's agent. `Some` until it has released it.
    pub(super) async fn release_runner(&self, key: &Key, task: &Task) -> Result<Option<Next>, Error> {
        let name = task.current().pod_name;
        if name.is_empty() {
            return Ok(None);
        }
        let Some(pod) = self.runner(key, &name).await? else {
            return Ok(None);
        };
        if assigned(&pod) != Some(&key.name) {
            return Ok(None);
        }
        let status = pod.annotations().get(keys::TASK_STATUS);
        if matches!(status.map(String::as_str), Some("succeeded" | "failed")) {
            self.clear(key, &pod).await?;
            return Ok(None);
        }
        let cancel = json!({"metadata": {"annotations": {keys::CANCEL_TASK: key.name}}});
        self.annotate(key, &name, &cancel).await?;
        Ok(Some(Next::After(AGAIN)))
    }

    async fn clear(&self, key: &Key, pod: &Pod) -> Result<(), Error> {
        let completed = pod.annotations().get(keys::TASKS_COMPLETED);
        let completed: u64 = completed.and_then(|text| text.parse().ok()).unwrap_or(0);
        let cleared = json!({"metadata": {"annotations": {
            keys::ASSIGNED_TASK: null, keys::TASK_STATUS: null, keys::TASK_FAILURE_REASON: null,
            keys::CANCEL_TASK: null, keys::TASKS_COMPLETED: (completed + 1).to_string(),
        }}});
        self.annotate(key, &pod.name_any(), &cleared).await
    }

    async fn annotate(&self, key: &Key, pod: &str, patch: &serde_json::Value) -> Result<(), Error> {
        let pods = self.pod_api(key);
        pods.patch(pod, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .map_err(Error::kube("annotating the runner pod of Task", key))
    }
}

fn assigned(pod: &Pod) -> Option<&String> {
    pod.annotations().get(keys::ASSIGNED_TASK)
}

fn is_free(pod: &Pod, pool: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.labels().get(keys::WORKER_POOL).is_some_and(|p| p == pool)
        && phase == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
        && assigned(pod).is_none()
}
