//! What really happened, for tests that compare it with what others remember.

use crate::keys;
use crate::types::{AgenticTask, Workload};
use jiff::Timestamp;
use kelos_standin::Key;
use kube::ResourceExt;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A Workload got its first tasks. One that is Failed and childless can run again: the same UID twice (F9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The Workload's namespace.
    pub namespace: String,
    /// The Workload's name.
    pub name: String,
    /// The Workload's UID.
    pub uid: String,
    /// What its attempt annotation said.
    pub attempt: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// An agent worked on a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// The task's namespace.
    pub namespace: String,
    /// The task's name.
    pub task: String,
    /// The task's UID.
    pub uid: String,
    /// The branch that it worked on.
    pub branch: String,
    /// From when.
    pub began: Timestamp,
    /// Until when; `None` while it works, or if its process was killed.
    pub ended: Option<Timestamp>,
}

impl Execution {
    /// Whether both worked on one branch at the same time.
    pub fn collides_with(&self, other: &Self) -> bool {
        let apart = |one: &Self, other: &Self| one.ended.is_some_and(|ended| ended <= other.began);
        let same = self.namespace == other.namespace && self.branch == other.branch && self.uid != other.uid;
        same && !apart(self, other) && !apart(other, self)
    }
}

#[derive(Debug, Default)]
struct Entries {
    runs: Vec<Run>,
    executions: Vec<Execution>,
}

/// The journal of one or several stand-ins: it outlives a restart if the next one gets it too.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Entries>>);

impl Journal {
    /// All runs, oldest first.
    pub fn runs(&self) -> Vec<Run> {
        self.entries().runs.clone()
    }

    /// The runs of the Workloads of a name, oldest first.
    pub fn runs_of(&self, key: &Key) -> Vec<Run> {
        let mut runs = self.runs();
        runs.retain(|run| run.namespace == key.namespace && run.name == key.name);
        runs
    }

    /// What agents did, oldest first.
    pub fn executions(&self) -> Vec<Execution> {
        self.entries().executions.clone()
    }

    pub(crate) fn planned(&self, key: &Key, workload: &Workload) {
        let run = Run {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: workload.uid().unwrap_or_default(),
            attempt: workload.annotations().get(keys::ATTEMPT).cloned(),
            at: Timestamp::now(),
        };
        self.entries().runs.push(run);
    }

    /// Returns what [`Self::ended`] wants to have.
    pub(crate) fn began(&self, task: &AgenticTask) -> usize {
        let payload = &task.spec.payload;
        let mut entries = self.entries();
        entries.executions.push(Execution {
            namespace: task.namespace().unwrap_or_default(),
            task: task.name_any(),
            uid: task.uid().unwrap_or_default(),
            branch: payload["branch"].as_str().unwrap_or_default().to_owned(),
            began: Timestamp::now(),
            ended: None,
        });
        entries.executions.len() - 1
    }

    pub(crate) fn ended(&self, entry: usize) {
        if let Some(execution) = self.entries().executions.get_mut(entry) {
            execution.ended = Some(Timestamp::now());
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
