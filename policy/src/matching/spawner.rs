//! The policy fields of a TaskSpawner as a policy of its own Tasks, where the CRD of Kelos has the fields.
//!
//! | Field of the TaskSpawner | Field of the policy |
//! |---|---|
//! | `spec.failurePolicy` | `spec.failurePolicy` |
//! | `spec.cancellationPolicy` | `spec.cancellationPolicy` |
//! | `spec.taskTemplate.queueName` | `spec.queueName` |

use taskgate_api::{
    TaskPolicySpec,
    kelos_fields::{InvalidField, KelosField, SpawnerFields},
    task_policy::TaskSelector,
};

use super::{Policy, PolicyName};
use crate::kubernetes::{Problem, clip};

/// The longest text of an error, in characters.
const MAX_PROBLEM: usize = 160;

/// The same fields as the spec of a TaskPolicy for the Tasks of the TaskSpawner `name`.
pub fn spec_of_spawner(name: &str, fields: &SpawnerFields) -> TaskPolicySpec {
    TaskPolicySpec {
        selector: TaskSelector {
            spawner_names: vec![name.to_owned()],
            ..TaskSelector::default()
        },
        failure_policy: fields.failure_policy.clone(),
        cancellation_policy: fields.cancellation_policy.clone(),
        queue_name: fields.queue_name.clone(),
        ..TaskPolicySpec::default()
    }
}

impl Policy {
    /// Compiles the `fields` of the TaskSpawner `namespace/name`, or returns why they cannot be read. `None` if it has none. Errors
    /// with every problem found.
    pub fn of_spawner(
        namespace: &str,
        name: &str,
        fields: &Result<SpawnerFields, InvalidField>,
    ) -> Option<Result<Self, Vec<Problem>>> {
        let fields = match fields {
            Ok(fields) if fields.is_empty() => return None,
            Ok(fields) => fields,
            Err(error) => return Some(Err(vec![unreadable(error)])),
        };
        let policy = PolicyName::Spawner {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let compiled = Self::of_fields(policy, &spec_of_spawner(name, fields));
        Some(compiled.map_err(|problems| problems.into_iter().map(in_spawner).collect()))
    }
}

fn unreadable(error: &InvalidField) -> Problem {
    Problem {
        field: error.path.clone(),
        message: clip(&error.problem, MAX_PROBLEM),
    }
}

/// The problem of a policy as one of the TaskSpawner that it is from.
fn in_spawner(problem: Problem) -> Problem {
    match problem.field.as_str() {
        "spec.queueName" => Problem {
            field: KelosField::QueueName.dotted(),
            ..problem
        },
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixtures,
        matching::{PolicyScope, PolicySet},
    };

    fn compile(spec: &Value) -> Option<Result<Policy, Vec<String>>> {
        let spawner = json!({"metadata": {"name": "fixer", "namespace": "team"}, "spec": spec});
        let fields = SpawnerFields::read(&spawner, &KelosField::all());
        let compiled = Policy::of_spawner("team", "fixer", &fields)?;
        Some(compiled.map_err(|problems| problems.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_spawner_without_the_fields_has_no_policy() {
        for spec in [
            json!({}),
            json!({"failurePolicy": null, "taskTemplate": {"queueName": ""}}),
            json!(7),
        ] {
            assert!(compile(&spec).is_none(), "{spec}");
        }
    }

    #[test]
    fn any_value_is_reported_with_its_path() {
        for (spec, problem) in [
            (json!({"failurePolicy": 7}), "spec.failurePolicy: invalid type"),
            (
                json!({"failurePolicy": {"maxRetriesPerItem": -1}}),
                "spec.failurePolicy: invalid value",
            ),
            (
                json!({"failurePolicy": {"itemKey": "{{ nothing }}"}}),
                "spec.failurePolicy.itemKey: ",
            ),
            (
                json!({"failurePolicy": {"resetAfter": format!("{}h", "9".repeat(30))}}),
                "spec.failurePolicy.resetAfter: ",
            ),
            (
                json!({"cancellationPolicy": {"onRetrigger": "Perhaps"}}),
                "spec.cancellationPolicy: unknown variant",
            ),
            (
                json!({"taskTemplate": {"queueName": ["a"]}}),
                "spec.taskTemplate.queueName: invalid type",
            ),
            (
                json!({"taskTemplate": {"queueName": "Not Legal"}}),
                "spec.taskTemplate.queueName: ",
            ),
        ] {
            let problems = compile(&spec).unwrap().unwrap_err();
            assert!(problems[0].starts_with(problem), "{problems:?}");
        }
    }

    /// The failure section of a Task of `spawner`: its policy and its limit.
    fn limit(set: &PolicySet, spawner: &str) -> Option<(String, u32)> {
        let task = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": spawner}}});
        let found = PolicyScope::new(set, "team", &BTreeMap::new(), None).failure(&task)?;
        Some((found.policy.to_string(), found.rule.max_retries_per_item))
    }

    #[test]
    fn the_fields_of_the_spawner_win_over_every_policy_that_is_not_enforced() {
        let failures = |limit: u32| json!({"failurePolicy": {"maxRetriesPerItem": limit}});
        let own = || compile(&failures(5)).unwrap().unwrap();
        let with = |mut spec: Value, field: &str, value: Value| {
            spec[field] = value;
            spec
        };
        let wide = || fixtures::policy("wide", with(failures(3), "priority", json!(1_000_000)));
        let cluster = |name: &str, spec: Value| Policy::cluster(name, &serde_json::from_value(spec).unwrap()).unwrap();
        let enforced = |limit: u32| cluster("base", with(failures(limit), "enforced", json!(true)));
        let found = |policy: &str, limit: u32| Some((policy.to_owned(), limit));

        let set = PolicySet::new([wide(), cluster("all", failures(9)), own()]);
        assert_eq!(limit(&set, "fixer"), found("TaskSpawner/fixer", 5));
        assert_eq!(limit(&set, "other"), found("TaskPolicy/wide", 3));
        assert_eq!(set.len(), 3);
        // An enforced policy comes first, and the spawner may only be stricter.
        let set = PolicySet::new([wide(), enforced(9), own()]);
        assert_eq!(limit(&set, "fixer"), found("ClusterTaskPolicy/base", 5));
        let set = PolicySet::new([wide(), enforced(2), own()]);
        assert_eq!(limit(&set, "fixer"), found("ClusterTaskPolicy/base", 2));
        // It applies to nothing in another namespace.
        let set = PolicySet::new([own()]);
        let task = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": "fixer"}}});
        let labels = BTreeMap::new();
        assert!(
            PolicyScope::new(&set, "elsewhere", &labels, None)
                .failure(&task)
                .is_none()
        );
    }

    #[test]
    fn sections_that_the_spawner_does_not_have_come_from_other_policies() {
        let own = compile(&json!({"taskTemplate": {"queueName": "mine"}}))
            .unwrap()
            .unwrap();
        let spec = json!({"queueName": "theirs", "cancellationPolicy": {"onRetrigger": "Cancel"}});
        let set = PolicySet::new([fixtures::policy("wide", spec), own]);
        let task = json!({"metadata": {"name": "t", "labels": {"kelos.dev/taskspawner": "fixer"}}});
        let labels = BTreeMap::new();
        let scope = PolicyScope::new(&set, "team", &labels, None);
        let found = scope.governing(&task);
        let found: Vec<_> = found
            .iter()
            .map(|found| format!("{}={}", found.section, found.policy))
            .collect();
        assert_eq!(found, ["cancellationPolicy=TaskPolicy/wide", "queue=TaskSpawner/fixer"]);
        let candidates = scope.candidates(&task);
        assert!(candidates.iter().all(|candidate| candidate.mismatch.is_none()));
    }
}
