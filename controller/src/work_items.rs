//! Reads and writes of `WorkItem`s. A status is written as a patch of the version that it was computed from: a client that loses a
//! race reads again. `breaker::work_item_limit` creates them.
//!
//! Imports `context`, `error`, `workqueue`. Called by `breaker`, `retry` and `source`.

use jiff::Timestamp;
use json_patch::{
    AddOperation, Patch as JsonPatch, PatchOperation, RemoveOperation, ReplaceOperation, diff, jsonptr::PointerBuf,
};
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{RetryStatus, Transition},
    work_item::Breaker,
};
use taskgate_policy as policy;
use tracing::warn;

use crate::{
    context::{Context, ItemRef},
    error::{Error, is_absent, is_conflict, is_invalid},
    kubernetes::{delete_only, json_of},
    workqueue::StepResult,
};

/// What a step for a `WorkItem` came to.
pub(crate) type WorkItemResult = StepResult<WorkItem>;

/// Reads the `WorkItem`; `None` also while it is being deleted.
pub(crate) async fn read(context: &Context, key: &ItemRef) -> Result<Option<WorkItem>, Error> {
    Ok(find(context, key).await?.filter(|item| !is_terminating(item)))
}

/// Reads the `WorkItem`, also while it is being deleted.
pub(crate) async fn find(context: &Context, (namespace, name): &ItemRef) -> Result<Option<WorkItem>, Error> {
    let found = context.work_items(namespace).get_opt(name).await;
    found.map_err(|error| Error::new("reading", "WorkItem", namespace, name, error))
}

fn is_terminating(item: &WorkItem) -> bool {
    item.metadata.deletion_timestamp.is_some()
}

/// A `WorkItem` during one reconcile: as the cache has it, then as it was read or written last.
#[derive(Debug)]
pub(crate) struct CurrentWorkItem {
    key: ItemRef,
    item: Option<Box<WorkItem>>,
    /// Whether `item` is the API server's answer to a request of this reconcile. The cache has fewer fields, and is some moments
    /// behind.
    is_read: bool,
}

impl CurrentWorkItem {
    /// As the cache has it.
    pub(crate) fn cached(context: &Context, key: ItemRef) -> Self {
        Self {
            item: context.cached_work_item(&key),
            key,
            is_read: false,
        }
    }

    pub(crate) fn key(&self) -> &ItemRef {
        &self.key
    }

    /// The `WorkItem`; `None` also while it is being deleted.
    pub(crate) fn get(&self) -> Option<&WorkItem> {
        self.item.as_deref().filter(|item| !is_terminating(item))
    }

    /// Whether it is being deleted: another one of its name cannot be created yet.
    pub(crate) fn is_terminating(&self) -> bool {
        self.item.as_deref().is_some_and(is_terminating)
    }

    /// Reads it, unless this reconcile has read or written it.
    pub(crate) async fn read(&mut self, context: &Context) -> Result<(), Error> {
        if self.is_read {
            Ok(())
        } else {
            self.read_again(context).await
        }
    }

    /// Reads it: another client wrote it.
    async fn read_again(&mut self, context: &Context) -> Result<(), Error> {
        self.item = find(context, &self.key).await?.map(Box::new);
        self.is_read = true;
        Ok(())
    }

    /// Takes over what a write returned.
    pub(crate) fn set(&mut self, item: WorkItem) {
        self.item = Some(Box::new(item));
        self.is_read = true;
    }

    /// Writes the status that `change` computes; whether it was written. After a conflict the `WorkItem` is read, and the next step
    /// starts from that.
    pub(crate) async fn write(
        &mut self,
        context: &Context,
        change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
    ) -> Result<bool, Error> {
        let Some(item) = self.get() else {
            return Ok(false);
        };
        match write_version(context, item, self.is_read, change).await? {
            WorkItemResult::Changed(now) => self.set(*now),
            WorkItemResult::Conflict => {
                self.read_again(context).await?;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Writes the status that `change` computes from the one of `item`, which was read whole. `Unchanged`: it computes none.
pub(crate) async fn write(
    context: &Context,
    item: &WorkItem,
    change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
) -> Result<WorkItemResult, Error> {
    write_version(context, item, true, change).await
}

/// `whole`: the cached form of an item lacks fields that [`policy::minimal`] keeps.
async fn write_version(
    context: &Context,
    item: &WorkItem,
    whole: bool,
    change: impl FnOnce(&WorkItemStatus, Timestamp) -> Option<WorkItemStatus>,
) -> Result<WorkItemResult, Error> {
    let Some(status) = change(&item.status.clone().unwrap_or_default(), context.now()) else {
        return Ok(WorkItemResult::Unchanged);
    };
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let mut written = patch_status(context, item, &policy::fit(&status)).await;
    if written.as_ref().is_err_and(is_invalid) {
        // The same answer says that the patch does not fit a newer version.
        let current = read(context, &(namespace.clone(), name.clone())).await?;
        if !whole || current.and_then(|current| current.resource_version()) != item.resource_version() {
            return Ok(WorkItemResult::Conflict);
        }
        warn!(
            namespace,
            name, "the status of a WorkItem is invalid: only counts and ends are written"
        );
        written = patch_status(context, item, &policy::minimal(&status)).await;
    }
    match written {
        Ok(now) => {
            let before = item.resource_version().unwrap_or_default();
            context.cache.work_item_written(&before, &now);
            Ok(WorkItemResult::Changed(Box::new(now)))
        }
        Err(error) if is_conflict(&error) || is_absent(&error) => Ok(WorkItemResult::Conflict),
        Err(error) => Err(Error::new("writing", "WorkItem", &namespace, &name, error)),
    }
}

async fn patch_status(context: &Context, item: &WorkItem, status: &WorkItemStatus) -> kube::Result<WorkItem> {
    let items = context.work_items(&item.namespace().unwrap_or_default());
    let patch = Patch::Json::<()>(status_patch(item, status));
    items
        .patch_status(&item.name_any(), &PatchParams::default(), &patch)
        .await
}

/// The smallest patch that gives this version of `item` the `status`: fields that the cache lacks stay as they are.
fn status_patch(item: &WorkItem, status: &WorkItemStatus) -> JsonPatch {
    let path = |tokens: &[&str]| PointerBuf::from_tokens(tokens.iter().copied());
    // The API server answers with a conflict if the object has another one.
    let mut operations = vec![PatchOperation::Replace(ReplaceOperation {
        path: path(&["metadata", "resourceVersion"]),
        value: item.resource_version().into(),
    })];
    if let Some(before) = &item.status {
        // Attempts are dropped from the front: each of the others stays itself.
        let is_kept = |uid: &str| status.attempts.iter().any(|attempt| attempt.uid == uid);
        let dropped = before.attempts.iter().take_while(|attempt| !is_kept(&attempt.uid));
        let dropped = dropped.count();
        operations.extend((0..dropped).map(|_| {
            PatchOperation::Remove(RemoveOperation {
                path: path(&["status", "attempts", "0"]),
            })
        }));
        let mut before = before.clone();
        before.attempts.drain(..dropped);
        operations.extend(diff(&json!({"status": before}), &json!({"status": status})).0);
    } else {
        operations.push(PatchOperation::Add(AddOperation {
            path: path(&["status"]),
            value: json_of(status),
        }));
    }
    JsonPatch(operations)
}

/// Deletes the version of `item` that was read. `Changed`: it is deleted now; `AwaitChange`: it was before. `doing` is for the error.
pub(crate) async fn delete(context: &Context, item: &WorkItem, doing: &'static str) -> Result<StepResult<()>, Error> {
    let (namespace, name) = (item.namespace().unwrap_or_default(), item.name_any());
    let params = delete_only(item.uid(), item.resource_version());
    let deleted = context.work_items(&namespace).delete(&name, &params).await;
    StepResult::of_write(deleted.map(drop)).map_err(|error| Error::new(doing, "WorkItem", &namespace, &name, error))
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

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use taskgate_api::work_item::Attempt;

    use super::*;

    fn attempt(uid: &str) -> Value {
        json!({"uid": uid, "name": format!("task-{uid}"), "outcome": "Failed", "reason": "Error"})
    }

    fn work_item(status: &Value) -> WorkItem {
        let metadata = json!({"name": "i", "namespace": "team", "resourceVersion": "7"});
        let spec = json!({"key": "i", "item": "i"});
        let item = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": metadata, "spec": spec, "status": status});
        serde_json::from_value(item).unwrap()
    }

    /// The item as the cache has it: without the details of attempts, and without conditions.
    fn trimmed(item: &WorkItem) -> WorkItem {
        let mut item = item.clone();
        if let Some(status) = &mut item.status {
            status.conditions.clear();
            for attempt in &mut status.attempts {
                attempt.name.clear();
                attempt.reason = None;
            }
        }
        item
    }

    #[test]
    fn a_patch_of_the_cached_status_keeps_what_the_cache_lacks() {
        let condition = json!({
            "type": "Retry", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let stored = work_item(&json!({
            "breaker": "Closed", "consecutiveFailures": 3, "reason": "Error", "openedAt": "2026-01-01T00:00:00Z",
            "attempts": [attempt("a"), attempt("b"), attempt("c")], "conditions": [condition],
        }));
        let cached = trimmed(&stored);
        let mut next = cached.status.clone().unwrap();
        next.attempts.remove(0);
        next.attempts[1].cost_usd = Some("1".into());
        next.attempts
            .push(serde_json::from_value::<Attempt>(attempt("d")).unwrap());
        (next.consecutive_failures, next.opened_at) = (4, None);

        let mut object = json_of(&stored);
        json_patch::patch(&mut object, &status_patch(&cached, &next)).unwrap();
        let mut last = attempt("c");
        last["costUSD"] = "1".into();
        let expected = json!({
            "breaker": "Closed", "consecutiveFailures": 4, "reason": "Error",
            "attempts": [attempt("b"), last, attempt("d")], "conditions": [condition],
        });
        assert_eq!(object["status"], expected);
        assert_eq!(object["metadata"]["resourceVersion"], "7", "a precondition");
    }

    #[test]
    fn a_first_status_and_an_unchanged_one() {
        let status = WorkItemStatus {
            consecutive_failures: 1,
            ..WorkItemStatus::default()
        };
        let new = work_item(&Value::Null);
        let mut object = json_of(&new);
        json_patch::patch(&mut object, &status_patch(&new, &status)).unwrap();
        assert_eq!(object["status"], json!({"consecutiveFailures": 1}));
        let same = WorkItem {
            status: Some(status.clone()),
            ..new
        };
        assert_eq!(status_patch(&same, &status).0.len(), 1, "the precondition only");
    }
}
