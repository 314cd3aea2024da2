//! A control plane with Kueue and taskgate, and in it namespaces with a stand-in of Kelos and agents each.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{Agents, CRDS, GitHub, Options, Outcome, Scope, Standin, client, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, Kueue, Namespace, PATIENCE, Shared, await_object, eventually, eventually_that};
use tokio::sync::OnceCell;

pub(crate) const QUEUE: &str = "kueue.x-k8s.io/queue-name";
pub(crate) const CLASS: &str = "kueue.x-k8s.io/priority-class";
pub(crate) const MUTATE_JOBS: &str = "mutate.jobs.taskgate.dev";
/// Label of namespaces that this Kueue leaves alone.
pub(crate) const UNMANAGED: &str = "unmanaged";

static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS));
static KUEUE: OnceCell<Kueue> = OnceCell::const_new();
static GATE: OnceCell<Gate> = OnceCell::const_new();

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) ns: Namespace,
    pub(crate) kelos: Kelos,
}

/// What plays Kelos in some namespaces.
pub(crate) struct Kelos {
    pub(crate) github: GitHub,
    pub(crate) agents: Agents,
    _standin: Standin,
}

impl Kelos {
    pub(crate) async fn start(cp: &ControlPlane, namespace: &str) -> anyhow::Result<Self> {
        let scope = Scope::Namespaces(vec![namespace.to_owned()]);
        Self::with(cp, scope.clone(), Agents::start(cp.client(), &scope).await).await
    }

    pub(crate) async fn with(cp: &ControlPlane, scope: Scope, agents: Agents) -> anyhow::Result<Self> {
        let github = GitHub::start().await?;
        let standin = Standin::start(client(cp.config())?, Options::new(scope, github.url())).await?;
        Ok(Self {
            github,
            agents,
            _standin: standin,
        })
    }
}

/// The shared control plane, with Kueue and taskgate.
pub(crate) async fn plane() -> anyhow::Result<(&'static ControlPlane, &'static Gate)> {
    let cp = PLANE.get().await?;
    KUEUE.get_or_try_init(|| kueue().start(cp)).await?;
    // Without a Lease, so that it is silent at rest.
    let gate = GATE
        .get_or_try_init(|| Gate::builder().serve_flag("--no-leader-election").start(cp))
        .await?;
    Ok((cp, gate))
}

/// Kueue as these tests want it.
pub(crate) fn kueue() -> taskgate_e2e::KueueBuilder {
    let managed = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "kueue-system"]},
        {"key": UNMANAGED, "operator": "DoesNotExist"},
    ]});
    Kueue::builder().set("managedJobsNamespaceSelector", managed)
}

impl World {
    /// A namespace whose Tasks the policy `spec` governs.
    pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<Self> {
        Self::labelled(hint, &[], spec).await
    }

    pub(crate) async fn labelled(hint: &str, labels: &[(&str, &str)], spec: Value) -> anyhow::Result<Self> {
        let (cp, _) = plane().await?;
        let ns = cp.namespace_with_labels(hint, labels).await?;
        let kelos = Kelos::start(cp, ns.name()).await?;
        let world = Self { cp, ns, kelos };
        govern(cp, world.ns.name(), spec).await?;
        Ok(world)
    }

    /// A `LocalQueue` called `agents`, with a `ClusterQueue` of its own that has so many CPUs.
    pub(crate) async fn queue(&self, cpu: u32) -> anyhow::Result<()> {
        self.cluster_queue(cpu).await?;
        self.local_queue("agents", json!({})).await
    }

    pub(crate) async fn cluster_queue(&self, cpu: u32) -> anyhow::Result<()> {
        self.cp.apply_yaml(&cluster_queue(self.ns.name(), cpu)).await
    }

    /// A `LocalQueue` of the namespace's `ClusterQueue`, which works by the time this returns, unless it is stopped.
    pub(crate) async fn local_queue(&self, name: &str, more: Value) -> anyhow::Result<()> {
        local_queue(self.cp, self.ns.name(), name, self.ns.name(), more).await
    }

    pub(crate) async fn delete_queue(&self, name: &str) -> anyhow::Result<()> {
        let args = ["delete", "localqueues.kueue.x-k8s.io", name];
        self.ns.kubectl(args).await?.stdout_ok().map(drop)
    }

    /// Creates a Task that wants one CPU.
    pub(crate) async fn task(&self, name: &str) -> anyhow::Result<()> {
        self.ns.apply_yaml(&task(name).to_string()).await
    }

    pub(crate) fn tasks(&self) -> Api<Task> {
        self.ns.api()
    }

    /// The condition `Queued` of a Task, once its reason is `reason`.
    pub(crate) async fn queued(&self, task: &str, reason: &str) -> anyhow::Result<Value> {
        queued(&self.tasks(), task, reason).await
    }

    pub(crate) async fn job(&self, name: &str, what: &str, condition: impl Fn(&Job) -> bool) -> anyhow::Result<Job> {
        await_object(&self.ns.api::<Job>(), name, what, condition).await
    }

    pub(crate) async fn runs(&self, task: &str) -> anyhow::Result<Task> {
        self.phase(task, "Running").await
    }

    pub(crate) async fn phase(&self, task: &str, phase: &str) -> anyhow::Result<Task> {
        await_object(&self.tasks(), task, format!("is {phase}"), |task| task.phase() == phase).await
    }

    pub(crate) async fn succeed(&self, task: &str) -> anyhow::Result<()> {
        self.kelos
            .agents
            .finish(self.ns.name(), task, Outcome::succeeded())
            .await?;
        self.phase(task, "Succeeded").await.map(drop)
    }

    pub(crate) fn workloads(&self) -> Api<DynamicObject> {
        workloads(self.cp, self.ns.name())
    }

    /// The Workload of a Task's Job.
    pub(crate) async fn workload(&self, task: &str) -> anyhow::Result<DynamicObject> {
        workload(&self.workloads(), task).await
    }

    /// Patches that Workload's spec.
    pub(crate) async fn patch_workload(&self, task: &str, spec: Value) -> anyhow::Result<()> {
        let name = self.workload(task).await?.name_any();
        let patch = Patch::Merge(json!({"spec": spec}));
        self.workloads().patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

pub(crate) fn workloads(cp: &ControlPlane, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("kueue.x-k8s.io", "v1beta2", "Workload"),
        "workloads",
    );
    Api::namespaced_with(cp.client(), namespace, &kind)
}

pub(crate) async fn workload(api: &Api<DynamicObject>, job: &str) -> anyhow::Result<DynamicObject> {
    eventually(format!("Job {job} has a Workload"), PATIENCE, || async {
        let all = api.list(&ListParams::default()).await?;
        let own = all
            .into_iter()
            .find(|workload| workload.owner_references().iter().any(|owner| owner.name == job));
        own.context("none")
    })
    .await
}

/// The condition `Queued` of a Task, once its reason is `reason`.
pub(crate) async fn queued(tasks: &Api<Task>, task: &str, reason: &str) -> anyhow::Result<Value> {
    let found = await_object(tasks, task, format!("is told {reason}"), |task| {
        condition(task).is_some_and(|condition| condition["reason"] == reason)
    })
    .await?;
    condition(&found).context("no condition")
}

pub(crate) fn condition(task: &Task) -> Option<Value> {
    let json = serde_json::to_value(task).ok()?;
    let conditions = json.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == "Queued")
        .cloned()
}

/// Writes a policy, and waits until Tasks are governed by it.
pub(crate) async fn govern(cp: &ControlPlane, namespace: &str, spec: Value) -> anyhow::Result<()> {
    let mut spec = spec;
    spec["metadata"] = json!({"annotations": {"governed": "yes"}});
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "spec": spec,
        "metadata": {"name": "agents", "namespace": namespace},
    });
    cp.apply_yaml(&policy.to_string()).await?;
    until_governed(cp, namespace, "governed").await
}

/// Until a Task gets the annotation that a policy sets.
pub(crate) async fn until_governed(cp: &ControlPlane, namespace: &str, annotation: &str) -> anyhow::Result<()> {
    let probe = task("probe").to_string();
    eventually_that(
        "the policy is seen",
        PATIENCE,
        || async {
            let args = ["create", "-n", namespace, "--dry-run=server", "-ojson", "-f-"];
            let seen = cp.kubectl_with_input(args, &probe).await?.stdout_ok()?;
            Ok(serde_json::from_str::<Value>(&seen)?)
        },
        |seen| !seen["metadata"]["annotations"][annotation].is_null(),
    )
    .await
    .map(drop)
}

pub(crate) fn cluster_queue(name: &str, cpu: u32) -> String {
    format!(
        "apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {{name: {name}}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {{name: {name}}}
spec:
  namespaceSelector: {{}}
  resourceGroups:
  - coveredResources: [cpu]
    flavors:
    - {{name: {name}, resources: [{{name: cpu, nominalQuota: {cpu}}}]}}
"
    )
}

pub(crate) async fn local_queue(
    cp: &ControlPlane,
    namespace: &str,
    name: &str,
    cluster_queue: &str,
    more: Value,
) -> anyhow::Result<()> {
    let mut spec = more;
    let stopped = spec["stopPolicy"].as_str().is_some_and(|policy| policy != "None");
    spec["clusterQueue"] = cluster_queue.into();
    let queue = json!({
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue", "spec": spec,
        "metadata": {"name": name, "namespace": namespace},
    });
    cp.apply_yaml(&queue.to_string()).await?;
    if stopped {
        return Ok(());
    }
    eventually(format!("LocalQueue {name} works"), PATIENCE, || async {
        let path = "-ojsonpath={.status.conditions[?(@.type==\"Active\")].status}";
        let args = ["get", "-n", namespace, "localqueues.kueue.x-k8s.io", name, path];
        let active = cp.kubectl(args).await?.stdout_ok()?;
        ensure!(active == "True", "Active is {active:?}");
        Ok(())
    })
    .await
}

/// A Task that wants one CPU.
pub(crate) fn task(name: &str) -> Value {
    json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": name},
        "spec": {
            "type": "claude-code", "prompt": "try", "credentials": {"type": "none"},
            "podOverrides": {"resources": {"requests": {"cpu": "1"}}},
        },
    })
}

/// Long enough for anything that might happen by mistake.
pub(crate) const A_WHILE: Duration = Duration::from_secs(3);

/// Writes a further policy into a namespace, and takes it away once it was seen: what was written before it is known then.
pub(crate) async fn govern_beside(cp: &ControlPlane, namespace: &str) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "marker", "namespace": namespace},
        "spec": {"metadata": {"annotations": {"seen": "yes"}}},
    });
    cp.apply_yaml(&policy.to_string()).await?;
    until_governed(cp, namespace, "seen").await?;
    cp.kubectl(["delete", "-n", namespace, "taskpolicy", "marker"])
        .await?
        .stdout_ok()
        .map(drop)
}
