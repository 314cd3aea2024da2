//! Objects against the schemas of their CustomResourceDefinitions, as the API server holds them: unknown fields refused,
//! defaults filled in, then every rule of the schema.
//!
//! taskgate's own kinds are known from the start; others (Kelos' kinds) as soon as their CRD is among the documents. An
//! object without a schema passes as it is.

mod check;
mod shape;

use std::{collections::HashMap, sync::OnceLock};

use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use taskgate_api::crds;
use taskgate_webhook::ObjectKind;

use crate::expression::Expression;

/// Something in an object that the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flaw {
    /// The field's path, such as `spec.mode`; empty for the object itself.
    pub field: String,
    /// What is wrong, in the API server's words.
    pub message: String,
    /// Whether the API server leaves it at that and evaluates no CEL rule.
    #[serde(skip)]
    pub(crate) blocks: bool,
}

impl Flaw {
    /// A field that is there and wrong.
    fn invalid(field: impl Into<String>, message: String) -> Self {
        Self {
            field: field.into(),
            message,
            blocks: false,
        }
    }

    /// A flaw of one of the kinds that end the validation: wrong types and enums, missing fields, too long, too many.
    fn blocking(field: impl Into<String>, message: String) -> Self {
        Self {
            blocks: true,
            ..Self::invalid(field, message)
        }
    }
}

/// Every schema that is known, by kind.
#[derive(Debug, Default)]
pub struct Schemas {
    schemas: HashMap<ObjectKind, Schema>,
}

/// The schema of one version of a kind, and what of it had to be compiled.
#[derive(Debug)]
struct Schema {
    root: Value,
    compiled: Compiled,
}

/// Patterns and rules, each compiled when it is first needed. What cannot be compiled here is passed over: the API server,
/// which accepted it, knows more than we do.
#[derive(Debug, Default)]
struct Compiled {
    rules: HashMap<String, OnceLock<Option<Expression>>>,
    patterns: HashMap<String, OnceLock<Option<Regex>>>,
}

impl Schemas {
    /// taskgate's own.
    ///
    /// # Panics
    /// Never: what is derived serialises.
    pub fn own() -> Self {
        let mut schemas = Self::default();
        for crd in crds::all() {
            let crd = serde_json::to_value(crd).expect("a CRD that was derived serialises");
            schemas.add(&crd);
        }
        schemas
    }

    /// Adds what the CustomResourceDefinition `crd` says.
    pub fn add(&mut self, crd: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &crd["spec"];
        for version in spec["versions"].as_array().into_iter().flatten() {
            if version["served"] == Value::Bool(false) {
                continue;
            }
            let kind = ObjectKind {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&spec["names"]["kind"]),
            };
            let root = version["schema"]["openAPIV3Schema"].clone();
            let mut compiled = Compiled::default();
            compiled.gather(&root);
            self.schemas.insert(kind, Schema { root, compiled });
        }
    }

    /// Brings `object` into the form in which admission sees it: unknown fields removed, defaults
    /// filled in. Returns what was unknown.
    pub fn shape(&self, kind: &ObjectKind, object: &mut Value) -> Vec<Flaw> {
        let Some(schema) = self.schemas.get(kind) else {
            return Vec::new();
        };
        let mut flaws = Vec::new();
        shape::prune_object(&schema.root, object, &mut flaws);
        shape::fill_defaults(&schema.root, object);
        flaws.sort();
        flaws
    }

    /// What the API server finds wrong with `object`, all of it. `old` is what is stored, null for a new object: what was
    /// wrong before and stays as it is passes, and rules about changes are held.
    pub fn check(&self, kind: &ObjectKind, object: &Value, old: &Value) -> Vec<Flaw> {
        let Some(schema) = self.schemas.get(kind) else {
            return Vec::new();
        };
        let old = Some(old).filter(|old| old.is_object());
        let mut flaws = Vec::new();
        check::check("", &schema.root, object, old, &schema.compiled, &mut flaws);
        flaws.sort();
        if flaws.iter().any(|flaw| flaw.blocks) {
            let message = "some validation rules were not checked because the object was invalid";
            flaws.push(Flaw::invalid("", message.to_owned()));
        } else {
            check::check_rules("", &schema.root, object, old, &schema.compiled, &mut flaws);
        }
        flaws
    }
}

impl Compiled {
    /// Takes note of every pattern and every rule below `schema`.
    fn gather(&mut self, schema: &Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::String(pattern)) = fields.get("pattern") {
                    self.patterns.insert(pattern.clone(), OnceLock::new());
                }
                let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
                for rule in rules.into_iter().flatten().filter_map(|rule| rule["rule"].as_str()) {
                    self.rules.insert(rule.to_owned(), OnceLock::new());
                }
                fields.values().for_each(|value| self.gather(value));
            }
            Value::Array(items) => items.iter().for_each(|value| self.gather(value)),
            _ => {}
        }
    }

    fn pattern(&self, pattern: &str) -> Option<&Regex> {
        self.patterns
            .get(pattern)?
            .get_or_init(|| Regex::new(pattern).ok())
            .as_ref()
    }

    fn rule(&self, rule: &str) -> Option<&Expression> {
        self.rules
            .get(rule)?
            .get_or_init(|| Expression::compile(rule).ok())
            .as_ref()
    }
}

/// The path of `field` in `path`.
fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy_kind() -> ObjectKind {
        ObjectKind {
            group: "taskgate.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            kind: "TaskPolicy".to_owned(),
        }
    }

    fn policy(spec: &Value) -> Value {
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn every_unknown_field_is_told_and_defaults_are_filled_in() {
        let mut object =
            policy(&json!({"mod": "Warn", "failurePolicy": {"maxRetries": 3}, "metadata": {"labels": {"a": "b"}}}));
        object["metadata"]["label"] = json!({});
        let flaws = Schemas::own().shape(&policy_kind(), &mut object);
        let messages: Vec<_> = flaws.iter().map(|flaw| flaw.message.as_str()).collect();
        assert_eq!(
            messages,
            [
                r#"unknown field "metadata.label""#,
                r#"unknown field "spec.failurePolicy.maxRetries""#,
                r#"unknown field "spec.mod""#
            ]
        );
        assert_eq!(object["spec"]["mode"], "Enforce");
        assert_eq!(object["spec"]["failurePolicy"]["maxInfrastructureFailures"], 10);
    }

    #[test]
    fn everything_that_breaks_the_schema_is_told_with_its_path() {
        let object = policy(&json!({
            "mode": "Perhaps", "priority": 2_000_000, "queuePriorityClass": "high",
            "failurePolicy": {"resetAfter": "soon", "backoff": {"max": "1h"}, "ignore": "Evicted"},
            "selector": {"spawnerNames": [7]},
        }));
        let flaws = Schemas::own().check(&policy_kind(), &object, &Value::Null);
        let fields: Vec<_> = flaws.iter().map(|flaw| flaw.field.as_str()).collect();
        for field in [
            "spec.mode",
            "spec.priority",
            "spec.failurePolicy.resetAfter",
            "spec.failurePolicy.backoff.initial",
            "spec.failurePolicy.ignore",
            "spec.selector.spawnerNames[0]",
        ] {
            assert!(fields.contains(&field), "{field}: {flaws:?}");
        }
        let object = policy(&json!({"queuePriorityClass": "high"}));
        let [flaw] = &Schemas::own().check(&policy_kind(), &object, &Value::Null)[..] else {
            panic!("{object}")
        };
        assert_eq!(flaw.field, "spec.queuePriorityClass");
        assert!(flaw.message.contains("needs queueName"), "{flaw:?}");
    }

    #[test]
    fn a_change_is_held_to_its_own_rules_and_what_was_wrong_before_may_stay() {
        let mut schemas = Schemas::default();
        let spec = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.fixed == oldSelf.fixed"}],
            "properties": {"fixed": {"type": "string"}, "few": {"type": "integer", "maximum": 3},
                "steps": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"},
                        "few": {"type": "integer", "maximum": 3}}}}}});
        schemas.add(
            &json!({"spec": {"group": "a", "names": {"kind": "A"}, "versions": [{"name": "v1",
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}}),
        );
        let kind = ObjectKind {
            group: "a".to_owned(),
            version: "v1".to_owned(),
            kind: "A".to_owned(),
        };
        let steps = |few: i32| json!([{"name": "one", "few": few}, {"name": "two"}]);
        let old = json!({"spec": {"fixed": "a", "few": 9, "steps": steps(9)}});
        let fields = |new: Value, old: &Value| -> Vec<String> {
            let flaws = schemas.check(&kind, &json!({"spec": new}), old);
            flaws.into_iter().map(|flaw| flaw.field).collect()
        };
        let moved = json!([{"name": "two"}, {"name": "one", "few": 9}]);
        let none: [&str; 0] = [];
        assert_eq!(fields(json!({"fixed": "a", "few": 9, "steps": moved}), &old), none);
        assert_eq!(
            fields(json!({"fixed": "b", "few": 9, "steps": steps(9)}), &old),
            ["spec"]
        );
        assert_eq!(fields(json!({"fixed": "a", "few": 8}), &old), ["spec.few"]);
        assert_eq!(
            fields(json!({"fixed": "b", "few": 9, "steps": steps(9)}), &Value::Null),
            ["spec.few", "spec.steps[0].few"]
        );
    }

    #[test]
    fn a_kind_without_a_schema_passes_as_it_is() {
        let kind = ObjectKind {
            group: "kelos.dev".to_owned(),
            version: "v1alpha2".to_owned(),
            kind: "Task".to_owned(),
        };
        let mut task = json!({"spec": {"anything": 1}});
        let before = task.clone();
        assert!(Schemas::own().shape(&kind, &mut task).is_empty() && task == before);
    }

    /// Whatever a Task says of its end, and whatever stands in the status already: what is written is valid.
    #[test]
    fn the_written_status_of_a_work_item_is_always_valid() {
        use taskgate_api::{WorkItemStatus, work_item::Outcome};
        use taskgate_policy::{Ending, TaskState, attempt, fit, minimal, record};
        let kind = ObjectKind {
            kind: "WorkItem".to_owned(),
            ..policy_kind()
        };
        let long = "x\u{202e}é".repeat(40_000);
        let texts = [
            json!("1e30"),
            json!(1e300),
            json!("9".repeat(60)),
            json!("-1"),
            json!("NaN"),
            json!(long),
            json!({}),
            json!(null),
        ];
        let numbers = [
            json!(i64::MAX),
            json!(u64::MAX),
            json!(-1),
            json!(1e30),
            json!("7"),
            json!([]),
        ];
        let times = [
            json!("-000009-01-01T00:00:00Z"),
            json!("9999-12-31T23:59:59Z"),
            json!("2999-01-01T00:00:00Z"),
            json!(7),
        ];
        let schemas = Schemas::own();
        for cost in &texts {
            for tokens in &numbers {
                for time in &times {
                    let task = json!({
                        "metadata": {"name": long, "uid": long, "creationTimestamp": time,
                            "annotations": {"taskgate.dev/cancelled-by": long}},
                        "status": {"phase": "Failed", "startTime": time, "completionTime": time, "cancelledBy": cost,
                            "usage": {"costUSD": cost, "inputTokens": tokens, "outputTokens": tokens}},
                    });
                    let before: WorkItemStatus = serde_json::from_value(json!({
                        "consecutiveFailures": u32::MAX, "infrastructureFailures": u32::MAX, "totalCostUSD": "9".repeat(60),
                        "reason": long, "contentHash": long,
                        "retry": {"attempt": u32::MAX, "aside": vec![long.clone(); 200],
                            "run": {"kind": "Task", "name": long, "uid": ""},
                            "failure": {"class": "Work", "reason": long, "time": "2026-01-01T00:00:00Z"}},
                    }))
                    .unwrap();
                    let state = TaskState::of(&task).unwrap();
                    for outcome in [Outcome::Failed, Outcome::Cancelled] {
                        let ending = Ending {
                            outcome,
                            reason: long.clone(),
                        };
                        let now = jiff::Timestamp::UNIX_EPOCH;
                        let attempt = attempt(&task, &state, ending, now);
                        let next = record(&before, attempt, None, now).unwrap();
                        for written in [fit(&next), minimal(&next)] {
                            let object = json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": "a"},
                                "spec": {"key": "a", "item": "a"}, "status": written});
                            assert_eq!(
                                schemas.check(&kind, &object, &Value::Null),
                                [],
                                "{cost} {tokens} {time}"
                            );
                        }
                    }
                }
            }
        }
    }
}
