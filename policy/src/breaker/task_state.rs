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
            has_finalizer: metadata.finalizers().any(|finalizer| finalizer == keys::ACCOUNTING),
            work_item: metadata.label(keys::WORK_ITEM).map(ToOwned::to_owned),
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
