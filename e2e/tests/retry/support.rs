//! What this suite adds to the fixtures: policies about retry, Workloads, and what taskgate has recorded about them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use foreman_standin::types::Workload;
use foreman_standin::{CRDS, Options};
use kube::{ResourceExt as _, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{CONDITION, RetryStatus},
};
use taskgate_e2e::{
    ControlPlane, FOREMAN, Fixture, ForemanFixture, ForemanNamespace, Gate, GateBuilder, Namespace, PATIENCE,
    SharedGate, eventually, github, merged, never, stuck,
};

static SHARED: SharedGate = SharedGate::new(|| ControlPlane::builder().crds(CRDS).crds(kelos_standin::CRDS));

/// The key of the item of issue 7 of `acme/app`.
pub(crate) const SEVEN: &str = "Workload/acme/app#7";
/// For how long nothing happens that must not happen. Much longer than the backoff.
pub(crate) const QUIET: Duration = Duration::from_secs(4);

/// A taskgate that asks the shared GitHub.
async fn gate() -> anyhow::Result<GateBuilder> {
    Ok(Gate::builder().asking(github().await?.url()))
}

/// The shared control plane and taskgate.
pub(crate) async fn shared() -> anyhow::Result<(&'static ControlPlane, &'static Gate)> {
    SHARED.get(gate().await?).await
}

/// A namespace with Foreman whose failed objects the retry section `retry` governs.
pub(crate) async fn start(hint: &str, retry: Value) -> anyhow::Result<ForemanFixture<'static>> {
    let (cp, gate) = shared().await?;
    start_on(cp, gate, hint, retry, |options| options).await
}

/// The same with other options of Foreman, once the controller has accepted the policy.
pub(crate) async fn start_with(
    hint: &str,
    retry: Value,
    change: impl FnOnce(Options) -> Options,
) -> anyhow::Result<ForemanFixture<'static>> {
    let (cp, gate) = shared().await?;
    let fixture = start_on(cp, gate, hint, retry, change).await?;
    fixture.await_policy_accepted("retry").await?;
    Ok(fixture)
}

/// The same on another control plane. The policy may not be accepted yet.
pub(crate) async fn start_on<'a>(
    cp: &'a ControlPlane,
    gate: &'a Gate,
    hint: &str,
    retry: Value,
    change: impl FnOnce(Options) -> Options,
) -> anyhow::Result<ForemanFixture<'a>> {
    let ns = ForemanNamespace::start(cp.namespace(hint).await?, change).await?;
    ns.apply_policy("retry", &json!({"retry": quick(retry)})).await?;
    Ok(Fixture { cp, gate, ns })
}

/// Applies a policy with this retry section, and waits until the controller has accepted it.
pub(crate) async fn apply_retry(ns: &Namespace, retry: Value) -> anyhow::Result<()> {
    ns.apply_policy("retry", &json!({"retry": quick(retry)})).await?;
    ns.await_policy_accepted("retry").await
}

/// A retry section with a short backoff, unless it has one.
pub(crate) fn quick(mut retry: Value) -> Value {
    if retry.get("backoff").is_none() {
        retry["backoff"] = json!({"initial": "0.1s", "max": "1s"});
    }
    retry
}

/// A retry section of three attempts, with more or other fields.
pub(crate) fn three(mut more: Value) -> Value {
    if more.get("maxAttempts").is_none() {
        more["maxAttempts"] = json!(3);
    }
    more
}

/// A Workload of one child, `<name>-code-7`, for issue 7 of a repository of its own.
pub(crate) fn workload(name: &str) -> Value {
    workload_with(name, &json!({}))
}

/// The same with other fields of its spec.
pub(crate) fn workload_with(name: &str, spec: &Value) -> Value {
    let workload = json!({
        "apiVersion": FOREMAN, "kind": "Workload", "metadata": {"name": name},
        "spec": {
            "intent": "Fix it.", "repo": format!("acme/{name}"), "issues": [7], "coderAgentRef": {"name": "coder"},
        },
    });
    merged(workload, &json!({"spec": spec}))
}

/// A Workload with code, verify and review, one round only.
pub(crate) fn reviewed(name: &str) -> Value {
    let roles = json!({
        "verifierAgentRef": {"name": "gate"}, "reviewerAgentRefs": [{"name": "reviewer"}], "maxReviewIterations": 0,
    });
    workload_with(name, &roles)
}

/// A Workload with annotations.
pub(crate) fn annotated(name: &str, annotations: &Value) -> Value {
    merged(workload(name), &json!({"metadata": {"annotations": annotations}}))
}

/// Creates a Workload of one child, and lets it fail; the Workload as it ran.
pub(crate) async fn fail_new(fixture: &ForemanFixture<'_>, name: &str) -> anyhow::Result<Workload> {
    fixture.created(&workload(name)).await?;
    fixture.end(name, stuck()).await
}

/// Reason and message of the condition about retries.
pub(crate) fn retry_condition(status: &WorkItemStatus) -> (&str, &str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == CONDITION);
    condition.map_or(("", ""), |condition| (&condition.reason, &condition.message))
}

/// The WorkItem with this key, once its status and its record of retries meet `condition`.
pub(crate) async fn await_retry(
    ns: &Namespace,
    key: &str,
    what: &str,
    condition: impl Fn(&WorkItemStatus, &RetryStatus) -> bool,
) -> anyhow::Result<WorkItem> {
    ns.await_work_item(key, what, |item| {
        let status = item.status.clone().unwrap_or_default();
        let retry = status.retry.clone().unwrap_or_default();
        condition(&status, &retry)
    })
    .await
}

/// The WorkItem with this key, once its condition about retries has this reason.
pub(crate) async fn await_retry_condition(ns: &Namespace, key: &str, reason: &str) -> anyhow::Result<WorkItem> {
    let what = format!("condition with reason {reason}");
    await_retry(ns, key, &what, |status, _| retry_condition(status).0 == reason).await
}

/// The WorkItem that has recorded a run of the object with this name.
pub(crate) async fn work_item_of(ns: &Namespace, name: &str) -> anyhow::Result<WorkItem> {
    let items = ns.work_items().list(&ListParams::default()).await?;
    let is_of_it = |item: &WorkItem| {
        let Some(status) = &item.status else { return false };
        let run = status.retry.as_ref().and_then(|retry| retry.run.as_ref());
        run.is_some_and(|run| run.name == name) || status.attempts.iter().any(|attempt| attempt.name == name)
    };
    let mut found: Vec<_> = items.into_iter().filter(is_of_it).collect();
    ensure!(found.len() < 2, "{} WorkItems of {name}", found.len());
    found.pop().with_context(|| format!("no WorkItem of {name}"))
}

/// That WorkItem, once its condition about retries has this reason.
pub(crate) async fn await_reason(ns: &Namespace, name: &str, reason: &str) -> anyhow::Result<WorkItem> {
    await_reason_within(PATIENCE, ns, name, reason).await
}

/// The same with another deadline.
pub(crate) async fn await_reason_within(
    deadline: Duration,
    ns: &Namespace,
    name: &str,
    reason: &str,
) -> anyhow::Result<WorkItem> {
    eventually(format!("the WorkItem of {name}: {reason}"), deadline, async || {
        let item = work_item_of(ns, name).await?;
        let status = item.status.clone().unwrap_or_default();
        let found = retry_condition(&status);
        ensure!(found.0 == reason, "{found:?}");
        Ok(item)
    })
    .await
}

/// The Workload does not change for a while: not even its resourceVersion.
pub(crate) async fn stays_unchanged(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    let object = ns.workloads().get(name).await?;
    never(format!("{name} is changed"), QUIET, async || {
        let now = ns.workloads().get_opt(name).await?;
        let same = now.as_ref().and_then(kube::ResourceExt::resource_version) == object.resource_version();
        Ok((!same).then_some(now))
    })
    .await
}

/// Lets an admission policy of the API server, of this name, deny writes in the namespace: `rule` says of which resources, and
/// the CEL expression what is allowed. Waits until the creation of `probe` is denied.
pub(crate) async fn deny(
    ns: &Namespace,
    name: &str,
    rule: Value,
    (expression, message): (&str, &str),
    probe: &Value,
) -> anyhow::Result<()> {
    let group = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": message}],
        },
    });
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name()}}});
    let binding = json!({
        "apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
    });
    ns.access().apply_yaml(&format!("{policy}\n---\n{binding}")).await?;
    eventually("writes are denied", PATIENCE, async || {
        let denied = ns.create_dry_run(probe).await?.stderr_failed()?;
        ensure!(denied.contains(message), "{denied}");
        Ok(())
    })
    .await
}

/// Denies the creation of Workloads that the CEL expression does not allow.
pub(crate) async fn deny_workloads(ns: &Namespace, expression: &str, message: &str) -> anyhow::Result<()> {
    let rule = json!({
        "apiGroups": ["foreman.llmkube.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["workloads"],
    });
    let probe = annotated("probe", &json!({"foreman.llmkube.dev/attempt": "2"}));
    deny(ns, ns.name(), rule, (expression, message), &probe).await
}

/// Allows it again.
pub(crate) async fn allow_workloads(ns: &Namespace) -> anyhow::Result<()> {
    let delete = ["delete", "validatingadmissionpolicybinding", ns.name()];
    ns.access().kubectl(delete).await?.stdout_ok().map(drop)
}
