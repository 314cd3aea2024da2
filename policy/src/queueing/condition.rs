//! The `Queued` condition of a Task: how far its Job is in its queue. It passes on Kueue's own messages (kueue §7), and has reasons
//! of its own where Kueue reports nothing.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use strum::{AsRefStr, IntoStaticStr};
use taskgate_api::{
    job::Job,
    keys,
    kueue::{GROUP, LocalQueue, Workload},
};

use crate::decision::NotQueued;

/// The inputs of the condition: a Task's Job, its Workload, and Kueue.
#[derive(Clone, Copy, Debug)]
pub struct QueueContext<'a> {
    /// The Job.
    pub job: &'a Value,
    /// Its Workload.
    pub workload: Option<&'a Value>,
    /// Kueue, if there is one.
    pub kueue: Option<InstalledKueue<'a>>,
    /// The moment.
    pub now: Timestamp,
}

/// The state of Kueue for a Job.
#[derive(Clone, Copy, Debug)]
pub struct InstalledKueue<'a> {
    /// Since when Kueue is known to be installed.
    pub since: Timestamp,
    /// The `LocalQueue` that the Job names.
    pub local_queue: Option<&'a Value>,
    /// Whether there is the `WorkloadPriorityClass` that the Job names; true when it names none.
    pub has_class: bool,
    /// Whether Kueue manages the Job's namespace. Asked only when it has not noticed the Job in time.
    pub manages_namespace: Option<bool>,
}

/// The reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, IntoStaticStr)]
pub enum QueueReason {
    /// It waits for quota.
    WaitingForAdmission,
    /// It ran, was preempted, and waits again.
    Preempted,
    /// It ran, was stopped by Kueue for another reason, and waits again.
    Evicted,
    /// It waits, and there is no Kueue.
    KueueNotInstalled,
    /// It waits, and its `LocalQueue` does not exist.
    NoSuchLocalQueue,
    /// It waits, and its `LocalQueue` is stopped.
    LocalQueueHeld,
    /// It waits, and its `LocalQueue` does not work.
    LocalQueueInactive,
    /// It waits, and its `WorkloadPriorityClass` does not exist.
    UnknownPriorityClass,
    /// Kueue does not manage its namespace.
    NamespaceNotManaged,
    /// Kueue's configuration cannot be read.
    KueueConfigUnreadable,
    /// Neither the Task nor its policy gives a legal queue name.
    QueueNameInvalid,
    /// It waits, and its queue label was removed.
    QueueLabelRemoved,
    /// It waits, and Kueue has not noticed it.
    NotNoticed,
    /// Kueue started it.
    Admitted,
    /// Kueue will not start it until a user activates it.
    Deactivated,
    /// Kueue will never start it.
    CannotStart,
    /// It ended without having been admitted.
    Ended,
    /// It was started without Kueue.
    StartedByHand,
}

impl QueueReason {
    /// Whether it matters only as the end of a wait.
    pub fn ends_a_wait(self) -> bool {
        matches!(self, Self::Ended | Self::StartedByHand)
    }

    /// Whether a user has to act.
    pub fn is_trap(self) -> bool {
        !matches!(
            self,
            Self::WaitingForAdmission | Self::Preempted | Self::Evicted | Self::Admitted | Self::Ended
        )
    }
}

/// The condition of the Task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Whether the Job waits.
    pub waits: bool,
    /// Why, in one word.
    pub reason: QueueReason,
    /// Why, in words.
    pub message: String,
    /// Since when, by Kueue's condition.
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

/// The result for a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueObservation {
    /// The Task gets this condition.
    State(QueueState),
    /// Nothing yet; requeue at this moment, unless something changes before.
    Later(Timestamp),
    /// Nothing: the Job has no queue, or has left it.
    Nothing,
}

fn waits(reason: QueueReason, message: impl Into<String>) -> QueueState {
    let message = message.into();
    QueueState {
        waits: true,
        reason,
        message,
        since: None,
    }
}

fn done(reason: QueueReason, message: impl Into<String>) -> QueueState {
    QueueState {
        waits: false,
        ..waits(reason, message)
    }
}

/// The condition for the Job of `context`.
///
/// Reasons of Kueue's conditions are passed on and never branched on: they change between versions of Kueue (kueue §4).
pub fn queue_state(context: &QueueContext<'_>) -> QueueObservation {
    let job = Job::of(context.job);
    if job.is_stopped() {
        return QueueObservation::Nothing;
    }
    if let (None, Some((why, message))) = (job.queue(), not_queued(job)) {
        let reason = match why {
            NotQueued::QueueNameInvalid => QueueReason::QueueNameInvalid,
            NotQueued::NamespaceNotManaged => QueueReason::NamespaceNotManaged,
            NotQueued::KueueConfigUnreadable => QueueReason::KueueConfigUnreadable,
        };
        return QueueObservation::State(QueueState {
            waits: job.is_suspended() && !job.has_ended(),
            ..waits(reason, message)
        });
    }
    match context.workload.map(Workload::of) {
        Some(workload) => of_workload(context, job, workload),
        None => without_workload(context, job),
    }
}

fn not_queued(job: Job<'_>) -> Option<(NotQueued, &str)> {
    NotQueued::parse(job.metadata().annotation(keys::NOT_QUEUED)?)
}

fn of_workload(context: &QueueContext<'_>, job: Job<'_>, workload: Workload<'_>) -> QueueObservation {
    let evicted = workload.condition("Evicted").filter(|evicted| evicted.is_true());
    if let (None, Some(admitted)) = (
        evicted,
        workload.condition("Admitted").filter(|admitted| admitted.is_true()),
    ) {
        let by = workload.cluster_queue().unwrap_or("its ClusterQueue");
        return QueueObservation::State(QueueState {
            since: admitted.since(),
            ..done(QueueReason::Admitted, format!("admitted by ClusterQueue {by}"))
        });
    }
    if job.has_ended() {
        return QueueObservation::State(QueueState::ended());
    }
    let name = workload.metadata().name().unwrap_or_default();
    if job.queue().is_none() {
        let message = format!(
            "the Job's queue label was removed: Kueue will not start it, and its Workload {name} may hold quota; \
             delete the Job"
        );
        return QueueObservation::State(waits(QueueReason::QueueLabelRemoved, message));
    }
    if let Some(finished) = workload.condition("Finished").filter(|finished| finished.is_true()) {
        let message = format!("Kueue will never start the Job: {}", finished.message());
        return QueueObservation::State(done(QueueReason::CannotStart, message));
    }
    if !workload.is_active() {
        let namespace = workload.metadata().namespace().unwrap_or_default();
        let why = evicted
            .map(|evicted| format!(": {}", evicted.message()))
            .unwrap_or_default();
        let message = format!(
            "Workload {name} is deactivated{why}; to start the Job again: kubectl -n {namespace} patch workload.{GROUP} {name} \
             --type=merge -p '{{\"spec\":{{\"active\":true}}}}'"
        );
        return QueueObservation::State(done(QueueReason::Deactivated, message));
    }
    if let Some(evicted) = evicted {
        let reason = if workload.is("Preempted") {
            QueueReason::Preempted
        } else {
            QueueReason::Evicted
        };
        return QueueObservation::State(QueueState {
            since: evicted.since(),
            ..waits(reason, evicted.message())
        });
    }
    if let Some(trap) = queue_trap(context, job) {
        return QueueObservation::State(trap);
    }
    match workload.condition("QuotaReserved") {
        Some(reserved) if reserved.is_true() => {
            let checks: Vec<_> = workload
                .pending_checks()
                .map(|(name, message)| format!("{name} {message}").trim_end().to_owned())
                .collect();
            let message = format!("waits for admission checks: {}", checks.join(", "));
            QueueObservation::State(waits(QueueReason::WaitingForAdmission, message))
        }
        Some(pending) => QueueObservation::State(waits(QueueReason::WaitingForAdmission, pending.message())),
        None if context.now < noticed_by(context, job) => QueueObservation::Later(noticed_by(context, job)),
        // Kueue reports nothing for a Job behind one of the same size that does not fit (seen with 0.18).
        None => {
            let queue = job.queue().unwrap_or_default();
            let message = format!("waits in LocalQueue {queue} behind others: Kueue has not tried it yet");
            QueueObservation::State(waits(QueueReason::WaitingForAdmission, message))
        }
    }
}

/// How long Kueue may take to notice a Job before that is reported. It takes well under a second.
const NOTICED_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// The condition for a Job without a Workload.
fn without_workload(context: &QueueContext<'_>, job: Job<'_>) -> QueueObservation {
    if job.queue().is_none() {
        return QueueObservation::Nothing;
    }
    if job.has_ended() {
        return QueueObservation::State(QueueState::ended());
    }
    if !job.is_suspended() {
        let message = "the Job was started without Kueue: it runs outside of any quota";
        return QueueObservation::State(done(QueueReason::StartedByHand, message));
    }
    let Some(kueue) = context.kueue else {
        let message = "Kueue is not installed: the Job stays suspended until it is";
        return QueueObservation::State(waits(QueueReason::KueueNotInstalled, message));
    };
    if let Some(trap) = queue_trap(context, job) {
        return QueueObservation::State(trap);
    }
    if !kueue.has_class {
        let class = job.priority_class().unwrap_or_default();
        let message = format!("there is no WorkloadPriorityClass {class}: Kueue skips the Job until there is");
        return QueueObservation::State(waits(QueueReason::UnknownPriorityClass, message));
    }
    let due = noticed_by(context, job);
    if context.now < due {
        return QueueObservation::Later(due);
    }
    QueueObservation::State(if kueue.manages_namespace == Some(false) {
        let message = "Kueue does not manage this namespace (managedJobsNamespaceSelector of its configuration), and will \
                       never start the Job";
        waits(QueueReason::NamespaceNotManaged, message)
    } else {
        let message = "Kueue has not noticed the Job: does its controller run?";
        waits(QueueReason::NotNoticed, message)
    })
}

/// When Kueue ought to have noticed the Job.
fn noticed_by(context: &QueueContext<'_>, job: Job<'_>) -> Timestamp {
    let known = context.kueue.map(|kueue| kueue.since);
    let from = job.created().max(known).unwrap_or(context.now);
    from.saturating_add(NOTICED_WITHIN).unwrap_or(Timestamp::MAX)
}

/// What is wrong with the queue that the Job names.
fn queue_trap(context: &QueueContext<'_>, job: Job<'_>) -> Option<QueueState> {
    let name = job.queue()?;
    let Some(queue) = context.kueue?.local_queue.map(LocalQueue::of) else {
        let message = format!("there is no LocalQueue {name} in this namespace: the Job waits until there is");
        return Some(waits(QueueReason::NoSuchLocalQueue, message));
    };
    if queue.is_held() {
        let message = format!("LocalQueue {name} is stopped (spec.stopPolicy): the Job waits until it is not");
        return Some(waits(QueueReason::LocalQueueHeld, message));
    }
    let inactive = queue.active().filter(|active| active.is_false())?;
    let message = format!("LocalQueue {name} is inactive: {}", inactive.message());
    Some(waits(QueueReason::LocalQueueInactive, message))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(1_800_000_000 + seconds, 0).unwrap()
    }

    fn job() -> Value {
        json!({
            "metadata": {"name": "a", "namespace": "ns", "creationTimestamp": at(0).to_string(),
                "labels": {"kueue.x-k8s.io/queue-name": "agents", "kueue.x-k8s.io/priority-class": "high"}},
            "spec": {"suspend": true},
        })
    }

    fn workload(conditions: &Value) -> Value {
        json!({
            "metadata": {"name": "job-a", "namespace": "ns"},
            "status": {"conditions": conditions, "admission": {"clusterQueue": "all"}},
        })
    }

    fn is(kind: &str, status: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "Any", "message": message, "lastTransitionTime": at(5).to_string()})
    }

    fn observe(job: &Value, workload: Option<&Value>, kueue: Option<InstalledKueue<'_>>, now: i64) -> QueueObservation {
        let now = at(now);
        queue_state(&QueueContext {
            job,
            workload,
            kueue,
            now,
        })
    }

    fn word(observed: &QueueObservation) -> (bool, &'static str) {
        match observed {
            QueueObservation::State(state) => (state.waits, <&str>::from(state.reason)),
            QueueObservation::Later(_) => (true, "later"),
            QueueObservation::Nothing => (false, "nothing"),
        }
    }

    #[test]
    fn the_messages_of_kueue_are_passed_on() {
        let queue = json!({"status": {"conditions": [is("Active", "True", "")]}});
        let kueue = InstalledKueue {
            since: at(-99),
            local_queue: Some(&queue),
            has_class: true,
            manages_namespace: None,
        };
        let gone = || vec![is("Evicted", "True", "preempted"), is("Admitted", "False", "")];
        for (conditions, expected, message) in [
            (
                vec![is("QuotaReserved", "False", "no room")],
                (true, "WaitingForAdmission"),
                "no room",
            ),
            (
                vec![is("QuotaReserved", "True", "")],
                (true, "WaitingForAdmission"),
                "waits for admission checks: ",
            ),
            (
                vec![is("Admitted", "True", "")],
                (false, "Admitted"),
                "admitted by ClusterQueue all",
            ),
            (gone(), (true, "Evicted"), "preempted"),
            (
                [gone(), vec![is("Preempted", "True", "")]].concat(),
                (true, "Preempted"),
                "preempted",
            ),
            (
                vec![is("Evicted", "False", ""), is("Admitted", "True", "")],
                (false, "Admitted"),
                "admitted by ClusterQueue all",
            ),
            (
                vec![is("Finished", "True", "odd")],
                (false, "CannotStart"),
                "Kueue will never start the Job: odd",
            ),
        ] {
            let workload = workload(&json!(conditions));
            let observed = observe(&job(), Some(&workload), Some(kueue), 1);
            assert_eq!(word(&observed), expected, "{conditions:?}");
            let QueueObservation::State(state) = observed else {
                unreachable!()
            };
            assert_eq!(state.message, message);
        }
        let silent = workload(&json!([]));
        assert_eq!(
            observe(&job(), Some(&silent), Some(kueue), 1),
            QueueObservation::Later(at(10))
        );
        assert_eq!(
            word(&observe(&job(), Some(&silent), Some(kueue), 10)),
            (true, "WaitingForAdmission")
        );
        let mut off = workload(&json!(gone()));
        off["spec"] = json!({"active": false});
        assert_eq!(
            word(&observe(&job(), Some(&off), Some(kueue), 1)),
            (false, "Deactivated")
        );
    }

    #[test]
    fn each_cause_that_kueue_does_not_report_has_a_reason() {
        let (queue, held) = (json!({}), json!({"spec": {"stopPolicy": "Hold"}}));
        let inactive = json!({"status": {"conditions": [is("Active", "False", "no ClusterQueue")]}});
        let kueue = |queue, has_class, manages_namespace| {
            Some(InstalledKueue {
                since: at(-99),
                local_queue: queue,
                has_class,
                manages_namespace,
            })
        };
        for (kueue, now, expected) in [
            (None, 0, "KueueNotInstalled"),
            (kueue(None, true, None), 0, "NoSuchLocalQueue"),
            (kueue(Some(&held), true, None), 0, "LocalQueueHeld"),
            (kueue(Some(&inactive), true, None), 0, "LocalQueueInactive"),
            (kueue(Some(&queue), false, None), 0, "UnknownPriorityClass"),
            (kueue(Some(&queue), true, None), 9, "later"),
            (kueue(Some(&queue), true, Some(false)), 10, "NamespaceNotManaged"),
            (kueue(Some(&queue), true, None), 10, "NotNoticed"),
        ] {
            assert_eq!(word(&observe(&job(), None, kueue, now)), (true, expected));
        }
    }

    #[test]
    fn a_job_that_has_left_its_queue() {
        let mut ended = job();
        ended["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        assert_eq!(word(&observe(&ended, None, None, 0)), (false, "Ended"));
        let admitted = workload(&json!([is("Admitted", "True", "")]));
        assert_eq!(word(&observe(&ended, Some(&admitted), None, 0)), (false, "Admitted"));
        let mut running = job();
        running["spec"]["suspend"] = json!(false);
        assert_eq!(word(&observe(&running, None, None, 0)), (false, "StartedByHand"));
        let mut bare = job();
        bare["metadata"]["labels"] = json!({});
        assert_eq!(word(&observe(&bare, None, None, 0)), (false, "nothing"));
        let pending = workload(&json!([is("QuotaReserved", "False", "")]));
        assert_eq!(
            word(&observe(&bare, Some(&pending), None, 0)),
            (true, "QueueLabelRemoved")
        );
        bare["metadata"]["annotations"] = json!({keys::NOT_QUEUED: "QueueNameInvalid: queue name: none"});
        assert_eq!(word(&observe(&bare, None, None, 0)), (true, "QueueNameInvalid"));
        bare["spec"]["suspend"] = json!(false);
        bare["metadata"]["annotations"] = json!({keys::NOT_QUEUED: "NamespaceNotManaged: so it is"});
        assert_eq!(word(&observe(&bare, None, None, 0)), (false, "NamespaceNotManaged"));
    }
}
