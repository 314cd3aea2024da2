//! The items that taskgate reads at issue sources: those that a policy waits for, and no others.
//!
//! Imports the features whose sections read issue sources. Called by the controller.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use taskgate_api::{Mode, WorkItem, WorkItemStatus, kelos, task_policy::FailurePolicy};

use crate::{
    breaker::{TaskState, open_reason},
    cancellation::{Cancellation, Trigger},
    decision::BreakerRefusal,
    matching::{PolicyName, PolicyScope, Sections, SourceKey, identify},
    metadata::Pending,
};

/// Why an item is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interest {
    /// The policies that wait for the answer.
    pub policies: BTreeSet<PolicyName>,
    /// The `WorkItem` whose status the answer is compared with.
    pub work_item: Option<String>,
    /// The failure section of that `WorkItem`.
    pub rule: Option<FailurePolicy>,
    /// Whether a Task under way waits for it: then comments are kept with their text.
    pub for_task: bool,
    /// Whether it is enough to read seldom: the answer can only delete the `WorkItem`.
    pub is_idle: bool,
}

impl Interest {
    fn join(&mut self, other: Self) {
        self.policies.extend(other.policies);
        self.is_idle &= other.is_idle;
        self.for_task |= other.for_task;
        self.work_item = self.work_item.take().or(other.work_item);
        self.rule = self.rule.take().or(other.rule);
    }
}

/// Every interest, by item.
pub type Interests = BTreeMap<SourceKey, Interest>;

/// Adds the items that policies read because of the Task `object`, whose state is `state` and whose `WorkItem` has this `status`.
pub fn add_task(
    interests: &mut Interests,
    scope: &PolicyScope<'_, '_>,
    object: &Value,
    state: &TaskState,
    status: Option<&WorkItemStatus>,
) {
    let task = kelos::Task::of(object);
    let sections = scope.sections(object);
    let waiting = Interest {
        policies: labellers(&sections, object),
        ..Interest::default()
    };
    if let Some(key) = SourceKey::of(scope.namespace, task).filter(|_| !waiting.policies.is_empty()) {
        add(interests, key, waiting);
    }
    let mut interest = Interest::default();
    // A Task that was cancelled because its item was removed must be replaced when the item is found again.
    let gone = || {
        let stamp = Cancellation::of(object).stamp;
        state.cancelled && stamp.is_some_and(|stamp| stamp.trigger == Trigger::SourceRemoved)
    };
    if state.is_under_way() || gone() {
        interest.for_task = true;
        interest.policies = followers(&sections);
    }
    let failure = sections.failure.filter(|matched| resets(matched.mode, matched.rule));
    if let Some((matched, status)) = failure.zip(status)
        && is_broken(status, matched.rule)
    {
        interest.policies.insert(matched.policy.name().clone());
        interest.work_item.clone_from(&state.work_item);
        interest.rule = Some(matched.rule.clone());
    }
    // A key that a template gives need not be the number at the issue source.
    let has_item_key = sections
        .failure
        .is_some_and(|matched| matched.policy.item_key().is_some());
    let item = identify(task).filter(|_| !has_item_key);
    if let Some((item, spawner)) = item.and_then(|item| Some((item.item, item.spawner?)))
        && !interest.policies.is_empty()
    {
        let key = SourceKey {
            namespace: scope.namespace.to_owned(),
            spawner,
            item,
        };
        add(interests, key, interest);
    }
}

/// Adds the item of a `WorkItem` that has no Task: whether its spawner will create another one.
///
/// Policies that select by a Task's own labels or type do not apply to it.
pub fn add_work_item(interests: &mut Interests, scope: &PolicyScope<'_, '_>, name: &str, item: &WorkItem) {
    let status = item.status.as_ref();
    let failed = |status: &WorkItemStatus| status.consecutive_failures > 0 || status.infrastructure_failures > 0;
    let (Some(spawner), Some(status)) = (item.spec.spawner.as_deref(), status.filter(|status| failed(status))) else {
        return;
    };
    let object = json!({"metadata": {"labels": {kelos::SPAWNER_LABEL: spawner}}});
    let sections = scope.sections(&object);
    let Some(matched) = sections.failure.filter(|matched| resets(matched.mode, matched.rule)) else {
        return;
    };
    let key = SourceKey {
        namespace: scope.namespace.to_owned(),
        spawner: spawner.to_owned(),
        item: item.spec.item.clone(),
    };
    let interest = Interest {
        policies: BTreeSet::from([matched.policy.name().clone()]),
        work_item: Some(name.to_owned()),
        rule: Some(matched.rule.clone()),
        for_task: false,
        is_idle: !is_broken(status, matched.rule),
    };
    add(interests, key, interest);
}

fn add(interests: &mut Interests, key: SourceKey, interest: Interest) {
    match interests.get_mut(&key) {
        Some(known) => known.join(interest),
        None => drop(interests.insert(key, interest)),
    }
}

/// Whether a `WorkItem` under this rule follows its source. One `WorkItem` for many items has no source of its own.
fn resets(mode: Mode, rule: &FailurePolicy) -> bool {
    mode != Mode::Off && rule.reset_on_change && rule.item_key.is_none()
}

fn is_broken(status: &WorkItemStatus, rule: &FailurePolicy) -> bool {
    open_reason(status, rule).is_some_and(|why| why != BreakerRefusal::OpenedManually)
}

/// The policies that follow the source of a Task under way.
fn followers(sections: &Sections<'_>) -> BTreeSet<PolicyName> {
    let cancellation = sections.cancellation;
    let cancellation = cancellation.filter(|matched| matched.mode != Mode::Off && matched.rule.reacts());
    cancellation
        .map(|matched| matched.policy.name().clone())
        .into_iter()
        .collect()
}

/// The policies whose labels and annotations the Task still waits for.
fn labellers(sections: &Sections<'_>, object: &Value) -> BTreeSet<PolicyName> {
    let pending = Pending::of(object);
    let mut policies = BTreeSet::new();
    for matched in sections.metadata.iter().filter(|matched| matched.mode == Mode::Enforce) {
        let rule = matched.rule;
        if rule.entries.iter().any(|entry| rule.waits(entry) && pending.has(entry)) {
            policies.insert(matched.policy.name().clone());
        }
    }
    policies
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskgate_api::WorkItemSpec;

    use crate::{fixtures, matching::PolicySet};

    fn policies(spec: Value) -> PolicySet {
        fixtures::policies([spec])
    }

    fn status(failures: u32) -> WorkItemStatus {
        WorkItemStatus {
            consecutive_failures: failures,
            ..WorkItemStatus::default()
        }
    }

    fn wanted(policies: &PolicySet, task: &Value, status: Option<&WorkItemStatus>) -> Interests {
        let mut interests = Interests::new();
        let labels = BTreeMap::new();
        let scope = PolicyScope::new(policies, "team", &labels, None);
        let state = TaskState::of(task).unwrap();
        add_task(&mut interests, &scope, task, &state, status);
        interests
    }

    fn of_task(spec: Value, phase: &str, failures: u32) -> Interests {
        let task = json!({
            "metadata": {"name": "fixer-42", "uid": "u", "labels": {"kelos.dev/taskspawner": "fixer", "taskgate.dev/work-item": "wi"}},
            "status": {"phase": phase},
        });
        wanted(&policies(spec), &task, Some(&status(failures)))
    }

    #[test]
    fn only_tripped_items_of_a_policy_that_follows_them_are_read() {
        let follow = json!({"failurePolicy": {"maxRetriesPerItem": 2, "resetOnChange": true}});
        for (spec, failures, asked) in [
            (follow.clone(), 2, true),
            (follow, 1, false),
            (json!({"failurePolicy": {"maxRetriesPerItem": 2}}), 2, false),
            (
                json!({"mode": "Off", "failurePolicy": {"maxRetriesPerItem": 2, "resetOnChange": true}}),
                2,
                false,
            ),
            (
                json!({"failurePolicy": {"maxRetriesPerItem": 2, "resetOnChange": true, "itemKey": "x"}}),
                2,
                false,
            ),
        ] {
            let interests = of_task(spec.clone(), "Failed", failures);
            assert_eq!(!interests.is_empty(), asked, "{spec} {failures}");
            for (key, interest) in interests {
                assert_eq!((key.spawner.as_str(), key.number()), ("fixer", Some((None, 42))));
                assert_eq!((interest.work_item.as_deref(), interest.for_task), (Some("wi"), false));
            }
        }
    }

    #[test]
    fn a_task_under_way_is_followed_where_it_may_be_cancelled() {
        let cancel = json!({"cancellationPolicy": {"onSourceRemoved": "Cancel"}});
        assert!(
            of_task(cancel.clone(), "Running", 0)
                .values()
                .all(|interest| interest.for_task)
        );
        assert_eq!(of_task(cancel.clone(), "Running", 0).len(), 1);
        assert_eq!(of_task(cancel, "Failed", 0).len(), 0);
        assert_eq!(of_task(json!({"cancellationPolicy": {}}), "Running", 0).len(), 0);
    }

    #[test]
    fn a_task_that_waits_for_its_labels_is_read_until_it_has_them() {
        let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "itemKey": "x"},
            "metadata": {"engine": "GoTemplate", "labels": {"title": "{{.Title}}"}, "fromSource": true}});
        let of = |spec: &Value, pending: &str| {
            let task = json!({
                "metadata": {"name": "fixer-42", "uid": "u", "labels": {"kelos.dev/taskspawner": "fixer"},
                    "annotations": {"taskgate.dev/metadata-pending": pending}},
                "status": {"phase": "Succeeded"},
            });
            wanted(&policies(spec.clone()), &task, None)
                .into_iter()
                .map(|(key, interest)| (key.item, interest.for_task))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&spec, "label:title"), [("42".to_owned(), false)]);
        for other in ["", "copy", "label:other", "annotation:title"] {
            assert!(of(&spec, other).is_empty(), "{other}");
        }
        let mut closed = spec;
        closed["metadata"]["fromSource"] = json!(false);
        assert!(of(&closed, "label:title").is_empty());
    }

    #[test]
    fn a_work_item_without_a_task_is_read_seldom() {
        let policies = policies(json!({"failurePolicy": {"maxRetriesPerItem": 2, "resetOnChange": true}}));
        let of = |spawner: Option<&str>, failures| {
            let spec = WorkItemSpec {
                key: "fixer/42".into(),
                item: "42".into(),
                spawner: spawner.map(ToOwned::to_owned),
            };
            let mut item = WorkItem::new("wi", spec);
            item.status = Some(status(failures));
            let mut interests = Interests::new();
            let labels = BTreeMap::new();
            let scope = PolicyScope::new(&policies, "team", &labels, None);
            add_work_item(&mut interests, &scope, "wi", &item);
            interests
                .into_values()
                .map(|interest| interest.is_idle)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(Some("fixer"), 1), [true]);
        assert_eq!(of(Some("fixer"), 2), [false]);
        assert!(of(Some("fixer"), 0).is_empty());
        assert!(of(None, 2).is_empty());
    }

    #[test]
    fn an_item_may_name_its_repository() {
        let key = |item: &str| SourceKey {
            namespace: "team".into(),
            spawner: "fixer".into(),
            item: item.into(),
        };
        let (repository, number) = key("o/r#7").number().unwrap();
        assert_eq!((repository.unwrap().name.as_str(), number), ("r", 7));
        for none in ["ABC-12", "o/r#x", "#7", "-1", ""] {
            assert_eq!(key(none).number(), None, "{none}");
        }
    }
}
