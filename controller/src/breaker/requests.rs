//! Carries out what users ask of a `WorkItem` with its annotations ([`keys::REQUESTS`]): to reset its failures, or to retry a failed
//! object. Admission stamps who asked; the annotations are removed here once they are carried out.

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::{Map, Value, json};
use taskgate_api::{WorkItem, keys, retry_status::RetryOrder};
use taskgate_policy::{failures_to_reset, reset_by};

use super::events;
use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    work_items::{self, WorkItemResult},
};

/// Whether a user asks for something.
pub(crate) fn is_requested(item: &WorkItem) -> bool {
    keys::REQUESTS
        .iter()
        .any(|(key, _)| item.annotations().contains_key(*key))
}

/// Which object a user asks to retry, and which user. A request without admission's stamp is none.
pub(crate) fn requested_retry(item: &WorkItem) -> Option<(RetryOrder, &str)> {
    let by = item.annotations().get(keys::RETRY_BY)?;
    let order = RetryOrder::parse(item.annotations().get(keys::RETRY)?).ok()?;
    Some((order, by))
}

/// Resets the failures of `item`, if a user asks for it; `None` if none does.
pub(crate) async fn reset(context: &Context, item: &WorkItem) -> Result<Option<WorkItemResult>, Error> {
    let Some(why) = item.annotations().get(keys::RESET) else {
        return Ok(None);
    };
    let Some(by) = item.annotations().get(keys::RESET_BY) else {
        let note = "not reset: taskgate did not see who asked for it, as this namespace is not sent to it";
        events::reset(context, EventType::Warning, item, note);
        return remove(context, item, [keys::RESET, keys::RESET_BY]).await.map(Some);
    };
    let failures = item.status.as_ref().and_then(failures_to_reset);
    let written = work_items::write(context, item, |status, now| reset_by(status, by, why, now)).await?;
    let now = match written {
        WorkItemResult::Changed(now) => {
            let note = format!("{} reset, asked for by {by}: {why}", failures.unwrap_or_default());
            events::reset(context, EventType::Normal, &now, &note);
            now
        }
        WorkItemResult::Unchanged => Box::new(item.clone()),
        result => return Ok(Some(result)),
    };
    remove(context, &now, [keys::RESET, keys::RESET_BY]).await.map(Some)
}

/// Removes the request to retry an object: it is carried out, or cannot be.
pub(crate) async fn remove_retry(context: &Context, item: &WorkItem) -> Result<WorkItemResult, Error> {
    remove(context, item, [keys::RETRY, keys::RETRY_BY]).await
}

async fn remove(context: &Context, item: &WorkItem, keys: [&str; 2]) -> Result<WorkItemResult, Error> {
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let annotations: Map<String, Value> = keys.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
    let change = json!({"metadata": {
        "uid": item.uid(), "resourceVersion": item.resource_version(), "annotations": annotations,
    }});
    let items = context.work_items(&namespace);
    match items.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
        Ok(item) => Ok(WorkItemResult::Changed(Box::new(item))),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(WorkItemResult::Conflict),
        Err(error) => Err(Error::new("patching", "WorkItem", &namespace, &name, error)),
    }
}
