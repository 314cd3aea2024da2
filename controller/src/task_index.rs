//! Which Tasks belong to which work item, as the cluster cache had them last.
//!
//! Filled by `controller::changes`; read by the breaker and by the issue sources.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock},
};

use taskgate_policy::TaskState;
use tokio::sync::watch;

/// Namespace and name of a `WorkItem`.
pub(crate) type ItemRef = (String, String);

/// The Tasks of each work item, by UID.
#[derive(Debug, Default)]
pub(crate) struct TaskIndex {
    items: RwLock<HashMap<ItemRef, BTreeMap<String, TaskState>>>,
    filled: watch::Sender<bool>,
}

impl TaskIndex {
    /// Adds or replaces a Task.
    pub(crate) fn put(&self, namespace: &str, state: TaskState) {
        let Some(work_item) = state.work_item.clone() else {
            return;
        };
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        let tasks = items.entry((namespace.to_owned(), work_item)).or_default();
        tasks.insert(state.uid.clone(), state);
    }

    /// Removes a Task that was deleted.
    pub(crate) fn remove(&self, namespace: &str, state: &TaskState) {
        let Some(work_item) = state.work_item.clone() else {
            return;
        };
        let key = (namespace.to_owned(), work_item);
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = items.get_mut(&key) {
            tasks.remove(&state.uid);
            if tasks.is_empty() {
                items.remove(&key);
            }
        }
    }

    /// The index has all Tasks now.
    pub(crate) fn set_filled(&self) {
        self.filled.send_replace(true);
    }

    /// Waits until the index has all Tasks.
    pub(crate) async fn filled(&self) {
        // The sender is in `self`.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// The Tasks of a work item.
    pub(crate) fn of(&self, item: &ItemRef) -> Vec<TaskState> {
        let items = self.items.read().unwrap_or_else(PoisonError::into_inner);
        items
            .get(item)
            .map(|tasks| tasks.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether a work item has Tasks.
    pub(crate) fn has(&self, item: &ItemRef) -> bool {
        self.items
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(item)
    }
}
