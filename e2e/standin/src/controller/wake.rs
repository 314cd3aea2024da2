//! Which change wakes which Task (kelos §6, "Watches").

use super::branch::lock_key;
use crate::cache::{Cache, Change, Key};
use crate::crds::CrdCapability;
use crate::keys;
use crate::queue::Queue;
use crate::types::{Task, Workspace};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

/// A Task wakes itself; a terminal one also those that depend on it or wait for its branch, in its own
/// namespace only (kelos §6.5).
pub(super) fn for_task(
    capability: CrdCapability,
    cache: &Cache<Task>,
    change: &Change<Task>,
    tasks: &Queue<Key>,
    pools: &Queue<Key>,
) {
    let Some(task) = change.object() else {
        return;
    };
    let key = Key::of(&**task);
    if task.spec.worker_pool_ref.is_some() {
        pools.add(key.clone());
    }
    if capability.is_terminal(task.phase()) {
        let lock = lock_key(task);
        for other in cache.list(&key.namespace) {
            let depends = other.spec.depends_on.contains(&key.name);
            let waits = other.phase() == "Waiting" && lock.is_some() && lock_key(&other) == lock;
            if other.name_any() != key.name && (depends || waits) {
                tasks.add(Key::of(&*other));
            }
        }
    }
    tasks.add(key);
}

/// A Job enqueues the Task that owns it. A foreign Job of the same name enqueues none.
pub(super) fn for_job(change: &Change<Job>, tasks: &Queue<Key>) {
    let Some(job) = change.object() else {
        return;
    };
    let owner = job.owner_references().iter().find(|owner| {
        owner.controller == Some(true) && owner.kind == "Task" && owner.api_version.starts_with("kelos.dev/")
    });
    if let Some(owner) = owner {
        tasks.add(Key::new(job.namespace().unwrap_or_default(), &owner.name));
    }
}

/// A Workspace wakes the Tasks whose flat field names it; `spec.worker` is not looked at.
pub(super) fn for_workspace(cache: &Cache<Task>, change: &Change<Workspace>, tasks: &Queue<Key>) {
    let Some(workspace) = change.object() else {
        return;
    };
    let key = Key::of(&**workspace);
    for task in cache.list(&key.namespace) {
        let named = task.spec.workspace_ref.as_ref();
        if named.is_some_and(|named| named.name == key.name) {
            tasks.add(Key::of(&*task));
        }
    }
}

/// A Task wakes its spawner's runtime, which counts active Tasks for pushed sources.
pub(super) fn spawner_of(change: &Change<Task>, spawners: &Queue<Key>) {
    if let Some(task) = change.object()
        && let Some(spawner) = task.labels().get(keys::SPAWNER)
    {
        spawners.add(Key::new(task.namespace().unwrap_or_default(), spawner));
    }
}
