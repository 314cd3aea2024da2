//! The JSON object that templates are rendered over, the same for both engines. The table of `docs/metadata.md` describes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value, json};
use taskgate_api::{
    kelos::{SOURCE_KIND, Task},
    keys,
};

use crate::{
    issue_source::{Repository, SpawnerInfo, WorkspaceInfo},
    kubernetes::{Edit, KeyKind},
};

/// The longest text that a template gets, in bytes; a longer one is left out, so that what a render may cost is known.
const MAX_TEXT: usize = 4096;
/// How many entries of a map and of a list it gets.
pub(super) const MAX_ENTRIES: usize = 100;
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
    tera: OnceLock<tera::Context>,
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
        let visible = |kind: KeyKind| {
            let mut entries = kind.entries(metadata);
            entries.extend(planned.iter().filter_map(|edit| {
                let key = edit.key()?;
                Some((key, edit.value(kind, key)?))
            }));
            entries.retain(|key, _| !managed.has(kind, key) && !key.starts_with(keys::PREFIX));
            bounded(entries.into_iter())
        };
        let mut item = known_item(task, input.spawner, input.workspace);
        for field in SOURCE_FIELDS {
            if let Some(value) = input.source_fields.and_then(|source_fields| source_fields.get(field)) {
                item.insert(field.to_owned(), cut(value));
            }
        }
        let mut json = json!({
            "task": {
                "metadata": {
                    "name": metadata.name(), "namespace": input.namespace,
                    "labels": visible(KeyKind::Label), "annotations": visible(KeyKind::Annotation),
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
            tera: OnceLock::new(),
        }
    }
}

fn labels(labels: &BTreeMap<String, String>) -> Map<String, Value> {
    bounded(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}

fn bounded<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    entries
        .filter(|(_, value)| value.len() <= MAX_TEXT)
        .take(MAX_ENTRIES)
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
}

/// The effective fields: those of `spec.worker` win over the flat ones, as in Kelos.
fn spec(task: Task<'_>) -> Map<String, Value> {
    let field = |name: &str| {
        let value = task.agent_field(name)?;
        Some((name.to_owned(), cut(value)))
    };
    TEMPLATE_FIELDS.into_iter().filter_map(field).collect()
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

/// The fields of the item of `task` that are known without reading the issue source (kelos §3).
fn known_item(task: Task<'_>, spawner: Option<&SpawnerInfo>, workspace: Option<&WorkspaceInfo>) -> Map<String, Value> {
    let metadata = task.metadata();
    let number = task.source_number();
    let kind = match metadata.annotation(SOURCE_KIND) {
        Some("issue") => Some("Issue"),
        Some("pull-request") => Some("PR"),
        _ => None,
    };
    let suffix = item_of_name(task);
    let schedule = spawner.and_then(|spawner| spawner.schedule.as_deref());
    let mut item = Map::new();
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            item.insert(key.to_owned(), value);
        }
    };
    let id = number
        .map(|number| number.to_string())
        .or(suffix.map(ToOwned::to_owned));
    set("id", id.map(Value::from));
    set("kind", kind.map(Value::from));
    set("number", number.map(Value::from));
    set("branch", task.branch().map(Value::from));
    set("schedule", schedule.map(Value::from));
    let tick = suffix.filter(|_| schedule.is_some()).and_then(tick);
    set("time", tick.map(|time| time.to_string().into()));
    let repository = repository(task, spawner, workspace);
    let url = repository.zip(kind).zip(number).map(|((repository, kind), number)| {
        let Repository { host, owner, name } = repository;
        let host = if host.is_empty() { "github.com" } else { &host };
        let path = if kind == "PR" { "pull" } else { "issues" };
        format!("https://{host}/{owner}/{name}/{path}/{number}")
    });
    set("url", url.map(Value::from));
    item
}

/// What the spawner's naming leaves when its own name is taken off.
fn item_of_name(task: Task<'_>) -> Option<&str> {
    let spawner = task.spawner()?.to_lowercase();
    let rest = task.metadata().name()?.strip_prefix(&spawner)?.strip_prefix('-')?;
    (!rest.is_empty()).then_some(rest)
}

/// The moment that a tick of a cron source is named after: `20261121-0300`, UTC.
fn tick(id: &str) -> Option<Timestamp> {
    let time = DateTime::strptime("%Y%m%d-%H%M", id).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Where the item lives: what a webhook stamped, else the spawner's own repository, else the Workspace's.
fn repository(task: Task<'_>, spawner: Option<&SpawnerInfo>, workspace: Option<&WorkspaceInfo>) -> Option<Repository> {
    let stamped = task.source_repository().map(|(owner, name)| format!("{owner}/{name}"));
    let own = stamped
        .as_deref()
        .or_else(|| spawner.and_then(|spawner| spawner.repository.as_deref()));
    Repository::of(own, workspace.map_or("", |workspace| &workspace.repo))
}

/// Keys of labels and annotations that a group of policies sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    labels: BTreeSet<Arc<str>>,
    annotations: BTreeSet<Arc<str>>,
    overridden: BTreeSet<Arc<str>>,
}

impl Keys {
    /// Adds a key; `overriding`: the policy also replaces the creator's value.
    pub(crate) fn add(&mut self, kind: KeyKind, key: &Arc<str>, overriding: bool) {
        let keys = match kind {
            KeyKind::Label => &mut self.labels,
            KeyKind::Annotation => &mut self.annotations,
        };
        keys.insert(Arc::clone(key));
        if overriding && kind == KeyKind::Label {
            self.overridden.insert(Arc::clone(key));
        }
    }
}

/// The keys that apply to a namespace: those of ClusterTaskPolicies, and of its own TaskPolicies. Templates do not see them, so that
/// what a policy sets never changes what another one renders.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Managed<'a> {
    pub(crate) cluster: &'a Keys,
    pub(crate) namespaced: Option<&'a Keys>,
}

impl Managed<'_> {
    /// No keys at all.
    pub(crate) const NONE: Self = Managed {
        cluster: &Keys {
            labels: BTreeSet::new(),
            annotations: BTreeSet::new(),
            overridden: BTreeSet::new(),
        },
        namespaced: None,
    };

    fn any(&self, has: impl Fn(&Keys) -> bool) -> bool {
        has(self.cluster) || self.namespaced.is_some_and(has)
    }

    /// Whether a policy sets the label or annotation `key`.
    fn has(&self, kind: KeyKind, key: &str) -> bool {
        self.any(|keys| match kind {
            KeyKind::Label => keys.labels.contains(key),
            KeyKind::Annotation => keys.annotations.contains(key),
        })
    }

    /// Whether a policy replaces the creator's value of label `key`.
    pub(crate) fn overrides(&self, key: &str) -> bool {
        self.any(|keys| keys.overridden.contains(key))
    }
}

#[cfg(test)]
mod item_tests {
    use super::*;
    use serde_json::json;

    fn item(name: &str, annotations: &Value, spawner: &SpawnerInfo, repo: &str) -> Value {
        let task = json!({"metadata": {"name": name, "annotations": annotations,
            "labels": {"kelos.dev/taskspawner": "fixer"}}, "spec": {"branch": "fix"}});
        let workspace = WorkspaceInfo {
            repo: repo.into(),
            reference: None,
        };
        Value::Object(known_item(Task::of(&task), Some(spawner), Some(&workspace)))
    }

    #[test]
    fn an_issue_has_its_url_and_a_tick_its_time() {
        let polled = json!({"kelos.dev/source-kind": "pull-request", "kelos.dev/source-number": "42"});
        let plain = SpawnerInfo::default();
        assert_eq!(
            item("fixer-42", &polled, &plain, "https://github.com/acme/shop.git"),
            json!({"id": "42", "kind": "PR", "number": 42, "branch": "fix", "url": "https://github.com/acme/shop/pull/42"})
        );
        let other = SpawnerInfo {
            repository: Some("acme/other".into()),
            ..SpawnerInfo::default()
        };
        let other = item("fixer-42", &polled, &other, "https://ghe.example.com/acme/shop");
        assert_eq!(other["url"], json!("https://ghe.example.com/acme/other/pull/42"));
        let pushed = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "7",
            "kelos.dev/source-owner": "Acme", "kelos.dev/source-repo": "web"});
        let pushed = item("fixer-issues-0a", &pushed, &plain, "");
        assert_eq!(pushed["url"], json!("https://github.com/Acme/web/issues/7"));
        let cron = SpawnerInfo {
            schedule: Some("0 3 * * *".into()),
            ..SpawnerInfo::default()
        };
        assert_eq!(
            item("fixer-20261121-0300", &json!({}), &cron, "https://github.com/acme/shop"),
            json!({"id": "20261121-0300", "branch": "fix", "schedule": "0 3 * * *", "time": "2026-11-21T03:00:00Z"})
        );
    }
}
