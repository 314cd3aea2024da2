//! What is looked at of an object that may be retried.

use serde_json::Value;
use taskgate_api::{
    foreman::{self, Workload},
    kelos::Task,
    metadata::Metadata,
    retry_ledger::RunRef,
    task_policy::{RetriedKind, RetryPolicy},
};

use crate::{TaskPhase, TaskState, identity::ItemIdentity};

/// Borrowed view of a Workload, or of a Task without a spawner.
#[derive(Clone, Copy, Debug)]
pub struct Retried<'a> {
    kind: RetriedKind,
    object: &'a Value,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// It goes on, or nobody knows what its phase means.
    Active,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// Somebody cancelled it: neither.
    Cancelled,
}

impl<'a> Retried<'a> {
    /// The view of `object`; `None` for a Task that a spawner makes, and so makes again.
    pub fn of(kind: RetriedKind, object: &'a Value) -> Option<Self> {
        let spawned = kind == RetriedKind::Task && Task::of(object).spawner().is_some();
        (!spawned).then_some(Self { kind, object })
    }

    /// The object itself.
    pub fn object(self) -> &'a Value {
        self.object
    }

    /// Its kind.
    pub fn kind(self) -> RetriedKind {
        self.kind
    }

    /// Its metadata.
    pub fn metadata(self) -> Metadata<'a> {
        Metadata::of(self.object)
    }

    /// `metadata.uid`.
    pub fn uid(self) -> &'a str {
        self.metadata().uid().unwrap_or_default()
    }

    /// `metadata.resourceVersion`.
    pub fn version(self) -> &'a str {
        let version = self.object.pointer("/metadata/resourceVersion");
        version.and_then(Value::as_str).unwrap_or_default()
    }

    /// Which object it is.
    pub fn run(self) -> RunRef {
        RunRef {
            kind: self.kind,
            name: self.metadata().name().unwrap_or_default().to_owned(),
            uid: self.uid().to_owned(),
        }
    }

    /// How its run stands. A phase that is not known is left alone (foreman §2.2).
    pub fn phase(self) -> RunPhase {
        match self.kind {
            RetriedKind::Workload => match Workload::of(self.object).phase() {
                "Failed" => RunPhase::Failed,
                "Completed" => RunPhase::Succeeded,
                _ => RunPhase::Active,
            },
            RetriedKind::Task => match TaskState::of(self.object) {
                Some(state) if state.cancelled => RunPhase::Cancelled,
                Some(state) => match state.phase {
                    TaskPhase::Active => RunPhase::Active,
                    TaskPhase::Succeeded => RunPhase::Succeeded,
                    TaskPhase::Failed => RunPhase::Failed,
                },
                None => RunPhase::Active,
            },
        }
    }

    /// Whether it failed, and nobody deletes it.
    pub fn is_tombstone(self) -> bool {
        self.phase() == RunPhase::Failed && !self.metadata().is_terminating()
    }

    /// Whether the dispatch bridge looks after it, and the policy leaves it to that.
    pub fn is_left_to_bridge(self, rule: &RetryPolicy) -> bool {
        !rule.take_over && self.bridge().is_some()
    }

    /// The bridge's label, if the object is one of the bridge's.
    pub(super) fn bridge(self) -> Option<&'a str> {
        let label = self.metadata().label(foreman::CREATED_BY);
        label.filter(|label| label.starts_with(foreman::BRIDGE))
    }

    /// The number that stands on it: decimal, the first run is 1. Missing, garbage, zero and negative read as 1 (A01).
    pub fn stated_attempt(self, prefix: &str) -> u32 {
        let stated = self.metadata().annotation(&format!("{prefix}{}", foreman::ATTEMPT));
        let number = stated.and_then(|text| text.trim().parse().ok());
        number.unwrap_or(1).max(1)
    }

    /// The unit of work that it belongs to, by the first of these that says something: what is stated on it
    /// (`taskgate.dev/item`); repository and issues of a Workload; its own name.
    ///
    /// Different work never has the same key: a kind in capitals is no spawner's name, no name has a `/` or a `#`, and the
    /// repository stands there as it is (foreman §1.4: the bridge's names are not so).
    pub fn item(self) -> ItemIdentity {
        if let Some(item) = crate::identify(Task::of(self.object)) {
            return item;
        }
        let name = self.metadata().name().unwrap_or_default();
        let kind = self.kind.as_str();
        if self.kind == RetriedKind::Workload {
            let workload = Workload::of(self.object);
            let mut issues: Vec<_> = workload.issues().collect();
            issues.sort_unstable();
            issues.dedup();
            let issues: Vec<_> = issues.iter().map(ToString::to_string).collect();
            // GitHub's names are case-insensitive.
            let repo = workload.repo().to_ascii_lowercase();
            if !repo.is_empty() && !issues.is_empty() {
                let item = format!("{repo}#{}", issues.join(","));
                return ItemIdentity::new(&format!("{kind}/{item}"), &item, None);
            }
        }
        ItemIdentity::new(&format!("{kind}/{name}"), name, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn workload(repo: &str, issues: &Value, name: &str) -> String {
        let object = json!({"metadata": {"name": name}, "spec": {"repo": repo, "issues": issues}});
        Retried::of(RetriedKind::Workload, &object).unwrap().item().key
    }

    #[test]
    fn each_object_has_its_item() {
        for (repo, issues, expected) in [
            ("Acme/App", json!([7]), "Workload/acme/app#7"),
            ("acme/app", json!([9, 7, 9]), "Workload/acme/app#7,9"),
            ("acme/app", json!([0]), "Workload/w"),
            ("acme/app", json!(null), "Workload/w"),
            ("", json!([7]), "Workload/w"),
            ("a-b/c", json!([7]), "Workload/a-b/c#7"),
            ("a/b-c", json!([7]), "Workload/a/b-c#7"),
        ] {
            assert_eq!(workload(repo, &issues, "w"), expected, "{repo} {issues}");
        }
        let stated = json!({"metadata": {"name": "w", "annotations": {"taskgate.dev/item": "epic"}}});
        assert_eq!(Retried::of(RetriedKind::Workload, &stated).unwrap().item().key, "epic");
        let task = json!({"metadata": {"name": "t"}});
        assert_eq!(Retried::of(RetriedKind::Task, &task).unwrap().item().key, "Task/t");
        let spawned = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": "s"}}});
        assert!(Retried::of(RetriedKind::Task, &spawned).is_none());
    }

    #[test]
    fn a01_the_number_on_the_object() {
        for (text, expected) in [
            (json!("2"), 2),
            (json!(" 3 "), 3),
            (json!(""), 1),
            (json!("junk"), 1),
            (json!("0"), 1),
            (json!("-2"), 1),
            (json!("2.5"), 1),
            (json!("٢"), 1),
            (json!("99999999999"), 1),
            (json!(2), 1),
            (json!({}), 1),
        ] {
            let object = json!({"metadata": {"annotations": {"foreman.llmkube.dev/attempt": text}}});
            let retried = Retried::of(RetriedKind::Workload, &object).unwrap();
            assert_eq!(retried.stated_attempt("foreman.llmkube.dev/"), expected, "{object}");
            assert_eq!(retried.stated_attempt("other/"), 1);
        }
    }

    #[test]
    fn unknown_phases_are_left_alone() {
        for phase in ["", "Planning", "Dispatched", "failed", "Paused"] {
            let object = json!({"metadata": {"name": "w", "uid": "u"}, "status": {"phase": phase}});
            let retried = Retried::of(RetriedKind::Workload, &object).unwrap();
            assert_eq!(retried.phase(), RunPhase::Active, "{phase}");
        }
    }

    proptest! {
        #[test]
        fn different_work_has_different_keys(
            a in "[a-z][-a-z0-9./]{0,8}", b in "[a-z][-a-z0-9./]{0,8}", m in 0..30u64, n in 0..30u64,
        ) {
            let same = a == b && (m == n);
            let key = |repo: &str, issue: u64| workload(repo, &json!([issue]), "w");
            // Without an issue both are the one Workload of their name.
            let expected = same || (m == 0 && n == 0);
            prop_assert_eq!(key(&a, m) == key(&b, n), expected);
        }
    }
}
