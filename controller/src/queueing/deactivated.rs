//! Fails a Job that Kueue deactivated, if the policy says so (`onDeactivation`).

use kube::{api::DynamicObject, runtime::controller::Action};
use serde_json::Value;
use taskgate_api::{job::Job, kelos::Task, kueue::Workload, task_policy::QueueOnDeactivation};
use taskgate_policy::{JobEnd, PolicyScope};

use super::SOON;
use crate::{context::Context, error::Error, job, kubernetes::namespace_of, task::Subject, workqueue::StepResult};

/// The reason with which such a Job fails, and its attempt is recorded.
const DEACTIVATED: &str = "QueueDeactivated";

/// Whether Kueue has finished stopping the Job.
pub(super) fn is_settled(job: &Value, workload: Workload<'_>) -> bool {
    let job = Job::of(job);
    job.is_suspended() && !job.has_ended() && !workload.is("QuotaReserved") && !workload.is("Admitted")
}

/// Fails the Job of `task`, if the policy that governs it says so.
pub(super) async fn fail(context: &Context, task: &Value, message: &str) -> Result<Action, Error> {
    let namespace = namespace_of(task);
    let spawner = Task::of(task)
        .spawner()
        .and_then(|name| context.spawner(namespace, name));
    let labels = context.namespace_labels(namespace);
    let wanted = PolicyScope::new(&context.policies(), namespace, &labels, spawner.as_deref()).on_deactivation(task);
    let subject = serde_json::from_value::<DynamicObject>(task.clone())
        .ok()
        .filter(|_| wanted == QueueOnDeactivation::Fail)
        .and_then(|task| Subject::of(context, &task));
    let Some(subject) = subject else {
        return Ok(Action::await_change());
    };
    let Some(job) = job::of_task(context, &subject).await? else {
        return Ok(Action::await_change());
    };
    if JobEnd::of(&job) != JobEnd::Open {
        return Ok(Action::await_change());
    }
    if !job::is_parked(&job) {
        return Ok(Action::requeue(SOON));
    }
    Ok(match job::fail(context, &subject, &job, DEACTIVATED, message).await? {
        StepResult::Conflict => Action::requeue(SOON),
        _ => Action::await_change(),
    })
}
