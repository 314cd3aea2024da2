//! What each change of the cluster cache leads to: indexes are filled, and Tasks, items and spawners are enqueued.
//!
//! Whatever is computed from all objects of a kind is built from the first batch of its subscription, when this replica starts to
//! lead.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{ResourceExt as _, api::DynamicObject};
use taskgate_api::{WorkItem, keys, task_policy::RetriedKind};
use taskgate_cache::{ClusterCache, NamespacedName, ObjectChange};
use taskgate_policy::{KnownPolicies, TaskState};
use tokio::{
    sync::{mpsc, watch},
    task::yield_now,
    time::sleep,
};

use super::Reconcilers;
use crate::{
    breaker::spawner_status::{self, SpawnerRef},
    context::Context,
    kubernetes::json_of,
};

/// How long a change of policies waits for others.
const QUIET: Duration = Duration::from_millis(500);
/// How many Tasks are enqueued before others get the thread.
const YIELD_EVERY: usize = 200;

/// The work queue of Tasks.
#[derive(Clone, Debug)]
pub(crate) struct TaskQueue(mpsc::UnboundedSender<NamespacedName>);

impl TaskQueue {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<NamespacedName>) {
        let (sender, enqueued) = mpsc::unbounded_channel();
        (Self(sender), enqueued)
    }

    pub(crate) fn enqueue(&self, namespace: &str, task: &str) {
        // Fails only when the controller is dropped, or without Kelos.
        let _ = self.0.send(NamespacedName::new(namespace, task));
    }

    fn enqueue_object(&self, task: &DynamicObject) {
        self.enqueue(&task.namespace().unwrap_or_default(), &task.name_any());
    }
}

/// Follows `WorkItem`s, once the cache is filled and its watches work: a change concerns the item's Tasks, its retries and its
/// spawner. The first batch lets the controller start.
pub(crate) async fn follow_work_items(
    reconcilers: &Reconcilers,
    with_kelos: bool,
    queue: &TaskQueue,
    spawners: &mpsc::UnboundedSender<SpawnerRef>,
) {
    let context = &*reconcilers.context;
    // A stale cache lacks what the last leader wrote.
    context.cache.wait_until_current().await;
    if with_kelos {
        // The cache may not know yet that Kelos is installed by now.
        context.cache.spawners().wait_until_followed().await;
        context.cache.tasks().wait_until_followed().await;
    }
    let mut work_items = context.cache.work_items().subscribe();
    while let Some(changes) = work_items.next().await {
        for change in changes {
            reconcilers.breaker.work_item_changed(&change);
            let deleted = change.new.is_none();
            if let Some(item) = change.new.or(change.old) {
                work_item_changed(reconcilers, &item.expand(), deleted, queue, spawners);
            }
        }
        context.started.send_replace(true);
    }
}

fn work_item_changed(
    reconcilers: &Reconcilers,
    item: &WorkItem,
    deleted: bool,
    queue: &TaskQueue,
    spawners: &mpsc::UnboundedSender<SpawnerRef>,
) {
    let namespace = item.namespace().unwrap_or_default();
    for task in reconcilers.context.task_index.of(&(namespace.clone(), item.name_any())) {
        queue.enqueue(&namespace, &task.name);
    }
    reconcilers.sources.refresh();
    reconcilers.retry.work_item_changed(item, deleted);
    if let Some(spawner) = item.spec.spawner.clone() {
        let _ = spawners.send((namespace, spawner));
    }
}

/// Follows Tasks, keeps their indexes, and enqueues those that change.
pub(crate) async fn follow_tasks(reconcilers: &Reconcilers, queue: &TaskQueue) {
    let mut tasks = reconcilers.context.cache.tasks().subscribe();
    while let Some(changes) = tasks.next().await {
        for change in changes {
            task_changed(reconcilers, &change, queue);
        }
        reconcilers.context.task_index.set_filled();
    }
}

fn task_changed(reconcilers: &Reconcilers, change: &ObjectChange<DynamicObject>, queue: &TaskQueue) {
    let (index, siblings) = (&reconcilers.context.task_index, &reconcilers.cancellation.siblings);
    let namespace = &change.key.namespace;
    let state_of = |object: &Arc<DynamicObject>| {
        let json = json_of(&**object);
        TaskState::of(&json).map(|state| (json, state))
    };
    let (old, new) = (
        change.old.as_ref().and_then(state_of),
        change.new.as_ref().and_then(state_of),
    );
    if let Some((_, old)) = &old {
        // Another Task may have its name, or it may have been moved to another item.
        let stays = |new: &TaskState| (&new.uid, &new.work_item) == (&old.uid, &old.work_item);
        if !new.as_ref().is_some_and(|(_, new)| stays(new)) {
            siblings.remove(&old.uid);
            index.remove(namespace, old);
        }
    }
    let deleted = change.new.is_none();
    if let Some((json, state)) = new {
        // A newer Task of an item may end the older ones.
        for older in siblings.put(namespace, &json, &state) {
            queue.enqueue(namespace, &older);
        }
        index.put(namespace, state);
        reconcilers.retry.object_changed(RetriedKind::Task, &json, deleted);
    } else if let Some((json, _)) = old {
        reconcilers.retry.object_changed(RetriedKind::Task, &json, deleted);
    }
    reconcilers.sources.refresh();
    queue.enqueue(namespace, &change.key.name);
}

/// Enqueues everything that policies decide about, when all policies are known and whenever they change: of a namespace if only
/// policies of that namespace changed. A user who may write policies may write them all the time, hence the quiet time.
pub(crate) async fn follow_policies(reconcilers: &Reconcilers, queue: &TaskQueue, changed: &watch::Sender<()>) {
    let context = &*reconcilers.context;
    context.ready().await;
    let mut known = context.cache.known_policies();
    let mut before = Arc::default();
    loop {
        let now = Arc::clone(&known.borrow_and_update());
        reconcilers.sources.refresh();
        let tasks = match changed_namespaces(&before, &now) {
            Some(namespaces) => namespaces
                .iter()
                .flat_map(|namespace| context.cache.tasks().in_namespace(namespace))
                .collect(),
            None => context.cache.tasks().all(),
        };
        for (index, task) in tasks.iter().enumerate() {
            reconcilers
                .retry
                .object_changed(RetriedKind::Task, &json_of(&**task), false);
            queue.enqueue_object(task);
            if index % YIELD_EVERY == YIELD_EVERY - 1 {
                yield_now().await;
            }
        }
        reconcilers.retry.policies_changed();
        before = now;
        changed.send_replace(());
        // An error means that the cache is dropped, and this with it.
        if known.changed().await.is_err() {
            return;
        }
        sleep(QUIET).await;
    }
}

/// The namespaces whose policies differ; `None` if policies of the cluster do, or at the start.
fn changed_namespaces(before: &KnownPolicies, now: &KnownPolicies) -> Option<BTreeSet<String>> {
    if before.complete != now.complete {
        return None;
    }
    let names = before.states.keys().chain(now.states.keys());
    let changed = names.filter(|name| before.states.get(name) != now.states.get(name));
    changed.map(|name| name.namespace().map(ToOwned::to_owned)).collect()
}

/// Follows TaskSpawners, and enqueues one whose `failedItems` another client changed: a user who resets an item, or a write of Kelos
/// that dropped them.
pub(crate) async fn follow_spawners(context: &Context, spawners: &mpsc::UnboundedSender<SpawnerRef>) {
    context.ready().await;
    let mut changes = context.cache.spawners().subscribe();
    let mut schemas = context.cache.kelos_schemas();
    loop {
        let changes = tokio::select! {
            changes = changes.next() => match changes {
                Some(changes) => changes,
                None => return,
            },
            // Kelos' schema may have the field now.
            known = schemas.changed() => match known {
                Ok(()) => {
                    spawner_status::enqueue_all(context, spawners);
                    continue;
                }
                Err(_) => return,
            },
        };
        for ObjectChange { key, old, new } in changes {
            let Some(new) = new else { continue };
            let is_same = match &old {
                Some(old) => (&old.failed_items, &old.resets) == (&new.failed_items, &new.resets),
                None => new.failed_items.is_empty() && new.resets.is_empty(),
            };
            if !is_same {
                let _ = spawners.send((key.namespace, key.name));
            }
        }
    }
}

/// Enqueues the Tasks with taskgate's finalizer in namespaces that are opted out: the finalizer is removed now, not when the Tasks
/// change next.
pub(crate) async fn follow_namespaces(cache: &ClusterCache, queue: &TaskQueue) {
    let mut namespaces = cache.namespaces().subscribe();
    while let Some(changes) = namespaces.next().await {
        let opted_out = |change: &ObjectChange<_>| change.new.as_deref().is_some_and(keys::is_opted_out);
        for namespace in changes.into_iter().filter(opted_out) {
            let tasks = cache.tasks().in_namespace(&namespace.key.name);
            let has_finalizer = |task: &&Arc<DynamicObject>| {
                let mut finalizers = task.finalizers().iter();
                finalizers.any(|finalizer| finalizer == keys::ACCOUNTING)
            };
            tasks
                .iter()
                .filter(has_finalizer)
                .for_each(|task| queue.enqueue_object(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use taskgate_policy::{Acceptance, PolicyName, PolicyState};

    use super::*;

    fn known(policies: &[(&str, i64)]) -> KnownPolicies {
        let state = |(place, generation): &(&str, i64)| {
            let name = match place.split_once('/') {
                Some((namespace, name)) => PolicyName::Namespaced {
                    namespace: namespace.into(),
                    name: name.into(),
                },
                None => PolicyName::Cluster { name: (*place).into() },
            };
            let state = PolicyState {
                uid: "u".into(),
                generation: *generation,
                acceptance: Acceptance::InForce,
            };
            (name, state)
        };
        KnownPolicies {
            states: policies.iter().map(state).collect(),
            complete: true,
            ..KnownPolicies::default()
        }
    }

    #[test]
    fn only_namespaces_whose_policies_changed_are_enqueued_and_all_where_a_cluster_policy_did() {
        let before = known(&[("a/p", 1), ("b/p", 1), ("c/p", 1), ("all", 1)]);
        let changed = |policies: &[(&str, i64)]| {
            let namespaces = changed_namespaces(&before, &known(policies))?;
            Some(namespaces.into_iter().collect::<Vec<_>>().join(" "))
        };
        // A new generation in one, deleted in another, created in a third.
        let after = [("a/p", 2), ("c/p", 1), ("d/p", 1), ("all", 1)];
        assert_eq!(changed(&after).as_deref(), Some("a b d"));
        assert_eq!(changed(&[("a/p", 1), ("b/p", 1), ("c/p", 1), ("all", 2)]), None);
        assert_eq!(changed_namespaces(&KnownPolicies::default(), &before), None);
    }
}
