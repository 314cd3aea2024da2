//! A fixture of this suite: Kelos without taskgate, with a GitHub of its own, on which tests set limits and faults.

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kelos_standin::types::{Task, TaskSpawner, TaskSpawnerStatus};
use kelos_standin::{CRDS, CrdCapability, CycleResult, GitHub, Outcome, crds};
use kube::ResourceExt;
use kube::api::ListParams;
use taskgate_e2e::{ControlPlane, KelosBuilder, KelosNamespace, Namespace, PATIENCE, Shared, eventually};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

/// Long enough that no test meets a second poll.
pub(crate) const NEVER: &str = "1h";

pub(crate) async fn plane() -> anyhow::Result<&'static ControlPlane> {
    PLANE.get().await
}

pub(crate) struct StandinFixture {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) ns: KelosNamespace,
}

impl StandinFixture {
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        Self::start_as(plane().await?, hint, KelosNamespace::builder()).await
    }

    /// With further namespaces in the stand-in's view.
    pub(crate) async fn start_with(hint: &str, more: &[&Namespace]) -> anyhow::Result<Self> {
        Self::start_as(plane().await?, hint, KelosNamespace::builder().watching(more)).await
    }

    /// A Kelos that has adopted the proposal on cancellation, on a control plane of its own, which has other CRDs.
    pub(crate) async fn start_with_cancellation() -> anyhow::Result<Self> {
        static PLANE: Shared = Shared::new(|| {
            let crds = crds::yaml(CrdCapability::Cancellation);
            ControlPlane::builder().crds(crds.expect("the CRDs are well formed"))
        });
        let builder = KelosNamespace::builder().capability(CrdCapability::Cancellation);
        Self::start_as(PLANE.get().await?, "cancellation", builder).await
    }

    async fn start_as(cp: &'static ControlPlane, hint: &str, builder: KelosBuilder) -> anyhow::Result<Self> {
        // It lives as long as the process: tests borrow it.
        let github: &'static GitHub = Box::leak(Box::new(GitHub::start().await?));
        let ns = builder.github(github).start(cp.namespace(hint).await?).await?;
        Ok(Self { cp, ns })
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

    /// The names of all Tasks.
    pub(crate) async fn names(&self) -> anyhow::Result<Vec<String>> {
        let tasks = self.tasks().list(&ListParams::default()).await?;
        Ok(tasks.iter().map(ResourceExt::name_any).collect())
    }

    /// Ends the agent of a Task, once it runs; the Task in its last phase.
    pub(crate) async fn end(&self, name: &str, outcome: Outcome) -> anyhow::Result<Task> {
        let phase = if outcome.is_success() { "Succeeded" } else { "Failed" };
        self.await_task_phase(name, "Running").await?;
        self.finish(name, outcome).await?;
        self.await_task_phase(name, phase).await
    }

    pub(crate) async fn status(&self, spawner: &str) -> anyhow::Result<TaskSpawnerStatus> {
        Ok(self.api::<TaskSpawner>().get(spawner).await?.current())
    }

    /// Applies a TaskSpawner for open issues; `more` is YAML below `spec`.
    pub(crate) async fn spawn_issues(&self, name: &str, poll: &str, more: &str) -> anyhow::Result<()> {
        let when = format!("githubIssues: {{pollInterval: {poll}}}");
        self.spawner(name, &when, "", more).await
    }

    /// Applies a TaskSpawner; all but its name is YAML.
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
    workspaceRef: {{name: repo}}
    {template}
  {more}
"
        );
        self.apply_yaml(&yaml).await
    }

    /// Applies a Task as a user writes it; `more` is YAML below `spec`.
    pub(crate) async fn task(&self, name: &str, more: &str) -> anyhow::Result<()> {
        self.apply_yaml(&task(name, more)).await
    }
}

impl Deref for StandinFixture {
    type Target = KelosNamespace;

    fn deref(&self) -> &KelosNamespace {
        &self.ns
    }
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

/// Status, reason and message of a condition.
pub(crate) fn condition<'a>(status: &'a TaskSpawnerStatus, type_: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, &found.reason, &found.message))
}

/// A time surely after the Task's end, in whole seconds as GitHub keeps them.
pub(crate) fn after(task: &Task) -> anyhow::Result<Timestamp> {
    let end = task.current().completion_time.context("the Task has ended")?;
    Ok(end.0 + Duration::from_secs(2))
}
