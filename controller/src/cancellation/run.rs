//! What runs for a Task: its Job with its pods, or the runner of its worker pool; and the writes that end it. Always read from the
//! API server, once for each reconcile.

use jiff::SignedDuration;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_cache::kelos_resource;
use taskgate_policy::{CancelState, JobEnd, TASK_CANCELLED, TaskRun, TaskState, conclusion};

use super::TaskCancellation;
use crate::{
    context::Context,
    error::Error,
    job,
    kubernetes::{self, delete_only, json_of, settled},
    task::{self, Subject, TaskResult},
    workqueue::StepResult,
};

/// How old an object must be for Kelos to have seen it.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// What runs for a Task.
#[derive(Debug)]
pub(crate) struct Running {
    /// What the next step depends on.
    pub(crate) run: TaskRun,
    /// The Task's Job.
    job: Option<Value>,
    /// The runner pod that the Task is assigned to: its name and version.
    runner: Option<(String, String)>,
}

impl From<TaskRun> for Running {
    /// No object of the Task's own.
    fn from(run: TaskRun) -> Self {
        Self {
            run,
            job: None,
            runner: None,
        }
    }
}

impl Running {
    /// The Task's own Job.
    fn of_job(job: Value, deadline_set: bool) -> Self {
        let run = TaskRun::Job {
            end: JobEnd::of(&job),
            deadline_set,
            deleting: Metadata::of(&job).is_terminating(),
        };
        Self {
            job: Some(job),
            ..run.into()
        }
    }
}

impl TaskCancellation<'_> {
    /// Reads the Task's Job, or the runner of its pool.
    pub(super) async fn read_run(&self) -> Result<Running, Error> {
        let Self { context, subject, .. } = *self;
        let task = kelos::Task::of(&subject.object);
        if task.worker_pool().is_some() {
            return read_runner(context, subject).await;
        }
        let Some(found) = job::find(context, &subject.namespace, &subject.state.name).await? else {
            let stuck = task.branch().is_some() && !self.can_start().await?;
            return Ok(if stuck { TaskRun::Stuck } else { TaskRun::Nothing }.into());
        };
        if !job::is_of(&found, subject) {
            return Ok(TaskRun::Foreign.into());
        }
        let deadline_set = match (&self.cancellation.stamp, self.cancellation.progress) {
            (Some(stamp), Some(CancelState::Announced)) => {
                let deadline = stamp.deadline.to_string();
                let job_has_it = Metadata::of(&found).annotation(keys::CANCEL_DEADLINE) == Some(&deadline);
                job_has_it && self.pods_without(&found, Some(&deadline)).await?.is_empty()
            }
            _ => true,
        };
        Ok(Running::of_job(found, deadline_set))
    }

    /// Whether every object exists that Kelos silently waits for before it creates a Job, and for long enough: Kelos checks every two
    /// seconds.
    async fn can_start(&self) -> Result<bool, Error> {
        let Self { context, subject, .. } = *self;
        let task = kelos::Task::of(&subject.object);
        let workspace = task.workspace().map(|name| ("Workspace", "workspaces", name));
        let configs = task.agent_configs().map(|name| ("AgentConfig", "agentconfigs", name));
        for (kind, plural, name) in workspace.into_iter().chain(configs) {
            let resource = kelos_resource(&context.task_kind.version, kind, plural);
            let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), &subject.namespace, &resource);
            let found = kubernetes::find_metadata(&api, name).await;
            let found = found.map_err(|error| subject.error("reading", kind, error))?;
            let created = found.and_then(|found| found.creation_timestamp());
            if created.is_none_or(|created| context.now().duration_since(created.0) < SETTLED) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The names of the pods of the Task's Job that do not carry this deadline.
    async fn pods_without(&self, job: &Value, deadline: Option<&str>) -> Result<Vec<String>, Error> {
        let Self { context, subject, .. } = *self;
        let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
        let label = format!("{}={}", kelos::TASK_LABEL, subject.state.name);
        let found = pods.list(&ListParams::default().labels(&label)).await;
        let found = found.map_err(|error| subject.error("reading", "the pods of Task", error))?;
        let lacks = |pod: &PartialObjectMeta<Pod>| {
            is_owned_by(&pod.metadata, Metadata::of(job).uid())
                && pod.annotations().get(keys::CANCEL_DEADLINE).map(String::as_str) != deadline
        };
        Ok(found
            .iter()
            .filter(|pod| lacks(pod))
            .map(kube::ResourceExt::name_any)
            .collect())
    }

    /// Writes the deadline on the Job and its pods, where the agent can read it through the downward API.
    pub(super) async fn set_deadline(&self, found: &Running) -> Result<TaskResult, Error> {
        if let (Some(job), Some(stamp)) = (&found.job, &self.cancellation.stamp) {
            self.annotate(job, Some(&stamp.deadline.to_string())).await?;
        }
        Ok(TaskResult::Unchanged)
    }

    /// Removes the deadline from the Job and its pods.
    pub(super) async fn remove_deadline(&self) -> Result<(), Error> {
        match job::of_task(self.context, self.subject).await? {
            Some(job) => self.annotate(&job, None).await,
            None => Ok(()),
        }
    }

    /// Annotates the pods first: the Job's annotation then means that all of them have it.
    async fn annotate(&self, job: &Value, deadline: Option<&str>) -> Result<(), Error> {
        let Self { context, subject, .. } = *self;
        let failed = |kind| move |error| subject.error("annotating", kind, error);
        let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
        let annotations = json!({keys::CANCEL_DEADLINE: deadline});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        for pod in self.pods_without(job, deadline).await? {
            let patched = pods.patch_metadata(&pod, &PatchParams::default(), &patch).await;
            settled(patched).map_err(failed("a pod of Task"))?;
        }
        if Metadata::of(job).annotation(keys::CANCEL_DEADLINE) == deadline {
            return Ok(());
        }
        let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
        let metadata = json!({"uid": Metadata::of(job).uid(), "annotations": annotations});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let patched = jobs
            .patch_metadata(&subject.state.name, &PatchParams::default(), &patch)
            .await;
        settled(patched).map_err(failed("Job"))?;
        Ok(())
    }

    /// Fails the Job through its status. What then runs; `None` if that must be read.
    pub(super) async fn fail_job(&self, found: &Running) -> Result<Option<Running>, Error> {
        let Some(job) = &found.job else { return Ok(None) };
        let message = conclusion(self.cancellation);
        let failed = job::fail(self.context, self.subject, job, TASK_CANCELLED, &message).await?;
        Ok(match failed {
            StepResult::Changed(job) => Some(Running::of_job(json_of(&job), true)),
            _ => None,
        })
    }

    /// Deletes the Job whose end is recorded, if the Task, read again, has ended: otherwise Kelos would create the Job again. Also
    /// what then runs; `None` if that must be read.
    pub(super) async fn delete_job(&self, found: &Running) -> Result<(TaskResult, Option<Running>), Error> {
        let Self { context, subject, .. } = *self;
        let Some(task) = task::read(context, subject).await? else {
            return Ok((TaskResult::AwaitChange, None));
        };
        if TaskState::of(&json_of(&task)).is_none_or(|now| !now.is_terminal()) {
            return Ok((TaskResult::Changed(Box::new(task)), None));
        }
        let uid = found.job.as_ref().and_then(|job| Metadata::of(job).uid());
        let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
        let params = delete_only(uid.map(ToOwned::to_owned), None);
        let deleted = jobs.delete(&subject.state.name, &params).await;
        let deleted = settled(deleted).map_err(|error| subject.error("deleting", "Job", error))?;
        // The answer has the Job while its finalizers keep it.
        let left =
            deleted.map(|left| left.either(|job| Running::of_job(json_of(&job), true), |_| TaskRun::Nothing.into()));
        Ok((TaskResult::Unchanged, left))
    }
}

/// Whether the object of this UID controls the one with this metadata.
fn is_owned_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

/// Reads the runner pod that the Task is assigned to.
pub(crate) async fn read_runner(context: &Context, subject: &Subject) -> Result<Running, Error> {
    let Some(name) = kelos::Task::of(&subject.object).pod_name() else {
        return Ok(TaskRun::Nothing.into());
    };
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let pod = kubernetes::find(&pods, name).await;
    let pod = pod.map_err(|error| subject.error("reading", "the runner of Task", error))?;
    let names_task = |pod: &PartialObjectMeta<Pod>, key| pod.annotations().get(key) == Some(&subject.state.name);
    let Some(pod) = pod.filter(|pod| names_task(pod, kelos::ASSIGNED_TASK)) else {
        return Ok(TaskRun::Nothing.into());
    };
    let asked = names_task(&pod, kelos::CANCEL_TASK);
    Ok(Running {
        runner: Some((pod.name_any(), pod.resource_version().unwrap_or_default())),
        ..TaskRun::Runner { asked }.into()
    })
}

/// Asks the runner to kill the agent and to release the Task, which is Kelos' own way of cancelling (kelos §7); Kelos then moves the
/// Task to Failed. The resource version that was read keeps taskgate from asking a runner that has the next Task by now.
pub(crate) async fn release_runner(context: &Context, subject: &Subject, found: &Running) -> Result<TaskResult, Error> {
    let Some((name, version)) = &found.runner else {
        return Ok(TaskResult::Unchanged);
    };
    let annotations = json!({kelos::CANCEL_TASK: subject.state.name});
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version, "annotations": annotations}}));
    let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
    let asked = settled(pods.patch_metadata(name, &PatchParams::default(), &patch).await);
    let asked = asked.map_err(|error| subject.error("annotating", "the runner of Task", error))?;
    Ok(asked.map_or(TaskResult::Conflict, |_| TaskResult::Unchanged))
}
