//! What is read before a step is taken, always consistently.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use taskgate_api::{
    foreman::{self, AgenticTask},
    is_object_name, kelos,
    metadata::Metadata,
    retry_status::{RunRef, Transition},
    task_policy::RetriedKind,
};
use taskgate_policy::{
    RunObjects, TaskState, classify,
    retry::{FailureCause, Retried, task_failure, workload_failure},
};

use crate::{
    context::Context,
    error::{Error, is_absent, is_forbidden},
    named,
    tasks::{ItemRef, json_of},
};

/// How many names fit into one question.
const NAMES: usize = 40;

/// The resource of `kind`; `None` while Foreman is not there.
pub(super) fn resource(context: &Context, kind: RetriedKind) -> Option<ApiResource> {
    match kind {
        RetriedKind::Task => Some(context.task_kind.clone()),
        RetriedKind::Workload => {
            let version = context.retry.foreman()?;
            Some(foreman_resource(version, "Workload", foreman::WORKLOADS))
        }
    }
}

/// One of Foreman's kinds.
pub(super) fn foreman_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(foreman::GROUP, version, kind), plural)
}

/// The object as it is now.
pub(super) async fn object(
    context: &Context,
    resource: &ApiResource,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Error> {
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, resource);
    let found = named::object(&api, name).await;
    let found = found.map_err(|error| failed("reading", kind_of(resource), namespace, name, error))?;
    Ok(found.map(|object| json_of(&object)))
}

/// The children of a Workload: those that bear its name, and are not somebody else's.
pub(super) async fn children(context: &Context, namespace: &str, run: &RunRef) -> Result<Vec<Value>, Error> {
    let Some(version) = context.retry.foreman().filter(|_| run.kind == RetriedKind::Workload) else {
        return Ok(Vec::new());
    };
    let resource = foreman_resource(version, "AgenticTask", foreman::AGENTIC_TASKS);
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &resource);
    let label = format!("{}={}", foreman::WORKLOAD_LABEL, run.name);
    // A name that is no label value has no children (foreman trap 28).
    if run.name.len() > 63 || !is_object_name(&run.name) {
        return Ok(Vec::new());
    }
    let found = match api.list(&ListParams::default().labels(&label)).await {
        Ok(found) => found,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed("listing", "AgenticTasks of", namespace, &run.name, error)),
    };
    let ours = |child: &Value| {
        let owner = Metadata::of(child).controller();
        owner.is_none_or(|owner| !owner.is(foreman::GROUP, "Workload") || owner.uid == run.uid)
    };
    Ok(found.items.iter().map(json_of).filter(ours).collect())
}

/// How the failed object ended; `None` for one that did not fail after all.
pub(super) async fn failure(
    context: &Context,
    namespace: &str,
    retried: Retried<'_>,
) -> Result<Option<FailureCause>, Error> {
    match retried.kind() {
        RetriedKind::Workload => {
            let children = children(context, namespace, &retried.run()).await?;
            Ok(Some(workload_failure(retried.object(), &children)))
        }
        RetriedKind::Task => {
            let Some(state) = TaskState::of(retried.object()) else {
                return Ok(None);
            };
            let job = job_of(context, namespace, &state.name).await?;
            let pods = if job.is_some() {
                pods_of_task(context, namespace, &state.name).await?
            } else {
                Vec::new()
            };
            let evidence = RunObjects {
                job: job.as_ref(),
                pods: &pods,
            };
            Ok(task_failure(&classify(retried.object(), &state, evidence, None)))
        }
    }
}

/// What is left of a predecessor that is gone itself.
pub(super) async fn left(context: &Context, item: &ItemRef, transition: &Transition) -> Result<Vec<String>, Error> {
    let namespace = item.0.as_str();
    let name = transition.old.name.as_str();
    match transition.old.kind {
        RetriedKind::Task => {
            let mut left = Vec::new();
            if let Some(job) = job_of(context, namespace, name).await? {
                left.push(remnant("Job", &job));
            }
            let pods = pods_of_task(context, namespace, name).await?;
            left.extend(pods.iter().map(|pod| remnant("Pod", pod)));
            Ok(left)
        }
        RetriedKind::Workload => {
            let children = children(context, namespace, &transition.old).await?;
            let mut left: Vec<_> = children.iter().map(|child| remnant("AgenticTask", child)).collect();
            left.extend(runs_of(context, namespace, &transition.children).await?);
            Ok(left)
        }
    }
}

/// Jobs and pods that still work for AgenticTasks with these names, wherever they run. One that has ended is kept for a day
/// (foreman §2.4), and is no hindrance.
async fn runs_of(context: &Context, namespace: &str, names: &[String]) -> Result<Vec<String>, Error> {
    let mut left = Vec::new();
    let names: Vec<_> = names
        .iter()
        .map(String::as_str)
        .filter(|name| is_object_name(name))
        .collect();
    for names in names.chunks(NAMES) {
        let names = names.join(",");
        let labels = format!(
            "{}={namespace},{} in ({names})",
            foreman::TASK_NAMESPACE_LABEL,
            foreman::TASK_NAME_LABEL
        );
        let params = ListParams::default().labels(&labels);
        let jobs = Api::<Job>::all(context.client.clone()).list(&params).await;
        let pods = Api::<Pod>::all(context.client.clone()).list(&params).await;
        let (jobs, pods) = match (jobs, pods) {
            (Ok(jobs), Ok(pods)) => (jobs, pods),
            (Err(error), _) | (_, Err(error)) if is_forbidden(&error) => {
                return Ok(vec![format!("whether Jobs still run is not known: {error}")]);
            }
            (Err(error), _) | (_, Err(error)) => {
                return Err(failed("listing", "Jobs of AgenticTasks", namespace, &names, error));
            }
        };
        let json =
            |value: Result<Value, serde_json::Error>| value.expect("what was read as JSON can be written as JSON");
        let jobs = jobs.iter().map(|job| json(serde_json::to_value(job)));
        left.extend(jobs.filter(|job| !has_ended(job)).map(|job| remnant("Job", &job)));
        let pods = pods.iter().map(|pod| json(serde_json::to_value(pod)));
        let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        left.extend(pods.filter(|pod| !ended(pod)).map(|pod| remnant("Pod", &pod)));
    }
    Ok(left)
}

fn has_ended(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        matches!(condition["type"].as_str(), Some("Complete" | "Failed")) && condition["status"] == "True"
    })
}

async fn job_of(context: &Context, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
    let jobs = Api::<Job>::namespaced(context.client.clone(), namespace);
    let found = named::object(&jobs, name).await;
    let found = found.map_err(|error| failed("reading", "Job", namespace, name, error))?;
    Ok(found.map(|job| serde_json::to_value(job).expect("a Job can be written as JSON")))
}

async fn pods_of_task(context: &Context, namespace: &str, name: &str) -> Result<Vec<Value>, Error> {
    if name.len() > kelos::MAX_TASK_NAME || !is_object_name(name) {
        return Ok(Vec::new());
    }
    let pods = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let label = format!("{}={name}", kelos::TASK_LABEL);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| failed("listing", "the pods of Task", namespace, name, error))?;
    let json = |pod| serde_json::to_value(pod).expect("a pod can be written as JSON");
    Ok(found.into_iter().map(json).collect())
}

/// What is still there, and what holds it.
fn remnant(kind: &str, object: &Value) -> String {
    let metadata = Metadata::of(object);
    let name = metadata.name().unwrap_or_default();
    let place = metadata.namespace().unwrap_or_default();
    let finalizers: Vec<_> = metadata.finalizers().collect();
    let state = match (metadata.is_terminating(), finalizers.is_empty()) {
        (true, false) => format!("held by {}", finalizers.join(", ")),
        (true, true) => "still being deleted".to_owned(),
        (false, _) => "still there".to_owned(),
    };
    format!("{kind} {place}/{name} is {state}")
}

/// The names of the children: of those that were read, and of those that the Workload itself names.
pub(super) fn child_names(workload: &Value, children: &[Value]) -> Vec<String> {
    let listed = workload.pointer("/status/tasks").and_then(Value::as_array);
    let listed = listed
        .into_iter()
        .flatten()
        .filter_map(|task| task.get("name")?.as_str());
    let read = children
        .iter()
        .filter_map(|child| AgenticTask::of(child).metadata().name());
    // A label value; anything longer has no Job.
    let mut names: Vec<_> = listed
        .chain(read)
        .filter(|name| name.len() <= 63 && is_object_name(name))
        .map(ToOwned::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(1000);
    names
}

fn kind_of(resource: &ApiResource) -> &'static str {
    if resource.group == foreman::GROUP {
        "Workload"
    } else {
        "Task"
    }
}

pub(super) fn failed(
    doing: &'static str,
    kind: &'static str,
    namespace: &str,
    name: &str,
    error: kube::Error,
) -> Error {
    Error {
        doing,
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(error),
    }
}
