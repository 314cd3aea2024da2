//! What the uninstall does with each Task.

use jiff::{SignedDuration, Timestamp};

use super::TaskState;

/// What the uninstall does with a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UninstallAction {
    /// Nothing: taskgate added nothing to it.
    Nothing,
    /// Remove the finalizer, and restore the TTL in the spec where Kelos allows that.
    RemoveFinalizer {
        /// The TTL in seconds.
        ttl: Option<u32>,
    },
    /// Delete it: its TTL has passed.
    Expire,
    /// Report it: its finalizer is removed, but its TTL could not be restored, so that a user has to delete it.
    Outlives {
        /// When its TTL passes; `None` while it is under way.
        due: Option<Timestamp>,
    },
}

/// What the uninstall does with `task`. After the action has been taken the result is [`UninstallAction::Nothing`] or
/// [`UninstallAction::Outlives`], so that an interrupted uninstall can be repeated.
pub fn uninstall_action(task: &TaskState, now: Timestamp) -> UninstallAction {
    let due = task.kept_ttl.filter(|_| task.is_terminal()).and_then(|ttl| {
        let ttl = SignedDuration::from_secs(i64::from(ttl));
        task.ttl_start(None, now).checked_add(ttl).ok()
    });
    match (task.deleting, task.has_finalizer, task.kept_ttl) {
        (None, _, Some(_)) if due.is_some_and(|due| due <= now) => UninstallAction::Expire,
        (_, true, ttl) => UninstallAction::RemoveFinalizer { ttl },
        (None, false, Some(_)) => UninstallAction::Outlives { due },
        _ => UninstallAction::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(has_finalizer: bool, ttl: Option<&str>, status: &Value, deleting: bool) -> TaskState {
        let mut task = json!({
            "metadata": {"name": "t", "uid": "u", "creationTimestamp": "2026-11-21T10:00:00Z", "annotations": {}},
            "status": status,
        });
        if has_finalizer {
            task["metadata"]["finalizers"] = json!(["taskgate.dev/accounting"]);
        }
        if let Some(ttl) = ttl {
            task["metadata"]["annotations"]["taskgate.dev/ttl-seconds-after-finished"] = ttl.into();
        }
        if deleting {
            task["metadata"]["deletionTimestamp"] = "2026-11-21T10:30:00Z".into();
        }
        TaskState::of(&task).unwrap()
    }

    #[test]
    fn every_finalizer_is_removed_and_expired_tasks_are_deleted() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let ended = json!({"phase": "Failed", "completionTime": "2026-11-21T11:00:00Z"});
        let due = "2026-11-21T13:00:00Z".parse().ok();
        for (has_finalizer, ttl, status, deleting, wanted) in [
            (false, None, json!({}), false, UninstallAction::Nothing),
            (
                true,
                None,
                json!({}),
                false,
                UninstallAction::RemoveFinalizer { ttl: None },
            ),
            (
                true,
                Some("60"),
                json!({}),
                false,
                UninstallAction::RemoveFinalizer { ttl: Some(60) },
            ),
            (true, Some("60"), ended.clone(), false, UninstallAction::Expire),
            (false, Some("60"), ended.clone(), false, UninstallAction::Expire),
            (
                true,
                Some("7200"),
                ended.clone(),
                false,
                UninstallAction::RemoveFinalizer { ttl: Some(7200) },
            ),
            (
                false,
                Some("7200"),
                ended.clone(),
                false,
                UninstallAction::Outlives { due },
            ),
            (
                false,
                Some("60"),
                json!({}),
                false,
                UninstallAction::Outlives { due: None },
            ),
            (
                true,
                Some("60"),
                ended.clone(),
                true,
                UninstallAction::RemoveFinalizer { ttl: Some(60) },
            ),
            (false, Some("60"), ended, true, UninstallAction::Nothing),
            (
                true,
                Some("soon"),
                json!({}),
                false,
                UninstallAction::RemoveFinalizer { ttl: None },
            ),
        ] {
            let state = task(has_finalizer, ttl, &status, deleting);
            assert_eq!(uninstall_action(&state, now), wanted, "{state:?}");
        }
    }
}
