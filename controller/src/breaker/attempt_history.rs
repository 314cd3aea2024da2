//! The attempt history of a work item, in the status of its `WorkItem`.
//!
//! An end is counted exactly once: the attempt is keyed by the Task's UID, and the status is written with the resource
//! version that it was computed from. A replica that loses a race reads again and finds the attempt there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use taskgate_api::{
    WorkItem,
    kelos::Task,
    task_policy::FailurePolicy,
    work_item::{Attempt, Breaker, Outcome},
};
use taskgate_policy::{self as policy, Ending, ItemIdentity, RunObjects, classify};

use super::{BreakerReconciler, events};
use crate::{
    context::Context,
    error::Error,
    job,
    task::{Subject, TaskResult},
    work_items::{CurrentWorkItem, WorkItemResult},
};

/// Records the Task's end in its `WorkItem`, which is created when it is missing.
pub(crate) async fn record(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut CurrentWorkItem,
) -> Result<TaskResult, Error> {
    let (context, rule) = (&*breaker.context, subject.failure_policy());
    let ending = ending(context, subject, rule).await?;
    if item.is_terminating() {
        return Ok(TaskResult::Terminating);
    }
    if item.get().is_none() {
        let Some((identity, name)) = &subject.item else {
            return Ok(TaskResult::Unchanged);
        };
        match breaker
            .create(&subject.namespace, &new(subject, identity, name))
            .await?
        {
            WorkItemResult::Changed(found) => item.set(*found),
            result => return Ok(result.for_other()),
        }
    }
    let now = context.now();
    let attempt = policy::attempt(&subject.object, &subject.state, ending, now);
    let (outcome, cost) = (attempt.outcome, attempt.cost_usd.clone());
    let is_written = item
        .write(context, |status, now| policy::record(status, attempt, rule, now))
        .await?;
    if let Some(item) = item.get().filter(|_| is_written) {
        breaker.metrics.recorded(outcome, cost.as_deref());
        let tripped = is_tripped_by(item, &subject.state.uid);
        if tripped {
            let key = (subject.namespace.clone(), item.name_any());
            let spawners = context.spawners_of(&key, item.spec.spawner.as_deref());
            breaker.metrics.tripped(&subject.namespace, &spawners);
        }
        if matches!(outcome, Outcome::Failed | Outcome::Infrastructure | Outcome::Stopped) {
            events::attempt_failed(context, subject, item, tripped);
        }
    }
    Ok(TaskResult::Unchanged)
}

/// How the Task ended. Its Job and the Job's pods show whether the agent or the infrastructure failed.
async fn ending(context: &Context, subject: &Subject, rule: Option<&FailurePolicy>) -> Result<Ending, Error> {
    let (state, object) = (&subject.state, &subject.object);
    let (mut job, mut pods) = (None, Vec::new());
    if policy::depends_on_job(object, state) {
        job = job::of_task(context, subject).await?;
        if job.is_some() {
            pods = job::pods_of_task(context, &subject.namespace, &state.name).await?;
        }
    }
    let run = RunObjects {
        job: job.as_ref(),
        pods: &pods,
    };
    Ok(classify(object, state, run, rule))
}

/// Adds what the Task used, where its end was recorded before Kelos reported it.
pub(crate) async fn add_late_usage(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut CurrentWorkItem,
) -> Result<(), Error> {
    let is_written = item
        .write(&breaker.context, |status, _| {
            policy::add_late_usage(status, &subject.object)
        })
        .await?;
    if let Some(attempt) = item
        .get()
        .filter(|_| is_written)
        .and_then(|item| attempt(item, subject))
    {
        breaker.metrics.paid(attempt.cost_usd.as_deref());
    }
    Ok(())
}

/// Resets the item's failures: a user or the spawner deleted the Task.
pub(crate) async fn reset(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut CurrentWorkItem,
) -> Result<TaskResult, Error> {
    let uid = subject.state.uid.as_str();
    let is_written = item
        .write(&breaker.context, |status, now| {
            policy::reset(status, "TombstoneDeleted", Some(uid), now)
        })
        .await?;
    if let Some(item) = item.get().filter(|_| is_written) {
        events::tombstone_deleted(&breaker.context, subject, item);
    }
    Ok(TaskResult::Unchanged)
}

/// A new `WorkItem`. Its spawner owns it, so that it is deleted with the spawner; an item that a Task states has no owner.
fn new(subject: &Subject, identity: &ItemIdentity, name: &str) -> WorkItem {
    let mut item = identity.work_item(name);
    let owner = Task::of(&subject.object)
        .spawner_owner()
        .filter(|_| identity.spawner.is_some());
    if let Some(owner) = owner {
        item.owner_references_mut().push(OwnerReference {
            api_version: owner.api_version.to_owned(),
            kind: owner.kind.to_owned(),
            name: owner.name.to_owned(),
            uid: owner.uid.to_owned(),
            ..OwnerReference::default()
        });
    }
    item
}

/// The attempt of the Task in `item`.
fn attempt<'a>(item: &'a WorkItem, subject: &Subject) -> Option<&'a Attempt> {
    let mut attempts = item.status.as_ref()?.attempts.iter();
    attempts.find(|attempt| attempt.uid == subject.state.uid)
}

/// Whether the attempt of this Task tripped the breaker of `item`.
fn is_tripped_by(item: &WorkItem, uid: &str) -> bool {
    item.status.as_ref().is_some_and(|status| {
        let last = status.attempts.last();
        status.breaker == Some(Breaker::Open) && last.is_some_and(|attempt| attempt.uid == uid && attempt.opened)
    })
}
