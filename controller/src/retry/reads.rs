//! The reads before a step of a retry, always from the API server.

use std::collections::BTreeSet;

use futures::future::try_join;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use taskgate_api::{
    foreman, is_object_name, job as view,
    metadata::Metadata,
    retry_status::{RunRef, Transition},
    task_policy::RetriedKind,
};
use taskgate_policy::{
    RunObjects, TaskState, classify,
    retry::{FailureCause, Retried, task_failure, workload_failure},
};

use super::RetryReconciler;
use crate::{
    context::ItemRef,
    error::{Error, is_absent, is_forbidden},
    job,
    kubernetes::{self, json_of},
};

/// How many names fit into one request.
const NAMES: usize = 40;

/// The resource of `kind`; `None` while Foreman is not installed.
pub(super) fn resource(retry: &RetryReconciler, kind: RetriedKind) -> Option<ApiResource> {
    match kind {
        RetriedKind::Task => Some(retry.context.task_kind.clone()),
        RetriedKind::Workload => {
            let version = retry.foreman()?;
            Some(foreman_resource(version, "Workload", foreman::WORKLOADS))
        }
    }
}

/// One of Foreman's kinds.
pub(super) fn foreman_resource(version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(foreman::GROUP, version, kind), plural)
}

/// Reads the object.
pub(super) async fn object(
    retry: &RetryReconciler,
    (kind, resource): (RetriedKind, &ApiResource),
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, Error> {
    let api = Api::<DynamicObject>::namespaced_with(retry.context.client.clone(), namespace, resource);
    let found = kubernetes::find(&api, name).await;
    let found = found.map_err(|error| Error::new("reading", kind.into(), namespace, name, error))?;
    Ok(found.map(|object| json_of(&object)))
}

/// Reads the children of a Workload: those with its label, unless another Workload owns them.
pub(super) async fn children(retry: &RetryReconciler, namespace: &str, run: &RunRef) -> Result<Vec<Value>, Error> {
    let is_parent = run.kind == RetriedKind::Workload && is_label_value(&run.name);
    let Some(version) = retry.foreman().filter(|_| is_parent) else {
        return Ok(Vec::new());
    };
    let resource = foreman_resource(version, "AgenticTask", foreman::AGENTIC_TASKS);
    let api = Api::<DynamicObject>::namespaced_with(retry.context.client.clone(), namespace, &resource);
    let label = format!("{}={}", foreman::WORKLOAD_LABEL, run.name);
    let found = match api.list(&ListParams::default().labels(&label)).await {
        Ok(found) => found,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Error::new("listing", "AgenticTasks of", namespace, &run.name, error)),
    };
    let is_of_run = |child: &Value| {
        let owner = Metadata::of(child).controller();
        owner.is_none_or(|owner| !owner.is(foreman::GROUP, "Workload") || owner.uid == run.uid)
    };
    Ok(found.items.iter().map(json_of).filter(is_of_run).collect())
}

/// Reads why the object failed; `None` for one that did not fail after all.
pub(super) async fn failure(
    retry: &RetryReconciler,
    namespace: &str,
    retried: Retried<'_>,
) -> Result<Option<FailureCause>, Error> {
    match retried.kind() {
        RetriedKind::Workload => {
            let children = children(retry, namespace, &retried.run()).await?;
            Ok(Some(workload_failure(retried.object(), &children)))
        }
        RetriedKind::Task => {
            let Some(state) = TaskState::of(retried.object()) else {
                return Ok(None);
            };
            let job = job::find(&retry.context, namespace, &state.name).await?;
            let pods = match job {
                Some(_) => job::pods_of_task(&retry.context, namespace, &state.name).await?,
                None => Vec::new(),
            };
            let (job, pods) = (job.as_ref(), pods.as_slice());
            let evidence = RunObjects { job, pods };
            Ok(task_failure(&classify(retried.object(), &state, evidence, None)))
        }
    }
}

/// Reads what is left of a predecessor that is deleted itself.
pub(super) async fn remains(
    retry: &RetryReconciler,
    item: &ItemRef,
    transition: &Transition,
) -> Result<Vec<String>, Error> {
    let namespace = item.0.as_str();
    let name = transition.old.name.as_str();
    match transition.old.kind {
        RetriedKind::Task => {
            let job = job::find(&retry.context, namespace, name).await?;
            let pods = job::pods_of_task(&retry.context, namespace, name).await?;
            let job = job.iter().map(|job| remnant("Job", job));
            Ok(job.chain(pods.iter().map(|pod| remnant("Pod", pod))).collect())
        }
        RetriedKind::Workload => {
            let children = children(retry, namespace, &transition.old).await?;
            let mut left: Vec<_> = children.iter().map(|child| remnant("AgenticTask", child)).collect();
            left.extend(runs_of(retry, namespace, &transition.children).await?);
            Ok(left)
        }
    }
}

/// Jobs and pods that still run for AgenticTasks with these names, in any namespace. Foreman keeps an ended one for a day
/// (foreman §2.4); it does not block the retry.
async fn runs_of(retry: &RetryReconciler, namespace: &str, names: &[String]) -> Result<Vec<String>, Error> {
    let client = &retry.context.client;
    let (of_namespace, of_task) = (foreman::TASK_NAMESPACE_LABEL, foreman::TASK_NAME_LABEL);
    let is_over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let names: Vec<_> = names.iter().filter(|name| is_object_name(name)).cloned().collect();
    let mut left = Vec::new();
    for names in names.chunks(NAMES) {
        let names = names.join(",");
        let labels = format!("{of_namespace}={namespace},{of_task} in ({names})");
        let params = ListParams::default().labels(&labels);
        let (jobs, pods) = (Api::<Job>::all(client.clone()), Api::<Pod>::all(client.clone()));
        let (jobs, pods) = match try_join(jobs.list(&params), pods.list(&params)).await {
            Ok(found) => found,
            Err(error) if is_forbidden(&error) => {
                return Ok(vec![format!("whether Jobs still run is not known: {error}")]);
            }
            Err(error) => return Err(Error::new("listing", "Jobs of AgenticTasks", namespace, &names, error)),
        };
        let jobs = jobs.iter().map(json_of).filter(|job| !view::Job::of(job).has_ended());
        let pods = pods.iter().map(json_of).filter(|pod| !is_over(pod));
        left.extend(jobs.map(|job| remnant("Job", &job)));
        left.extend(pods.map(|pod| remnant("Pod", &pod)));
    }
    Ok(left)
}

/// Names an object that still exists, and the finalizers that keep it.
fn remnant(kind: &str, object: &Value) -> String {
    let metadata = Metadata::of(object);
    let name = metadata.name().unwrap_or_default();
    let namespace = metadata.namespace().unwrap_or_default();
    let finalizers: Vec<_> = metadata.finalizers().collect();
    let state = match (metadata.is_terminating(), finalizers.is_empty()) {
        (true, false) => format!("kept by finalizer {}", finalizers.join(", ")),
        (true, true) => "still being deleted".to_owned(),
        (false, _) => "still there".to_owned(),
    };
    format!("{kind} {namespace}/{name} is {state}")
}

/// The names of the children: of those that were read, and of those that the Workload itself names.
pub(super) fn child_names(workload: &Value, children: &[Value]) -> Vec<String> {
    let listed = workload.pointer("/status/tasks").and_then(Value::as_array);
    let listed = listed.into_iter().flatten();
    let listed = listed.filter_map(|task| task.get("name")?.as_str());
    let read = children.iter().filter_map(|child| Metadata::of(child).name());
    let names = listed.chain(read).filter(|name| is_label_value(name));
    let names: BTreeSet<_> = names.map(ToOwned::to_owned).collect();
    names.into_iter().take(1000).collect()
}

/// Whether a label can have this name; an object of any longer one has no children and no Job.
fn is_label_value(name: &str) -> bool {
    name.len() <= 63 && is_object_name(name)
}
