//! A control plane with taskgate, a GitHub and its proxy, shared by all tests; each has a namespace and a repository.

use anyhow::ensure;
use kelos_standin::{
    Agents, CRDS, CycleResult, GitHub, Issue, Key, Options, Outcome, Repo, Scope, Seen, SharedGitHub, Standin, client,
    types::Task,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::{TaskPolicy, WorkItem, WorkItemStatus, work_item::Breaker};
use taskgate_e2e::{ControlPlane, Gate, GateBuilder, Namespace, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();
static GITHUB: SharedGitHub = SharedGitHub::new();
/// What stands for the proxies of Workspaces: it is asked without a token.
static PROXY: SharedGitHub = SharedGitHub::new();

/// How taskgate calls itself.
pub(crate) const AGENT: &str = "taskgate/";

/// A taskgate that asks the shared GitHub, once a second.
pub(crate) async fn gate() -> anyhow::Result<GateBuilder> {
    Ok(Gate::builder()
        .serve_flag("--no-leader-election")
        .asking(GITHUB.get().await?.url())
        .serve_flag(format!("--ghproxy-url={}", PROXY.get().await?.url())))
}

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) github: &'static GitHub,
    pub(crate) proxy: &'static GitHub,
    pub(crate) standin: Standin,
    pub(crate) agents: Agents,
}

impl World {
    /// A namespace whose items are stopped after one failure and start again when they change.
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        Self::with(hint, json!({})).await
    }

    /// The same, with a Workspace that says more.
    pub(crate) async fn with(hint: &str, workspace: Value) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        GATE.get_or_try_init(|| async { gate().await?.start(cp).await }).await?;
        Self::on(cp, hint, workspace).await
    }

    pub(crate) async fn on(cp: &'static ControlPlane, hint: &str, workspace: Value) -> anyhow::Result<Self> {
        let ns = cp.namespace(hint).await?;
        let (github, proxy) = (GITHUB.get().await?, PROXY.get().await?);
        let mut spec = workspace;
        spec["repo"] = github.repo(ns.name(), "r").clone_url().into();
        let workspace = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"}, "spec": spec,
        });
        ns.apply_yaml(&workspace.to_string()).await?;
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
            "spec": {"failurePolicy": {"maxRetriesPerItem": 1, "resetOnChange": true}},
        });
        ns.apply_yaml(&policy.to_string()).await?;
        let scope = Scope::Namespaces(vec![ns.name().to_owned()]);
        let agents = Agents::start(cp.client(), &scope).await;
        let standin = Standin::start(client(cp.config())?, Options::new(scope, github.url())).await?;
        let world = Self {
            cp,
            ns,
            github,
            proxy,
            standin,
            agents,
        };
        world.governs().await?;
        Ok(world)
    }

    /// Waits until the policy is in force where Tasks are admitted.
    async fn governs(&self) -> anyhow::Result<()> {
        let probe = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
            "metadata": {"name": "probe", "annotations": {"taskgate.dev/item": "probe"}},
            "spec": {"type": "claude-code", "prompt": "p", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"}},
        });
        eventually("the policy is seen", PATIENCE, || async {
            let args = ["create", "--dry-run=server", "-o", "json", "-f-"];
            let output = self.ns.kubectl_with_input(args, &probe.to_string()).await?;
            let seen: Value = serde_json::from_str(&output.stdout_ok()?)?;
            ensure!(!seen["metadata"]["finalizers"].is_null(), "{seen}");
            Ok(())
        })
        .await
    }

    pub(crate) fn repo(&self) -> Repo {
        self.github.repo(self.ns.name(), "r")
    }

    /// A part of every path of the test's repository.
    pub(crate) fn path(&self) -> String {
        format!("/repos/{}/r", self.ns.name())
    }

    /// A spawner for open issues that polls each second.
    pub(crate) async fn spawner(&self, when: Value) -> anyhow::Result<()> {
        let template = json!({
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Number}}",
        });
        let spawner = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": "fixer"},
            "spec": {"when": when, "taskTemplate": template},
        });
        self.ns.apply_yaml(&spawner.to_string()).await
    }

    pub(crate) async fn issues(&self) -> anyhow::Result<()> {
        self.spawner(json!({"githubIssues": {"pollInterval": "1s"}})).await
    }

    /// Issue 42, whose Task failed, and whose content taskgate knows. Returns it with the Task's UID.
    pub(crate) async fn broken(&self) -> anyhow::Result<(Issue, String)> {
        let issue = self.repo().issue(42);
        self.issues().await?;
        let uid = self.fail("fixer-42").await?;
        self.baseline().await?;
        Ok((issue, uid))
    }

    /// Waits until taskgate knows what item 42 looks like since it opened.
    pub(crate) async fn baseline(&self) -> anyhow::Result<String> {
        let status = self
            .item("has a baseline", |status| {
                status.breaker == Some(Breaker::Open) && status.content_hash.is_some()
            })
            .await?;
        Ok(status.content_hash.unwrap_or_default())
    }

    /// Fails the agent of a Task, once it runs. Returns the Task's UID.
    pub(crate) async fn fail(&self, task: &str) -> anyhow::Result<String> {
        let running = await_object(&self.tasks(), task, "runs", |task| {
            task.phase() == "Running" && task.metadata.deletion_timestamp.is_none()
        })
        .await?;
        let uid = running.uid().unwrap_or_default();
        let failed = Outcome::failed_at_once();
        self.agents.finish(self.ns.name(), task, failed).await?;
        self.item("is open", |status| {
            status.breaker == Some(Breaker::Open) && status.attempts.iter().any(|attempt| attempt.uid == uid)
        })
        .await?;
        Ok(uid)
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    /// The status of the WorkItem of item 42, once `condition` holds for it.
    pub(crate) async fn item(
        &self,
        what: &str,
        condition: impl Fn(&WorkItemStatus) -> bool,
    ) -> anyhow::Result<WorkItemStatus> {
        eventually(format!("item 42 {what}"), PATIENCE, || async {
            let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
            let found = items.items.into_iter().find(|found| found.spec.item == "42");
            let Some(status) = found.and_then(|found| found.status) else {
                anyhow::bail!("no WorkItem with a status")
            };
            ensure!(condition(&status), "{status:?}");
            Ok(status)
        })
        .await
    }

    /// Until there is a Task for item 42 that is not `old`, and it runs.
    pub(crate) async fn next(&self, old: &str) -> anyhow::Result<Task> {
        await_object(&self.tasks(), "fixer-42", "is a new Task that runs", |task| {
            task.uid().as_deref() != Some(old) && task.phase() == "Running"
        })
        .await
    }

    pub(crate) fn failed_cycles(&self) -> u64 {
        self.standin
            .cycles(&Key::new(self.ns.name(), "fixer"), CycleResult::Failure)
    }

    /// What taskgate asked about the test's repository.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        asked(self.github, self.ns.name())
    }

    /// Waits until taskgate has asked about `part` of the repository after the first `before` requests.
    pub(crate) async fn asks(&self, part: &str, before: usize) -> anyhow::Result<()> {
        eventually(format!("taskgate asks for {part}"), PATIENCE, || async {
            let asked = self.asked();
            let found = asked[before..]
                .iter()
                .any(|seen| seen.path.ends_with(part) && seen.status == 200);
            ensure!(found, "{asked:?}");
            Ok(())
        })
        .await
    }

    /// The policy's condition SourceReadable, once it has this reason.
    pub(crate) async fn readable(&self, reason: &str) -> anyhow::Result<String> {
        let policies = self.ns.api::<TaskPolicy>();
        eventually(format!("SourceReadable is {reason}"), 2 * PATIENCE, || async {
            let status = policies.get("agents").await?.status.unwrap_or_default();
            let mut conditions = status.conditions.iter();
            let Some(found) = conditions.find(|condition| condition.type_ == "SourceReadable") else {
                anyhow::bail!("{status:?}")
            };
            ensure!(found.reason == reason, "{found:?}");
            ensure!((found.status == "True") == (reason == "Answered"), "{found:?}");
            Ok(found.message.clone())
        })
        .await
    }
}

/// What taskgate asked `github` about the repository of `owner`.
pub(crate) fn asked(github: &GitHub, owner: &str) -> Vec<Seen> {
    let path = format!("/repos/{owner}/");
    let mut seen = github.seen();
    seen.retain(|seen| seen.user_agent.starts_with(AGENT) && seen.path.starts_with(&path));
    seen
}
