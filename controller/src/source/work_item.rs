//! What an observation changes in the item's `WorkItem`: a baseline, a reset, or its deletion.

use kube::{Resource as _, runtime::events::EventType};
use taskgate_api::{WorkItem, WorkItemStatus, task_policy::FailurePolicy};
use taskgate_policy::{
    self as policy,
    source::{ItemPresence, SourceVerdict, evaluate_source},
};

use crate::{
    context::{Context, ItemRef},
    error::Error,
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
        if apply(context, key, &item, verdict(&item, rule, presence)).await? {
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
async fn apply(context: &Context, key: &ItemRef, item: &WorkItem, verdict: SourceVerdict) -> Result<bool, Error> {
    let name = &item.spec.item;
    let (reason, action, note) = match verdict {
        SourceVerdict::Keep => return Ok(true),
        SourceVerdict::Baseline(hash) => {
            let written = work_items::write(context, item, |status, _| Some(policy::baseline(status, &hash))).await?;
            return Ok(!matches!(written, WorkItemResult::Conflict));
        }
        SourceVerdict::Reset => {
            let reset = |status: &WorkItemStatus, now| policy::reset(status, CONTENT_CHANGED, None, now);
            match work_items::write(context, item, reset).await? {
                WorkItemResult::Changed(_) => {}
                WorkItemResult::Conflict => return Ok(false),
                _ => return Ok(true),
            }
            let note = format!("failures reset: item {name} changed at its source (failurePolicy.resetOnChange)");
            ("CircuitReset", "Reset", note)
        }
        SourceVerdict::Prune => {
            // Its tombstone follows.
            if context.tasks_of(key).iter().any(policy::TaskState::is_under_way) {
                return Ok(true);
            }
            match work_items::delete(context, item, "deleting").await? {
                StepResult::Changed(_) => {}
                StepResult::Conflict => return Ok(false),
                _ => return Ok(true),
            }
            let gone = "which is gone, closed or filtered out at its source";
            let note = format!("deleted: the spawner no longer finds item {name}, {gone}");
            ("WorkItemPruned", "Prune", note)
        }
    };
    tracing::info!(
        namespace = key.0,
        name = key.1,
        reason,
        "the item changed at its source, or is gone"
    );
    let regarding = item.object_ref(&());
    let events = &context.events;
    events.publish(EventType::Normal, reason, action, &note, &regarding);
    Ok(true)
}
