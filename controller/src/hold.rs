//! Our finalizer, label and mark on a Task. Each patch carries the resource version and the UID that were seen: what
//! changed meanwhile is looked at again.

use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{keys, metadata::Metadata};

use crate::{
    context::Context,
    error::{Error, is_absent, is_conflict},
    named,
    task::{Outcome, Subject},
    tasks::trim,
};

/// Puts finalizer and label on a Task that admission did not see. Its TTL stays in its spec, where Kelos acts on it: the
/// spec is immutable.
pub(crate) async fn adopt(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let Some((item, name)) = &subject.item else {
        return Ok(Outcome::Gone);
    };
    let mut finalizers = finalizers(subject);
    if !subject.state.has_finalizer {
        finalizers.push(keys::ACCOUNTING.to_owned());
    }
    // The key stays with the Task, as admission would have left it where a template named the item.
    let stated = Metadata::of(&subject.object).annotation(keys::ITEM).is_some()
        || Metadata::of(&subject.object).label(keys::ITEM).is_some();
    let mut annotations = serde_json::Map::new();
    let named_by_template = subject.rule.as_ref().is_some_and(|(_, rule)| rule.item_key.is_some()) && !stated;
    if named_by_template {
        annotations.insert(keys::ITEM_KEY.to_owned(), item.key.clone().into());
    }
    if !subject.state.is_terminal() && subject.state.recorded.is_some() {
        annotations.insert(keys::RECORDED.to_owned(), Value::Null);
    }
    let change = json!({"finalizers": finalizers, "labels": {keys::WORK_ITEM: name}, "annotations": annotations});
    patch(context, subject, change).await
}

/// Notes on the Task that its end is recorded; a Task that succeeded is let go at once.
pub(crate) async fn mark(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    let Some((namespace, name)) = subject.item_ref() else {
        return Ok(Outcome::Gone);
    };
    let Some(item) = crate::ledger::read(context, &namespace, &name).await? else {
        return Ok(Outcome::Again);
    };
    let mut change = json!({"annotations": {keys::RECORDED: item.uid()}});
    if subject.state.phase == taskgate_policy::TaskPhase::Succeeded {
        change["finalizers"] = released(subject).into();
    }
    patch(context, subject, change).await
}

/// Takes our finalizer off.
pub(crate) async fn release(context: &Context, subject: &Subject) -> Result<Outcome, Error> {
    patch(context, subject, json!({"finalizers": released(subject)})).await
}

/// The Task as it is now.
pub(crate) async fn read(context: &Context, subject: &Subject) -> Result<Option<DynamicObject>, Error> {
    let tasks = context.tasks(&subject.namespace);
    let found = tasks.get_opt(&subject.state.name).await;
    let mut found = found.map_err(|error| failed("reading", subject, error))?;
    if let Some(object) = &mut found {
        trim(object);
    }
    Ok(found.filter(|object| object.uid().as_deref() == Some(&subject.state.uid)))
}

/// Whether the Task goes because its namespace or its spawner goes: then its deletion says nothing about the item.
pub(crate) async fn is_abandoned(context: &Context, subject: &Subject) -> Result<bool, Error> {
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(context.client.clone());
    let namespace = namespaces.get_metadata_opt(&subject.namespace).await;
    let namespace = namespace.map_err(|error| failed("reading the namespace of", subject, error))?;
    if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
        return Ok(true);
    }
    let Some(owner) = taskgate_api::kelos::Task::of(&subject.object).spawner_owner() else {
        return Ok(false);
    };
    let spawner = named::metadata(&context.spawners(&subject.namespace), owner.name).await;
    let spawner = spawner.map_err(|error| failed("reading the spawner of", subject, error))?;
    Ok(spawner.is_none_or(|spawner| {
        spawner.metadata.uid.as_deref() != Some(owner.uid) || spawner.metadata.deletion_timestamp.is_some()
    }))
}

fn finalizers(subject: &Subject) -> Vec<String> {
    Metadata::of(&subject.object)
        .finalizers()
        .map(ToOwned::to_owned)
        .collect()
}

fn released(subject: &Subject) -> Vec<String> {
    let mut finalizers = finalizers(subject);
    finalizers.retain(|finalizer| finalizer != keys::ACCOUNTING);
    finalizers
}

/// Changes the Task's metadata, if it is as it was seen.
pub(crate) async fn patch(context: &Context, subject: &Subject, mut change: Value) -> Result<Outcome, Error> {
    let seen = subject.object.pointer("/metadata/resourceVersion").cloned();
    change["resourceVersion"] = seen.unwrap_or_default();
    change["uid"] = subject.state.uid.clone().into();
    let tasks = context.tasks(&subject.namespace);
    let patch = Patch::Merge(json!({"metadata": change}));
    match tasks.patch(&subject.state.name, &PatchParams::default(), &patch).await {
        Ok(mut object) => {
            trim(&mut object);
            Ok(Outcome::Changed(Box::new(object)))
        }
        Err(error) if is_absent(&error) => Ok(Outcome::Gone),
        Err(error) if is_conflict(&error) => Ok(Outcome::Conflict),
        Err(error) => Err(failed("patching", subject, error)),
    }
}

fn failed(doing: &'static str, subject: &Subject, error: kube::Error) -> Error {
    Error {
        doing,
        kind: "Task",
        namespace: subject.namespace.clone(),
        name: subject.state.name.clone(),
        source: Box::new(error),
    }
}
