//! A Job that slipped past admission although a policy queues it: it is given to its queue late, as long as its agent does not work
//! yet.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{job::Job, kelos::Task, kueue, metadata::Metadata};
use taskgate_policy::{
    Facts, Kind, KueueFacts, Operation, Phase, Request, Workspace, govern, late_queue, states_queue,
};

use super::{Queueing, failed};
use crate::{
    error::{Error, is_absent, is_conflict},
    tasks::{json_of, namespace_of},
};

/// How old a Job may be: what is older has settled, whatever it is.
const RECENT: SignedDuration = SignedDuration::from_mins(10);

/// Gives the Job to its queue if it slipped past admission; whether it did. Kueue allows it in one write: suspended, and with
/// the label (kueue §5).
///
/// RBAC: `get` and `patch` on jobs.
pub(super) async fn mend(queueing: &Queueing, job: &Value) -> Result<bool, Error> {
    let seen = Job::of(job);
    let young = seen
        .created()
        .is_some_and(|at| Timestamp::now().duration_since(at) < RECENT);
    let candidate = young && seen.queue().is_none() && !seen.is_suspended() && !seen.has_ended();
    let Some(owner) = seen.task().filter(|_| candidate) else {
        return Ok(false);
    };
    let context = &queueing.context;
    let policies = context.policies.current();
    let namespace = namespace_of(job);
    let name = Metadata::of(job).name().unwrap_or_default();
    let reading = |kind, error| failed(kind, namespace, name, error);
    let task = context.tasks(namespace).get_opt(owner.name).await;
    let task = task.map_err(|error| reading("Task", error))?.as_ref().map(json_of);
    let Some(task) = task.filter(|task| policies.queues() || states_queue(task)) else {
        return Ok(false);
    };
    let jobs = Api::<v1::Job>::namespaced(context.client.clone(), namespace);
    let Some(fresh) = jobs.get_opt(name).await.map_err(|error| reading("Job", error))? else {
        return Ok(false);
    };
    let fresh = serde_json::to_value(fresh).expect("a Job can be written as JSON");
    let spawner = Task::of(&task)
        .spawner()
        .and_then(|name| context.policies.spawner(namespace, name));
    let request = Request {
        phase: Phase::Mutating,
        kind: Kind::Job,
        operation: Operation::Create,
        namespace,
        object: &fresh,
        user: "",
        dry_run: false,
    };
    let facts = Facts {
        policies: &policies,
        namespace_labels: &context.policies.namespace_labels(namespace),
        owner_task: Some(&task),
        spawner: spawner.as_ref(),
        workspace: &Workspace::Unknown,
        kueue: KueueFacts {
            manages_namespace: Some(queueing.manages(namespace).await?),
            ..KueueFacts::default()
        },
    };
    let Some((queue, class)) = late_queue(&govern(&request, &facts)) else {
        return Ok(false);
    };
    let mut labels = json!({kueue::QUEUE_NAME: queue});
    if let Some(class) = class {
        labels[kueue::PRIORITY_CLASS] = class.into();
    }
    let patch = json!({
        "metadata": {
            "labels": labels,
            "resourceVersion": fresh.pointer("/metadata/resourceVersion"), "uid": fresh.pointer("/metadata/uid"),
        },
        "spec": {"suspend": true},
    });
    match jobs.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            tracing::info!(
                namespace,
                name,
                queue,
                "gave a Job to its queue that slipped past admission"
            );
            Ok(true)
        }
        // It changed, and comes again; or it is gone.
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(true),
        Err(error) => Err(Error {
            doing: "queueing",
            ..failed("Job", namespace, name, error)
        }),
    }
}
