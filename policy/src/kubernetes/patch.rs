//! Edits of an object, and the smallest JSON patch that makes them.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value};
use taskgate_api::metadata::Metadata;

/// Which of the two maps of an object's metadata a key is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeyKind {
    /// `metadata.labels`
    Label,
    /// `metadata.annotations`
    Annotation,
}

impl KeyKind {
    /// The word in annotations and previews.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
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
    /// Remove `spec.ttlSecondsAfterFinished`. It is never set to null: Kelos writes the spec back through Go types.
    RemoveTtl,
}

impl Edit {
    /// Sets the label or annotation `key`.
    pub(crate) fn set(kind: KeyKind, key: &str, value: &str) -> Self {
        let (key, value) = (key.to_owned(), value.to_owned());
        match kind {
            KeyKind::Label => Self::Label(key, value),
            KeyKind::Annotation => Self::Annotation(key, value),
        }
    }

    /// The label's or annotation's key.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Label(key, _)
            | Self::Annotation(key, _)
            | Self::RemoveLabel(key)
            | Self::RemoveAnnotation(key)
            | Self::PodLabel(key, _)
            | Self::PodAnnotation(key, _) => Some(key),
            Self::Suspend | Self::Finalizer(_) | Self::RemoveFinalizer(_) | Self::RemoveTtl => None,
        }
    }
}

/// The patch that makes `edits` to `object`; edits that would change nothing are left out.
///
/// A map that is missing (or null) is added whole, with one operation; an existing map gets one operation per key, so
/// that what another webhook put there in the meantime survives.
pub(crate) fn patch(object: &Value, edits: &[Edit]) -> Patch {
    let mut operations = Vec::new();
    let mut labels = Vec::new();
    let mut annotations = Vec::new();
    let mut pod_labels = Vec::new();
    let mut pod_annotations = Vec::new();
    for edit in edits {
        match edit {
            Edit::Label(key, value) => labels.push((key, value)),
            Edit::Annotation(key, value) => annotations.push((key, value)),
            Edit::RemoveLabel(key) => operations.extend(remove_entry(object, "labels", key)),
            Edit::RemoveAnnotation(key) => operations.extend(remove_entry(object, "annotations", key)),
            Edit::PodLabel(key, value) => pod_labels.push((key, value)),
            Edit::PodAnnotation(key, value) => pod_annotations.push((key, value)),
            Edit::Finalizer(finalizer) => operations.extend(append_finalizer(object, finalizer)),
            Edit::RemoveFinalizer(finalizer) => operations.extend(remove_finalizer(object, finalizer)),
            Edit::RemoveTtl => {
                if object.pointer("/spec/ttlSecondsAfterFinished").is_some() {
                    operations.push(PatchOperation::Remove(RemoveOperation {
                        path: PointerBuf::from_tokens(["spec", "ttlSecondsAfterFinished"]),
                    }));
                }
            }
            Edit::Suspend => {
                if object.pointer("/spec/suspend") != Some(&Value::Bool(true)) {
                    operations.push(add(&["spec", "suspend"], Value::Bool(true)));
                }
            }
        }
    }
    set_entries(&mut operations, object, &["metadata", "annotations"], &annotations);
    set_entries(&mut operations, object, &["metadata", "labels"], &labels);
    if pod_labels.len() + pod_annotations.len() > 0 {
        if !object.pointer("/spec/template/metadata").is_some_and(Value::is_object) {
            operations.push(add(&["spec", "template", "metadata"], Value::Object(Map::new())));
        }
        let path = |map| ["spec", "template", "metadata", map];
        set_entries(&mut operations, object, &path("annotations"), &pod_annotations);
        set_entries(&mut operations, object, &path("labels"), &pod_labels);
    }
    Patch(operations)
}

/// The merge patch that makes the same changes of labels and annotations.
pub(crate) fn merge(edits: &[Edit]) -> Value {
    let mut merge = Value::Object(Map::new());
    for edit in edits {
        let (path, key, value) = match edit {
            Edit::Label(key, value) => ("/metadata/labels", key, value.as_str().into()),
            Edit::Annotation(key, value) => ("/metadata/annotations", key, value.as_str().into()),
            Edit::RemoveLabel(key) => ("/metadata/labels", key, Value::Null),
            Edit::RemoveAnnotation(key) => ("/metadata/annotations", key, Value::Null),
            Edit::PodLabel(key, value) => ("/spec/template/metadata/labels", key, value.as_str().into()),
            Edit::PodAnnotation(key, value) => ("/spec/template/metadata/annotations", key, value.as_str().into()),
            Edit::Suspend | Edit::Finalizer(_) | Edit::RemoveFinalizer(_) | Edit::RemoveTtl => continue,
        };
        let map = path.split('/').skip(1).fold(&mut merge, |map, name| &mut map[name]);
        map[key.as_str()] = value;
    }
    merge
}

fn set_entries(operations: &mut Vec<PatchOperation>, object: &Value, path: &[&str], entries: &[(&String, &String)]) {
    let existing = path.iter().try_fold(object, |value, name| value.get(name));
    let existing = existing.and_then(Value::as_object);
    let missing = entries
        .iter()
        .filter(|(key, value)| existing.and_then(|map| map.get(*key)?.as_str()) != Some(value.as_str()));
    if existing.is_some() {
        operations.extend(missing.map(|(key, value)| {
            let path: Vec<_> = path.iter().copied().chain([key.as_str()]).collect();
            add(&path, Value::String((*value).clone()))
        }));
        return;
    }
    let whole: Map<String, Value> = missing
        .map(|(key, value)| ((*key).clone(), Value::String((*value).clone())))
        .collect();
    if !whole.is_empty() {
        operations.push(add(path, Value::Object(whole)));
    }
}

fn remove_entry(object: &Value, map: &str, key: &str) -> Option<PatchOperation> {
    object.get("metadata")?.get(map)?.get(key)?;
    Some(PatchOperation::Remove(RemoveOperation {
        path: PointerBuf::from_tokens(["metadata", map, key]),
    }))
}

/// A list that is missing (or not a list) is added whole.
fn append_finalizer(object: &Value, finalizer: &str) -> Option<PatchOperation> {
    if Metadata::of(object).finalizers().any(|existing| existing == finalizer) {
        return None;
    }
    let value = Value::String(finalizer.to_owned());
    Some(match object.pointer("/metadata/finalizers") {
        Some(Value::Array(_)) => add(&["metadata", "finalizers", "-"], value),
        _ => add(&["metadata", "finalizers"], Value::Array(vec![value])),
    })
}

/// Removes each occurrence, the last one first, so that the indices of the others stay valid.
fn remove_finalizer(object: &Value, finalizer: &str) -> Vec<PatchOperation> {
    let all = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let indexed = all.into_iter().flatten().enumerate();
    let found = indexed.filter(|(_, value)| value.as_str() == Some(finalizer));
    let mut removals: Vec<_> = found
        .map(|(index, _)| {
            PatchOperation::Remove(RemoveOperation {
                path: PointerBuf::from_tokens(["metadata", "finalizers", &index.to_string()]),
            })
        })
        .collect();
    removals.reverse();
    removals
}

/// JSON patch's `add` also replaces, so it is right whether or not the field is there. Tokens are escaped.
fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value,
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
    fn a_finalizer_is_appended_and_a_ttl_removed() {
        let edits = [Edit::Finalizer("x/y".into()), Edit::RemoveTtl];
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
                | Edit::RemoveTtl => continue,
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
