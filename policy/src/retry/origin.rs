//! Where a run comes from, and what its tracker says of that (A63 to A66).

use serde_json::Value;
use taskgate_api::{
    foreman::Workload,
    kelos::{SOURCE_NUMBER, SOURCE_OWNER, SOURCE_REPO, Task},
    task_policy::{RetriedKind, RetryPolicy},
};

use super::Retried;

/// How many issues of one object are asked about. One with more of them is not asked about at all.
const MAX_ISSUES: usize = 20;

/// What the tracker says of the source of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceState {
    /// There is something left to do.
    Open,
    /// Every issue is closed, or was deleted.
    Closed,
    /// No answer, or one that is none. Nothing follows from it: the run is repeated as ever.
    Unknown,
}

/// What is asked about: these issues or pull requests of one repository, by this way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The repository, where the object names one.
    pub repository: Option<String>,
    /// Their numbers; at least one.
    pub numbers: Vec<u64>,
    /// How the tracker is reached.
    pub way: OriginWay,
}

/// How the tracker of an object is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginWay {
    /// As taskgate itself, with the token of this Secret or without one.
    Secret(Option<String>),
    /// By way of this Workspace of Kelos.
    Workspace(String),
}

impl Origin {
    /// The source of `object`, if `rule` wants it asked about and the object says what it is.
    pub fn of(object: Retried<'_>, rule: &RetryPolicy) -> Option<Self> {
        let source = rule.source.as_ref()?;
        let mut origin = match object.kind() {
            RetriedKind::Workload => {
                let secret = source.secret_ref.as_ref().map(|secret| secret.name.clone());
                of_workload(Workload::of(object.object()), OriginWay::Secret(secret))?
            }
            RetriedKind::Task => of_task(Task::of(object.object()))?,
        };
        origin.numbers.sort_unstable();
        origin.numbers.dedup();
        (1..=MAX_ISSUES).contains(&origin.numbers.len()).then_some(origin)
    }
}

/// The Workload's own issues, else those of its steps.
fn of_workload(workload: Workload<'_>, way: OriginWay) -> Option<Origin> {
    let repository = workload.repo();
    let mut numbers: Vec<u64> = workload.issues().collect();
    if numbers.is_empty() {
        let of_step = |step: &Value| step.pointer("/payload/issue").and_then(Value::as_u64);
        numbers.extend(workload.pipeline().filter_map(of_step).filter(|number| *number > 0));
    }
    (!repository.is_empty()).then(|| Origin {
        repository: Some(repository.to_owned()),
        numbers,
        way,
    })
}

/// What the source stamped on the Task, in the repository that it names, else in its Workspace's.
fn of_task(task: Task<'_>) -> Option<Origin> {
    let metadata = task.metadata();
    let number = metadata.annotation(SOURCE_NUMBER)?.trim().parse().ok();
    let repository = metadata.annotation(SOURCE_OWNER).zip(metadata.annotation(SOURCE_REPO));
    Some(Origin {
        repository: repository.map(|(owner, name)| format!("{owner}/{name}")),
        numbers: vec![number.filter(|number| *number > 0)?],
        way: OriginWay::Workspace(task.workspace()?.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn origin(kind: RetriedKind, object: &Value, source: &Value) -> Option<Origin> {
        let rule = json!({"maxAttempts": 3, "source": source});
        let rule = serde_json::from_value(rule).unwrap();
        Origin::of(Retried::of(kind, object)?, &rule)
    }

    #[test]
    fn a65_each_object_says_itself_where_it_comes_from() {
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
                way: OriginWay::Secret(None),
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
        assert_eq!(found.way, OriginWay::Workspace("repo".into()));
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
    fn nobody_is_asked_where_the_policy_does_not_say_so() {
        let object = json!({"metadata": {"name": "w"}, "spec": {"repo": "a/b", "issues": [7]}});
        assert_eq!(origin(RetriedKind::Workload, &object, &json!(null)), None);
    }
}
