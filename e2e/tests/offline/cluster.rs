//! A random cluster in which taskgate enforces policies. All objects exist before taskgate starts, so that its cache is filled once,
//! and another holder has the Lease of its controller: nothing changes afterwards.

use jiff::{SignedDuration, Timestamp};
use kelos_standin::CRDS;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, KELOS, Namespace, TASKGATE, resource, taskgate};
use taskgate_policy::ItemIdentity;

use crate::{
    draw::{Chance, ITEMS, SPAWNERS, WORKSPACE},
    dump, kueue,
};

/// How many namespaces there are.
const NAMESPACES: usize = 12;
/// How many policies are for all of them.
const CLUSTER_POLICIES: usize = 4;
/// How many Tasks each of them has.
const STORED: usize = 8;

const NAMESPACE: &str = include_str!("../../../manifests/base/namespace.yaml");
/// While another replica leads, this one only answers admission reviews.
const LEASE: &str = r#"
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: taskgate-controller, namespace: taskgate-system}
spec: {holderIdentity: another, leaseDurationSeconds: 86400, renewTime: "2026-01-01T00:00:00.000000Z"}
"#;
/// Users who are no administrators may change everything.
const RIGHTS: &str = r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: changes-everything}
rules:
- apiGroups: [kelos.dev, taskgate.dev, batch]
  resources: [tasks, jobs, workitems, taskpolicies, clustertaskpolicies]
  verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: changes-everything}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: changes-everything}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: carl}
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: dora}
";

/// Another product with paths as those of taskgate. It wants no object that is drawn.
const FOREIGN: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: another-product}
webhooks:
- name: tasks.another.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: another, namespace: another, path: /mutate/tasks}}
  objectSelector: {matchLabels: {another.example.com/enabled: yes-please}}
  rules:
  - {apiGroups: ['*'], apiVersions: ['*'], operations: [CREATE, UPDATE], resources: ['*']}
- name: jobs.another.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {name: another, namespace: another, path: /mutate/jobs}}
  objectSelector: {matchLabels: {another.example.com/enabled: yes-please}}
  rules:
  - {apiGroups: [batch], apiVersions: [v1], operations: [CREATE], resources: [jobs]}
";

pub(crate) struct RandomCluster {
    pub(crate) cp: ControlPlane,
    pub(crate) gate: Gate,
    pub(crate) has_kueue: bool,
    pub(crate) namespaces: Vec<String>,
    /// The stored Tasks, by namespace.
    pub(crate) tasks: Vec<Vec<Value>>,
    /// All inputs of the decisions, as the API server returns them.
    pub(crate) objects: Vec<Value>,
}

impl RandomCluster {
    pub(crate) async fn start(chance: &mut Chance) -> anyhow::Result<Self> {
        let cp = ControlPlane::builder().crds(CRDS).start().await?;
        cp.install_crds(&taskgate(["manifests", "crds"]).await?).await?;
        cp.apply_yaml(&[NAMESPACE, LEASE, RIGHTS, FOREIGN].join("\n---\n"))
            .await?;
        let has_kueue = kueue::install(&cp, chance).await?;
        let mut namespaces = Vec::new();
        for number in 0..NAMESPACES {
            let tier = chance.one_of(&["gold", "silver", "bronze"]);
            let mut labels = vec![("tier", *tier)];
            if number == 0 {
                labels.push(("taskgate.dev/admission", "disabled"));
            }
            let ns = cp.namespace_with_labels("offline", &labels).await?;
            let mut objects = if has_kueue { kueue::queues(chance) } else { Vec::new() };
            if number % 2 == 1 {
                objects.extend(deletion_of_tasks());
            }
            fill(&ns, &cp.client_as_taskgate(), chance, objects).await?;
            namespaces.push(ns.name().to_owned());
        }
        for number in 0..CLUSTER_POLICIES {
            let policy = chance.cluster_policy(&format!("everywhere-{number}"));
            cp.apply_yaml(&policy.to_string()).await?;
        }
        // On a busy machine the usual timeouts would leave writes without a decision.
        let gate = Gate::builder()
            .registration_flag("--mutating-timeout=5")
            .registration_flag("--validating-timeout=5")
            .start(&cp)
            .await?;
        // `check` gives taskgate's decisions, not the limits of its own service account.
        cp.kubectl(["delete", "validatingadmissionpolicybindings", "--all"])
            .await?
            .stdout_ok()?;
        cp.settled_revision().await?;
        let mut objects = dump::all(&cp).await?;
        // The names of namespaces do not depend on the seed.
        objects.sort_by_key(|object| {
            let metadata = &object["metadata"];
            let number = namespaces.iter().position(|name| metadata["namespace"] == **name);
            (number, metadata["name"].as_str().map(ToOwned::to_owned))
        });
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
            has_kueue,
            namespaces,
            tasks,
            objects,
        })
    }
}

/// Creates spawners, a Workspace, policies, WorkItems and Tasks, beside `objects`.
async fn fill(
    ns: &Namespace,
    as_taskgate: &kube::Client,
    chance: &mut Chance,
    mut objects: Vec<Value>,
) -> anyhow::Result<()> {
    for spawner in ["fixer", "nightly"] {
        let labels = json!({"kind": chance.one_of(&["issues", "cron"]), "queue": "agents"});
        objects.push(json!({"apiVersion": KELOS, "kind": "TaskSpawner",
            "metadata": {"name": spawner, "labels": labels},
            "spec": {"when": {"githubIssues": {}}, "suspend": true,
                "taskTemplate": {"type": "claude-code", "credentials": {"type": "none"}, "promptTemplate": "fix"}}}));
    }
    objects.push(
        json!({"apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": WORKSPACE},
        "spec": {"repo": "https://github.com/acme/app"}}),
    );
    for number in 0..=chance.below(3) {
        objects.push(chance.policy(&format!("policy-{number}")));
    }
    let mut tasks = Vec::new();
    for number in 0..STORED {
        let (mut task, status) = chance.stored_task(number);
        // One is being deleted, and kept.
        if number == 0 {
            task["metadata"]["finalizers"] = json!(["example.com/other"]);
        }
        tasks.push((format!("stored-{number}"), status));
        objects.push(task);
    }
    objects.push(job());
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
            json!({"apiVersion": TASKGATE, "kind": "WorkItem", "metadata": {"name": name},
            "spec": spec}),
        );
        statuses.push((name, json!({"status": work_item_status(chance)})));
    }
    let documents: Vec<_> = objects.iter().map(ToString::to_string).collect();
    ns.apply_yaml(&documents.join("\n---\n")).await?;
    let items = Api::<WorkItem>::namespaced(as_taskgate.clone(), ns.name());
    for (name, status) in statuses {
        items
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    let stored = ns.dynamic_api(&resource(KELOS, "Task"));
    for (name, status) in tasks {
        stored
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
    }
    stored.delete("stored-0", &DeleteParams::default()).await?;
    Ok(())
}

/// One of the users who are no administrators may delete Tasks.
fn deletion_of_tasks() -> [Value; 2] {
    let name = "deletes-tasks";
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name},
        "rules": [{"apiGroups": ["kelos.dev"], "resources": ["tasks"], "verbs": ["delete"]}]});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "dora"}]});
    [role, binding]
}

/// A Job that has not started.
fn job() -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "stored", "labels": {"kelos.dev/task": "stored-1"}},
        "spec": {"suspend": true, "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]}}}})
}

/// The items that may have a WorkItem.
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

/// A WorkItem's status whose times are far from every limit in the drawn policies.
fn work_item_status(chance: &mut Chance) -> Value {
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
