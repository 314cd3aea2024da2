//! Reserved keys: the labels, annotations and the finalizer that only taskgate sets are removed from objects that another user
//! creates.
//!
//! A decision is made about the object without them ([`without_reserved_keys`]). What it sets is then compared with what came along:
//! equal values stay (the object has passed here before), everything else is removed. So a second pass over the output of
//! the first sees the same input and changes nothing.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Map, Value};
use taskgate_api::{job::Job, keys, metadata::Metadata, moved_field::MOVED_FIELDS};

use crate::{
    decision::{Decision, Detail, Effect, Finding, Kind, Operation, Phase, Request, assemble},
    kubernetes::{Edit, KeyKind, clip},
};

/// What admission notes of labels and annotations that policies did not set. It builds on what an earlier pass noted, when other
/// policies may have applied: it stays wherever a policy sets labels or annotations at all.
const NOTES: [&str; 2] = [keys::SKIPPED, keys::PENDING];

/// Whether `object`, which is to be created, carries anything that is taskgate's own.
pub fn has_reserved_keys(kind: Kind, object: &Value) -> bool {
    let Some(kept) = KeptKeys::of(kind, object) else {
        return false;
    };
    let own_key = |kind| entries(object, kind).is_some_and(|map| map.keys().any(|key| kept.is_own(key)));
    KeyKind::ALL.into_iter().any(own_key) || Metadata::of(object).has_finalizer(keys::ACCOUNTING)
}

/// `object`, which is to be created, without taskgate's reserved keys. What admission moved to annotations is back in the spec.
pub fn without_reserved_keys(kind: Kind, object: &Value) -> Cow<'_, Value> {
    let Some(kept) = KeptKeys::of(kind, object).filter(|_| has_reserved_keys(kind, object)) else {
        return Cow::Borrowed(object);
    };
    let mut stripped = object.clone();
    if kind == Kind::Task {
        restore_moved_fields(&mut stripped);
    }
    let Some(metadata) = stripped.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Cow::Owned(stripped);
    };
    for kind in KeyKind::ALL {
        if let Some(entries) = metadata.get_mut(kind.field()).and_then(Value::as_object_mut) {
            entries.retain(|key, _| !kept.is_own(key) || NOTES.contains(&key.as_str()));
        }
    }
    if let Some(Value::Array(finalizers)) = metadata.get_mut("finalizers") {
        finalizers.retain(|finalizer| finalizer != keys::ACCOUNTING);
    }
    Cow::Owned(stripped)
}

/// Restores in the spec what admission moved to annotations. The spec wins over an annotation of the creator.
fn restore_moved_fields(task: &mut Value) {
    for field in MOVED_FIELDS {
        let kept = field.kept(task);
        if let (Some(value), Some(Value::Object(spec))) = (kept, task.get_mut("spec")) {
            spec.entry(field.name).or_insert(value);
        }
    }
}

/// What is removed of the object as it was sent, given everything else that will be changed, and whether a policy of its
/// namespace sets labels or annotations.
pub(crate) fn findings(request: &Request<'_>, planned: &[Finding<'_>], labels: bool) -> Vec<Finding<'static>> {
    let sent = request.sent;
    let applies = request.phase == Phase::Mutating && request.operation == Operation::Create;
    let Some(kept) = KeptKeys::of(request.kind, sent).filter(|_| applies && !request.own) else {
        return Vec::new();
    };
    let planned: Vec<&Edit> = planned.iter().flat_map(Finding::planned).collect();
    let (mut removed, mut edits) = (BTreeSet::new(), Vec::new());
    for kind in KeyKind::ALL {
        let own = entries(sent, kind).into_iter().flatten();
        for (key, value) in own.filter(|(key, _)| kept.is_own(key)) {
            // Another endpoint removes those, in every installation.
            if keys::CANCELLATION.contains(&key.as_str()) || (labels && NOTES.contains(&key.as_str())) {
                continue;
            }
            let ours = planned.iter().rev().find_map(|edit| edit.value(kind, key));
            if ours.is_some() && ours == value.as_str() {
                continue;
            }
            if ours.is_none() {
                edits.push(Edit::remove(kind, key));
            }
            removed.insert(key.as_str());
        }
    }
    let wants_finalizer = planned.iter().any(|edit| matches!(edit, Edit::Finalizer(_)));
    if Metadata::of(sent).has_finalizer(keys::ACCOUNTING) && !wants_finalizer {
        edits.push(Edit::RemoveFinalizer(keys::ACCOUNTING.to_owned()));
        removed.insert(keys::ACCOUNTING);
    }
    if removed.is_empty() {
        return Vec::new();
    }
    let keys = removed.into_iter().map(ToOwned::to_owned).collect();
    let detail = Detail::OwnKeysRemoved(keys);
    vec![
        Finding::own(detail.clone(), Effect::Change(edits)),
        Finding::own(detail, Effect::Warn),
    ]
}

/// Decides about an update of a Task by another user than taskgate. The API server's match conditions send no other update here.
///
/// What admission moved out of the spec is moved again, so that the same file can be applied twice: otherwise the API server would
/// take it for a change of the spec, which is immutable. With another value it is one: the API server rejects it, and the
/// warning names the value that stands. Keys of taskgate that the update leaves out stay, as the API server does with the
/// UID: a file that replaces the Task has none of them.
pub fn review_task_update(old: &Value, new: &Value) -> Decision {
    if Metadata::of(new).is_terminating() {
        return Decision::default();
    }
    let mut findings = Vec::new();
    let (mut again, mut edits) = (Vec::new(), Vec::new());
    for field in MOVED_FIELDS {
        let sent_again =
            |kept: &&str| !kept.is_empty() && has_spec_field(new, field.name) && !has_spec_field(old, field.name);
        let Some(kept) = Metadata::of(old).annotation(field.annotation).filter(sent_again) else {
            continue;
        };
        if field.in_spec(new).as_deref() == Some(kept) {
            again.push(field.name);
            edits.push(Edit::RemoveSpecField(field.name));
        } else {
            let detail = Detail::MovedFieldChanged {
                field: field.name,
                kept: clip(kept, 64),
                annotation: field.annotation,
            };
            findings.push(Finding::own(detail, Effect::Warn));
        }
    }
    if !again.is_empty() {
        findings.push(Finding::own(Detail::MovedAgain(again), Effect::Change(edits)));
    }
    findings.extend(left_out(old, new));
    assemble(new, Phase::Mutating, findings)
}

/// Restores the keys of taskgate that `old` has and `new` does not.
fn left_out(old: &Value, new: &Value) -> Vec<Finding<'static>> {
    let (before, now) = (Metadata::of(old), Metadata::of(new));
    let labels = keys::PROTECTED_LABELS.into_iter().map(|key| (KeyKind::Label, key));
    let annotations = keys::PROTECTED_ANNOTATIONS
        .into_iter()
        .map(|key| (KeyKind::Annotation, key));
    let (keys, edits): (Vec<_>, Vec<_>) = labels
        .chain(annotations)
        .filter(|(kind, key)| kind.value(now, key).is_none())
        .filter_map(|(kind, key)| Some((key, Edit::set(kind, key, kind.value(before, key)?))))
        .unzip();
    if keys.is_empty() {
        return Vec::new();
    }
    let detail = Detail::OwnKeysRestored(keys);
    vec![
        Finding::own(detail.clone(), Effect::Change(edits)),
        Finding::own(detail, Effect::Warn),
    ]
}

fn has_spec_field(task: &Value, name: &str) -> bool {
    task.get("spec")
        .and_then(|spec| spec.get(name))
        .is_some_and(|value| !value.is_null())
}

/// The denial of an update of a Task or Job, asked for by another user than taskgate, that changes what only taskgate sets.
/// The annotations of a cancellation have [rules of their own](crate::review_cancellation).
pub fn reserved_keys_changed(kind: Kind, old: &Value, new: &Value) -> Option<Decision> {
    let (before, now) = (Metadata::of(old), Metadata::of(new));
    let cancellation = keys::CANCELLATION_OWN.into_iter().filter(|_| kind == Kind::Job);
    let annotation = keys::PROTECTED_ANNOTATIONS
        .into_iter()
        .chain(cancellation)
        .find(|key| before.annotation(key) != now.annotation(key));
    let label = || {
        keys::PROTECTED_LABELS
            .into_iter()
            .find(|key| before.label(key) != now.label(key))
    };
    let key = annotation.or_else(label)?;
    let finding = Finding::own(Detail::OwnKeyChanged(key), Effect::Deny);
    Some(assemble(new, Phase::Validating, vec![finding]))
}

/// The reserved keys that stay on an object that another user creates.
struct KeptKeys {
    stopped: bool,
}

impl KeptKeys {
    /// `None` for kinds without reserved keys.
    fn of(kind: Kind, object: &Value) -> Option<Self> {
        match kind {
            Kind::Task => Some(Self { stopped: false }),
            // A Job that an earlier pass stopped and suspended stays so: only taskgate ends it.
            Kind::Job => Some(Self {
                stopped: Job::of(object).is_stopped() && Job::of(object).is_suspended(),
            }),
            _ => None,
        }
    }

    fn is_own(&self, key: &str) -> bool {
        let kept = keys::SETTABLE_ON_TASKS.contains(&key) || (self.stopped && key == keys::STOPPED);
        key.starts_with(keys::PREFIX) && !kept
    }
}

fn entries(object: &Value, kind: KeyKind) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get(kind.field())?.as_object()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored() -> Value {
        json!({
            "metadata": {
                "labels": {keys::WORK_ITEM: "nightly-1", "team": "a"},
                "annotations": {keys::TTL: "3600", keys::ITEM: "nightly", "note": "x"},
                "finalizers": [keys::ACCOUNTING],
            },
            "spec": {"prompt": "a"},
        })
    }

    /// What is stored after the update, and its warnings.
    fn updated(mut new: Value) -> (Value, Vec<String>) {
        let decision = review_task_update(&stored(), &new);
        json_patch::patch(&mut new, &decision.patch).unwrap();
        let again = review_task_update(&stored(), &new);
        assert!(again.patch.0.is_empty(), "a second pass: {:?}", again.patch);
        (new, decision.warnings)
    }

    #[test]
    fn a_file_that_is_applied_again_changes_nothing() {
        let mut new = stored();
        new["spec"]["ttlSecondsAfterFinished"] = json!(3600);
        assert_eq!(updated(new), (stored(), Vec::new()));
    }

    #[test]
    fn a_file_that_replaces_the_task_keeps_the_keys_of_taskgate() {
        let new = json!({
            "metadata": {"annotations": {keys::ITEM: "nightly"}},
            "spec": {"prompt": "a", "ttlSecondsAfterFinished": 3600},
        });
        let (new, warnings) = updated(new);
        let expected = json!({
            "metadata": {
                "labels": {keys::WORK_ITEM: "nightly-1"},
                "annotations": {keys::TTL: "3600", keys::ITEM: "nightly"},
            },
            "spec": {"prompt": "a"},
        });
        assert_eq!(new, expected);
        assert_eq!(
            warnings,
            [
                "taskgate: only taskgate removes these, kept: taskgate.dev/work-item, taskgate.dev/ttl-seconds-after-finished"
            ]
        );
    }

    #[test]
    fn another_value_is_left_for_the_api_server_to_reject() {
        for value in [json!(60), json!("3600"), json!(-1)] {
            let mut new = stored();
            new["spec"]["ttlSecondsAfterFinished"] = value;
            let (after, warnings) = updated(new.clone());
            assert_eq!(after, new);
            assert!(
                matches!(&warnings[..], [warning] if warning.contains("spec.ttlSecondsAfterFinished is 3600")),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn a_task_that_is_being_deleted_passes() {
        let mut dying = json!({"metadata": {"deletionTimestamp": "2026-11-21T00:00:00Z"}, "spec": {}});
        assert_eq!(review_task_update(&stored(), &dying), Decision::default());
        dying["spec"]["ttlSecondsAfterFinished"] = json!(3600);
        assert_eq!(review_task_update(&stored(), &dying), Decision::default());
    }

    #[test]
    fn only_taskgate_changes_the_annotations_of_moved_fields() {
        for field in MOVED_FIELDS {
            assert!(keys::PROTECTED_ANNOTATIONS.contains(&field.annotation), "{field:?}");
        }
    }
}
