//! The annotations of a Task about its cancellation, and the messages that follow from them.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use strum::{AsRefStr, Display, EnumString, IntoStaticStr};
use taskgate_api::{keys, metadata::Metadata};

use crate::{
    decision::{MAX_GRACE, MAX_REASON},
    kubernetes::clip,
};

/// The reason of the condition with which taskgate fails the Job of a cancelled Task.
pub const TASK_CANCELLED: &str = "TaskCancelled";
/// The message that Kelos writes for a runner that was told to stop its Task (kelos §7).
const RUNNER_CANCELLED: &str = "task was cancelled";
/// The beginning of taskgate's own messages.
const CANCELLED_BY: &str = "Cancelled by ";

/// What set a cancellation off. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr)]
pub enum Trigger {
    /// A user asked for it.
    ByHand,
    /// The item is closed, or no longer matches its spawner's filters.
    SourceRemoved,
    /// The item was triggered again, and the next Task for it will have the same name.
    Retrigger,
    /// There is a newer Task for the item.
    Superseded,
    /// The next run of a schedule is due.
    Schedule,
}

/// The state of a cancellation, from the annotation `taskgate.dev/cancel-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, EnumString)]
pub enum CancelState {
    /// The agent is warned; the request can be withdrawn.
    Announced,
    /// The point of no return: the run is being failed.
    Cancelling,
    /// The Task has ended because of it, and that is recorded.
    Cancelled,
    /// The Task ended by itself before.
    TooLate,
    /// The requester is not known, so nothing is done.
    Refused,
}

/// Who asked, when, and when it is due: stamped once, by admission or by the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `user:ann` or `spawner:fixer`.
    pub by: String,
    /// What set it off.
    pub trigger: Trigger,
    /// When.
    pub requested: Timestamp,
    /// When it is carried out. Later restarts change nothing about it.
    pub deadline: Timestamp,
}

impl Stamp {
    /// A stamp of `now`, due after `grace` seconds. Whole seconds, as annotations keep them.
    pub fn new(by: String, trigger: Trigger, now: Timestamp, grace: u32) -> Self {
        let requested = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let deadline = requested.checked_add(SignedDuration::from_secs(i64::from(grace)));
        Self {
            by,
            trigger,
            requested,
            deadline: deadline.unwrap_or(requested),
        }
    }

    fn of(metadata: Metadata<'_>) -> Option<Self> {
        let time = |key| metadata.annotation(key)?.parse().ok();
        let stamp = Self {
            by: metadata.annotation(keys::CANCELLED_BY)?.to_owned(),
            trigger: metadata.annotation(keys::CANCEL_TRIGGER)?.parse().ok()?,
            requested: time(keys::CANCEL_REQUESTED)?,
            deadline: time(keys::CANCEL_DEADLINE)?,
        };
        stamp.is_consistent().then_some(stamp)
    }

    /// Whether admission or the controller could have written it: who asked fits what set it off, and the deadline is a
    /// grace that can be asked for, after the request.
    fn is_consistent(&self) -> bool {
        let grace = self.deadline.duration_since(self.requested);
        let by = match self.trigger {
            Trigger::ByHand => self.by.strip_prefix("user:"),
            _ => self.by.strip_prefix("spawner:"),
        };
        // The grace of a policy has its own limits.
        let longest = SignedDuration::from_secs(i64::from(MAX_GRACE));
        by.is_some() && grace >= SignedDuration::ZERO && (self.trigger != Trigger::ByHand || grace <= longest)
    }

    /// The annotations that keep it.
    pub(crate) fn annotations(&self) -> [(&'static str, String); 4] {
        [
            (keys::CANCELLED_BY, self.by.clone()),
            (keys::CANCEL_TRIGGER, self.trigger.to_string()),
            (keys::CANCEL_REQUESTED, self.requested.to_string()),
            (keys::CANCEL_DEADLINE, self.deadline.to_string()),
        ]
    }
}

/// The annotations of a request that the controller makes itself.
pub fn annotations(reason: &str, stamp: &Stamp) -> Vec<(&'static str, String)> {
    let mut annotations = vec![(keys::CANCEL, clip(reason, MAX_REASON))];
    annotations.extend(stamp.annotations());
    annotations
}

/// The cancellation of a Task, as its annotations have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancellation {
    /// Why; present until the request is withdrawn.
    pub reason: Option<String>,
    /// Who asked, when, and the deadline. An invalid stamp reads as absent.
    pub stamp: Option<Stamp>,
    /// The state; `None` until the controller has reconciled it.
    pub progress: Option<CancelState>,
}

impl Cancellation {
    /// Reads the annotations of the Task `object`.
    pub fn of(object: &Value) -> Self {
        let metadata = Metadata::of(object);
        let stamp = Stamp::of(metadata);
        let progress = metadata
            .annotation(keys::CANCEL_STATE)
            .and_then(|state| state.parse().ok());
        // Without a stamp nothing is carried out, and nothing was: a user who writes the annotations while admission is
        // unavailable neither ends a run nor has a failure taken for a cancellation.
        let stands = |progress: &CancelState| match progress {
            CancelState::Announced | CancelState::Cancelling | CancelState::Cancelled => stamp.is_some(),
            CancelState::TooLate | CancelState::Refused => true,
        };
        Self {
            reason: metadata.annotation(keys::CANCEL).map(ToOwned::to_owned),
            progress: progress.filter(stands),
            stamp,
        }
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self == &Self::default()
    }

    /// Whether it cannot be withdrawn any more.
    pub fn is_carried_out(&self) -> bool {
        matches!(self.progress, Some(CancelState::Cancelling | CancelState::Cancelled))
    }

    /// Whether the request waits, or is being carried out.
    pub fn is_pending(&self) -> bool {
        self.is_carried_out() || (self.is_due_some_day() && self.progress != Some(CancelState::Cancelled))
    }

    fn is_due_some_day(&self) -> bool {
        let open = !matches!(self.progress, Some(CancelState::TooLate | CancelState::Refused));
        open && self.reason.is_some() && self.stamp.is_some()
    }

    /// Whether a Job that is made for the Task at `now` must not run.
    pub fn stops_jobs(&self, now: Timestamp) -> bool {
        let due = || self.stamp.as_ref().is_some_and(|stamp| stamp.deadline <= now);
        self.is_carried_out() || (self.is_due_some_day() && due())
    }

    /// Whether the Task ended because of it: neither a failure nor a success of its item.
    pub fn is_concluded(&self) -> bool {
        self.progress == Some(CancelState::Cancelled)
    }

    /// Whether the Task must be deleted so that the next Task of the same name can be created.
    pub fn must_be_replaced(&self) -> bool {
        let retriggered = |stamp: &Stamp| stamp.trigger == Trigger::Retrigger;
        self.is_concluded() && self.stamp.as_ref().is_some_and(retriggered)
    }
}

/// The requester, as in `status.cancelledBy`.
pub fn requester(cancellation: &Cancellation) -> &str {
    cancellation.stamp.as_ref().map_or("unknown", |stamp| &stamp.by)
}

/// The message of a cancelled Task: `Cancelled by user:ann: no longer needed`.
pub fn conclusion(cancellation: &Cancellation) -> String {
    let text = format!("{CANCELLED_BY}{}{}", requester(cancellation), because(cancellation));
    clip(&text, 512)
}

/// The message of a Task that is going to be cancelled.
pub fn announcement(stamp: &Stamp, cancellation: &Cancellation) -> String {
    let (by, due) = (&stamp.by, stamp.deadline);
    clip(
        &format!("will be cancelled at {due} by {by}{}", because(cancellation)),
        512,
    )
}

/// Whether `message` is that of a worker pool's Task that was cancelled.
pub(super) fn is_of_cancelled_runner(message: &str) -> bool {
    message == RUNNER_CANCELLED || message.starts_with(CANCELLED_BY)
}

fn because(cancellation: &Cancellation) -> String {
    match cancellation.reason.as_deref().map(str::trim) {
        None | Some("") => String::new(),
        Some(reason) => format!(": {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stamped(by: &str, trigger: &str, requested: &str, deadline: &str) -> Value {
        json!({"metadata": {"annotations": {
            keys::CANCEL: "x", keys::CANCEL_STATE: "Cancelled", keys::CANCELLED_BY: by, keys::CANCEL_TRIGGER: trigger,
            keys::CANCEL_REQUESTED: requested, keys::CANCEL_DEADLINE: deadline,
        }}})
    }

    #[test]
    fn a_request_counts_only_with_a_stamp_that_admission_could_have_written() {
        let (noon, later) = ("2026-11-21T12:00:00Z", "2026-11-21T12:00:30Z");
        for (by, trigger, requested, deadline, counts) in [
            ("user:ann", "ByHand", noon, later, true),
            ("user:ann", "ByHand", noon, noon, true),
            ("spawner:fixer", "Superseded", noon, later, true),
            ("spawner:fixer", "ByHand", noon, later, false),
            ("user:ann", "SourceRemoved", noon, later, false),
            ("ann", "ByHand", noon, later, false),
            ("user:ann", "Whim", noon, later, false),
            ("user:ann", "ByHand", later, noon, false),
            ("user:ann", "ByHand", noon, "2026-11-22T12:00:01Z", false),
            ("user:ann", "ByHand", "soon", later, false),
        ] {
            let found = Cancellation::of(&stamped(by, trigger, requested, deadline));
            let (now, case) = (later.parse().unwrap(), format!("{by} {trigger} {requested} {deadline}"));
            assert_eq!(found.stamp.is_some(), counts, "{case}");
            assert_eq!(found.is_concluded(), counts, "{case}");
            assert_eq!(found.stops_jobs(now), counts, "{case}");
        }
    }

    #[test]
    fn a_state_alone_ends_nothing() {
        for state in ["Announced", "Cancelling", "Cancelled"] {
            let found = Cancellation::of(&json!({"metadata": {"annotations": {keys::CANCEL_STATE: state}}}));
            assert!(found.is_none(), "{state}");
        }
        let refused = json!({"metadata": {"annotations": {keys::CANCEL: "x", keys::CANCEL_STATE: "Refused"}}});
        assert_eq!(Cancellation::of(&refused).progress, Some(CancelState::Refused));
    }
}
