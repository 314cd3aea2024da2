//! Use of taskgate's rights, which the tenant lacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{GATE_NAMESPACE, KELOS, TASKGATE, await_object, never, policy, task_of_item};
use tokio::net::TcpListener;

use crate::support::TenantFixture;

/// Longer than the controller takes to act on what it has seen.
const A_WHILE: Duration = Duration::from_secs(2);
const CONFIGURATION: &str = "admission.taskgate.dev";

fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

async fn opt(fixture: &TenantFixture, value: Option<&str>) -> anyhow::Result<()> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(fixture.cp.client());
    let patch = Patch::Merge(json!({"metadata": {"labels": {keys::ADMISSION: value}}}));
    namespaces
        .patch(fixture.tenant.ns().name(), &PatchParams::default(), &patch)
        .await?;
    fixture.await_reviewed(value.is_none()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_opted_out_only_loses_its_finalizers() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("optout", limit(1)).await?;
    fixture.tenant.create(&task_of_item("before", "epic")).await?;
    fixture.tenant.create(&task_of_item("cancelled", "story")).await?;
    opt(&fixture, Some(keys::ADMISSION_DISABLED)).await?;
    let tasks = fixture.tenant.api(KELOS, "Task");
    fixture
        .attack(async {
            let cancel = json!({"metadata": {"annotations": {keys::CANCEL: "x"}}});
            fixture.patch(KELOS, "Task", "cancelled", cancel).await?;
            fixture.tenant.ns().patch_failed("before", &json!({})).await?;
            fixture.fail(&task_of_item("after", "epic"), json!({})).await?;
            await_object(&tasks, "before", "has no finalizer", |task| {
                task.finalizers().is_empty()
            })
            .await?;
            never("something is counted, or cancelled", A_WHILE, || async {
                let items = fixture.tenant.ns().work_item_values().await?;
                let task = tasks.get("cancelled").await?;
                let untouched = items.is_empty() && !task.annotations().contains_key(keys::CANCEL_STATE);
                Ok((!untouched).then_some((items, task.metadata)))
            })
            .await
        })
        .await
}

/// Lets the API server send nothing of the tenant's namespace to taskgate, as while it is not registered, but for no other tenant.
async fn unregister(
    fixture: &TenantFixture,
) -> anyhow::Result<(MutatingWebhookConfiguration, ValidatingWebhookConfiguration)> {
    let elsewhere =
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [fixture.tenant.ns().name()]});
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let (first, second) = (mutating.get(CONFIGURATION).await?, validating.get(CONFIGURATION).await?);
    mutating
        .replace(CONFIGURATION, &PostParams::default(), &narrowed(&first, &elsewhere)?)
        .await?;
    validating
        .replace(CONFIGURATION, &PostParams::default(), &narrowed(&second, &elsewhere)?)
        .await?;
    fixture.await_reviewed(false).await?;
    Ok((first, second))
}

fn narrowed<K: serde::Serialize + serde::de::DeserializeOwned>(configuration: &K, to: &Value) -> anyhow::Result<K> {
    let mut configuration = serde_json::to_value(configuration)?;
    for webhook in configuration["webhooks"].as_array_mut().context("no webhooks")? {
        let expressions = &mut webhook["namespaceSelector"]["matchExpressions"];
        match expressions.as_array_mut() {
            Some(expressions) => expressions.push(to.clone()),
            None => *expressions = json!([to]),
        }
    }
    Ok(serde_json::from_value(configuration)?)
}

async fn register(
    fixture: &TenantFixture,
    (first, second): (MutatingWebhookConfiguration, ValidatingWebhookConfiguration),
) -> anyhow::Result<()> {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(fixture.cp.client());
    let params = PatchParams::default();
    mutating
        .patch(
            CONFIGURATION,
            &params,
            &Patch::Merge(json!({"webhooks": first.webhooks})),
        )
        .await?;
    validating
        .patch(
            CONFIGURATION,
            &params,
            &Patch::Merge(json!({"webhooks": second.webhooks})),
        )
        .await?;
    fixture.await_reviewed(true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_that_admission_did_not_see_is_not_carried_out() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("unstamped", limit(2)).await?;
    let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    let requests = [
        json!({keys::CANCEL: "x"}),
        json!({keys::CANCEL: "x", keys::CANCEL_STATE: "Cancelling"}),
        // No stamp of admission's: it names neither a user nor a spawner, or a grace that no user can ask for.
        json!({keys::CANCEL: "x", keys::CANCELLED_BY: "root", keys::CANCEL_TRIGGER: "ByHand",
            keys::CANCEL_REQUESTED: now, keys::CANCEL_DEADLINE: now}),
        json!({keys::CANCEL: "x", keys::CANCELLED_BY: "user:root", keys::CANCEL_TRIGGER: "ByHand",
            keys::CANCEL_REQUESTED: now, keys::CANCEL_DEADLINE: "2020-01-01T00:00:00Z"}),
    ];
    let name = |n| format!("live-{n}");
    for n in 0..requests.len() {
        fixture.tenant.create(&task_of_item(&name(n), &name(n))).await?;
    }
    let registration = unregister(&fixture).await?;
    let annotate = requests.iter().enumerate().map(async |(n, annotations)| {
        let cancel = json!({"metadata": {"annotations": annotations}});
        fixture.patch(KELOS, "Task", &name(n), cancel).await
    });
    let annotated = try_join_all(annotate).await;
    register(&fixture, registration).await?;
    annotated?;
    let tasks = fixture.tenant.api(KELOS, "Task");
    fixture
        .attack(async {
            never("a Task is cancelled", A_WHILE, || async {
                let mut tasks = tasks.list(&ListParams::default()).await?.items.into_iter();
                let cancelled = tasks.find(|task| {
                    let state = task.annotations().get(keys::CANCEL_STATE).map(String::as_str);
                    let conditions = task.data["status"]["conditions"].as_array();
                    let mut conditions = conditions.into_iter().flatten();
                    state == Some("Cancelled") || conditions.any(|condition| condition["type"] == "Cancelled")
                });
                Ok(cancelled.map(|task| (task.metadata, task.data["status"].clone())))
            })
            .await
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_not_the_jobs_own_excuses_no_failure() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("pods", limit(1)).await?;
    let ns = fixture.tenant.ns();
    let owner = fixture.tenant.create(&task_of_item("epic-1", "epic")).await?;
    let (jobs, pods) = (ns.api::<Job>(), ns.api::<Pod>());
    let labels = json!({"kelos.dev/name": "kelos", "kelos.dev/task": "epic-1"});
    let template = json!({"restartPolicy": "Never", "containers": [{"name": "kelos-agent", "image": "agent"}]});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "epic-1", "labels": labels, "ownerReferences": [{
            "apiVersion": KELOS, "kind": "Task", "name": "epic-1", "uid": owner.uid(), "controller": true,
        }]},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": template}},
    });
    let forged = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "excuse", "labels": labels}, "spec": template,
    });
    fixture
        .attack(Box::pin(async {
            ns.apply_yaml(&job.to_string()).await?;
            fixture.tenant.create(&forged).await?;
            let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}});
            pods.patch_status("excuse", &PatchParams::default(), &Patch::Strategic(evicted)).await?;
            let job = await_object(&jobs, "epic-1", "has started", |job| {
                job.status.as_ref().is_some_and(|status| status.start_time.is_some())
            })
            .await?;
            let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
            let failed = json!({"status": {"conditions": [{
                "type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "the agent failed",
                "lastProbeTime": now, "lastTransitionTime": now,
            }]}});
            jobs.patch_status(&job.name_any(), &PatchParams::default(), &Patch::Strategic(failed)).await?;
            fixture.tenant.ns().patch_failed("epic-1", &json!({})).await?;
            fixture.item("epic", "is open", |status| status["breaker"] == "Open").await
        }))
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_in_objects_lead_to_no_other_path() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed(
        "paths",
        json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetOnChange": true}}),
    )
    .await?;
    let mark = fixture.cp.audit().mark()?;
    let name = "../../../../../../version?x=";
    let spawner = json!({
        "apiVersion": KELOS, "kind": "TaskSpawner", "metadata": {"name": "fixer"},
        "spec": {"when": {"githubIssues": {}}, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": name}}},
    });
    let workspace = json!({
        "apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": "https://github.com/o/r.git", "secretRef": {"name": name}},
    });
    fixture
        .attack(async {
            fixture.tenant.create(&spawner).await?;
            fixture.tenant.create(&workspace).await?;
            let mut of_spawner = task_of_item("fixer-42", "epic");
            of_spawner["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "fixer"});
            of_spawner["metadata"]["annotations"] =
                json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"});
            of_spawner["spec"]["workspaceRef"] = json!({"name": name});
            fixture.fail(&of_spawner, json!({})).await?;
            fixture
                .item("42", "is open", |status| status["breaker"] == "Open")
                .await?;
            for (task_name, workspace) in [("stray", name), ("secret", "repo")] {
                let mut stray = task_of_item(task_name, task_name);
                stray["spec"]["workspaceRef"] = json!({"name": workspace});
                stray["spec"]["agentConfigRefs"] = json!([{"name": name}]);
                fixture.tenant.create(&stray).await?;
                let cancel = json!({"metadata": {"annotations": {keys::CANCEL: "x"}}});
                fixture.patch(KELOS, "Task", task_name, cancel).await?;
                let tasks = fixture.tenant.api(KELOS, "Task");
                await_object(&tasks, task_name, "is being cancelled", |task| {
                    task.annotations().contains_key(keys::CANCEL_STATE)
                })
                .await?;
            }
            Ok(())
        })
        .await?;
    let user = format!("system:serviceaccount:{GATE_NAMESPACE}:taskgate");
    never("taskgate asks for such a path", A_WHILE, || async {
        let seen = fixture.cp.audit().since(mark).await?;
        let own = seen.into_iter().filter(|event| event.username() == user);
        Ok(own.map(|event| event.request_uri).find(|uri| uri.contains("..")))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_does_not_choose_whom_taskgate_connects_to() -> anyhow::Result<()> {
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1, "resetOnChange": true}});
    let fixture = TenantFixture::governed("hosts", spec).await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let contacts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&contacts);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let workspace = json!({
        "apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": format!("https://{address}/o/r.git")},
    });
    let spawner = json!({
        "apiVersion": KELOS, "kind": "TaskSpawner", "metadata": {"name": "fixer"},
        "spec": {"when": {"githubIssues": {}}, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"}}},
    });
    let mut object = task_of_item("fixer-42", "");
    object["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "fixer"});
    object["metadata"]["annotations"] = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"});
    let policies = fixture.tenant.api(TASKGATE, "TaskPolicy");
    fixture
        .attack(async {
            fixture.tenant.create(&workspace).await?;
            fixture.tenant.create(&spawner).await?;
            fixture.fail(&object, json!({})).await?;
            fixture
                .item("42", "is open", |status| status["breaker"] == "Open")
                .await?;
            // The policy's condition shows that the source was tried.
            await_object(&policies, "agents", "cannot read its source", |policy| {
                let conditions = policy.data["status"]["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|condition| condition["type"] == "SourceReadable" && condition["status"] == "False")
            })
            .await
        })
        .await?;
    let contacts = contacts.load(Ordering::Relaxed);
    ensure!(contacts == 0, "taskgate connected {contacts} times");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenants_policy_does_not_weaken_an_enforced_one() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("enforced").await?;
    let name = fixture.tenant.ns().name();
    let enforced = json!({
        "apiVersion": TASKGATE, "kind": "ClusterTaskPolicy", "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "enforced": true,
            "failurePolicy": {"maxRetriesPerItem": 1},
        },
    });
    fixture.cp.apply_yaml(&enforced.to_string()).await?;
    let weaker = [
        json!({"priority": 1000, "failurePolicy": {"maxRetriesPerItem": 100}}),
        json!({"priority": 1000, "failurePolicy": {"mode": "Off", "maxRetriesPerItem": 0}}),
        json!({"priority": 1000, "mode": "Observe", "failurePolicy": {"maxRetriesPerItem": 0}}),
    ];
    for (n, spec) in weaker.iter().enumerate() {
        let item = format!("epic-{n}");
        fixture
            .attack(async {
                fixture.tenant.create(&policy(&format!("weaker-{n}"), spec)).await?;
                fixture.await_reviewed(true).await?;
                fixture
                    .fail(&task_of_item(&format!("{item}-1"), &item), json!({}))
                    .await?;
                fixture
                    .item(&item, "is open", |status| status["breaker"] == "Open")
                    .await
            })
            .await?;
    }
    Ok(())
}
