//! The same file is applied again, by kubectl, by another field manager, and as a replacement. For every section that changes a Task.

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, Namespace, task};

use crate::support::governed;

const KIND: &str = "tasks.kelos.dev";

/// A file with a Task `name` that a user wrote.
fn file(name: &str) -> Value {
    let mut file = task(name);
    file["metadata"]["annotations"] = json!({"taskgate.dev/item": "nightly"});
    file["metadata"]["labels"] = json!({"mine": "yes"});
    file["spec"]["ttlSecondsAfterFinished"] = json!(3600);
    file
}

/// The stored Task, without what the API server and kubectl note about writes.
async fn stored(ns: &Namespace, name: &str) -> anyhow::Result<Value> {
    let mut task = ns.stored(KIND, name).await?.context("the Task is there")?;
    let metadata = task["metadata"].as_object_mut().context("metadata")?;
    metadata
        .retain(|key, _| ["name", "uid", "labels", "annotations", "finalizers", "generation"].contains(&key.as_str()));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    Ok(json!({"metadata": metadata, "spec": task["spec"]}))
}

async fn version(ns: &Namespace, name: &str) -> anyhow::Result<Value> {
    let task = ns.stored(KIND, name).await?.context("the Task is there")?;
    Ok(task["metadata"]["resourceVersion"].clone())
}

/// Applies the file of the Task `name` in every way.
async fn apply_in_every_way(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    let file = file(name).to_string();
    let with_file = async |args: &[&str]| {
        let output = ns
            .kubectl_with_input(args.iter().copied().chain(["-f", "-"]), &file)
            .await?;
        output.stdout_ok()
    };
    with_file(&["apply"]).await?;
    let before = stored(ns, name).await?;
    for args in [
        &["apply"][..],
        &["apply", "--server-side", "--field-manager=flux"],
        &["apply", "--server-side", "--field-manager=flux"],
        &["apply", "--server-side", "--field-manager=argocd"],
        &["apply"],
    ] {
        with_file(args).await.with_context(|| format!("{args:?}"))?;
        let after = stored(ns, name).await?;
        ensure!(after == before, "{args:?}: {before:#}\n{after:#}");
        let difference = with_file(&["diff"])
            .await
            .with_context(|| format!("diff after {args:?}"))?;
        ensure!(difference.is_empty(), "{args:?}: {difference}");
    }
    // A write by the manager that wrote last changes nothing at all.
    for args in [&["apply"][..], &["apply", "--server-side", "--field-manager=flux"]] {
        with_file(args).await?;
        let first = version(ns, name).await?;
        with_file(args).await?;
        let second = version(ns, name).await?;
        ensure!(second == first, "{args:?} wrote version {second} after {first}");
    }
    // A replacement has the labels and annotations of the file, and those that only taskgate sets.
    with_file(&["replace"]).await?;
    let replaced = stored(ns, name).await?;
    ensure!(replaced["spec"] == before["spec"], "{before:#}\n{replaced:#}");
    for map in ["labels", "annotations"] {
        for (key, value) in before["metadata"][map].as_object().into_iter().flatten() {
            let kept = !key.starts_with("taskgate.dev/") || replaced["metadata"][map][key] == *value;
            ensure!(kept, "{key}: {before:#}\n{replaced:#}");
        }
    }
    Ok(())
}

async fn test(hint: &str, spec: Value, is_moved: bool) -> anyhow::Result<()> {
    let fixture = governed(hint, spec).await?;
    apply_in_every_way(&fixture, "nightly").await?;
    let task = stored(&fixture, "nightly").await?;
    let kept = &task["metadata"]["annotations"]["taskgate.dev/ttl-seconds-after-finished"];
    let in_spec = !task["spec"]["ttlSecondsAfterFinished"].is_null();
    ensure!((kept == "3600", in_spec) == (is_moved, !is_moved), "{task:#}");
    Ok(())
}

#[tokio::test]
async fn a_task_under_a_failure_policy_can_be_applied_again() -> anyhow::Result<()> {
    test(
        "again-failure",
        json!({"failurePolicy": {"maxRetriesPerItem": 3}}),
        true,
    )
    .await
}

#[tokio::test]
async fn a_task_under_retry_can_be_applied_again() -> anyhow::Result<()> {
    test(
        "again-retry",
        json!({"retry": {"kinds": ["Task"], "maxAttempts": 3}}),
        true,
    )
    .await
}

#[tokio::test]
async fn a_task_under_metadata_can_be_applied_again() -> anyhow::Result<()> {
    let section =
        json!({"labels": {"team": "blue"}, "annotations": {"note": "by policy", "missing": "{{ task.spec.model }}"}});
    test("again-metadata", json!({"metadata": section}), false).await
}

#[tokio::test]
async fn a_task_under_the_other_sections_can_be_applied_again() -> anyhow::Result<()> {
    let spec = json!({"queueName": "agents", "cancellationPolicy": {"onSourceRemoved": "Cancel"}});
    test("again-others", spec, false).await
}

#[tokio::test]
async fn the_spec_of_a_task_stays_immutable() -> anyhow::Result<()> {
    let fixture = governed("again-changed", json!({"failurePolicy": {"maxRetriesPerItem": 3}})).await?;
    let apply = async |file: &Value| {
        let args = ["apply", "-f", "-"];
        fixture.kubectl_with_input(args, &file.to_string()).await
    };
    apply(&file("a")).await?.stdout_ok()?;
    let before = stored(&fixture, "a").await?;
    let mut changed = file("a");
    changed["spec"]["ttlSecondsAfterFinished"] = json!(60);
    let output = apply(&changed).await?;
    let warnings = output.warnings();
    ensure!(
        warnings
            .iter()
            .any(|warning| warning.contains("spec.ttlSecondsAfterFinished is 3600, as at the creation")),
        "{warnings:?}"
    );
    let refused = output.stderr_failed()?;
    ensure!(refused.contains("immutable"), "{refused}");
    let mut other = file("a");
    other["spec"]["prompt"] = json!("something else");
    let refused = apply(&other).await?.stderr_failed()?;
    ensure!(refused.contains("immutable"), "{refused}");
    // A field that is no longer in the file was not in the spec either.
    let mut without = file("a");
    without["spec"]
        .as_object_mut()
        .context("a spec")?
        .remove("ttlSecondsAfterFinished");
    apply(&without).await?.stdout_ok()?;
    let after = stored(&fixture, "a").await?;
    ensure!(after == before, "{before:#}\n{after:#}");
    Ok(())
}

/// Another configuration calls taskgate a second time, as the API server does after a later webhook's change.
#[tokio::test]
async fn a_second_pass_in_the_same_request_changes_nothing() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::start(&cp).await?;
    let ns = cp.namespace("again").await?;
    ns.policy(json!({"failurePolicy": {"maxRetriesPerItem": 3}, "metadata": {"labels": {"team": "blue"}}}))
        .await?;
    let get = [
        "get",
        "mutatingwebhookconfigurations",
        "admission.taskgate.dev",
        "-ojson",
    ];
    let mut copy: Value = cp.kubectl(get).await?.json()?;
    copy["metadata"] = json!({"name": "later.taskgate.dev"});
    cp.kubectl_with_input(["create", "-f-"], &copy.to_string())
        .await?
        .stdout_ok()?;
    apply_in_every_way(&ns, "nightly").await
}
