//! The object that a user names.

use anyhow::anyhow;
use serde_json::Value;
use taskgate_api::{WorkItem, job::Job, kelos::Task, keys, metadata::Metadata, task_policy::RetriedKind};
use taskgate_policy::identify;

use super::context::ExplainContext;
use crate::{
    commands::{snapshot::Collection, work_items},
    exit::CommandError,
};

/// An object as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ObjectName {
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

/// The object that was found.
#[derive(Clone, Copy, Debug)]
pub(super) enum FoundObject<'a> {
    Task(&'a Value),
    /// A Job without a Task.
    Job(&'a Value),
    Item(&'a WorkItem),
    Spawner(&'a Value),
    /// Foreman's.
    Workload(&'a Value),
}

impl ObjectName {
    /// Parses `kind/name`, with kubectl's names for the kinds, or a name alone.
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let (kind, name) = text.split_once('/').unwrap_or(("", text));
        let object = match kind.to_ascii_lowercase().as_str() {
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
            return Err(CommandError::Usage(format!(
                "{text} names nothing; the forms are {kinds}"
            )));
        }
        Ok(object)
    }

    /// The object; an error where there is none, or several.
    pub(super) fn get<'a>(&self, context: &'a ExplainContext<'_>) -> Result<FoundObject<'a>, CommandError> {
        self.find(context)?.ok_or_else(|| {
            let hidden = context.hidden();
            let hidden = if hidden.is_empty() {
                String::new()
            } else {
                format!(", as far as may be read: {}", hidden.join("; "))
            };
            anyhow!(
                "there is no {} in namespace {}{hidden}",
                self.title(),
                context.namespace
            )
            .into()
        })
    }

    /// The object, where there is one; an error where there are several.
    pub(super) fn find<'a>(&self, context: &'a ExplainContext<'_>) -> Result<Option<FoundObject<'a>>, CommandError> {
        let task = |name: &str| context.named(Collection::Tasks, name).map(FoundObject::Task);
        let spawner = |name: &str| context.named(Collection::Spawners, name).map(FoundObject::Spawner);
        let workload = |name: &str| context.named(Collection::Workloads, name).map(FoundObject::Workload);
        Ok(match self {
            Self::Task(name) => task(name).or_else(|| replaced(context, name, &[RetriedKind::Task])),
            Self::Job(name) => job(context, name),
            Self::Item(name) => item(context, name)?,
            Self::Spawner(name) => spawner(name),
            Self::Workload(name) => workload(name).or_else(|| replaced(context, name, &[RetriedKind::Workload])),
            Self::Any(name) => match task(name) {
                None => item(context, name)?
                    .or_else(|| spawner(name))
                    .or_else(|| workload(name))
                    .or_else(|| job(context, name))
                    .or_else(|| replaced(context, name, &[RetriedKind::Task, RetriedKind::Workload])),
                found => found,
            },
        })
    }

    fn title(&self) -> String {
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
fn job<'a>(context: &'a ExplainContext<'_>, name: &str) -> Option<FoundObject<'a>> {
    let job = context.named(Collection::Jobs, name)?;
    let owner = Job::of(job).task();
    let task = owner.and_then(|owner| {
        let task = context.named(Collection::Tasks, owner.name)?;
        (Metadata::of(task).uid() == Some(owner.uid)).then_some(task)
    });
    Some(task.map_or(FoundObject::Job(job), FoundObject::Task))
}

/// The item of an object that taskgate has deleted and is about to create again.
fn replaced<'a>(context: &'a ExplainContext<'_>, name: &str, kinds: &[RetriedKind]) -> Option<FoundObject<'a>> {
    let is_replaced = |item: &&WorkItem| {
        let retry_status = item.status.as_ref().and_then(|status| status.retry.as_ref());
        let transition = retry_status.and_then(|retry_status| retry_status.transition.as_ref());
        transition.is_some_and(|transition| transition.old.name == name && kinds.contains(&transition.old.kind))
    };
    context.items.iter().find(is_replaced).map(FoundObject::Item)
}

/// The item; where it has no WorkItem yet, a Task of it.
fn item<'a>(context: &'a ExplainContext<'_>, reference: &str) -> Result<Option<FoundObject<'a>>, CommandError> {
    let item = work_items::find(&context.items, reference)?.map(FoundObject::Item);
    let mut tasks = context.objects(Collection::Tasks);
    Ok(item.or_else(|| tasks.find(|task| is_of(task, reference)).map(FoundObject::Task)))
}

fn is_of(task: &Value, item: &str) -> bool {
    Metadata::of(task).label(keys::WORK_ITEM) == Some(item)
        || identify(Task::of(task)).is_some_and(|identity| identity.key == item)
}
