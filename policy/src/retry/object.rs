//! An object that may be retried, and the issues that it comes from.

use serde_json::Value;
use taskgate_api::{
    Lenient as _,
    foreman::{self, Workload},
    kelos::Task,
    metadata::Metadata,
    retry_status::RunRef,
    task_policy::{RetriedKind, RetryPolicy},
};

use crate::{
    breaker::{TaskPhase, TaskState},
    matching::{ItemIdentity, identify},
};

/// Borrowed view of a Workload, or of a Task without a spawner.
#[derive(Clone, Copy, Debug)]
pub struct Retried<'a> {
    kind: RetriedKind,
    object: &'a Value,
}

/// The highest number of a run: the status of a `WorkItem` has 32 bits with a sign.
pub const MAX_ATTEMPT: u32 = i32::MAX.unsigned_abs();

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunPhase {
    /// It goes on, or its phase is unknown.
    Active,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It was cancelled: neither.
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
        self.object.text("/metadata/resourceVersion").unwrap_or_default()
    }

    /// Which object it is.
    pub fn run(self) -> RunRef {
        RunRef {
            kind: self.kind,
            name: self.metadata().name().unwrap_or_default().to_owned(),
            uid: self.uid().to_owned(),
        }
    }

    /// The phase of its run. An unknown phase counts as active (foreman §2.2).
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

    /// Whether it runs again after a failure. A Workload that cannot be planned changes between `Failed` and `Planning` many times
    /// a second (foreman §2.2); a Task stays failed.
    pub fn is_revived(self) -> bool {
        let phase = Workload::of(self.object).phase();
        self.kind == RetriedKind::Workload && matches!(phase, "Planned" | "Dispatched")
    }

    /// Whether it failed, and is not being deleted.
    pub fn is_tombstone(self) -> bool {
        self.phase() == RunPhase::Failed && !self.metadata().is_terminating()
    }

    /// Whether the dispatch bridge retries it, and the policy does not take it over.
    pub fn is_left_to_bridge(self, rule: &RetryPolicy) -> bool {
        !rule.take_over && self.bridge().is_some()
    }

    /// The bridge's label, if the object is one of the bridge's.
    pub(super) fn bridge(self) -> Option<&'a str> {
        let label = self.metadata().label(foreman::CREATED_BY);
        label.filter(|label| label.starts_with(foreman::BRIDGE))
    }

    /// The number in its annotation: decimal, the first run is 1. Missing, invalid, zero and negative numbers, and those over
    /// [`MAX_ATTEMPT`], read as 1.
    pub fn stated_attempt(self, prefix: &str) -> u32 {
        let stated = self.metadata().annotation(&format!("{prefix}{}", foreman::ATTEMPT));
        let number = stated.and_then(|text| text.trim().parse().ok());
        number.filter(|number| (1..=MAX_ATTEMPT).contains(number)).unwrap_or(1)
    }

    /// The unit of work that it belongs to, by the first of these that is present: the item that its creator states
    /// (`taskgate.dev/item`); repository and issues of a Workload; its own name.
    ///
    /// Different work never has the same key: a kind in capitals is no spawner's name, no name has a `/` or a `#`, and the
    /// repository is part of it as it is (foreman §1.4: the bridge's names are not so).
    pub fn item(self) -> ItemIdentity {
        if let Some(item) = identify(Task::of(self.object)) {
            return item;
        }
        let name = self.metadata().name().unwrap_or_default();
        let kind = self.kind;
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

/// How many issues of one object are read. The issues of an object with more are not read at all.
const MAX_ISSUES: usize = 20;

/// Whether the source of a run is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// There is something left to do.
    Open,
    /// Every issue is closed, or was deleted.
    Closed,
    /// No usable answer. It changes nothing: the run is repeated.
    Unknown,
}

/// The issues or pull requests of one repository that a run comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The repository, where the object names one.
    pub repository: Option<String>,
    /// Their numbers; at least one.
    pub numbers: Vec<u64>,
    /// The access to the issue source.
    pub access: SourceAccess,
}

/// The access to the issue source of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceAccess {
    /// As taskgate itself, with the token of this Secret or without one.
    Secret(Option<String>),
    /// With the token and proxy of this Workspace of Kelos.
    Workspace(String),
}

impl Origin {
    /// The source of `object`, if `rule` reads sources and the object names one.
    pub fn of(object: Retried<'_>, rule: &RetryPolicy) -> Option<Self> {
        let source = rule.source.as_ref()?;
        let mut origin = match object.kind() {
            RetriedKind::Workload => {
                let secret = source.secret_ref.as_ref().map(|secret| secret.name.clone());
                of_workload(Workload::of(object.object()), SourceAccess::Secret(secret))?
            }
            RetriedKind::Task => of_task(Task::of(object.object()))?,
        };
        origin.numbers.sort_unstable();
        origin.numbers.dedup();
        (1..=MAX_ISSUES).contains(&origin.numbers.len()).then_some(origin)
    }
}

/// The Workload's own issues, else those of its steps.
fn of_workload(workload: Workload<'_>, access: SourceAccess) -> Option<Origin> {
    let repository = workload.repo();
    let mut numbers: Vec<u64> = workload.issues().collect();
    if numbers.is_empty() {
        let of_step = |step: &Value| step.pointer("/payload/issue").and_then(Value::as_u64);
        numbers.extend(workload.pipeline().filter_map(of_step).filter(|number| *number > 0));
    }
    (!repository.is_empty()).then(|| Origin {
        repository: Some(repository.to_owned()),
        numbers,
        access,
    })
}

/// What the source stamped on the Task, in the repository that it names, else in its Workspace's.
fn of_task(task: Task<'_>) -> Option<Origin> {
    let repository = task.source_repository();
    Some(Origin {
        repository: repository.map(|(owner, name)| format!("{owner}/{name}")),
        numbers: vec![task.source_number()?],
        access: SourceAccess::Workspace(task.workspace()?.to_owned()),
    })
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
    fn the_number_on_the_object() {
        for (text, expected) in [
            (json!("2"), 2),
            (json!(" 3 "), 3),
            (json!(""), 1),
            (json!("junk"), 1),
            (json!("0"), 1),
            (json!("-2"), 1),
            (json!("2.5"), 1),
            (json!("٢"), 1),
            (json!("2147483647"), MAX_ATTEMPT),
            (json!("2147483648"), 1),
            (json!("4294967295"), 1),
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

#[cfg(test)]
mod origin_tests {
    use super::*;
    use serde_json::json;
    use taskgate_api::kelos::{SOURCE_NUMBER, SOURCE_OWNER, SOURCE_REPO};

    fn origin(kind: RetriedKind, object: &Value, source: &Value) -> Option<Origin> {
        let rule = json!({"maxAttempts": 3, "source": source});
        let rule = serde_json::from_value(rule).unwrap();
        Origin::of(Retried::of(kind, object)?, &rule)
    }

    #[test]
    fn each_object_names_its_source() {
        let step = |issue: Value| json!({"name": "s", "payload": {"issue": issue}});
        for (spec, expected) in [
            (json!({"repo": "a/b", "issues": [7]}), Some(("a/b", vec![7]))),
            (
                json!({"repo": "a/b", "issues": [9, 7, 9, 0]}),
                Some(("a/b", vec![7, 9])),
            ),
            (
                json!({"repo": "a/b", "pipeline": [step(json!(3)), step(json!("x")), step(json!(3))]}),
                Some(("a/b", vec![3])),
            ),
            (json!({"repo": "", "issues": [7]}), None),
            (json!({"repo": "a/b", "issues": []}), None),
            (json!({"repo": "a/b", "issues": (1..40).collect::<Vec<_>>()}), None),
            (json!(null), None),
        ] {
            let object = json!({"metadata": {"name": "w-7"}, "spec": spec});
            let found = origin(RetriedKind::Workload, &object, &json!({}));
            let expected = expected.map(|(repository, numbers)| Origin {
                repository: Some(repository.to_owned()),
                numbers,
                access: SourceAccess::Secret(None),
            });
            assert_eq!(found, expected, "{object}");
        }
    }

    #[test]
    fn a_task_is_asked_about_by_way_of_its_workspace() {
        let task = |annotations: Value, spec: Value| json!({"metadata": {"name": "t", "annotations": annotations}, "spec": spec});
        let secret = json!({"secretRef": {"name": "s"}});
        let spec = json!({"workspaceRef": {"name": "repo"}});
        let number = json!({SOURCE_NUMBER: "7"});
        let found = origin(RetriedKind::Task, &task(number.clone(), spec.clone()), &secret).unwrap();
        assert_eq!((found.repository, found.numbers), (None, vec![7]));
        assert_eq!(found.access, SourceAccess::Workspace("repo".into()));
        let named = json!({SOURCE_NUMBER: "7", SOURCE_OWNER: "acme", SOURCE_REPO: "app"});
        let found = origin(RetriedKind::Task, &task(named, spec.clone()), &secret).unwrap();
        assert_eq!(found.repository.as_deref(), Some("acme/app"));
        for (annotations, spec) in [
            (json!({}), spec.clone()),
            (json!({SOURCE_NUMBER: "0"}), spec.clone()),
            (json!({SOURCE_NUMBER: "x"}), spec),
            (number, json!({})),
        ] {
            assert_eq!(origin(RetriedKind::Task, &task(annotations, spec), &secret), None);
        }
    }

    #[test]
    fn the_source_is_read_only_where_the_policy_says_so() {
        let object = json!({"metadata": {"name": "w"}, "spec": {"repo": "a/b", "issues": [7]}});
        assert_eq!(origin(RetriedKind::Workload, &object, &json!(null)), None);
    }
}
