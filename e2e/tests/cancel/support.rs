//! What this suite adds to the fixtures: two users, ann, who may delete Tasks, and bob, who may only change them.

use k8s_openapi::api::events::v1::Event;
use kelos_standin::{CRDS, CrdCapability, types::Task};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{
    ControlPlane, Fixture, Gate, GateBuilder, KelosFixture, KelosNamespace, Marker, Namespace, Output, SharedGate,
    await_gone, condition, github, merged,
};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS));

/// A taskgate that leads at once, and asks the shared GitHub each second.
pub(crate) async fn gate() -> anyhow::Result<GateBuilder> {
    Ok(Gate::builder().without_leader_election().asking(github().await?.url()))
}

/// A namespace with Kelos, without any policy.
pub(crate) async fn start(hint: &str) -> anyhow::Result<KelosFixture<'static>> {
    let (cp, gate) = SHARED.get(gate().await?).await?;
    start_on(cp, gate, hint, CrdCapability::Base).await
}

/// The same with a policy.
pub(crate) async fn governed(hint: &str, spec: Value) -> anyhow::Result<KelosFixture<'static>> {
    let fixture = start(hint).await?;
    fixture.policy(spec).await?;
    Ok(fixture)
}

/// The same as [`start`] on another control plane, for a Kelos with these CRDs.
pub(crate) async fn start_on<'a>(
    cp: &'a ControlPlane,
    gate: &'a Gate,
    hint: &str,
    crds: CrdCapability,
) -> anyhow::Result<KelosFixture<'a>> {
    let ns = cp.namespace(hint).await?;
    ns.apply_yaml(&rights("ann", &["get", "list", "patch", "delete"]))
        .await?;
    ns.apply_yaml(&rights("bob", &["get", "patch"])).await?;
    let ns = KelosNamespace::builder().capability(crds).start(ns).await?;
    Ok(Fixture { cp, gate, ns })
}

/// `kubectl annotate` of a Task as this user, with annotations such as `taskgate.dev/cancel=no longer needed`.
pub(crate) async fn annotate(ns: &Namespace, user: &str, task: &str, annotations: &[&str]) -> anyhow::Result<Output> {
    let mut args = vec!["--as", user, "annotate", "--overwrite", "tasks.kelos.dev", task];
    args.extend(annotations);
    ns.kubectl(args).await
}

/// Cancels a Task as ann.
pub(crate) async fn cancel(ns: &Namespace, task: &str, why: &str) -> anyhow::Result<()> {
    let why = format!("{}={why}", keys::CANCEL);
    annotate(ns, "ann", task, &[&why]).await?.stdout_ok().map(drop)
}

/// The Task, once its cancellation is complete and its Job is gone.
pub(crate) async fn await_cancelled(ns: &Namespace, name: &str) -> anyhow::Result<Task> {
    let is_cancelled = |task: &Task| cancel_state(task) == "Cancelled";
    let task = ns.await_task(name, "is cancelled", is_cancelled).await?;
    await_gone(&ns.jobs(), name).await?;
    Ok(task)
}

/// The Events of this reason about a Task: the job controller records the same about its Job.
pub(crate) async fn task_events(ns: &Namespace, task: &str, reason: &str) -> anyhow::Result<Vec<Event>> {
    ns.events_with_reason(&format!("Task/{task}"), reason).await
}

/// How many pods were ever created for the Task, by the audit log.
pub(crate) async fn pods_created(fixture: &KelosFixture<'_>, mark: Marker, task: &str) -> anyhow::Result<usize> {
    let created = fixture.cp.audit().since(mark).await?.into_iter().filter(|event| {
        let pod = event.request_object.as_ref();
        let of_task = pod.and_then(|pod| pod.pointer("/metadata/labels/kelos.dev~1task")?.as_str()) == Some(task);
        let object = &event.object_ref;
        event.verb == "create" && object.resource == "pods" && object.namespace == fixture.name() && of_task
    });
    Ok(created.count())
}

/// The state of the Task's cancellation.
pub(crate) fn cancel_state(task: &Task) -> &str {
    task.annotations().get(keys::CANCEL_STATE).map_or("", String::as_str)
}

/// The Task's condition `Cancelled`, or null.
pub(crate) fn cancelled_condition(task: &Task) -> Value {
    condition(task, "Cancelled").unwrap_or_default()
}

/// A Task in Workspace `repo`.
pub(crate) fn task(name: &str) -> Value {
    task_with(name, &json!({}))
}

/// The same with further fields of its spec.
pub(crate) fn task_with(name: &str, spec: &Value) -> Value {
    let task = merged(
        taskgate_e2e::task(name),
        &json!({"spec": {"workspaceRef": {"name": "repo"}}}),
    );
    merged(task, &json!({"spec": spec}))
}

fn rights(user: &str, verbs: &[&str]) -> String {
    let (name, group) = (format!("tasks-{user}"), "rbac.authorization.k8s.io");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{"apiGroups": ["kelos.dev"], "resources": ["tasks"], "verbs": verbs}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    });
    format!("{role}\n---\n{binding}")
}
