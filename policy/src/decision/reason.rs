//! The reasons of a decision: as data for metrics and audit, and as messages.

use jiff::Timestamp;
use taskgate_api::Mode;

use super::{CancelDetail, QueueDetail};
use crate::{
    kubernetes::{MAX_MESSAGE, Problem, clip},
    matching::{PolicyName, Section},
};

/// One thing that was found about a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// The section that found it.
    pub section: Section,
    /// The policy behind it; `None` for writes to taskgate's own objects.
    pub policy: Option<PolicyName>,
    /// How far the section may go.
    pub mode: Mode,
    /// What was found.
    pub detail: Detail,
}

/// What was found, with the numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Detail {
    /// Labels and annotations are set.
    MetadataSet {
        /// Their keys.
        keys: Vec<String>,
    },
    /// Labels or annotations are there with another value and stay.
    MetadataKept {
        /// Their keys.
        keys: Vec<String>,
    },
    /// A label or annotation is left out.
    MetadataSkipped {
        /// Its key.
        key: String,
        /// Why.
        why: String,
    },
    /// Labels or annotations are set once the issue source has been read.
    MetadataPending {
        /// Their keys.
        keys: Vec<String>,
    },
    /// Something about the Job's queue.
    Queue(QueueDetail),
    /// The Task gets what accounting needs: finalizer, label, its TTL kept aside.
    Accounted {
        /// The name of its `WorkItem`.
        work_item: String,
    },
    /// The Task's TTL is kept aside, so that it is there when its retry is due.
    TtlKept {
        /// The TTL, in seconds.
        seconds: i32,
    },
    /// The policy's `itemKey` gives nothing for this Task; its ordinary identity is used.
    ItemKeyUnusable {
        /// Why.
        message: String,
    },
    /// Something about a cancellation.
    Cancellation(CancelDetail),
    /// The Job belongs to a Task that was created although the breaker did not allow it, for this reason.
    JobStopped(Box<Detail>),
    /// The item failed too often.
    BreakerOpen {
        /// The item as its source names it.
        item: String,
        /// The name of its `WorkItem`.
        work_item: String,
        /// The namespace.
        namespace: String,
        /// How many Tasks failed in a row.
        failures: u32,
        /// How many may.
        limit: u32,
        /// What prevents a further Task.
        refusal: BreakerRefusal,
        /// Since when the item is open.
        since: Option<Timestamp>,
        /// What the item cost so far, in US dollars.
        cost_usd: Option<String>,
    },
    /// The Task's name is longer than its Job's may be.
    NameTooLong {
        /// Its length.
        length: usize,
    },
    /// Kelos cannot write the spec back unchanged (kelos §6.9).
    SpecUnstable {
        /// The fields.
        fields: Vec<String>,
    },
    /// The Task names a Workspace that does not exist.
    WorkspaceMissing {
        /// Its name.
        name: String,
    },
    /// The policy cannot be applied.
    PolicyInvalid {
        /// What is wrong with it.
        problems: Vec<Problem>,
    },
    /// The policy has no section, so it does nothing.
    PolicyEmpty,
    /// Labels and annotations, or the finalizer, that only taskgate sets came with a new object.
    OwnKeysRemoved {
        /// Their keys.
        keys: Vec<String>,
    },
    /// Another user than taskgate changes a label or annotation that only taskgate sets.
    OwnKeyChanged {
        /// Its key.
        key: &'static str,
    },
    /// Another user than taskgate writes the status of a `WorkItem`.
    StatusOwned {
        /// The item, as its source names it.
        item: String,
    },
    /// An annotation that asks something of a `WorkItem` cannot be read.
    RequestInvalid {
        /// The annotation's key.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The annotation with the requester names another user.
    RequestForged {
        /// The annotation's key.
        key: &'static str,
    },
    /// The user asks taskgate for something that takes a right which the user does not have.
    RightMissing {
        /// The field or annotation that asks for it.
        field: &'static str,
        /// Who asks.
        user: String,
        /// The right, such as `create on tasks.kelos.dev in namespace team-a`.
        right: String,
        /// The cause, if there is one.
        why: String,
    },
    /// Who asked something of a `WorkItem` is recorded.
    RequestStamped {
        /// The annotation's key.
        key: &'static str,
    },
    /// The object cannot be read as its kind.
    Unreadable {
        /// Where and why.
        message: String,
    },
    /// The `WorkItem` is not called what its key demands.
    WorkItemMisnamed {
        /// What it has to be called.
        expected: String,
    },
}

/// Why an item may not have one more Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerRefusal {
    /// As many Tasks failed in a row as may.
    Failures,
    /// The cluster failed the item's Tasks too often.
    Infrastructure {
        /// How often in a row.
        failures: u32,
        /// How often it may.
        limit: u32,
    },
    /// A user opened the breaker.
    OpenedManually,
    /// So many Tasks are under way that, should all fail, the limit is reached.
    Active(u32),
    /// The one probe is under way.
    Probe,
    /// The next attempt may not come before this moment.
    Backoff(Timestamp),
}

impl Reason {
    /// The reason in one word, from a closed set.
    pub fn code(&self) -> &'static str {
        match &self.detail {
            Detail::Accounted { .. } => "Accounted",
            Detail::TtlKept { .. } => "TtlKept",
            Detail::ItemKeyUnusable { .. } => "ItemKeyUnusable",
            Detail::Cancellation(detail) => detail.code(),
            Detail::JobStopped(_) => "JobStopped",
            Detail::MetadataSet { .. } => "MetadataSet",
            Detail::MetadataSkipped { .. } => "MetadataSkipped",
            Detail::MetadataKept { .. } => "MetadataKept",
            Detail::MetadataPending { .. } => "MetadataWaits",
            Detail::Queue(detail) => detail.code(),
            Detail::BreakerOpen { refusal, .. } => match refusal {
                BreakerRefusal::Failures | BreakerRefusal::Infrastructure { .. } | BreakerRefusal::OpenedManually => {
                    "BreakerOpen"
                }
                BreakerRefusal::Active(_) => "TasksUnderWay",
                BreakerRefusal::Probe => "ProbeUnderWay",
                BreakerRefusal::Backoff(_) => "BackingOff",
            },
            Detail::NameTooLong { .. } => "NameTooLong",
            Detail::SpecUnstable { .. } => "SpecUnstable",
            Detail::WorkspaceMissing { .. } => "WorkspaceMissing",
            Detail::PolicyInvalid { .. } => "PolicyInvalid",
            Detail::PolicyEmpty => "PolicyEmpty",
            Detail::OwnKeysRemoved { .. } => "OwnKeysRemoved",
            Detail::OwnKeyChanged { .. } => "OwnKeyChanged",
            Detail::StatusOwned { .. } => "StatusOwned",
            Detail::RequestInvalid { .. } => "RequestInvalid",
            Detail::RequestForged { .. } => "RequestForged",
            Detail::RightMissing { .. } => "RightMissing",
            Detail::RequestStamped { .. } => "RequestStamped",
            Detail::Unreadable { .. } => "Unreadable",
            Detail::WorkItemMisnamed { .. } => "WorkItemMisnamed",
        }
    }

    /// The section that found it.
    pub fn section(&self) -> Section {
        self.section
    }

    /// How far the section may go.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The reason as one sentence of at most 256 characters: who, which rule, which number, what would change it.
    pub fn message(&self) -> String {
        if let Some(message) = self.breaker_message() {
            return message;
        }
        let policy = self
            .policy
            .as_ref()
            .map(|policy| format!("{}: ", clip(&policy.to_string(), 80)));
        clip(
            &format!("taskgate: {}{}", policy.unwrap_or_default(), self.text()),
            MAX_MESSAGE,
        )
    }

    /// What the section did or would do, or the error.
    fn text(&self) -> String {
        let would = if self.mode == Mode::Enforce { "" } else { "would " };
        match &self.detail {
            Detail::Accounted { work_item } => format!("{would}account for the Task in WorkItem {work_item}"),
            Detail::TtlKept { seconds } => format!("{would}keep the TTL of {seconds}s aside until no retry is due"),
            Detail::ItemKeyUnusable { message } => {
                format!("failurePolicy.itemKey gives no key, the ordinary identity is used: {message}")
            }
            Detail::Cancellation(detail) => detail.text(),
            Detail::MetadataSet { keys } => format!("{would}set {}", keys.join(", ")),
            Detail::MetadataSkipped { key, why } => format!("left out {key}: {why}"),
            Detail::MetadataKept { keys } => format!("kept the Task's own value of {}", keys.join(", ")),
            Detail::MetadataPending { keys } => {
                let set = if would.is_empty() { "sets" } else { "would set" };
                format!("{set} {} once the issue source has been read", keys.join(", "))
            }
            Detail::Queue(detail) => detail.text(would),
            Detail::NameTooLong { length } => {
                format!(
                    "the Task's name has {length} characters, its Job's may have 63: Kelos will never start it; shorten the name"
                )
            }
            Detail::SpecUnstable { fields } => format!(
                "Kelos cannot write this spec back unchanged and will never start the Task; leave out or write canonically: {}",
                fields.join(", ")
            ),
            Detail::WorkspaceMissing { name } => {
                format!("Workspace {name} does not exist: Kelos waits for it and does not report it")
            }
            Detail::PolicyInvalid { problems } => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            Detail::PolicyEmpty => "the policy has no section, so it does nothing yet".to_owned(),
            Detail::OwnKeysRemoved { keys } => format!("only taskgate sets these, removed: {}", keys.join(", ")),
            Detail::OwnKeyChanged { key } => {
                format!("only taskgate changes {key}: leave it as it is (kubectl replace and edit keep what they read)")
            }
            Detail::StatusOwned { item } => format!(
                "only taskgate writes the status of a WorkItem; to reset item {}: taskgate reset, annotate the WorkItem \
                 taskgate.dev/reset=<reason>, or delete it",
                clip(item, 64)
            ),
            Detail::RequestInvalid { key, message } => format!("{key}: {message}"),
            Detail::RequestForged { key } => format!("{key} is set by taskgate alone: leave it out"),
            Detail::RightMissing {
                field,
                user,
                right,
                why,
            } => format!(
                "{field}: that takes the right to {right}, which {} does not have{}",
                clip(user, 60),
                clip(why, 40)
            ),
            Detail::RequestStamped { key } => format!("{key} set"),
            Detail::Unreadable { message } => message.clone(),
            Detail::WorkItemMisnamed { expected } => {
                format!("metadata.name: a WorkItem with this spec.key has to be called {expected}")
            }
            Detail::BreakerOpen { .. } | Detail::JobStopped(_) => self.breaker_message().unwrap_or_default(),
        }
    }
}
