//! The objects that may be retried, by the item that they belong to: as the watches showed them last.

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

use crate::{context::Context, tasks::ItemRef};

/// A kind and a name; the namespace is the item's.
pub(super) type ObjectKey = (RetriedKind, String);

/// What is known of an object.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) phase: RunPhase,
    pub(super) identity: ItemIdentity,
    /// Whether a policy retries it, or would.
    pub(super) governed: bool,
}

/// The objects of each item.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    known: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    items: HashMap<ItemRef, BTreeMap<ObjectKey, Known>>,
    places: HashMap<(String, ObjectKey), ItemRef>,
}

impl Objects {
    /// Takes note of an object that is there, or went; returns its item, and the one that it belonged to before.
    pub(super) fn note(&self, namespace: &str, key: &ObjectKey, known: Option<Known>) -> Vec<ItemRef> {
        let mut tables = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let place = (namespace.to_owned(), key.clone());
        let mut touched = Vec::new();
        if let Some(item) = tables.places.remove(&place) {
            if let Some(objects) = tables.items.get_mut(&item) {
                objects.remove(key);
                if objects.is_empty() {
                    tables.items.remove(&item);
                }
            }
            touched.push(item);
        }
        if let Some(known) = known {
            let item = (namespace.to_owned(), known.identity.work_item_name());
            tables.items.entry(item.clone()).or_default().insert(key.clone(), known);
            tables.places.insert(place, item.clone());
            if touched.first() != Some(&item) {
                touched.push(item);
            }
        }
        touched
    }

    /// Forgets everything of one kind: it is listed anew.
    pub(super) fn clear(&self, kind: RetriedKind) {
        let mut tables = self.known.write().unwrap_or_else(PoisonError::into_inner);
        tables.places.retain(|(_, key), _| key.0 != kind);
        for objects in tables.items.values_mut() {
            objects.retain(|key, _| key.0 != kind);
        }
        tables.items.retain(|_, objects| !objects.is_empty());
    }

    /// The objects of an item.
    pub(super) fn of(&self, item: &ItemRef) -> Vec<(ObjectKey, Known)> {
        let tables = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let objects = tables.items.get(item).into_iter().flatten();
        objects.map(|(key, known)| (key.clone(), known.clone())).collect()
    }

    /// Whether an item has objects.
    pub(super) fn has(&self, item: &ItemRef) -> bool {
        let tables = self.known.read().unwrap_or_else(PoisonError::into_inner);
        tables.items.contains_key(item)
    }
}

/// What is to be known of `object`; `None` for what is never retried.
pub(super) fn know(context: &Context, kind: RetriedKind, object: &Value) -> Option<(String, ObjectKey, Known)> {
    let retried = Retried::of(kind, object).filter(|_| context.retries.contains(&kind))?;
    let metadata = retried.metadata();
    let namespace = metadata.namespace()?.to_owned();
    let key = (kind, metadata.name()?.to_owned());
    let policies = context.policies.current();
    let labels = context.policies.namespace_labels(&namespace);
    let rule = PolicyScope::new(&policies, &namespace, &labels, None).retry(retried.kind(), retried.object());
    let known = Known {
        phase: retried.phase(),
        identity: identity(context, retried),
        governed: rule.is_some_and(|found| !retried.is_left_to_bridge(found.rule)),
    };
    Some((namespace, key, known))
}

/// Whether `retried` belongs to `item`: by its key, not by what anybody wrote elsewhere.
pub(super) fn is_of(context: &Context, item: &WorkItem, retried: Retried<'_>) -> bool {
    item.spec.key == identity(context, retried).key || item.spec.key == retried.item().key
}

/// The item of an object: of a Task the one that its bookkeeping has, if it has one.
pub(super) fn identity(context: &Context, retried: Retried<'_>) -> ItemIdentity {
    let namespace = Metadata::of(retried.object()).namespace().unwrap_or_default();
    let kept = || {
        let policies = context.policies.current();
        let labels = context.policies.namespace_labels(namespace);
        PolicyScope::new(&policies, namespace, &labels, None)
            .failure(retried.object())?
            .item
    };
    let is_task = retried.kind() == RetriedKind::Task && Task::of(retried.object()).spawner().is_none();
    is_task.then(kept).flatten().unwrap_or_else(|| retried.item())
}
