//! Task status: what a Job's status makes of it (kelos §6.2), and how it is written (kelos S29).

use super::Controller;
use crate::cache::Key;
use crate::error::Error;
use crate::keys;
use crate::metrics::{Completed, Created};
use crate::queue::Next;
use crate::types::{Task, TaskStatus};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::PostParams;
use std::sync::Arc;
use std::time::Duration;

/// client-go's `DefaultRetry`.
const TRIES: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(10);
/// How long after its end a Task's outputs are looked for (kelos §6.6).
const OUTPUT_WINDOW: Duration = Duration::from_secs(30);
/// How often, meanwhile.
const OUTPUT_RETRY: Duration = Duration::from_secs(5);

/// Now, in the whole seconds that Kubernetes keeps.
pub(super) fn now() -> Time {
    let now = Timestamp::now();
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// Time since; zero when it lies ahead.
pub(super) fn elapsed(since: &Time) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(since.0)).unwrap_or_default()
}

/// What a Job's status says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Running,
    Succeeded,
    Failed,
}

impl Verdict {
    /// Active wins over succeeded wins over the condition; nothing else counts (kelos S20).
    fn of(job: &Job) -> Option<Self> {
        let status = job.status.as_ref()?;
        let failed = |c: &&k8s_openapi::api::batch::v1::JobCondition| c.type_ == "Failed" && c.status == "True";
        if status.active.unwrap_or(0) > 0 {
            Some(Self::Running)
        } else if status.succeeded.unwrap_or(0) > 0 {
            Some(Self::Succeeded)
        } else {
            let found = status.conditions.iter().flatten().find(failed);
            found.map(|_| Self::Failed)
        }
    }

    fn phase(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Running => "",
            Self::Succeeded => "Task completed successfully",
            Self::Failed => "Task failed",
        }
    }
}

impl Controller {
    /// Full status update of a copy from the cache, again on a conflict, five times in all (kelos S29).
    pub(super) async fn update_status(
        &self,
        key: &Key,
        mut change: impl FnMut(&mut TaskStatus),
    ) -> Result<Task, Error> {
        const DOING: &str = "updating the status of Task";
        let mut attempt = 1;
        loop {
            let cached = self.tasks.get(key).ok_or_else(|| Error::gone(DOING, key))?;
            let mut task = Task::clone(&cached);
            change(task.status.get_or_insert_default());
            let put = self.task_api(key);
            let answer = put.replace_status(&key.name, &PostParams::default(), &task).await;
            match answer.map_err(Error::kube(DOING, key)) {
                Err(error) if error.is_conflict() && attempt < TRIES => attempt += 1,
                answer => return answer,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waiting, whatever the phase has become meanwhile (kelos T3). An error is only logged.
    pub(super) async fn set_waiting(&self, key: &Key, message: &str) {
        let cached = self.tasks.get(key).map(|task| task.current());
        if cached.is_some_and(|s| s.phase == "Waiting" && s.message == message) {
            return;
        }
        let written = self.update_status(key, |status| {
            "Waiting".clone_into(&mut status.phase);
            message.clone_into(&mut status.message);
        });
        if let Err(error) = written.await {
            tracing::debug!(task = %key, %error, "phase Waiting not written");
        }
    }

    /// Writes what the Job has become (kelos S20–S22).
    pub(super) async fn follow_job(&self, key: &Key, task: &Task, job: &Job) -> Result<Next, Error> {
        let status = task.current();
        let pod = self.newest_pod(key).map(|pod| pod.name_any());
        let pod = pod.unwrap_or_default();
        let turned = Verdict::of(job).filter(|verdict| verdict.phase() != status.phase);
        let ends = turned.is_some_and(|verdict| verdict != Verdict::Running);
        if let Some(verdict) = turned {
            self.announce(key, task, verdict).await;
        }
        let retry = turned.is_none()
            && status.outputs.is_empty()
            && status.results.is_empty()
            && status
                .completion_time
                .as_ref()
                .is_some_and(|at| elapsed(at) < OUTPUT_WINDOW);
        if turned.is_none() && pod == status.pod_name && !retry {
            self.record(key, task).await?;
            return Ok(Next::Wait);
        }
        let mut found = None;
        if ends || retry {
            let name = if pod.is_empty() { &status.pod_name } else { &pod };
            found = self.read_outputs(key, name).await;
        }
        if retry && found.is_none() {
            return Ok(Next::After(OUTPUT_RETRY));
        }
        let written = self
            .update_status(key, |status| {
                status.pod_name.clone_from(&pod);
                if let Some(verdict) = turned {
                    verdict.phase().clone_into(&mut status.phase);
                    verdict.message().clone_into(&mut status.message);
                    let stamp = Some(now());
                    if verdict == Verdict::Running {
                        status.start_time = stamp;
                    } else {
                        status.completion_time = stamp;
                    }
                }
                if ends || found.is_some() {
                    let (outputs, results) = found.clone().unwrap_or_default();
                    status.usage = super::usage(&results);
                    status.outputs = outputs;
                    status.results = results;
                }
            })
            .await?;
        if ends {
            self.free_branch(key, &written);
            self.count_end(key, &written);
        }
        if let Some((outputs, results)) = &found {
            self.count_usage(key, &written);
            let (outputs, results) = (outputs.len(), results.len());
            let note = format!("Captured {outputs} outputs and {results} results from agent");
            self.note(&written, "OutputsCaptured", note).await;
        }
        self.record(key, &written).await?;
        if ends && found.is_none() {
            return Ok(Next::After(OUTPUT_RETRY));
        }
        Ok(Next::Wait)
    }

    /// The newest pod of the Task by label (kelos §6.6).
    fn newest_pod(&self, key: &Key) -> Option<Arc<Pod>> {
        let pods = self.pods.list(&key.namespace);
        let own = pods.into_iter().filter(|pod| {
            let task = pod.labels().get(keys::TASK);
            task.is_some_and(|task| *task == key.name)
        });
        own.max_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.clone();
            (created, pod.name_any())
        })
    }

    /// Kelos says so before it has written so.
    async fn announce(&self, key: &Key, task: &Task, verdict: Verdict) {
        match verdict {
            Verdict::Running => self.note(task, "TaskRunning", "Task started running").await,
            Verdict::Succeeded => {
                self.note(task, "TaskSucceeded", verdict.message()).await;
                self.count_completed(key, task, verdict.phase());
            }
            Verdict::Failed => {
                self.warn(task, "TaskFailed", verdict.message()).await;
                self.count_completed(key, task, verdict.phase());
            }
        }
    }

    pub(super) fn count_completed(&self, key: &Key, task: &Task, phase: &str) {
        let labels = Completed {
            namespace: key.namespace.clone(),
            r#type: task.spec.agent_type().to_owned(),
            phase: phase.to_owned(),
        };
        self.metrics.completed.get_or_create(&labels).inc();
    }

    pub(super) fn count_created(&self, key: &Key, task: &Task) {
        let labels = Created {
            namespace: key.namespace.clone(),
            r#type: task.spec.agent_type().to_owned(),
        };
        self.metrics.created.get_or_create(&labels).inc();
    }

    fn count_end(&self, key: &Key, task: &Task) {
        let status = task.current();
        let (Some(from), Some(to)) = (&status.start_time, &status.completion_time) else {
            return;
        };
        let labels = Completed {
            namespace: key.namespace.clone(),
            r#type: task.spec.agent_type().to_owned(),
            phase: status.phase,
        };
        let seconds = to.0.duration_since(from.0).as_secs_f64();
        self.metrics.duration.get_or_create(&labels).observe(seconds);
    }
}
