//! The reconcile of one work item: steps are taken until there is nothing left to do for now.

use jiff::Timestamp;
use kube::ResourceExt as _;
use taskgate_api::{WorkItem, WorkItemStatus, keys, metadata::Metadata};
use taskgate_policy::retry::{Retried, RunPhase, run_deleted, running_successor, successor_deleted};

use super::{
    RetryReconciler,
    events::{RetryEvent, write},
    failed,
    objects::{self, ObjectKey},
    reads, transition,
};
use crate::{
    breaker::requests,
    context::ItemRef,
    error::Error,
    work_items::{self, WorkItemResult, retry_status, transition_of},
    workqueue::{AFTER_CONFLICT, Reconciled, WHILE_TERMINATING, until},
};

/// How many steps one reconcile may take: more than any retry needs, so that a mistake cannot spin.
const MAX_STEPS: usize = 24;
/// How many conflicts one reconcile tolerates.
const MAX_CONFLICTS: usize = 3;

/// Computes the status after what happened to the object with a UID.
type StatusChange = fn(&WorkItemStatus, &str, Timestamp) -> Option<WorkItemStatus>;

/// Whether the item is pending, as far as the cache knows.
pub(super) fn is_cached_pending(retry: &RetryReconciler, key: &ItemRef) -> bool {
    let item = retry.context.cached_work_item(key);
    item.is_some_and(|item| is_pending(&item))
}

/// Reconciles one item.
pub(super) async fn reconcile(retry: &RetryReconciler, key: ItemRef) -> Reconciled {
    let key = &key;
    if retry.context.is_opted_out(&key.0) || !may_need_a_step(retry, key) {
        retry.slots.set(key, retry.context.cached_work_item(key).as_deref());
        return Ok(None);
    }
    let mut item = read(retry, key).await?;
    let mut conflicts = 0;
    for _ in 0..MAX_STEPS {
        match step(retry, key, item.as_ref()).await? {
            WorkItemResult::AwaitChange | WorkItemResult::NamespaceTerminating => return Ok(None),
            WorkItemResult::RequeueAt(moment) => return Ok(Some(until(moment, retry.context.now()))),
            WorkItemResult::Terminating => return Ok(Some(WHILE_TERMINATING)),
            WorkItemResult::Changed(now) => {
                retry.slots.set(key, Some(&now));
                item = Some(*now);
            }
            WorkItemResult::Unchanged | WorkItemResult::Conflict => {
                conflicts += 1;
                if conflicts > MAX_CONFLICTS {
                    return Ok(Some(AFTER_CONFLICT));
                }
                item = read(retry, key).await?;
            }
        }
    }
    Ok(Some(AFTER_CONFLICT))
}

async fn read(retry: &RetryReconciler, key: &ItemRef) -> Result<Option<WorkItem>, Error> {
    let item = work_items::read(&retry.context, key).await?;
    retry.slots.set(key, item.as_ref());
    Ok(item)
}

/// Whether `item` itself shows that there may be something to do: a retry, a failure, or a user's request.
pub(super) fn is_pending(item: &WorkItem) -> bool {
    let status = item.status.as_ref().and_then(|status| status.retry.as_ref());
    requests::is_requested(item) || status.is_some_and(|status| status.transition.is_some() || status.failure.is_some())
}

/// Whether the successor that taskgate created last is not in the caches: another client may have deleted it.
pub(super) fn has_lost_successor(retry: &RetryReconciler, key: &ItemRef, item: &WorkItem) -> bool {
    let successor = item.status.as_ref().and_then(running_successor);
    successor.is_some_and(|run| !retry.objects.of(key).iter().any(|(_, object)| object.uid == run.uid))
}

/// Whether the caches show that there may be something to do; steps follow reads of the API server.
fn may_need_a_step(retry: &RetryReconciler, key: &ItemRef) -> bool {
    let item = retry.context.cached_work_item(key);
    item.as_deref()
        .is_some_and(|item| is_pending(item) || has_lost_successor(retry, key, item))
        || retry.objects.of(key).iter().any(|(_, object)| match object.phase {
            RunPhase::Failed => object.governed,
            // Without failures of runs there is nothing to reset.
            RunPhase::Succeeded => item.as_deref().is_some_and(has_retries),
            RunPhase::Active | RunPhase::Cancelled => false,
        })
}

fn has_retries(item: &WorkItem) -> bool {
    item.status.as_ref().is_some_and(|status| status.retry.is_some())
}

/// The next step for one item: of the retry that is under way, else of the object that its status names, else of any other.
async fn step(retry: &RetryReconciler, key: &ItemRef, item: Option<&WorkItem>) -> Result<WorkItemResult, Error> {
    if let Some(item) = item {
        if let Some(written) = requests::reset(&retry.context, item).await? {
            return Ok(written);
        }
        if transition_of(item).is_some() {
            return transition::advance(retry, key, item).await;
        }
        if let Some(written) = record_deletion(retry, key, item).await? {
            return Ok(written);
        }
        if is_request_obsolete(retry, key, item).await? {
            return requests::remove_retry(&retry.context, item).await;
        }
    }
    for object in candidates(retry, key, item) {
        match failed::reconcile(retry, key, item, &object).await? {
            WorkItemResult::AwaitChange | WorkItemResult::Unchanged => {}
            // One run of an item after the other.
            result => return Ok(result),
        }
    }
    Ok(WorkItemResult::AwaitChange)
}

/// The objects of `item` that ended, or that a user asks to retry: first the one that is asked for, then the one that the status
/// names.
fn candidates(retry: &RetryReconciler, key: &ItemRef, item: Option<&WorkItem>) -> Vec<ObjectKey> {
    let status = item.map(retry_status).unwrap_or_default();
    let requested = item.and_then(requests::requested_retry).map(|(order, _)| order.run());
    let named = [requested, status.failure.and(status.run)].into_iter().flatten();
    let mut keys: Vec<ObjectKey> = named.map(|run| (run.kind, run.name)).collect();
    for (object, known) in retry.objects.of(key) {
        let ended = matches!(known.phase, RunPhase::Failed | RunPhase::Succeeded);
        if ended && !keys.contains(&object) {
            keys.push(object);
        }
    }
    keys
}

/// Whether `item` carries a request to retry an object that cannot be carried out any more: it is done, or the object is another
/// one by now, has not failed, or is being deleted; also one that is malformed or that admission did not stamp.
async fn is_request_obsolete(retry: &RetryReconciler, key: &ItemRef, item: &WorkItem) -> Result<bool, Error> {
    if !item.annotations().contains_key(keys::RETRY) {
        return Ok(false);
    }
    let Some((order, _)) = requests::requested_retry(item) else {
        return Ok(true);
    };
    // Without Foreman nothing is known of its Workloads.
    let Some(resource) = reads::resource(retry, order.kind) else {
        return Ok(false);
    };
    let found = reads::object(retry, (order.kind, &resource), &key.0, &order.name).await?;
    let found = found.as_ref().and_then(|found| Retried::of(order.kind, found));
    let can_be_retried =
        |found: Retried<'_>| found.uid() == order.uid && found.is_tombstone() && objects::is_of(retry, item, found);
    Ok(!found.is_some_and(can_be_retried))
}

/// Records that the object of the failed run, or of a successor, was deleted, and not by taskgate, if that is so.
async fn record_deletion(
    retry: &RetryReconciler,
    key: &ItemRef,
    item: &WorkItem,
) -> Result<Option<WorkItemResult>, Error> {
    let status = retry_status(item);
    let successor = item.status.as_ref().and_then(running_successor);
    let Some(run) = status.run.as_ref().filter(|_| status.failure.is_some()).or(successor) else {
        return Ok(None);
    };
    let Some(resource) = reads::resource(retry, run.kind) else {
        return Ok(None);
    };
    let found = reads::object(retry, (run.kind, &resource), &key.0, &run.name).await?;
    if found.is_some_and(|found| Metadata::of(&found).uid() == Some(&run.uid)) {
        return Ok(None);
    }
    let (event, change): (_, StatusChange) = match successor {
        Some(_) => (RetryEvent::SuccessorDeleted, successor_deleted),
        None => (RetryEvent::RunDeleted, run_deleted),
    };
    let change = |status: &WorkItemStatus, now| change(status, &run.uid, now);
    write(retry, item, run, Some(event), change).await.map(Some)
}
