//! What an observation changes in the item's `WorkItem`: a baseline, a reset, or its deletion.

use kube::{Resource as _, ResourceExt as _, runtime::events::EventType};
use taskgate_api::{WorkItem, task_policy::FailurePolicy};
use taskgate_policy::{
    self as policy,
    source::{ItemPresence, SourceVerdict, evaluate_source},
};

use crate::{
    context::Context,
    error::Error,
    task_index::ItemRef,
    work_items::{self, WorkItemResult},
    workqueue::StepResult,
};

/// How often a write is tried after conflicts.
const TRIES: u32 = 3;
/// The reason of a reset, in the status.
pub(super) const CONTENT_CHANGED: &str = "ContentChanged";

/// Writes what follows from `presence` for the `WorkItem`. The cache is enough to see that nothing does.
pub(super) async fn update(
    context: &Context,
    key: &ItemRef,
    rule: &FailurePolicy,
    presence: ItemPresence<'_>,
) -> Result<(), Error> {
    let Some(cached) = context.cached_work_item(key) else {
        return Ok(());
    };
    if verdict(&cached, rule, presence) == SourceVerdict::Keep {
        return Ok(());
    }
    for _ in 0..TRIES {
        let Some(item) = work_items::read(context, key).await? else {
            return Ok(());
        };
        let done = match verdict(&item, rule, presence) {
            SourceVerdict::Keep => return Ok(()),
            SourceVerdict::Prune => prune(context, key, &item).await?,
            verdict => write(context, &item, &verdict).await?,
        };
        if done {
            return Ok(());
        }
    }
    // The next answer of the source leads to another try.
    Ok(())
}

fn verdict(item: &WorkItem, rule: &FailurePolicy, presence: ItemPresence<'_>) -> SourceVerdict {
    evaluate_source(&item.status.clone().unwrap_or_default(), rule, presence)
}

/// Writes what follows from `verdict`. False after a conflict.
async fn write(context: &Context, item: &WorkItem, verdict: &SourceVerdict) -> Result<bool, Error> {
    let written = work_items::write(context, item, |status, now| match verdict {
        SourceVerdict::Baseline(hash) => Some(policy::baseline(status, hash)),
        SourceVerdict::Reset => policy::reset(status, CONTENT_CHANGED, None, now),
        SourceVerdict::Keep | SourceVerdict::Prune => None,
    })
    .await?;
    let item = match written {
        WorkItemResult::Changed(item) => item,
        WorkItemResult::Conflict => return Ok(false),
        _ => return Ok(true),
    };
    if *verdict == SourceVerdict::Reset {
        tracing::info!(
            namespace = item.namespace(),
            name = item.name_any(),
            "reset an item: it changed at its source"
        );
        let note = format!(
            "failures reset: item {} changed at its source (failurePolicy.resetOnChange)",
            item.spec.item
        );
        let regarding = item.object_ref(&());
        context
            .events
            .publish(EventType::Normal, "CircuitReset", "Reset", &note, &regarding);
    }
    Ok(true)
}

/// Deletes the `WorkItem` of an item that is gone, unless a Task for it is under way. Its tombstone follows. False after a
/// conflict.
async fn prune(context: &Context, key: &ItemRef, item: &WorkItem) -> Result<bool, Error> {
    let tasks = context.task_index.of(key);
    if tasks.iter().any(policy::TaskState::is_under_way) {
        return Ok(true);
    }
    match work_items::delete(context, item, "deleting").await? {
        StepResult::Changed(_) => {}
        StepResult::Conflict => return Ok(false),
        _ => return Ok(true),
    }
    let (namespace, name) = key;
    tracing::info!(namespace, name, "deleted a WorkItem: the item is gone from its source");
    let note = format!(
        "deleted: the spawner no longer finds item {}, which is gone, closed or filtered out at its source",
        item.spec.item
    );
    let regarding = item.object_ref(&());
    context
        .events
        .publish(EventType::Normal, "WorkItemPruned", "Prune", &note, &regarding);
    Ok(true)
}
