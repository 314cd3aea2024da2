//! A control plane with taskgate, and in it namespaces with a stand-in of Kelos, a GitHub, agents, and two people: ann,
//! who may delete Tasks, and bob, who may only change them.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod, events::v1::Event};
use kelos_standin::{
    Agents, CRDS, CycleResult, CrdCapability, GitHub, Key, Options, Outcome, Repo, Scope, SharedGitHub, Standin, client,
    types::Task,
};
use kube::{Api, ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, Namespace, Output, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static GATE: OnceCell<Gate> = OnceCell::const_new();
static GITHUB: SharedGitHub = SharedGitHub::new();

/// A taskgate that leads at once, and asks the shared GitHub each second.
pub(crate) async fn gate(cp: &ControlPlane) -> anyhow::Result<Gate> {
    Gate::builder()
        .serve_flag("--no-leader-election")
        .asking(GITHUB.get().await?.url())
        .start(cp)
        .await
}

pub(crate) struct World<'a> {
    pub(crate) cp: &'a ControlPlane,
    pub(crate) gate: &'a Gate,
    pub(crate) ns: Namespace,
    pub(crate) github: &'static GitHub,
    pub(crate) standin: Standin,
    pub(crate) agents: Agents,
}

impl World<'static> {
    /// A namespace of the plane that the suite shares, without any policy.
    pub(crate) async fn start(hint: &str) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        let gate = GATE.get_or_try_init(|| gate(cp)).await?;
        Self::on(cp, gate, hint, CrdCapability::Base).await
    }

    /// The same, with a policy.
    pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Self> {
        let world = Self::start(hint).await?;
        world.policy(spec).await?;
        Ok(world)
    }
}

impl<'a> World<'a> {
    pub(crate) async fn on(cp: &'a ControlPlane, gate: &'a Gate, hint: &str, capability: CrdCapability) -> anyhow::Result<Self> {
        let ns = cp.namespace(hint).await?;
        let github = GITHUB.get().await?;
        let repo = github.repo(ns.name(), "r").clone_url();
        let workspace = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "repo"}, "spec": {"repo": repo},
        });
        ns.apply_yaml(&workspace.to_string()).await?;
        ns.apply_yaml(&rights("ann", &["get", "patch", "delete"])).await?;
        ns.apply_yaml(&rights("bob", &["get", "patch"])).await?;
        let scope = Scope::Namespaces(vec![ns.name().to_owned()]);
        let agents = Agents::start(cp.client(), &scope).await;
        let mut options = Options::new(scope, github.url());
        options.capability = capability;
        let standin = Standin::start(client(cp.config())?, options).await?;
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
    pub(crate) async fn policy(&self, mut spec: Value) -> anyhow::Result<()> {
        spec["metadata"] = json!({"annotations": {"seen": "yes"}});
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"}, "spec": spec,
        });
        self.ns.apply_yaml(&policy.to_string()).await?;
        eventually("the policy is seen", PATIENCE, || async {
            let seen = self.create(&task("probe"), true).await?.stdout_ok()?;
            let seen: Value = serde_json::from_str(&seen)?;
            ensure!(seen["metadata"]["annotations"]["seen"] == "yes", "{seen}");
            Ok(())
        })
        .await
    }

    pub(crate) async fn create(&self, object: &Value, dry_run: bool) -> anyhow::Result<Output> {
        let dry = if dry_run { "--dry-run=server" } else { "--dry-run=none" };
        let args = ["create", "-n", self.ns.name(), dry, "-o", "json", "-f-"];
        self.cp.kubectl_with_input(args, &object.to_string()).await
    }

    /// Makes a Task, and waits until its agent runs.
    pub(crate) async fn run(&self, object: &Value) -> anyhow::Result<Task> {
        self.create(object, false).await?.stdout_ok()?;
        let name = object["metadata"]["name"].as_str().context("a name")?;
        self.await_task(name, "runs", |task| task.phase() == "Running").await
    }

    /// Cancels as a user, with kubectl: `annotations` such as `taskgate.dev/cancel=no longer needed`.
    pub(crate) async fn annotate(&self, user: &str, task: &str, annotations: &[&str]) -> anyhow::Result<Output> {
        let mut args = vec!["--as", user, "annotate", "--overwrite", "tasks.kelos.dev", task];
        args.extend(annotations);
        self.ns.kubectl(args).await
    }

    pub(crate) async fn cancel(&self, task: &str, why: &str) -> anyhow::Result<()> {
        let why = format!("{}={why}", keys::CANCEL);
        self.annotate("ann", task, &[&why]).await?.stdout_ok().map(drop)
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    /// The Task with everything that stands in it.
    pub(crate) async fn raw_task(&self, name: &str) -> anyhow::Result<Value> {
        let output = self.ns.kubectl(["get", "tasks.kelos.dev", name, "-o", "json"]).await?;
        Ok(serde_json::from_str(&output.stdout_ok()?)?)
    }

    pub(crate) fn jobs(&self) -> Api<Job> {
        self.ns.api()
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        self.ns.api()
    }

    pub(crate) async fn await_task(
        &self,
        name: &str,
        what: &str,
        condition: impl Fn(&Task) -> bool,
    ) -> anyhow::Result<Task> {
        await_object(&self.tasks(), name, what, condition).await
    }

    /// Waits until the Task is cancelled, all of it: terminal, told, and its Job gone.
    pub(crate) async fn await_cancelled(&self, name: &str) -> anyhow::Result<Task> {
        let task = self
            .await_task(name, "is cancelled", |task| state(task) == "Cancelled")
            .await?;
        eventually(format!("the Job of {name} is gone"), PATIENCE, || async {
            let job = self.jobs().get_opt(name).await?;
            ensure!(job.is_none(), "{:?}", job.and_then(|job| job.status));
            Ok(())
        })
        .await?;
        Ok(task)
    }

    /// The Events of this reason about the Task.
    pub(crate) async fn events(&self, task: &str, reason: &str) -> anyhow::Result<Vec<Event>> {
        let events = self.ns.api::<Event>().list(&ListParams::default()).await?;
        // The job controller tells the same of the Job.
        let about = |event: &Event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            let of_task = regarding.kind.as_deref() == Some("Task") && regarding.name.as_deref() == Some(task);
            of_task && event.reason.as_deref() == Some(reason)
        };
        Ok(events.into_iter().filter(about).collect())
    }

    /// How many pods were ever made for the Task, as the API server saw it.
    pub(crate) async fn pods_made(&self, mark: taskgate_e2e::Marker, task: &str) -> anyhow::Result<usize> {
        let made = self.cp.audit().since(mark).await?.into_iter().filter(|event| {
            let pod = event.request_object.as_ref();
            let of_task = pod.and_then(|pod| pod.pointer("/metadata/labels/kelos.dev~1task")?.as_str()) == Some(task);
            let object = &event.object_ref;
            event.verb == "create" && object.resource == "pods" && object.namespace == self.ns.name() && of_task
        });
        Ok(made.count())
    }

    pub(crate) fn repo(&self) -> Repo {
        self.github.repo(self.ns.name(), "r")
    }

    pub(crate) fn failed_cycles(&self, spawner: &str) -> u64 {
        self.standin
            .cycles(&Key::new(self.ns.name(), spawner), CycleResult::Failure)
    }

    /// A spawner that polls each second.
    pub(crate) async fn spawner(&self, name: &str, when: &Value, extra: &Value) -> anyhow::Result<()> {
        let mut spawner = json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner", "metadata": {"name": name},
            "spec": {"when": when, "taskTemplate": {
                "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
                "promptTemplate": "fix {{.Number}}",
            }},
        });
        for (key, value) in extra.as_object().into_iter().flatten() {
            match key.as_str() {
                "ttlSecondsAfterFinished" | "branch" | "dependsOn" => {
                    spawner["spec"]["taskTemplate"][key] = value.clone();
                }
                _ => spawner["spec"][key] = value.clone(),
            }
        }
        self.ns.apply_yaml(&spawner.to_string()).await
    }

    pub(crate) async fn succeed(&self, task: &str) -> anyhow::Result<()> {
        self.agents.finish(self.ns.name(), task, Outcome::succeeded()).await?;
        self.await_task(task, "succeeds", |task| task.phase() == "Succeeded")
            .await
            .map(drop)
    }
}

/// How far the Task's cancellation is.
pub(crate) fn state(task: &Task) -> &str {
    task.annotations().get(keys::CANCEL_STATE).map_or("", String::as_str)
}

/// The Task's condition `Cancelled`.
pub(crate) fn condition(task: &Task) -> Value {
    let json = serde_json::to_value(task).unwrap_or_default();
    let conditions = json.pointer("/status/conditions").and_then(Value::as_array).cloned();
    let mut conditions = conditions.unwrap_or_default().into_iter();
    conditions
        .find(|condition| condition["type"] == "Cancelled")
        .unwrap_or_default()
}

pub(crate) fn task(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name},
        "spec": {"type": "claude-code", "prompt": "try", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"}},
    })
}

/// A Task with more in its spec.
pub(crate) fn task_with(name: &str, spec: &Value) -> Value {
    let mut task = task(name);
    for (key, value) in spec.as_object().into_iter().flatten() {
        task["spec"][key] = value.clone();
    }
    task
}

fn rights(user: &str, verbs: &[&str]) -> String {
    let name = format!("tasks-{user}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{"apiGroups": ["kelos.dev"], "resources": ["tasks"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    format!("{role}\n---\n{binding}")
}
