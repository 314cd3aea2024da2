//! The cause of a failed run, which decides what may follow. For a Workload, its children have the cause, never the Workload itself.

use serde_json::Value;
use taskgate_api::{
    condition::Condition,
    foreman::{AgenticTask, Workload},
    retry_status::FailureClass,
    work_item::Outcome,
};

use crate::{breaker::Ending, kubernetes::one_word};

/// How a run failed.
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
mod tests {
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
        let no_agent = child(
            "verify",
            &json!({"phase": "Failed", "verdict": "INCOMPLETE",
                "conditions": [{"type": "Failed", "status": "True", "reason": "AgentNotFound"}]}),
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
            (vec![executor, nogo.clone()], Work, "NOGO"),
            (vec![cascade.clone()], Work, "ChildrenFailed"),
            (vec![infrastructure("CloneFailed")], Infrastructure, "CloneFailed"),
            (
                vec![infrastructure("InfrastructureError")],
                Infrastructure,
                "InfrastructureError",
            ),
            (vec![infrastructure("AuthUnavailable")], Human, "AuthUnavailable"),
            (vec![no_agent.clone()], Human, "AgentNotFound"),
            (
                vec![
                    child("issue-fix", &json!({"phase": "Succeeded", "verdict": "GO"})),
                    no_agent.clone(),
                    cascade.clone(),
                ],
                Human,
                "AgentNotFound",
            ),
            (vec![nogo.clone(), no_agent], Human, "AgentNotFound"),
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
            let repaired = child("issue-fix", &json!({"phase": "Succeeded", "verdict": "NO-GO"}));
            assert_eq!(
                workload_failure(&workload, &[repaired]).class,
                FailureClass::Work,
                "{reason}"
            );
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
