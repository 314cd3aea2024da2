//! Objects as the API server decodes and validates them: the metadata of every kind, and the schemas of CustomResourceDefinitions:
//! unknown fields pruned, defaults filled in, then validation.
//!
//! taskgate's own kinds are always known; others (of Kelos) once their CRD is added. Of an object without a schema only the metadata
//! is validated, and of a Job the types of its fields.
//!
//! Imports `expression`. Called by `write_request`, `cluster_state` and `evaluator`.

mod defaulting;
mod object_meta;
mod validation;

use std::{collections::HashMap, fmt, sync::OnceLock};

use k8s_openapi::api::batch::v1::Job;
use regex::Regex;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use taskgate_api::crds;
use taskgate_webhook::ObjectKind;

use crate::expression::Expression;
pub(crate) use object_meta::drop_empty;
use validation::{SchemaField, Validation};

/// An error in a field of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FieldError {
    /// The field's path, such as `spec.mode`; empty for the object itself.
    pub field: String,
    /// The API server's message.
    pub message: String,
}

/// The schemas by kind.
#[derive(Debug, Default)]
pub struct Schemas {
    schemas: HashMap<ObjectKind, Schema>,
}

/// The schema of one version of a kind, with its compiled patterns and rules.
#[derive(Debug)]
struct Schema {
    root: Value,
    compiled: CompiledSchema,
}

/// Patterns and rules, each compiled when it is first needed. One that cannot be compiled here is skipped: the API server accepted
/// it.
#[derive(Debug, Default)]
struct CompiledSchema {
    rules: HashMap<String, OnceLock<Option<Expression>>>,
    patterns: HashMap<String, OnceLock<Option<Regex>>>,
}

impl Schemas {
    /// The schemas of taskgate's own kinds.
    ///
    /// # Panics
    /// Never: a derived CRD serialises.
    pub fn own() -> Self {
        let mut schemas = Self::default();
        for crd in crds::all() {
            let crd = serde_json::to_value(crd).expect("a CRD that was derived serialises");
            schemas.add(&crd);
        }
        schemas
    }

    /// Adds the schemas of the CustomResourceDefinition `crd`.
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
            let mut compiled = CompiledSchema::default();
            compiled.collect(&root);
            self.schemas.insert(kind, Schema { root, compiled });
        }
    }

    /// Decodes `object`: prunes its unknown fields, which it returns as errors, as it does values that cannot be decoded, and fills in
    /// defaults.
    pub fn decode(&self, kind: &ObjectKind, object: &mut Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        object_meta::decode(object, &mut errors);
        if let Some(schema) = self.schemas.get(kind) {
            defaulting::prune_and_default(&schema.root, object, &mut errors);
        } else if errors.is_empty() && kind.group == "batch" && kind.kind == "Job" {
            errors.extend(Job::deserialize(without_nulls(object)).err().map(|error| FieldError {
                field: String::new(),
                message: format!("Job in version {:?} cannot be handled as a Job: {error}", kind.version),
            }));
        }
        errors.sort();
        errors
    }

    /// `object` as the API server stores it. Errors if it cannot be decoded, or its metadata is invalid.
    pub fn stored(&self, object: &Value) -> Result<Value, Vec<FieldError>> {
        let mut object = object.clone();
        let mut errors = self.decode(&kind_of(&object), &mut object);
        errors.retain(|error| !error.is_unknown_field());
        if errors.is_empty() {
            errors = object_meta::validate(&object).errors;
        }
        if errors.is_empty() { Ok(object) } else { Err(errors) }
    }

    /// All validation errors of `object`. `old` is the stored object, null for a new one: unchanged invalid values are valid, and
    /// transition rules apply.
    pub fn validate(&self, kind: &ObjectKind, object: &Value, old: &Value) -> Vec<FieldError> {
        let metadata = object_meta::validate(object);
        let Some(schema) = self.schemas.get(kind) else {
            return metadata.errors;
        };
        let root = SchemaField {
            path: String::new(),
            schema: &schema.root,
            value: object,
            old: Some(old).filter(|old| old.is_object()),
        };
        let mut validation = Validation {
            compiled: &schema.compiled,
            errors: metadata.errors,
            blocked: metadata.blocking,
        };
        validation.validate(&root);
        validation.errors.sort();
        if validation.blocked {
            let message = "some validation rules were not checked because the object was invalid";
            validation.error("", message.to_owned());
        } else {
            validation.validate_rules(&root);
        }
        validation.errors
    }
}

/// `value` without nulls, which Go reads as nothing wherever they are.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().filter(|item| !item.is_null()).map(without_nulls).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(field, value)| (field.clone(), without_nulls(value)))
                .collect()
        }
        other => other.clone(),
    }
}

/// The `apiVersion` and `kind` of `object`.
pub(crate) fn kind_of(object: &Value) -> ObjectKind {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ObjectKind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: object["kind"].as_str().unwrap_or_default().to_owned(),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() || self.is_unknown_field() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.field, self.message)
        }
    }
}

impl FieldError {
    /// Whether it is about a field that the kind does not have.
    pub(crate) fn is_unknown_field(&self) -> bool {
        self.message.starts_with("unknown field")
    }
}

impl CompiledSchema {
    /// Collects all patterns and rules of `schema`.
    fn collect(&mut self, schema: &Value) {
        match schema {
            Value::Object(fields) => {
                if let Some(Value::String(pattern)) = fields.get("pattern") {
                    self.patterns.insert(pattern.clone(), OnceLock::new());
                }
                let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
                for rule in rules.into_iter().flatten().filter_map(|rule| rule["rule"].as_str()) {
                    self.rules.insert(rule.to_owned(), OnceLock::new());
                }
                fields.values().for_each(|value| self.collect(value));
            }
            Value::Array(items) => items.iter().for_each(|value| self.collect(value)),
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

/// The schema of `field` in an object with `schema`, if there is one.
fn schema_of<'s>(schema: &'s Value, field: &str) -> Option<&'s Value> {
    let others = schema.get("additionalProperties").filter(|others| others.is_object());
    schema["properties"].get(field).or(others)
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
    fn every_unknown_field_is_an_error_and_defaults_are_filled_in() {
        let mut object =
            policy(&json!({"mod": "Warn", "failurePolicy": {"maxRetries": 3}, "metadata": {"labels": {"a": "b"}}}));
        object["metadata"]["label"] = json!({});
        let errors = Schemas::own().decode(&policy_kind(), &mut object);
        let messages: Vec<_> = errors.iter().map(|error| error.message.as_str()).collect();
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
    fn every_violation_of_the_schema_is_an_error_with_its_path() {
        let object = policy(&json!({
            "mode": "Perhaps", "priority": 2_000_000, "queuePriorityClass": "high",
            "failurePolicy": {"resetAfter": "soon", "backoff": {"max": "1h"}, "ignore": "Evicted"},
            "selector": {"spawnerNames": [7]},
        }));
        let errors = Schemas::own().validate(&policy_kind(), &object, &Value::Null);
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        for field in [
            "spec.mode",
            "spec.priority",
            "spec.failurePolicy.resetAfter",
            "spec.failurePolicy.backoff.initial",
            "spec.failurePolicy.ignore",
            "spec.selector.spawnerNames[0]",
        ] {
            assert!(fields.contains(&field), "{field}: {errors:?}");
        }
        let object = policy(&json!({"queuePriorityClass": "high"}));
        let [error] = &Schemas::own().validate(&policy_kind(), &object, &Value::Null)[..] else {
            panic!("{object}")
        };
        assert_eq!(error.field, "spec.queuePriorityClass");
        assert!(error.message.contains("needs queueName"), "{error:?}");
    }

    #[test]
    fn numbers_are_integers_as_for_the_api_server() {
        let errors = |priority: Value| {
            let object = policy(&json!({"failurePolicy": {"maxRetriesPerItem": priority}}));
            let errors = Schemas::own().validate(&policy_kind(), &object, &Value::Null);
            errors.into_iter().map(|error| error.to_string()).collect::<Vec<_>>()
        };
        let path = "spec.failurePolicy.maxRetriesPerItem";
        assert_eq!(errors(json!(3.0)), [""; 0]);
        for (number, wanted) in [
            (
                json!(3.5),
                format!("{path}: Invalid value: \"number\": {path} in body must be of type integer: \"number\""),
            ),
            (
                json!(1e30),
                format!("{path}: Invalid value: \"number\": {path} in body must be of type integer: \"number\""),
            ),
            (
                json!(3_000_000_000_u32),
                format!("Invalid value: \"\": Checked value must be of type integer with format int32 in {path}"),
            ),
        ] {
            let found = errors(number);
            assert!(found.contains(&wanted), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn a_queue_name_is_a_name_or_any_template() {
        for (name, valid) in [
            ("agents", true),
            ("agents\n", true),
            ("{{ task.spec.model }}", true),
            ("{% if task.spec.model %}sky{% else %}earth{% endif %}\n", true),
            ("{# nothing but a comment #}sky", true),
            ("two words", false),
            ("Agents", false),
            (" \n", false),
            ("agents\nmore", false),
        ] {
            let errors = Schemas::own().validate(&policy_kind(), &policy(&json!({"queueName": name})), &Value::Null);
            assert_eq!(errors.is_empty(), valid, "{name:?}: {errors:?}");
        }
    }

    #[test]
    fn transition_rules_apply_and_unchanged_invalid_values_are_valid() {
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
            let errors = schemas.validate(&kind, &json!({"metadata": {"name": "a"}, "spec": new}), old);
            errors.into_iter().map(|error| error.field).collect()
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
    fn an_object_without_a_schema_is_not_changed() {
        let kind = ObjectKind {
            group: "kelos.dev".to_owned(),
            version: "v1alpha2".to_owned(),
            kind: "Task".to_owned(),
        };
        let mut task = json!({"spec": {"anything": 1}});
        let before = task.clone();
        assert!(Schemas::own().decode(&kind, &mut task).is_empty() && task == before);
    }

    #[test]
    fn a_job_is_decoded_as_go_does() {
        let kind = ObjectKind {
            group: "batch".to_owned(),
            version: "v1".to_owned(),
            kind: "Job".to_owned(),
        };
        let errors = |spec: Value| {
            let mut job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec});
            Schemas::own().decode(&kind, &mut job)
        };
        let nulls =
            json!({"suspend": null, "template": {"metadata": {"labels": {"a": null}}, "spec": {"containers": [null]}}});
        for good in [json!(null), nulls] {
            assert_eq!(errors(good.clone()), [], "{good}");
        }
        for bad in [json!("text"), json!({"template": "text"}), json!({"suspend": "yes"})] {
            assert_eq!(errors(bad.clone()).len(), 1, "{bad}");
        }
    }

    /// For any end of a Task and any stored status, the written status is valid.
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
                                schemas.validate(&kind, &object, &Value::Null),
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
