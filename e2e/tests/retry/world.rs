//! A control plane with taskgate, and in it namespaces with a stand-in of Foreman and its agents each.

use anyhow::{Context as _, bail, ensure};
use foreman_standin::types::{AgenticTask, Workload};
use foreman_standin::{CRDS, Foreman, Options, Outcome, client};
use k8s_openapi::api::events::v1::Event;
use kelos_standin::{Key, Scope};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::{
    WorkItem, WorkItemStatus,
    retry_status::{CONDITION, RetryStatus},
};
use taskgate_e2e::{ControlPlane, Gate, Namespace, PATIENCE, Shared, await_object, eventually};
use tokio::sync::OnceCell;

use crate::source;

pub(crate) static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds(CRDS).crds(kelos_standin::CRDS));
pub(crate) static GATE: OnceCell<Gate> = OnceCell::const_new();

/// A coder alone: one child, `<workload>-code-7`.
pub(crate) const CODER: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}";
/// With all three roles.
pub(crate) const ISSUE: &str = "issues: [7], repo: acme/app, coderAgentRef: {name: coder}, \
    verifierAgentRef: {name: gate}, reviewerAgentRefs: [{name: reviewer}], maxReviewIterations: 0";

const AGENTS: &str = "
{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: coder}, spec: {role: coder, tools: [bash]}}
---
{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: strong}, spec: {role: coder, tools: [bash]}}
---
{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: gate}, spec: {role: verifier, tools: [run_gate_job]}}
---
{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Agent, metadata: {name: reviewer}, spec: {role: reviewer, tools: [read_file]}}
";

pub(crate) struct World {
    pub(crate) cp: &'static ControlPlane,
    pub(crate) gate: &'static Gate,
    pub(crate) ns: Namespace,
    pub(crate) foreman: Foreman,
}

impl World {
    /// A namespace whose failed objects the retry section `retry` governs.
    pub(crate) async fn start(hint: &str, retry: Value) -> anyhow::Result<Self> {
        let cp = PLANE.get().await?;
        let gate = GATE
            .get_or_try_init(|| async { source::gate().await?.start(cp).await })
            .await?;
        Self::on(cp, gate, hint, retry).await
    }

    /// The same on a control plane of one's own.
    pub(crate) async fn on(
        cp: &'static ControlPlane,
        gate: &'static Gate,
        hint: &str,
        retry: Value,
    ) -> anyhow::Result<Self> {
        let ns = cp.namespace(hint).await?;
        ns.apply_yaml(AGENTS).await?;
        let options = Options::new(Scope::Namespaces(vec![ns.name().to_owned()]));
        let foreman = Foreman::start(client(cp.config())?, options).await?;
        let world = Self { cp, gate, ns, foreman };
        world.policy(json!({"retry": quick(retry)})).await?;
        Ok(world)
    }

    /// Writes the policy of the namespace.
    pub(crate) async fn policy(&self, spec: Value) -> anyhow::Result<()> {
        let policy = json!({
            "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "retry"}, "spec": spec,
        });
        self.ns.apply_yaml(&policy.to_string()).await
    }

    pub(crate) fn workloads(&self) -> Api<Workload> {
        self.ns.api()
    }

    pub(crate) fn children(&self) -> Api<AgenticTask> {
        self.ns.api()
    }

    /// A Workload as a user writes it; `more` are further fields of its spec.
    pub(crate) async fn workload(&self, name: &str, more: &str) -> anyhow::Result<()> {
        self.workload_with(name, "", more).await
    }

    /// The same with further metadata.
    pub(crate) async fn workload_with(&self, name: &str, metadata: &str, more: &str) -> anyhow::Result<()> {
        let yaml = format!(
            "{{apiVersion: foreman.llmkube.dev/v1alpha1, kind: Workload, metadata: {{name: {name}, {metadata}}}, \
             spec: {{intent: Fix it., {more}}}}}"
        );
        self.ns.apply_yaml(&yaml).await
    }

    /// Until the child runs; then it ends like that.
    pub(crate) async fn finish(&self, child: &str, outcome: Outcome) -> anyhow::Result<()> {
        self.foreman.finish(self.ns.name(), child, outcome).await?;
        Ok(())
    }

    /// Fails the coder of the Workload `name` that is there, for no reason of the cluster's.
    pub(crate) async fn fail(&self, name: &str) -> anyhow::Result<()> {
        let stuck = Outcome::declined("STUCK-LOOP-DETECTED", "no way forward");
        self.finish(&format!("{name}-code-7"), stuck).await
    }

    /// Until the Workload runs as this attempt.
    pub(crate) async fn attempt(&self, name: &str, attempt: &str) -> anyhow::Result<Workload> {
        await_object(&self.workloads(), name, &format!("is attempt {attempt}"), |workload| {
            annotation(workload, "foreman.llmkube.dev/attempt") == Some(attempt) && workload.phase() == "Dispatched"
        })
        .await
    }

    pub(crate) async fn phase(&self, name: &str, phase: &str) -> anyhow::Result<Workload> {
        await_object(&self.workloads(), name, &format!("phase {phase}"), |workload| {
            workload.phase() == phase
        })
        .await
    }

    /// The one WorkItem with this key, once `condition` holds for its ledger.
    pub(crate) async fn ledger(
        &self,
        key: &str,
        what: &str,
        condition: impl Fn(&WorkItemStatus, &RetryStatus) -> bool,
    ) -> anyhow::Result<WorkItem> {
        eventually(format!("{key}: {what}"), PATIENCE, || async {
            let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
            let Some(found) = items.items.into_iter().find(|found| found.spec.key == key) else {
                bail!("no WorkItem")
            };
            let status = found.status.clone().unwrap_or_default();
            let ledger = status.retry.clone().unwrap_or_default();
            ensure!(condition(&status, &ledger), "{status:?}");
            Ok(found)
        })
        .await
    }

    /// Until the condition about retries has this reason.
    pub(crate) async fn said(&self, key: &str, reason: &str) -> anyhow::Result<WorkItem> {
        self.ledger(key, &format!("says {reason}"), |status, _| said(status).0 == reason)
            .await
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

    /// How often the Workloads of this name really ran.
    pub(crate) fn runs(&self, name: &str) -> usize {
        let key = Key::new(self.ns.name(), name);
        self.foreman.journal().runs_of(&key).len()
    }

    /// Writes something to an object's metadata.
    pub(crate) async fn patch(&self, name: &str, metadata: Value) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": metadata}));
        self.workloads().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Lets an admission policy of the API server refuse what the CEL expression does not allow of Workloads here.
    pub(crate) async fn refuse(&self, expression: &str, message: &str) -> anyhow::Result<()> {
        let name = self.ns.name();
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["foreman.llmkube.dev"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["workloads"],
                }]},
                "validations": [{"expression": expression, "message": message}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}},
            },
        });
        self.cp.apply_yaml(&format!("{policy}\n---\n{binding}")).await?;
        eventually("creates are refused", PATIENCE, || async {
            let probe = json!({
                "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload",
                "metadata": {"name": "probe", "annotations": {"foreman.llmkube.dev/attempt": "2"}}, "spec": {"intent": "probe"},
            })
            .to_string();
            let create = ["create", "-n", name, "--dry-run=server", "-f-"];
            let output = self.cp.kubectl_with_input(create, &probe).await?;
            ensure!(output.stderr_failed()?.contains(message), "still admitted");
            Ok(())
        })
        .await
    }

    /// Takes it back.
    pub(crate) async fn admit(&self) -> anyhow::Result<()> {
        let name = self.ns.name();
        self.cp
            .kubectl(["delete", "validatingadmissionpolicybinding", name])
            .await?
            .stdout_ok()
            .map(drop)
            .context("admitting again")
    }
}

/// A retry section that does not wait.
pub(crate) fn quick(mut retry: Value) -> Value {
    if retry.get("backoff").is_none() {
        retry["backoff"] = json!({"initial": "0.1s", "max": "1s"});
    }
    retry
}

pub(crate) fn annotation<'a>(workload: &'a Workload, key: &str) -> Option<&'a str> {
    workload.annotations().get(key).map(String::as_str)
}

/// Reason and message of the condition about retries.
pub(crate) fn said(status: &WorkItemStatus) -> (&str, &str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == CONDITION);
    condition.map_or(("", ""), |condition| (&condition.reason, &condition.message))
}

/// The key of the item of issue 7.
pub(crate) const SEVEN: &str = "Workload/acme/app#7";
