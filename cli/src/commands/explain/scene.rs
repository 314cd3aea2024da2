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

use super::culprit::Kueue;
use crate::commands::snapshot::{Kind, Policies, Snapshot, Trouble, items};

/// Everything that a story is made from.
pub(super) struct Scene<'a> {
    pub(super) namespace: &'a str,
    pub(super) policies: Policies,
    pub(super) items: Vec<WorkItem>,
    pub(super) kueue: Kueue,
    /// What is wrong with the items, or with the files.
    pub(super) problems: Vec<String>,
    snapshot: &'a Snapshot,
}

impl<'a> Scene<'a> {
    /// The objects of `snapshot`, which was taken of `namespace`.
    pub(super) fn new(namespace: &'a str, snapshot: &'a Snapshot) -> Self {
        let (items, unreadable) = items(snapshot);
        Self {
            namespace,
            policies: Policies::of(snapshot),
            items,
            kueue: Kueue::Unknown,
            problems: unreadable.into_iter().collect(),
            snapshot,
        }
    }

    /// The objects of `kind`.
    pub(super) fn objects(&self, kind: Kind) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.snapshot.objects(kind).iter().map(|object| &**object)
    }

    /// The object of `kind` called `name`.
    pub(super) fn named(&self, kind: Kind, name: &str) -> Option<&'a Value> {
        self.objects(kind)
            .find(|object| Metadata::of(object).name() == Some(name))
    }

    /// Whether the API server does not know `kind` at all.
    pub(super) fn is_absent(&self, kind: Kind) -> bool {
        self.snapshot.trouble(kind) == Some(&Trouble::Absent)
    }

    /// Whether the objects of `kind` are known.
    pub(super) fn is_known(&self, kind: Kind) -> bool {
        self.snapshot.trouble(kind).is_none()
    }

    /// What may not be read, in the API server's words, or cannot.
    pub(super) fn hidden(&self) -> Vec<String> {
        let said = |kind: Kind| match self.snapshot.trouble(kind)? {
            Trouble::Absent => None,
            Trouble::Said(message) => Some(message.clone()),
        };
        let refused = Kind::ALL.into_iter().filter_map(said);
        refused.chain(self.problems.iter().cloned()).collect()
    }

    /// The Job of a Task: Kelos calls it as the Task (kelos §6.3).
    pub(super) fn job_of(&self, task: &Value) -> Option<&'a Value> {
        let metadata = Metadata::of(task);
        let job = self.named(Kind::Jobs, metadata.name()?)?;
        let owns = |owner: Owner<'_>| Some(owner.uid) == metadata.uid();
        Job::of(job).task().is_some_and(owns).then_some(job)
    }

    /// Kueue's Workload of a Job.
    pub(super) fn workload_of(&self, job: &Value) -> Option<Workload<'a>> {
        let uid = Metadata::of(job).uid()?;
        self.objects(Kind::QueuedWorkloads)
            .map(Workload::of)
            .find(|workload| workload.job().is_some_and(|owner| owner.uid == uid))
    }

    /// The item of a Task.
    pub(super) fn item_of(&self, task: &Value) -> Option<&WorkItem> {
        self.item_named(Metadata::of(task).label(keys::WORK_ITEM)?)
    }

    /// The item whose `WorkItem` is called `name`.
    pub(super) fn item_named(&self, name: &str) -> Option<&WorkItem> {
        self.items
            .iter()
            .find(|item| item.metadata.name.as_deref() == Some(name))
    }

    /// The Tasks of an item.
    pub(super) fn tasks_of(&self, item: &WorkItem) -> impl Iterator<Item = &'a Value> {
        let name = item.metadata.name.clone();
        self.objects(Kind::Tasks)
            .filter(move |task| name.is_some() && Metadata::of(task).label(keys::WORK_ITEM) == name.as_deref())
    }

    /// The Tasks of a spawner.
    pub(super) fn tasks_of_spawner(&self, spawner: &str) -> impl Iterator<Item = &'a Value> {
        self.objects(Kind::Tasks)
            .filter(move |task| Task::of(task).spawner() == Some(spawner))
    }
}
