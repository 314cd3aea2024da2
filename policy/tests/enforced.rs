//! Enforced cluster policies: what other policies may change about them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use taskgate_api::{Mode, keys, task_policy::RetriedKind};
use taskgate_policy::{Policy, PolicyScope, PolicySet, Section};

fn cluster(name: &str, spec: Value) -> Policy {
    Policy::cluster(name, &serde_json::from_value(spec).unwrap()).unwrap()
}

fn enforced(name: &str, mut spec: Value) -> Policy {
    spec["enforced"] = true.into();
    cluster(name, spec)
}

fn own(name: &str, spec: Value) -> Policy {
    Policy::namespaced("team", name, &serde_json::from_value(spec).unwrap()).unwrap()
}

fn task() -> Value {
    json!({"metadata": {"name": "t", "namespace": "team", "uid": "u"}})
}

/// The failure section that applies to a Task: its policy, mode and limit.
fn limit(policies: impl IntoIterator<Item = Policy>) -> Option<(String, Mode, u32)> {
    let (set, none) = (PolicySet::new(policies), BTreeMap::new());
    let found = PolicyScope::new(&set, "team", &none, None).failure(&task())?;
    Some((found.policy.to_string(), found.mode, found.rule.max_retries_per_item))
}

fn failures(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

#[test]
fn an_enforced_section_comes_first_and_is_only_made_stricter() {
    let base = || enforced("base", failures(3));
    let of_base = |mode, limit| Some(("ClusterTaskPolicy/base".to_owned(), mode, limit));
    for (further, mode, limit_of) in [
        (own("lax", with(failures(9), "priority", json!(1000))), Mode::Enforce, 3),
        (
            own("none", with(failures(0), "priority", json!(1000))),
            Mode::Enforce,
            3,
        ),
        (own("strict", failures(2)), Mode::Enforce, 2),
        (own("off", with(failures(1), "mode", json!("Off"))), Mode::Enforce, 3),
        (
            own("seen", with(failures(1), "mode", json!("Observe"))),
            Mode::Enforce,
            3,
        ),
        (
            own(
                "section",
                json!({"failurePolicy": {"mode": "Off", "maxRetriesPerItem": 1}}),
            ),
            Mode::Enforce,
            3,
        ),
        (
            cluster("other", with(failures(9), "priority", json!(1000))),
            Mode::Enforce,
            3,
        ),
    ] {
        let name = further.name().to_string();
        assert_eq!(limit([base(), further]), of_base(mode, limit_of), "{name}");
    }
    // Of several the strongest counts; fields that it does not set stay as they are enforced.
    let several = [
        base(),
        own("a", failures(2)),
        own("b", with(failures(1), "priority", json!(-1))),
    ];
    assert_eq!(limit(several), of_base(Mode::Enforce, 2));
    // Only watched by the cluster, acted upon by the team.
    let watched = enforced("base", with(failures(3), "mode", json!("Observe")));
    assert_eq!(limit([watched.clone()]), of_base(Mode::Observe, 3));
    assert_eq!(limit([watched, own("acts", failures(5))]), of_base(Mode::Enforce, 3));
    // Among themselves enforced ones go by priority and name, and do not mix.
    let two = [
        enforced("base", with(failures(3), "priority", json!(1))),
        enforced("a", failures(1)),
    ];
    assert_eq!(limit(two), of_base(Mode::Enforce, 3));
    // Without the field all is as it was.
    let plain = [cluster("base", failures(3)), own("lax", failures(9))];
    assert_eq!(limit(plain), Some(("TaskPolicy/lax".to_owned(), Mode::Enforce, 9)));
}

#[test]
fn a_retry_that_is_enforced_never_becomes_more() {
    let attempts = |policies: Vec<Policy>| {
        let (set, none, task) = (PolicySet::new(policies), BTreeMap::new(), task());
        let found = PolicyScope::new(&set, "team", &none, None).retry(RetriedKind::Task, &task);
        let found = found.unwrap();
        (found.mode, found.rule.max_attempts, found.rule.overrides.is_some())
    };
    let base = |mode: &str| enforced("base", json!({"retry": {"mode": mode, "maxAttempts": 3}}));
    let team = |attempts: u32| {
        let retry = json!({"maxAttempts": attempts, "overrides": {"task": {"image": "x"}}});
        own("team", json!({"priority": 1000, "retry": retry}))
    };
    assert_eq!(attempts(vec![base("Enforce"), team(9)]), (Mode::Enforce, 3, false));
    assert_eq!(attempts(vec![base("Enforce"), team(2)]), (Mode::Enforce, 2, false));
    assert_eq!(attempts(vec![base("Observe"), team(2)]), (Mode::Observe, 2, false));
}

#[test]
fn an_enforced_policy_comes_first_in_the_merge_and_among_the_candidates() {
    let policies = PolicySet::new([
        enforced(
            "base",
            with(failures(3), "metadata", json!({"labels": {"cost": "shared"}})),
        ),
        own(
            "team",
            with(
                with(failures(2), "metadata", json!({"labels": {"cost": "none"}})),
                "priority",
                json!(1000),
            ),
        ),
    ]);
    let none = BTreeMap::new();
    let scope = PolicyScope::new(&policies, "team", &none, None);
    let governed = scope.governing(&task());
    let metadata = governed.iter().filter(|found| found.section == Section::Metadata);
    let order: Vec<_> = metadata.map(|found| found.policy.to_string()).collect();
    assert_eq!(order, ["ClusterTaskPolicy/base", "TaskPolicy/team"]);
    let found = scope.candidates(&task());
    let claim = |index: usize| found[index].claim(Section::FailurePolicy).unwrap();
    assert!(found[0].enforced && claim(0).wins && !claim(0).tightens);
    assert!(!found[1].enforced && !claim(1).wins && claim(1).tightens);
}

#[test]
fn no_policy_applies_in_a_namespace_that_is_opted_out() {
    let set = PolicySet::new([enforced("base", failures(3)), own("team", failures(2))]);
    let mut labels = BTreeMap::from([(keys::ADMISSION.to_owned(), "enabled".to_owned())]);
    assert!(PolicyScope::new(&set, "team", &labels, None).failure(&task()).is_some());
    labels.insert(keys::ADMISSION.to_owned(), keys::ADMISSION_DISABLED.to_owned());
    let scope = PolicyScope::new(&set, "team", &labels, None);
    assert!(scope.failure(&task()).is_none());
    assert!(scope.governing(&task()).is_empty());
}

/// 0 is no limit.
fn bound(limit: u32) -> u32 {
    if limit == 0 { u32::MAX } else { limit }
}

fn section() -> impl Strategy<Value = Value> {
    let mode = prop_oneof![Just("Off"), Just("Observe"), Just("Warn"), Just("Enforce")];
    let wait = || proptest::option::of((1_u32..100).prop_map(|minutes| format!("{minutes}m")));
    (0_u32..6, 0_u32..6, mode, wait(), -2_i32..3).prop_map(|(limit, infrastructure, mode, wait, priority)| {
        let mut section = json!({
            "mode": mode, "maxRetriesPerItem": limit, "maxInfrastructureFailures": infrastructure,
        });
        if let Some(wait) = wait {
            section["backoff"] = json!({"initial": wait, "max": "100m"});
            section["resetAfter"] = wait.into();
        }
        json!({"priority": priority, "failurePolicy": section})
    })
}

proptest! {
    #[test]
    fn a_further_policy_never_makes_an_enforced_limit_larger(
        base in section(),
        others in proptest::collection::vec((section(), any::<bool>()), 0..4),
    ) {
        let none = BTreeMap::new();
        let alone = PolicySet::new([enforced("base", base.clone())]);
        let others = others.into_iter().enumerate().map(|(index, (spec, is_cluster))| {
            let name = format!("p{index}");
            if is_cluster { cluster(&name, spec) } else { own(&name, spec) }
        });
        let together = PolicySet::new(others.chain([enforced("base", base)]));
        let task = task();
        let Some(before) = PolicyScope::new(&alone, "team", &none, None).failure(&task) else { return Ok(()) };
        let after = PolicyScope::new(&together, "team", &none, None).failure(&task).unwrap();
        prop_assert_eq!(after.policy, before.policy);
        prop_assert!(after.mode >= before.mode);
        let limits = |rule: &taskgate_api::task_policy::FailurePolicy| {
            (bound(rule.max_retries_per_item), bound(rule.max_infrastructure_failures))
        };
        let (is, was) = (limits(after.rule), limits(before.rule));
        prop_assert!(is.0 <= was.0 && is.1 <= was.1);
        prop_assert!(after.rule.reset_after >= before.rule.reset_after);
        prop_assert_eq!(after.rule.reset_after.is_some(), before.rule.reset_after.is_some());
        let first = |rule: &taskgate_api::task_policy::FailurePolicy| rule.backoff.as_ref().map(|backoff| backoff.initial);
        prop_assert!(first(after.rule) >= first(before.rule));
    }
}
