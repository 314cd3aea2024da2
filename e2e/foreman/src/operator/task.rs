//! Scheduling an AgenticTask: from nothing to Pending to Scheduled, or to an end that its dependencies bring (F7, F17).

use super::Operator;
use crate::condition;
use crate::error::{Error, tolerate_gone};
use crate::keys;
use crate::merge;
use crate::types::{AgenticTask, AgenticTaskStatus};
use jiff::Timestamp;
use kelos_standin::Key;
use kelos_standin::queue::Next;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How often a task that must wait is looked at.
const WAITING: Duration = Duration::from_secs(10);
/// The one node there is.
pub(crate) const NODE: &str = "standin";

impl Operator {
    pub(super) async fn reconcile_task(&self, key: &Key) -> Result<Next, Error> {
        let Some(task) = self.tasks.get(key) else {
            return Ok(Next::Wait);
        };
        if let Some(deleted) = &task.metadata.deletion_timestamp
            && task.finalizers().iter().any(|finalizer| finalizer == keys::LINGERING)
        {
            return self.let_go(key, &task, deleted.0).await;
        }
        match task.phase() {
            "" => {
                self.write_task(key, &task, |status| "Pending".clone_into(&mut status.phase))
                    .await
            }
            "Pending" => self.schedule(key, &task).await,
            "Succeeded" | "Failed" => self.audit(key, &task).await,
            _ => Ok(Next::Wait),
        }
    }

    async fn schedule(&self, key: &Key, task: &AgenticTask) -> Result<Next, Error> {
        let dependencies = self.dependencies(key, task);
        let resolved = dependencies.iter().flatten().find(|other| other.is_already_resolved());
        if let Some(resolved) = resolved {
            let why = format!("{} found the work done", resolved.name_any());
            return self
                .end_early(key, task, "Skipped", "UpstreamAlreadyResolved", why)
                .await;
        }
        let lost = |other: &&Arc<AgenticTask>| other.has_ended() && !other.is_on_target();
        if let Some(lost) = dependencies.iter().flatten().find(lost) {
            let why = format!("{} ended with {:?}", lost.name_any(), lost.verdict());
            return self.end_early(key, task, "Failed", "UpstreamFailed", why).await;
        }
        let done = |other: &Option<Arc<AgenticTask>>| other.as_ref().is_some_and(|other| other.is_on_target());
        if !dependencies.iter().all(done) || self.is_at_limit(key, task) {
            return Ok(Next::After(WAITING));
        }
        let agent = task.spec.agent_ref.as_ref().map_or("", |agent| agent.name.as_str());
        if !agent.is_empty() && self.agents.get(&Key::new(&key.namespace, agent)).is_none() {
            let why = format!("no Agent {agent:?}");
            return self.end_early(key, task, "Failed", "AgentNotFound", why).await;
        }
        self.write_task(key, task, |status| {
            "Scheduled".clone_into(&mut status.phase);
            NODE.clone_into(&mut status.assigned_node);
            let told = format!("to {NODE}");
            condition::set(&mut status.conditions, "Scheduled", true, "FleetNodeAssigned", told);
        })
        .await
    }

    /// In the order of `dependsOn`; `None` for one that does not exist, which is waited for, for ever (F17).
    fn dependencies(&self, key: &Key, task: &AgenticTask) -> Vec<Option<Arc<AgenticTask>>> {
        let names = task.spec.depends_on.iter();
        names
            .map(|name| self.tasks.get(&Key::new(&key.namespace, name)))
            .collect()
    }

    /// Whether the Agent has as much to do as it may.
    fn is_at_limit(&self, key: &Key, task: &AgenticTask) -> bool {
        let Some(of) = &task.spec.agent_ref else {
            return false;
        };
        let agent = self.agents.get(&Key::new(&key.namespace, &of.name));
        let Some(limit) = agent.and_then(|agent| agent.spec.max_concurrent_tasks) else {
            return false;
        };
        let tasks = self.tasks.list(&key.namespace);
        let busy = tasks.iter().filter(|other| {
            other.spec.agent_ref.as_ref() == Some(of) && matches!(other.phase(), "Scheduled" | "Running" | "Verifying")
        });
        busy.count() >= limit
    }

    /// An end without an agent: `Failed`, or Succeeded with the verdict `Skipped`.
    async fn end_early(
        &self,
        key: &Key,
        task: &AgenticTask,
        how: &str,
        reason: &str,
        why: String,
    ) -> Result<Next, Error> {
        let skipped = how == "Skipped";
        self.write_task(key, task, |status| {
            let (phase, verdict) = if skipped {
                ("Succeeded", "Skipped")
            } else {
                ("Failed", "INCOMPLETE")
            };
            phase.clone_into(&mut status.phase);
            verdict.clone_into(&mut status.verdict);
            status.finished_at = Some(condition::now());
            condition::set(&mut status.conditions, how, true, reason, why);
        })
        .await
    }

    async fn write_task(
        &self,
        key: &Key,
        task: &AgenticTask,
        change: impl FnOnce(&mut AgenticTaskStatus),
    ) -> Result<Next, Error> {
        write_status(&self.client, key, task, Against::Seen, change).await?;
        Ok(Next::Wait)
    }

    /// Lets a lingering child go when its time is up.
    async fn let_go(&self, key: &Key, task: &AgenticTask, deleted: Timestamp) -> Result<Next, Error> {
        let workload = task
            .labels()
            .get(keys::WORKLOAD)
            .map(|name| Key::new(&key.namespace, name));
        let workload = workload.and_then(|workload| self.workloads.get(&workload));
        let seconds = workload.and_then(|workload| workload.annotations().get(keys::LINGERS)?.parse().ok());
        let lingers = Duration::from_secs(seconds.unwrap_or(0));
        let passed = Duration::try_from(Timestamp::now().duration_since(deleted)).unwrap_or_default();
        let left = lingers.saturating_sub(passed);
        if !left.is_zero() {
            return Ok(Next::After(left));
        }
        let finalizers: Vec<_> = task
            .finalizers()
            .iter()
            .filter(|name| *name != keys::LINGERING)
            .collect();
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        let api: Api<AgenticTask> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch(&key.name, &PatchParams::default(), &patch).await;
        tolerate_gone(patched).map_err(Error::kube("removing the finalizer of AgenticTask", key))?;
        Ok(Next::Wait)
    }
}

/// What a write to a task is checked against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// The task as it was seen: a conflict if it has changed. Foreman does not check, and has seconds between two steps;
    /// here they follow within milliseconds, so that a read of an old copy would undo the next step.
    Seen,
    /// Nothing.
    Nothing,
}

/// A merge patch of what changed in a status. A task that is gone is skipped.
pub(crate) async fn write_status(
    client: &Client,
    key: &Key,
    task: &AgenticTask,
    against: Against,
    change: impl FnOnce(&mut AgenticTaskStatus),
) -> Result<(), Error> {
    let before = task.current();
    let mut after = before.clone();
    change(&mut after);
    let old = serde_json::to_value(&before).map_err(Error::json(key))?;
    let new = serde_json::to_value(&after).map_err(Error::json(key))?;
    let Some(patch) = merge::between(&old, &new) else {
        return Ok(());
    };
    let api: Api<AgenticTask> = Api::namespaced(client.clone(), &key.namespace);
    let mut body = json!({"status": patch});
    if against == Against::Seen {
        body["metadata"] = json!({"resourceVersion": task.resource_version(), "uid": task.uid()});
    }
    let patch = Patch::Merge(body);
    let patched = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
    tolerate_gone(patched).map_err(Error::kube("writing the status of AgenticTask", key))
}
