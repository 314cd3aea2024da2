//! The Tasks of the whole cluster, and how each is let go.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, Preconditions},
};
use serde_json::{Value, json};
use taskgate_api::{kelos, keys};
use taskgate_policy::{TaskState, UninstallAction, uninstall_action};

use super::{
    super::{Connection, said},
    Mode,
    fence::Fence,
};

/// How many Tasks are read at a time.
const PAGE: u32 = 500;

/// The Tasks of the cluster, in a version that it serves.
pub(super) struct Tasks {
    client: Client,
    kind: ApiResource,
    mode: Mode,
}

/// What was done with them.
#[derive(Debug, Default)]
pub(super) struct Sum {
    released: usize,
    expired: usize,
    /// Those whose TTL nobody keeps, as they were last seen.
    outliving: Vec<(String, Option<Timestamp>)>,
    /// Those that somebody changed meanwhile, or that are to be looked at once more.
    pub(super) again: usize,
}

impl Tasks {
    /// `None` where Kelos is not installed.
    pub(super) async fn find(connection: &Connection, mode: Mode) -> Result<Option<Self>> {
        let client = connection.client.clone();
        let groups = client.list_api_groups().await.map_err(said)?.groups;
        let served = groups.into_iter().find(|group| group.name == kelos::GROUP);
        let served = served.map(|group| group.versions).unwrap_or_default();
        let known = |version: &&&str| served.iter().any(|served| served.version == ***version);
        Ok(kelos::TASK_VERSIONS.iter().find(known).map(|version| Self {
            client,
            kind: ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk(kelos::GROUP, version, "Task"),
                kelos::TASKS,
            ),
            mode,
        }))
    }

    /// One look at all of them, however long it takes: `fence` is kept meanwhile.
    pub(super) async fn let_go(&self, fence: &mut Fence<'_>) -> Result<Sum> {
        let all = Api::<DynamicObject>::all_with(self.client.clone(), &self.kind);
        let mut sum = Sum::default();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = all.list(&page).await.map_err(said).context("reading Tasks")?;
            for task in &listed.items {
                fence.keep().await?;
                self.part(task, &mut sum).await?;
            }
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        // Only now is it known that no replica led in the meantime.
        fence.keep().await?;
        Ok(sum)
    }

    async fn part(&self, task: &DynamicObject, sum: &mut Sum) -> Result<()> {
        let object = serde_json::to_value(task).context("reading a Task")?;
        let Some(state) = TaskState::of(&object) else {
            return Ok(());
        };
        let name = format!("{}/{}", task.namespace().unwrap_or_default(), state.name);
        let done = match uninstall_action(&state, Timestamp::now()) {
            UninstallAction::Nothing => return Ok(()),
            UninstallAction::Outlives { due } => {
                sum.outliving.push((name, due));
                return Ok(());
            }
            UninstallAction::RemoveFinalizer { ttl } => self.release(task, ttl).await.map(|()| {
                sum.released += 1;
                // Whether its TTL is back in its spec is seen with the next look.
                sum.again += usize::from(ttl.is_some());
            }),
            UninstallAction::Expire if state.has_finalizer => self.release(task, None).await.map(|()| {
                sum.released += 1;
                sum.again += 1;
            }),
            UninstallAction::Expire => self.delete(task).await.map(|()| sum.expired += 1),
        };
        match done {
            Ok(()) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                sum.again += 1;
                Ok(())
            }
            Err(error) => Err(said(error).context(format!("letting go of Task {name}"))),
        }
    }

    /// Takes our finalizer off, and gives `ttl` back if the spec takes it.
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
                // Specs of Tasks are immutable in every Kelos that we know (kelos §2.1).
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
        let (api, patch) = (self.of(task), Patch::Merge(patch));
        api.patch(&task.name_any(), &self.mode.patch(), &patch).await.map(drop)
    }

    async fn delete(&self, task: &DynamicObject) -> kube::Result<()> {
        let seen = DeleteParams {
            preconditions: Some(Preconditions {
                uid: task.metadata.uid.clone(),
                resource_version: task.metadata.resource_version.clone(),
            }),
            ..DeleteParams::background()
        };
        let params = self.mode.delete(seen);
        self.of(task).delete(&task.name_any(), &params).await.map(drop)
    }

    fn of(&self, task: &DynamicObject) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &task.namespace().unwrap_or_default(), &self.kind)
    }
}

impl Sum {
    pub(super) fn add(&mut self, later: Self) {
        self.released += later.released;
        self.expired += later.expired;
        self.outliving = later.outliving;
    }

    /// For a person.
    pub(super) fn told(&self, mode: Mode) -> String {
        let mut text = format!(
            "let go of {} Tasks, deleted {} whose TTL had run out{}\n",
            self.released,
            self.expired,
            mode.told()
        );
        if self.outliving.is_empty() {
            return text;
        }
        let _ = writeln!(
            text,
            "{} Tasks have a TTL that nobody keeps any more, because their spec cannot be changed; run this again when it is \
             over, or delete them:",
            self.outliving.len()
        );
        for (name, due) in &self.outliving {
            let due = due.map_or_else(|| "under way".to_owned(), |due| format!("due at {due}"));
            let _ = writeln!(text, "  {name} ({due})");
        }
        text
    }
}
