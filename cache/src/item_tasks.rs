//! The Tasks of each work item, those included that were deleted a moment ago.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use kube::api::DynamicObject;
use taskgate_policy::{TaskPhase, TaskState};

use crate::store::{NamespacedName, ObjectChange, Observer};

/// How far a watch may be behind without an error, at most: a watch that delivers nothing, not even a bookmark, is ended by the
/// client after 295 seconds.
pub(crate) const LONGEST_LAG: Duration = Duration::from_mins(6);

/// The Tasks of each work item, by the label that admission sets. Changed under the lock of the Task store: a reader that finds a Task
/// in the store finds here everything that the store had before.
///
/// The events of one kind arrive in the order of their resourceVersion. A cache that has a Task therefore also has each Task that
/// was created before it, or has seen its deletion. The `WorkItem` in which the failure of such a deleted Task is recorded
/// belongs to another watch, which may be behind: until [`LONGEST_LAG`] after its deletion, the Task is kept for the comparison with
/// that status.
#[derive(Debug, Default)]
pub(crate) struct ItemTasks(RwLock<Content>);

#[derive(Debug, Default)]
struct Content {
    /// By the namespace and name of the `WorkItem`, then by UID.
    items: HashMap<NamespacedName, BTreeMap<String, Entry>>,
    /// When Tasks were deleted, in that order: the item, and the UID.
    deleted: VecDeque<(Instant, NamespacedName, String)>,
}

#[derive(Debug)]
struct Entry {
    state: TaskState,
    is_deleted: bool,
}

impl ItemTasks {
    /// The Tasks of a work item: with `deleted`, also those that were deleted within [`LONGEST_LAG`] and did not end well.
    pub(crate) fn of(&self, namespace: &str, work_item: &str, deleted: bool) -> Vec<TaskState> {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tasks = content.items.get(&NamespacedName::new(namespace, work_item));
        let entries = tasks.into_iter().flat_map(BTreeMap::values);
        let wanted = entries.filter(|entry| deleted || !entry.is_deleted);
        wanted.map(|entry| entry.state.clone()).collect()
    }

    /// Whether a work item has Tasks that are not deleted.
    pub(crate) fn has(&self, namespace: &str, work_item: &str) -> bool {
        let content = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tasks = content.items.get(&NamespacedName::new(namespace, work_item));
        tasks.is_some_and(|tasks| tasks.values().any(|entry| !entry.is_deleted))
    }
}

impl Observer<DynamicObject> for ItemTasks {
    fn changed(&self, changes: &[ObjectChange<DynamicObject>]) {
        let mut content = self.0.write().unwrap_or_else(PoisonError::into_inner);
        content.expire(Instant::now());
        for change in changes {
            let state = |object: &DynamicObject| TaskState::of(&serde_json::to_value(object).ok()?);
            let namespace = &change.key.namespace;
            let (old, new) = (
                change.old.as_deref().and_then(state),
                change.new.as_deref().and_then(state),
            );
            if let Some(old) = old {
                let replaced = new.as_ref().is_some_and(|new| new.uid == old.uid);
                content.remove(namespace, old, !replaced);
            }
            if let Some(new) = new {
                content.put(namespace, new, false);
            }
        }
    }
}

impl Content {
    fn put(&mut self, namespace: &str, state: TaskState, is_deleted: bool) {
        if let Some(work_item) = &state.work_item {
            let tasks = self.items.entry(NamespacedName::new(namespace, work_item)).or_default();
            tasks.insert(state.uid.clone(), Entry { state, is_deleted });
        }
    }

    /// Removes the entry of a Task that has a new state or, if `deleted`, no longer exists.
    fn remove(&mut self, namespace: &str, state: TaskState, deleted: bool) {
        let Some(work_item) = &state.work_item else { return };
        let item = NamespacedName::new(namespace, work_item);
        self.drop_entry(&item, &state.uid);
        if deleted && state.phase != TaskPhase::Succeeded {
            self.deleted.push_back((Instant::now(), item, state.uid.clone()));
            self.put(namespace, state, true);
        }
    }

    fn drop_entry(&mut self, item: &NamespacedName, uid: &str) {
        if let Some(tasks) = self.items.get_mut(item) {
            tasks.remove(uid);
            if tasks.is_empty() {
                self.items.remove(item);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, item, uid)) = self
            .deleted
            .pop_front_if(|(at, ..)| now.duration_since(*at) > LONGEST_LAG)
        {
            // A list of an API server that is behind may have brought it back.
            let is_deleted = |entry: &Entry| entry.is_deleted;
            if self
                .items
                .get(&item)
                .and_then(|tasks| tasks.get(&uid))
                .is_some_and(is_deleted)
            {
                self.drop_entry(&item, &uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use taskgate_api::keys::WORK_ITEM;

    use super::*;

    fn task(uid: &str, item: &str, phase: &str) -> Arc<DynamicObject> {
        let object = json!({"metadata": {"name": "fixer-42", "namespace": "team", "uid": uid, "labels": {WORK_ITEM: item}},
            "status": {"phase": phase}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn change(
        tasks: &ItemTasks,
        old: impl Into<Option<Arc<DynamicObject>>>,
        new: impl Into<Option<Arc<DynamicObject>>>,
    ) {
        let key = NamespacedName::new("team", "fixer-42");
        let (old, new) = (old.into(), new.into());
        tasks.changed(&[ObjectChange { key, old, new }]);
    }

    fn uids(tasks: &ItemTasks, item: &str, deleted: bool) -> Vec<String> {
        tasks
            .of("team", item, deleted)
            .into_iter()
            .map(|task| task.uid)
            .collect()
    }

    #[test]
    fn a_task_is_found_by_its_item_and_for_a_while_after_its_deletion() {
        let tasks = ItemTasks::default();
        change(&tasks, None, task("1", "a", ""));
        assert_eq!(
            (uids(&tasks, "a", false), uids(&tasks, "b", false)),
            (vec!["1".into()], vec![])
        );
        change(&tasks, task("1", "a", ""), task("1", "b", "Failed"));
        assert_eq!(
            (uids(&tasks, "a", true), uids(&tasks, "b", true)),
            (vec![], vec!["1".into()])
        );
        change(&tasks, task("1", "b", "Failed"), task("2", "b", ""));
        assert_eq!(uids(&tasks, "b", false), ["2"], "another Task of the same name");
        assert_eq!(uids(&tasks, "b", true), ["1", "2"]);
        change(&tasks, task("2", "b", "Succeeded"), None);
        assert_eq!(uids(&tasks, "b", true), ["1"], "a success adds no failure");
        tasks.0.write().unwrap().expire(Instant::now() + LONGEST_LAG * 2);
        assert!(tasks.0.read().unwrap().items.is_empty());
    }
}
