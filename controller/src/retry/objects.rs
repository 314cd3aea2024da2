//! The objects that may be retried, by the item that they belong to, as the watches showed them last.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use serde_json::Value;
use taskgate_api::{WorkItem, kelos::Task, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::{
    ItemIdentity, PolicyScope,
    retry::{Retried, RunPhase},
};

use super::RetryReconciler;
use crate::task_index::ItemRef;

/// A kind and a name; the namespace is the item's.
pub(super) type ObjectKey = (RetriedKind, String);

/// What the retry of an object depends on.
#[derive(Clone, Debug)]
pub(super) struct RetriedObject {
    pub(super) phase: RunPhase,
    pub(super) identity: ItemIdentity,
    /// Whether a policy retries it, or would.
    pub(super) governed: bool,
}

/// The objects of each item.
#[derive(Debug, Default)]
pub(crate) struct RetriedObjects {
    tables: RwLock<ObjectTables>,
}

#[derive(Debug, Default)]
struct ObjectTables {
    by_item: HashMap<ItemRef, BTreeMap<ObjectKey, RetriedObject>>,
    item_of: HashMap<(String, ObjectKey), ItemRef>,
}

impl RetriedObjects {
    /// Adds, replaces or removes an object; returns its item, and the one that it belonged to before.
    pub(super) fn set(&self, namespace: &str, key: &ObjectKey, object: Option<RetriedObject>) -> Vec<ItemRef> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let full_key = (namespace.to_owned(), key.clone());
        let mut touched = Vec::new();
        if let Some(item) = tables.item_of.remove(&full_key) {
            if let Some(objects) = tables.by_item.get_mut(&item) {
                objects.remove(key);
                if objects.is_empty() {
                    tables.by_item.remove(&item);
                }
            }
            touched.push(item);
        }
        if let Some(object) = object {
            let item = (namespace.to_owned(), object.identity.work_item_name());
            tables
                .by_item
                .entry(item.clone())
                .or_default()
                .insert(key.clone(), object);
            tables.item_of.insert(full_key, item.clone());
            if touched.first() != Some(&item) {
                touched.push(item);
            }
        }
        touched
    }

    /// Removes all objects of one kind: they are listed anew.
    pub(super) fn clear(&self, kind: RetriedKind) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.item_of.retain(|(_, key), _| key.0 != kind);
        for objects in tables.by_item.values_mut() {
            objects.retain(|key, _| key.0 != kind);
        }
        tables.by_item.retain(|_, objects| !objects.is_empty());
    }

    /// The objects of an item.
    pub(super) fn of(&self, item: &ItemRef) -> Vec<(ObjectKey, RetriedObject)> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let objects = tables.by_item.get(item).into_iter().flatten();
        objects.map(|(key, object)| (key.clone(), object.clone())).collect()
    }

    /// Whether an item has objects.
    pub(crate) fn has(&self, item: &ItemRef) -> bool {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.by_item.contains_key(item)
    }
}

/// Key and entry of `object`; `None` for an object that is never retried.
pub(super) fn entry_of(
    retry: &RetryReconciler,
    kind: RetriedKind,
    object: &Value,
) -> Option<(String, ObjectKey, RetriedObject)> {
    let retried = Retried::of(kind, object).filter(|_| retry.kinds.contains(&kind))?;
    let metadata = retried.metadata();
    let namespace = metadata.namespace()?.to_owned();
    let key = (kind, metadata.name()?.to_owned());
    let policies = retry.context.policies();
    let labels = retry.context.namespace_labels(&namespace);
    let rule = PolicyScope::new(&policies, &namespace, &labels, None).retry(retried.kind(), retried.object());
    let entry = RetriedObject {
        phase: retried.phase(),
        identity: identity(retry, retried),
        governed: rule.is_some_and(|found| !retried.is_left_to_bridge(found.rule)),
    };
    Some((namespace, key, entry))
}

/// Whether `retried` belongs to `item`: its key decides, and no field that a user may write.
pub(super) fn is_of(retry: &RetryReconciler, item: &WorkItem, retried: Retried<'_>) -> bool {
    item.spec.key == identity(retry, retried).key || item.spec.key == retried.item().key
}

/// The item of an object; of a Task that the breaker governs, the breaker's.
pub(super) fn identity(retry: &RetryReconciler, retried: Retried<'_>) -> ItemIdentity {
    let namespace = Metadata::of(retried.object()).namespace().unwrap_or_default();
    let of_breaker = || {
        let policies = retry.context.policies();
        let labels = retry.context.namespace_labels(namespace);
        PolicyScope::new(&policies, namespace, &labels, None)
            .failure(retried.object())?
            .item
    };
    let is_task = retried.kind() == RetriedKind::Task && Task::of(retried.object()).spawner().is_none();
    is_task.then(of_breaker).flatten().unwrap_or_else(|| retried.item())
}
