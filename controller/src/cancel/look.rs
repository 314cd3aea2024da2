//! What runs for a Task, read consistently.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, PartialObjectMeta},
};
use serde_json::Value;
use taskgate_api::{job, kelos, keys, metadata::Metadata};
use taskgate_policy::{Cancellation, JobEnd, Progress, Run};

use crate::{context::Context, error::Error, task::Subject};

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// What the next step turns on.
    pub(super) run: Run,
    /// The Task's Job.
    pub(super) job: Option<Value>,
    /// The runner pod that the Task is assigned to: its name and version.
    pub(super) runner: Option<(String, String)>,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            run: Run::Nothing,
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
        return Ok(Found::default());
    };
    let json = serde_json::to_value(found).expect("a Job can be written as JSON");
    let ours = job::Job::of(&json)
        .task()
        .is_some_and(|owner| owner.uid == subject.state.uid);
    if !ours {
        return Ok(Found {
            run: Run::Foreign,
            ..Found::default()
        });
    }
    let told = match (&cancellation.stamp, cancellation.progress) {
        (Some(stamp), Some(Progress::Announced)) => {
            let deadline = stamp.deadline.to_string();
            Metadata::of(&json).annotation(keys::CANCEL_DEADLINE) == Some(&deadline)
                && untold(context, subject, Some(&deadline)).await?.is_empty()
        }
        _ => true,
    };
    Ok(Found {
        run: Run::Job {
            end: JobEnd::of(&json),
            told,
        },
        job: Some(json),
        runner: None,
    })
}

/// The names of the Task's pods that do not carry this deadline.
pub(super) async fn untold(context: &Context, subject: &Subject, deadline: Option<&str>) -> Result<Vec<String>, Error> {
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let label = format!("{}={}", kelos::TASK_LABEL, subject.state.name);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| Error::of("reading", "the pods of Task", subject, error))?;
    Ok(found
        .into_iter()
        .filter(|pod| pod.annotations().get(keys::CANCEL_DEADLINE).map(String::as_str) != deadline)
        .map(|pod| pod.name_any())
        .collect())
}

async fn runner(context: &Context, subject: &Subject) -> Result<Found, Error> {
    let Some(name) = kelos::Task::of(&subject.object).pod_name() else {
        return Ok(Found::default());
    };
    let pods = Api::<PartialObjectMeta<Pod>>::namespaced(context.client.clone(), &subject.namespace);
    let pod = pods.get_opt(name).await;
    let pod = pod.map_err(|error| Error::of("reading", "the runner of Task", subject, error))?;
    let annotation = |pod: &PartialObjectMeta<Pod>, key| pod.annotations().get(key).cloned();
    let task = Some(subject.state.name.clone());
    let Some(pod) = pod.filter(|pod| annotation(pod, kelos::ASSIGNED_TASK) == task) else {
        return Ok(Found::default());
    };
    Ok(Found {
        run: Run::Runner {
            asked: annotation(&pod, kelos::CANCEL_TASK) == task,
        },
        job: None,
        runner: Some((pod.name_any(), pod.resource_version().unwrap_or_default())),
    })
}
