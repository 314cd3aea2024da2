//! The review of a write to a TaskSpawner or to the status of a Task: Kelos' own writes get back the fields that they dropped, and
//! users' writes of the spec keep the copy in the annotation equal.

use json_patch::{Patch, PatchOperation, TestOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value, json};
use taskgate_api::{
    kelos_fields::{KelosField, KelosFields, MAX_FAILED_ITEMS, SpawnerFields, copy_of},
    keys,
    metadata::Metadata,
};

use crate::{
    decision::{Decision, Detail, Effect, Finding, Phase, assemble},
    kubernetes::{Edit, MAX_MESSAGE, MAX_USER, add, at, clip, patch, remove},
    matching::Policy,
};

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsWriter<'a> {
    /// Kelos: it does not know the fields, so that it never means to remove one.
    Kelos,
    /// taskgate itself.
    Taskgate,
    /// Another user, by name.
    User(&'a str),
}

/// A create or update of an object that has such fields.
#[derive(Clone, Copy, Debug)]
pub struct FieldsReview<'a> {
    /// Its kind: `TaskSpawner` or `Task`.
    pub kind: &'a str,
    /// Whether the status is written; else everything but the status.
    pub status: bool,
    /// Who writes.
    pub writer: FieldsWriter<'a>,
    /// The fields that are taskgate's in the cluster.
    pub fields: &'a KelosFields,
    /// The object as it is to be stored.
    pub object: &'a Value,
    /// The object as it is stored; null on CREATE.
    pub old: &'a Value,
}

/// Decides about the write. Only a user's own write of policy fields that cannot be applied is denied.
pub fn review_kelos_fields(review: &FieldsReview<'_>) -> Decision {
    match review.writer {
        FieldsWriter::Taskgate => Decision::default(),
        FieldsWriter::Kelos => review.restore(),
        FieldsWriter::User(user) if review.status => review.record_resets(user),
        FieldsWriter::User(_) => review.refuse().unwrap_or_else(|| review.copy()),
    }
}

impl FieldsReview<'_> {
    fn has(&self, field: KelosField) -> bool {
        field.kind() == self.kind && self.fields.contains(&field)
    }

    /// Puts back what Kelos dropped. What it has of a field stays.
    fn restore(&self) -> Decision {
        let mut changes = Changes::of(self.object);
        let mut restored = Vec::new();
        let written = |field: &&KelosField| field.kind() == self.kind && field.is_status() == self.status;
        for field in self.fields.iter().filter(written) {
            let (before, now) = (field.of(self.old), field.of(self.object));
            let change = match field {
                // It leaves the spec, which is immutable: another rule moves it.
                KelosField::TaskQueueName => continue,
                // Only admission and taskgate set it.
                KelosField::FailedItemResets if before != now => before.cloned(),
                _ if now.is_none() && before.is_some() => before.cloned(),
                _ => continue,
            };
            changes.set(field.path(), change);
            restored.push(field.dotted());
        }
        changes.decision("restored", &restored)
    }

    /// Refuses a write that sets policy fields which cannot be applied, as admission refuses such a policy. One that leaves the fields
    /// as they are passes.
    fn refuse(&self) -> Option<Decision> {
        let metadata = Metadata::of(self.object);
        let mut fields = SpawnerFields::FIELDS.into_iter().filter(|field| self.has(*field));
        if metadata.is_terminating() || !fields.any(|field| field.of(self.old) != field.of(self.object)) {
            return None;
        }
        // What cannot be read, the schema rejects after this, with its own message.
        let fields = Ok(SpawnerFields::read(self.object, self.fields).ok()?);
        let (namespace, name) = (metadata.namespace(), metadata.name());
        let compiled = Policy::of_spawner(namespace.unwrap_or_default(), name.unwrap_or_default(), &fields)?;
        let finding = Finding::own(Detail::PolicyInvalid(compiled.err()?), Effect::Reject);
        Some(assemble(self.object, Phase::Mutating, vec![finding]))
    }

    /// Keeps the copy of the spec's fields equal to the fields. One that the user removes is removed from the copy. One that neither
    /// the old nor the new object has stays in the copy: Kelos dropped it unseen, or the version of the request has no such field.
    fn copy(&self) -> Decision {
        let known = Metadata::of(self.object).annotation(keys::KELOS_FIELDS);
        let before = known.map(|_| copy_of(self.old)).unwrap_or_default();
        let (mut copy, mut removed) = (Map::new(), Vec::new());
        for field in SpawnerFields::FIELDS.into_iter().filter(|field| self.has(*field)) {
            let name: &str = field.into();
            match (field.of(self.old), field.of(self.object)) {
                (_, Some(value)) => drop(copy.insert(name.to_owned(), value.clone())),
                (Some(_), None) => removed.push(field.dotted()),
                (None, None) => copy.extend(before.get(name).map(|value| (name.to_owned(), value.clone()))),
            }
        }
        let mut decision = Decision {
            patch: patch(self.object, &[copied(&copy)]),
            ..Decision::default()
        };
        if !removed.is_empty() {
            let message = format!(
                "taskgate: this write removes {} from the TaskSpawner",
                removed.join(", ")
            );
            decision.warnings.push(clip(&message, MAX_MESSAGE));
        }
        decision
    }

    /// Records which entries of `status.failedItems` the user removes: the controller resets those items. Nothing is reset when the
    /// whole map goes: a client that does not know the field drops it.
    fn record_resets(&self, user: &str) -> Decision {
        if !self.has(KelosField::FailedItemResets) {
            return Decision::default();
        }
        let entries = |field: KelosField, object| field.of(object).and_then(Value::as_object);
        let mut resets = entries(KelosField::FailedItemResets, self.old)
            .cloned()
            .unwrap_or_default();
        let before = entries(KelosField::FailedItems, self.old);
        if let (Some(before), Some(now)) = (before, entries(KelosField::FailedItems, self.object)) {
            for id in before.keys().filter(|id| !now.contains_key(*id)) {
                if resets.len() < MAX_FAILED_ITEMS {
                    resets.insert(id.clone(), json!({"by": clip(user, MAX_USER)}));
                }
            }
        }
        let mut changes = Changes::of(self.object);
        let wanted = (!resets.is_empty()).then_some(Value::Object(resets));
        if KelosField::FailedItemResets.of(self.object) != wanted.as_ref() {
            changes.set(KelosField::FailedItemResets.path(), wanted);
        }
        changes.decision("resets recorded", &[])
    }
}

/// The edit that writes the copy.
fn copied(copy: &Map<String, Value>) -> Edit {
    if copy.is_empty() {
        return Edit::RemoveAnnotation(keys::KELOS_FIELDS.to_owned());
    }
    let text = Value::Object(copy.clone()).to_string();
    Edit::Annotation(keys::KELOS_FIELDS.to_owned(), text)
}

/// Whether the fields and the copy of a stored TaskSpawner differ, so that [`sync`] changes something. `fields` are those that all
/// versions of the schema have.
pub fn needs_sync(spawner: &Value, fields: &KelosFields) -> bool {
    !sync(spawner, fields).0.is_empty()
}

/// The patch of a stored TaskSpawner after a write that admission did not see: a field that only the copy has is restored, and the copy
/// takes over any other difference. It applies to exactly this version of the object.
pub fn sync(spawner: &Value, fields: &KelosFields) -> Patch {
    let mut copy = copy_of(spawner);
    let mut changes = Changes::of(spawner);
    for field in SpawnerFields::FIELDS.into_iter().filter(|field| fields.contains(field)) {
        let name: &str = field.into();
        match (field.of(spawner), copy.get(name).filter(|value| !value.is_null())) {
            (None, Some(copied)) => changes.set(field.path(), Some(copied.clone())),
            (Some(value), copied) if copied != Some(value) => {
                copy.insert(name.to_owned(), value.clone());
            }
            _ => {}
        }
    }
    let known = copy_of(spawner);
    if copy != known {
        changes.operations.extend(patch(spawner, &[copied(&copy)]).0);
    }
    if changes.operations.is_empty() {
        return Patch(Vec::new());
    }
    let path = ["metadata", "resourceVersion"];
    let unchanged = PatchOperation::Test(TestOperation {
        path: PointerBuf::from_tokens(path),
        value: at(spawner, &path).cloned().unwrap_or_default(),
    });
    Patch([unchanged].into_iter().chain(changes.operations).collect())
}

/// The smallest patch of an object, operation by operation.
struct Changes<'a> {
    object: &'a Value,
    /// The parents that an earlier operation adds.
    added: Vec<&'static [&'static str]>,
    operations: Vec<PatchOperation>,
}

impl<'a> Changes<'a> {
    fn of(object: &'a Value) -> Self {
        Self {
            object,
            added: Vec::new(),
            operations: Vec::new(),
        }
    }

    /// Sets the field at `path`, with the objects around it that are missing; `None` removes it.
    fn set(&mut self, path: &'static [&'static str], value: Option<Value>) {
        let Some(value) = value else {
            self.operations.extend(at(self.object, path).map(|_| remove(path)));
            return;
        };
        for depth in 1..path.len() {
            let (parent, _) = path.split_at(depth);
            let exists = at(self.object, parent).is_some_and(Value::is_object) || self.added.contains(&parent);
            if !exists {
                self.added.push(parent);
                self.operations.push(add(parent, json!({})));
            }
        }
        self.operations.push(add(path, value));
    }

    fn decision(self, what: &str, fields: &[String]) -> Decision {
        let mut decision = Decision {
            patch: Patch(self.operations),
            ..Decision::default()
        };
        if !decision.patch.0.is_empty() {
            let text = format!("{what} {}", fields.join(","));
            decision
                .audit
                .insert("kelos-fields", clip(text.trim_end(), MAX_MESSAGE));
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: &str = r#"{"failurePolicy":{"maxRetriesPerItem":3}}"#;

    fn spawner(spec: &Value, copy: Option<&str>) -> Value {
        let annotations = copy.map(|copy| json!({keys::KELOS_FIELDS: copy}));
        let mut object =
            json!({"metadata": {"name": "fixer", "resourceVersion": "7"}, "spec": {"taskTemplate": {"type": "codex"}}});
        json_patch::merge(
            &mut object,
            &json!({"spec": spec, "metadata": {"annotations": annotations}}),
        );
        object
    }

    fn reviewed(writer: FieldsWriter<'_>, status: bool, old: &Value, object: &Value) -> (Value, Decision) {
        let review = |object: &Value| {
            let fields = KelosField::all();
            review_kelos_fields(&FieldsReview {
                kind: "TaskSpawner",
                status,
                writer,
                fields: &fields,
                object,
                old,
            })
        };
        let decision = review(object);
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &decision.patch).unwrap();
        assert!(review(&patched).patch.0.is_empty(), "a second pass changes nothing");
        (patched, decision)
    }

    const ANN: FieldsWriter<'_> = FieldsWriter::User("ann");

    #[test]
    fn a_user_cannot_set_fields_that_cannot_be_applied_and_kelos_is_never_denied() {
        let wrong = spawner(&json!({"failurePolicy": {"itemKey": "{{ nothing }}"}}), None);
        let fields = KelosField::all();
        let denied = |writer, old: &Value, object: &Value| {
            let review = FieldsReview {
                kind: "TaskSpawner",
                status: false,
                writer,
                fields: &fields,
                object,
                old,
            };
            review_kelos_fields(&review).denial.map(|denial| denial.message)
        };
        let message = denied(ANN, &Value::Null, &wrong).unwrap();
        assert!(
            message.starts_with("taskgate: spec.failurePolicy.itemKey: "),
            "{message}"
        );
        assert_eq!(denied(FieldsWriter::Kelos, &Value::Null, &wrong), None);
        // A write of another field, and one that repairs it.
        assert_eq!(denied(ANN, &wrong, &wrong), None);
        assert_eq!(denied(ANN, &wrong, &spawner(&json!({}), None)), None);
    }

    #[test]
    fn kelos_gets_back_what_it_dropped_and_nothing_else() {
        let policy = json!({"failurePolicy": {"maxRetriesPerItem": 3}, "taskTemplate": {"queueName": "q"}});
        let old = spawner(&policy, Some(COPY));
        let dropped = spawner(&json!({"suspend": true}), Some(COPY));
        let (stored, decision) = reviewed(FieldsWriter::Kelos, false, &old, &dropped);
        let mut wanted = old.clone();
        wanted["spec"]["suspend"] = json!(true);
        assert_eq!(stored, wanted);
        assert_eq!(
            decision.audit["kelos-fields"],
            "restored spec.failurePolicy,spec.taskTemplate.queueName"
        );
        let (stored, _) = reviewed(
            FieldsWriter::Kelos,
            false,
            &old,
            &spawner(&json!({"failurePolicy": {"maxRetriesPerItem": 5}}), None),
        );
        assert_eq!(
            stored["spec"]["failurePolicy"]["maxRetriesPerItem"], 5,
            "what it has stays"
        );
    }

    #[test]
    fn the_status_that_kelos_writes_keeps_the_items() {
        let items = json!({"42": {"consecutiveFailures": 3}});
        let mut old = spawner(&json!({}), None);
        old["status"] = json!({"phase": "Running", "failedItems": items, "failedItemResets": {"7": {"by": "bob"}}});
        for status in [json!({"phase": "Running", "totalDiscovered": 3}), Value::Null] {
            let mut written = spawner(&json!({}), None);
            written["status"] = status;
            let (stored, _) = reviewed(FieldsWriter::Kelos, true, &old, &written);
            assert_eq!(
                (
                    &stored["status"]["failedItems"],
                    &stored["status"]["failedItemResets"]["7"]["by"]
                ),
                (&items, &json!("bob"))
            );
        }
        let mut forged = old.clone();
        forged["status"]["failedItemResets"]["9"] = json!({"by": "eve"});
        assert_eq!(
            reviewed(FieldsWriter::Kelos, true, &old, &forged).0,
            old,
            "an imitator requests no reset"
        );
    }

    #[test]
    fn a_user_who_removes_a_field_removes_the_copy() {
        let with = spawner(&json!({"failurePolicy": {"maxRetriesPerItem": 3}}), None);
        let (created, _) = reviewed(ANN, false, &Value::Null, &with);
        assert_eq!(created["metadata"]["annotations"][keys::KELOS_FIELDS], COPY);
        let (removed, decision) = reviewed(ANN, false, &created, &spawner(&json!({}), Some(COPY)));
        assert!(removed["metadata"]["annotations"].get(keys::KELOS_FIELDS).is_none());
        assert!(
            decision.warnings[0].contains("spec.failurePolicy"),
            "{:?}",
            decision.warnings
        );
        // The copy cannot be chosen.
        let (changed, _) = reviewed(
            ANN,
            false,
            &created,
            &spawner(&json!({"failurePolicy": {"maxRetriesPerItem": 3}}), Some("{}")),
        );
        assert_eq!(changed, created);
        let (forged, _) = reviewed(ANN, false, &Value::Null, &spawner(&json!({}), Some(COPY)));
        assert!(forged["metadata"]["annotations"].get(keys::KELOS_FIELDS).is_none());
    }

    #[test]
    fn a_copy_survives_a_write_that_has_no_field_to_remove() {
        let dropped = spawner(&json!({}), Some(COPY));
        assert_eq!(
            reviewed(ANN, false, &dropped, &spawner(&json!({"suspend": true}), Some(COPY))).1,
            Decision::default()
        );
        let (gone, _) = reviewed(ANN, false, &dropped, &spawner(&json!({}), None));
        assert!(
            gone["metadata"]
                .get("annotations")
                .is_none_or(|all| all.get(keys::KELOS_FIELDS).is_none())
        );
    }

    #[test]
    fn only_a_removed_entry_of_a_map_that_stays_is_a_reset() {
        let mut old = spawner(&json!({}), None);
        old["status"] = json!({"failedItems": {"42": {}, "43": {}}, "failedItemResets": {"7": {"by": "bob"}}});
        let written = |items: Value, resets: Value| {
            let mut object = old.clone();
            object["status"] = json!({"failedItems": items, "failedItemResets": resets});
            reviewed(ANN, true, &old, &object).0["status"]["failedItemResets"].clone()
        };
        let bob = json!({"7": {"by": "bob"}});
        assert_eq!(
            written(json!({"43": {}}), bob.clone()),
            json!({"7": {"by": "bob"}, "42": {"by": "ann"}})
        );
        assert_eq!(
            written(json!({"43": {}}), json!({"42": {"by": "eve"}})),
            json!({"7": {"by": "bob"}, "42": {"by": "ann"}})
        );
        assert_eq!(written(Value::Null, bob.clone()), bob, "the whole map is lost");
        assert_eq!(written(json!({"42": {}, "43": {}}), Value::Null), bob);
        let mut emptied = old.clone();
        emptied["status"] = json!({"failedItems": {}});
        let (stored, _) = reviewed(ANN, true, &old, &emptied);
        assert_eq!(stored["status"]["failedItemResets"].as_object().map(Map::len), Some(3));
    }

    #[test]
    fn the_leader_restores_from_the_copy_and_takes_over_what_differs() {
        let synced = |object: &Value| {
            let mut object = object.clone();
            let patch = sync(&object, &KelosField::all());
            json_patch::patch(&mut object, &patch).unwrap();
            assert!(!needs_sync(&object, &KelosField::all()), "{object}");
            object
        };
        let restored = synced(&spawner(&json!({}), Some(COPY)));
        assert_eq!(restored["spec"]["failurePolicy"]["maxRetriesPerItem"], 3);
        let changed = synced(&spawner(
            &json!({"failurePolicy": {"maxRetriesPerItem": 5}}),
            Some(COPY),
        ));
        assert_eq!(
            changed["metadata"]["annotations"][keys::KELOS_FIELDS],
            r#"{"failurePolicy":{"maxRetriesPerItem":5}}"#
        );
        let added = synced(&spawner(&json!({"cancellationPolicy": {}}), None));
        assert_eq!(
            added["metadata"]["annotations"][keys::KELOS_FIELDS],
            r#"{"cancellationPolicy":{}}"#
        );
        let garbage = spawner(&json!({}), Some("["));
        assert!(!needs_sync(&garbage, &KelosField::all()));
        assert!(
            !needs_sync(&spawner(&json!({}), Some(COPY)), &KelosFields::new()),
            "disabled"
        );
    }

    #[test]
    fn fields_that_are_not_taskgates_are_left_alone() {
        let old = spawner(&json!({"failurePolicy": {}}), Some(COPY));
        let fields = KelosFields::new();
        for writer in [FieldsWriter::Kelos, FieldsWriter::Taskgate] {
            let object = spawner(&json!({}), Some(COPY));
            let review = FieldsReview {
                kind: "TaskSpawner",
                status: false,
                writer,
                fields: &fields,
                object: &object,
                old: &old,
            };
            assert_eq!(review_kelos_fields(&review), Decision::default());
        }
    }
}
