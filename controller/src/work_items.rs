//! Reads and writes of `WorkItem`s. A status is written with the resource version that it was computed from: a client that loses
//! a race reads again. `breaker::work_item_limit` creates them.
//!
//! Imports `context`, `error`, `workqueue`. Called by `breaker`, `retry` and `source`.

use jiff::Timestamp;
use kube::{ResourceExt as _, api::PostParams};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{RetryStatus, Transition},
    work_item::Breaker,
};
use taskgate_policy as policy;
use tracing::warn;

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict, is_invalid},
    kubernetes::delete_only,
    task_index::ItemRef,
    workqueue::StepResult,
};

/// What a step for a `WorkItem` came to.
pub(crate) type WorkItemResult = StepResult<WorkItem>;

/// Reads the `WorkItem`; `None` also while it is being deleted.
pub(crate) async fn read(context: &Context, key: &ItemRef) -> Result<Option<WorkItem>, Error> {
    Ok(find(context, key).await?.filter(|item| !is_terminating(item)))
}

async fn find(context: &Context, (namespace, name): &ItemRef) -> Result<Option<WorkItem>, Error> {
    let found = context.work_items(namespace).get_opt(name).await;
    found.map_err(|error| Error::new("reading", "WorkItem", namespace, name, error))
}

fn is_terminating(item: &WorkItem) -> bool {
    item.metadata.deletion_timestamp.is_some()
}

/// A `WorkItem` during one reconcile: read from the API server at most once, then what the last write returned. After a conflict it
/// is read again.
#[derive(Debug, Default)]
pub(crate) struct LoadedWorkItem(Option<(Option<ItemRef>, Option<WorkItem>)>);

impl LoadedWorkItem {
    /// The `WorkItem` of `key` if it was read, else `cached`.
    pub(crate) fn or_cached<'a>(&'a self, key: Option<&ItemRef>, cached: Option<&'a WorkItem>) -> Option<&'a WorkItem> {
        match &self.0 {
            Some((known, item)) if known.as_ref() == key => item.as_ref().filter(|item| !is_terminating(item)),
            _ => cached,
        }
    }

    /// The `WorkItem` of `key`, which is read unless it was; `None` also without a key.
    pub(crate) async fn get(&mut self, context: &Context, key: Option<&ItemRef>) -> Result<Option<&WorkItem>, Error> {
        let is_loaded = self.0.as_ref().is_some_and(|(known, _)| known.as_ref() == key);
        if !is_loaded {
            let item = match key {
                Some(key) => find(context, key).await?,
                None => None,
            };
            self.0 = Some((key.cloned(), item));
        }
        Ok(self.item().filter(|item| !is_terminating(item)))
    }

    /// Whether the `WorkItem` that was read is being deleted: another one of its name cannot be created yet.
    pub(crate) fn is_terminating(&self) -> bool {
        self.item().is_some_and(is_terminating)
    }

    fn item(&self) -> Option<&WorkItem> {
        self.0.as_ref()?.1.as_ref()
    }

    /// Takes over the result of a write.
    pub(crate) fn update(&mut self, result: &WorkItemResult) {
        match (result, &mut self.0) {
            (WorkItemResult::Changed(now), Some((_, item))) => *item = Some((**now).clone()),
            (WorkItemResult::Conflict, loaded) => *loaded = None,
            _ => {}
        }
    }
}

/// Writes the status that `change` computes from the one of `item`, which was read whole. `Unchanged`: it computes none.
pub(crate) async fn write(
    context: &Context,
    item: &WorkItem,
    change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
) -> Result<WorkItemResult, Error> {
    let before = item.status.clone().unwrap_or_default();
    let Some(status) = change(&before, Timestamp::now()) else {
        return Ok(WorkItemResult::Unchanged);
    };
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let api = context.work_items(&namespace);
    let with = |status: WorkItemStatus| WorkItem {
        status: Some(status),
        ..item.clone()
    };
    let fitted = with(policy::fit(&status));
    let mut written = api.replace_status(&name, &PostParams::default(), &fitted).await;
    if written.as_ref().is_err_and(is_invalid) {
        warn!(
            namespace,
            name, "the status of a WorkItem is invalid: only counts and ends are written"
        );
        let least = with(policy::minimal(&status));
        written = api.replace_status(&name, &PostParams::default(), &least).await;
    }
    match written {
        Ok(item) => Ok(WorkItemResult::Changed(Box::new(item))),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(WorkItemResult::Conflict),
        Err(error) => Err(Error::new("writing", "WorkItem", &namespace, &name, error)),
    }
}

/// Deletes the version of `item` that was read: whether it is gone now. `doing` is for the error.
pub(crate) async fn delete(context: &Context, item: &WorkItem, doing: &'static str) -> Result<Deletion, Error> {
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let params = delete_only(item.uid(), item.resource_version());
    match context.work_items(&namespace).delete(&name, &params).await {
        Ok(_) => Ok(Deletion::Deleted),
        Err(error) if is_absent(&error) => Ok(Deletion::Absent),
        Err(error) if is_conflict(&error) => Ok(Deletion::Conflict),
        Err(error) => Err(Error::new(doing, "WorkItem", &namespace, &name, error)),
    }
}

/// The result of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deletion {
    Deleted,
    /// It was gone before.
    Absent,
    /// Another client wrote it since it was read.
    Conflict,
}

/// Whether the breaker of `item` is open or half-open.
pub(crate) fn is_tripped(item: &WorkItem) -> bool {
    let breaker = item.status.as_ref().and_then(|status| status.breaker);
    matches!(breaker, Some(Breaker::Open | Breaker::HalfOpen))
}

/// What the status of `item` says about retries.
pub(crate) fn retry_status(item: &WorkItem) -> RetryStatus {
    let status = item.status.as_ref();
    status.and_then(|status| status.retry.clone()).unwrap_or_default()
}

/// The retry of `item` that is under way.
pub(crate) fn transition_of(item: &WorkItem) -> Option<&Transition> {
    item.status.as_ref()?.retry.as_ref()?.transition.as_ref()
}
