//! A control plane of its own with taskgate, two spawners and their policies, and words to write Tasks that survive an API
//! server that is away now and then.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kelos_standin::{
    CRDS,
    types::{Task, TaskSpawner},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, keys};
use taskgate_e2e::{ControlPlane, Namespace, PATIENCE, eventually};
use tokio::sync::watch;

/// Longer than all faults together may keep taskgate from acting. What takes longer is stuck.
pub(crate) const STUCK: Duration = Duration::from_mins(4);
/// Between two tries, and between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A spawner, and how often its items may fail in a row; 0: as often as they like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spawner {
    pub(crate) name: &'static str,
    pub(crate) limit: u32,
}

pub(crate) const CAPPED: Spawner = Spawner {
    name: "capped",
    limit: 3,
};
pub(crate) const ENDLESS: Spawner = Spawner {
    name: "endless",
    limit: 0,
};

pub(crate) struct World {
    pub(crate) cp: ControlPlane,
    pub(crate) ns: Namespace,
    uids: HashMap<&'static str, String>,
}

impl World {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        let ns = cp.namespace("faults").await?;
        let mut uids = HashMap::new();
        for spawner in [CAPPED, ENDLESS] {
            let template = json!({"type": "claude-code", "credentials": {"type": "none"}, "promptTemplate": "fix"});
            let object = json!({
                "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": spawner.name},
                "spec": {"when": {"githubIssues": {}}, "taskTemplate": template},
            });
            ns.apply_yaml(&object.to_string()).await?;
            let object = ns.api::<TaskSpawner>().get(spawner.name).await?;
            uids.insert(spawner.name, object.uid().context("no UID")?);
        }
        Ok(Self { cp, ns, uids })
    }

    /// Writes the policies, and waits until they govern.
    pub(crate) async fn govern(&self) -> anyhow::Result<()> {
        for spawner in [CAPPED, ENDLESS] {
            let policy = json!({
                "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": spawner.name},
                "spec": {
                    "selector": {"spawnerNames": [spawner.name]},
                    "failurePolicy": {"maxRetriesPerItem": spawner.limit},
                },
            });
            self.ns.apply_yaml(&policy.to_string()).await?;
            let probe = self.task(spawner, 0)?;
            let dry_run = kube::api::PostParams {
                dry_run: true,
                ..Default::default()
            };
            eventually("the policy governs", PATIENCE, || async {
                let seen = self.tasks().create(&dry_run, &probe).await?;
                ensure!(is_known(&seen), "{:?}", seen.metadata);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    /// The Task that `spawner` would make for its item `number`, with the finalizer that Kelos puts on it. Its TTL is 0.
    pub(crate) fn task(&self, spawner: Spawner, number: usize) -> anyhow::Result<Task> {
        let owner = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "name": spawner.name,
            "uid": self.uids[spawner.name], "controller": true, "blockOwnerDeletion": true,
        });
        let metadata = json!({
            "name": format!("{}-{number}", spawner.name), "ownerReferences": [owner],
            "labels": {"kelos.dev/taskspawner": spawner.name}, "finalizers": ["kelos.dev/finalizer"],
            "annotations": {"kelos.dev/source-kind": "issue", "kelos.dev/source-number": number.to_string()},
        });
        let task: Value = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": metadata,
            "spec": {
                "type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}, "ttlSecondsAfterFinished": 0,
            },
        });
        Ok(serde_json::from_value(task)?)
    }

    /// The memory of an item.
    pub(crate) async fn memory(&self, spawner: Spawner, number: usize) -> anyhow::Result<WorkItem> {
        let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
        let number = number.to_string();
        let mut items = items.items.into_iter();
        items
            .find(|item| item.spec.spawner.as_deref() == Some(spawner.name) && item.spec.item == number)
            .with_context(|| format!("no WorkItem of {}-{number}", spawner.name))
    }

    /// Looks at the Tasks over and over, for all who wait for one of them.
    pub(crate) async fn look(&self, seen: &watch::Sender<Seen>) -> Infallible {
        let tasks = self.tasks();
        loop {
            let asked = Instant::now();
            // While the API server is away there is nothing to tell.
            if let Ok(list) = tasks.list(&ListParams::default()).await {
                let tasks = list.items.into_iter().map(|task| (task.name_any(), task)).collect();
                seen.send_replace(Seen { asked, tasks });
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// All Tasks, as they were at some moment after `asked`.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) asked: Instant,
    pub(crate) tasks: HashMap<String, Task>,
}

impl Seen {
    /// Before the first look.
    pub(crate) fn nothing() -> watch::Sender<Self> {
        watch::Sender::new(Self {
            asked: Instant::now(),
            tasks: HashMap::new(),
        })
    }
}

/// Whether taskgate has seen the Task: at admission, or when it adopted it.
pub(crate) fn is_known(task: &Task) -> bool {
    task.labels().contains_key(keys::WORK_ITEM)
}

/// Asks until somebody answers for sure: an API server that was killed may have done what it was asked, or not.
pub(crate) async fn answered<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> kube::Result<T>,
) -> anyhow::Result<Result<T, u16>> {
    let began = Instant::now();
    loop {
        let error = match ask().await {
            Ok(done) => return Ok(Ok(done)),
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                ensure!(matches!(status.code, 404 | 409), "{what}: {status:?}");
                return Ok(Err(status.code));
            }
            Err(error) => error,
        };
        if began.elapsed() > STUCK {
            return Err(error).with_context(|| format!("{what}: no answer for {STUCK:?}"));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
