//! Policies that are not in force, that select nothing, that never come to bear, or that only their names decide between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use taskgate_api::TaskPolicySpec;
use taskgate_policy::PolicyName;

use super::{
    reach::{Reach, Written},
    some, unseen,
};
use crate::commands::doctor::{
    facts::{Facts, Unseen},
    finding::{Check, Finding},
};

/// The sections of which one policy wins. Those of `metadata` merge.
const SECTIONS: [&str; 4] = ["failurePolicy", "cancellationPolicy", "queueName", "retry"];

pub(super) fn check(facts: &Facts, reach: &Reach<'_>) -> Vec<Finding> {
    for (what, read) in [
        ("TaskPolicies", &facts.policies),
        ("ClusterTaskPolicies", &facts.cluster_policies),
    ] {
        if let Err(refused @ Unseen::Refused(_)) = read {
            return vec![unseen(Check::Policies, what, refused)];
        }
    }
    if reach.written.is_empty() {
        let message = "there is none: nothing is governed";
        return vec![Finding::warning(
            Check::Policies,
            message,
            "write one: docs/quickstart.md",
        )];
    }
    let mut findings: Vec<_> = reach.written.iter().filter_map(not_accepted).collect();
    let in_force = || {
        reach
            .written
            .iter()
            .filter(|written| written.problem.is_none() && written.is_on())
    };
    // What is not known to be there may still be selected.
    if facts.spawners.is_ok() || facts.tasks.is_ok() || facts.workloads.is_ok() {
        findings.extend(in_force().filter_map(|written| selects_nothing(reach, written)));
    }
    findings.extend(in_force().filter_map(|written| never_bears(reach, written)));
    findings.extend(undecided(reach));
    if findings.is_empty() {
        let count = reach.written.len();
        let governed = reach.selected.iter().filter(|found| !found.by.is_empty()).count();
        findings.push(Finding::ok(
            Check::Policies,
            format!(
                "{count} in force; {governed} of {} Tasks, Workloads and spawners are selected",
                reach.selected.len()
            ),
        ));
    }
    findings
}

fn not_accepted(written: &Written<'_>) -> Option<Finding> {
    let title = written.title();
    let condition = written.accepted();
    if let Some(problem) = &written.problem {
        return Some(Finding::failure(
            Check::Policies,
            format!("{title} is ignored: {problem}"),
            "correct it: the API server refuses it while taskgate answers",
        ));
    }
    if let Some(condition) = condition.filter(|condition| condition.is_false()) {
        return Some(Finding::failure(
            Check::Policies,
            format!("{title}: {}", condition.message()),
            "correct it; if this command finds nothing wrong with it, it is of another release than the pods",
        ));
    }
    let generation = &written.object["metadata"]["generation"];
    let observed = &written.object["status"]["observedGeneration"];
    let looked_at = condition.is_some() && (generation.is_null() || generation == observed);
    (!looked_at).then(|| {
        Finding::warning(
            Check::Policies,
            format!("{title} has not been looked at"),
            "a moment after it was written this is so; else see replicas and rights",
        )
    })
}

fn selects_nothing(reach: &Reach<'_>, written: &Written<'_>) -> Option<Finding> {
    let selected = reach.selected.iter().any(|found| found.by.contains(&written.name));
    if selected {
        return None;
    }
    let title = written.title();
    if written.namespaces.is_empty() {
        return Some(Finding::warning(
            Check::Policies,
            format!("{title} selects no namespace"),
            "look at its namespaceSelector, and at the labels of the namespaces",
        ));
    }
    let there = reach
        .selected
        .iter()
        .filter(|found| written.namespaces.contains(&found.namespace));
    let count = there.count();
    if count == 0 && !reach.more {
        // Nothing has been made there yet; it may be written for what comes.
        return None;
    }
    let looked = if reach.more { "that were looked at " } else { "" };
    Some(Finding::warning(
        Check::Policies,
        format!("{title} selects none of the {count} Tasks, Workloads and spawners {looked}in its reach"),
        "look at its selector: spawnerNames, spawnerSelector, taskSelector, taskTypes",
    ))
}

/// A policy that selects something, and whose every section another one overrules wherever it does.
fn never_bears(reach: &Reach<'_>, written: &Written<'_>) -> Option<Finding> {
    let spec = written.spec.as_ref()?;
    if spec.metadata.is_some() {
        return None;
    }
    let own: Vec<_> = SECTIONS.into_iter().filter(|section| has(spec, section)).collect();
    let mut winners = BTreeSet::new();
    let (mut selected, mut enforced) = (false, false);
    for found in reach.selected.iter().filter(|found| found.by.contains(&written.name)) {
        selected = true;
        for section in &own {
            let winner = found
                .by
                .iter()
                .find(|name| spec_of(reach, name).is_some_and(|spec| has(spec, section)))?;
            if *winner == written.name {
                return None;
            }
            enforced |= is_enforced(reach, winner);
            winners.insert(winner.to_string());
        }
    }
    if !selected {
        return None;
    }
    let title = written.title();
    Some(if own.is_empty() {
        Finding::warning(
            Check::Policies,
            format!("{title} has no section: it does nothing"),
            "give it one: docs/reference.md",
        )
    } else {
        let winners: Vec<_> = winners.into_iter().collect();
        let remedy = if enforced {
            "only its stricter limits apply, as the other one is enforced: docs/policies.md"
        } else {
            "give it a higher priority or narrow the other one: docs/policies.md"
        };
        Finding::warning(
            Check::Policies,
            format!(
                "{title} never comes to bear: {} overrules it everywhere",
                some(&winners)
            ),
            remedy,
        )
    })
}

/// Pairs of policies of one kind and priority that want different things of the same Tasks: only their names decide.
fn undecided(reach: &Reach<'_>) -> Vec<Finding> {
    let mut pairs: BTreeMap<(&PolicyName, &PolicyName, &str), Vec<String>> = BTreeMap::new();
    for found in &reach.selected {
        for section in SECTIONS {
            let mut with = found
                .by
                .iter()
                .filter(|name| spec_of(reach, name).is_some_and(|spec| has(spec, section)));
            let (Some(first), Some(second)) = (with.next(), with.next()) else {
                continue;
            };
            let (Some(one), Some(other)) = (spec_of(reach, first), spec_of(reach, second)) else {
                continue;
            };
            let one_kind = matches!(first, PolicyName::Cluster { .. }) == matches!(second, PolicyName::Cluster { .. });
            let one_rank = one_kind && is_enforced(reach, first) == is_enforced(reach, second);
            if one_rank && one.priority == other.priority && section_of(one, section) != section_of(other, section) {
                let place = format!("{}/{}", found.namespace, found.title);
                pairs.entry((first, second, section)).or_default().push(place);
            }
        }
    }
    pairs
        .into_iter()
        .map(|((winner, loser, section), places)| {
            Finding::warning(
                Check::Policies,
                format!(
                    "{winner} and {loser} disagree on {section} of {}; {winner} wins by its name alone",
                    some(&places)
                ),
                "give one of them a higher priority",
            )
        })
        .collect()
}

fn is_enforced(reach: &Reach<'_>, name: &PolicyName) -> bool {
    reach
        .written
        .iter()
        .any(|written| written.name == *name && written.enforced)
}

fn spec_of<'a>(reach: &'a Reach<'_>, name: &PolicyName) -> Option<&'a TaskPolicySpec> {
    reach
        .written
        .iter()
        .find(|written| written.name == *name)?
        .spec
        .as_ref()
}

fn has(spec: &TaskPolicySpec, section: &str) -> bool {
    !section_of(spec, section).is_null()
}

/// What a policy says in a section; null where it says nothing.
fn section_of(spec: &TaskPolicySpec, section: &str) -> Value {
    match section {
        "failurePolicy" => json!(spec.failure_policy),
        "cancellationPolicy" => json!(spec.cancellation_policy),
        "retry" => json!(spec.retry),
        // The queue's settings stand beside each other.
        _ if spec.queue_name.is_none() => Value::Null,
        _ => json!([
            spec.queue_name,
            spec.queue_priority_class,
            spec.queue_on_error,
            spec.queue_on_deactivation
        ]),
    }
}
