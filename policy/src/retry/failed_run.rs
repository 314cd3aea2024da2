//! What to do about a failed run: record the failure, record why it is not retried, or begin a retry.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use taskgate_api::{
    Mode,
    condition::Condition,
    foreman::{AgenticTask, Workload},
    retry_status::{FailureClass, RetryOrder, RetryStage, RetryStatus, RunFailure, Transition},
    task_policy::RetryPolicy,
    work_item::Outcome,
};

use super::{MAX_ATTEMPT, Origin, Retried, SourceState, Stopped};
use crate::{
    breaker::{Ending, jittered, wait},
    kubernetes::{MAX_USER, clip, one_word},
};

/// A failed run that is not being retried.
#[derive(Clone, Copy, Debug)]
pub struct FailedRunContext<'a> {
    /// The failed object, as it is now.
    pub object: Retried<'a>,
    /// The retry status of its item.
    pub status: &'a RetryStatus,
    /// The retry that a user asked for, and the user, if it is about this object.
    pub asked: Option<(&'a RetryOrder, &'a str)>,
    /// The policy's name, its mode, and its section. `None`: no policy retries the object.
    pub rule: Option<(&'a str, Mode, &'a RetryPolicy)>,
    /// Why the object failed, as it shows now; `None` when that was not read.
    pub cause: Option<&'a FailureCause>,
    /// How many runs in a row the cluster failed.
    pub infrastructure_failures: u32,
    /// Until when the object may still be updated with its outputs (kelos §6.6).
    pub settles: Option<Timestamp>,
    /// The state of its source; `None` when it was not read.
    pub source: Option<SourceState>,
    /// What time it is.
    pub now: Timestamp,
}

/// What to do about a failed run.
#[derive(Clone, Debug, PartialEq)]
pub enum FailedRunAction {
    /// Nothing.
    Nothing,
    /// Nothing, until this moment.
    Wait(Timestamp),
    /// Record the failure.
    Record,
    /// Read whether its source is still open.
    ReadSource(Origin),
    /// Record when it is retried.
    Schedule(NextAttempt),
    /// Record why it is not retried.
    GiveUp(GivenUp),
    /// Record that it is about to be retried.
    Begin(Box<Transition>),
}

/// The attempt that follows the backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextAttempt {
    /// Its number.
    pub to: u32,
    /// How many there may be.
    pub limit: u32,
    /// When it is due, in whole seconds.
    pub due: Timestamp,
}

/// A shorter wait is not recorded: it is over before a user reads of it.
const RECORDED_WAIT: SignedDuration = SignedDuration::from_secs(2);

/// Why a failed run is not retried. A closed set, fit for a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GivenUp {
    /// The limit of attempts is reached.
    Attempts {
        /// The run's number.
        attempt: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The limit of infrastructure failures is reached.
    Infrastructure {
        /// How many.
        failures: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A user has to act.
    Human,
    /// Its source is closed.
    Obsolete,
    /// No policy retries it any more.
    Unwanted,
    /// It would be retried, if the policy were enforced.
    OnlyObserved {
        /// The number of the run that there would be.
        to: u32,
    },
}

impl GivenUp {
    /// The reason of the condition.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Attempts { .. } => "MaxAttemptsReached",
            Self::Infrastructure { .. } => "MaxInfrastructureFailuresReached",
            Self::Human => "NeedsHuman",
            Self::Obsolete => "SourceClosed",
            Self::Unwanted => Stopped::Unwanted.reason(),
            Self::OnlyObserved { .. } => "WouldRetry",
        }
    }

    /// Whether `reason` is one of these.
    pub fn is_reason(reason: &str) -> bool {
        Self::is_limit(reason) || matches!(reason, "NeedsHuman" | "SourceClosed" | "PolicyGone" | "WouldRetry")
    }

    /// Whether `reason` is that of a limit: the deletion of the object then resets the count.
    pub fn is_limit(reason: &str) -> bool {
        matches!(reason, "MaxAttemptsReached" | "MaxInfrastructureFailuresReached")
    }
}

/// The number of the run of an object: the higher of those in the status and on the object. A further object of an item is a
/// further run.
pub fn attempt_number(status: &RetryStatus, uid: &str, stated: u32) -> u32 {
    let known = if is_latest(status, uid) {
        status.attempt
    } else {
        following(status.attempt)
    };
    known.max(stated).clamp(1, MAX_ATTEMPT)
}

/// The number after `attempt`.
pub fn following(attempt: u32) -> u32 {
    attempt.saturating_add(1).min(MAX_ATTEMPT)
}

/// What to do about the failed run of `context`.
pub fn failed_run_action(context: &FailedRunContext<'_>) -> FailedRunAction {
    let FailedRunContext { object, status, .. } = *context;
    if !object.is_tombstone() {
        return FailedRunAction::Nothing;
    }
    let asked = context.asked.filter(|(order, _)| order.run() == object.run());
    let rule = context.rule.filter(|(_, _, rule)| !object.is_left_to_bridge(rule));
    if rule.is_none() && asked.is_none() {
        let is_due = |failure: &RunFailure| failure.next_attempt_time.is_some();
        let is_expected = is_latest(status, object.uid()) && status.failure.as_ref().is_some_and(is_due);
        return if is_expected {
            FailedRunAction::GiveUp(GivenUp::Unwanted)
        } else {
            FailedRunAction::Nothing
        };
    }
    if let Some(until) = context.settles.filter(|until| *until > context.now) {
        return FailedRunAction::Wait(until);
    }
    if asked.is_none() && status.aside.iter().any(|uid| uid == object.uid()) {
        return FailedRunAction::Nothing;
    }
    let known = is_latest(status, object.uid());
    // A Workload may have run again since, with the same UID.
    let is_current = |failure: &&RunFailure| known && context.cause.is_none_or(|cause| cause.reason == failure.reason);
    let Some(failure) = status.failure.as_ref().filter(is_current) else {
        return FailedRunAction::Record;
    };
    let from = status.attempt.max(1);
    if let Some((order, by)) = asked {
        let from = order.from_attempt.unwrap_or(from);
        let to = if order.reset { 1 } else { following(from) };
        let with_feedback = order.with_feedback || rule.is_some_and(|(_, _, rule)| rule.feedback);
        return FailedRunAction::Begin(Box::new(Transition {
            requested_by: Some(clip(by, MAX_USER)),
            with_feedback,
            policy: rule.map(|(name, ..)| name.to_owned()),
            ..planned(context, from, to)
        }));
    }
    let Some((name, mode, rule)) = rule else {
        return FailedRunAction::Nothing;
    };
    let (to, round) = match next_attempt(failure.class, rule, from, context.infrastructure_failures) {
        Ok(next) => next,
        Err(given_up) => return FailedRunAction::GiveUp(given_up),
    };
    if mode != Mode::Enforce {
        return FailedRunAction::GiveUp(GivenUp::OnlyObserved { to });
    }
    let wait = jittered(wait(&rule.backoff(), round), object.uid());
    let due = failure.time.0.checked_add(wait).unwrap_or(Timestamp::MAX);
    if due > context.now {
        return backoff(context, failure, (to, rule.max_attempts), due);
    }
    match (context.source, Origin::of(object, rule)) {
        (None, Some(origin)) => return FailedRunAction::ReadSource(origin),
        (Some(SourceState::Closed), Some(_)) => return FailedRunAction::GiveUp(GivenUp::Obsolete),
        (Some(SourceState::Open | SourceState::Unknown), _) | (_, None) => {}
    }
    FailedRunAction::Begin(Box::new(Transition {
        policy: Some(name.to_owned()),
        with_feedback: rule.feedback,
        ..planned(context, from, to)
    }))
}

/// Waits until `due`, when the attempt `to` of `limit` begins, and records that before.
fn backoff(
    context: &FailedRunContext<'_>,
    failure: &RunFailure,
    (to, limit): (u32, u32),
    due: Timestamp,
) -> FailedRunAction {
    let recorded = failure.next_attempt_time.as_ref().map(|time| time.0.as_second());
    let is_short = due.duration_since(context.now) <= RECORDED_WAIT;
    match Timestamp::from_second(due.as_second()) {
        Ok(due) if !is_short && recorded != Some(due.as_second()) => {
            FailedRunAction::Schedule(NextAttempt { to, limit, due })
        }
        _ => FailedRunAction::Wait(due),
    }
}

/// Whether the latest run that `status` knows is that of the object `uid`.
fn is_latest(status: &RetryStatus, uid: &str) -> bool {
    status.run.as_ref().is_some_and(|run| run.uid == uid)
}

/// The first stage of the transition from one attempt to another.
fn planned(context: &FailedRunContext<'_>, from: u32, to: u32) -> Transition {
    Transition {
        old: context.object.run(),
        resource_version: context.object.version().to_owned(),
        from,
        to,
        step: RetryStage::Planned,
        since: Time(context.now),
        policy: None,
        requested_by: None,
        with_feedback: false,
        blocked: None,
        predecessor: None,
        feedback: None,
        children: Vec::new(),
    }
}

/// The number of the attempt after `from`, which ended with a failure of this class, and the round of its backoff.
///
/// A run at the limit may be repeated if the cluster failed it. A run beyond it may not: a user began that one.
fn next_attempt(class: FailureClass, rule: &RetryPolicy, from: u32, failures: u32) -> Result<(u32, u32), GivenUp> {
    let limit = rule.max_attempts;
    match class {
        FailureClass::Human => Err(GivenUp::Human),
        FailureClass::Obsolete => Err(GivenUp::Obsolete),
        FailureClass::Infrastructure if failures >= rule.max_infrastructure_failures => {
            let limit = rule.max_infrastructure_failures;
            Err(GivenUp::Infrastructure { failures, limit })
        }
        FailureClass::Infrastructure if from <= limit => Ok((from, from.saturating_add(failures))),
        FailureClass::Work if from < limit => Ok((following(from), from)),
        FailureClass::Infrastructure | FailureClass::Work => Err(GivenUp::Attempts { attempt: from, limit }),
    }
}

/// How a run failed, which decides what may follow. For a Workload, its children have the cause, never the Workload itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureCause {
    /// Whose fault it was.
    pub class: FailureClass,
    /// Why, in one word.
    pub reason: String,
}

impl FailureCause {
    fn new(class: FailureClass, reason: &str) -> Self {
        let reason = one_word(reason);
        Self { class, reason }
    }

    /// What the failure counts as in the history.
    pub fn outcome(&self) -> Outcome {
        match self.class {
            FailureClass::Infrastructure => Outcome::Infrastructure,
            FailureClass::Work | FailureClass::Human | FailureClass::Obsolete => Outcome::Failed,
        }
    }
}

/// Reasons of a Workload's condition `Planned`: it failed before it had any child, and would do so again. Foreman writes its
/// conditions from a cache, as one list, so that the condition may outlive the repair: a child that failed comes first.
const UNPLANNED: [&str; 2] = ["NoPlannerOrPipeline", "AgentResolveFailed"];
/// Reasons of an AgenticTask's conditions that blame the cluster.
const INFRASTRUCTURE_REASONS: [&str; 4] = [
    "ExecutorError",
    "TerminalPatchRejected",
    "ExecutorContractViolation",
    "ClaimExpiryLimitReached",
];
/// `failureReason`s that blame the cluster. In Job mode they come with phase Succeeded.
const INFRASTRUCTURE_FAILURES: [&str; 4] = [
    "InfrastructureError",
    "InferenceServiceUnavailable",
    "CloneFailed",
    "GateError",
];
/// `failureReason`s after which a user has to act. The scheduler has no `failureReason`: a missing Agent is the reason of its condition
/// `Failed`.
const HUMAN_FAILURES: [&str; 4] = [
    "AuthUnavailable",
    "GitRemoteNotConfigured",
    "AgentNotFound",
    "ConstraintViolated",
];
/// What a coder may declare about its issue; any other text is no declaration.
const DECLARATIONS: [&str; 2] = ["DESIGN-DECISION", "NO-TECHNICAL-FIX"];

/// How the Workload `object` failed, by its children. An unknown cause counts as the agent's work.
pub fn workload_failure(object: &Value, children: &[Value]) -> FailureCause {
    let children: Vec<_> = children.iter().map(AgenticTask::of).collect();
    if let Some(declared) = children.iter().find_map(|child| declaration(*child)) {
        return FailureCause::new(FailureClass::Human, declared);
    }
    let roots: Vec<_> = children.into_iter().filter(|child| is_root(*child)).collect();
    let planned = Workload::of(object).condition("Planned");
    let is_unplanned =
        |planned: &Condition<'_>| roots.is_empty() && planned.is_false() && UNPLANNED.contains(&planned.reason());
    if let Some(planned) = planned.filter(is_unplanned) {
        return FailureCause::new(FailureClass::Human, planned.reason());
    }
    if let Some(reason) = roots.iter().find_map(|child| human(*child)) {
        return FailureCause::new(FailureClass::Human, reason);
    }
    if roots.iter().any(|child| child.outcome() == "NEEDS-VERIFICATION") {
        return FailureCause::new(FailureClass::Human, "NeedsVerification");
    }
    if !roots.is_empty() && roots.iter().all(|child| child.outcome() == "ALREADY-RESOLVED") {
        return FailureCause::new(FailureClass::Obsolete, "AlreadyResolved");
    }
    if let Some(work) = roots.iter().find(|child| infrastructure(**child).is_none()) {
        return FailureCause::new(FailureClass::Work, work_reason(*work));
    }
    if let Some(reason) = roots.first().and_then(|child| infrastructure(*child)) {
        return FailureCause::new(FailureClass::Infrastructure, reason);
    }
    let completed = Workload::of(object).condition("Completed");
    FailureCause::new(FailureClass::Work, completed.map_or("Failed", Condition::reason))
}

/// How a Task failed, given how it ended; `None` for one that was cancelled or stopped, and so did not fail.
pub fn task_failure(ending: &Ending) -> Option<FailureCause> {
    let class = match ending.outcome {
        // Its root may be retried, and then Kelos does not revive what depends on it.
        Outcome::Failed if ending.reason == "DependencyFailed" => FailureClass::Human,
        Outcome::Failed => FailureClass::Work,
        Outcome::Infrastructure => FailureClass::Infrastructure,
        Outcome::Succeeded | Outcome::Cancelled | Outcome::Deleted | Outcome::Stopped => return None,
    };
    Some(FailureCause::new(class, &ending.reason))
}

/// The declaration of a coder that a user has to decide.
fn declaration(child: AgenticTask<'_>) -> Option<&'static str> {
    if !matches!(child.kind(), "issue-fix" | "code") {
        return None;
    }
    let declared = child.model_extra("escalation")?.as_str()?.trim().to_ascii_uppercase();
    DECLARATIONS.into_iter().find(|known| *known == declared).map(|known| {
        if known == "DESIGN-DECISION" {
            "DesignDecision"
        } else {
            "NoTechnicalFix"
        }
    })
}

/// Whether the child failed by itself, and not because one that it depends on did.
fn is_root(child: AgenticTask<'_>) -> bool {
    let bad =
        child.phase() == "Failed" || matches!(child.verdict(), "NO-GO" | "INCOMPLETE" | "GATE-FAIL" | "GATE-ERROR");
    bad && !has_reason(child, &["UpstreamFailed"])
}

fn has_reason(child: AgenticTask<'_>, reasons: &[&str]) -> bool {
    ["Completed", "Failed", "Scheduled"]
        .into_iter()
        .filter_map(|kind| child.condition(kind))
        .any(|condition| reasons.contains(&condition.reason()))
}

/// The cause that a user has to remove, if there is one.
fn human(child: AgenticTask<'_>) -> Option<&'static str> {
    let is_cause = |reason: &&str| *reason == child.failure_reason() || has_reason(child, &[reason]);
    HUMAN_FAILURES.into_iter().find(is_cause)
}

/// The cause in the cluster, if there is one.
fn infrastructure(child: AgenticTask<'_>) -> Option<&str> {
    let known = INFRASTRUCTURE_REASONS
        .into_iter()
        .find(|reason| has_reason(child, &[reason]));
    known
        .or_else(|| {
            INFRASTRUCTURE_FAILURES
                .into_iter()
                .find(|reason| *reason == child.failure_reason())
        })
        .or_else(|| (child.outcome() == "JOB-ERROR").then_some("JobError"))
        .or_else(|| (child.verdict() == "GATE-ERROR").then_some("GateError"))
}

fn work_reason(child: AgenticTask<'_>) -> &str {
    [child.failure_reason(), child.outcome(), child.verdict()]
        .into_iter()
        .find(|text| !text.is_empty())
        .unwrap_or("Failed")
}

#[cfg(test)]
mod failure_tests {
    use super::*;
    use serde_json::json;

    fn child(kind: &str, status: &Value) -> Value {
        json!({"spec": {"kind": kind}, "status": status})
    }

    #[test]
    #[allow(clippy::too_many_lines)] // One row per rule.
    fn the_cause_of_a_failed_workload() {
        use FailureClass::{Human, Infrastructure, Obsolete, Work};
        let nogo = child("review", &json!({"phase": "Succeeded", "verdict": "NO-GO"}));
        let executor = child(
            "issue-fix",
            &json!({"phase": "Failed", "conditions": [{"type": "Completed", "status": "False", "reason": "ExecutorError"}]}),
        );
        let cascade = child(
            "verify",
            &json!({"phase": "Failed", "conditions": [{"type": "Failed", "status": "True", "reason": "UpstreamFailed"}]}),
        );
        let infrastructure = |reason: &str| child("issue-fix", &json!({"verdict": "NO-GO", "failureReason": reason}));
        let outcome = |outcome: &str| {
            child(
                "issue-fix",
                &json!({"verdict": "NO-GO", "result": {"extra": {"outcome": outcome}}}),
            )
        };
        let declares = |kind: &str, declared: Value| {
            let extra = json!({"modelExtra": {"escalation": declared}});
            child(kind, &json!({"verdict": "NO-GO", "result": {"extra": extra}}))
        };
        for (children, class, reason) in [
            (vec![], Work, "ChildrenFailed"),
            (vec![nogo.clone()], Work, "NOGO"),
            (vec![executor.clone()], Infrastructure, "ExecutorError"),
            (vec![executor.clone(), cascade.clone()], Infrastructure, "ExecutorError"),
            (vec![executor, nogo], Work, "NOGO"),
            (vec![cascade], Work, "ChildrenFailed"),
            (vec![infrastructure("CloneFailed")], Infrastructure, "CloneFailed"),
            (
                vec![infrastructure("InfrastructureError")],
                Infrastructure,
                "InfrastructureError",
            ),
            (vec![infrastructure("AuthUnavailable")], Human, "AuthUnavailable"),
            (vec![infrastructure("MaxTurnsExhausted")], Work, "MaxTurnsExhausted"),
            (vec![infrastructure("SomethingNew")], Work, "SomethingNew"),
            (vec![outcome("JOB-ERROR")], Infrastructure, "JobError"),
            (vec![outcome("NEEDS-VERIFICATION")], Human, "NeedsVerification"),
            (vec![outcome("ALREADY-RESOLVED")], Obsolete, "AlreadyResolved"),
            (vec![outcome("PUSH-FAILED")], Work, "PUSHFAILED"),
            (
                vec![child("verify", &json!({"verdict": "GATE-ERROR"}))],
                Infrastructure,
                "GateError",
            ),
            (
                vec![declares("issue-fix", json!(" design-decision "))],
                Human,
                "DesignDecision",
            ),
            (
                vec![declares("issue-fix", json!("NO-TECHNICAL-FIX"))],
                Human,
                "NoTechnicalFix",
            ),
            (vec![declares("issue-fix", json!("BORED"))], Work, "NOGO"),
            (vec![declares("review", json!("DESIGN-DECISION"))], Work, "NOGO"),
            (vec![declares("issue-fix", json!(["DESIGN-DECISION"]))], Work, "NOGO"),
            (
                vec![child("issue-fix", &json!({"phase": "Failed", "result": "garbage"}))],
                Work,
                "Failed",
            ),
            (vec![json!(null)], Work, "ChildrenFailed"),
        ] {
            let workload = json!({"status": {"phase": "Failed", "conditions": [
                {"type": "Completed", "status": "False", "reason": "ChildrenFailed"}]}});
            let failure = workload_failure(&workload, &children);
            assert_eq!(
                (failure.class, failure.reason.as_str()),
                (class, reason),
                "{children:?}"
            );
        }
    }

    #[test]
    fn what_was_never_planned_is_for_people() {
        for (reason, class) in [
            ("NoPlannerOrPipeline", FailureClass::Human),
            ("AgentResolveFailed", FailureClass::Human),
            ("Whatever", FailureClass::Work),
        ] {
            let workload =
                json!({"status": {"conditions": [{"type": "Planned", "status": "False", "reason": reason}]}});
            assert_eq!(workload_failure(&workload, &[]).class, class, "{reason}");
        }
    }

    #[test]
    fn the_class_follows_from_the_end_of_a_task() {
        for (outcome, reason, class) in [
            (Outcome::Failed, "BackoffLimitExceeded", Some(FailureClass::Work)),
            (Outcome::Failed, "DependencyFailed", Some(FailureClass::Human)),
            (Outcome::Infrastructure, "Evicted", Some(FailureClass::Infrastructure)),
            (Outcome::Cancelled, "TaskCancelled", None),
            (Outcome::Stopped, "CircuitBroken", None),
            (Outcome::Succeeded, "Succeeded", None),
        ] {
            let ending = Ending {
                outcome,
                reason: reason.to_owned(),
            };
            assert_eq!(task_failure(&ending).map(|failure| failure.class), class, "{reason}");
        }
    }
}
