//! The ledger in the cluster: each write names the version that it was computed from, so whoever loses a race looks again.

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{RetryStatus, Transition},
};
use taskgate_policy::ItemIdentity;

use crate::{
    context::Context,
    error::Error,
    ledger::{self, Made},
    tasks::ItemRef,
};

/// What became of a write.
pub(crate) enum Written {
    /// The item is now this.
    Now(Box<WorkItem>),
    /// It says so already.
    Before,
    /// Somebody else was faster, or the item is gone: look again.
    Conflict,
    /// Another one of its name is being deleted.
    Going,
    /// Its namespace ends.
    Abandon,
}

/// The item, read consistently.
pub(crate) async fn read(context: &Context, (namespace, name): &ItemRef) -> Result<Option<WorkItem>, Error> {
    ledger::read(context, namespace, name).await
}

/// Writes what `change` makes of the status of `item`.
pub(crate) async fn write(
    context: &Context,
    item: &WorkItem,
    change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
) -> Result<Written, Error> {
    let old = item.status.clone().unwrap_or_default();
    let Some(status) = change(&old, Timestamp::now()) else {
        return Ok(Written::Before);
    };
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let mut item = item.clone();
    item.status = Some(status);
    let written = ledger::replace(context, &namespace, &name, &item).await?;
    Ok(written.map_or(Written::Conflict, |item| Written::Now(Box::new(item))))
}

/// Makes the memory of an item that has none yet.
pub(crate) async fn create(context: &Context, namespace: &str, identity: &ItemIdentity) -> Result<Written, Error> {
    let item = identity.work_item(&identity.work_item_name());
    Ok(match ledger::make(context, namespace, &item).await? {
        Made::Now(item) => Written::Now(item),
        Made::Conflict => Written::Conflict,
        Made::Going => Written::Going,
        Made::Abandon => Written::Abandon,
    })
}

/// What the ledger of `item` says.
pub(crate) fn ledger_of(item: &WorkItem) -> RetryStatus {
    let status = item.status.as_ref();
    status.and_then(|status| status.retry.clone()).unwrap_or_default()
}

/// The retry of `item` that is under way.
pub(crate) fn transition_of(item: &WorkItem) -> Option<&Transition> {
    item.status.as_ref()?.retry.as_ref()?.transition.as_ref()
}

/// The condition about retries of `item`, for people: why, and in which words.
pub(crate) fn said(item: &WorkItem) -> Option<(&str, &str)> {
    let condition = taskgate_policy::retry::condition(item.status.as_ref()?)?;
    Some((&condition.reason, &condition.message))
}

/// What Events about `item` refer to.
pub(crate) fn reference(item: &WorkItem) -> k8s_openapi::api::core::v1::ObjectReference {
    item.object_ref(&())
}
