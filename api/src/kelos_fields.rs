//! The fields of the public Kelos proposals on Kelos' own kinds. taskgate adds them to Kelos' CustomResourceDefinitions where an
//! administrator asks for that (`taskgate kelos-fields enable`).
//!
//! Kelos does not know the fields, and drops them whenever it writes an object as a whole. Admission restores them then. Those of a
//! TaskSpawner's spec are also kept in the annotation [`KELOS_FIELDS`](crate::keys::KELOS_FIELDS), which survives such a write.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::schema::{OptionalEnum, StructuralSchemaRewriter};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use serde_with::skip_serializing_none;
use strum::{EnumIter, IntoEnumIterator as _, IntoStaticStr};

use crate::{
    crds, keys,
    metadata::{Metadata, is_object_name},
    task_policy::{CancellationPolicy, FailurePolicy},
};

/// The `ConfigMap` in taskgate's namespace. While it exists, the leader extends Kelos' CustomResourceDefinitions.
pub const CONFIG_MAP: &str = "taskgate-kelos-fields";
/// The CustomResourceDefinitions that are extended.
pub const CRDS: [&str; 2] = ["taskspawners.kelos.dev", "tasks.kelos.dev"];
/// How the description of each added field ends. It tells taskgate's additions from fields that Kelos defines itself.
pub const MARKER: &str = "Added to Kelos by taskgate.";
/// The most entries that `status.failedItems` and `status.failedItemResets` may have.
pub const MAX_FAILED_ITEMS: usize = 1000;
/// The longest copy in [`keys::KELOS_FIELDS`] that is read, in bytes.
const MAX_COPY: usize = 16 << 10;

/// A field that taskgate adds to a kind of Kelos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum KelosField {
    /// `TaskSpawner.spec.failurePolicy`
    FailurePolicy,
    /// `TaskSpawner.spec.cancellationPolicy`
    CancellationPolicy,
    /// `TaskSpawner.spec.taskTemplate.queueName`
    QueueName,
    /// `TaskSpawner.status.failedItems`
    FailedItems,
    /// `TaskSpawner.status.failedItemResets`
    FailedItemResets,
    /// `Task.spec.queueName`. Admission moves it to the queue label: Kelos could not write such a spec back.
    TaskQueueName,
    /// `Task.status.cancelledBy`
    CancelledBy,
}

/// The fields that are taskgate's in a cluster: those that it added, without those that Kelos defines itself.
pub type KelosFields = BTreeSet<KelosField>;

impl KelosField {
    /// All of them.
    pub fn all() -> KelosFields {
        Self::iter().collect()
    }

    /// The kind that has it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::TaskQueueName | Self::CancelledBy => "Task",
            _ => "TaskSpawner",
        }
    }

    /// The CustomResourceDefinition of that kind.
    pub fn crd(self) -> &'static str {
        match self.kind() {
            "Task" => "tasks.kelos.dev",
            _ => "taskspawners.kelos.dev",
        }
    }

    /// Where it is in an object, from the outside in.
    pub fn path(self) -> &'static [&'static str] {
        match self {
            Self::FailurePolicy => &["spec", "failurePolicy"],
            Self::CancellationPolicy => &["spec", "cancellationPolicy"],
            Self::QueueName => &["spec", "taskTemplate", "queueName"],
            Self::FailedItems => &["status", "failedItems"],
            Self::FailedItemResets => &["status", "failedItemResets"],
            Self::TaskQueueName => &["spec", "queueName"],
            Self::CancelledBy => &["status", "cancelledBy"],
        }
    }

    /// The path as users write it, such as `spec.failurePolicy`.
    pub fn dotted(self) -> String {
        self.path().join(".")
    }

    /// The JSON pointer to it in an object.
    pub fn pointer(self) -> String {
        format!("/{}", self.path().join("/"))
    }

    /// The field of `object`; null is none, as the API server stores none.
    pub fn of(self, object: &Value) -> Option<&Value> {
        let found = self.path().iter().try_fold(object, |inside, name| inside.get(name));
        found.filter(|value| !value.is_null())
    }

    /// Whether the field is part of an object's status.
    pub fn is_status(self) -> bool {
        self.path().first() == Some(&"status")
    }

    /// Its OpenAPI schema, in which the description ends with [`MARKER`]. Sections of a `TaskPolicy` are those of its schema.
    pub fn schema(self) -> Value {
        let (mut schema, text) = match self {
            Self::FailurePolicy => (of_policy("failurePolicy"), None),
            Self::CancellationPolicy => (of_policy("cancellationPolicy"), None),
            Self::QueueName => (
                queue_template(),
                Some("The Kueue LocalQueue that admits the Jobs of spawned Tasks: a name, or a Tera template."),
            ),
            Self::FailedItems => (
                map_of::<FailedItem>(),
                Some("The items whose latest Tasks failed, by item ID. Removing an entry resets that item."),
            ),
            Self::FailedItemResets => (
                map_of::<FailedItemReset>(),
                Some("The entries of failedItems that a user removed and that were not reset yet. Set by admission."),
            ),
            Self::TaskQueueName => (
                queue_name(),
                Some(
                    "The Kueue LocalQueue that admits the Task's Job. Admission moves it to the label kueue.x-k8s.io/queue-name.",
                ),
            ),
            Self::CancelledBy => (
                json!({"type": "string", "maxLength": 1024}),
                Some("Who cancelled the Task, such as `user:ann` or `spawner:fixer`."),
            ),
        };
        let text = text.or_else(|| schema["description"].as_str()).unwrap_or_default();
        schema["description"] = format!("{text} {MARKER}").into();
        schema
    }
}

/// The schema of a field of a `TaskPolicy`'s spec.
fn of_policy(field: &str) -> Value {
    let crd = crds::all().into_iter().next();
    let crd = serde_json::to_value(crd).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties")
        .and_then(|fields| fields.get(field))
        .cloned()
        .unwrap_or_else(|| json!({"type": "object"}))
}

/// The name of a queue in a TaskSpawner. The proposal allows an empty one, which is none; and a template is allowed as in a policy.
fn queue_template() -> Value {
    let policy = of_policy("queueName");
    let pattern = policy["pattern"].as_str().unwrap_or_default();
    json!({"type": "string", "maxLength": policy["maxLength"], "pattern": format!("^$|{pattern}")})
}

/// The name of a queue in a Task. Not an empty one, which would stay in the spec.
fn queue_name() -> Value {
    let pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": pattern})
}

/// A map by item ID.
fn map_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let settings = settings
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum);
    let mut entry = Value::from(settings.into_generator().into_root_schema_for::<T>());
    if let Some(entry) = entry.as_object_mut() {
        entry.remove("title");
    }
    crds::tidy(&mut entry);
    json!({"type": "object", "maxProperties": MAX_FAILED_ITEMS, "additionalProperties": entry})
}

/// An entry of `status.failedItems`: what a `WorkItem` has about the item.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct FailedItem {
    /// How many Tasks of the item failed in a row.
    #[schemars(range(min = 0))]
    pub consecutive_failures: u32,
    /// When the most recent failure was recorded.
    pub last_failure_time: Time,
    /// Opaque hash of the item's content, by which resetOnChange detects a change.
    #[schemars(length(max = 128))]
    pub content_hash: Option<String>,
}

/// An entry of `status.failedItemResets`: admission adds it when a user removes the entry of the same ID from `status.failedItems`;
/// the controller resets the item and removes it.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FailedItemReset {
    /// The user who removed the entry.
    #[schemars(length(max = 512))]
    pub by: String,
}

/// The policy fields of a TaskSpawner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpawnerFields {
    /// `spec.failurePolicy`
    pub failure_policy: Option<FailurePolicy>,
    /// `spec.cancellationPolicy`
    pub cancellation_policy: Option<CancellationPolicy>,
    /// `spec.taskTemplate.queueName`, unless it is blank.
    pub queue_name: Option<String>,
}

/// A field of a TaskSpawner cannot be read. The schema excludes that; an object that was stored before it need not satisfy it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct InvalidField {
    /// The path of the field.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

impl SpawnerFields {
    /// The policy fields.
    pub const FIELDS: [KelosField; 3] = [
        KelosField::FailurePolicy,
        KelosField::CancellationPolicy,
        KelosField::QueueName,
    ];

    /// The policy fields of `spawner`, of which `ours` are taskgate's in this cluster. A field that the spec lacks is read from the
    /// copy: a write of Kelos may have dropped it while admission was unavailable, or Kelos' schema may lack it for a moment after
    /// an upgrade.
    ///
    /// # Errors
    /// The first field that cannot be read.
    pub fn read(spawner: &Value, ours: &KelosFields) -> Result<Self, InvalidField> {
        let copied = copy_of(spawner);
        let value = |field: KelosField| {
            let value = || field.of(spawner).or_else(|| copied.get(<&str>::from(field)));
            ours.contains(&field).then(value).flatten()
        };
        let queue_name: Option<String> = parse(KelosField::QueueName, value(KelosField::QueueName))?;
        Ok(Self {
            failure_policy: parse(KelosField::FailurePolicy, value(KelosField::FailurePolicy))?,
            cancellation_policy: parse(KelosField::CancellationPolicy, value(KelosField::CancellationPolicy))?,
            queue_name: queue_name.filter(|name| !name.trim().is_empty()),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

fn parse<T: DeserializeOwned>(field: KelosField, value: Option<&Value>) -> Result<Option<T>, InvalidField> {
    let parse = |value| {
        T::deserialize(value).map_err(|error: serde_json::Error| InvalidField {
            path: field.dotted(),
            problem: error.to_string(),
        })
    };
    value.map(parse).transpose()
}

/// The copy in the annotation of `spawner`: values by the name of the field. Garbage reads as none.
pub fn copy_of(spawner: &Value) -> Map<String, Value> {
    let text = Metadata::of(spawner).annotation(keys::KELOS_FIELDS);
    let text = text.filter(|text| text.len() <= MAX_COPY);
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// The service accounts of Kelos that write whole objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KelosWriters {
    /// That of the controller, `NAMESPACE/NAME`: no other namespace's is trusted.
    pub controller: ControllerAccount,
    /// The name of the spawners' service account, which is in the namespace of each TaskSpawner. A tenant can imitate it, and gains
    /// nothing: a trusted writer gets back what it drops.
    pub spawner: String,
}

/// A service account, as `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerAccount {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Default for KelosWriters {
    /// Those of Kelos' chart (kelos §1).
    fn default() -> Self {
        Self {
            controller: ControllerAccount::default(),
            spawner: "kelos-spawner".to_owned(),
        }
    }
}

impl Default for ControllerAccount {
    fn default() -> Self {
        Self {
            namespace: "kelos-system".to_owned(),
            name: "kelos-controller".to_owned(),
        }
    }
}

impl KelosWriters {
    /// Whether `user` is one of them for an object in `namespace`.
    pub fn include(&self, user: &str, namespace: &str) -> bool {
        let Some((of, name)) = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|user| user.split_once(':'))
        else {
            return false;
        };
        let is_controller = of == self.controller.namespace && name == self.controller.name;
        is_controller || (of == namespace && name == self.spawner)
    }
}

impl FromStr for ControllerAccount {
    type Err = InvalidAccount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAccount(text.to_owned());
        let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
        if !is_object_name(namespace) || !is_object_name(name) {
            return Err(invalid());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ControllerAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The text names no service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NAMESPACE/NAME")]
pub struct InvalidAccount(String);

/// The entries of `status.failedItems`; one that cannot be read is left out.
pub fn failed_items(spawner: &Value) -> BTreeMap<String, FailedItem> {
    entries(KelosField::FailedItems, spawner)
}

/// The entries of `status.failedItemResets`; one that cannot be read is left out.
pub fn failed_item_resets(spawner: &Value) -> BTreeMap<String, FailedItemReset> {
    entries(KelosField::FailedItemResets, spawner)
}

fn entries<T: DeserializeOwned>(field: KelosField, object: &Value) -> BTreeMap<String, T> {
    let entries = field.of(object).and_then(Value::as_object).into_iter().flatten();
    entries
        .take(MAX_FAILED_ITEMS)
        .filter_map(|(id, entry)| Some((id.clone(), T::deserialize(entry).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_structural_and_marked() {
        for field in KelosField::iter() {
            let schema = field.schema();
            let text = schema.to_string();
            assert!(schema["description"].as_str().unwrap().ends_with(MARKER), "{field:?}");
            assert!(schema["type"].is_string(), "{field:?}");
            for odd in ["nullable", "uint", "$ref", "\"title\"", "$schema"] {
                assert!(!text.contains(odd), "{field:?}: {odd}");
            }
        }
    }

    #[test]
    fn names_defaults_and_ranges_are_those_of_the_proposals() {
        let failure = KelosField::FailurePolicy.schema();
        let max = &failure["properties"]["maxRetriesPerItem"];
        assert_eq!((&max["default"], &max["minimum"]), (&json!(0), &json!(0.0)));
        assert_eq!(failure["properties"]["resetOnChange"]["default"], json!(false));
        let cancellation = KelosField::CancellationPolicy.schema();
        for reaction in ["onSourceRemoved", "onRetrigger"] {
            let schema = &cancellation["properties"][reaction];
            assert_eq!(schema["default"], json!("Ignore"));
            let mut values: Vec<_> = schema["enum"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_str().unwrap())
                .collect();
            values.sort_unstable();
            assert_eq!(values, ["Cancel", "Ignore"]);
        }
        assert_eq!(cancellation["properties"]["gracePeriodSeconds"]["default"], json!(0));
        let entry = &KelosField::FailedItems.schema()["additionalProperties"];
        assert_eq!(entry["required"], json!(["consecutiveFailures", "lastFailureTime"]));
        assert_eq!(entry["properties"]["lastFailureTime"]["format"], json!("date-time"));
        assert_eq!(entry["properties"]["consecutiveFailures"]["format"], json!("int32"));
    }

    #[test]
    fn a_field_that_the_spec_lacks_is_read_from_the_copy() {
        let spawner = json!({
            "metadata": {"annotations": {keys::KELOS_FIELDS: r#"{"failurePolicy":{"maxRetriesPerItem":3},"queueName":"old"}"#}},
            "spec": {"taskTemplate": {"queueName": "new"}},
        });
        let read = SpawnerFields::read(&spawner, &KelosField::all()).unwrap();
        assert_eq!(read.failure_policy.unwrap().max_retries_per_item, 3);
        assert_eq!(read.queue_name.as_deref(), Some("new"));
        assert!(SpawnerFields::read(&spawner, &KelosFields::new()).unwrap().is_empty());
        let garbage = json!({"metadata": {"annotations": {keys::KELOS_FIELDS: "["}}, "spec": {"failurePolicy": 7}});
        let error = SpawnerFields::read(&garbage, &KelosField::all()).unwrap_err();
        assert_eq!(error.path, "spec.failurePolicy");
    }

    #[test]
    fn a_writer_is_trusted_in_its_namespace_only() {
        let writers = KelosWriters::default();
        for (user, trusted) in [
            ("system:serviceaccount:kelos-system:kelos-controller", true),
            ("system:serviceaccount:team:kelos-spawner", true),
            ("system:serviceaccount:team:kelos-controller", false),
            ("system:serviceaccount:other:kelos-spawner", false),
            ("kelos-controller", false),
            ("system:serviceaccount:kelos-system", false),
        ] {
            assert_eq!(writers.include(user, "team"), trusted, "{user}");
        }
        assert_eq!("a/b".parse::<ControllerAccount>().unwrap().to_string(), "a/b");
        for bad in ["", "a", "a/", "/b", "a/b/c", "A/b"] {
            assert!(bad.parse::<ControllerAccount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_that_cannot_be_read_are_left_out() {
        let good = json!({"consecutiveFailures": 2, "lastFailureTime": "2026-01-31T12:00:00Z"});
        let spawner =
            json!({"status": {"failedItems": {"42": good, "43": {}}, "failedItemResets": {"7": {"by": "ann"}}}});
        let items = failed_items(&spawner);
        assert_eq!(items.keys().collect::<Vec<_>>(), ["42"]);
        assert_eq!(failed_item_resets(&spawner)["7"].by, "ann");
    }
}
