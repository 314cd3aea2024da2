//! Updates the `WorkItem`s without Tasks when a policy changes: no other reconcile would, and their `breaker` field would keep what
//! the old policy made of it. Decisions do not depend on that field; people read it.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use taskgate_api::{Mode, WorkItem, WorkItemStatus, task_policy::FailurePolicy};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;

use super::spawner_status::{self, SpawnerRef};
use crate::{
    context::{Context, ItemRef},
    error::Error,
    task::Subject,
    work_items::CurrentWorkItem,
    workqueue::PanicGuard,
};

/// How long policies must stay unchanged, so that a rollout of many leads to one pass.
const QUIET: Duration = Duration::from_secs(2);
/// Between two writes: reconciles of Tasks come first.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a write is tried after conflicts.
const TRIES: usize = 3;

/// Reconciles all of them, and enqueues the `spawners`, whenever `changed` changes, until its sender is dropped.
pub(crate) async fn run(
    context: &Context,
    mut changed: watch::Receiver<()>,
    spawners: &mpsc::UnboundedSender<SpawnerRef>,
) {
    // The reconciles of an item's Tasks come first.
    context.tasks_followed().await;
    let panics = PanicGuard::new("reassess", &context.panics);
    while changed.changed().await.is_ok() {
        sleep(QUIET).await;
        changed.mark_unchanged();
        spawner_status::enqueue_all(context, spawners);
        for item in context.cache.work_items().all() {
            // A further change: the pass starts again.
            if changed.has_changed().unwrap_or(true) {
                break;
            }
            let item = item.expand();
            match panics.catch(item.uid(), Box::pin(reassess(context, &item))).await {
                Ok(Ok(false)) => {}
                // An item whose reconcile panicked is reconciled with the next change of a policy.
                Ok(Ok(true)) | Err(_) => sleep(PAUSE).await,
                Ok(Err(error)) => {
                    debug!(%error, source = %error.source, "the state of a breaker was not written");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Writes the breaker's state if the policy changes it; whether it tried.
async fn reassess(context: &Context, cached: &WorkItem) -> Result<bool, Error> {
    let key = (cached.namespace().unwrap_or_default(), cached.name_any());
    if context.is_opted_out(&key.0) {
        return Ok(false);
    }
    let rule = rule_of_tasks(context, &key).or_else(|| context.rule_of(cached));
    // Then the reconciles of its Tasks do it.
    if context.has_tasks(&key) && rule.as_ref().is_some_and(|(mode, _)| *mode == Mode::Enforce) {
        return Ok(false);
    }
    let refreshed = |status: &WorkItemStatus, now: Timestamp| {
        taskgate_policy::refresh(status, rule.as_ref().map(|(_, rule)| rule), now)
    };
    if refreshed(&cached.status.clone().unwrap_or_default(), context.now()).is_none() {
        return Ok(false);
    }
    let mut item = CurrentWorkItem::cached(context, key);
    for _ in 0..TRIES {
        if item.write(context, refreshed).await? {
            break;
        }
    }
    Ok(true)
}

/// The failure section that governs the Tasks of the item `key`, with its mode: the one that is enforced, if there is one.
fn rule_of_tasks(context: &Context, key: &ItemRef) -> Option<(Mode, FailurePolicy)> {
    let known = context.tasks_of(key);
    let rules = known.iter().filter_map(|task| {
        let subject = Subject::of(context, &*context.cache.tasks().get(&key.0, &task.name)?)?;
        let of_item = subject.item_ref().as_ref() == Some(key);
        subject.rule.filter(|_| of_item)
    });
    rules.max_by_key(|(mode, _)| *mode == Mode::Enforce)
}
