//! More words for scenarios: objects as JSON, waiting for the next run, what must not be touched.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use foreman_standin::{
    Foreman, Options, Outcome, client,
    types::{AgenticTask, Workload},
};
use kelos_standin::Scope;
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{PATIENCE, await_object, eventually, never};

use crate::world::{World, quick, said};

/// For how long nothing happens that must not happen. Longer than the backoff by far.
pub(crate) const QUIET: Duration = Duration::from_secs(4);
/// More than the 60 s after which what holds a retry up is told.
pub(crate) const BLOCKED: Duration = Duration::from_mins(2);
/// A finalizer that nobody takes off but the test.
pub(crate) const HOLD: &str = "example.com/hold";

impl World {
    /// With agents that a closure decides about, at once.
    pub(crate) async fn scripted(
        hint: &str,
        retry: Value,
        script: impl Fn(&AgenticTask) -> Outcome + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let script = move |task: &AgenticTask| Some((Duration::from_millis(100), script(task)));
        Self::with(hint, retry, |options| options.scripted(script)).await
    }

    /// With another kind of Foreman.
    pub(crate) async fn with(
        hint: &str,
        retry: Value,
        change: impl FnOnce(Options) -> Options,
    ) -> anyhow::Result<Self> {
        let mut world = Self::start(hint, retry).await?;
        let options = change(Options::new(Scope::Namespaces(vec![world.ns.name().to_owned()])));
        world.foreman.stop().await;
        world.foreman = Foreman::start(client(world.cp.config())?, options).await?;
        world.in_force().await?;
        Ok(world)
    }

    /// Replaces the retry section, and waits until it is in force.
    pub(crate) async fn set(&self, retry: Value) -> anyhow::Result<()> {
        self.policy(json!({"retry": quick(retry)})).await?;
        self.in_force().await
    }

    /// Waits until the policy is in force as it stands there.
    pub(crate) async fn in_force(&self) -> anyhow::Result<()> {
        eventually("the policy is in force", PATIENCE, async || {
            let args = ["get", "taskpolicies", "retry", "-o", "json"];
            let policy: Value = serde_json::from_str(&self.ns.kubectl(args).await?.stdout_ok()?)?;
            let current = policy.pointer("/status/observedGeneration") == policy.pointer("/metadata/generation");
            let accepted = policy.pointer("/status/conditions/0/status") == Some(&json!("True"));
            ensure!(current && accepted, "{}", policy["status"]);
            Ok(())
        })
        .await
    }

    /// Creates an object: what exists is an error.
    pub(crate) async fn make(&self, object: &Value) -> anyhow::Result<()> {
        let output = self
            .ns
            .kubectl_with_input(["create", "-f-"], &object.to_string())
            .await?;
        output.stdout_ok().map(drop)
    }

    /// Makes a Workload with one child, and lets that fail by its own fault; the Workload as it ran.
    pub(crate) async fn fail_new(&self, name: &str) -> anyhow::Result<Workload> {
        self.make(&workload(name)).await?;
        self.end(name, stuck()).await
    }

    /// Ends the one child of the run that there is; the Workload as it ran.
    pub(crate) async fn end(&self, name: &str, outcome: Outcome) -> anyhow::Result<Workload> {
        let running =
            |workload: &Workload| workload.metadata.deletion_timestamp.is_none() && workload.phase() == "Dispatched";
        let workload = await_object(&self.workloads(), name, "runs", running).await?;
        self.finish(&format!("{name}-code-7"), outcome).await?;
        Ok(workload)
    }

    /// The object that comes after `before`.
    pub(crate) async fn next(&self, before: &Workload) -> anyhow::Result<Workload> {
        let other = |workload: &Workload| workload.uid() != before.uid();
        await_object(&self.workloads(), &before.name_any(), "is made anew", other).await
    }

    /// The task of this run, not of another one of the name.
    pub(crate) async fn child_of(&self, workload: &Workload, step: &str) -> anyhow::Result<AgenticTask> {
        let name = format!("{}-{step}", workload.name_any());
        let own =
            |task: &AgenticTask| task.owner_references().first().map(|owner| &owner.uid) == workload.uid().as_ref();
        await_object(&self.children(), &name, "is of this run", own).await
    }

    /// The memory that speaks of a Workload of this name.
    pub(crate) async fn memory(&self, name: &str) -> anyhow::Result<WorkItem> {
        let items = self.ns.api::<WorkItem>().list(&ListParams::default()).await?;
        let of_it = |item: &WorkItem| {
            let Some(status) = &item.status else { return false };
            let run = status.retry.as_ref().and_then(|retry| retry.run.as_ref());
            run.is_some_and(|run| run.name == name) || status.attempts.iter().any(|attempt| attempt.name == name)
        };
        let mut found: Vec<_> = items.into_iter().filter(of_it).collect();
        ensure!(found.len() < 2, "{} WorkItems speak of {name}", found.len());
        found.pop().with_context(|| format!("no WorkItem speaks of {name}"))
    }

    /// Waits until that memory's condition has this reason.
    pub(crate) async fn reason(&self, name: &str, reason: &str, deadline: Duration) -> anyhow::Result<WorkItem> {
        eventually(format!("the memory of {name} says {reason}"), deadline, async || {
            let item = self.memory(name).await?;
            let status = item.status.clone().unwrap_or_default();
            ensure!(said(&status).0 == reason, "{:?}", said(&status));
            Ok(item)
        })
        .await
    }

    /// Nothing happens to the object for a while: not even its resourceVersion changes.
    pub(crate) async fn stays(&self, name: &str) -> anyhow::Result<()> {
        let object = self.workloads().get(name).await?;
        never(format!("{name} is touched"), QUIET, async || {
            let now = self.workloads().get_opt(name).await?;
            let same = now.as_ref().and_then(ResourceExt::resource_version) == object.resource_version();
            Ok((!same).then_some(now))
        })
        .await
    }

    /// Keeps everybody from writing Events here.
    pub(crate) async fn mute(&self) -> anyhow::Result<()> {
        let name = format!("{}-events", self.ns.name());
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["events.k8s.io", ""], "apiVersions": ["*"], "operations": ["*"], "resources": ["events"],
                }]},
                "validations": [{"expression": "false", "message": "no events"}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.ns.name()}}},
            },
        });
        self.cp.apply_yaml(&format!("{policy}\n---\n{binding}")).await?;
        let probe = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "probe", "namespace": self.ns.name()},
            "involvedObject": {"namespace": self.ns.name()},
        });
        eventually("events are refused", PATIENCE, async || {
            let args = ["create", "--dry-run=server", "-f-"];
            let output = self.ns.kubectl_with_input(args, &probe.to_string()).await?;
            ensure!(output.stderr_failed()?.contains("no events"), "still admitted");
            Ok(())
        })
        .await
    }

    /// How often an Event of this reason was written about something of this name, repetitions included.
    pub(crate) async fn told_times(&self, name: &str, reason: &str) -> anyhow::Result<usize> {
        let told = self.events(name).await?;
        Ok(told.iter().filter(|(known, _)| known == reason).count())
    }

    /// Puts a finalizer of somebody else's on a child, or takes it off.
    pub(crate) async fn hold(&self, child: &str, held: bool) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": if held { json!([HOLD]) } else { json!([]) }}}));
        self.children().patch(child, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// The agent's own fault.
pub(crate) fn stuck() -> Outcome {
    Outcome::declined("STUCK-LOOP-DETECTED", "no way forward")
}

/// A Workload of one child, `<name>-code-7`: one issue of a repository of its own.
pub(crate) fn workload(name: &str) -> Value {
    workload_with(name, &json!({}))
}

/// The same with other fields in its spec.
pub(crate) fn workload_with(name: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "foreman.llmkube.dev/v1alpha1", "kind": "Workload", "metadata": {"name": name},
        "spec": {
            "intent": "Fix it.", "repo": format!("acme/{name}"), "issues": [7], "coderAgentRef": {"name": "coder"},
        },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
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
    let mut object = workload(name);
    object["metadata"]["annotations"] = annotations.clone();
    object
}

/// The number that stands on a Workload.
pub(crate) fn number(workload: &Workload) -> Option<&str> {
    crate::world::annotation(workload, "foreman.llmkube.dev/attempt")
}

/// A retry section of three runs, with more or other fields.
pub(crate) fn three(more: Value) -> Value {
    let mut retry = json!({"maxAttempts": 3});
    if let Value::Object(fields) = more {
        for (key, value) in fields {
            retry[key] = value;
        }
    }
    retry
}
