//! Labels and annotations for Tasks.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::Mode;
use crate::crds::describe_values;

/// Labels and annotations for Tasks.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.labels) ? size(self.labels) : 0) + (has(self.annotations) ? size(self.annotations) : 0) <= 64")
    .message("a policy may set 64 keys: labels and annotations together"))]
pub struct MetadataPolicy {
    /// The mode of this section. Absent: the policy's `mode`.
    pub mode: Option<Mode>,
    /// The language of the templates in `labels`, `annotations`, `queueName` and `queuePriorityClass`.
    #[schemars(extend("default" = "Tera"))]
    pub engine: Option<TemplateEngine>,
    /// Labels to put on Tasks that do not have them yet. Values are templates; those of a policy have at most 16 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on Tasks that do not have them yet. Values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map")]
    pub annotations: BTreeMap<String, String>,
    /// What a label or annotation gets whose template needs something that is not there. Absent: it is left out, and the
    /// creator gets a warning.
    #[schemars(length(max = 63))]
    pub missing_value: Option<String>,
    /// What becomes of text that is no legal label value.
    #[serde(default, skip_serializing_if = "IllegalValue::is_default")]
    #[schemars(extend("default" = "Sanitize"))]
    pub illegal_value: IllegalValue,
    /// Replace what the Task's creator set. System keys can never be set.
    #[serde(default, rename = "override", skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub override_existing: bool,
    /// Set values that need the issue source, such as the title, after the source was read. Once: later changes of the item
    /// change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("default" = false))]
    pub from_source: bool,
    /// Which objects below the Task get the same labels and annotations. Absent or empty: none.
    #[schemars(length(max = 2))]
    pub propagate: Option<Vec<PropagationTarget>>,
}

/// At most 64 entries with values of at most 2048 characters: a template is compiled and kept, and the API server needs bounds
/// to estimate CEL cost.
fn bounded_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 2048},
    })
}

/// A template language.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum TemplateEngine {
    /// Tera, as in `{{ item.url }}`.
    #[default]
    Tera,
    /// Go's text/template, as Kelos uses it: `{{.URL}}`.
    GoTemplate,
}

/// What becomes of text that is no legal label value.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum IllegalValue {
    /// The text is made legal: what stays readable, and a hash of the whole.
    #[default]
    Sanitize,
    /// The label is left out, and the creator gets a warning.
    Skip,
}

impl IllegalValue {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An object that a Task leads to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = describe_values)]
pub enum PropagationTarget {
    /// The Task's Job, when it is created.
    Job,
    /// The pods of the Job, through its pod template.
    Pod,
}
