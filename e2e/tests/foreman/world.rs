//! A namespace with Agents and a stand-in of Foreman in it.

use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{CRDS, Foreman, Options, Outcome, client, keys};
use kelos_standin::{Key, Scope};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Namespace, PATIENCE, Shared, await_object, eventually};

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));

/// The issues shortcut with all three roles.
pub(crate) const ISSUE: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}, \
    verifierAgentRef: {name: gate}, reviewerAgentRefs: [{name: reviewer}]";
/// A coder alone: one child.
pub(crate) const CODER: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}";

const AGENTS: &str = "
apiVersion: foreman.llmkube.dev/v1alpha1
kind: Agent
metadata: {name: coder}
spec: {role: coder, tools: [bash]}
---
apiVersion: foreman.llmkube.dev/v1alpha1
kind: Agent
metadata: {name: gate}
spec: {role: verifier, tools: [run_gate_job]}
---
apiVersion: foreman.llmkube.dev/v1alpha1
kind: Agent
metadata: {name: reviewer}
spec: {role: reviewer, tools: [read_file]}
---
apiVersion: foreman.llmkube.dev/v1alpha1
kind: Agent
metadata: {name: jobber}
spec: {role: coder, tools: [bash], execution: {mode: Job, image: example.com/agent}}
";

pub(crate) struct World {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) foreman: Foreman,
    options: Options,
}

impl World {
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        Self::start_with(hint, |_| {}).await
    }

    pub(crate) async fn start_with(hint: &str, change: impl FnOnce(&mut Options)) -> anyhow::Result<Self> {
        let plane = PLANE.get().await?;
        let ns = plane.namespace(hint).await?;
        ns.apply_yaml(AGENTS).await?;
        let mut options = Options::new(Scope::Namespaces(vec![ns.name().to_owned()]));
        change(&mut options);
        let foreman = Foreman::start(client(plane.config())?, options.clone()).await?;
        Ok(Self {
            plane,
            ns,
            foreman,
            options,
        })
    }

    /// Operator and agent die, something happens, and others take over.
    pub(crate) async fn restart(
        self,
        meanwhile: impl AsyncFnOnce(&Namespace) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        self.foreman.stop().await;
        meanwhile(&self.ns).await?;
        let foreman = Foreman::start(client(self.plane.config())?, self.options.clone()).await?;
        Ok(Self { foreman, ..self })
    }

    pub(crate) fn workloads(&self) -> Api<Workload> {
        self.ns.api()
    }

    pub(crate) fn tasks(&self) -> Api<AgenticTask> {
        self.ns.api()
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(self.ns.name(), name)
    }

    /// A Workload as a user writes it; `more` are further fields of its spec.
    pub(crate) async fn workload(&self, name: &str, more: &str) -> anyhow::Result<()> {
        self.ns.apply_yaml(&workload(name, more)).await
    }

    /// One more coder.
    pub(crate) async fn agent(&self, name: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "{{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {{name: {name}}}, \
             spec: {{role: coder, tools: [bash]}}}}"
        );
        self.ns.apply_yaml(&yaml).await
    }

    pub(crate) async fn children(&self, workload: &str) -> anyhow::Result<Vec<AgenticTask>> {
        let of_it = ListParams::default().labels(&format!("{}={workload}", keys::WORKLOAD));
        Ok(self.tasks().list(&of_it).await?.items)
    }

    pub(crate) async fn await_workload(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Workload) -> bool,
    ) -> anyhow::Result<Workload> {
        await_object(&self.workloads(), name, what, condition).await
    }

    pub(crate) async fn await_phase(&self, name: &str, phase: &str) -> anyhow::Result<Workload> {
        let there = |workload: &Workload| workload.phase() == phase;
        self.await_workload(name, &format!("phase {phase}"), there).await
    }

    pub(crate) async fn await_task(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&AgenticTask) -> bool,
    ) -> anyhow::Result<AgenticTask> {
        await_object(&self.tasks(), name, what, condition).await
    }

    /// Until the task runs; then it ends like that.
    pub(crate) async fn finish(&self, task: &str, outcome: Outcome) -> anyhow::Result<AgenticTask> {
        Ok(self.foreman.finish(self.ns.name(), task, outcome).await?)
    }

    /// A Workload of one child that has failed.
    pub(crate) async fn failed(&self, name: &str) -> anyhow::Result<Workload> {
        self.workload(name, CODER).await?;
        let stuck = Outcome::declined("STUCK-LOOP-DETECTED", "no way forward");
        self.finish(&format!("{name}-code-7"), stuck).await?;
        self.await_phase(name, "Failed").await
    }

    /// Writes an annotation, as anybody may.
    pub(crate) async fn touch(&self, name: &str, value: &str) -> anyhow::Result<Workload> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"touched": value}}}));
        Ok(self.workloads().patch(name, &PatchParams::default(), &patch).await?)
    }

    /// Until the Workload has run so often.
    pub(crate) async fn await_runs(&self, name: &str, runs: usize) -> anyhow::Result<()> {
        eventually(format!("{runs} runs of {name}"), PATIENCE, async || {
            let seen = self.foreman.journal().runs_of(&self.key(name));
            anyhow::ensure!(seen.len() == runs, "{seen:?}");
            Ok(())
        })
        .await
    }
}

pub(crate) fn workload(name: &str, more: &str) -> String {
    format!(
        "{{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Workload, metadata: {{name: {name}}}, \
         spec: {{intent: Fix it., {more}}}}}"
    )
}

pub(crate) fn names(tasks: &[AgenticTask]) -> Vec<String> {
    tasks.iter().map(kube::ResourceExt::name_any).collect()
}

/// A condition's status and reason.
pub(crate) fn told<'a>(workload: &'a Workload, condition: &str) -> Option<(&'a str, &'a str)> {
    let (status, reason, _) = workload.condition(condition)?;
    Some((status, reason))
}

/// One finding of a reviewer.
pub(crate) fn finding(message: &str) -> Value {
    json!({"severity": "major", "area": "tests", "message": message, "file": "src/a.rs", "line": 3})
}

/// Puts a finalizer of somebody else's on a child, or takes it off.
pub(crate) async fn hold(tasks: &Api<AgenticTask>, name: &str, held: bool) -> anyhow::Result<()> {
    let task = tasks.get(name).await?;
    let mut finalizers = task.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != "example.com/hold");
    if held {
        finalizers.push("example.com/hold".to_owned());
    }
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    tasks.patch(name, &PatchParams::default(), &patch).await?;
    Ok(())
}
