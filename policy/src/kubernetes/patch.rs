//! Edits of an object, and the smallest JSON patch that makes them.

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value};
use strum::{Display, IntoStaticStr};
use taskgate_api::{metadata::Metadata, moved_field::MovedField};

/// Which of the two maps of an object's metadata a key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Display, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum KeyKind {
    /// `metadata.labels`
    Label,
    /// `metadata.annotations`
    Annotation,
}

impl KeyKind {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::Label, Self::Annotation];

    /// The field of an object's metadata.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Label => "labels",
            Self::Annotation => "annotations",
        }
    }

    /// The value of the label or annotation `key`.
    pub(crate) fn value<'a>(self, metadata: Metadata<'a>, key: &str) -> Option<&'a str> {
        match self {
            Self::Label => metadata.label(key),
            Self::Annotation => metadata.annotation(key),
        }
    }

    /// All labels or annotations.
    pub(crate) fn entries(self, metadata: Metadata<'_>) -> BTreeMap<&str, &str> {
        match self {
            Self::Label => metadata.labels().collect(),
            Self::Annotation => metadata.annotations().collect(),
        }
    }
}

/// One change that a decision makes to the object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Edit {
    /// Set a label.
    Label(String, String),
    /// Set an annotation.
    Annotation(String, String),
    /// Remove a label.
    RemoveLabel(String),
    /// Remove an annotation.
    RemoveAnnotation(String),
    /// Set a label in a Job's pod template.
    PodLabel(String, String),
    /// Set an annotation in a Job's pod template.
    PodAnnotation(String, String),
    /// Set `spec.suspend` of a Job to true.
    Suspend,
    /// Append a finalizer.
    Finalizer(String),
    /// Remove a finalizer.
    RemoveFinalizer(String),
    /// Remove this field of `spec`, and it from what field managers own: another manager that applies it would get a conflict. It is
    /// never set to null: Kelos writes the spec back through Go types.
    RemoveSpecField(&'static str),
}

impl Edit {
    /// Moves `field` out of the spec of `task` to its annotation. `None` without one, and for an invalid one, which is left for the API
    /// server to reject.
    pub(crate) fn move_field(field: MovedField, task: &Value) -> Option<[Self; 2]> {
        let kept = field.in_spec(task)?;
        Some([
            Self::RemoveSpecField(field.name),
            Self::Annotation(field.annotation.into(), kept),
        ])
    }

    /// Sets the label or annotation `key`.
    pub(crate) fn set(kind: KeyKind, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        match kind {
            KeyKind::Label => Self::Label(key, value),
            KeyKind::Annotation => Self::Annotation(key, value),
        }
    }

    /// Sets the label or annotation `key` in a Job's pod template.
    pub(crate) fn set_in_pod(kind: KeyKind, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        match kind {
            KeyKind::Label => Self::PodLabel(key, value),
            KeyKind::Annotation => Self::PodAnnotation(key, value),
        }
    }

    /// Removes the label or annotation `key`.
    pub(crate) fn remove(kind: KeyKind, key: &str) -> Self {
        match kind {
            KeyKind::Label => Self::RemoveLabel(key.to_owned()),
            KeyKind::Annotation => Self::RemoveAnnotation(key.to_owned()),
        }
    }

    /// The value that it sets under the label or annotation `key` of the object.
    pub(crate) fn value(&self, kind: KeyKind, key: &str) -> Option<&str> {
        match (self, kind) {
            (Self::Label(own, value), KeyKind::Label) | (Self::Annotation(own, value), KeyKind::Annotation) => {
                (own == key).then_some(value)
            }
            _ => None,
        }
    }

    /// The label's or annotation's key.
    pub(crate) fn key(&self) -> Option<&str> {
        self.entry().map(|(_, key, _)| key)
    }

    /// For an edit of a label or an annotation: the path of the map that it is in, its key, and its value; `None` to remove it.
    fn entry(&self) -> Option<(&'static [&'static str], &str, Option<&str>)> {
        Some(match self {
            Self::Label(key, value) => (LABELS, key, Some(value)),
            Self::Annotation(key, value) => (ANNOTATIONS, key, Some(value)),
            Self::RemoveLabel(key) => (LABELS, key, None),
            Self::RemoveAnnotation(key) => (ANNOTATIONS, key, None),
            Self::PodLabel(key, value) => (POD_LABELS, key, Some(value)),
            Self::PodAnnotation(key, value) => (POD_ANNOTATIONS, key, Some(value)),
            Self::Suspend | Self::Finalizer(_) | Self::RemoveFinalizer(_) | Self::RemoveSpecField(_) => return None,
        })
    }
}

const LABELS: &[&str] = &["metadata", "labels"];
const ANNOTATIONS: &[&str] = &["metadata", "annotations"];
const POD_METADATA: &[&str] = &["spec", "template", "metadata"];
const POD_LABELS: &[&str] = &["spec", "template", "metadata", "labels"];
const POD_ANNOTATIONS: &[&str] = &["spec", "template", "metadata", "annotations"];
const FINALIZERS: &[&str] = &["metadata", "finalizers"];
const MANAGED_FIELDS: &[&str] = &["metadata", "managedFields"];
const SUSPEND: &[&str] = &["spec", "suspend"];

/// The patch that makes `edits` to `object`; edits that would change nothing are left out.
///
/// A map that is missing (or null) is added whole, with one operation; an existing map gets one operation per key, so
/// that what another webhook put there in the meantime survives.
pub(crate) fn patch(object: &Value, edits: &[Edit]) -> Patch {
    let mut operations = Vec::new();
    for edit in edits {
        match edit {
            Edit::Finalizer(finalizer) => operations.extend(append_finalizer(object, finalizer)),
            Edit::RemoveFinalizer(finalizer) => operations.extend(remove_finalizer(object, finalizer)),
            Edit::RemoveSpecField(field) => operations.extend(remove_spec_field(object, field)),
            Edit::Suspend if at(object, SUSPEND) == Some(&Value::Bool(true)) => {}
            Edit::Suspend => operations.push(add(SUSPEND, true.into())),
            edit => {
                if let Some((map, key, None)) = edit.entry() {
                    let path = [map, &[key]].concat();
                    operations.extend(at(object, &path).map(|_| remove(&path)));
                }
            }
        }
    }
    set_entries(&mut operations, object, ANNOTATIONS, edits);
    set_entries(&mut operations, object, LABELS, edits);
    let of_pod = |edit: &Edit| matches!(edit, Edit::PodLabel(..) | Edit::PodAnnotation(..));
    if edits.iter().any(of_pod) && !at(object, POD_METADATA).is_some_and(Value::is_object) {
        operations.push(add(POD_METADATA, Value::Object(Map::new())));
    }
    set_entries(&mut operations, object, POD_ANNOTATIONS, edits);
    set_entries(&mut operations, object, POD_LABELS, edits);
    Patch(operations)
}

/// The merge patch that makes the same changes of labels and annotations.
pub(crate) fn merge(edits: &[Edit]) -> Value {
    let mut merge = Value::Object(Map::new());
    for (path, key, value) in edits.iter().filter_map(Edit::entry) {
        let map = path.iter().fold(&mut merge, |map, name| &mut map[*name]);
        map[key] = value.into();
    }
    merge
}

/// Sets what `edits` set in the map at `path`; of several values of one key the last one.
fn set_entries(operations: &mut Vec<PatchOperation>, object: &Value, path: &[&str], edits: &[Edit]) {
    let existing = at(object, path).and_then(Value::as_object);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (map, key, value) in edits.iter().filter_map(Edit::entry) {
        if let Some(value) = value.filter(|_| map == path) {
            wanted.retain(|(earlier, _)| *earlier != key);
            wanted.push((key, value));
        }
    }
    let is_there =
        |(key, value): &(&str, &str)| existing.is_some_and(|map| map.get(*key).is_some_and(|own| own == value));
    let missing = wanted.into_iter().filter(|entry| !is_there(entry));
    if existing.is_some() {
        operations.extend(missing.map(|(key, value)| add(&[path, &[key]].concat(), value.into())));
        return;
    }
    let whole: Map<String, Value> = missing.map(|(key, value)| (key.to_owned(), value.into())).collect();
    if !whole.is_empty() {
        operations.push(add(path, Value::Object(whole)));
    }
}

/// A list that is missing (or not a list) is added whole.
fn append_finalizer(object: &Value, finalizer: &str) -> Option<PatchOperation> {
    if Metadata::of(object).has_finalizer(finalizer) {
        return None;
    }
    Some(match at(object, FINALIZERS) {
        Some(Value::Array(_)) => add(&[FINALIZERS, &["-"]].concat(), finalizer.into()),
        _ => add(FINALIZERS, vec![finalizer].into()),
    })
}

/// Removes each occurrence, the last one first, so that the indices of the others stay valid.
fn remove_finalizer(object: &Value, finalizer: &str) -> Vec<PatchOperation> {
    let all = at(object, FINALIZERS).and_then(Value::as_array);
    let indexed: Vec<_> = all.into_iter().flatten().enumerate().collect();
    let found = indexed.into_iter().rev().filter(|(_, value)| *value == finalizer);
    found
        .map(|(index, _)| remove(&[FINALIZERS, &[&index.to_string()]].concat()))
        .collect()
}

/// Removes the field `name` of the spec, and from the fields that each field manager owns: the API server notes them before it
/// calls webhooks.
fn remove_spec_field(object: &Value, name: &str) -> Vec<PatchOperation> {
    let spec: &[&str] = &["spec", name];
    if at(object, spec).is_none() {
        return Vec::new();
    }
    let owned = format!("f:{name}");
    let managers = at(object, MANAGED_FIELDS).and_then(Value::as_array);
    let entries = managers.into_iter().flatten().enumerate();
    let owning = entries.filter_map(|(index, entry)| {
        let fields = at(entry, &["fieldsV1", "f:spec"])?.as_object()?;
        // An empty map would stand for the spec as a whole.
        let name = fields
            .contains_key(&owned)
            .then_some(&*owned)
            .filter(|_| fields.len() > 1);
        let index = index.to_string();
        let path = [MANAGED_FIELDS, &[&index, "fieldsV1", "f:spec"], name.as_slice()].concat();
        fields.contains_key(&owned).then(|| remove(&path))
    });
    owning.chain([remove(spec)]).collect()
}

/// The value at `path`.
pub(crate) fn at<'v>(object: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(object, |value, name| value.get(name))
}

/// JSON patch's `add` also replaces, so it is right whether or not the field is there. Tokens are escaped.
pub(crate) fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value,
    })
}

pub(crate) fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::btree_map, prelude::*};
    use serde_json::json;

    fn label(key: &str, value: &str) -> Edit {
        Edit::Label(key.into(), value.into())
    }

    #[test]
    fn a_missing_map_is_added_whole_and_an_existing_one_by_key() {
        let edits = [label("example.com/a", "1"), label("b", "2")];
        for metadata in [json!({}), json!({"labels": null})] {
            let patch = patch(&json!({"metadata": metadata}), &edits);
            assert_eq!(
                serde_json::to_value(patch).unwrap(),
                json!([{"op": "add", "path": "/metadata/labels", "value": {"example.com/a": "1", "b": "2"}}])
            );
        }
        let patch = patch(&json!({"metadata": {"labels": {"b": "2", "x": "y"}}}), &edits);
        assert_eq!(
            serde_json::to_value(patch).unwrap(),
            json!([{"op": "add", "path": "/metadata/labels/example.com~1a", "value": "1"}])
        );
    }

    #[test]
    fn of_two_values_of_one_key_the_last_one_counts() {
        let edits = [label("a", "1"), label("a", "2")];
        for (own, expected) in [
            ("0", json!([{"op": "add", "path": "/metadata/labels/a", "value": "2"}])),
            ("2", json!([])),
        ] {
            let patch = patch(&json!({"metadata": {"labels": {"a": own}}}), &edits);
            assert_eq!(serde_json::to_value(patch).unwrap(), expected);
        }
    }

    #[test]
    fn a_finalizer_is_appended_and_a_ttl_removed() {
        let edits = [
            Edit::Finalizer("x/y".into()),
            Edit::RemoveSpecField("ttlSecondsAfterFinished"),
        ];
        for (metadata, path, value) in [
            (json!({}), "/metadata/finalizers", json!(["x/y"])),
            (json!({"finalizers": null}), "/metadata/finalizers", json!(["x/y"])),
            (json!({"finalizers": ["a"]}), "/metadata/finalizers/-", json!("x/y")),
        ] {
            let object = json!({"metadata": metadata, "spec": {"ttlSecondsAfterFinished": 5}});
            let patch = serde_json::to_value(patch(&object, &edits)).unwrap();
            let expected = json!([
                {"op": "add", "path": path, "value": value}, {"op": "remove", "path": "/spec/ttlSecondsAfterFinished"},
            ]);
            assert_eq!(patch, expected);
        }
        let done = json!({"metadata": {"finalizers": ["x/y"]}, "spec": {}});
        assert!(patch(&done, &edits).0.is_empty());
    }

    #[test]
    fn no_field_manager_owns_a_removed_field_of_the_spec() {
        let mut object = json!({
            "metadata": {"managedFields": [
                {"manager": "a", "fieldsV1": {"f:spec": {"f:prompt": {}, "f:ttl": {}}}},
                {"manager": "b", "fieldsV1": {"f:metadata": {}, "f:spec": {"f:ttl": {}}}},
                {"manager": "c", "fieldsV1": {"f:status": {}}},
                {"manager": "d", "fieldsV1": {"f:spec": {"f:prompt": {}}}},
                7,
            ]},
            "spec": {"prompt": "p", "ttl": 5},
        });
        let patch = patch(&object, &[Edit::RemoveSpecField("ttl")]);
        json_patch::patch(&mut object, &patch).unwrap();
        let expected = json!({
            "metadata": {"managedFields": [
                {"manager": "a", "fieldsV1": {"f:spec": {"f:prompt": {}}}},
                {"manager": "b", "fieldsV1": {"f:metadata": {}}},
                {"manager": "c", "fieldsV1": {"f:status": {}}},
                {"manager": "d", "fieldsV1": {"f:spec": {"f:prompt": {}}}},
                7,
            ]},
            "spec": {"prompt": "p"},
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn an_edit_that_changes_nothing_is_not_patched() {
        let object = json!({"metadata": {"labels": {"b": "2"}}, "spec": {"suspend": true}});
        assert!(patch(&object, &[label("b", "2"), Edit::Suspend]).0.is_empty());
    }

    /// The same edits, made directly: what the patch has to come to.
    fn predicted(object: &Value, edits: &[Edit]) -> Value {
        let mut object = object.clone();
        for edit in edits {
            let (map, key, value) = match edit {
                Edit::Label(key, value) => ("labels", key, value),
                Edit::Annotation(key, value) => ("annotations", key, value),
                Edit::Suspend => {
                    object["spec"]["suspend"] = json!(true);
                    continue;
                }
                Edit::RemoveLabel(key) | Edit::RemoveAnnotation(key) => {
                    let map = if matches!(edit, Edit::RemoveLabel(_)) {
                        "labels"
                    } else {
                        "annotations"
                    };
                    if let Some(map) = object["metadata"][map].as_object_mut() {
                        map.remove(key);
                    }
                    continue;
                }
                Edit::PodLabel(..)
                | Edit::PodAnnotation(..)
                | Edit::Finalizer(_)
                | Edit::RemoveFinalizer(_)
                | Edit::RemoveSpecField(_) => continue,
            };
            let map = &mut object["metadata"][map];
            if !map.is_object() {
                *map = json!({});
            }
            map[key] = json!(value);
        }
        object
    }

    fn maps() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            Just(json!([])),
            btree_map("[a-z~/]{1,3}", "[a-z]{0,2}", 0..4).prop_map(|map| json!(map)),
        ]
    }

    proptest! {
        #[test]
        fn the_patch_gives_exactly_the_predicted_object(
            labels in maps(), annotations in maps(), suspend in any::<Option<bool>>(),
            set in btree_map("[a-z~/]{1,3}", "[a-z]{0,2}", 0..4), note in "\\PC{0,9}", queue in any::<bool>(),
            gone in "G[~/]{0,2}",
        ) {
            let object = json!({
                "metadata": {"labels": labels, "annotations": annotations, "other": "kept"},
                "spec": {"suspend": suspend, "template": {}},
            });
            let mut edits: Vec<_> = set.into_iter().map(|(key, value)| Edit::Label(key, value)).collect();
            edits.push(Edit::Annotation("note".into(), note));
            edits.extend(queue.then_some(Edit::Suspend));
            edits.extend([Edit::RemoveLabel(gone.clone()), Edit::RemoveAnnotation(gone.clone())]);
            let mut object = object;
            for map in ["labels", "annotations"] {
                if let Some(map) = object["metadata"][map].as_object_mut() {
                    map.insert(gone.clone(), json!("old"));
                }
            }
            let mut patched = object.clone();
            json_patch::patch(&mut patched, &patch(&object, &edits)).unwrap();
            prop_assert_eq!(patched, predicted(&object, &edits));
        }
    }
}
