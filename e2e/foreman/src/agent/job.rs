//! The Jobs that an agent makes for its tasks (F15): a coder's is owned by the task, but does not block its deletion; a
//! gate's has no owner.

use super::{Agent, LOOK, PATIENCE};
use crate::error::{Error, tolerate_gone};
use crate::keys;
use crate::operator::task::{Against, write_status};
use crate::types::AgenticTask;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kelos_standin::Key;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What a name may have, so that the pods' labels can hold it.
const NAME: usize = 63;

impl Agent {
    /// The Job of a task, if its kind and its Agent want one.
    pub(super) async fn start_job(&self, key: &Key, task: &AgenticTask) -> Result<Option<Key>, Error> {
        let of = task.spec.agent_ref.as_ref().map_or("", |agent| agent.name.as_str());
        let agent = self.agents.get(&Key::new(&key.namespace, of));
        let role = match task.spec.kind.as_str() {
            "verify" if self.options.gate_jobs => "gate",
            "verify" => return Ok(None),
            _ if agent.is_some_and(|agent| agent.runs_jobs()) => "coder",
            _ => return Ok(None),
        };
        let namespace = self.options.jobs_namespace.as_ref().unwrap_or(&key.namespace);
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        if role == "coder" {
            self.reap(&jobs, key).await?;
        }
        let body = job(role, namespace, task);
        let job: Job = serde_json::from_value(body).map_err(Error::json(key))?;
        let created = jobs.create(&PostParams::default(), &job).await;
        let created = created.map_err(Error::kube("creating the Job of AgenticTask", key))?;
        let name = created.name_any();
        if role == "coder" {
            write_status(&self.client, key, task, Against::Nothing, |status| {
                name.clone_into(&mut status.job_name);
            })
            .await?;
        }
        Ok(Some(Key::new(namespace, name)))
    }

    /// Earlier Jobs of a task of that name go, in background.
    async fn reap(&self, jobs: &Api<Job>, key: &Key) -> Result<(), Error> {
        let doing = "clearing up for AgenticTask";
        let of_task = ListParams::default().labels(&format!("{}={}", keys::TASK_NAME, key.name));
        for job in jobs.list(&of_task).await.map_err(Error::kube(doing, key))? {
            let deleted = jobs.delete(&job.name_any(), &DeleteParams::background()).await;
            if let Err(error) = deleted
                && !crate::error::has_code(&error, 404)
            {
                return Err(Error::kube(doing, key)(error));
            }
        }
        Ok(())
    }

    /// Ends the pod, there being no kubelet, and waits until the Job shows it.
    pub(super) async fn end_job(&self, task: &Key, job: &Key, well: bool) -> Result<(), Error> {
        let doing = "ending the Job of AgenticTask";
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &job.namespace);
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &job.namespace);
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name));
        let phase = if well { "Succeeded" } else { "Failed" };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for pod in pods.list(&of_job).await.map_err(Error::kube(doing, task))? {
                let patch = Patch::Merge(json!({"status": {"phase": phase}}));
                let patched = pods
                    .patch_status(&pod.name_any(), &PatchParams::default(), &patch)
                    .await;
                tolerate_gone(patched).map_err(Error::kube(doing, task))?;
            }
            let found = jobs.get_opt(&job.name).await.map_err(Error::kube(doing, task))?;
            if found.as_ref().is_none_or(has_ended) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Error::Late {
            doing,
            key: task.clone(),
        })
    }
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ends = conditions.filter(|condition| condition.status == "True");
    ends.any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))
}

fn job(role: &str, namespace: &str, task: &AgenticTask) -> Value {
    let name = task.name_any();
    let suffix = format!("-{}", Timestamp::now().as_millisecond());
    let mut full = format!("foreman-{role}-{name}");
    full.truncate(NAME - suffix.len());
    let labels = json!({
        keys::APP: format!("foreman-{role}"),
        keys::TASK_NAME: name,
        keys::TASK_NAMESPACE: task.namespace(),
    });
    let owner = json!({
        "apiVersion": keys::API_VERSION, "kind": "AgenticTask", "name": name, "uid": task.uid(), "controller": true,
    });
    let owners = if role == "coder" { json!([owner]) } else { json!([]) };
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": full + &suffix, "namespace": namespace, "labels": labels, "ownerReferences": owners},
        "spec": {
            "backoffLimit": 0, "activeDeadlineSeconds": 3600, "ttlSecondsAfterFinished": 86400,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [{"name": role, "image": "example.com/agent"}]},
            },
        },
    })
}
