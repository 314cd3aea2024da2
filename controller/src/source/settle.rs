//! What an answer of the tracker does to the memory of its item: a baseline, a reset, or its end.

use jiff::Timestamp;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
    runtime::reflector::ObjectRef,
};
use taskgate_api::{WorkItem, task_policy::FailurePolicy};
use taskgate_policy::{
    self as policy,
    source::{ItemPresence, SourceVerdict, evaluate_source},
};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    events, ledger,
};

/// How often a write is tried that somebody else is faster than.
const TRIES: u32 = 3;
/// Why a memory was reset, in its status.
pub(super) const CONTENT_CHANGED: &str = "ContentChanged";

/// Holds `presence` against the `WorkItem`, and writes what follows. A cache is enough to see that nothing does.
pub(super) async fn settle(
    context: &Context,
    namespace: &str,
    name: &str,
    rule: &FailurePolicy,
    presence: ItemPresence<'_>,
) -> Result<(), Error> {
    let key = ObjectRef::new(name).within(namespace);
    let Some(cached) = context.work_items.get(&key) else {
        return Ok(());
    };
    if verdict(&cached, rule, presence) == SourceVerdict::Keep {
        return Ok(());
    }
    for _ in 0..TRIES {
        let Some(item) = ledger::read(context, namespace, name).await? else {
            return Ok(());
        };
        let done = match verdict(&item, rule, presence) {
            SourceVerdict::Keep => return Ok(()),
            SourceVerdict::Prune => prune(context, namespace, &item).await?,
            verdict => write(context, namespace, item, &verdict).await?,
        };
        if done {
            return Ok(());
        }
    }
    // The next answer of the tracker is another chance.
    Ok(())
}

fn verdict(item: &WorkItem, rule: &FailurePolicy, presence: ItemPresence<'_>) -> SourceVerdict {
    evaluate_source(&item.status.clone().unwrap_or_default(), rule, presence)
}

/// Writes what follows from `verdict`. False when the item changed or went meanwhile.
async fn write(context: &Context, namespace: &str, mut item: WorkItem, verdict: &SourceVerdict) -> Result<bool, Error> {
    let status = item.status.clone().unwrap_or_default();
    let next = match verdict {
        SourceVerdict::Baseline(hash) => Some(policy::baseline(&status, hash)),
        SourceVerdict::Reset => policy::reset(&status, CONTENT_CHANGED, None, Timestamp::now()),
        SourceVerdict::Keep | SourceVerdict::Prune => None,
    };
    if next.is_none() {
        return Ok(true);
    }
    item.status = next;
    let name = item.name_any();
    let Some(item) = ledger::replace(context, namespace, &name, &item).await? else {
        return Ok(false);
    };
    if *verdict == SourceVerdict::Reset {
        tracing::info!(
            namespace,
            name,
            "the item changed at its source: its failures are forgotten"
        );
        events::changed(context, &item).await;
    }
    Ok(true)
}

/// Deletes the memory of an item that is no more, unless a Task for it is under way. Its tombstone follows. False when the item
/// changed meanwhile.
async fn prune(context: &Context, namespace: &str, item: &WorkItem) -> Result<bool, Error> {
    let name = item.name_any();
    let tasks = context.index.of(&(namespace.to_owned(), name.clone()));
    if tasks.iter().any(policy::TaskState::is_under_way) {
        return Ok(true);
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: item.uid(),
            resource_version: item.resource_version(),
        }),
        ..DeleteParams::background()
    };
    match context.work_items(namespace).delete(&name, &params).await {
        Ok(_) => {}
        Err(error) if is_absent(&error) => return Ok(true),
        Err(error) if is_conflict(&error) => return Ok(false),
        Err(error) => return Err(ledger::failed("deleting", namespace, &name, error)),
    }
    tracing::info!(namespace, name, "the item is gone from its source: forgotten");
    events::pruned(context, item).await;
    Ok(true)
}
