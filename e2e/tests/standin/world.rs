//! A namespace with a stand-in, a GitHub and agents in it.

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::types::{Task, TaskSpawner, TaskSpawnerStatus};
use kelos_standin::{Agents, CRDS, CycleResult, CrdCapability, GitHub, Key, Options, Repo, Scope, Standin, client};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::Value;
use std::time::Duration;
use taskgate_e2e::{ControlPlane, Namespace, PATIENCE, Shared, await_object, eventually};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

/// Long enough that no test meets a second poll.
pub(crate) const NEVER: &str = "1h";

pub(crate) struct World {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) github: GitHub,
    pub(crate) standin: Standin,
    pub(crate) agents: Agents,
}

impl World {
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        let plane = PLANE.get().await?;
        let ns = plane.namespace(hint).await?;
        Self::on(plane, ns, Vec::new(), CrdCapability::Base).await
    }

    /// A Kelos that has adopted proposal 001, on a control plane of its own: CRDs are everybody's.
    pub(crate) async fn start_adopted() -> anyhow::Result<Self> {
        static PLANE: Shared = Shared::new(|| {
            let crds = kelos_standin::crds::yaml(CrdCapability::Cancellation);
            ControlPlane::builder().crds(crds.expect("the CRDs are well formed"))
        });
        let plane = PLANE.get().await?;
        let ns = plane.namespace("adopted").await?;
        Self::on(plane, ns, Vec::new(), CrdCapability::Cancellation).await
    }

    /// With more namespaces in the stand-in's view.
    pub(crate) async fn start_with(hint: &str, more: &[&Namespace]) -> anyhow::Result<Self> {
        let plane = PLANE.get().await?;
        let ns = plane.namespace(hint).await?;
        let more = more.iter().map(|ns| ns.name().to_owned()).collect();
        Self::on(plane, ns, more, CrdCapability::Base).await
    }

    async fn on(
        plane: &'static ControlPlane,
        ns: Namespace,
        more: Vec<String>,
        capability: CrdCapability,
    ) -> anyhow::Result<Self> {
        let github = GitHub::start().await?;
        ns.apply_yaml(&workspace(&github.repo("o", "r"))).await?;
        let mut names = vec![ns.name().to_owned()];
        names.extend(more);
        let scope = Scope::Namespaces(names);
        let agents = Agents::start(plane.client(), &scope).await;
        let mut options = Options::new(scope, github.url());
        options.capability = capability;
        let standin = Standin::start(client(plane.config())?, options).await?;
        Ok(Self {
            plane,
            ns,
            github,
            standin,
            agents,
        })
    }

    /// The stand-in's process dies and another takes over: it knows nothing of what the first had in mind.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let scope = Scope::Namespaces(vec![self.ns.name().to_owned()]);
        let options = Options::new(scope, self.github.url());
        let next = Standin::start(client(self.plane.config())?, options).await?;
        std::mem::replace(&mut self.standin, next).stop().await;
        Ok(())
    }

    pub(crate) fn repo(&self) -> Repo {
        self.github.repo("o", "r")
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.ns.name(), name)
    }

    pub(crate) fn cycles(&self, spawner: &str, result: CycleResult) -> u64 {
        self.standin.cycles(&self.key(spawner), result)
    }

    pub(crate) async fn await_cycles(&self, spawner: &str, result: CycleResult, at_least: u64) -> anyhow::Result<()> {
        eventually(format!("{at_least} cycles: {result:?}"), PATIENCE, async || {
            let cycles = self.cycles(spawner, result);
            ensure!(cycles >= at_least, "{cycles}");
            Ok(())
        })
        .await
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    pub(crate) fn jobs(&self) -> Api<Job> {
        self.ns.api()
    }

    pub(crate) async fn names(&self) -> anyhow::Result<Vec<String>> {
        let tasks = self.tasks().list(&ListParams::default()).await?;
        Ok(tasks.iter().map(kube::ResourceExt::name_any).collect())
    }

    pub(crate) async fn await_task(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Task) -> bool,
    ) -> anyhow::Result<Task> {
        await_object(&self.tasks(), name, what, condition).await
    }

    pub(crate) async fn await_phase(&self, name: &str, phase: &str) -> anyhow::Result<Task> {
        self.await_task(name, &format!("phase {phase}"), |task| task.phase() == phase)
            .await
    }

    /// Until the Task is there and runs; then it ends like that.
    pub(crate) async fn end(&self, name: &str, outcome: kelos_standin::Outcome) -> anyhow::Result<Task> {
        let phase = if outcome.is_success() { "Succeeded" } else { "Failed" };
        self.await_phase(name, "Running").await?;
        self.agents.finish(self.ns.name(), name, outcome).await?;
        self.await_phase(name, phase).await
    }

    pub(crate) async fn status(&self, spawner: &str) -> anyhow::Result<TaskSpawnerStatus> {
        Ok(self.ns.api::<TaskSpawner>().get(spawner).await?.current())
    }

    /// A TaskSpawner for open issues of `o/r`; `more` is YAML below `spec`.
    pub(crate) async fn spawn_issues(&self, name: &str, poll: &str, more: &str) -> anyhow::Result<()> {
        let when = format!("githubIssues: {{pollInterval: {poll}}}");
        self.spawner(name, &when, "", more).await
    }

    pub(crate) async fn spawner(&self, name: &str, when: &str, template: &str, more: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "
apiVersion: kelos.dev/v1alpha2
kind: TaskSpawner
metadata: {{name: {name}}}
spec:
  when:
    {when}
  taskTemplate:
    type: codex
    credentials: {{type: none}}
    workspaceRef: {{name: ws}}
    {template}
  {more}
"
        );
        self.ns.apply_yaml(&yaml).await
    }

    /// A Task as a user writes it; `more` is YAML below `spec`.
    pub(crate) async fn task(&self, name: &str, more: &str) -> anyhow::Result<()> {
        self.ns.apply_yaml(&task(name, more)).await
    }
}

pub(crate) fn workspace(repo: &Repo) -> String {
    let url = repo.clone_url();
    format!("{{apiVersion: kelos.dev/v1alpha2, kind: Workspace, metadata: {{name: ws}}, spec: {{repo: '{url}'}}}}")
}

pub(crate) fn task(name: &str, more: &str) -> String {
    format!(
        "
apiVersion: kelos.dev/v1alpha2
kind: Task
metadata: {{name: {name}}}
spec:
  type: codex
  prompt: Do it.
  credentials: {{type: none}}
  {more}
"
    )
}

/// A Job as a user writes it; `more` is YAML below `spec`.
pub(crate) fn job(name: &str, more: &str) -> String {
    format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  {more}
  template:
    spec:
      restartPolicy: Never
      containers: [{{name: kelos-agent, image: example.invalid/agent:1}}]
"
    )
}

pub(crate) fn condition<'a>(status: &'a TaskSpawnerStatus, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, &found.reason, &found.message))
}

/// Writes a finalizer of somebody else's, or takes it away.
pub(crate) async fn hold<K>(api: &Api<K>, name: &str, hold: bool) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    const OURS: &str = "example.com/hold";
    let object = api.get(name).await?;
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != OURS);
    if hold {
        finalizers.push(OURS.to_owned());
    }
    let patch = serde_json::json!({"metadata": {"finalizers": finalizers}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// A time surely after the Task's end, in whole seconds as GitHub keeps them.
pub(crate) fn after(task: &Task) -> anyhow::Result<Timestamp> {
    let end = task.current().completion_time.context("the Task has ended")?;
    Ok(end.0 + Duration::from_secs(2))
}

/// What somebody else writes into a status.
pub(crate) async fn write_status<K>(api: &Api<K>, name: &str, status: Value) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(serde_json::json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
