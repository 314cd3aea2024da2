//! The attempt history of a work item, in the status of its `WorkItem`.
//!
//! An end is counted exactly once: the attempt is keyed by the Task's UID, and the status is written with the resource
//! version that it was computed from. A replica that loses a race reads again and finds the attempt there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use taskgate_api::{
    WorkItem, WorkItemStatus,
    kelos::Task,
    work_item::{Breaker, Outcome},
};
use taskgate_policy as policy;

use super::{BreakerReconciler, events, failure_cause};
use crate::{
    error::Error,
    task::{Subject, TaskResult},
    work_items::{self, LoadedWorkItem, WorkItemResult},
};

/// Records the Task's end in its `WorkItem`.
pub(crate) async fn record(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut LoadedWorkItem,
) -> Result<TaskResult, Error> {
    let context = &breaker.context;
    let rule = subject.rule.as_ref().map(|(_, rule)| rule);
    let ending = failure_cause::ending(context, subject, rule).await?;
    let now = Timestamp::now();
    let attempt = policy::attempt(&subject.object, &subject.state, ending, now);
    let outcome = attempt.outcome;
    let cost = attempt.cost_usd.clone();
    let written = write(breaker, subject, item, true, |status| {
        policy::record(status, attempt, rule, now)
    })
    .await?;
    if let WorkItemResult::Changed(item) = &written {
        breaker.metrics.recorded(outcome, cost.as_deref());
        let tripped = is_tripped_by(item, &subject.state.uid);
        if tripped {
            breaker
                .metrics
                .tripped(&subject.namespace, item.spec.spawner.as_deref());
        }
        if matches!(outcome, Outcome::Failed | Outcome::Infrastructure | Outcome::Stopped) {
            events::attempt_failed(context, subject, item, tripped).await;
        }
    }
    Ok(written.for_other())
}

/// Adds what the Task used, where its end was recorded before Kelos reported it; `None` when there is nothing to add. The cache is
/// enough to see that.
pub(crate) async fn add_late_usage(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut LoadedWorkItem,
) -> Result<Option<TaskResult>, Error> {
    let filled = |status: &WorkItemStatus| policy::add_late_usage(status, &subject.object);
    let cached = subject.cached_work_item(&breaker.context);
    let Some(status) = cached.as_ref().and_then(|item| item.status.as_ref()) else {
        return Ok(None);
    };
    if filled(status).is_none() {
        return Ok(None);
    }
    match write(breaker, subject, item, false, filled).await? {
        WorkItemResult::Unchanged => Ok(None),
        written => {
            if let WorkItemResult::Changed(item) = &written {
                let status = item.status.as_ref();
                let mut attempts = status.into_iter().flat_map(|status| &status.attempts);
                let known = attempts.find(|known| known.uid == subject.state.uid);
                breaker.metrics.paid(known.and_then(|known| known.cost_usd.as_deref()));
            }
            Ok(Some(written.for_other()))
        }
    }
}

/// Resets the item's failures: a user or the spawner deleted the Task.
pub(crate) async fn reset(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut LoadedWorkItem,
) -> Result<TaskResult, Error> {
    let now = Timestamp::now();
    let uid = subject.state.uid.as_str();
    let written = write(breaker, subject, item, false, |status| {
        policy::reset(status, "TombstoneDeleted", Some(uid), now)
    })
    .await?;
    if let WorkItemResult::Changed(item) = &written {
        events::tombstone_deleted(&breaker.context, subject, item).await;
    }
    Ok(written.for_other())
}

/// Updates the breaker's state, which depends on the policy and on the time.
pub(crate) async fn refresh(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut LoadedWorkItem,
) -> Result<TaskResult, Error> {
    let now = Timestamp::now();
    let rule = subject.rule.as_ref().map(|(_, rule)| rule);
    let written = write(breaker, subject, item, false, |status| {
        policy::refresh(status, rule, now)
    })
    .await?;
    Ok(written.for_other())
}

async fn write(
    breaker: &BreakerReconciler,
    subject: &Subject,
    item: &mut LoadedWorkItem,
    create: bool,
    change: impl FnOnce(&WorkItemStatus) -> Option<WorkItemStatus>,
) -> Result<WorkItemResult, Error> {
    let (Some((identity, name)), Some(key)) = (&subject.item, subject.item_ref()) else {
        return Ok(WorkItemResult::Unchanged);
    };
    if item.get(&breaker.context, Some(&key)).await?.is_none() {
        if !create {
            return Ok(WorkItemResult::Unchanged);
        }
        if item.is_terminating() {
            return Ok(WorkItemResult::Terminating);
        }
        let created = breaker
            .create(&subject.namespace, &new(subject, identity, name))
            .await?;
        item.update(&created);
        if !matches!(created, WorkItemResult::Changed(_)) {
            return Ok(created);
        }
    }
    let Some(before) = item.get(&breaker.context, Some(&key)).await? else {
        return Ok(WorkItemResult::Conflict);
    };
    let written = work_items::write(&breaker.context, before, |status, _| change(status)).await?;
    item.update(&written);
    Ok(written)
}

/// A new `WorkItem`. Its spawner owns it, so that it is deleted with the spawner; an item that a Task states has no owner.
fn new(subject: &Subject, identity: &policy::ItemIdentity, name: &str) -> WorkItem {
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

/// Whether the attempt of this Task tripped the breaker of `item`.
fn is_tripped_by(item: &WorkItem, uid: &str) -> bool {
    item.status.as_ref().is_some_and(|status| {
        status.breaker == Some(Breaker::Open)
            && status
                .attempts
                .last()
                .is_some_and(|attempt| attempt.uid == uid && attempt.opened)
    })
}
