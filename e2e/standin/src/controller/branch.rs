//! Branch locks (kelos S24, §6.5): one map in this process, lost at its end.

use super::Controller;
use crate::cache::Key;
use crate::error::Error;
use crate::queue::Next;
use crate::types::Task;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiting Task looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Who holds which branch. Neither side of the map knows a namespace (kelos T1).
#[derive(Debug, Default)]
pub struct BranchLocks {
    holders: Mutex<BTreeMap<String, String>>,
}

impl BranchLocks {
    /// Takes the lock for a Task of this name.
    ///
    /// # Errors
    /// The name of the Task that holds it.
    pub fn acquire(&self, key: &str, task: &str) -> Result<(), String> {
        let mut holders = self.lock();
        let holder = holders.entry(key.to_owned()).or_insert_with(|| task.into());
        if holder == task { Ok(()) } else { Err(holder.clone()) }
    }

    /// Frees the lock if a Task of this name holds it.
    pub fn release(&self, key: &str, task: &str) {
        let mut holders = self.lock();
        if holders.get(key).is_some_and(|holder| holder == task) {
            holders.remove(key);
        }
    }

    /// Who holds it.
    pub fn holder(&self, key: &str) -> Option<String> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `workspace:branch`, or `None` for a Task without a branch.
pub(super) fn lock_key(task: &Task) -> Option<String> {
    let branch = &task.spec.branch;
    let workspace = task.spec.workspace().unwrap_or_default();
    (!branch.is_empty()).then(|| format!("{workspace}:{branch}"))
}

impl Controller {
    /// Takes the branch for the Task. `Some`: when to reconcile again, with the Task now Waiting.
    pub(super) async fn take_branch(&self, key: &Key, task: &Task) -> Result<Option<Next>, Error> {
        let Some(lock) = lock_key(task) else {
            return Ok(None);
        };
        if task.spec.workspace().is_none() {
            let note = format!(
                "Branch {:?} is set but workspaceRef is not configured, branch checkout will be skipped",
                task.spec.branch
            );
            self.warn(task, "BranchWithoutWorkspace", note).await;
        }
        let branch = &task.spec.branch;
        if let Err(holder) = self.locks.acquire(&lock, &key.name) {
            let message = format!("Waiting for branch {branch:?} (locked by {holder})");
            self.set_waiting(key, &message).await;
            return Ok(Some(Next::After(LOOK_AGAIN)));
        }
        // The map is empty after a restart: what the statuses say counts as well.
        if let Some(message) = self.held_by_status(key, task, &lock) {
            self.set_waiting(key, &message).await;
            self.locks.release(&lock, &key.name);
            return Ok(Some(Next::After(LOOK_AGAIN)));
        }
        Ok(None)
    }

    pub(super) fn free_branch(&self, key: &Key, task: &Task) {
        if let Some(lock) = lock_key(task) {
            self.locks.release(&lock, &key.name);
        }
    }

    fn held_by_status(&self, key: &Key, task: &Task, lock: &str) -> Option<String> {
        let branch = &task.spec.branch;
        let created = &task.metadata.creation_timestamp;
        let others = self.tasks.list(&key.namespace);
        others.iter().find_map(|other| {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            if name == key.name || lock_key(other).as_deref() != Some(lock) {
                return None;
            }
            match other.phase() {
                "Running" | "Pending" => Some(format!("Waiting for branch {branch:?} (locked by {name})")),
                "Waiting" if other.metadata.creation_timestamp < *created => {
                    Some(format!("Waiting for branch {branch:?} (queued behind {name})"))
                }
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BranchLocks, lock_key};
    use crate::types::{NameRef, Task, TaskSpec, WorkerSpec};

    #[test]
    fn one_holder_at_a_time_and_twice_is_once() {
        let locks = BranchLocks::default();
        assert_eq!(locks.acquire("ws:main", "a"), Ok(()));
        assert_eq!(locks.acquire("ws:main", "a"), Ok(()));
        assert_eq!(locks.acquire("ws:main", "b"), Err("a".to_owned()));
        assert_eq!(locks.acquire("ws:dev", "b"), Ok(()));
        locks.release("ws:main", "b");
        assert_eq!(locks.holder("ws:main").as_deref(), Some("a"));
        locks.release("ws:main", "a");
        assert_eq!(locks.acquire("ws:main", "b"), Ok(()));
    }

    #[test]
    fn the_key_has_no_namespace_and_knows_both_shapes() {
        let mut task = Task::new("t", TaskSpec::default());
        assert_eq!(lock_key(&task), None);
        task.spec.branch = "main".into();
        assert_eq!(lock_key(&task).as_deref(), Some(":main"));
        let workspace = |name: &str| Some(NameRef { name: name.into() });
        task.spec.workspace_ref = workspace("flat");
        assert_eq!(lock_key(&task).as_deref(), Some("flat:main"));
        task.spec.worker = Some(WorkerSpec {
            workspace_ref: workspace("worker"),
            ..WorkerSpec::default()
        });
        task.metadata.namespace = Some("anywhere".into());
        assert_eq!(lock_key(&task).as_deref(), Some("worker:main"));
    }
}
