//! The cap on `WorkItem`s per namespace: whoever makes up new items without end must not fill the cluster's memory.

use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use taskgate_api::{WorkItem, work_item::Breaker};
use tracing::warn;

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    events,
};

/// Deletes one `WorkItem` if the namespace has as many as it may: the closed one without Tasks whose last failure is the
/// longest ago. Only when there is none an open one goes, and never silently.
pub(crate) async fn make_room(context: &Context, namespace: &str) -> Result<(), Error> {
    let mut items = context.work_items.state();
    items.retain(|item| item.namespace().as_deref() == Some(namespace));
    if items.len() < context.work_item_cap {
        return Ok(());
    }
    // Of an object that is away nothing but its ledger is left.
    items.retain(|item| !crate::retry::is_under_way(item));
    let has_tasks =
        |item: &WorkItem| context.index.has(&(namespace.to_owned(), item.name_any())) || context.retry.needs(item);
    let Some(victim) = items
        .iter()
        .min_by_key(|item| (is_open(item), has_tasks(item), last_failure(item)))
    else {
        return Ok(());
    };
    if is_open(victim) {
        warn!(
            namespace,
            name = victim.name_any(),
            "forgot an open item: too many WorkItems"
        );
        context.metrics.evicted_open();
        events::evicted(context, victim).await;
    }
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: victim.uid(),
            resource_version: victim.resource_version(),
        }),
        ..DeleteParams::background()
    };
    let deleted = context.work_items(namespace).delete(&victim.name_any(), &params).await;
    match deleted {
        Ok(_) => Ok(()),
        Err(error) if is_absent(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(Error {
            doing: "evicting",
            kind: "WorkItem",
            namespace: namespace.to_owned(),
            name: victim.name_any(),
            source: Box::new(error),
        }),
    }
}

fn is_open(item: &WorkItem) -> bool {
    let breaker = item.status.as_ref().and_then(|status| status.breaker);
    matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
}

fn last_failure(item: &WorkItem) -> Option<jiff::Timestamp> {
    let time = item.status.as_ref()?.last_failure_time.as_ref()?;
    Some(time.0)
}
