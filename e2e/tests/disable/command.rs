//! `taskgate disable`, `enable` and `status`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kelos_standin::types::Task;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use taskgate_api::{WorkItem, keys};
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};

use crate::world::World;

async fn fail(tasks: &Api<Task>, name: &str) -> anyhow::Result<()> {
    let status = json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}});
    tasks
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

/// A cluster's own policy that refuses to take finalizers off some Tasks.
fn keeps_stuck() -> String {
    let kept = "!object.metadata.name.startsWith('stuck') || has(object.metadata.finalizers)";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "stuck"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["kelos.dev"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["tasks"]},
            ]},
            "validations": [{"expression": kept, "message": "it stays"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "stuck"}, "spec": {"policyName": "stuck", "validationActions": ["Deny"]},
    });
    format!("{policy}\n---\n{binding}")
}

/// Whoever does not let some Tasks go is not in the way of the others.
async fn tasks_that_stay_are_in_nobodys_way(world: &World) -> anyhow::Result<()> {
    let tasks = world.tasks();
    world.cp.apply_yaml(&keeps_stuck()).await?;
    eventually("they are kept", PATIENCE, || async {
        let free = r#"{"metadata":{"finalizers":null}}"#;
        let patch = [
            "patch",
            "tasks.kelos.dev",
            "stuck-0",
            "--dry-run=server",
            "--type=merge",
            "-p",
            free,
        ];
        let refused = world.ns.kubectl(patch).await?.stderr_failed()?;
        ensure!(refused.contains("it stays"), "{refused}");
        Ok(())
    })
    .await?;
    for n in 0..20 {
        tasks.delete(&format!("stuck-{n}"), &DeleteParams::default()).await?;
    }
    tasks.delete("deleted", &DeleteParams::default()).await?;
    await_gone(&tasks, "deleted").await?;
    let binding = ["delete", "validatingadmissionpolicybinding", "stuck"];
    world.cp.kubectl(binding).await?.stdout_ok()?;
    for n in 0..20 {
        await_gone(&tasks, &format!("stuck-{n}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn disabled_nothing_is_in_the_way_and_enabled_all_is_as_it_was() -> anyhow::Result<()> {
    let world = World::start().await?;
    let tasks = world.tasks();
    for name in ["kept", "deleted"] {
        let made = tasks.create(&PostParams::default(), &World::task(name)?).await?;
        ensure!(made.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING));
    }
    // More than are let go at a time.
    for n in 0..20 {
        let mut stuck = World::task(&format!("stuck-{n}"))?;
        stuck.metadata.finalizers = Some(vec![keys::ACCOUNTING.to_owned()]);
        tasks.create(&PostParams::default(), &stuck).await?;
    }
    let before = world.configurations().await?;
    let told = world
        .taskgate(&["disable", "--reason", "incident 7", "--dry-run"])
        .await?;
    ensure!(
        told.ends_with("taskgate would be disabled until `taskgate enable` (dry run)\n"),
        "{told}"
    );
    ensure!(world.configurations().await? == before, "{told}");
    world.taskgate(&["disable", "--reason", "incident 7"]).await?;
    world.until_governed(false).await?;
    eventually("the metric says so", PATIENCE, || async {
        ensure!(world.gate.metrics().await?.sum("taskgate_disabled") > 0.0);
        Ok(())
    })
    .await?;
    let status = world.taskgate(&["status"]).await?;
    for words in [
        "taskgate: disabled since 20",
        "incident 7",
        "by ",
        "admission.taskgate.dev: off;",
    ] {
        ensure!(status.contains(words), "{words}: {status}");
    }

    // The controller does nothing but let go: no failure is counted, no deletion waits.
    fail(&tasks, "kept").await?;
    never("a failure is counted", Duration::from_secs(3), || async {
        Ok(world
            .ns
            .api::<WorkItem>()
            .list(&ListParams::default())
            .await?
            .items
            .pop()
            .map(|item| item.name_any()))
    })
    .await?;
    tasks_that_stay_are_in_nobodys_way(&world).await?;
    let other = world.cp.namespace("other").await?;
    world
        .cp
        .kubectl(["delete", "namespace", other.name(), "--timeout=60s"])
        .await?
        .stdout_ok()?;
    // Nor does it need a taskgate that runs.
    world.gate.process().kill().await?;
    world.until_governed(false).await?;
    let told = world.taskgate(&["enable", "--dry-run"]).await?;
    ensure!(told.ends_with("taskgate would be enabled (dry run)\n"), "{told}");
    world.until_governed(false).await?;
    world.taskgate(&["enable"]).await?;
    let after = world.configurations().await?;
    ensure!(after == before, "{after:#?}\n{before:#?}");

    world.gate.process().start().await?;
    world.until_governed(true).await?;
    await_object(&tasks, "kept", "is recorded", |task| {
        task.annotations().contains_key(keys::RECORDED)
    })
    .await?;
    let status = world.taskgate(&["status"]).await?;
    ensure!(
        status.starts_with("taskgate: enabled\n") && status.contains(": on;"),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn when_its_time_is_over_it_enables_itself_also_after_a_restart() -> anyhow::Result<()> {
    let world = World::start().await?;
    let before = world.configurations().await?;
    world
        .taskgate(&["disable", "--for", "3s", "--reason", "a moment"])
        .await?;
    eventually("the switch is gone", PATIENCE, || is_gone(&world)).await?;
    world.until_governed(true).await?;

    // Killed before: a machine that is slow must not let it enable itself.
    world.gate.process().kill().await?;
    let told = world
        .taskgate(&["disable", "--for", "4s", "--reason", "a moment"])
        .await?;
    let until = told.trim_end().rsplit(' ').next().unwrap_or_default();
    let until: Timestamp = until.parse().with_context(|| told.clone())?;
    eventually("its time is over", PATIENCE, async || {
        ensure!(Timestamp::now() > until, "until {until}");
        Ok(())
    })
    .await?;
    // Nobody is there to enable it.
    world.until_governed(false).await?;
    world.gate.process().start().await?;
    world.until_governed(true).await?;
    eventually("nothing is left of it", PATIENCE, || async {
        let after = world.configurations().await?;
        ensure!(after == before, "{after:#?}");
        is_gone(&world).await
    })
    .await
}

/// Whether taskgate has taken the switch away.
async fn is_gone(world: &World) -> anyhow::Result<()> {
    let maps = world
        .cp
        .kubectl(["-n", "taskgate-system", "get", "configmap", "-oname"])
        .await?
        .stdout_ok()?;
    ensure!(!maps.contains("taskgate-disabled"), "{maps}");
    Ok(())
}
