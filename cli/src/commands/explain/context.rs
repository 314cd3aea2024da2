//! The objects of a namespace, and which of them belong together.

use serde_json::Value;
use taskgate_api::{
    WorkItem,
    job::Job,
    kelos::Task,
    keys,
    kueue::Workload,
    metadata::{Metadata, Owner},
};

use super::{
    explanation::{Explanation, Line, command},
    kueue::KueueHealth,
};
use crate::commands::snapshot::{Collection, CompiledPolicies, ReadError, Snapshot};

/// The inputs of an explanation.
pub(super) struct ExplainContext<'a> {
    pub(super) namespace: &'a str,
    pub(super) policies: CompiledPolicies,
    pub(super) items: Vec<WorkItem>,
    pub(super) kueue: KueueHealth,
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
            kueue: KueueHealth::Unknown,
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
