//! The JSON object that templates are rendered over, the same for both engines. The table of `docs/metadata.md` describes it.

use std::{cell::OnceCell, collections::BTreeMap};

use serde_json::{Map, Value, json};
use taskgate_api::{kelos::Task, keys};

use super::{item, managed::Managed};
use crate::{
    issue_source::{SpawnerInfo, WorkspaceInfo},
    kubernetes::Edit,
};

/// The longest text that a template gets, in bytes; a longer one is left out, so that what a render may cost is known.
const MAX_TEXT: usize = 4096;
/// How many entries of a map and of a list it gets.
const MAX_ENTRIES: usize = 100;
/// The fields of an item that only its issue source has.
pub(super) const SOURCE_FIELDS: [&str; 4] = ["title", "labels", "author", "body"];
/// The item's fields, and their names in Go templates, which are those of Kelos.
pub(super) const ITEM_FIELDS: [(&str, &str); 11] = [
    ("id", "ID"),
    ("title", "Title"),
    ("kind", "Kind"),
    ("number", "Number"),
    ("labels", "Labels"),
    ("url", "URL"),
    ("branch", "Branch"),
    ("author", "Author"),
    ("body", "Body"),
    ("time", "Time"),
    ("schedule", "Schedule"),
];
/// The fields of a Task's `spec`, or of its `spec.worker`, that templates see. Never the prompt, credentials, or anything of the pod.
pub const TEMPLATE_FIELDS: [&str; 10] = [
    "type",
    "model",
    "effort",
    "image",
    "branch",
    "upstreamRepo",
    "workspaceRef",
    "workerPoolRef",
    "agentConfigRefs",
    "dependsOn",
];

/// The inputs of templates: a Task, and the cluster state around it.
#[derive(Clone, Copy, Debug)]
pub struct TemplateInput<'a> {
    /// The Task, whole.
    pub object: &'a Value,
    /// Its namespace.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Its spawner, when there is one.
    pub spawner: Option<&'a SpawnerInfo>,
    /// Its Workspace, when there is one.
    pub workspace: Option<&'a WorkspaceInfo>,
    /// The user who creates the Task; known at admission only.
    pub user: Option<&'a str>,
    /// The fields that only the issue source has: `title`, `labels`, `author`, `body`.
    pub source_fields: Option<&'a Map<String, Value>>,
}

/// Which labels and annotations of the Task a template sees, besides that none of taskgate's own are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sees<'a> {
    /// Those that no policy sets: what one template gives never depends on another, nor on a first pass over the same Task.
    Unmanaged(Managed<'a>),
    /// All, also what policies are about to add: a second pass over the same Task sees the same.
    Planned(&'a [Edit]),
}

/// What templates are rendered over. Built once for all templates of a request.
#[derive(Debug)]
pub(crate) struct Context {
    json: Value,
    tera: OnceCell<tera::Context>,
}

impl Context {
    /// The context of `input`.
    pub(super) fn of(input: &TemplateInput<'_>, sees: Sees<'_>) -> Self {
        let (managed, planned) = match sees {
            Sees::Unmanaged(managed) => (managed, &[][..]),
            Sees::Planned(planned) => (Managed::NONE, planned),
        };
        let task = Task::of(input.object);
        let metadata = task.metadata();
        let visible = |name: &str| {
            let entries = input
                .object
                .pointer(&format!("/metadata/{name}"))
                .and_then(Value::as_object);
            let managed = |key: &str| match name {
                "labels" => managed.has_label(key),
                _ => managed.has_annotation(key),
            };
            let entries = entries
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key, value.as_str()?)));
            let planned = planned.iter().filter_map(|edit| match edit {
                Edit::Label(key, value) if name == "labels" => Some((key, value.as_str())),
                Edit::Annotation(key, value) if name == "annotations" => Some((key, value.as_str())),
                _ => None,
            });
            let entries: BTreeMap<_, _> = entries.chain(planned).collect();
            let visible = |(key, _): &(&String, &str)| !managed(key) && !key.starts_with(keys::PREFIX);
            bounded(entries.into_iter().filter(visible))
        };
        let mut item = item::known(task, input.spawner, input.workspace);
        for field in SOURCE_FIELDS {
            if let Some(value) = input.source_fields.and_then(|source_fields| source_fields.get(field)) {
                item.insert(field.to_owned(), cut(value));
            }
        }
        let mut json = json!({
            "task": {
                "metadata": {
                    "name": metadata.name(), "namespace": input.namespace,
                    "labels": visible("labels"), "annotations": visible("annotations"),
                },
                "spec": spec(task),
            },
            "spawner": {"metadata": {
                "name": task.spawner(),
                "labels": input.spawner.map(|spawner| labels(&spawner.labels)).unwrap_or_default(),
            }},
            "workspace": {
                "name": task.workspace(),
                "repo": input.workspace.map(|workspace| workspace.repo.as_str()).filter(|repo| !repo.is_empty()),
                "ref": input.workspace.and_then(|workspace| workspace.reference.as_deref()),
            },
            "namespace": {
                "name": input.namespace, "labels": labels(input.namespace_labels),
                "metadata": {"name": input.namespace, "labels": labels(input.namespace_labels)},
            },
            "user": input.user,
        });
        without_nulls(&mut json);
        for (field, name) in ITEM_FIELDS {
            if let Some(value) = item.get(field) {
                json[name] = value.clone();
            }
        }
        json["item"] = Value::Object(item);
        end_texts(&mut json);
        Self::from(json)
    }

    /// The context as JSON.
    pub(crate) fn json(&self) -> &Value {
        &self.json
    }

    /// The context as Tera takes it.
    pub(crate) fn tera(&self) -> &tera::Context {
        self.tera.get_or_init(|| {
            let mut context = tera::Context::new();
            for (key, value) in self.json.as_object().into_iter().flatten() {
                context.insert(key.clone(), value);
            }
            context
        })
    }
}

impl From<Value> for Context {
    fn from(json: Value) -> Self {
        Self {
            json,
            tera: OnceCell::new(),
        }
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Map<String, Value> {
    bounded(labels.iter().map(|(key, value)| (key, value.as_str())))
}

fn bounded<'a>(entries: impl Iterator<Item = (&'a String, &'a str)>) -> Map<String, Value> {
    entries
        .filter(|(_, value)| value.len() <= MAX_TEXT)
        .take(MAX_ENTRIES)
        .map(|(key, value)| (key.clone(), value.into()))
        .collect()
}

/// The effective fields: those of `spec.worker` win over the flat ones, as in Kelos.
fn spec(task: Task<'_>) -> Map<String, Value> {
    let field = |name: &str| {
        let value = task.agent_field(name)?;
        Some((name.to_owned(), cut(value)))
    };
    TEMPLATE_FIELDS.iter().filter_map(|name| field(name)).collect()
}

/// An untrusted value, bounded: long texts and long lists are cut, and nothing is nested deeply.
fn cut(value: &Value) -> Value {
    match value {
        Value::String(text) => text[..text.floor_char_boundary(MAX_TEXT)].into(),
        Value::Array(items) => items
            .iter()
            .take(MAX_ENTRIES)
            .filter(|item| !item.is_array())
            .map(cut)
            .collect(),
        Value::Object(_) => json!({"name": value.get("name").and_then(Value::as_str)}),
        other => other.clone(),
    }
}

/// Ends each text where a template's texts end.
fn end_texts(value: &mut Value) {
    match value {
        Value::String(text) => text.truncate(text.floor_char_boundary(MAX_TEXT)),
        Value::Array(items) => items.iter_mut().for_each(end_texts),
        Value::Object(map) => map.values_mut().for_each(end_texts),
        _ => {}
    }
}

/// Removes null values: a value that is not known is absent.
fn without_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(without_nulls);
    }
}
