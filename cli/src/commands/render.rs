//! `taskgate render`: the labels and annotations that a policy sets on a Task, key by key, without changing anything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::{Map, Value};
use taskgate_api::{kelos, metadata::Metadata, task_policy::TemplateEngine};
use taskgate_offline::{Schemas, documents::read_value, schema::FieldError};
use taskgate_policy::{
    Policy, SpawnerInfo, WorkspaceInfo,
    metadata::{PreviewLine, TemplateInput, preview},
};

use super::snapshot::CompiledPolicy;
use crate::{
    cluster::{Connection, api_error, resource},
    exit::ExitStatus,
    flags::ConnectionArgs,
    output,
};

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
    /// Read the templates as this language, whatever the policy sets: Tera or GoTemplate.
    #[arg(long, value_name = "LANGUAGE", value_parser = engine)]
    pub(crate) engine: Option<TemplateEngine>,
    /// A file with the Task's TaskSpawner.
    #[arg(long, value_name = "FILE")]
    pub(crate) spawner: Option<PathBuf>,
    /// A file with the Task's Workspace.
    #[arg(long, value_name = "FILE")]
    pub(crate) workspace: Option<PathBuf>,
    /// A file with the item's fields from its issue source: title, labels, author.
    #[arg(long, value_name = "FILE")]
    pub(crate) item: Option<PathBuf>,
    /// The user who creates the Task.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

fn engine(text: &str) -> Result<TemplateEngine, String> {
    match text.to_ascii_lowercase().as_str() {
        "tera" => Ok(TemplateEngine::Tera),
        "gotemplate" | "go" => Ok(TemplateEngine::GoTemplate),
        _ => Err("neither Tera nor GoTemplate".to_owned()),
    }
}

/// A Task and the objects that templates read.
#[derive(Debug, Default)]
struct TaskInputs {
    task: Value,
    namespace: String,
    namespace_labels: BTreeMap<String, String>,
    spawner: Option<Value>,
    workspace: Option<Value>,
}

/// RBAC with `--live`: `get` on tasks, taskspawners and workspaces of kelos.dev, and on namespaces. Nothing without.
pub(crate) async fn run(args: RenderArgs) -> Result<ExitStatus> {
    let policy = policy(&args)?;
    let inputs = if args.live {
        from_cluster(&args.connection.connect().await?, &args.task).await?
    } else {
        from_files(&args)?
    };
    let item = args.item.as_deref().map(read).transpose()?;
    let item: Option<Map<String, Value>> = item.and_then(|item| item.as_object().cloned());
    let lines = preview(
        &policy,
        &TemplateInput {
            object: &inputs.task,
            namespace: &inputs.namespace,
            namespace_labels: &inputs.namespace_labels,
            spawner: inputs.spawner.as_ref().map(SpawnerInfo::of).as_ref(),
            workspace: inputs.workspace.as_ref().map(WorkspaceInfo::of).as_ref(),
            user: args.user.as_deref(),
            source_fields: item.as_ref(),
        },
    );
    if lines.is_empty() {
        bail!("the policy sets no labels and no annotations");
    }
    output::print(&table(&lines))?;
    Ok(ExitStatus::Success)
}

/// Three columns: key, value, and the source of the value.
fn table(lines: &[PreviewLine]) -> String {
    let rows = lines.iter().map(|line| {
        let value = line.value.as_deref();
        let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:?}"));
        vec![format!("{} {}", line.kind, line.key), value, line.note.clone()]
    });
    output::table(&[], &rows.collect::<Vec<_>>())
}

fn read(path: &Path) -> Result<Value> {
    read_value(path).map_err(|error| anyhow!("{}: {}", error.location(), error.message))
}

/// The object of the file, which is of Kelos' `kind`.
fn read_kind(path: &Path, kind: &str) -> Result<Value> {
    let object = read(path)?;
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or("", |(group, _)| group);
    if (group, text("kind")) != (kelos::GROUP, kind) {
        let (version, found) = (text("apiVersion"), text("kind"));
        bail!("{}: {version} {found} is no {kind} of {}", path.display(), kelos::GROUP);
    }
    Ok(object)
}

/// The policy of the file, compiled. Errors with all its problems.
fn policy(args: &RenderArgs) -> Result<Policy> {
    let invalid = |errors: Vec<FieldError>| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{}: {}", args.policy.display(), errors.join("\n"))
    };
    let mut object = Schemas::own().stored(&read(&args.policy)?).map_err(invalid)?;
    let section = object.pointer_mut("/spec/metadata").and_then(Value::as_object_mut);
    if let (Some(engine), Some(section)) = (args.engine, section) {
        section.insert("engine".to_owned(), serde_json::to_value(engine)?);
    }
    let object = Arc::new(object);
    let compiled = match object["kind"].as_str().unwrap_or_default() {
        "TaskPolicy" => CompiledPolicy::namespaced(&object),
        "ClusterTaskPolicy" => CompiledPolicy::cluster(&object),
        kind => bail!("{kind:?} is neither TaskPolicy nor ClusterTaskPolicy"),
    };
    compiled.policy.map_err(|problems| anyhow!("{}", problems.join("\n")))
}

fn from_files(args: &RenderArgs) -> Result<TaskInputs> {
    let task = read_kind(Path::new(&args.task), "Task")?;
    let optional = |path: &Option<PathBuf>, kind| path.as_deref().map(|path| read_kind(path, kind)).transpose();
    Ok(TaskInputs {
        namespace: Metadata::of(&task).namespace().unwrap_or("default").to_owned(),
        namespace_labels: BTreeMap::new(),
        spawner: optional(&args.spawner, "TaskSpawner")?,
        workspace: optional(&args.workspace, "Workspace")?,
        task,
    })
}

async fn from_cluster(connection: &Connection, name: &str) -> Result<TaskInputs> {
    let Connection { client, namespace } = connection;
    let get = async |kind, plural, name: Option<&str>| match name {
        Some(name) => {
            let resource = resource(kelos::GROUP, kelos::TASK_VERSIONS[0], kind, plural);
            connection.get(&resource, Some(namespace), name).await
        }
        None => Ok(None),
    };
    let task = get("Task", kelos::TASKS, Some(name)).await?;
    let task = task.ok_or_else(|| anyhow!("there is no Task {name} in namespace {namespace}"))?;
    let view = kelos::Task::of(&task);
    let spawner = get("TaskSpawner", "taskspawners", view.spawner()).await?;
    let workspace = get("Workspace", "workspaces", view.workspace()).await?;
    let metadata = Api::<Namespace>::all(client.clone()).get_metadata(namespace).await;
    Ok(TaskInputs {
        namespace: namespace.clone(),
        namespace_labels: metadata.map_err(api_error)?.metadata.labels.unwrap_or_default(),
        spawner,
        workspace,
        task,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::MAX_COLUMN;

    #[test]
    fn a_very_long_value_is_printed_whole() {
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
