//! A control plane with taskgate, and in it namespaces with a stand-in of Kelos, a GitHub and agents each.

use anyhow::ensure;
use k8s_openapi::api::events::v1::Event;
use kelos_standin::{
    Agents, CRDS, CycleResult, GitHub, Key, Options, Outcome, Repo, Scope, Standin, client,
    types::{Task, TaskSpawner},
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, work_item::Breaker};
use taskgate_e2e::{ControlPlane, Gate, Namespace, Output, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    pub(crate) ns: Namespace,
    pub(crate) github: GitHub,
    pub(crate) standin: Standin,
    pub(crate) agents: Agents,
}

impl World {
    /// A namespace whose Tasks the policy `spec` governs.
    pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        let gate = GATE.get_or_try_init(|| Gate::start(cp)).await?;
        Self::on(cp, gate, hint, spec).await
    }

    /// The same on a control plane of one's own.
    pub(crate) async fn on(
        cp: &'static ControlPlane,
        gate: &'static Gate,
        hint: &str,
        spec: Value,
    ) -> anyhow::Result<Self> {
        let ns = cp.namespace(hint).await?;
        let github = GitHub::start().await?;
        let repo = github.repo("o", "r").clone_url();
        let workspace = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"}, "spec": {"repo": repo},
        });
        ns.apply_yaml(&workspace.to_string()).await?;
        let agents = Agents::start(cp.client(), &scope(&ns)).await;
        let standin = kelos(cp, &ns, &github).await?;
        let world = Self {
            cp,
            gate,
            ns,
            github,
            standin,
            agents,
        };
        world.policy(spec).await?;
        Ok(world)
    }

    /// Does something to Tasks while Kelos is away, and starts it anew.
    pub(crate) async fn without_kelos(
        self,
        change: impl AsyncFnOnce(Api<Task>, &Agents) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let Self {
            cp,
            gate,
            ns,
            github,
            standin,
            agents,
        } = self;
        standin.stop().await;
        change(ns.api(), &agents).await?;
        let standin = kelos(cp, &ns, &github).await?;
        Ok(Self {
            cp,
            gate,
            ns,
            github,
            standin,
            agents,
        })
    }

    /// Writes the policy, and waits until it governs Tasks.
    pub(crate) async fn policy(&self, spec: Value) -> anyhow::Result<()> {
        let mut spec = spec;
        let marker = format!("seen-{}", rand_suffix());
        spec["metadata"] = json!({"annotations": {(marker.clone()): "yes"}});
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"}, "spec": spec,
        });
        self.ns.apply_yaml(&policy.to_string()).await?;
        if spec["mode"] == "Observe" || spec["mode"] == "Warn" {
            return Ok(());
        }
        eventually("the policy is seen", PATIENCE, || async {
            let seen: Value = serde_json::from_str(&self.create(&by_hand("probe", None), true).await?.stdout_ok()?)?;
            ensure!(seen["metadata"]["annotations"][&marker] == "yes", "{seen}");
            Ok(())
        })
        .await
    }

    pub(crate) async fn create(&self, object: &Value, dry_run: bool) -> anyhow::Result<Output> {
        let dry = if dry_run { "--dry-run=server" } else { "--dry-run=none" };
        let ns = self.ns.name();
        self.cp
            .kubectl_with_input(["create", "-n", ns, dry, "-o", "json", "-f-"], &object.to_string())
            .await
    }

    pub(crate) fn repo(&self) -> Repo {
        self.github.repo("o", "r")
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.ns.name(), name)
    }

    pub(crate) fn failed_cycles(&self, spawner: &str) -> u64 {
        self.standin.cycles(&self.key(spawner), CycleResult::Failure)
    }

    /// A spawner for open issues that polls each second.
    pub(crate) async fn spawner(&self, name: &str, ttl: Option<u32>) -> anyhow::Result<()> {
        let when = json!({"githubIssues": {"pollInterval": "1s"}});
        self.spawner_when(name, when, ttl).await
    }

    pub(crate) async fn spawner_when(&self, name: &str, when: Value, ttl: Option<u32>) -> anyhow::Result<()> {
        let mut template = json!({
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Number}}",
        });
        if let Some(ttl) = ttl {
            template["ttlSecondsAfterFinished"] = ttl.into();
        }
        let spawner = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
            "spec": {"when": when, "taskTemplate": template},
        });
        self.ns.apply_yaml(&spawner.to_string()).await
    }

    /// What is told of `regarding`: reason and note of each Event.
    pub(crate) async fn events(&self, regarding: &str) -> anyhow::Result<Vec<(String, String)>> {
        let events = self.ns.api::<Event>().list(&ListParams::default()).await?;
        let of = |event: &Event| {
            let name = event.regarding.as_ref().and_then(|object| object.name.as_deref());
            name == Some(regarding)
        };
        let told = events.items.into_iter().filter(of);
        Ok(told
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect())
    }

    /// Until an Event `reason` about `regarding` says all of `parts`.
    pub(crate) async fn told(&self, regarding: &str, reason: &str, parts: &[&str]) -> anyhow::Result<()> {
        eventually(format!("{reason} about {regarding}"), PATIENCE, || async {
            let events = self.events(regarding).await?;
            let told = events
                .iter()
                .any(|(of, note)| of == reason && parts.iter().all(|part| note.contains(part)));
            ensure!(told, "{events:?}");
            Ok(())
        })
        .await
    }

    /// Fails the agent of a Task, once it runs. Returns the Task's UID.
    pub(crate) async fn fail(&self, task: &str) -> anyhow::Result<String> {
        self.end(task, Outcome::failed_at_once().with_usage("0.25", 10, 5), "Failed")
            .await
    }

    pub(crate) async fn succeed(&self, task: &str) -> anyhow::Result<String> {
        self.end(task, Outcome::succeeded(), "Succeeded").await
    }

    /// A Task that fails may be deleted before anybody sees it failed: the memory is looked at instead of its phase.
    async fn end(&self, task: &str, outcome: Outcome, _phase: &str) -> anyhow::Result<String> {
        let tasks = self.tasks();
        let running = await_object(&tasks, task, "runs", |task| {
            task.phase() == "Running" && task.metadata.deletion_timestamp.is_none()
        })
        .await?;
        self.agents.finish(self.ns.name(), task, outcome).await?;
        let uid = running.uid().unwrap_or_default();
        eventually(format!("the end of {task} is recorded"), PATIENCE, || async {
            let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
            let mut attempts = items
                .iter()
                .filter_map(|item| item.status.as_ref())
                .flat_map(|status| &status.attempts);
            ensure!(attempts.any(|attempt| attempt.uid == uid), "{items:?}");
            Ok(())
        })
        .await?;
        Ok(uid)
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    /// The one WorkItem of `item`, once `condition` holds for it.
    pub(crate) async fn item(
        &self,
        item: &str,
        what: &str,
        condition: impl Fn(&WorkItem) -> bool,
    ) -> anyhow::Result<WorkItem> {
        eventually(format!("item {item}: {what}"), PATIENCE, || async {
            let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
            let found = items.items.into_iter().find(|found| found.spec.item == item);
            let Some(found) = found else {
                anyhow::bail!("no WorkItem")
            };
            ensure!(condition(&found), "{:?}", found.status);
            Ok(found)
        })
        .await
    }

    pub(crate) async fn open(&self, item: &str) -> anyhow::Result<WorkItem> {
        self.item(item, "is open", |found| breaker(found) == Some(Breaker::Open))
            .await
    }

    /// Until there is a Task of that name that is not `old`, and it runs.
    pub(crate) async fn next(&self, name: &str, old: &str) -> anyhow::Result<Task> {
        await_object(&self.tasks(), name, "is a new Task that runs", |task| {
            task.uid().as_deref() != Some(old) && task.phase() == "Running"
        })
        .await
    }

    pub(crate) async fn condition(&self, spawner: &str, what: &str, status: &str) -> anyhow::Result<Value> {
        let found = await_object(&self.ns.api::<TaskSpawner>(), spawner, what, |spawner| {
            condition_of(spawner).is_some_and(|condition| condition["status"] == status)
        })
        .await?;
        Ok(condition_of(&found).unwrap_or_default())
    }
}

fn scope(ns: &Namespace) -> Scope {
    Scope::Namespaces(vec![ns.name().to_owned()])
}

/// A Kelos for one namespace.
async fn kelos(cp: &ControlPlane, ns: &Namespace, github: &GitHub) -> anyhow::Result<Standin> {
    let options = Options::new(scope(ns), github.url());
    Ok(Standin::start(client(cp.config())?, options).await?)
}

fn condition_of(spawner: &TaskSpawner) -> Option<Value> {
    let json = serde_json::to_value(spawner).ok()?;
    let conditions = json.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == "ItemsCircuitBroken")
        .cloned()
}

pub(crate) fn breaker(item: &WorkItem) -> Option<Breaker> {
    item.status.as_ref().and_then(|status| status.breaker)
}

pub(crate) fn failures(item: &WorkItem) -> u32 {
    item.status.as_ref().map_or(0, |status| status.consecutive_failures)
}

/// A Task made by hand, perhaps for an item.
pub(crate) fn by_hand(name: &str, item: Option<&str>) -> Value {
    let mut task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name},
        "spec": {"type": "claude-code", "prompt": "try", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"}},
    });
    if let Some(item) = item {
        task["metadata"]["annotations"] = json!({"taskgate.dev/item": item});
    }
    task
}

pub(crate) fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

fn rand_suffix() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    format!("{:x}", now.unwrap_or_default().as_nanos())
}
