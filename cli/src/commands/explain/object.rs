//! Which object is meant.

use anyhow::anyhow;
use serde_json::Value;
use taskgate_api::{WorkItem, job::Job, kelos::Task, keys, metadata::Metadata};
use taskgate_policy::identify;

use super::scene::Scene;
use crate::commands::{Failure, snapshot::Kind};

/// What somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Task(String),
    Job(String),
    /// The name of a `WorkItem`, its key, or the item's id.
    Item(String),
    Spawner(String),
    /// Foreman's.
    Workload(String),
    /// A name or a key alone.
    Any(String),
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    Task(&'a Value),
    /// A Job whose Task is not there, or that never had one.
    Job(&'a Value),
    Item(&'a WorkItem),
    Spawner(&'a Value),
    /// Foreman's.
    Workload(&'a Value),
}

impl Wanted {
    /// Reads `kind/name`, with kubectl's words for the kinds, or a name alone.
    pub(super) fn of(text: &str) -> Result<Self, Failure> {
        let (kind, name) = text.split_once('/').unwrap_or(("", text));
        let wanted = match kind.to_ascii_lowercase().as_str() {
            "task" | "tasks" | "tasks.kelos.dev" => Self::Task(name.to_owned()),
            "job" | "jobs" | "jobs.batch" => Self::Job(name.to_owned()),
            "item" | "items" | "workitem" | "workitems" | "workitems.taskgate.dev" | "wi" => {
                Self::Item(name.to_owned())
            }
            "spawner" | "spawners" | "taskspawner" | "taskspawners" | "taskspawners.kelos.dev" => {
                Self::Spawner(name.to_owned())
            }
            "workload" | "workloads" | "wl" | "workloads.foreman.llmkube.dev" => Self::Workload(name.to_owned()),
            // A key such as fixer/42, or a name.
            _ => return Ok(Self::Any(text.to_owned())),
        };
        if name.is_empty() {
            let kinds = "task/NAME, job/NAME, item/SPAWNER/ID, spawner/NAME or workload/NAME";
            return Err(Failure::Usage(format!("{text} names nothing: say {kinds}")));
        }
        Ok(wanted)
    }

    /// The object; an error that says what there is none of, or what the name can be.
    pub(super) fn find<'a>(&self, scene: &'a Scene<'_>) -> Result<Found<'a>, Failure> {
        self.look(scene)?.ok_or_else(|| {
            let hidden = scene.hidden();
            let hidden = if hidden.is_empty() {
                String::new()
            } else {
                format!(", as far as may be read: {}", hidden.join("; "))
            };
            anyhow!("there is no {} in namespace {}{hidden}", self.what(), scene.namespace).into()
        })
    }

    /// The object, if it is there; an error that says what the name can be.
    pub(super) fn look<'a>(&self, scene: &'a Scene<'_>) -> Result<Option<Found<'a>>, Failure> {
        let task = |name: &str| scene.named(Kind::Tasks, name).map(Found::Task);
        let spawner = |name: &str| scene.named(Kind::Spawners, name).map(Found::Spawner);
        let workload = |name: &str| scene.named(Kind::Workloads, name).map(Found::Workload);
        Ok(match self {
            Self::Task(name) => task(name),
            Self::Job(name) => job(scene, name),
            Self::Item(name) => item(scene, name)?,
            Self::Spawner(name) => spawner(name),
            Self::Workload(name) => workload(name),
            Self::Any(name) => match task(name) {
                None => item(scene, name)?
                    .or_else(|| spawner(name))
                    .or_else(|| workload(name))
                    .or_else(|| job(scene, name)),
                found => found,
            },
        })
    }

    fn what(&self) -> String {
        match self {
            Self::Task(name) => format!("Task {name}"),
            Self::Job(name) => format!("Job {name}"),
            Self::Item(name) => format!("item {name}"),
            Self::Spawner(name) => format!("TaskSpawner {name}"),
            Self::Workload(name) => format!("Workload {name}"),
            Self::Any(name) => format!("Task, item, TaskSpawner, Workload or Job {name}"),
        }
    }
}

/// A Task's Job is explained by its Task.
fn job<'a>(scene: &'a Scene<'_>, name: &str) -> Option<Found<'a>> {
    let job = scene.named(Kind::Jobs, name)?;
    let owner = Job::of(job).task();
    let task = owner.and_then(|owner| {
        let task = scene.named(Kind::Tasks, owner.name)?;
        (Metadata::of(task).uid() == Some(owner.uid)).then_some(task)
    });
    Some(task.map_or(Found::Job(job), Found::Task))
}

/// By the `WorkItem`'s name, else by its key, else by the id alone, where only one has it; and where nothing is remembered
/// yet, by a Task of the item.
fn item<'a>(scene: &'a Scene<'_>, wanted: &str) -> Result<Option<Found<'a>>, Failure> {
    let items = &scene.items;
    let named = items.iter().find(|item| item.metadata.name.as_deref() == Some(wanted));
    if let Some(item) = named.or_else(|| items.iter().find(|item| item.spec.key == wanted)) {
        return Ok(Some(Found::Item(item)));
    }
    let candidates: Vec<_> = items.iter().filter(|item| item.spec.item == wanted).collect();
    match candidates.as_slice() {
        [] => Ok(scene
            .objects(Kind::Tasks)
            .find(|task| is_of(task, wanted))
            .map(Found::Task)),
        [item] => Ok(Some(Found::Item(item))),
        several => {
            let keys: Vec<_> = several.iter().map(|item| item.spec.key.as_str()).collect();
            Err(Failure::Usage(format!(
                "{wanted} can be any of {}: say which",
                keys.join(", ")
            )))
        }
    }
}

fn is_of(task: &Value, item: &str) -> bool {
    Metadata::of(task).label(keys::WORK_ITEM) == Some(item)
        || identify(Task::of(task)).is_some_and(|identity| identity.key == item)
}
