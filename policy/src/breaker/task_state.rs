//! The state of a Task, as far as counting its end depends on it.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use taskgate_api::{
    WorkItemStatus,
    kelos::{self, Task},
    keys,
};

use crate::cancellation::Cancellation;

/// How much the clocks of a cluster may differ before one of them is taken for wrong.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// The phase of a Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPhase {
    /// Not ended: empty, Pending, Waiting, Running, or an unknown phase.
    Active,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// The state of a Task.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "states that do not depend on each other")]
pub struct TaskState {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its phase.
    pub phase: TaskPhase,
    /// Whether its agent was started.
    pub started: bool,
    /// When it ended, by its status. `None` when that is missing (kelos §6.2) or invalid.
    pub ended: Option<Timestamp>,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub has_finalizer: bool,
    /// The name of its `WorkItem`, from the label.
    pub work_item: Option<String>,
    /// The name of its spawner.
    pub spawner: Option<String>,
    /// The UID of the `WorkItem` in which its end is recorded, from the annotation.
    pub recorded: Option<String>,
    /// The TTL in the spec, which Kelos acts on.
    pub spec_ttl: Option<u32>,
    /// The TTL in our annotation, which we act on.
    pub kept_ttl: Option<u32>,
    /// Whether it was cancelled, and that is concluded: neither a failure nor a success.
    pub cancelled: bool,
    /// Whether it was cancelled so that the next Task of its name can be created: it does not wait for its TTL.
    pub must_be_replaced: bool,
}

impl TaskState {
    /// Reads the Task `object`. `None` when it has no name or UID.
    pub fn of(object: &Value) -> Option<Self> {
        let task = Task::of(object);
        let metadata = task.metadata();
        let seconds = |text: &str| text.trim().parse::<u32>().ok();
        let cancellation = Cancellation::of(object);
        Some(Self {
            uid: metadata.uid()?.to_owned(),
            name: metadata.name()?.to_owned(),
            created: task.created().unwrap_or(Timestamp::UNIX_EPOCH),
            phase: match task.phase() {
                _ if task.is_cancelled() => TaskPhase::Failed,
                kelos::SUCCEEDED => TaskPhase::Succeeded,
                kelos::FAILED => TaskPhase::Failed,
                _ => TaskPhase::Active,
            },
            started: task.status_time("startTime").is_some(),
            ended: task.status_time("completionTime"),
            deleting: task.deleting_since(),
            has_finalizer: metadata.has_finalizer(keys::ACCOUNTING),
            work_item: metadata.label(keys::WORK_ITEM).map(ToOwned::to_owned),
            spawner: task.spawner().map(ToOwned::to_owned),
            recorded: metadata.annotation(keys::RECORDED).map(ToOwned::to_owned),
            spec_ttl: task.ttl_seconds().and_then(|ttl| u32::try_from(ttl).ok()),
            kept_ttl: metadata.annotation(keys::TTL).and_then(seconds),
            cancelled: task.is_cancelled() || cancellation.is_concluded(),
            must_be_replaced: cancellation.must_be_replaced(),
        })
    }

    /// Whether the Task has ended.
    pub fn is_terminal(&self) -> bool {
        self.phase != TaskPhase::Active
    }

    /// Whether the Task may still add a failure to `status`, which is as new as the Task or newer: it is under way, or it failed and
    /// that is not recorded yet.
    pub fn may_still_count(&self, status: Option<&WorkItemStatus>) -> bool {
        self.may_be_unrecorded(status) && (self.is_under_way() || self.recorded.is_none())
    }

    /// Whether `status`, which may be older than the Task, may lack a failure of it. Unlike [`Self::may_still_count`] this does not
    /// trust the Task's annotation: the end is recorded in the stored status, but not in `status` yet.
    pub fn may_be_unrecorded(&self, status: Option<&WorkItemStatus>) -> bool {
        (self.is_under_way() || (self.phase == TaskPhase::Failed && !self.cancelled)) && !self.is_attempt_of(status)
    }

    /// Whether the Task's end is in the history of `status`.
    fn is_attempt_of(&self, status: Option<&WorkItemStatus>) -> bool {
        let attempts = status.map(|status| status.attempts.as_slice()).unwrap_or_default();
        attempts.iter().any(|attempt| attempt.uid == self.uid)
    }

    /// Whether the Task goes on.
    pub fn is_under_way(&self) -> bool {
        self.phase == TaskPhase::Active && self.deleting.is_none()
    }

    /// Whether the Task came before `other`. Times of creation have whole seconds, so the UID decides among equals.
    pub fn is_before(&self, other: &Self) -> bool {
        (self.created, &self.uid) < (other.created, &other.uid)
    }

    /// When the Task ended, never in the future: a clock that is wrong must not keep a Task for ever, and a missing
    /// completion time (kelos §6.2) reads as `otherwise`.
    pub(crate) fn ended_by(&self, otherwise: Timestamp, now: Timestamp) -> Timestamp {
        self.ended.unwrap_or(otherwise).min(now)
    }

    /// The start of the TTL: the end by the Task's status or the recorded one, whichever is earlier. An end far in the future was
    /// written by a wrong clock; then the creation counts, or the TTL would start again with each reconcile.
    pub(crate) fn ttl_start(&self, recorded: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let ended = self.ended.into_iter().chain(recorded).min().unwrap_or(self.created);
        if ended.duration_since(now) > CLOCKS_DIFFER {
            ended.min(self.created)
        } else {
            ended
        }
    }

    /// Whether the deletion can be Kelos' own TTL: the spec still has one, and its time had come.
    pub(crate) fn deleted_by_kelos_ttl(&self) -> bool {
        let due = self
            .spec_ttl
            .zip(self.ended)
            .and_then(|(ttl, ended)| ended.checked_add(SignedDuration::from_secs(i64::from(ttl))).ok());
        due.zip(self.deleting).is_some_and(|(due, deleting)| deleting >= due)
    }
}

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
mod uninstall_tests {
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
