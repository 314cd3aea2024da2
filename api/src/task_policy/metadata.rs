//! Labels and annotations for Tasks (seed 004).

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Mode;

/// Labels and annotations for Tasks (seed 004).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.engine)")
    .message("engine is not active in this release: values are literal; remove it").field_path(".engine"))]
#[x_kube(validation = Rule::new("!has(self.propagate)")
    .message("propagate is not active in this release: remove it").field_path(".propagate"))]
pub struct MetadataPolicy {
    /// The mode of this section, where it differs from the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// The language of the templates in `labels` and `annotations`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<TemplateEngine>,
    /// Labels to put on Tasks that do not have them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map::<4096>")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on Tasks that do not have them yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "bounded_map::<16384>")]
    pub annotations: BTreeMap<String, String>,
    /// Which objects below the Task get the same labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2))]
    pub propagate: Option<Vec<PropagationTarget>>,
}

/// At most 64 entries with values of at most `MAX` characters: bounds that the API server needs to estimate CEL cost.
fn bounded_map<const MAX: usize>(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": MAX},
    })
}

/// A template language.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TemplateEngine {
    /// `{{ item.url }}`
    #[default]
    Tera,
    /// `{{.URL}}`, as seed 004 writes it.
    GoTemplate,
}

/// An object that a Task leads to.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationTarget {
    /// The Task's Job.
    Job,
    /// The Job's pods.
    Pod,
}
