//! Attempts to evade the count of failures.

use anyhow::ensure;
use kelos_standin::{Agents, GitHub, Options, Outcome, Scope, Standin, client};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use taskgate_api::keys;
use taskgate_e2e::{KELOS, await_object, policy, task_of_item};

use crate::support::{TenantFixture, refusal};

fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

fn is_open(status: &Value) -> bool {
    status["breaker"] == "Open"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_claims_to_be_recorded_is_counted() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("recorded", limit(2)).await?;
    fixture
        .attack(async {
            for name in ["epic-1", "epic-2"] {
                let mut claims = task_of_item(name, "epic");
                claims["metadata"]["annotations"][keys::RECORDED] = json!("x");
                fixture.fail(&claims, json!({})).await?;
            }
            fixture.item("epic", "is open", is_open).await
        })
        .await
        .map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spawner_whose_template_claims_that_its_tasks_are_recorded_is_stopped() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("template", limit(1)).await?;
    let ns = fixture.tenant.ns();
    let github = GitHub::start().await?;
    github.repo("o", "r").issue(42);
    let scope = || Scope::Namespaces(vec![ns.name().to_owned()]);
    let agents = Agents::start(fixture.cp.client(), &scope()).await;
    let _kelos = Standin::start(client(fixture.cp.config())?, Options::new(scope(), github.url())).await?;
    let workspace = json!({
        "apiVersion": KELOS, "kind": "Workspace", "metadata": {"name": "repo"},
        "spec": {"repo": github.repo("o", "r").clone_url()},
    });
    let spawner = json!({
        "apiVersion": KELOS, "kind": "TaskSpawner", "metadata": {"name": "fixer"},
        "spec": {"when": {"githubIssues": {"pollInterval": "1s"}}, "taskTemplate": {
            "type": "claude-code", "credentials": {"type": "none"}, "workspaceRef": {"name": "repo"},
            "promptTemplate": "fix {{.Number}}",
            "metadata": {"annotations": {keys::RECORDED: "x", keys::ITEM_KEY: "fixer/"}},
        }},
    });
    fixture
        .attack(async {
            fixture.tenant.create(&workspace).await?;
            fixture.tenant.create(&spawner).await?;
            let tasks = fixture.tenant.api(KELOS, "Task");
            let running = |task: &kube::api::DynamicObject| task.data["status"]["phase"] == "Running";
            await_object(&tasks, "fixer-42", "runs", running).await?;
            agents.finish(ns.name(), "fixer-42", Outcome::failed_at_once()).await?;
            fixture.item("42", "is open", is_open).await
        })
        .await
        .map(drop)
}

/// An agent reports its cost itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_whose_numbers_fit_nowhere_is_counted_and_its_task_is_freed() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("numbers", limit(3)).await?;
    let max = i64::MAX;
    fixture
        .attack(async {
            for (n, cost) in ["1e30", "1e33", "-1E-30"].into_iter().enumerate() {
                let (name, item) = (format!("epic-{n}"), format!("item-{n}"));
                let mut object = task_of_item(&name, &item);
                // Below the limit a Task goes after its TTL, once it has been counted.
                object["spec"]["ttlSecondsAfterFinished"] = json!(0);
                let usage = json!({"costUSD": cost, "inputTokens": max, "outputTokens": max});
                fixture.fail(&object, json!({"usage": usage})).await?;
                // A cost beyond all numbers is a large one, and no reason to lose the sum.
                let is_paid = |status: &Value| cost.starts_with('-') || status["totalCostUSD"].is_string();
                let counted = |status: &Value| status["consecutiveFailures"] == 1 && is_paid(status);
                fixture
                    .item(&item, &format!("has a failure that cost {cost}"), counted)
                    .await?;
                has_no_finalizer(&fixture, &name).await?;
            }
            Ok(())
        })
        .await
}

/// The Task is gone, or at least taskgate does not keep it.
async fn has_no_finalizer(fixture: &TenantFixture, name: &str) -> anyhow::Result<()> {
    let tasks = fixture.tenant.api(KELOS, "Task");
    taskgate_e2e::eventually(format!("Task {name} is freed"), taskgate_e2e::PATIENCE, || async {
        let task = tasks.get_opt(name).await?;
        let kept = task.is_some_and(|task| task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING));
        ensure!(!kept, "it has the finalizer");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_states_an_impossible_key_is_counted_and_freed() -> anyhow::Result<()> {
    let fixture = TenantFixture::governed("key", limit(2)).await?;
    fixture
        .attack(async {
            let mut object = task_of_item("fixer-42", "");
            object["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "fixer"});
            object["metadata"]["annotations"] = json!({
                keys::ITEM_KEY: "fixer/", "kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42",
            });
            object["spec"]["ttlSecondsAfterFinished"] = json!(0);
            fixture.fail(&object, json!({})).await?;
            let counted = |status: &Value| status["consecutiveFailures"] == 1;
            fixture.item("42", "has a failure", counted).await?;
            has_no_finalizer(&fixture, "fixer-42").await
        })
        .await
}

/// What taskgate alone may write on a Task. Not here: what admission itself notes of labels and annotations; it cannot tell its own
/// earlier pass from the creator, and the notes concern this one Task.
const OWN_ANNOTATIONS: [&str; 11] = [
    keys::ITEM_KEY,
    keys::TTL,
    keys::RECORDED,
    keys::CANCELLED_BY,
    keys::CANCEL_TRIGGER,
    keys::CANCEL_REQUESTED,
    keys::CANCEL_DEADLINE,
    keys::CANCEL_STATE,
    keys::SOURCE_HEAD,
    keys::RETRY_OF,
    keys::TAKEN_OVER,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_taskgate_alone_may_write_are_removed_from_new_tasks_and_cannot_be_changed() -> anyhow::Result<()> {
    let fixture = TenantFixture::start("keys").await?;
    // Without labels and annotations: where a policy sets some, admission keeps what an earlier pass noted about them.
    fixture.tenant.create(&policy("agents", &limit(2))).await?;
    fixture.await_reviewed(true).await?;
    let mut object = task_of_item("forged", "epic");
    for key in OWN_ANNOTATIONS {
        object["metadata"]["annotations"][key] = json!("forged");
    }
    object["metadata"]["labels"] = json!({keys::WORK_ITEM: "forged", "team": "a"});
    fixture
        .attack(async {
            let output = fixture
                .tenant
                .kubectl(["create", "-f-", "-ojson"], &object.to_string())
                .await?;
            // One warning names as many of them as fit.
            let warnings = output.warnings().join("\n");
            let stored: Value = serde_json::from_str(&output.stdout_ok()?)?;
            ensure!(
                OWN_ANNOTATIONS.iter().any(|key| warnings.contains(key)),
                "no warning names a key: {warnings}"
            );
            for key in OWN_ANNOTATIONS {
                ensure!(
                    stored["metadata"]["annotations"][key] != "forged",
                    "{key} was kept: {stored:#}"
                );
            }
            let labels = &stored["metadata"]["labels"];
            ensure!(labels[keys::WORK_ITEM] != "forged" && labels["team"] == "a", "{labels}");
            for key in OWN_ANNOTATIONS {
                let change = json!({"metadata": {"annotations": {key: "changed"}}});
                let told = refusal(fixture.patch(KELOS, "Task", "forged", change).await.map_err(Into::into))?;
                ensure!(told.contains(key), "{told}");
            }
            let change = json!({"metadata": {"labels": {keys::WORK_ITEM: "changed"}}});
            let told = refusal(fixture.patch(KELOS, "Task", "forged", change).await.map_err(Into::into))?;
            ensure!(told.contains(keys::WORK_ITEM), "{told}");
            // Other keys are the tenant's, as before.
            let change = json!({"metadata": {"labels": {"team": "c"}}});
            fixture.patch(KELOS, "Task", "forged", change).await?;
            Ok(())
        })
        .await
}
