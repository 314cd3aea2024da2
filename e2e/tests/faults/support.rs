//! A fixture of this suite: two spawners and their policies on a control plane of its own, without Kelos.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use kelos_standin::{CRDS, types::Task, types::TaskSpawner};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use taskgate_api::{WorkItem, keys};
use taskgate_e2e::{ControlPlane, KELOS, Namespace};

/// Longer than all faults together may keep taskgate from acting: what takes longer is stuck.
pub(crate) const STUCK: Duration = Duration::from_mins(4);

/// A spawner, and its limit of failures in a row; 0 for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spawner {
    pub(crate) name: &'static str,
    pub(crate) limit: u32,
}

pub(crate) const LIMITED: Spawner = Spawner {
    name: "limited",
    limit: 3,
};
pub(crate) const UNLIMITED: Spawner = Spawner {
    name: "unlimited",
    limit: 0,
};

pub(crate) struct FaultFixture {
    pub(crate) cp: ControlPlane,
    pub(crate) ns: Namespace,
    uids: HashMap<&'static str, String>,
}

impl FaultFixture {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        let ns = cp.namespace("faults").await?;
        let mut uids = HashMap::new();
        for spawner in [LIMITED, UNLIMITED] {
            let template = json!({"type": "claude-code", "credentials": {"type": "none"}, "promptTemplate": "fix"});
            let object = json!({
                "apiVersion": KELOS, "kind": "TaskSpawner", "metadata": {"name": spawner.name},
                "spec": {"when": {"githubIssues": {}}, "taskTemplate": template},
            });
            ns.apply_yaml(&object.to_string()).await?;
            let object = ns.api::<TaskSpawner>().get(spawner.name).await?;
            uids.insert(spawner.name, object.uid().context("no UID")?);
        }
        Ok(Self { cp, ns, uids })
    }

    /// Applies the policies, and waits until admission decides by them.
    pub(crate) async fn govern(&self) -> anyhow::Result<()> {
        for spawner in [LIMITED, UNLIMITED] {
            let spec = json!({
                "selector": {"spawnerNames": [spawner.name]},
                "failurePolicy": {"maxRetriesPerItem": spawner.limit},
            });
            let probe = serde_json::to_value(self.task(spawner, 0)?)?;
            self.ns.policy_for(&probe, spawner.name, spec).await?;
        }
        Ok(())
    }

    /// The Task that `spawner` would create for its item `number`, with Kelos' finalizer. Its TTL is 0.
    pub(crate) fn task(&self, spawner: Spawner, number: usize) -> anyhow::Result<Task> {
        let owner = json!({
            "apiVersion": KELOS, "kind": "TaskSpawner", "name": spawner.name,
            "uid": self.uids[spawner.name], "controller": true, "blockOwnerDeletion": true,
        });
        let metadata = json!({
            "name": format!("{}-{number}", spawner.name), "ownerReferences": [owner],
            "labels": {"kelos.dev/taskspawner": spawner.name}, "finalizers": ["kelos.dev/finalizer"],
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": number.to_string()},
        });
        let spec = json!({
            "type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}, "ttlSecondsAfterFinished": 0,
        });
        let task = json!({"apiVersion": KELOS, "kind": "Task", "metadata": metadata, "spec": spec});
        Ok(serde_json::from_value(task)?)
    }

    /// The WorkItem of an item.
    pub(crate) async fn work_item(&self, spawner: Spawner, number: usize) -> anyhow::Result<WorkItem> {
        let items = self.ns.work_items().list(&ListParams::default()).await?;
        let number = number.to_string();
        let mut items = items.into_iter();
        items
            .find(|item| item.spec.spawner.as_deref() == Some(spawner.name) && item.spec.item == number)
            .with_context(|| format!("no WorkItem of {}-{number}", spawner.name))
    }
}

/// Whether taskgate has the Task: by admission, or because it adopted the Task.
pub(crate) fn is_governed(task: &Task) -> bool {
    task.labels().contains_key(keys::WORK_ITEM)
}
