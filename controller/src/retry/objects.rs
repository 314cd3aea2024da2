//! The objects that may be retried, by the item that they belong to, as the watches showed them last. Tasks come from the cluster
//! cache; Foreman's Workloads are watched here while Foreman is installed.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
};

use futures::StreamExt as _;
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use parking_lot::RwLock;
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem,
    foreman::{GROUP, VERSIONS, WORKLOADS},
    kelos::Task,
    task_policy::RetriedKind,
};
use taskgate_policy::{
    ItemIdentity,
    retry::{Retried, RunPhase},
};
use tracing::{debug, info};

use super::{RetryReconciler, reads::foreman_resource};
use crate::{
    context::ItemRef,
    kubernetes::{
        crd::{served, while_installed},
        json_of, namespace_of,
    },
};

/// A kind and a name; the namespace is the item's.
pub(super) type ObjectKey = (RetriedKind, String);

/// What the retry of an object depends on.
#[derive(Clone, Debug)]
pub(super) struct RetriedObject {
    pub(super) uid: String,
    pub(super) phase: RunPhase,
    identity: ItemIdentity,
    /// Whether a policy retries it, or would.
    pub(super) governed: bool,
    /// The Workload, for when the policies change.
    workload: Option<Arc<Value>>,
}

/// The objects of each item.
#[derive(Debug, Default)]
pub(crate) struct RetriedObjects(RwLock<ObjectTables>);

#[derive(Debug, Default)]
struct ObjectTables {
    by_item: BTreeMap<(ItemRef, ObjectKey), RetriedObject>,
    item_of: HashMap<(String, ObjectKey), ItemRef>,
}

impl ObjectTables {
    fn of(&self, item: &ItemRef) -> impl Iterator<Item = (&ObjectKey, &RetriedObject)> {
        let first = (
            item.clone(),
            (RetriedKind::Workload.min(RetriedKind::Task), String::new()),
        );
        let objects = self.by_item.range(first..).map(|((of, key), object)| (of, key, object));
        let own = objects.take_while(move |(of, ..)| *of == item);
        own.map(|(_, key, object)| (key, object))
    }
}

impl RetriedObjects {
    /// Adds, replaces or removes an object; returns its item, and the one that it belonged to before.
    fn set(&self, namespace: &str, key: &ObjectKey, object: Option<RetriedObject>) -> Vec<ItemRef> {
        let mut tables = self.0.write();
        let full_key = (namespace.to_owned(), key.clone());
        let mut touched = Vec::new();
        if let Some(item) = tables.item_of.remove(&full_key) {
            tables.by_item.remove(&(item.clone(), key.clone()));
            touched.push(item);
        }
        if let Some(object) = object {
            let item = (namespace.to_owned(), object.identity.work_item_name());
            tables.by_item.insert((item.clone(), key.clone()), object);
            tables.item_of.insert(full_key, item.clone());
            if touched.first() != Some(&item) {
                touched.push(item);
            }
        }
        touched
    }

    /// Removes all Workloads: they are listed anew.
    fn clear_workloads(&self) {
        let mut tables = self.0.write();
        tables
            .item_of
            .retain(|(_, (kind, _)), _| *kind != RetriedKind::Workload);
        tables
            .by_item
            .retain(|(_, (kind, _)), _| *kind != RetriedKind::Workload);
    }

    fn workloads(&self) -> Vec<Arc<Value>> {
        let tables = self.0.read();
        tables
            .by_item
            .values()
            .filter_map(|object| object.workload.clone())
            .collect()
    }

    /// The objects of an item.
    pub(super) fn of(&self, item: &ItemRef) -> Vec<(ObjectKey, RetriedObject)> {
        let tables = self.0.read();
        tables
            .of(item)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect()
    }

    /// Whether an item has objects.
    pub(crate) fn has(&self, item: &ItemRef) -> bool {
        self.0.read().of(item).next().is_some()
    }
}

/// Stores an object that was written or deleted; returns its phase, and the items that it concerns. `None` for an object that is never
/// retried.
pub(super) fn store(
    retry: &RetryReconciler,
    kind: RetriedKind,
    object: &Value,
    deleted: bool,
) -> Option<(RunPhase, Vec<ItemRef>)> {
    let retried = Retried::of(kind, object).filter(|_| retry.kinds.contains(&kind))?;
    let namespace = retried.metadata().namespace()?;
    let key = (kind, retried.metadata().name()?.to_owned());
    let rule = retry.rule_of(namespace, retried);
    let entry = RetriedObject {
        uid: retried.uid().to_owned(),
        phase: retried.phase(),
        identity: identity(retry, retried),
        governed: rule.is_some_and(|found| !retried.is_left_to_bridge(&found.rule)),
        workload: (kind == RetriedKind::Workload).then(|| Arc::new(object.clone())),
    };
    let phase = entry.phase;
    Some((
        phase,
        retry.objects.set(namespace, &key, Some(entry).filter(|_| !deleted)),
    ))
}

/// Whether `retried` belongs to `item`: its key decides, and no field that a user may write.
pub(super) fn is_of(retry: &RetryReconciler, item: &WorkItem, retried: Retried<'_>) -> bool {
    item.spec.key == identity(retry, retried).key || item.spec.key == retried.item().key
}

/// The item of an object; of a Task that the breaker governs, the breaker's.
pub(super) fn identity(retry: &RetryReconciler, retried: Retried<'_>) -> ItemIdentity {
    let object = retried.object();
    let is_task = retried.kind() == RetriedKind::Task && Task::of(object).spawner().is_none();
    let of_breaker = || {
        let context = &retry.context;
        context.in_scope(namespace_of(object), None, |policies| policies.failure(object)?.item)
    };
    is_task.then(of_breaker).flatten().unwrap_or_else(|| retried.item())
}

/// Watches Foreman's CRD and its Workloads. Never ends.
pub(super) async fn follow_foreman(retry: &RetryReconciler) {
    let client = &retry.context.client;
    let absent = || {
        *retry.foreman.write() = None;
        retry.objects.clear_workloads();
        info!("Foreman is not installed");
    };
    let present = || async {
        let version = served(client, GROUP, &VERSIONS).await;
        *retry.foreman.write() = Some(version);
        info!(version, "watching Foreman's Workloads");
        follow_workloads(retry, version).await;
    };
    while_installed(client, &format!("{WORKLOADS}.{GROUP}"), absent, present).await;
}

/// Every change of a Workload.
async fn follow_workloads(retry: &RetryReconciler, version: &str) {
    retry.context.ready().await;
    let resource = foreman_resource(version, "Workload", WORKLOADS);
    let api = Api::<DynamicObject>::all_with(retry.context.client.clone(), &resource);
    let watch = watcher(api, watcher::Config::default()).default_backoff().modify(trim);
    let mut events = pin!(watch);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                retry.object_changed(RetriedKind::Workload, &json_of(&object), false);
            }
            Ok(Event::Delete(object)) => retry.object_changed(RetriedKind::Workload, &json_of(&object), true),
            Ok(Event::Init) => retry.objects.clear_workloads(),
            // Items may wait for an object that was deleted meanwhile.
            Ok(Event::InitDone) => retry.enqueue_all(),
            Err(error) => debug!(%error, "the watch of Workloads is interrupted"),
        }
    }
}

/// Evaluates all Workloads under the current policies.
pub(super) fn reconsider_workloads(retry: &RetryReconciler) {
    for workload in retry.objects.workloads() {
        retry.object_changed(RetriedKind::Workload, &workload, false);
    }
}

/// Removes from a Workload what does not decide whether it is reconciled: intent, steps and conditions.
fn trim(object: &mut DynamicObject) {
    object.metadata.managed_fields = None;
    let kept = |pointer: &str| object.data.pointer(pointer).cloned().unwrap_or_default();
    object.data = json!({
        "spec": {"repo": kept("/spec/repo"), "issues": kept("/spec/issues")},
        "status": {"phase": kept("/status/phase")},
    });
}
