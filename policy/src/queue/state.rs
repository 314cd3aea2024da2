//! What is known of a Job in its queue, and what its Task is told.

use jiff::Timestamp;
use serde_json::Value;

/// What is known of a Job of a Task.
#[derive(Clone, Copy, Debug)]
pub struct QueueScene<'a> {
    /// The Job.
    pub job: &'a Value,
    /// Its Workload.
    pub workload: Option<&'a Value>,
    /// Kueue, if there is one.
    pub kueue: Option<Installed<'a>>,
    /// The moment.
    pub now: Timestamp,
}

/// What is known of Kueue for a Job.
#[derive(Clone, Copy, Debug)]
pub struct Installed<'a> {
    /// Since when Kueue is known to be there.
    pub since: Timestamp,
    /// The `LocalQueue` that the Job names.
    pub local_queue: Option<&'a Value>,
    /// Whether there is the `WorkloadPriorityClass` that the Job names; true when it names none.
    pub has_class: bool,
    /// Whether Kueue manages the Job's namespace. Asked only when it has not noticed the Job in time.
    pub manages_namespace: Option<bool>,
}

/// Where a Job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueReason {
    /// It waits for quota.
    WaitingForAdmission,
    /// It ran, had to make room, and waits again.
    Preempted,
    /// It ran, was stopped by Kueue for another reason, and waits again.
    Evicted,
    /// It waits, and there is no Kueue.
    KueueNotInstalled,
    /// It waits, and its `LocalQueue` does not exist.
    NoSuchLocalQueue,
    /// It waits, and somebody stopped its `LocalQueue`.
    LocalQueueHeld,
    /// It waits, and its `LocalQueue` does not work.
    LocalQueueInactive,
    /// It waits, and its `WorkloadPriorityClass` does not exist.
    UnknownPriorityClass,
    /// Kueue leaves its namespace alone.
    NamespaceNotManaged,
    /// No legal queue name came of the Task and its policy.
    QueueNameInvalid,
    /// It waits, and somebody took its label away.
    QueueLabelRemoved,
    /// It waits, and Kueue has not noticed it.
    NotNoticed,
    /// Kueue started it.
    Admitted,
    /// Kueue will not start it until somebody wants it to.
    Deactivated,
    /// Kueue will never start it.
    CannotStart,
    /// It ended without having been admitted.
    Ended,
    /// Somebody started it without Kueue.
    StartedByHand,
}

impl QueueReason {
    /// The reason of the condition, and of the Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForAdmission => "WaitingForAdmission",
            Self::Preempted => "Preempted",
            Self::Evicted => "Evicted",
            Self::KueueNotInstalled => "KueueNotInstalled",
            Self::NoSuchLocalQueue => "NoSuchLocalQueue",
            Self::LocalQueueHeld => "LocalQueueHeld",
            Self::LocalQueueInactive => "LocalQueueInactive",
            Self::UnknownPriorityClass => "UnknownPriorityClass",
            Self::NamespaceNotManaged => "NamespaceNotManaged",
            Self::QueueNameInvalid => "QueueNameInvalid",
            Self::QueueLabelRemoved => "QueueLabelRemoved",
            Self::NotNoticed => "NotNoticed",
            Self::Admitted => "Admitted",
            Self::Deactivated => "Deactivated",
            Self::CannotStart => "CannotStart",
            Self::Ended => "Ended",
            Self::StartedByHand => "StartedByHand",
        }
    }

    /// Whether it is worth telling only as the end of a wait.
    pub fn ends_a_wait(self) -> bool {
        matches!(self, Self::Ended | Self::StartedByHand)
    }

    /// Whether somebody has to do something about it.
    pub fn is_trap(self) -> bool {
        !matches!(
            self,
            Self::WaitingForAdmission | Self::Preempted | Self::Evicted | Self::Admitted | Self::Ended
        )
    }
}

/// What the Task is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Whether the Job waits.
    pub waits: bool,
    /// Why, in one word.
    pub reason: QueueReason,
    /// Why, in words.
    pub message: String,
    /// Since when, as far as Kueue says so.
    pub since: Option<Timestamp>,
}

impl QueueState {
    /// The Job's end came before its turn, or its next one.
    pub fn ended() -> Self {
        Self {
            waits: false,
            reason: QueueReason::Ended,
            message: "the Job ended while it waited".to_owned(),
            since: None,
        }
    }
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// This.
    State(QueueState),
    /// Nothing yet; look again at this moment, unless something happens before.
    Later(Timestamp),
    /// Nothing: the Job has no queue, or has left it.
    Nothing,
}
