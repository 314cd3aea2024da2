//! The end of a Task: TTL (kelos S26) and finalizer (kelos S27).

use super::{Controller, status};
use crate::cache::Key;
use crate::error::{Error, has_code};
use crate::keys;
use crate::queue::Next;
use crate::types::Task;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use std::time::Duration;

/// How often a terminal Task without a completion time is looked at, for ever.
const DANGLING: Duration = Duration::from_secs(5);

impl Controller {
    /// Deletes the Task when its time is up: without precondition, default propagation.
    pub(super) async fn apply_ttl(&self, key: &Key, task: &Task, next: Next) -> Result<Next, Error> {
        let Some(ttl) = task.spec.ttl_seconds else {
            return Ok(next);
        };
        if !self.capability.is_terminal(task.phase()) {
            return Ok(next);
        }
        let Some(completed) = task.current().completion_time else {
            return Ok(next.sooner(DANGLING));
        };
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
        let left = ttl.saturating_sub(status::elapsed(&completed));
        if !left.is_zero() {
            return Ok(next.sooner(left));
        }
        self.note(task, "TaskExpired", "Deleting Task due to TTL expiration")
            .await;
        let deleted = self.task_api(key).delete(&key.name, &DeleteParams::default()).await;
        match deleted {
            Err(error) if !has_code(&error, 404) => Err(Error::kube("deleting expired Task", key)(error)),
            _ => Ok(Next::Wait),
        }
    }

    /// Frees the branch, deletes the Job, removes the finalizer; waits for no other finalizer and no pod.
    pub(super) async fn finalise(&self, key: &Key, mut task: Task) -> Result<Next, Error> {
        if !task.finalizers().iter().any(|f| f == keys::TASK_FINALIZER) {
            return Ok(Next::Wait);
        }
        self.free_branch(key, &task);
        if task.spec.worker_pool_ref.is_some() {
            if let Some(next) = self.release_runner(key, &task).await? {
                return Ok(next);
            }
        } else {
            self.delete_job(key).await?;
        }
        task.finalizers_mut().retain(|f| f != keys::TASK_FINALIZER);
        match self.put(key, &task, "removing the finalizer from Task").await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Next::Wait),
        }
    }

    /// Deletes the Job of the Task's name, also one that another client created (kelos T20).
    pub(super) async fn delete_job(&self, key: &Key) -> Result<(), Error> {
        if self.jobs.get(key).is_none() {
            return Ok(());
        }
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        match jobs.delete(&key.name, &DeleteParams::background()).await {
            Err(error) if !has_code(&error, 404) => Err(Error::kube("deleting Job", key)(error)),
            _ => Ok(()),
        }
    }
}
