//! What runs for a Task, read consistently.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, PartialObjectMeta},
};
use serde_json::Value;
use taskgate_api::{job, kelos, keys, metadata::Metadata};
use taskgate_policy::{CancelState, Cancellation, JobEnd, TaskRun};

use crate::{context::Context, error::Error, evidence::is_owned_by, named, task::Subject, tasks::kelos_resource};

/// How long something must have been there for Kelos to have seen it.
const SETTLED: SignedDuration = SignedDuration::from_secs(10);

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// What the next step turns on.
    pub(crate) run: TaskRun,
    /// The Task's Job.
    pub(crate) job: Option<Value>,
    /// The runner pod that the Task is assigned to: its name and version.
    pub(crate) runner: Option<(String, String)>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            run: TaskRun::Nothing,
            job: None,
            runner: None,
        }
    }
}

/// Looks for the Task's Job, or for the runner of its pool.
pub(super) async fn look(context: &Context, subject: &Subject, cancellation: &Cancellation) -> Result<Found, Error> {
    if kelos::Task::of(&subject.object).worker_pool().is_some() {
        return runner(context, subject).await;
    }
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let found = jobs.get_opt(&subject.state.name).await;
    let found = found.map_err(|error| Error::of("reading", "Job", subject, error))?;
    let Some(found) = found else {
        let stuck = kelos::Task::of(&subject.object).branch().is_some() && !can_start(context, subject).await?;
        return Ok(Found {
            run: if stuck { TaskRun::Stuck } else { TaskRun::Nothing },
            ..Found::default()
        });
    };
    let json = serde_json::to_value(found).expect("a Job can be written as JSON");
    let ours = job::Job::of(&json)
        .task()
        .is_some_and(|owner| owner.uid == subject.state.uid);
    if !ours {
        return Ok(Found {
            run: TaskRun::Foreign,
            ..Found::default()
        });
    }
    let told = match (&cancellation.stamp, cancellation.progress) {
        (Some(stamp), Some(CancelState::Announced)) => {
            let deadline = stamp.deadline.to_string();
            Metadata::of(&json).annotation(keys::CANCEL_DEADLINE) == Some(&deadline)
                && untold(context, subject, &json, Some(&deadline)).await?.is_empty()
        }
        _ => true,
    };
    Ok(Found {
        run: TaskRun::Job {
            end: JobEnd::of(&json),
            deadline_set: told,
            deleting: Metadata::of(&json).is_terminating(),
        },
        job: Some(json),
        runner: None,
    })
}

/// Whether there is everything that Kelos waits for without a word before it makes a Job, and long enough for Kelos, which
/// looks every two seconds, to have made it.
async fn can_start(context: &Context, subject: &Subject) -> Result<bool, Error> {
    let task = kelos::Task::of(&subject.object);
    let workspace = task.workspace().map(|name| ("Workspace", "workspaces", name));
    let configs = task.agent_configs().map(|name| ("AgentConfig", "agentconfigs", name));
    for (kind, plural, name) in workspace.into_iter().chain(configs) {
        let resource = kelos_resource(&context.task_kind.version, kind, plural);
        let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), &subject.namespace, &resource);
        let found = named::metadata(&api, name).await;
        let found = found.map_err(|error| Error::of("reading", kind, subject, error))?;
        let created = found.and_then(|found| found.creation_timestamp());
        if created.is_none_or(|created| Timestamp::now().duration_since(created.0) < SETTLED) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names of the pods of the Task's Job that do not carry this deadline.
pub(super) async fn untold(
    context: &Context,
    subject: &Subject,
    job: &Value,
    deadline: Option<&str>,
) -> Result<Vec<String>, Error> {
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let label = format!("{}={}", kelos::TASK_LABEL, subject.state.name);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| Error::of("reading", "the pods of Task", subject, error))?;
    Ok(found
        .into_iter()
        .filter(|pod| is_owned_by(&pod.metadata, Metadata::of(job).uid()))
        .filter(|pod| pod.annotations().get(keys::CANCEL_DEADLINE).map(String::as_str) != deadline)
        .map(|pod| pod.name_any())
        .collect())
}

/// The runner pod that the Task is assigned to.
pub(crate) async fn runner(context: &Context, subject: &Subject) -> Result<Found, Error> {
    let Some(name) = kelos::Task::of(&subject.object).pod_name() else {
        return Ok(Found::default());
    };
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let pod = named::object(&pods, name).await;
    let pod = pod.map_err(|error| Error::of("reading", "the runner of Task", subject, error))?;
    let annotation = |pod: &PartialObjectMeta<Pod>, key| pod.annotations().get(key).cloned();
    let task = Some(subject.state.name.clone());
    let Some(pod) = pod.filter(|pod| annotation(pod, kelos::ASSIGNED_TASK) == task) else {
        return Ok(Found::default());
    };
    Ok(Found {
        run: TaskRun::Runner {
            asked: annotation(&pod, kelos::CANCEL_TASK) == task,
        },
        job: None,
        runner: Some((pod.name_any(), pod.resource_version().unwrap_or_default())),
    })
}
