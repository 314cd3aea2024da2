//! What is explained and from what: the objects of a namespace, from a cluster or from files, which of them belong together, and the
//! one that the user names.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Result, anyhow, bail, ensure};
use serde_json::Value;
use taskgate_api::{
    WorkItem,
    job::Job,
    kelos::Task,
    keys,
    kueue::Workload,
    metadata::{Metadata, Owner},
    task_policy::RetriedKind,
};
use taskgate_offline::Documents;
use taskgate_policy::identify;

use super::explanation::{Explanation, Line, command};
use crate::{
    commands::{
        snapshot::{Collection, CompiledPolicies, ReadError, Snapshot},
        work_items,
    },
    exit::UsageError,
    output::ProgressLine,
};

/// The inputs of an explanation.
pub(super) struct ExplainContext<'a> {
    pub(super) namespace: &'a str,
    pub(super) policies: CompiledPolicies,
    pub(super) items: Vec<WorkItem>,
    /// The line that names the blocker of every Job, where there is one.
    pub(super) kueue: Option<Line>,
    /// The problems of the items, or of the files.
    pub(super) problems: Vec<String>,
    snapshot: &'a Snapshot,
}

impl<'a> ExplainContext<'a> {
    /// The objects of `snapshot`, which was read in `namespace`.
    pub(super) fn new(namespace: &'a str, snapshot: &'a Snapshot) -> Self {
        let (items, problem) = snapshot.work_items();
        Self {
            namespace,
            policies: CompiledPolicies::of(snapshot),
            items,
            kueue: None,
            problems: problem.into_iter().collect(),
            snapshot,
        }
    }

    pub(super) fn explanation(&self, object: &str, state: &str, lines: Vec<Line>) -> Explanation {
        Explanation::new(self.namespace, object, state, lines)
    }

    /// A command of kubectl in this namespace.
    pub(super) fn kubectl(&self, words: &[&str]) -> String {
        command(["kubectl", "-n", self.namespace].iter().chain(words).copied())
    }

    /// A command of taskgate in this namespace.
    pub(super) fn taskgate(&self, words: &[&str]) -> String {
        let words = ["taskgate"].iter().chain(words);
        command(words.chain(&["-n", self.namespace]).copied())
    }

    /// The objects of `collection`.
    pub(super) fn objects(&self, collection: Collection) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.snapshot.objects(collection).iter().map(|object| &**object)
    }

    /// The object of `collection` with this name.
    pub(super) fn named(&self, collection: Collection, name: &str) -> Option<&'a Value> {
        self.objects(collection)
            .find(|object| Metadata::of(object).name() == Some(name))
    }

    /// Why the objects of `collection` are not known.
    pub(super) fn error(&self, collection: Collection) -> Option<&ReadError> {
        self.snapshot.error(collection)
    }

    /// What could not be read.
    pub(super) fn hidden(&self) -> Vec<String> {
        let refused = |collection| Some(self.error(collection)?.message()?.to_owned());
        let refused = Collection::EXPLAIN.into_iter().filter_map(refused);
        refused.chain(self.problems.iter().cloned()).collect()
    }

    /// The Job of a Task, which Kelos gives the Task's name.
    pub(super) fn job_of(&self, task: &Value) -> Option<&'a Value> {
        let metadata = Metadata::of(task);
        let job = self.named(Collection::Jobs, metadata.name()?)?;
        let owns = |owner: Owner<'_>| Some(owner.uid) == metadata.uid();
        Job::of(job).task().is_some_and(owns).then_some(job)
    }

    /// Kueue's Workload of a Job.
    pub(super) fn workload_of(&self, job: &Value) -> Option<Workload<'a>> {
        let uid = Metadata::of(job).uid()?;
        self.objects(Collection::KueueWorkloads)
            .map(Workload::of)
            .find(|workload| workload.job().is_some_and(|owner| owner.uid == uid))
    }

    /// The item of a Task.
    pub(super) fn item_of(&self, task: &Value) -> Option<&WorkItem> {
        self.item_named(Metadata::of(task).label(keys::WORK_ITEM)?)
    }

    /// The item whose `WorkItem` has this name.
    pub(super) fn item_named(&self, name: &str) -> Option<&WorkItem> {
        self.items
            .iter()
            .find(|item| item.metadata.name.as_deref() == Some(name))
    }

    /// The Tasks of an item.
    pub(super) fn tasks_of(&self, item: &WorkItem) -> impl Iterator<Item = &'a Value> {
        let name = item.metadata.name.clone();
        self.objects(Collection::Tasks)
            .filter(move |task| name.is_some() && Metadata::of(task).label(keys::WORK_ITEM) == name.as_deref())
    }

    /// The Tasks of a spawner.
    pub(super) fn tasks_of_spawner(&self, spawner: &str) -> impl Iterator<Item = &'a Value> {
        self.objects(Collection::Tasks)
            .filter(move |task| Task::of(task).spawner() == Some(spawner))
    }
}

/// A kind of object that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExplainedKind {
    Task,
    /// Named by the name of its `WorkItem`, its key, or its id.
    Item,
    Spawner,
    /// Foreman's.
    Workload,
    Job,
}

/// The kinds with the words for them, kubectl's included. A name alone is one of the first kind that has it.
const KINDS: [(ExplainedKind, &str, &str); 5] = [
    (ExplainedKind::Task, "Task", "task tasks tasks.kelos.dev"),
    (
        ExplainedKind::Item,
        "item",
        "item items workitem workitems workitems.taskgate.dev wi",
    ),
    (
        ExplainedKind::Spawner,
        "TaskSpawner",
        "spawner spawners taskspawner taskspawners taskspawners.kelos.dev",
    ),
    (
        ExplainedKind::Workload,
        "Workload",
        "workload workloads wl workloads.foreman.llmkube.dev",
    ),
    (ExplainedKind::Job, "Job", "job jobs jobs.batch"),
];

/// An object as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectName {
    /// `None`: the name or the key alone.
    kind: Option<ExplainedKind>,
    name: String,
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
    /// Parses `kind/name`, or a name alone.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (word, name) = text.split_once('/').unwrap_or(("", text));
        let word = word.to_ascii_lowercase();
        let mut kinds = KINDS.into_iter();
        let kind = kinds.find(|(.., words)| words.split(' ').any(|known| known == word));
        ensure!(
            kind.is_none() || !name.is_empty(),
            UsageError(format!(
                "{text} names nothing; the forms are task/NAME, job/NAME, item/SPAWNER/ID, spawner/NAME or workload/NAME"
            ))
        );
        // Without a kind it is a key such as fixer/42, or a name.
        Ok(Self {
            name: kind.map_or(text, |_| name).to_owned(),
            kind: kind.map(|(kind, ..)| kind),
        })
    }

    /// The object; an error where there is none, or several.
    pub(super) fn get<'a>(&self, context: &'a ExplainContext<'_>) -> Result<FoundObject<'a>> {
        self.find(context)?.ok_or_else(|| {
            let kind = KINDS.into_iter().find(|(kind, ..)| Some(*kind) == self.kind);
            let kind = kind.map_or("Task, item, TaskSpawner, Workload or Job", |(_, title, _)| title);
            let hidden = match context.hidden().join("; ") {
                hidden if hidden.is_empty() => hidden,
                hidden => format!(", as far as may be read: {hidden}"),
            };
            anyhow!(
                "there is no {kind} {} in namespace {}{hidden}",
                self.name,
                context.namespace
            )
        })
    }

    /// The object, where there is one; an error where there are several.
    fn find<'a>(&self, context: &'a ExplainContext<'_>) -> Result<Option<FoundObject<'a>>> {
        for (kind, ..) in KINDS {
            if self.kind.is_some_and(|named| named != kind) {
                continue;
            }
            let named = |collection| context.named(collection, &self.name);
            let found = match kind {
                ExplainedKind::Task => named(Collection::Tasks).map(FoundObject::Task),
                ExplainedKind::Item => item(context, &self.name)?,
                ExplainedKind::Spawner => named(Collection::Spawners).map(FoundObject::Spawner),
                ExplainedKind::Workload => named(Collection::Workloads).map(FoundObject::Workload),
                ExplainedKind::Job => named(Collection::Jobs).map(|found| job(context, found)),
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(self.replaced(context))
    }

    /// The item of an object that taskgate has deleted and is about to create again.
    fn replaced<'a>(&self, context: &'a ExplainContext<'_>) -> Option<FoundObject<'a>> {
        let kinds: &[RetriedKind] = match self.kind {
            None => &[RetriedKind::Task, RetriedKind::Workload],
            Some(ExplainedKind::Task) => &[RetriedKind::Task],
            Some(ExplainedKind::Workload) => &[RetriedKind::Workload],
            Some(_) => &[],
        };
        let is_replaced = |item: &&WorkItem| {
            let retry = item.status.as_ref().and_then(|status| status.retry.as_ref());
            let transition = retry.and_then(|retry| retry.transition.as_ref());
            transition
                .is_some_and(|transition| transition.old.name == self.name && kinds.contains(&transition.old.kind))
        };
        context.items.iter().find(is_replaced).map(FoundObject::Item)
    }
}

/// A Task's Job is explained by its Task.
fn job<'a>(context: &'a ExplainContext<'_>, job: &'a Value) -> FoundObject<'a> {
    let task = Job::of(job).task().and_then(|owner| {
        let task = context.named(Collection::Tasks, owner.name)?;
        (Metadata::of(task).uid() == Some(owner.uid)).then_some(task)
    });
    task.map_or(FoundObject::Job(job), FoundObject::Task)
}

/// The item; where it has no WorkItem yet, a Task of it.
fn item<'a>(context: &'a ExplainContext<'_>, reference: &str) -> Result<Option<FoundObject<'a>>> {
    let item = work_items::find(&context.items, reference)?.map(FoundObject::Item);
    let is_of_item = |task: &&Value| {
        Metadata::of(task).label(keys::WORK_ITEM) == Some(reference)
            || identify(Task::of(task)).is_some_and(|identity| identity.key == reference)
    };
    let mut tasks = context.objects(Collection::Tasks);
    Ok(item.or_else(|| tasks.find(is_of_item).map(FoundObject::Task)))
}

/// The objects of files, by collection, namespace and name. Of two with the same name the later one counts.
#[derive(Debug, Default)]
pub(super) struct Files {
    objects: BTreeMap<(Collection, String, String), Arc<Value>>,
    /// What could not be read, with its location.
    pub(super) problems: Vec<String>,
}

impl Files {
    /// Reads files, folders, and `-`, standard input. Objects without a namespace are in `default`. Errors when there are no objects.
    pub(super) fn read(paths: &[PathBuf], default: &str) -> Result<Self> {
        let progress = ProgressLine::new("reading files");
        let documents = Documents::read(paths, &|done, total| progress.at(done, total));
        let mut files = Self::of(documents.objects.into_iter().map(|document| document.object), default);
        let problems = documents.unreadable.iter();
        files.problems = problems
            .map(|bad| format!("{}: {}", bad.location(), bad.message))
            .collect();
        if files.objects.is_empty() {
            let problems = match files.problems.join("; ") {
                none if none.is_empty() => none,
                problems => format!(": {problems}"),
            };
            bail!("there is nothing to explain in these files{problems}");
        }
        Ok(files)
    }

    pub(super) fn of(objects: impl IntoIterator<Item = Value>, default: &str) -> Self {
        let mut files = Self::default();
        for mut object in objects {
            let Some(collection) = Collection::of(&object) else {
                continue;
            };
            let metadata = Metadata::of(&object);
            let Some(name) = metadata.name().map(ToOwned::to_owned) else {
                continue;
            };
            let namespace = match (collection.is_namespaced(), metadata.namespace()) {
                (false, _) => String::new(),
                (true, namespace) => namespace.unwrap_or(default).to_owned(),
            };
            if collection.is_namespaced() {
                object["metadata"]["namespace"] = namespace.as_str().into();
            }
            files.objects.insert((collection, namespace, name), Arc::new(object));
        }
        files
    }

    /// The objects in `namespace`, and those without a namespace.
    pub(super) fn snapshot(&self, namespace: &str) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for collection in Collection::EXPLAIN {
            let namespace = if collection.is_namespaced() { namespace } else { "" };
            let here = self
                .objects
                .iter()
                .filter(|((of, at, _), _)| *of == collection && at == namespace);
            snapshot.put(collection, Ok(here.map(|(_, object)| object.clone()).collect()));
        }
        snapshot
    }

    /// The one namespace that has the object.
    pub(super) fn namespace_of(&self, object: &ObjectName, default: &str) -> Result<String> {
        let namespaces: BTreeSet<_> = self
            .objects
            .keys()
            .map(|(_, namespace, _)| namespace.as_str())
            .collect();
        let mut found = Vec::new();
        for namespace in namespaces.into_iter().filter(|namespace| !namespace.is_empty()) {
            let snapshot = self.snapshot(namespace);
            // An ambiguous name is in the namespace as well.
            if !matches!(object.find(&ExplainContext::new(namespace, &snapshot)), Ok(None)) {
                found.push(namespace);
            }
        }
        match found.as_slice() {
            [] => Ok(default.to_owned()),
            [namespace] => Ok((*namespace).to_owned()),
            several => Err(UsageError(format!("it is in namespaces {}: name one with -n", several.join(", "))).into()),
        }
    }
}
