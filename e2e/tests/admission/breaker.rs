//! Denial, the safety net: a Task of a tripped item. The tests write the WorkItem's status themselves.

use anyhow::ensure;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{Fixture, PATIENCE, TASKGATE, eventually, task, task_of_item};
use taskgate_policy::ItemIdentity;

use crate::support::{apply_policy, await_policies, governed, start};

fn limit(limit: u32) -> Value {
    json!({"failurePolicy": {"maxRetriesPerItem": limit}})
}

/// Writes the WorkItem of `item` with this status. Returns its name.
pub(crate) async fn write_work_item(fixture: &Fixture<'_>, item: &str, status: &Value) -> anyhow::Result<String> {
    let identity = ItemIdentity {
        key: item.to_owned(),
        item: item.to_owned(),
        spawner: None,
    };
    let name = identity.work_item_name();
    let object = json!({
        "apiVersion": TASKGATE, "kind": "WorkItem", "metadata": {"name": name}, "spec": {"key": item, "item": item},
    });
    fixture.apply_yaml(&object.to_string()).await?;
    let as_taskgate = Api::<WorkItem>::namespaced(fixture.cp.client_as_taskgate(), fixture.name());
    let patch = Patch::Merge(json!({"status": status}));
    as_taskgate.patch_status(&name, &PatchParams::default(), &patch).await?;
    Ok(name)
}

fn three_failures() -> Value {
    json!({"breaker": "Open", "consecutiveFailures": 3, "openedAt": "2026-11-20T10:00:00Z", "totalCostUSD": "1.50"})
}

/// The message with which a Task of `item` is denied, once it is.
async fn await_denied(fixture: &Fixture<'_>, item: &str) -> anyhow::Result<String> {
    eventually("a further Task is denied", PATIENCE, || async {
        let denied = fixture.create_dry_run(&task_of_item("probe", item)).await?;
        denied.stderr_failed()
    })
    .await
}

#[tokio::test]
async fn a_tripped_item_gets_no_further_task_and_the_message_is_complete() -> anyhow::Result<()> {
    let fixture = governed("open", limit(3)).await?;
    let name = write_work_item(&fixture, "fixer/42", &three_failures()).await?;
    let told = await_denied(&fixture, "fixer/42").await?;
    let expected = format!(
        "Error from server (Forbidden): error when creating \"STDIN\": admission webhook \"validate.tasks.taskgate.dev\" denied \
         the request: taskgate: item fixer/42 failed 3 times in a row (limit 3) since 2026-11-20T10:00Z, cost $1.50, by \
         TaskPolicy/agents; reset: taskgate reset {name} -n {ns}; why: taskgate explain item/{name} -n {ns}",
        ns = fixture.ns.name()
    );
    ensure!(told.trim() == expected, "{told}\n{expected}");
    fixture
        .create(&task_of_item("real", "fixer/42"))
        .await?
        .stderr_failed()?;
    fixture.created(&task_of_item("other", "fixer/43")).await?;
    fixture.created(&task("no-item")).await.map(drop)
}

#[tokio::test]
async fn a_spawners_task_is_identified_by_its_number_or_its_name() -> anyhow::Result<()> {
    let fixture = governed("lineage", limit(3)).await?;
    write_work_item(&fixture, "fixer/42", &three_failures()).await?;
    await_denied(&fixture, "fixer/42").await?;
    let labels = json!({"kelos.dev/taskspawner": "fixer"});
    let mut named = task("fixer-42");
    named["metadata"]["labels"] = labels.clone();
    let mut numbered = task("any-name");
    numbered["metadata"]["labels"] = labels;
    numbered["metadata"]["annotations"] = json!({"kelos.dev/source-kind": "issue", "kelos.dev/source-number": "42"});
    for denied in [named, numbered] {
        let told = fixture.create(&denied).await?.stderr_failed()?;
        ensure!(told.contains("failed 3 times in a row"), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn deleting_the_work_item_admits_tasks_again() -> anyhow::Result<()> {
    let fixture = governed("reset", limit(3)).await?;
    let name = write_work_item(&fixture, "a", &three_failures()).await?;
    await_denied(&fixture, "a").await?;
    fixture.kubectl(["delete", "wi", &name]).await?.stdout_ok()?;
    eventually("a Task passes again", PATIENCE, || async {
        fixture.dry_run(&task_of_item("probe", "a")).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn changing_the_limit_takes_effect_at_once_in_both_directions() -> anyhow::Result<()> {
    let fixture = governed("limits", limit(3)).await?;
    write_work_item(&fixture, "a", &three_failures()).await?;
    await_denied(&fixture, "a").await?;
    for (spec, passes) in [(limit(5), true), (limit(2), false), (limit(0), true), (limit(3), false)] {
        apply_policy(&fixture, "agents", spec.clone()).await?;
        ensure!(
            fixture.dry_run(&task_of_item("probe", "a")).await.is_ok() == passes,
            "{spec}"
        );
    }
    fixture.kubectl(["delete", "taskpolicy", "agents"]).await?.stdout_ok()?;
    await_policies(&fixture).await?;
    fixture.dry_run(&task_of_item("probe", "a")).await.map(drop)
}

#[tokio::test]
async fn observe_and_warn_deny_nothing() -> anyhow::Result<()> {
    let fixture = governed("softly", limit(3)).await?;
    write_work_item(&fixture, "a", &three_failures()).await?;
    await_denied(&fixture, "a").await?;
    for mode in ["Observe", "Warn"] {
        apply_policy(
            &fixture,
            "agents",
            json!({"mode": mode, "failurePolicy": {"maxRetriesPerItem": 3}}),
        )
        .await?;
        let output = fixture.create(&task_of_item(&mode.to_lowercase(), "a")).await?;
        let warned = output
            .warnings()
            .iter()
            .any(|warning| warning.starts_with("taskgate: would deny: item a failed 3 times"));
        ensure!(warned == (mode == "Warn"), "{mode}: {:?}", output.warnings());
        output.stdout_ok()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dry_run_gives_the_real_decision_and_changes_nothing() -> anyhow::Result<()> {
    let fixture = governed(
        "dryrun",
        json!({"metadata": {"labels": {"team": "blue"}}, "failurePolicy": {"maxRetriesPerItem": 3}}),
    )
    .await?;
    write_work_item(&fixture, "a", &three_failures()).await?;
    await_denied(&fixture, "a").await?;
    let seen = fixture.dry_run(&task("fine")).await?;
    ensure!(seen["metadata"]["labels"]["team"] == "blue", "{seen}");
    let mark = fixture.cp.audit().mark()?;
    for index in 0..20 {
        fixture.dry_run(&task(&format!("fine-{index}"))).await?;
        let denied = task_of_item(&format!("denied-{index}"), "a");
        fixture.create_dry_run(&denied).await?.stderr_failed()?;
    }
    // Other tests write at the same time: the audit log shows who wrote. Another test watches the revision of etcd.
    let written: Vec<_> = fixture
        .cp
        .audit()
        .since(mark)
        .await?
        .into_iter()
        .filter(|event| event.is_write() && !event.is_dry_run() && event.user_agent.starts_with("taskgate"))
        .filter(|event| event.object_ref.namespace == fixture.ns.name())
        .map(|event| event.summary())
        .collect();
    ensure!(written.is_empty(), "{written:?}");
    Ok(())
}

#[tokio::test]
async fn a_work_item_with_a_wrong_name_is_refused_with_the_right_one() -> anyhow::Result<()> {
    let fixture = start("misnamed").await?;
    let object = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "WorkItem", "metadata": {"name": "mine"},
        "spec": {"key": "fixer/42", "item": "42"},
    });
    let told = fixture.create(&object).await?.stderr_failed()?;
    ensure!(told.contains("has to be called fixer-42-e13156ca85"), "{told}");
    Ok(())
}
