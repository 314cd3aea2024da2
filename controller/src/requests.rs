//! What users ask of a `WorkItem` with its annotations ([`keys::REQUESTS`]): to forget its failures, or to run a failed object
//! again. Admission stamps who asked; here it is carried out, and the annotations are taken off.

use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
    runtime::events::EventType,
};
use serde_json::{Map, Value, json};
use taskgate_api::{WorkItem, keys, retry_status::RetryOrder};
use taskgate_policy::{failures_to_reset, reset_by};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    events, ledger,
    retry::memory::{self, Written},
};

/// Whether something is asked of `item`.
pub(crate) fn is_asked(item: &WorkItem) -> bool {
    keys::REQUESTS
        .iter()
        .any(|(key, _)| item.annotations().contains_key(*key))
}

/// Which object `item` is asked to run again, and by whom. Nothing that admission did not stamp.
pub(crate) fn retry(item: &WorkItem) -> Option<(RetryOrder, &str)> {
    let by = item.annotations().get(keys::RETRY_BY)?;
    let order = RetryOrder::parse(item.annotations().get(keys::RETRY)?).ok()?;
    Some((order, by))
}

/// Forgets the failures of `item`, where a user asks for it; `None` where none does.
pub(crate) async fn reset(context: &Context, item: &WorkItem) -> Result<Option<Written>, Error> {
    let Some(why) = item.annotations().get(keys::RESET) else {
        return Ok(None);
    };
    let Some(by) = item.annotations().get(keys::RESET_BY) else {
        let note = "not reset: taskgate did not see who asked for it, as this namespace is not sent to it";
        tell(context, item, EventType::Warning, note).await;
        return withdraw(context, item, [keys::RESET, keys::RESET_BY]).await.map(Some);
    };
    let forgotten = item.status.as_ref().and_then(failures_to_reset);
    let written = memory::write(context, item, |status, now| reset_by(status, by, why, now)).await?;
    let now = match written {
        Written::Now(now) => {
            let forgotten = forgotten.unwrap_or_default();
            let note = format!("{forgotten} forgotten, asked for by {by}: {why}");
            tell(context, &now, EventType::Normal, &note).await;
            now
        }
        Written::Before => Box::new(item.clone()),
        written => return Ok(Some(written)),
    };
    withdraw(context, &now, [keys::RESET, keys::RESET_BY]).await.map(Some)
}

/// Takes the order to run an object again off `item`: it is carried out, or cannot be.
pub(crate) async fn end_retry(context: &Context, item: &WorkItem) -> Result<Written, Error> {
    withdraw(context, item, [keys::RETRY, keys::RETRY_BY]).await
}

async fn withdraw(context: &Context, item: &WorkItem, keys: [&str; 2]) -> Result<Written, Error> {
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let nothing: Map<String, Value> = keys.into_iter().map(|key| (key.to_owned(), Value::Null)).collect();
    let change = json!({"metadata": {
        "uid": item.uid(), "resourceVersion": item.resource_version(), "annotations": nothing,
    }});
    let items = context.work_items(&namespace);
    match items.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
        Ok(item) => Ok(Written::Now(Box::new(item))),
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(Written::Conflict),
        Err(error) => Err(ledger::failed("patching", &namespace, &name, error)),
    }
}

async fn tell(context: &Context, item: &WorkItem, type_: EventType, note: &str) {
    let regarding = memory::reference(item);
    events::publish(context, type_, "CircuitReset", "Reset", note, &regarding).await;
}
