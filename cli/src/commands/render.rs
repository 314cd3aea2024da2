//! `taskgate render`: what a policy makes of a Task, key by key, without changing anything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Map, Value};
use taskgate_api::{ClusterTaskPolicySpec, TaskPolicySpec, kelos, metadata::Metadata, task_policy::TemplateEngine};
use taskgate_policy::{
    Policy, Problem, SpawnerInfo, WorkspaceInfo,
    metadata::{PreviewLine, TemplateInput, preview},
};

use super::{Connection, ConnectionArgs, Failure, said};
use crate::output;

/// Flags of `taskgate render`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  taskgate render policy.yaml task.yaml --spawner spawner.yaml
  taskgate render policy.yaml fixer-42 --live -n team-a
  taskgate render policy.yaml task.yaml --engine GoTemplate")]
pub(crate) struct RenderArgs {
    /// A file with a TaskPolicy or a ClusterTaskPolicy.
    #[arg(value_name = "POLICY")]
    pub(crate) policy: PathBuf,
    /// A file with a Task; with --live the name of a Task in the cluster, whose spawner, Workspace and namespace are read
    /// there too.
    #[arg(value_name = "TASK")]
    pub(crate) task: String,
    /// Read the Task from the cluster.
    #[arg(long, conflicts_with_all = ["spawner", "workspace"])]
    pub(crate) live: bool,
    /// Read the templates as this language, whatever the policy says: Tera or GoTemplate.
    #[arg(long, value_name = "LANGUAGE", value_parser = engine)]
    pub(crate) engine: Option<TemplateEngine>,
    /// A file with the Task's TaskSpawner.
    #[arg(long, value_name = "FILE")]
    pub(crate) spawner: Option<PathBuf>,
    /// A file with the Task's Workspace.
    #[arg(long, value_name = "FILE")]
    pub(crate) workspace: Option<PathBuf>,
    /// A file with what only the tracker knows of the item: title, labels, author.
    #[arg(long, value_name = "FILE")]
    pub(crate) item: Option<PathBuf>,
    /// Who creates the Task.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

fn engine(text: &str) -> Result<TemplateEngine, String> {
    match text.to_ascii_lowercase().as_str() {
        "tera" => Ok(TemplateEngine::Tera),
        "gotemplate" | "go" => Ok(TemplateEngine::GoTemplate),
        _ => Err("there are Tera and GoTemplate".to_owned()),
    }
}

/// A Task and what surrounds it.
#[derive(Debug, Default)]
struct Scene {
    task: Value,
    namespace: String,
    namespace_labels: BTreeMap<String, String>,
    spawner: Option<SpawnerInfo>,
    workspace: Option<WorkspaceInfo>,
}

/// RBAC with `--live`: `get` on tasks, taskspawners and workspaces of kelos.dev, and on namespaces. Nothing without.
pub(crate) async fn run(args: RenderArgs) -> Result<(), Failure> {
    let policy = policy(&args)?;
    let scene = if args.live {
        Scene::live(&args.connection.connect().await?, &args.task).await?
    } else {
        Scene::of_files(&args)?
    };
    let item = args.item.as_deref().map(read).transpose()?;
    let item: Option<Map<String, Value>> = item.and_then(|item| item.as_object().cloned());
    let lines = preview(
        &policy,
        &TemplateInput {
            object: &scene.task,
            namespace: &scene.namespace,
            namespace_labels: &scene.namespace_labels,
            spawner: scene.spawner.as_ref(),
            workspace: scene.workspace.as_ref(),
            user: args.user.as_deref(),
            source_fields: item.as_ref(),
        },
    );
    if lines.is_empty() {
        return Err(anyhow!("the policy sets no labels and no annotations").into());
    }
    output::print(&table(&lines))?;
    Ok(())
}

/// The widest column, in characters: what is longer pushes its line out, not all others.
const MAX_COLUMN: usize = 200;

/// Three columns, wide as their widest entry: key, value, how it came about.
fn table(lines: &[PreviewLine]) -> String {
    let rows = lines.iter().map(|line| {
        let value = line
            .value
            .as_deref()
            .map_or_else(|| "-".to_owned(), |value| format!("{value:?}"));
        [format!("{} {}", line.kind, line.key), value, line.note.clone()]
    });
    let rows: Vec<_> = rows.collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0).min(MAX_COLUMN)
    };
    let (key, value) = (width(0), width(1));
    let rows = rows
        .iter()
        .map(|row| format!("{:key$}  {:value$}  {}\n", row[0], row[1], row[2]));
    rows.collect::<Vec<_>>().concat()
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML of one object", path.display()))
}

/// The policy of the file, compiled. Errors with everything that is wrong with it.
fn policy(args: &RenderArgs) -> Result<Policy> {
    let mut object = read(&args.policy)?;
    if let (Some(engine), Some(section)) = (args.engine, object.pointer_mut("/spec/metadata")) {
        section["engine"] = serde_json::to_value(engine)?;
    }
    let name = Metadata::of(&object).name().unwrap_or("policy").to_owned();
    let namespace = Metadata::of(&object).namespace().unwrap_or("default").to_owned();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let spec = object["spec"].take();
    let compiled = match kind.as_str() {
        "TaskPolicy" => Policy::namespaced(&namespace, &name, &spec_of::<TaskPolicySpec>(spec)?),
        "ClusterTaskPolicy" => Policy::cluster(&name, &spec_of::<ClusterTaskPolicySpec>(spec)?),
        kind => bail!("{kind:?} is neither TaskPolicy nor ClusterTaskPolicy"),
    };
    compiled.map_err(|problems: Vec<Problem>| {
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        anyhow!("{}", problems.join("\n"))
    })
}

fn spec_of<T: serde::de::DeserializeOwned>(spec: Value) -> Result<T> {
    serde_json::from_value(spec).context("spec")
}

impl Scene {
    fn of_files(args: &RenderArgs) -> Result<Self> {
        let task = read(Path::new(&args.task))?;
        let facts = |path: &Option<PathBuf>| path.as_deref().map(read).transpose();
        Ok(Self {
            namespace: Metadata::of(&task).namespace().unwrap_or("default").to_owned(),
            spawner: facts(&args.spawner)?.as_ref().map(SpawnerInfo::of),
            workspace: facts(&args.workspace)?.as_ref().map(WorkspaceInfo::of),
            namespace_labels: BTreeMap::new(),
            task,
        })
    }

    async fn live(connection: &Connection, name: &str) -> Result<Self> {
        let found = get(connection, "Task", kelos::TASKS, name).await?;
        let task = found.ok_or_else(|| anyhow!("there is no Task {name} in namespace {}", connection.namespace))?;
        let view = kelos::Task::of(&task);
        let spawner = match view.spawner() {
            Some(name) => get(connection, "TaskSpawner", "taskspawners", name).await?,
            None => None,
        };
        let workspace = match view.workspace() {
            Some(name) => get(connection, "Workspace", "workspaces", name).await?,
            None => None,
        };
        let namespaces = Api::<Namespace>::all(connection.client.clone());
        let namespace = namespaces.get_metadata(&connection.namespace).await.map_err(said)?;
        Ok(Self {
            namespace: connection.namespace.clone(),
            namespace_labels: namespace.metadata.labels.unwrap_or_default(),
            spawner: spawner.as_ref().map(SpawnerInfo::of),
            workspace: workspace.as_ref().map(WorkspaceInfo::of),
            task,
        })
    }
}

/// An object of Kelos, as JSON.
async fn get(connection: &Connection, kind: &str, plural: &str, name: &str) -> Result<Option<Value>> {
    let version = kelos::TASK_VERSIONS[0];
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kelos::GROUP, version, kind), plural);
    let api = Api::<DynamicObject>::namespaced_with(connection.client.clone(), &connection.namespace, &resource);
    let found = api.get_opt(name).await.map_err(said)?;
    found.map(serde_json::to_value).transpose().context("reading JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_very_long_value_is_shown_whole() {
        let line = |value: String| PreviewLine {
            kind: "annotation",
            key: "x".to_owned(),
            value: Some(value),
            note: "kept".to_owned(),
        };
        let long = "x".repeat(70_000);
        let shown = table(&[line(long.clone()), line("short".to_owned())]);
        let (first, second) = shown.split_once('\n').unwrap_or_default();
        assert_eq!(first, format!("annotation x  \"{long}\"  kept"));
        assert_eq!(second, format!("annotation x  {:MAX_COLUMN$}  kept\n", "\"short\""));
    }
}
