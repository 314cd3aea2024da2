//! A cluster by chance, with taskgate enforcing in it. Everything is there before taskgate is: its caches are filled once,
//! and nothing moves afterwards.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use kelos_standin::CRDS;
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, Namespace, taskgate};
use taskgate_policy::ItemIdentity;

use crate::draw::{Chance, ITEMS, SPAWNERS, WORKSPACE};

/// How many namespaces there are.
const NAMESPACES: usize = 12;
/// How many policies are for all of them.
const CLUSTER_POLICIES: usize = 4;

pub(crate) struct World {
    pub(crate) cp: ControlPlane,
    pub(crate) gate: Gate,
    pub(crate) namespaces: Vec<String>,
    /// The stored Tasks, by namespace.
    pub(crate) tasks: Vec<Vec<Value>>,
    /// Everything that verdicts rest on, as the API server shows it.
    pub(crate) objects: Vec<Value>,
}

impl World {
    pub(crate) async fn start(chance: &mut Chance) -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        cp.install_crds(&taskgate(["manifests", "crds"]).await?).await?;
        let mut namespaces = Vec::new();
        for number in 0..NAMESPACES {
            let tier = chance.one_of(&["gold", "silver", "bronze"]);
            let mut labels = vec![("tier", *tier)];
            if number == 0 {
                labels.push(("taskgate.dev/admission", "disabled"));
            }
            let ns = cp.namespace_with_labels("offline", &labels).await?;
            fill(&ns, chance).await?;
            namespaces.push(ns.name().to_owned());
        }
        for number in 0..CLUSTER_POLICIES {
            let policy = chance.cluster_policy(&format!("everywhere-{number}"));
            cp.apply_yaml(&policy.to_string()).await?;
        }
        // On a busy machine the usual patience would leave writes without a verdict.
        let gate = Gate::builder()
            .registration_flag("--mutating-timeout=5")
            .registration_flag("--validating-timeout=5")
            .serve_flag("--no-leader-election")
            .start(&cp)
            .await?;
        cp.settled_revision().await?;
        let objects = dump(&cp).await?;
        let of = |namespace: &String| {
            let tasks = objects.iter().filter(|object| object["kind"] == "Task");
            tasks
                .filter(|task| task["metadata"]["namespace"] == **namespace)
                .cloned()
                .collect()
        };
        let tasks = namespaces.iter().map(of).collect();
        namespaces.push("kube-system".to_owned());
        Ok(Self {
            cp,
            gate,
            namespaces,
            tasks,
            objects,
        })
    }
}

/// Spawners, a Workspace, policies, memories and Tasks.
async fn fill(ns: &Namespace, chance: &mut Chance) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for spawner in ["fixer", "nightly"] {
        let labels = json!({"kind": chance.one_of(&["issues", "cron"]), "queue": "agents"});
        objects.push(json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "TaskSpawner",
            "metadata": {"name": spawner, "labels": labels},
            "spec": {"when": {"githubIssues": {}}, "suspend": true,
                "taskTemplate": {"type": "claude-code", "credentials": {"type": "none"}, "promptTemplate": "fix"}}}));
    }
    objects.push(
        json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": WORKSPACE},
        "spec": {"repo": "https://github.com/acme/app"}}),
    );
    for number in 0..=chance.below(3) {
        objects.push(chance.policy(&format!("policy-{number}")));
    }
    for number in 0..8 {
        let mut task = chance.task(number);
        task["metadata"]["name"] = json!(format!("stored-{number}"));
        task["spec"] = json!({"prompt": "p", "type": "claude-code", "credentials": {"type": "none"}});
        let metadata = task["metadata"].as_object_mut().expect("it has metadata");
        metadata.remove("generateName");
        metadata.remove("finalizers");
        objects.push(task);
    }
    let mut statuses = Vec::new();
    for (identity, spawner) in identities() {
        if chance.once_in(4) {
            continue;
        }
        let name = identity.work_item_name();
        let mut spec = json!({"key": identity.key, "item": identity.item});
        if let Some(spawner) = spawner {
            spec["spawner"] = json!(spawner);
        }
        objects.push(
            json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": name},
            "spec": spec}),
        );
        statuses.push((name, json!({"status": memory(chance)})));
    }
    let documents: Vec<_> = objects.iter().map(ToString::to_string).collect();
    ns.apply_yaml(&documents.join("\n---\n")).await?;
    let items = ns.api::<WorkItem>();
    for (name, status) in statuses {
        items
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    Ok(())
}

/// The items that something may be remembered of.
fn identities() -> Vec<(ItemIdentity, Option<&'static str>)> {
    let mut found = Vec::new();
    for number in 0..ITEMS {
        for spawner in SPAWNERS {
            let key = format!("{spawner}/{number}");
            let identity = ItemIdentity {
                key,
                item: number.to_string(),
                spawner: Some(spawner.to_owned()),
            };
            found.push((identity, Some(spawner)));
        }
        let key = format!("item {number}");
        let identity = ItemIdentity {
            key: key.clone(),
            item: key,
            spawner: None,
        };
        found.push((identity, None));
    }
    found
}

/// A memory whose times are far from every limit that policies draw.
fn memory(chance: &mut Chance) -> Value {
    let ago = |hours: i64| {
        (Timestamp::now() - SignedDuration::from_hours(hours))
            .strftime("%FT%TZ")
            .to_string()
    };
    let hours = *chance.one_of(&[0, 4, 30, 300]);
    let failures = chance.below(7);
    let mut status = json!({"consecutiveFailures": failures, "lastFailureTime": ago(hours)});
    match chance.below(5) {
        0 | 1 => {
            status["breaker"] = json!("Open");
            status["openedAt"] = json!(ago(hours));
            status["reason"] = json!("MaxRetriesExceeded");
        }
        2 => status["breaker"] = json!("Closed"),
        3 => {
            status["infrastructureFailures"] = json!(chance.below(12));
            status["breaker"] = json!("Closed");
        }
        _ => {
            status["breaker"] = json!("HalfOpen");
            status["openedAt"] = json!(ago(hours));
        }
    }
    if chance.once_in(2) {
        status["totalCostUSD"] = json!("1.50");
    }
    status
}

/// What `kubectl get … -o yaml` would write.
async fn dump(cp: &ControlPlane) -> anyhow::Result<Vec<Value>> {
    let client = cp.client();
    let mut found = Vec::new();
    for (group, version, kind) in [
        ("", "v1", "Namespace"),
        ("taskgate.dev", "v1alpha1", "TaskPolicy"),
        ("taskgate.dev", "v1alpha1", "ClusterTaskPolicy"),
        ("taskgate.dev", "v1alpha1", "WorkItem"),
        ("kelos.dev", "v1alpha2", "Task"),
        ("kelos.dev", "v1alpha2", "TaskSpawner"),
        ("kelos.dev", "v1alpha2", "Workspace"),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let listed = Api::<DynamicObject>::all_with(client.clone(), &resource)
            .list(&ListParams::default())
            .await;
        for mut object in listed.with_context(|| kind.to_owned())? {
            object.managed_fields_mut().clear();
            let mut object = serde_json::to_value(object)?;
            object["apiVersion"] = json!(resource.api_version);
            object["kind"] = json!(kind);
            found.push(object);
        }
    }
    Ok(found)
}
