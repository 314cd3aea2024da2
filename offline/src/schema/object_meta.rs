//! `metadata` as the API server decodes and validates it, for objects of every kind. The rules and the messages are those of
//! `k8s.io/apimachinery` 0.36: `ObjectMeta` in `pkg/apis/meta/v1`, `ValidateObjectMetaAccessor` in `pkg/api/validation`, and the
//! formats in `pkg/util/validation`.

use std::{collections::HashSet, sync::LazyLock};

use regex::Regex;
use serde_json::{Map, Value, json};

use super::{FieldError, join};

/// The most that all annotations may have, in bytes of keys and values.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The longest label value, and the longest key after its prefix, in bytes.
const MAX_LABEL: usize = 63;

/// The longest name, in bytes.
const MAX_NAME: usize = 253;

/// What a field has, as Go decodes it. A null is the same as nothing.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Uid,
    Bool,
    Texts,
    TextMap,
    Owners,
    /// Only the API server sets it, and drops what others set.
    Any,
}

impl Shape {
    /// The name of the type in Go.
    fn go_type(self) -> &'static str {
        match self {
            Self::Text | Self::Any => "string",
            Self::Uid => "types.UID",
            Self::Bool => "bool",
            Self::Texts => "[]string",
            Self::TextMap => "map[string]string",
            Self::Owners => "[]v1.OwnerReference",
        }
    }
}

/// The fields of `metadata`.
const FIELDS: [(&str, Shape); 15] = [
    ("annotations", Shape::TextMap),
    ("creationTimestamp", Shape::Any),
    ("deletionGracePeriodSeconds", Shape::Any),
    ("deletionTimestamp", Shape::Any),
    ("finalizers", Shape::Texts),
    ("generateName", Shape::Text),
    ("generation", Shape::Any),
    ("labels", Shape::TextMap),
    ("managedFields", Shape::Any),
    ("name", Shape::Text),
    ("namespace", Shape::Text),
    ("ownerReferences", Shape::Owners),
    ("resourceVersion", Shape::Any),
    ("selfLink", Shape::Any),
    ("uid", Shape::Any),
];

/// The fields of an owner reference.
const OWNER_FIELDS: [(&str, Shape); 6] = [
    ("apiVersion", Shape::Text),
    ("blockOwnerDeletion", Shape::Bool),
    ("controller", Shape::Bool),
    ("kind", Shape::Text),
    ("name", Shape::Text),
    ("uid", Shape::Uid),
];

/// Drops the empty fields of `metadata`, as the API server does before it sends an object to webhooks.
pub(crate) fn drop_empty(object: &mut Value) {
    let is_empty = |field: &str, value: &Value| {
        let known = FIELDS.iter().find(|(name, _)| *name == field);
        known.is_some_and(|(_, shape)| match (shape, value) {
            (_, Value::Null) => true,
            (Shape::TextMap, Value::Object(fields)) => fields.is_empty(),
            (Shape::Texts | Shape::Owners, Value::Array(items)) => items.is_empty(),
            _ => false,
        })
    };
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|field, value| !is_empty(field, value));
    }
}

/// Decodes the metadata of `object`: a null in a map or a list is an empty text, and unknown fields are dropped. Each of these, and
/// every value of another type, is an error.
pub(super) fn decode(object: &mut Value, errors: &mut Vec<FieldError>) {
    match object.get_mut("metadata") {
        None | Some(Value::Null) => {}
        Some(Value::Object(metadata)) => decode_fields(("metadata", "ObjectMeta"), &FIELDS, metadata, errors),
        Some(other) => {
            let message = format!(
                "json: cannot unmarshal {} into Go value of type v1.ObjectMeta",
                go_kind(other)
            );
            errors.push(error("metadata", message));
        }
    }
}

/// Decodes the `known` fields of a struct: at the path, and as Go names it.
fn decode_fields(
    (path, go): (&str, &str),
    known: &[(&str, Shape)],
    fields: &mut Map<String, Value>,
    errors: &mut Vec<FieldError>,
) {
    fields.retain(|field, value| {
        let (path, go) = (join(path, field), format!("{go}.{field}"));
        let Some((_, shape)) = known.iter().find(|(name, _)| name == field) else {
            let message = format!("unknown field {path:?}");
            errors.push(FieldError { field: path, message });
            return false;
        };
        decode_field((&path, &go), *shape, value, errors);
        true
    });
}

fn decode_field((path, go): (&str, &str), shape: Shape, value: &mut Value, errors: &mut Vec<FieldError>) {
    match (shape, value) {
        (Shape::Any, _)
        | (_, Value::Null)
        | (Shape::Text | Shape::Uid, Value::String(_))
        | (Shape::Bool, Value::Bool(_)) => {}
        (Shape::Texts, Value::Array(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                decode_text((&format!("{path}[{index}]"), go), item, errors);
            }
        }
        (Shape::TextMap, Value::Object(fields)) => {
            for (key, value) in fields {
                decode_text((&join(path, key), go), value, errors);
            }
        }
        (Shape::Owners, Value::Array(owners)) => {
            for (index, owner) in owners.iter_mut().enumerate() {
                let path = format!("{path}[{index}]");
                match owner {
                    Value::Null => *owner = json!({}),
                    Value::Object(fields) => {
                        let go_path = "OwnerReference.ownerReferences";
                        decode_fields((&path, go_path), &OWNER_FIELDS, fields, errors);
                    }
                    other => errors.push(wrong_type((&path, go), other, "v1.OwnerReference")),
                }
            }
        }
        (shape, other) => errors.push(wrong_type((path, go), other, shape.go_type())),
    }
}

/// Decodes a text in a map or a list of texts.
fn decode_text(place: (&str, &str), value: &mut Value, errors: &mut Vec<FieldError>) {
    match value {
        Value::Null => *value = json!(""),
        Value::String(_) => {}
        other => errors.push(wrong_type(place, other, "string")),
    }
}

/// The error for `value` at a path, in the field that Go calls `go`.
fn wrong_type((path, go): (&str, &str), value: &Value, wanted: &str) -> FieldError {
    let kind = go_kind(value);
    error(
        path,
        format!("json: cannot unmarshal {kind} into Go struct field {go} of type {wanted}"),
    )
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn error(field: &str, message: String) -> FieldError {
    let field = field.to_owned();
    FieldError { field, message }
}

/// The errors of an object's metadata.
#[derive(Debug, Default)]
pub(super) struct MetadataErrors {
    pub(super) errors: Vec<FieldError>,
    /// Whether one of them makes the API server skip the rules of the schema.
    pub(super) blocking: bool,
}

impl MetadataErrors {
    fn invalid(&mut self, field: &str, value: &Value, problem: &str) {
        self.errors
            .push(error(field, format!("Invalid value: {value}: {problem}")));
    }

    fn all_invalid(&mut self, field: &str, value: &str, problems: Vec<String>) {
        for problem in problems {
            self.invalid(field, &json!(value), &problem);
        }
    }
}

/// The errors of the decoded metadata of `object`. A name that is still to be generated is none.
pub(super) fn validate(object: &Value) -> MetadataErrors {
    let mut found = MetadataErrors::default();
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    if !text("generateName").is_empty() {
        let prefix = text("generateName");
        found.all_invalid("metadata.generateName", prefix, subdomain(&masked(prefix)));
    }
    if !text("name").is_empty() {
        found.all_invalid("metadata.name", text("name"), subdomain(text("name")));
    } else if text("generateName").is_empty() {
        found.blocking = true;
        let message = "Required value: name or generateName is required".to_owned();
        found.errors.push(error("metadata.name", message));
    }
    if !text("namespace").is_empty() {
        found.all_invalid("metadata.namespace", text("namespace"), label(text("namespace")));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        found.all_invalid("metadata.labels", key, qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        found.all_invalid("metadata.labels", value, label_value(value));
    }
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        found.all_invalid("metadata.annotations", key, qualified_name(&key.to_lowercase()));
    }
    if size > MAX_ANNOTATIONS {
        found.blocking = true;
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        found.errors.push(error("metadata.annotations", message));
    }
    validate_owners(&metadata["ownerReferences"], &mut found);
    validate_finalizers(&metadata["finalizers"], &mut found);
    found
}

fn validate_owners(owners: &Value, found: &mut MetadataErrors) {
    const FIELD: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in owners.as_array().into_iter().flatten() {
        let text = |field: &str| owner[field].as_str().unwrap_or_default();
        let version = text("apiVersion");
        if version.is_empty() || version.matches('/').count() > 1 || version.ends_with('/') {
            let field = format!("{FIELD}.apiVersion");
            found.invalid(&field, &json!(version), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                found.invalid(&format!("{FIELD}.{field}"), &json!(""), "must not be empty");
            }
        }
        if (version, text("kind")) == ("v1", "Event") {
            found.invalid(FIELD, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => {
                    let problem = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    found.invalid(FIELD, owners, &problem);
                }
                None => controller = Some(this),
            }
        }
    }
}

fn validate_finalizers(finalizers: &Value, found: &mut MetadataErrors) {
    const FIELD: &str = "metadata.finalizers";
    let finalizers = finalizers.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut names = HashSet::new();
    for finalizer in finalizers {
        found.all_invalid(FIELD, finalizer, qualified_name(finalizer));
        names.insert(finalizer);
    }
    if names.contains("orphan") && names.contains("foregroundDeletion") {
        let problem = "finalizer orphan and foregroundDeletion cannot be both set";
        found.invalid(FIELD, &json!(names.iter().collect::<Vec<_>>()), problem);
    }
}

/// A format with its message.
struct Format {
    regex: Regex,
    message: String,
}

impl Format {
    /// # Panics
    /// Never: the patterns below are regular expressions.
    fn new(what: &str, pattern: &str, examples: &[&str]) -> Self {
        let examples: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
        Self {
            regex: Regex::new(&format!("^(?:{pattern})$")).expect("the pattern is a regular expression"),
            message: format!(
                "{what} (e.g. {}regex used for validation is '{pattern}')",
                examples.join(" or ")
            ),
        }
    }

    fn problem(&self, text: &str) -> Option<String> {
        (!self.regex.is_match(text)).then(|| self.message.clone())
    }
}

static SUBDOMAIN: LazyLock<Format> = LazyLock::new(|| {
    Format::new(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end \
         with an alphanumeric character",
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        &["example.com"],
    )
});

static LABEL: LazyLock<Format> = LazyLock::new(|| {
    Format::new(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an \
         alphanumeric character",
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
        &["my-name", "123-abc"],
    )
});

static QUALIFIED: LazyLock<Format> = LazyLock::new(|| {
    Format::new(
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]",
        &["MyName", "my.name", "123-abc"],
    )
});

static LABEL_VALUE: LazyLock<Format> = LazyLock::new(|| {
    Format::new(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
         with an alphanumeric character",
        "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
        &["MyValue", "my_value", "12345"],
    )
});

fn too_long(text: &str, max: usize, unit: &str) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} {unit}"))
}

/// The problems of the name of an object.
fn subdomain(name: &str) -> Vec<String> {
    let problems = [too_long(name, MAX_NAME, "characters"), SUBDOMAIN.problem(name)];
    problems.into_iter().flatten().collect()
}

/// A prefix of names as its format is checked: it may end with a hyphen.
fn masked(prefix: &str) -> String {
    match prefix
        .strip_suffix('-')
        .and_then(|rest| rest.char_indices().last().map(|(end, _)| &rest[..end]))
    {
        Some(start) => format!("{start}a"),
        None => prefix.to_owned(),
    }
}

/// The problems of the name of a namespace.
fn label(name: &str) -> Vec<String> {
    let form = LABEL.problem(name).map(|problem| {
        if SUBDOMAIN.regex.is_match(name) {
            "must not contain dots".to_owned()
        } else {
            problem
        }
    });
    [too_long(name, MAX_LABEL, "characters"), form]
        .into_iter()
        .flatten()
        .collect()
}

/// The problems of a key of labels or annotations, or of a finalizer.
fn qualified_name(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match key.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        ["", name] => {
            problems.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            let of_prefix = [too_long(prefix, MAX_NAME, "bytes"), SUBDOMAIN.problem(prefix)];
            problems.extend(
                of_prefix
                    .into_iter()
                    .flatten()
                    .map(|problem| format!("prefix part {problem}")),
            );
            name
        }
        _ => {
            let problem = &QUALIFIED.message;
            return vec![format!(
                "a valid label key {problem} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let length = if name.is_empty() {
        Some("must be non-empty".to_owned())
    } else {
        too_long(name, MAX_LABEL, "bytes")
    };
    let of_name = [length, QUALIFIED.problem(name)];
    problems.extend(
        of_name
            .into_iter()
            .flatten()
            .map(|problem| format!("name part {problem}")),
    );
    problems
}

fn label_value(value: &str) -> Vec<String> {
    let problems = [too_long(value, MAX_LABEL, "bytes"), LABEL_VALUE.problem(value)];
    problems.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &Value) -> Value {
        json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": metadata})
    }

    fn decoded(metadata: &Value) -> (Value, Vec<String>) {
        let mut object = object(metadata);
        let mut errors = Vec::new();
        decode(&mut object, &mut errors);
        let errors = errors
            .into_iter()
            .map(|error| format!("{}: {}", error.field, error.message));
        (object["metadata"].take(), errors.collect())
    }

    fn errors(metadata: &Value) -> Vec<String> {
        let found = validate(&object(metadata));
        let errors = found.errors.into_iter();
        errors
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect()
    }

    #[test]
    fn nulls_are_empty_and_other_types_are_errors() {
        let (metadata, errors) = decoded(&json!({"name": "a", "labels": {"team": null}, "finalizers": [null],
            "ownerReferences": [null], "annotations": null, "creationTimestamp": null}));
        assert_eq!(
            (metadata["labels"].clone(), metadata["finalizers"].clone(), errors),
            (json!({"team": ""}), json!([""]), vec![])
        );
        for (metadata, wanted) in [
            (
                json!("text"),
                "metadata: json: cannot unmarshal string into Go value of type v1.ObjectMeta",
            ),
            (
                json!([]),
                "metadata: json: cannot unmarshal array into Go value of type v1.ObjectMeta",
            ),
            (
                json!(7),
                "metadata: json: cannot unmarshal number into Go value of type v1.ObjectMeta",
            ),
            (
                json!({"name": 2026}),
                "metadata.name: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string",
            ),
            (
                json!({"labels": {"issue": 42}}),
                "metadata.labels.issue: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
            ),
            (
                json!({"labels": {"on": true}}),
                "metadata.labels.on: json: cannot unmarshal bool into Go struct field ObjectMeta.labels of type string",
            ),
            (
                json!({"annotations": "text"}),
                "metadata.annotations: json: cannot unmarshal string into Go struct field ObjectMeta.annotations of type \
                 map[string]string",
            ),
            (
                json!({"finalizers": "x"}),
                "metadata.finalizers: json: cannot unmarshal string into Go struct field ObjectMeta.finalizers of type \
                 []string",
            ),
            (
                json!({"ownerReferences": [{"uid": 7}]}),
                "metadata.ownerReferences[0].uid: json: cannot unmarshal number into Go struct field \
                 OwnerReference.ownerReferences.uid of type types.UID",
            ),
            (
                json!({"ownerReferences": ["x"]}),
                "metadata.ownerReferences[0]: json: cannot unmarshal string into Go struct field ObjectMeta.ownerReferences \
                 of type v1.OwnerReference",
            ),
            (json!({"label": {}}), "metadata.label: unknown field \"metadata.label\""),
            (
                json!({"ownerReferences": [{"foo": 1}]}),
                "metadata.ownerReferences[0].foo: unknown field \"metadata.ownerReferences[0].foo\"",
            ),
        ] {
            assert_eq!(decoded(&metadata).1, [wanted]);
        }
    }

    #[test]
    fn what_the_api_server_accepts() {
        for metadata in [
            json!({"name": "a", "namespace": "team-a"}),
            json!({"name": "42"}),
            json!({"name": "a.b-c"}),
            json!({"name": "n".repeat(253)}),
            json!({"generateName": "nightly-"}),
            json!({"generateName": "a"}),
            json!({"name": "a", "labels": {"a": "", "A_b.c": "x_y.Z", "example.com/x": "v".repeat(63)}}),
            json!({"name": "a", "annotations": {"UPPER.example/Ok": "any text\n"}, "finalizers": ["x", "a.b/c"]}),
            json!({"name": "a", "annotations": {"x": "y".repeat(MAX_ANNOTATIONS - 1)}}),
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "b", "uid": "c"}]}),
        ] {
            assert_eq!(errors(&metadata), [""; 0], "{metadata}");
        }
    }

    /// The messages of kube-apiserver 1.36.3.
    #[test]
    fn what_the_api_server_rejects() {
        const SUBDOMAIN: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        const PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        let (long, name) = ("x".repeat(64), "n".repeat(254));
        let labels = |labels: Value| json!({"name": "a", "labels": labels});
        let owner = |owner: Value| json!({"name": "a", "ownerReferences": [owner]});
        for (metadata, wanted) in [
            (
                json!({}),
                vec!["name: Required value: name or generateName is required".to_owned()],
            ),
            (
                json!({"name": "Fixer_42"}),
                vec![format!("name: Invalid value: \"Fixer_42\": {SUBDOMAIN}")],
            ),
            (
                json!({"name": "a/b"}),
                vec![format!("name: Invalid value: \"a/b\": {SUBDOMAIN}")],
            ),
            (
                json!({"name": name}),
                vec![format!(
                    "name: Invalid value: {name:?}: must be no more than 253 characters"
                )],
            ),
            (
                json!({"generateName": "A_"}),
                vec![format!("generateName: Invalid value: \"A_\": {SUBDOMAIN}")],
            ),
            (
                labels(json!({"my key": "a"})),
                vec![format!("labels: Invalid value: \"my key\": name part {PART}")],
            ),
            (
                labels(json!({"/x": "a"})),
                vec!["labels: Invalid value: \"/x\": prefix part must be non-empty".to_owned()],
            ),
            (
                labels(json!({"E.com/x": "a"})),
                vec![format!("labels: Invalid value: \"E.com/x\": prefix part {SUBDOMAIN}")],
            ),
            (
                labels(json!({"a/b/c": "x"})),
                vec![format!(
                    "labels: Invalid value: \"a/b/c\": a valid label key {PART} with an optional DNS subdomain prefix and '/' \
                     (e.g. 'example.com/MyName')"
                )],
            ),
            (
                labels(json!({"": "z"})),
                vec![
                    "labels: Invalid value: \"\": name part must be non-empty".to_owned(),
                    format!("labels: Invalid value: \"\": name part {PART}"),
                ],
            ),
            (
                labels(json!({"team": "Platform Team"})),
                vec![format!("labels: Invalid value: \"Platform Team\": {VALUE}")],
            ),
            (
                labels(json!({"team": long})),
                vec![format!(
                    "labels: Invalid value: {long:?}: must be no more than 63 bytes"
                )],
            ),
            (
                json!({"name": "a", "annotations": {"x": "y".repeat(MAX_ANNOTATIONS)}}),
                vec!["annotations: Too long: may not be more than 262144 bytes".to_owned()],
            ),
            (
                owner(json!({"apiVersion": "v1", "kind": "A", "name": "b"})),
                vec!["ownerReferences.uid: Invalid value: \"\": must not be empty".to_owned()],
            ),
            (
                owner(json!({"apiVersion": "a/b/c", "kind": "A", "name": "b", "uid": "u"})),
                vec!["ownerReferences.apiVersion: Invalid value: \"a/b/c\": version must not be empty".to_owned()],
            ),
            (
                json!({"name": "a", "finalizers": ["a b"]}),
                vec![format!("finalizers: Invalid value: \"a b\": name part {PART}")],
            ),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|error| format!("metadata.{error}")).collect();
            assert_eq!(errors(&metadata), wanted);
        }
        let two = json!([{"apiVersion": "v1", "kind": "A", "name": "a", "uid": "u", "controller": true},
            {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "v", "controller": true}]);
        let found = errors(&json!({"name": "a", "ownerReferences": two}));
        assert!(
            found[0].ends_with("Found \"true\" in references for A/a and B/b"),
            "{found:?}"
        );
    }
}
