//! The report on given objects, as text and as data.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use taskgate_api::switch::CONDITION;

use super::{report::StatusReport, text::text, webhook_state};
use crate::commands::snapshot::{Collection, ReadError, Snapshot};

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn snapshot(kinds: &[(Collection, &[Value])]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for kind in Collection::STATUS {
        let objects = kinds.iter().find(|(given, _)| *given == kind);
        let objects = objects.map(|(_, objects)| *objects).unwrap_or_default();
        snapshot.put(kind, Ok(objects.iter().cloned().map(Arc::new).collect()));
    }
    snapshot
}

fn task(name: &str, spawner: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {
            "name": name, "namespace": "team", "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-20T11:00:00Z",
            "labels": {"kelos.dev/taskspawner": spawner, "taskgate.dev/work-item": format!("{name}-item")},
        },
        "spec": {"type": "claude-code"}, "status": status,
    })
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy",
        "metadata": {"name": name, "namespace": "team"}, "spec": spec,
    })
}

fn item(task: &str, key: &str, breaker: &str) -> Value {
    json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
        "metadata": {"name": format!("{task}-item"), "namespace": "team"}, "spec": {"key": key, "item": "42"},
        "status": {
            "breaker": breaker, "consecutiveFailures": 2, "infrastructureFailures": 1, "totalCostUSD": "1.50",
            "openedAt": "2026-11-20T07:00:00Z", "reason": "MaxRetriesExceeded",
            "attempts": [
                {"uid": "uid-first", "name": task, "outcome": "Failed"},
                {"uid": "uid-evicted", "name": task, "outcome": "Infrastructure"},
                {"uid": format!("uid-{task}"), "name": task, "outcome": "Failed", "opened": true},
            ],
        },
    })
}

/// The WorkItem of a failed Workload; `more` is of its retry status.
fn retried(name: &str, reason: &str, more: &Value) -> Value {
    let mut retry = json!({
        "attempt": 2, "run": {"kind": "Workload", "name": name, "uid": format!("uid-{name}")},
        "failure": {"class": "Work", "reason": "GateFailed", "time": "2026-11-20T11:00:00Z"},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        retry[field] = value.clone();
    }
    json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem",
        "metadata": {"name": format!("{name}-item"), "namespace": "team"},
        "spec": {"key": format!("Workload/acme/{name}#7"), "item": format!("acme/{name}#7")},
        "status": {"retry": retry, "conditions": [{
            "type": "Retry", "status": "False", "reason": reason, "message": format!("Workload {name} was retried"),
            "lastTransitionTime": "2026-11-20T11:00:00Z",
        }]},
    })
}

/// A retry of `name` in progress.
fn under_way(name: &str, policy: &str, more: &Value) -> Value {
    let mut transition = json!({
        "old": {"kind": "Workload", "name": name, "uid": format!("uid-{name}")}, "from": 2, "to": 3, "step": "Deleted",
        "since": "2026-11-20T11:58:20Z", "policy": policy,
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        transition[field] = value.clone();
    }
    retried(name, "Deleted", &json!({"transition": transition}))
}

fn namespace(labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": labels}})
}

/// A namespace with Tasks in many states.
fn busy() -> Snapshot {
    let queued = json!({"phase": "Pending", "conditions": [{
        "type": "Queued", "status": "True", "reason": "WaitingForAdmission", "message": "insufficient unused quota for cpu",
        "lastTransitionTime": "2026-11-20T11:58:20Z",
    }]});
    let cancelled = json!({"phase": "Failed", "message": "Cancelled by user:ann: stale", "conditions": [{
        "type": "Cancelled", "status": "True", "reason": "ByHand", "message": "Cancelled by user:ann: stale",
        "lastTransitionTime": "2026-11-20T09:00:00Z",
    }]});
    let mut stranger = task("stranger", "other", &json!({"phase": "Running"}));
    stranger["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "other"});
    let failed = json!({"phase": "Failed", "message": "exit code 1", "completionTime": "2026-11-20T07:00:00Z"});
    let running = json!({"phase": "Running", "startTime": "2026-11-20T10:00:00Z"});
    snapshot(&[
        (
            Collection::Tasks,
            &[
                task("fixer-1", "fixer", &running),
                task("fixer-2", "fixer", &queued),
                task("fixer-3", "fixer", &cancelled),
                task("fixer-42", "fixer", &failed),
                task("fixer-9", "fixer", &json!({"phase": "Succeeded"})),
                stranger,
            ],
        ),
        (
            Collection::WorkItems,
            &[
                item("fixer-42", "fixer/42", "Open"),
                item("fixer-1", "fixer/1", "Closed"),
            ],
        ),
        (
            Collection::Policies,
            &[
                policy(
                    "agents",
                    &json!({"selector": {"spawnerNames": ["fixer"]}, "failurePolicy": {"maxRetriesPerItem": 2}}),
                ),
                policy("broken", &json!({"mode": "Warn", "queueName": "{{ nonsense"})),
            ],
        ),
        (Collection::Namespaces, &[namespace(&json!({}))]),
    ])
}

#[test]
fn text_has_policies_tasks_and_open_items() {
    let report = StatusReport::of(Some("team"), &busy());
    let problem = report.policies.entries[1].problem.clone().expect("it does not compile");
    let text = text(&report, now());
    let expected = format!(
        "\
Policies: 2
NAME               MODE     TASKS  PROBLEM
TaskPolicy/agents  Enforce  5
TaskPolicy/broken  Warn     0      {problem}

Tasks: 5 governed, 1 CircuitBroken, 1 Queued, 1 Running, 1 Cancelled, 1 Succeeded (not listed), 1 not governed (not listed)
NAME      STATE          SINCE  POLICY             WHY
fixer-42  CircuitBroken  5h     TaskPolicy/agents  kept as the tombstone of item fixer/42; taskgate reset fixer/42 lets it start again
fixer-2   Queued         100s   TaskPolicy/agents  WaitingForAdmission: insufficient unused quota for cpu
fixer-1   Running        2h     TaskPolicy/agents
fixer-3   Cancelled      3h     TaskPolicy/agents  Cancelled by user:ann: stale

Open items: 1 of 2
ITEM      BREAKER  FAILURES  ATTEMPTS  COST   SINCE  WHY
fixer/42  Open     2+1       3         $1.50  5h     MaxRetriesExceeded

Retries: 0 in progress, 0 failed
"
    );
    assert_eq!(text, expected);
}

#[test]
fn json_has_the_same_and_all_of_it() {
    let report = serde_json::to_value(StatusReport::of(Some("team"), &busy())).expect("JSON");
    assert_eq!(report["namespace"], "team");
    assert_eq!(report["ungovernedTasks"], 1);
    let tasks = report["tasks"]["entries"].as_array().expect("Tasks");
    let cancelled = tasks
        .iter()
        .find(|task| task["name"] == "fixer-3")
        .expect("it is there");
    assert_eq!(
        *cancelled,
        json!({
            "namespace": "team", "name": "fixer-3", "state": "Cancelled", "phase": "Failed",
            "policies": ["TaskPolicy/agents"], "since": "2026-11-20T09:00:00Z", "why": "Cancelled by user:ann: stale",
        })
    );
    assert_eq!(
        report["openItems"]["entries"],
        json!([{
            "namespace": "team", "key": "fixer/42", "name": "fixer-42-item", "breaker": "Open", "failures": 2,
            "infrastructureFailures": 1, "attempts": 3, "totalCostUSD": "1.50", "since": "2026-11-20T07:00:00Z",
            "reason": "MaxRetriesExceeded",
        }])
    );
}

#[test]
fn an_empty_report_has_its_headings() {
    let text = text(&StatusReport::of(None, &snapshot(&[])), now());
    assert_eq!(
        text,
        "Policies: 0\n\nTasks: 0 governed\n\nOpen items: 0 of 0\n\nRetries: 0 in progress, 0 failed\n"
    );
}

#[test]
fn failed_runs_are_listed_with_the_step_of_their_retry() {
    let held = json!({
        "blocked": {"reason": "RetryBlocked", "message": "AgenticTask held is held by x/y", "time": "2026-11-20T12:00:00Z"},
    });
    let snapshot = snapshot(&[
        (
            Collection::WorkItems,
            &[
                retried("capped", "MaxAttemptsReached", &json!({})),
                // The condition is that of the run before.
                retried("fresh", "Recreated", &json!({})),
                retried(
                    "later",
                    "BackingOff",
                    &json!({"failure": {
                        "class": "Work", "reason": "GateFailed", "time": "2026-11-20T11:00:00Z",
                        "nextAttemptTime": "2026-11-20T12:05:00Z",
                    }}),
                ),
                under_way("held", "team/TaskPolicy/retry", &held),
                under_way(
                    "asked",
                    "ClusterTaskPolicy/gone",
                    &json!({"step": "Planned", "requestedBy": "ann"}),
                ),
                retried("fine", "Succeeded", &json!({"failure": null})),
                item("fixer-42", "fixer/42", "Closed"),
            ],
        ),
        (
            Collection::Policies,
            &[policy("retry", &json!({"retry": {"maxAttempts": 3}}))],
        ),
        (Collection::Namespaces, &[namespace(&json!({}))]),
    ]);
    let report = StatusReport::of(Some("team"), &snapshot);
    let told = text(&report, now());
    let expected = "\
Retries: 2 in progress, 3 failed
ITEM                    OBJECT           STEP     ATTEMPT  SINCE  WHY
Workload/acme/asked#7   Workload/asked   Planned  3        100s   requested by ann
Workload/acme/held#7    Workload/held    Deleted  3 of 3   100s   RetryBlocked: AgenticTask held is held by x/y
Workload/acme/capped#7  Workload/capped  Failed   2        60m    MaxAttemptsReached: Workload capped was retried
Workload/acme/fresh#7   Workload/fresh   Failed   2        60m    Work failure, GateFailed: waits for its turn
Workload/acme/later#7   Workload/later   Failed   2        60m    BackingOff: Workload later was retried
";
    assert!(told.ends_with(expected), "{told}");
    let report = serde_json::to_value(&report).expect("JSON");
    assert_eq!(report["retries"]["entries"][4]["nextAttempt"], "2026-11-20T12:05:00Z");
    assert_eq!(
        report["retries"]["entries"][1],
        json!({
            "namespace": "team", "key": "Workload/acme/held#7", "name": "held-item", "object": "Workload/held",
            "step": "Deleted", "attempt": 3, "maxAttempts": 3, "since": "2026-11-20T11:58:20Z", "blocked": "RetryBlocked",
            "why": "RetryBlocked: AgenticTask held is held by x/y",
        })
    );
}

#[test]
fn all_namespaces_have_a_column() {
    let text = text(&StatusReport::of(None, &busy()), now());
    assert!(text.contains("\nNAMESPACE  NAME      STATE "), "{text}");
    assert!(text.contains("\nteam       fixer/42  Open "), "{text}");
}

#[test]
fn what_cannot_be_read_is_reported_in_its_place_and_the_rest_shown() {
    let refused = |collection: Collection, error: ReadError| {
        let mut snapshot = busy();
        snapshot.put(collection, Err(error));
        (
            snapshot.errors(),
            text(&StatusReport::of(Some("team"), &snapshot), now()),
        )
    };
    let forbidden = || ReadError::Refused("bob may not".to_owned());

    let (errors, told) = refused(Collection::Tasks, ReadError::Absent);
    assert!(
        told.contains("\nTasks: Kelos is not installed: the API server has no Tasks\n"),
        "{told}"
    );
    assert!(errors == 0 && told.contains("\nfixer/42  Open"), "{told}");

    let (errors, told) = refused(Collection::WorkItems, forbidden());
    assert!(told.contains("\nOpen items: bob may not\n"), "{told}");
    // Without the item it is not known that it is a tombstone.
    assert!(errors == 1 && told.contains("\nfixer-42  Failed "), "{told}");

    let (_, told) = refused(Collection::Policies, ReadError::Absent);
    assert!(told.starts_with("Policies: taskgate is not installed"), "{told}");

    for kind in [
        Collection::Policies,
        Collection::ClusterPolicies,
        Collection::Namespaces,
        Collection::Spawners,
    ] {
        let (errors, told) = refused(kind, forbidden());
        let unknown = "Policies: which policies govern a Task is not known: bob may not\n";
        assert!(errors == 1 && told.starts_with(unknown), "{kind:?}: {told}");
        // Which policies govern is not known: all Tasks are listed.
        assert!(
            told.contains("\nstranger  Running        60m    ?\n"),
            "{kind:?}: {told}"
        );
    }
}

#[test]
fn excluded_namespaces_have_no_governed_tasks() {
    let mut snapshot = busy();
    let disabled = namespace(&json!({"taskgate.dev/admission": "disabled"}));
    snapshot.put(Collection::Namespaces, Ok(vec![Arc::new(disabled)]));
    let report = StatusReport::of(Some("team"), &snapshot);
    assert!(report.policies.entries.iter().all(|policy| policy.tasks == Some(0)));
    // The state of Tasks that taskgate acted on before is shown.
    assert!(
        report
            .tasks
            .entries
            .iter()
            .all(|task| task.policies.as_deref() == Some(&[]))
    );
}

#[test]
fn text_of_others_cannot_control_the_terminal() {
    let mut evil = task(
        "evil",
        "fixer",
        &json!({"phase": "Run\u{1b}[2Jning", "message": "a\nb\u{202e}c"}),
    );
    evil["metadata"]["labels"]["taskgate.dev/work-item"] = json!("x");
    let text = text(
        &StatusReport::of(Some("team"), &snapshot(&[(Collection::Tasks, &[evil])])),
        now(),
    );
    assert!(text.contains("Run [2Jning") && text.contains("a b c"), "{text:?}");
}

#[test]
fn a_configuration_is_on_off_or_between() {
    let webhook = |name: &str, policy: &str, off: bool| {
        let conditions = if off { json!([{"name": CONDITION}]) } else { json!([]) };
        json!({"name": name, "failurePolicy": policy, "matchConditions": conditions})
    };
    let of = |webhooks: &[Value]| webhook_state(&json!({"webhooks": webhooks}));
    let (on, off) = (webhook("a", "Ignore", false), webhook("b", "Fail", true));
    assert_eq!(of(std::slice::from_ref(&on)), "on; of 1 webhooks 0 fail closed");
    assert_eq!(of(std::slice::from_ref(&off)), "off; of 1 webhooks 1 fail closed");
    assert_eq!(of(&[on, off]), "1 of 2 off; of 2 webhooks 1 fail closed");
}
