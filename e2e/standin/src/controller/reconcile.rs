//! The order of one reconcile (kelos §6.1).

use super::Controller;
use crate::cache::Key;
use crate::crds::CANCELLED;
use crate::error::Error;
use crate::keys;
use crate::queue::Next;
use crate::types::Task;
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};

impl Controller {
    pub(super) fn task_api(&self, key: &Key) -> Api<Task> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    pub(super) async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(cached) = self.tasks.get(key) else {
            return Ok(Next::Wait);
        };
        let mut task = Task::clone(&cached);
        if task.meta().deletion_timestamp.is_some() {
            return self.finalise(key, task).await;
        }
        if !task.finalizers().iter().any(|f| f == keys::TASK_FINALIZER) {
            task.finalizers_mut().push(keys::TASK_FINALIZER.to_owned());
            self.put(key, &task, "adding the finalizer to Task").await?;
            return Ok(Next::Again);
        }
        if task.spec.worker_pool_ref.is_some() {
            return Ok(Next::Wait);
        }
        if self.is_cancelled(&task) {
            return self.cancelled(key, &task).await;
        }
        let Some(job) = self.jobs.get(key) else {
            return self.without_job(key, &task).await;
        };
        let next = self.follow_job(key, &task, &job).await?;
        let task = self.tasks.get(key).unwrap_or(cached);
        self.apply_ttl(key, &task, next).await
    }

    /// The full, typed update: what the types lack is gone, and the API server compares the whole spec
    /// (kelos S16, S28).
    pub(super) async fn put(&self, key: &Key, task: &Task, doing: &'static str) -> Result<Task, Error> {
        let put = self.task_api(key);
        put.replace(&key.name, &PostParams::default(), task)
            .await
            .map_err(Error::kube(doing, key))
    }

    /// No Job: nothing more to do for a terminal Task, a new Job for any other (kelos S19).
    async fn without_job(&self, key: &Key, task: &Task) -> Result<Next, Error> {
        if self.capability.is_terminal(task.phase()) {
            self.record(key, task).await?;
            return self.apply_ttl(key, task, Next::Wait).await;
        }
        if let Some(next) = self.await_dependencies(key, task).await? {
            return Ok(next);
        }
        if let Some(next) = self.take_branch(key, task).await? {
            return Ok(next);
        }
        self.create_job(key, task).await
    }

    fn is_cancelled(&self, task: &Task) -> bool {
        task.phase() == CANCELLED && self.capability.is_terminal(CANCELLED)
    }

    /// A Kelos with proposal 001: the Job goes, the lock is freed, the TTL runs.
    async fn cancelled(&self, key: &Key, task: &Task) -> Result<Next, Error> {
        self.free_branch(key, task);
        self.delete_job(key).await?;
        if task.current().completion_time.is_none() {
            let now = super::status::now();
            self.update_status(key, |status| status.completion_time = Some(now.clone()))
                .await?;
        }
        self.apply_ttl(key, task, Next::Wait).await
    }
}
