//! Reserved keys: the labels, annotations and the finalizer that only taskgate sets are removed from objects that another user
//! creates.
//!
//! A decision is made about the object without them ([`without_reserved_keys`]). What it sets is then compared with what came along:
//! equal values stay (the object has passed here before), everything else is removed. So a second pass over the output of
//! the first sees the same input and changes nothing.

use std::{borrow::Cow, collections::BTreeSet};

use serde_json::{Map, Value};
use taskgate_api::{job::Job, keys, metadata::Metadata};

use crate::{
    decision::{Decision, Detail, Effect, Finding, Kind, Operation, Phase, Request, assemble},
    kubernetes::{Edit, KeyKind},
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

/// `object`, which is to be created, without taskgate's reserved keys. The TTL that admission
/// kept in an annotation is back in the spec.
pub fn without_reserved_keys(kind: Kind, object: &Value) -> Cow<'_, Value> {
    let Some(kept) = KeptKeys::of(kind, object).filter(|_| has_reserved_keys(kind, object)) else {
        return Cow::Borrowed(object);
    };
    let mut stripped = object.clone();
    if kind == Kind::Task {
        restore_ttl(&mut stripped);
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

/// The TTL of the annotation, in the spec: unless the spec has one, or it is none.
fn restore_ttl(task: &mut Value) {
    let ttl = Metadata::of(task).annotation(keys::TTL);
    let Some(ttl) = ttl.and_then(|ttl| ttl.parse::<i32>().ok()).filter(|ttl| *ttl >= 0) else {
        return;
    };
    if let Some(Value::Object(spec)) = task.get_mut("spec") {
        spec.entry("ttlSecondsAfterFinished").or_insert_with(|| ttl.into());
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
