//! The reasons of a decision: as data for metrics and audit, and as messages.

use jiff::Timestamp;
use strum::{Display, EnumString, IntoStaticStr};
use taskgate_api::Mode;

use crate::{
    kubernetes::{MAX_MESSAGE, Problem, clip, counted, in_a_row},
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

/// What was found, with the numbers. The name of a variant is its word in metrics and audit, where no other is given.
#[derive(Clone, Debug, PartialEq, IntoStaticStr)]
pub enum Detail {
    /// Labels and annotations with these keys are set.
    MetadataSet(Vec<String>),
    /// Labels or annotations with these keys are there with another value and stay.
    MetadataKept(Vec<String>),
    /// A label or annotation is left out.
    MetadataSkipped {
        /// Its key.
        key: String,
        /// Why.
        why: String,
    },
    /// Labels or annotations with these keys are set once the issue source has been read.
    #[strum(serialize = "MetadataWaits")]
    MetadataPending(Vec<String>),
    /// Something about the Job's queue.
    Queue(QueueDetail),
    /// The Task gets what accounting in the `WorkItem` of this name needs: finalizer, label, its TTL kept aside.
    Accounted(String),
    /// The Task's TTL, in seconds, is kept aside, so that it is there when its retry is due.
    TtlKept(String),
    /// The Task's `spec.queueName` is moved to its label.
    QueueMoved(String),
    /// A user sends these fields of the spec again, which admission moved to annotations.
    MovedAgain(Vec<&'static str>),
    /// A user sends a field of the spec with another value than admission moved to an annotation.
    MovedFieldChanged {
        /// The field of `spec`.
        field: &'static str,
        /// The value that it was created with.
        kept: String,
        /// The annotation that keeps it.
        annotation: &'static str,
    },
    /// The policy's `itemKey` gives nothing for this Task, for this reason; its ordinary identity is used.
    ItemKeyUnusable(String),
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
    /// A Task without a spawner states the number of an item, as if it were a spawner's.
    ItemOfNoSpawner(String),
    /// The Task's name has this length, and is longer than its Job's may be.
    NameTooLong(usize),
    /// Kelos cannot write these fields of the spec back unchanged (kelos §6.9).
    SpecUnstable(Vec<String>),
    /// The Task names a Workspace that does not exist.
    WorkspaceMissing(String),
    /// The policy cannot be applied, because of these problems.
    PolicyInvalid(Vec<Problem>),
    /// A template of the policy gives nothing for a sample Task, and may suit others.
    TemplateFailsOnSample(Problem),
    /// The policy has no section, so it does nothing.
    PolicyEmpty,
    /// Labels and annotations, or the finalizer, that only taskgate sets came with a new object. Their keys.
    OwnKeysRemoved(Vec<String>),
    /// An update leaves out labels and annotations that only taskgate sets. Their keys.
    OwnKeysRestored(Vec<&'static str>),
    /// Another user than taskgate changes a label or annotation that only taskgate sets. Its key.
    OwnKeyChanged(&'static str),
    /// Another user than taskgate writes the status of the `WorkItem` of this item.
    StatusOwned(String),
    /// An annotation that asks something of a `WorkItem` cannot be read.
    RequestInvalid {
        /// The annotation's key.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The annotation with the requester, of this key, names another user.
    RequestForged(&'static str),
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
    /// Who asked something of a `WorkItem` is recorded in the annotation of this key.
    RequestStamped(&'static str),
    /// The object cannot be read as its kind: where and why.
    Unreadable(String),
    /// The `WorkItem` is not called what its key demands: this.
    WorkItemMisnamed(String),
}

/// Why an item may not have one more Task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum BreakerRefusal {
    /// As many Tasks failed in a row as may.
    #[strum(serialize = "BreakerOpen")]
    Failures,
    /// The cluster failed the item's Tasks too often.
    #[strum(serialize = "BreakerOpen")]
    Infrastructure {
        /// How often in a row.
        failures: u32,
        /// How often it may.
        limit: u32,
    },
    /// A user opened the breaker.
    #[strum(serialize = "BreakerOpen")]
    OpenedManually,
    /// So many Tasks are under way that, should all fail, the limit is reached.
    #[strum(serialize = "TasksUnderWay")]
    Active(u32),
    /// The one probe is under way.
    #[strum(serialize = "ProbeUnderWay")]
    Probe,
    /// The next attempt may not come before this moment.
    #[strum(serialize = "BackingOff")]
    Backoff(Timestamp),
}

impl Reason {
    /// The reason in one word, from a closed set.
    pub fn code(&self) -> &'static str {
        match &self.detail {
            Detail::Cancellation(CancelDetail::JobStopped(_)) => "JobCancelled",
            Detail::Cancellation(detail) => detail.into(),
            Detail::Queue(QueueDetail::NotQueued { why, .. }) => why.into(),
            Detail::Queue(detail) => detail.into(),
            Detail::BreakerOpen { refusal, .. } => refusal.into(),
            detail => detail.into(),
        }
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
            Detail::Accounted(work_item) => format!("{would}account for the Task in WorkItem {work_item}"),
            Detail::TtlKept(seconds) => format!("{would}keep the TTL of {seconds}s aside until no retry is due"),
            Detail::QueueMoved(queue) => format!("move spec.queueName {queue} to the label kueue.x-k8s.io/queue-name"),
            Detail::MovedAgain(fields) => format!("keep spec.{} aside, as at the creation", fields.join(", spec.")),
            Detail::MovedFieldChanged {
                field,
                kept,
                annotation,
            } => format!(
                "spec.{field} is {kept}, as at the creation, kept in the annotation {annotation}: the spec of a Task cannot be changed"
            ),
            Detail::ItemKeyUnusable(why) => {
                format!("failurePolicy.itemKey gives no key, the ordinary identity is used: {why}")
            }
            Detail::Cancellation(detail) => detail.to_string(),
            Detail::MetadataSet(keys) => format!("{would}set {}", keys.join(", ")),
            Detail::MetadataSkipped { key, why } => format!("left out {key}: {why}"),
            Detail::MetadataKept(keys) => format!("kept the Task's own value of {}", keys.join(", ")),
            Detail::MetadataPending(keys) => {
                let set = if would.is_empty() { "sets" } else { "would set" };
                format!("{set} {} once the issue source has been read", keys.join(", "))
            }
            Detail::Queue(detail) => detail.text(would),
            Detail::ItemOfNoSpawner(item) => {
                let item = clip(item, 40);
                format!(
                    "a Task without a spawner does not belong to a spawner's item {item}; to share that one, set the annotation \
                     taskgate.dev/item: <spawner>/{item}"
                )
            }
            Detail::NameTooLong(length) => format!(
                "the Task's name has {length} characters, its Job's may have 63: Kelos will never start it; shorten the name"
            ),
            Detail::SpecUnstable(fields) => format!(
                "Kelos cannot write this spec back unchanged and will never start the Task; leave out or write canonically: {}",
                fields.join(", ")
            ),
            Detail::WorkspaceMissing(name) => {
                format!("Workspace {name} does not exist: Kelos waits for it and does not report it")
            }
            Detail::PolicyInvalid(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Detail::TemplateFailsOnSample(problem) => {
                format!("a template fails for a sample Task, and a Task for which it fails gets nothing: {problem}")
            }
            Detail::PolicyEmpty => "the policy has no section, so it does nothing yet".to_owned(),
            Detail::OwnKeysRemoved(keys) => format!("only taskgate sets these, removed: {}", keys.join(", ")),
            Detail::OwnKeysRestored(keys) => format!("only taskgate removes these, kept: {}", keys.join(", ")),
            Detail::OwnKeyChanged(key) => format!("only taskgate changes {key}: leave it as it is, or leave it out"),
            Detail::StatusOwned(item) => format!(
                "only taskgate writes the status of a WorkItem; to reset item {}: taskgate reset, annotate the WorkItem \
                 taskgate.dev/reset=<reason>, or delete it",
                clip(item, 64)
            ),
            Detail::RequestInvalid { key, message } => format!("{key}: {message}"),
            Detail::RequestForged(key) => format!("{key} is set by taskgate alone: leave it out"),
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
            Detail::RequestStamped(key) => format!("{key} set"),
            Detail::Unreadable(message) => message.clone(),
            Detail::WorkItemMisnamed(expected) => {
                format!("metadata.name: a WorkItem with this spec.key has to be called {expected}")
            }
            Detail::BreakerOpen { .. } | Detail::JobStopped(_) => self.breaker_message().unwrap_or_default(),
        }
    }

    /// The message of the circuit breaker, for a Task that it denies and for a Job that it stops. The fixed parts come first; the
    /// names of item and policy share the characters that are left.
    fn breaker_message(&self) -> Option<String> {
        let (open, denied, would) = match &self.detail {
            Detail::JobStopped(inner) => (&**inner, "stopped: ", "would stop: "),
            other => (other, "", "would deny: "),
        };
        let Detail::BreakerOpen {
            item,
            work_item,
            namespace,
            failures,
            limit,
            refusal,
            since,
            cost_usd,
        } = open
        else {
            return None;
        };
        let verb = if self.mode == Mode::Enforce { denied } else { would };
        let since = since
            .map(|since| format!(" since {}", since.strftime("%FT%RZ")))
            .unwrap_or_default();
        let count = count(*failures, *limit, *refusal, &since);
        let cost = cost_usd
            .as_ref()
            .map(|cost| format!(", cost ${}", clip(cost, 12)))
            .unwrap_or_default();
        let remedy = match refusal {
            BreakerRefusal::Active(_) | BreakerRefusal::Probe => "; wait until that has ended".to_owned(),
            _ => format!("; reset: taskgate reset {work_item} -n {namespace}"),
        };
        let fixed = format!("taskgate: {verb}item {count}{cost}, by {remedy}");
        let room = MAX_MESSAGE.saturating_sub(fixed.chars().count());
        let policy = self.policy.as_ref().map(ToString::to_string).unwrap_or_default();
        let names = item.chars().count() + policy.chars().count();
        // Before the first failure there is no WorkItem.
        let is_recorded = *failures > 0 || !matches!(refusal, BreakerRefusal::Active(_));
        let explain = if is_recorded {
            explain(namespace, work_item, room, names)
        } else {
            String::new()
        };
        let room = room.saturating_sub(explain.chars().count());
        let item = clip(item, room / 2);
        let policy = clip(&policy, room - item.chars().count().min(room));
        Some(clip(
            &format!("taskgate: {verb}item {item}{count}{cost}, by {policy}{remedy}{explain}"),
            MAX_MESSAGE,
        ))
    }
}

/// How much room the names of an item and of its policy get before the whole command that explains them, in characters.
const LONG_NAMES: usize = 64;
/// The same, before its name alone.
const SHORT_NAMES: usize = 20;

/// The command that explains the item, in its longest form that fits into `room` characters beside the names of item and
/// policy, which have `names` characters.
fn explain(namespace: &str, work_item: &str, room: usize, names: usize) -> String {
    let forms = [
        (
            format!("; why: taskgate explain item/{work_item} -n {namespace}"),
            LONG_NAMES,
        ),
        (format!("; why: taskgate explain item/{work_item}"), LONG_NAMES),
        ("; why: taskgate explain".to_owned(), SHORT_NAMES),
    ];
    let fits = |(form, least): &(String, usize)| form.chars().count() + names.min(*least) <= room;
    let fitting = forms.into_iter().find(fits);
    fitting.map(|(form, _)| form).unwrap_or_default()
}

/// What happened to the item, in numbers; `since` is empty or as ` since 2026-11-20T10:00Z`.
fn count(failures: u32, limit: u32, refusal: BreakerRefusal, since: &str) -> String {
    let failed = match failures {
        0 => String::new(),
        failures => format!(" failed {}", in_a_row(failures)),
    };
    match refusal {
        BreakerRefusal::Failures => format!("{failed} (limit {limit}){since}"),
        BreakerRefusal::OpenedManually => format!(" was opened manually{since}"),
        BreakerRefusal::Infrastructure { failures, limit } => {
            format!(
                " was failed by the cluster {} (limit {limit}){since}",
                in_a_row(failures)
            )
        }
        BreakerRefusal::Active(active) if failures == 0 => {
            format!(" has {} under way (limit {limit})", counted(active, "Task"))
        }
        BreakerRefusal::Active(active) => {
            format!(
                "{failed}{since}, {} under way (limit {limit})",
                counted(active, "more Task")
            )
        }
        BreakerRefusal::Probe => format!("{failed} (limit {limit}){since}, its probe is under way"),
        BreakerRefusal::Backoff(until) => format!("{failed}{since}, next attempt at {}", until.strftime("%FT%TZ")),
    }
}

/// The longest grace, in seconds: a day.
pub const MAX_GRACE: u32 = 86_400;
/// How much of a reason is kept, in characters.
pub const MAX_REASON: usize = 256;

/// A finding about a request to cancel a Task, or to withdraw that request.
#[derive(Clone, Debug, PartialEq, thiserror::Error, IntoStaticStr)]
#[strum(prefix = "Cancel")]
pub enum CancelDetail {
    /// The request is stamped.
    #[error("cancellation by {by} recorded, due at {deadline}")]
    Requested {
        /// Who asked.
        by: String,
        /// When it is due.
        deadline: Timestamp,
    },
    /// The request is withdrawn.
    #[error("cancellation withdrawn")]
    Withdrawn,
    /// The reason has this many characters, which are too many, and is cut.
    #[error("the reason has {0} characters and is cut at {MAX_REASON}")]
    ReasonCut(usize),
    /// A new Task came with annotations of a cancellation, which are left out. Their keys.
    #[error("a new Task is not cancelled: {} left out", .0.join(", "))]
    LeftOut(Vec<&'static str>),
    /// The Job of a cancelled Task is made, but does not run, for this reason.
    #[error("{0}")]
    JobStopped(String),
    /// Another user than taskgate writes the annotation of this key, which only taskgate may write.
    #[error("{0} is written by taskgate alone; to cancel a Task, annotate taskgate.dev/cancel=<reason>")]
    Forged(&'static str),
    /// The Task has ended, in this phase.
    #[error("the Task has ended as {0}: there is nothing to cancel")]
    Ended(String),
    /// The Task is being cancelled already: the first request counts.
    #[error(
        "the Task is being cancelled already, by {} at {deadline}, for: {}; the first request counts, withdraw it to ask anew",
        clip(by, 60),
        clip(reason, 50)
    )]
    Already {
        /// Who asked first.
        by: String,
        /// Why.
        reason: String,
        /// When it is due.
        deadline: Timestamp,
    },
    /// The cancellation is being carried out: it cannot be withdrawn.
    #[error("the Task is being stopped: too late to withdraw its cancellation")]
    NoWayBack,
    /// The grace, as it was written, is no number of seconds that may be.
    #[error("taskgate.dev/cancel-grace is {}: a number of seconds is wanted, 0 to {MAX_GRACE}", clip(.0, 32))]
    GraceInvalid(String),
    /// The grace of a request that waits cannot be changed.
    #[error("the grace of a cancellation cannot be changed: withdraw it and ask anew")]
    GraceFixed,
    /// The user may not delete the Task.
    #[error(
        "{} may not cancel this Task: that takes the right to delete it{}",
        clip(user, 80),
        clip(why, 60)
    )]
    Forbidden {
        /// Who asks.
        user: String,
        /// The reason of the API server, if it gave one.
        why: String,
    },
    /// Whether who asks may delete the Task cannot be found out, for this reason.
    #[error("not cancelled: whether you may delete this Task cannot be checked: {}", clip(.0, 100))]
    Unknown(String),
}

/// What was found about a Job's queue.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum QueueDetail {
    /// The Job is suspended and given to Kueue.
    Queued {
        /// The `LocalQueue`.
        queue: String,
    },
    /// The Job ought to be queued and cannot be.
    NotQueued {
        /// Why, in one word.
        why: NotQueued,
        /// Why, in words.
        message: String,
    },
    /// The pod template has a key that Kueue does not allow there.
    #[strum(serialize = "QueueKeyInPodTemplate")]
    KeyInPodTemplate {
        /// The key.
        key: String,
    },
    /// There is no Kueue.
    #[strum(serialize = "KueueNotInstalled")]
    KueueMissing,
    /// There is no such `LocalQueue`.
    #[strum(serialize = "NoSuchLocalQueue")]
    LocalQueueMissing {
        /// Its name.
        queue: String,
        /// The namespace.
        namespace: String,
    },
    /// There is no such `WorkloadPriorityClass`.
    #[strum(serialize = "UnknownPriorityClass")]
    PriorityClassMissing {
        /// Its name.
        class: String,
    },
    /// Containers request nothing, so that a quota counts them as nothing.
    RequestsMissing {
        /// Their names.
        containers: Vec<String>,
    },
}

/// Why a Job that ought to be queued is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Display, EnumString, IntoStaticStr)]
pub enum NotQueued {
    /// The queue's or the priority class' name is not legal, or a template gave none.
    QueueNameInvalid,
    /// Kueue does not manage the namespace.
    NamespaceNotManaged,
    /// Kueue's configuration cannot be read, so the namespaces that it manages are unknown.
    KueueConfigUnreadable,
}

impl NotQueued {
    /// The annotation for the controller.
    pub(crate) fn annotation(self, message: &str) -> String {
        format!("{self}: {message}")
    }

    /// Reads the annotation.
    pub(crate) fn parse(annotation: &str) -> Option<(Self, &str)> {
        let (word, message) = annotation.split_once(": ")?;
        Some((word.parse().ok()?, message))
    }
}

impl QueueDetail {
    /// What the section did or, with `would`, would do; or the error.
    pub(crate) fn text(&self, would: &str) -> String {
        match self {
            Self::Queued { queue } => format!("{would}suspend the Job and give it to LocalQueue {queue}"),
            Self::NotQueued { message, .. } => format!("the Job is not queued: {message}"),
            Self::KeyInPodTemplate { key } => {
                format!("Kueue refuses to start a Job whose pod template has {key}; remove it from the pod template")
            }
            Self::KueueMissing => "Kueue is not installed: the Job stays suspended until it is".to_owned(),
            Self::LocalQueueMissing { queue, namespace } => {
                format!("there is no LocalQueue {queue} in namespace {namespace}: the Job waits until it is created")
            }
            Self::PriorityClassMissing { class } => {
                format!("there is no WorkloadPriorityClass {class}: Kueue skips the Job until it is created")
            }
            Self::RequestsMissing { containers } => format!(
                "no resource requests in {}: Kueue's quota counts the Job as nothing, unless a LimitRange fills them in",
                containers.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod breaker_message_tests {
    use super::*;
    use crate::{PolicyName, Section};

    fn open(item: &str, namespace: &str, policy: &str) -> Reason {
        Reason {
            section: Section::FailurePolicy,
            policy: Some(PolicyName::Cluster { name: policy.into() }),
            mode: Mode::Enforce,
            detail: Detail::BreakerOpen {
                item: item.into(),
                work_item: format!("{}-0123456789", "w".repeat(40)),
                namespace: namespace.into(),
                failures: 3,
                limit: 3,
                refusal: BreakerRefusal::Failures,
                since: Some("2026-11-20T10:00:00Z".parse().unwrap()),
                cost_usd: Some("1.50".into()),
            },
        }
    }

    #[test]
    fn a_denial_states_item_policy_count_time_cost_and_reset() {
        let mut short = open("42", "team-a", "agents");
        let Detail::BreakerOpen { work_item, .. } = &mut short.detail else {
            unreachable!()
        };
        "fixer-42-e13156ca85".clone_into(work_item);
        assert_eq!(
            short.message(),
            "taskgate: item 42 failed 3 times in a row (limit 3) since 2026-11-20T10:00Z, cost $1.50, by \
             ClusterTaskPolicy/agents; reset: taskgate reset fixer-42-e13156ca85 -n team-a; why: taskgate explain \
             item/fixer-42-e13156ca85 -n team-a"
        );
    }

    #[test]
    fn each_refusal_names_its_own_remedy() {
        let until = "2026-11-20T10:52:48Z".parse().unwrap();
        let cluster = BreakerRefusal::Infrastructure { failures: 1, limit: 1 };
        for (failures, refusal, told, remedy) in [
            (
                1,
                BreakerRefusal::Failures,
                "failed once (limit 3) since 2026-11-20T10:00Z",
                "reset: taskgate reset w",
            ),
            (
                0,
                cluster,
                "was failed by the cluster once (limit 1) since",
                "reset: taskgate reset w",
            ),
            (
                0,
                BreakerRefusal::OpenedManually,
                "was opened manually since",
                "reset: taskgate reset w",
            ),
            (
                0,
                BreakerRefusal::Active(1),
                "has 1 Task under way (limit 3)",
                "wait until that has ended",
            ),
            (
                0,
                BreakerRefusal::Active(2),
                "has 2 Tasks under way (limit 3)",
                "wait until that has ended",
            ),
            (
                1,
                BreakerRefusal::Active(1),
                "once since 2026-11-20T10:00Z, 1 more Task under way",
                "wait until that has ended",
            ),
            (
                3,
                BreakerRefusal::Probe,
                "its probe is under way",
                "wait until that has ended",
            ),
            (
                2,
                BreakerRefusal::Backoff(until),
                "failed 2 times in a row since 2026-11-20T10:00Z, next attempt at 2026-11-20T10:52:48Z",
                "reset: taskgate reset w",
            ),
        ] {
            let mut reason = open("42", "team-a", "agents");
            let Detail::BreakerOpen {
                failures: f,
                refusal: r,
                ..
            } = &mut reason.detail
            else {
                unreachable!()
            };
            (*f, *r) = (failures, refusal);
            let message = reason.message();
            assert!(
                message.contains(told) && message.contains(&format!("; {remedy}")),
                "{message}"
            );
            assert!(!message.contains("delete wi"), "{message}");
            // Nothing is recorded of an item that has not failed yet.
            let is_new = failures == 0 && matches!(refusal, BreakerRefusal::Active(_));
            assert_eq!(message.contains(": taskgate explain"), !is_new, "{message}");
        }
    }

    #[test]
    fn however_long_the_names_the_way_out_is_whole() {
        for (item, namespace, policy, explained) in [
            ("42", "team-a", "agents", "; why: taskgate explain"),
            (&*"i".repeat(500), &*"n".repeat(63), &*"p".repeat(253), ""),
            (
                &*"i".repeat(500),
                &*"n".repeat(40),
                &*"p".repeat(253),
                "; why: taskgate explain",
            ),
        ] {
            let message = open(item, namespace, policy).message();
            assert!(message.chars().count() <= MAX_MESSAGE, "{}", message.chars().count());
            assert!(
                message.ends_with(&format!("-0123456789 -n {namespace}{explained}")),
                "{message}"
            );
            assert!(message.contains(&item[..2]), "{message}");
            assert!(message.contains("ClusterTas"), "{message}");
        }
    }
}
