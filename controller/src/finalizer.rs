//! taskgate's finalizer on a Task, with the label of its `WorkItem` and the annotation that says that its end is recorded.
//!
//! Imports `context`, `kubernetes`, `task`. Called by `controller::task`.

use serde_json::{Value, json};
use taskgate_api::{WorkItem, keys, metadata::Metadata};
use taskgate_policy::TaskPhase;

use crate::{
    context::Context,
    error::Error,
    kubernetes,
    task::{self, Subject, TaskResult},
};

/// Adds finalizer and label to a Task that was created without admission. Its TTL stays in its spec, which is immutable, and Kelos
/// acts on it.
pub(crate) async fn adopt(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    let Some((item, name)) = &subject.item else {
        return Ok(TaskResult::AwaitChange);
    };
    let mut finalizers = finalizers(subject);
    if !subject.state.has_finalizer {
        finalizers.push(keys::ACCOUNTING.to_owned());
    }
    // The key is kept on the Task, as admission does where a template names the item.
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
    task::patch(context, subject, change).await
}

/// Annotates the Task: its end is recorded in `item`. The finalizer of a Task that succeeded is removed in the same write.
pub(crate) async fn mark_recorded(context: &Context, subject: &Subject, item: &WorkItem) -> Result<TaskResult, Error> {
    let mut change = json!({"annotations": {keys::RECORDED: item.metadata.uid}});
    if subject.state.phase == TaskPhase::Succeeded {
        change["finalizers"] = other_finalizers(subject).into();
    }
    task::patch(context, subject, change).await
}

/// Removes the finalizer.
pub(crate) async fn remove(context: &Context, subject: &Subject) -> Result<TaskResult, Error> {
    task::patch(context, subject, json!({"finalizers": other_finalizers(subject)})).await
}

/// Whether the Task is deleted because its namespace or its spawner is: its deletion then says nothing about the item.
pub(crate) async fn is_abandoned(context: &Context, subject: &Subject) -> Result<bool, Error> {
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(context.client.clone());
    let namespace = namespaces.get_metadata_opt(&subject.namespace).await;
    let namespace = namespace.map_err(|error| subject.error("reading the namespace of", "Task", error))?;
    if namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
        return Ok(true);
    }
    let Some(owner) = taskgate_api::kelos::Task::of(&subject.object).spawner_owner() else {
        return Ok(false);
    };
    let spawner = kubernetes::find_metadata(&context.spawners(&subject.namespace), owner.name).await;
    let spawner = spawner.map_err(|error| subject.error("reading the spawner of", "Task", error))?;
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

fn other_finalizers(subject: &Subject) -> Vec<String> {
    let mut finalizers = finalizers(subject);
    finalizers.retain(|finalizer| finalizer != keys::ACCOUNTING);
    finalizers
}
