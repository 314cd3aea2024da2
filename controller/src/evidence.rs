//! What is left of a Task's run: its Job and the Job's pods, which tell whose fault a failure was (kelos T5).

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, ObjectMeta},
};
use serde_json::Value;
use taskgate_api::{job, kelos, task_policy::FailurePolicy};
use taskgate_policy::{Ending, RunObjects, TaskPhase, classify};

use crate::{context::Context, error::Error, task::Subject};

/// How the Task ended.
pub(crate) async fn ending(
    context: &Context,
    subject: &Subject,
    rule: Option<&FailurePolicy>,
) -> Result<Ending, Error> {
    let state = &subject.state;
    if state.phase != TaskPhase::Failed {
        return Ok(classify(&subject.object, state, RunObjects::default(), rule));
    }
    let job = job_of(context, subject).await?;
    let pods = if job.is_some() {
        pods(context, subject).await?
    } else {
        Vec::new()
    };
    let evidence = RunObjects {
        job: job.as_ref(),
        pods: &pods,
    };
    Ok(classify(&subject.object, state, evidence, rule))
}

/// The Task's Job. Kelos finds it by name only; one of somebody else's tells us nothing.
pub(crate) async fn job_of(context: &Context, subject: &Subject) -> Result<Option<Value>, Error> {
    let jobs = Api::<Job>::namespaced(context.client.clone(), &subject.namespace);
    let found = jobs.get_opt(&subject.state.name).await;
    let found = found.map_err(|error| failed("Job", subject, error))?;
    let job = found.map(|job| serde_json::to_value(job).expect("a Job can be written as JSON"));
    let ours = |job: &Value| {
        job::Job::of(job)
            .task()
            .is_some_and(|owner| owner.uid == subject.state.uid)
    };
    Ok(job.filter(ours))
}

async fn pods(context: &Context, subject: &Subject) -> Result<Vec<Value>, Error> {
    let label = format!("{}={}", kelos::TASK_LABEL, subject.state.name);
    let pods = Api::<Pod>::namespaced(context.client.clone(), &subject.namespace);
    let found = pods.list(&ListParams::default().labels(&label)).await;
    let found = found.map_err(|error| failed("the pods of Task", subject, error))?;
    let json = |pod| serde_json::to_value(pod).expect("a pod can be written as JSON");
    Ok(found.into_iter().map(json).collect())
}

/// Whether the object that `uid` belongs to controls the one with this metadata.
pub(crate) fn is_owned_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == uid)
}

fn failed(kind: &'static str, subject: &Subject, error: kube::Error) -> Error {
    Error {
        doing: "reading",
        kind,
        namespace: subject.namespace.clone(),
        name: subject.state.name.clone(),
        source: Box::new(error),
    }
}
