//! `taskgate disable`, `enable` and `status`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kelos_standin::types::Task;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_gone, await_object, eventually, never};

use crate::support::{DisableFixture, task};

async fn fail(tasks: &Api<Task>, name: &str) -> anyhow::Result<()> {
    let status = json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}});
    tasks
        .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

/// A cluster's own admission policy that refuses to remove the finalizers of some Tasks.
fn keep_finalizers() -> String {
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

/// Tasks whose finalizers cannot be removed do not block the others.
async fn tasks_that_stay_block_no_other(fixture: &DisableFixture) -> anyhow::Result<()> {
    let tasks = fixture.ns.tasks();
    fixture.cp.apply_yaml(&keep_finalizers()).await?;
    eventually("removing them is refused", PATIENCE, || async {
        let no_finalizers = r#"{"metadata":{"finalizers":null}}"#;
        let patch = [
            "patch",
            "tasks.kelos.dev",
            "stuck-0",
            "--dry-run=server",
            "--type=merge",
            "-p",
            no_finalizers,
        ];
        let refused = fixture.ns.kubectl(patch).await?.stderr_failed()?;
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
    fixture.cp.kubectl(binding).await?.stdout_ok()?;
    for n in 0..20 {
        await_gone(&tasks, &format!("stuck-{n}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn disabled_it_blocks_nothing_and_enabled_it_is_as_before() -> anyhow::Result<()> {
    let fixture = DisableFixture::start().await?;
    let tasks = fixture.ns.tasks();
    for name in ["kept", "deleted"] {
        let made = tasks.create(&PostParams::default(), &task(name)?).await?;
        ensure!(made.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING));
    }
    // More than are released at a time.
    for n in 0..20 {
        let mut stuck = task(&format!("stuck-{n}"))?;
        stuck.metadata.finalizers = Some(vec![keys::ACCOUNTING.to_owned()]);
        tasks.create(&PostParams::default(), &stuck).await?;
    }
    let before = fixture.configurations().await?;
    let told = fixture
        .taskgate(&["disable", "--reason", "incident 7", "--dry-run"])
        .await?;
    ensure!(
        told.ends_with("taskgate would be disabled until `taskgate enable` (dry run)\n"),
        "{told}"
    );
    ensure!(fixture.configurations().await? == before, "{told}");
    fixture.taskgate(&["disable", "--reason", "incident 7"]).await?;
    fixture.await_governed(false).await?;
    eventually("the metric is set", PATIENCE, || async {
        ensure!(fixture.gate.metrics().await?.sum("taskgate_disabled") > 0.0);
        Ok(())
    })
    .await?;
    let status = fixture.taskgate(&["status"]).await?;
    for words in [
        "taskgate: disabled since 20",
        "incident 7",
        "by ",
        "admission.taskgate.dev: off;",
    ] {
        ensure!(status.contains(words), "{words}: {status}");
    }

    // The controller only removes finalizers: no failure is counted, no deletion waits.
    fail(&tasks, "kept").await?;
    never("a failure is counted", Duration::from_secs(3), || async {
        Ok(fixture
            .ns
            .work_items()
            .list(&ListParams::default())
            .await?
            .items
            .pop()
            .map(|item| item.name_any()))
    })
    .await?;
    tasks_that_stay_block_no_other(&fixture).await?;
    let other = fixture.cp.namespace("other").await?;
    fixture
        .cp
        .kubectl(["delete", "namespace", other.name(), "--timeout=60s"])
        .await?
        .stdout_ok()?;
    // The same while taskgate does not run.
    fixture.gate.process().kill().await?;
    fixture.await_governed(false).await?;
    let told = fixture.taskgate(&["enable", "--dry-run"]).await?;
    ensure!(told.ends_with("taskgate would be enabled (dry run)\n"), "{told}");
    fixture.await_governed(false).await?;
    fixture.taskgate(&["enable"]).await?;
    let after = fixture.configurations().await?;
    ensure!(after == before, "{after:#?}\n{before:#?}");

    fixture.gate.process().start().await?;
    fixture.await_governed(true).await?;
    await_object(&tasks, "kept", "is recorded", |task| {
        task.annotations().contains_key(keys::RECORDED)
    })
    .await?;
    let status = fixture.taskgate(&["status"]).await?;
    ensure!(
        status.starts_with("taskgate: enabled\n") && status.contains(": on;"),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn when_the_time_is_over_it_is_enabled_automatically_also_after_a_restart() -> anyhow::Result<()> {
    let fixture = DisableFixture::start().await?;
    let before = fixture.configurations().await?;
    fixture
        .taskgate(&["disable", "--for", "3s", "--reason", "a moment"])
        .await?;
    eventually("the ConfigMap is gone", PATIENCE, || is_gone(&fixture)).await?;
    fixture.await_governed(true).await?;

    // Killed first: on a slow machine it would be enabled already.
    fixture.gate.process().kill().await?;
    let told = fixture
        .taskgate(&["disable", "--for", "4s", "--reason", "a moment"])
        .await?;
    let until = told.trim_end().rsplit(' ').next().unwrap_or_default();
    let until: Timestamp = until.parse().with_context(|| told.clone())?;
    eventually("its time is over", PATIENCE, async || {
        ensure!(Timestamp::now() > until, "until {until}");
        Ok(())
    })
    .await?;
    // No replica runs that could enable it.
    fixture.await_governed(false).await?;
    fixture.gate.process().start().await?;
    fixture.await_governed(true).await?;
    eventually("the configurations are as before", PATIENCE, || async {
        let after = fixture.configurations().await?;
        ensure!(after == before, "{after:#?}");
        is_gone(&fixture).await
    })
    .await
}

/// Whether taskgate has deleted the ConfigMap.
async fn is_gone(fixture: &DisableFixture) -> anyhow::Result<()> {
    let maps = fixture
        .cp
        .kubectl(["-n", "taskgate-system", "get", "configmap", "-oname"])
        .await?
        .stdout_ok()?;
    ensure!(!maps.contains("taskgate-disabled"), "{maps}");
    Ok(())
}
