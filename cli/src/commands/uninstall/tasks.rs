//! The Tasks of the whole cluster: removes taskgate's finalizer, and deletes those whose TTL has expired.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys};
use taskgate_policy::{TaskState, UninstallAction, uninstall_action};

use super::lease::FencingLease;
use crate::{
    cluster::{Connection, api_error, is_conflict, is_not_found, resource},
    flags::DryRun,
};

/// How many Tasks are read at a time.
const PAGE: u32 = 500;

/// The Tasks of the cluster, in a version that the API server serves.
pub(super) struct Tasks {
    connection: Connection,
    resource: ApiResource,
    dry_run: DryRun,
}

/// The results of the uninstall actions.
#[derive(Debug, Default)]
pub(super) struct UninstallSummary {
    released: usize,
    expired: usize,
    /// Tasks with a TTL that no controller enforces any more.
    outliving: Vec<(String, Option<Timestamp>)>,
    /// Tasks that were changed meanwhile, or have another action.
    pub(super) again: usize,
}

impl Tasks {
    /// `None` where Kelos is not installed.
    pub(super) async fn find(connection: &Connection, dry_run: DryRun) -> Result<Option<Self>> {
        let groups = connection.client.list_api_groups().await.map_err(api_error)?.groups;
        let served = groups.into_iter().find(|group| group.name == kelos::GROUP);
        let served = served.map(|group| group.versions).unwrap_or_default();
        let known = |version: &&&str| served.iter().any(|served| served.version == ***version);
        Ok(kelos::TASK_VERSIONS.iter().find(known).map(|version| Self {
            connection: connection.clone(),
            resource: resource(kelos::GROUP, version, "Task", kelos::TASKS),
            dry_run,
        }))
    }

    /// One pass over all Tasks, however long it takes: `lease` is renewed meanwhile.
    pub(super) async fn remove_finalizers(&self, lease: &mut FencingLease<'_>) -> Result<UninstallSummary> {
        let all = self.connection.api(&self.resource, None);
        let mut summary = UninstallSummary::default();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = all.list(&page).await.map_err(api_error).context("reading Tasks")?;
            for task in &listed.items {
                lease.keep().await?;
                self.act(task, &mut summary).await?;
            }
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        // Only now it is known that no replica led meanwhile.
        lease.keep().await?;
        Ok(summary)
    }

    async fn act(&self, task: &DynamicObject, summary: &mut UninstallSummary) -> Result<()> {
        let object = serde_json::to_value(task).context("reading a Task")?;
        let Some(state) = TaskState::of(&object) else {
            return Ok(());
        };
        let name = format!("{}/{}", task.namespace().unwrap_or_default(), state.name);
        let done = match uninstall_action(&state, Timestamp::now()) {
            UninstallAction::Nothing => return Ok(()),
            UninstallAction::Outlives { due } => {
                summary.outliving.push((name, due));
                return Ok(());
            }
            UninstallAction::RemoveFinalizer { ttl } => self.release(task, ttl).await.map(|()| {
                summary.released += 1;
                // The next pass shows whether the TTL is back in the spec.
                summary.again += usize::from(ttl.is_some());
            }),
            UninstallAction::Expire if state.has_finalizer => self.release(task, None).await.map(|()| {
                summary.released += 1;
                summary.again += 1;
            }),
            UninstallAction::Expire => self.delete(task).await.map(|()| summary.expired += 1),
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) if is_conflict(&error) => {
                summary.again += 1;
                Ok(())
            }
            Err(error) => Err(api_error(error).context(format!("removing the finalizer of Task {name}"))),
        }
    }

    /// Removes taskgate's finalizer, and restores `ttl` where the spec can be changed.
    async fn release(&self, task: &DynamicObject, ttl: Option<u32>) -> kube::Result<()> {
        let kept: Vec<_> = task
            .finalizers()
            .iter()
            .filter(|one| *one != keys::ACCOUNTING)
            .collect();
        let mut patch = json!({"metadata": {
            "uid": task.metadata.uid,
            "resourceVersion": task.metadata.resource_version,
            "finalizers": kept,
        }});
        if let Some(ttl) = ttl {
            let mut with_ttl = patch.clone();
            with_ttl["spec"] = json!({"ttlSecondsAfterFinished": ttl});
            with_ttl["metadata"]["annotations"] = json!({keys::TTL: Value::Null});
            match self.patch(task, &with_ttl).await {
                // The specs of Tasks are immutable in every known Kelos.
                Err(kube::Error::Api(status)) if status.code == 422 => {}
                done => return done,
            }
        }
        if task.finalizers().is_empty() {
            patch["metadata"]["finalizers"] = Value::Null;
        }
        self.patch(task, &patch).await
    }

    async fn patch(&self, task: &DynamicObject, patch: &Value) -> kube::Result<()> {
        if self.dry_run.is_client() {
            return Ok(());
        }
        let (params, patch) = (self.dry_run.patch(PatchParams::default()), Patch::Merge(patch));
        self.api(task).patch(&task.name_any(), &params, &patch).await.map(drop)
    }

    async fn delete(&self, task: &DynamicObject) -> kube::Result<()> {
        if self.dry_run.is_client() {
            return Ok(());
        }
        let seen = DeleteParams {
            preconditions: Some(Preconditions {
                uid: task.metadata.uid.clone(),
                resource_version: task.metadata.resource_version.clone(),
            }),
            ..DeleteParams::background()
        };
        let params = self.dry_run.delete(seen);
        self.api(task).delete(&task.name_any(), &params).await.map(drop)
    }

    fn api(&self, task: &DynamicObject) -> Api<DynamicObject> {
        self.connection.api(&self.resource, task.namespace().as_deref())
    }
}

impl UninstallSummary {
    pub(super) fn add(&mut self, later: Self) {
        self.released += later.released;
        self.expired += later.expired;
        self.outliving = later.outliving;
    }

    /// The summary as text.
    pub(super) fn text(&self, dry_run: DryRun) -> String {
        let mut text = format!(
            "removed the finalizer of {} Tasks, deleted {} whose TTL had expired{}\n",
            self.released,
            self.expired,
            dry_run.suffix()
        );
        if self.outliving.is_empty() {
            return text;
        }
        let _ = writeln!(
            text,
            "{} Tasks have a TTL that no controller enforces any more, because their spec cannot be changed; run this again when it \
             is over, or delete them:",
            self.outliving.len()
        );
        for (name, due) in &self.outliving {
            let due = due.map_or_else(|| "under way".to_owned(), |due| format!("due at {due}"));
            let _ = writeln!(text, "  {name} ({due})");
        }
        text
    }
}
