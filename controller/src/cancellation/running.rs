//! What runs for a Task: its Job with its pods, or the runner of its worker pool. Always read from the API server.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, ObjectMeta, PartialObjectMeta},
};
use serde_json::Value;
use taskgate_api::{kelos, keys, metadata::Metadata};
use taskgate_cache::kelos_resource;
use taskgate_policy::{CancelState, Cancellation, JobEnd, TaskRun};

use crate::{context::Context, error::Error, job, kubernetes, task::Subject};

/// How old an object must be for Kelos to have seen it.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// What runs for a Task.
#[derive(Debug)]
pub(crate) struct Running {
    /// What the next step depends on.
    pub(crate) run: TaskRun,
    /// The Task's Job.
    pub(crate) job: Option<Value>,
    /// The runner pod that the Task is assigned to: its name and version.
    pub(crate) runner: Option<(String, String)>,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            run: TaskRun::Nothing,
            job: None,
            runner: None,
        }
    }
}

/// Reads the Task's Job, or the runner of its pool.
pub(super) async fn read(context: &Context, subject: &Subject, cancellation: &Cancellation) -> Result<Running, Error> {
    if kelos::Task::of(&subject.object).worker_pool().is_some() {
        return runner(context, subject).await;
    }
    let found = job::find(context, &subject.namespace, &subject.state.name).await?;
    let Some(found) = found else {
        let stuck = kelos::Task::of(&subject.object).branch().is_some() && !can_start(context, subject).await?;
        return Ok(Running {
            run: if stuck { TaskRun::Stuck } else { TaskRun::Nothing },
            ..Running::default()
        });
    };
    if !job::is_of(&found, subject) {
        return Ok(Running {
            run: TaskRun::Foreign,
            ..Running::default()
        });
    }
    let deadline_set = match (&cancellation.stamp, cancellation.progress) {
        (Some(stamp), Some(CancelState::Announced)) => {
            let deadline = stamp.deadline.to_string();
            Metadata::of(&found).annotation(keys::CANCEL_DEADLINE) == Some(&deadline)
                && pods_without_deadline(context, subject, &found, Some(&deadline))
                    .await?
                    .is_empty()
        }
        _ => true,
    };
    Ok(Running {
        run: TaskRun::Job {
            end: JobEnd::of(&found),
            deadline_set,
            deleting: Metadata::of(&found).is_terminating(),
        },
        job: Some(found),
        runner: None,
    })
}

/// Whether every object exists that Kelos silently waits for before it creates a Job, and for long enough: Kelos checks every two
/// seconds.
async fn can_start(context: &Context, subject: &Subject) -> Result<bool, Error> {
    let task = kelos::Task::of(&subject.object);
    let workspace = task.workspace().map(|name| ("Workspace", "workspaces", name));
    let configs = task.agent_configs().map(|name| ("AgentConfig", "agentconfigs", name));
    for (kind, plural, name) in workspace.into_iter().chain(configs) {
        let resource = kelos_resource(&context.task_kind.version, kind, plural);
        let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), &subject.namespace, &resource);
        let found = kubernetes::find_metadata(&api, name).await;
        let found = found.map_err(|error| subject.error("reading", kind, error))?;
        let created = found.and_then(|found| found.creation_timestamp());
        if created.is_none_or(|created| Timestamp::now().duration_since(created.0) < SETTLED) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names of the pods of the Task's Job that do not carry this deadline.
pub(super) async fn pods_without_deadline(
    context: &Context,
    subject: &Subject,
    job: &Value,
    deadline: Option<&str>,
) -> Result<Vec<String>, Error> {
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let label = format!("{}={}", kelos::TASK_LABEL, subject.state.name);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| subject.error("reading", "the pods of Task", error))?;
    Ok(found
        .into_iter()
        .filter(|pod| is_owned_by(&pod.metadata, Metadata::of(job).uid()))
        .filter(|pod| pod.annotations().get(keys::CANCEL_DEADLINE).map(String::as_str) != deadline)
        .map(|pod| pod.name_any())
        .collect())
}

/// The runner pod that the Task is assigned to.
pub(crate) async fn runner(context: &Context, subject: &Subject) -> Result<Running, Error> {
    let Some(name) = kelos::Task::of(&subject.object).pod_name() else {
        return Ok(Running::default());
    };
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let pod = kubernetes::find(&pods, name).await;
    let pod = pod.map_err(|error| subject.error("reading", "the runner of Task", error))?;
    let annotation = |pod: &PartialObjectMeta<Pod>, key| pod.annotations().get(key).cloned();
    let task = Some(subject.state.name.clone());
    let Some(pod) = pod.filter(|pod| annotation(pod, kelos::ASSIGNED_TASK) == task) else {
        return Ok(Running::default());
    };
    Ok(Running {
        run: TaskRun::Runner {
            asked: annotation(&pod, kelos::CANCEL_TASK) == task,
        },
        job: None,
        runner: Some((pod.name_any(), pod.resource_version().unwrap_or_default())),
    })
}

/// Whether the object of this UID controls the one with this metadata.
fn is_owned_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}
