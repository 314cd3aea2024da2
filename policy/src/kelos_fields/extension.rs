//! What a CustomResourceDefinition of Kelos has of the fields, and the patches that add and remove those of taskgate.
//!
//! A field is taskgate's if its description ends with [`MARKER`]; any other is Kelos' own, and stays as it is.

use json_patch::{Patch, PatchOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::{Value, json};
use strum::{Display, IntoEnumIterator as _, IntoStaticStr};
use taskgate_api::{
    Lenient as _,
    kelos_fields::{KelosField, MARKER},
};

use crate::kubernetes::{add, at, remove};

/// What a version of a CustomResourceDefinition has of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, IntoStaticStr)]
pub enum FieldState {
    /// It is not there.
    Missing,
    /// It was added by taskgate.
    Added,
    /// It was added by another version of taskgate, or changed afterwards.
    Outdated,
    /// Kelos defines it itself. taskgate neither changes nor reads it.
    DefinedByKelos,
    /// It cannot be added: the object around it is not there, or has no list of fields.
    NotPossible,
}

/// A field in a version of a CustomResourceDefinition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaField {
    /// The version.
    pub version: String,
    /// The field.
    pub field: KelosField,
    /// What the version has of it.
    pub state: FieldState,
}

/// What each version of `crd` has of each field of its kind.
pub fn schema_fields(crd: &Value) -> Vec<SchemaField> {
    let fields = places(crd).map(|place| SchemaField {
        version: place.version.to_owned(),
        field: place.field,
        state: place.state(),
    });
    fields.collect()
}

/// The patch that adds the fields that `crd` lacks, and updates outdated ones; empty if there are none. It applies to exactly this
/// version of the object.
pub fn extension(crd: &Value) -> Patch {
    let changes = places(crd).filter_map(|place| match place.state() {
        FieldState::Missing => Some(add(&place.tokens(), place.field.schema())),
        FieldState::Outdated => Some(PatchOperation::Replace(ReplaceOperation {
            path: PointerBuf::from_tokens(place.tokens()),
            value: place.field.schema(),
        })),
        FieldState::Added | FieldState::DefinedByKelos | FieldState::NotPossible => None,
    });
    of_this_version(crd, changes.collect())
}

/// The patch that removes the fields that taskgate added; empty if there are none. It applies to exactly this version of the object.
pub fn removal(crd: &Value) -> Patch {
    let added = places(crd).filter(|place| matches!(place.state(), FieldState::Added | FieldState::Outdated));
    of_this_version(crd, added.map(|place| remove(&place.tokens())).collect())
}

fn of_this_version(crd: &Value, changes: Vec<PatchOperation>) -> Patch {
    if changes.is_empty() {
        return Patch(changes);
    }
    let test = |field: &str| {
        let value = at(crd, &["metadata", field]).cloned().unwrap_or_default();
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", field]),
            value,
        })
    };
    Patch(
        [test("uid"), test("resourceVersion")]
            .into_iter()
            .chain(changes)
            .collect(),
    )
}

/// Where a field is in a version.
struct Place<'a> {
    /// The index of the version, as in a JSON pointer.
    index: String,
    version: &'a str,
    schema: &'a Value,
    field: KelosField,
}

/// The places of all fields of the kind of `crd`, in each of its versions.
fn places(crd: &Value) -> impl Iterator<Item = Place<'_>> {
    let name = crd.text("/metadata/name").unwrap_or_default();
    crd.items("/spec/versions")
        .enumerate()
        .flat_map(move |(index, version)| {
            let fields = KelosField::iter().filter(move |field| field.crd() == name);
            fields.map(move |field| Place {
                index: index.to_string(),
                version: version.text("/name").unwrap_or_default(),
                schema: version.pointer("/schema/openAPIV3Schema").unwrap_or(&Value::Null),
                field,
            })
        })
}

impl Place<'_> {
    fn state(&self) -> FieldState {
        let path = self.field.path();
        let mut schema = Some(self.schema);
        for (depth, name) in path.iter().enumerate() {
            let Some(fields) = schema
                .and_then(|schema| schema.get("properties"))
                .and_then(Value::as_object)
            else {
                return FieldState::NotPossible;
            };
            schema = fields.get(*name);
            if schema.is_none() && depth + 1 == path.len() {
                return FieldState::Missing;
            }
        }
        let Some(found) = schema else {
            return FieldState::NotPossible;
        };
        let description = found.text("/description").unwrap_or_default();
        if !description.ends_with(MARKER) {
            FieldState::DefinedByKelos
        } else if comparable(found) == comparable(&self.field.schema()) {
            FieldState::Added
        } else {
            FieldState::Outdated
        }
    }

    fn tokens(&self) -> Vec<&str> {
        let head = ["spec", "versions", &self.index, "schema", "openAPIV3Schema"];
        let path = self.field.path().iter().flat_map(|name| ["properties", *name]);
        head.into_iter().chain(path).collect()
    }
}

/// A schema with all numbers in one form: the API server stores a limit of `0.0` as `0`.
fn comparable(schema: &Value) -> Value {
    match schema {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), comparable(value)))
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(versions: &[Value]) -> Value {
        let versions: Vec<_> = versions.iter().enumerate().map(|(index, spec)| {
            json!({"name": format!("v{index}"), "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": spec}, "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
            }}}})
        }).collect();
        json!({
            "metadata": {"name": "taskspawners.kelos.dev", "uid": "u", "resourceVersion": "7"},
            "spec": {"versions": versions},
        })
    }

    fn template() -> Value {
        json!({"taskTemplate": {"type": "object", "properties": {"branch": {"type": "string"}}}})
    }

    fn states(crd: &Value) -> Vec<(String, FieldState)> {
        let fields = schema_fields(crd).into_iter();
        fields
            .map(|found| (format!("{}.{}", found.version, found.field.dotted()), found.state))
            .collect()
    }

    #[test]
    fn what_is_added_is_removed_and_nothing_else_changes() {
        let original = crd(&[template(), template()]);
        assert!(states(&original).iter().all(|(_, state)| *state == FieldState::Missing));
        assert!(removal(&original).0.is_empty());
        let mut extended = original.clone();
        json_patch::patch(&mut extended, &extension(&original)).unwrap();
        assert_eq!(states(&extended).len(), 10);
        assert!(
            states(&extended).iter().all(|(_, state)| *state == FieldState::Added),
            "{:?}",
            states(&extended)
        );
        assert!(extension(&extended).0.is_empty(), "it is idempotent");
        let mut restored = extended.clone();
        json_patch::patch(&mut restored, &removal(&extended)).unwrap();
        assert_eq!(restored, original);
        // Of another version of the object nothing is changed.
        extended["metadata"]["resourceVersion"] = json!("8");
        assert!(
            json_patch::patch(
                &mut extended.clone(),
                &removal(&{
                    let mut old = extended.clone();
                    old["metadata"]["resourceVersion"] = json!("7");
                    old
                })
            )
            .is_err()
        );
    }

    #[test]
    fn a_field_of_kelos_is_left_alone_in_its_version_only() {
        let mut own = template();
        own["failurePolicy"] = json!({"type": "object", "description": "Kelos' own."});
        let both = crd(&[template(), own]);
        let of = |state| {
            states(&both)
                .into_iter()
                .filter(|(_, found)| *found == state)
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(FieldState::DefinedByKelos), ["v1.spec.failurePolicy"]);
        let mut extended = both.clone();
        json_patch::patch(&mut extended, &extension(&both)).unwrap();
        let mut restored = extended.clone();
        json_patch::patch(&mut restored, &removal(&extended)).unwrap();
        assert_eq!(restored, both);
    }

    #[test]
    fn an_older_addition_is_replaced_and_stored_numbers_make_no_difference() {
        let mut extended = crd(&[template()]);
        let addition = extension(&extended);
        json_patch::patch(&mut extended, &addition).unwrap();
        let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/failurePolicy";
        let stored = serde_json::to_string(&extended)
            .unwrap()
            .replace("\"minimum\":0.0", "\"minimum\":0");
        let stored: Value = serde_json::from_str(&stored).unwrap();
        assert!(extension(&stored).0.is_empty());
        *extended.pointer_mut(field).unwrap() = json!({"type": "object", "description": format!("Older. {MARKER}")});
        let patch = extension(&extended);
        assert_eq!(patch.0.len(), 3, "{patch}");
        json_patch::patch(&mut extended, &patch).unwrap();
        assert!(states(&extended).iter().all(|(_, state)| *state == FieldState::Added));
    }

    #[test]
    fn a_schema_without_the_object_around_a_field_cannot_be_extended_there() {
        let bare = crd(&[json!({"taskTemplate": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})]);
        assert!(states(&bare).contains(&("v0.spec.taskTemplate.queueName".to_owned(), FieldState::NotPossible)));
        for odd in [
            json!({}),
            json!({"metadata": {"name": "taskspawners.kelos.dev"}, "spec": {"versions": [7]}}),
        ] {
            assert!(extension(&odd).0.is_empty() && removal(&odd).0.is_empty());
        }
    }
}
