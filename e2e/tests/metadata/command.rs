//! `taskgate render`: without a cluster, and for a Task in one.

use std::process::Stdio;

use anyhow::ensure;
use serde_json::json;
use taskgate_e2e::binary;
use tokio::process::Command;

use crate::support::{file, start, task};

async fn taskgate<'a>(args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<(bool, String)> {
    let output = Command::new(binary("taskgate")?)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test]
async fn a_policy_is_tried_on_a_task_with_either_engine() -> anyhow::Result<()> {
    let fixture = start("render").await?;
    let sample = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "agents"},
        "spec": {"metadata": {"engine": "GoTemplate",
            "labels": {"kelos.dev/priority": "{{index .Labels 0}}", "area": "backend", "note": "{{with .Author}}{{.}}{{end}}"},
            "annotations": {"kelos.dev/source-url": "{{.URL}}"}}},
    });
    let workspace = json!({"apiVersion": "kelos.dev/v1alpha2", "kind": "Workspace", "metadata": {"name": "shop"},
        "spec": {"repo": "https://github.com/acme/shop.git"}});
    let mut mine = task("fixer-42");
    mine["metadata"]["labels"]["area"] = json!("web");
    let policy = file(&fixture, "policy.yaml", &sample)?.display().to_string();
    let object = file(&fixture, "task.yaml", &mine)?.display().to_string();
    let workspace = file(&fixture, "workspace.yaml", &workspace)?.display().to_string();
    let item = file(
        &fixture,
        "item.yaml",
        &json!({"labels": ["priority/critical"], "author": "octocat"}),
    )?;
    let item = item.display().to_string();
    let (ok, shown) = taskgate(["render", &policy, &object, "--workspace", &workspace]).await?;
    let url = "\"https://github.com/acme/shop/issues/42\"";
    let expected = [
        ("label area", "\"web\"", "the Task's own stays"),
        (
            "label kelos.dev/priority",
            "-",
            "left out: line 1, column 3: index of what is not there",
        ),
        ("label note", "-", "left out: the template gives no text"),
        ("annotation kelos.dev/source-url", url, "set"),
    ];
    let expected = expected.map(|(key, value, note)| format!("{key:31}  {value:40}  {note}\n"));
    let expected = expected.concat();
    ensure!(ok && shown == expected, "{shown}\n{expected}");
    let (ok, shown) = taskgate(["render", &policy, &object, "--workspace", &workspace, "--item", &item]).await?;
    ensure!(
        ok && shown.contains("set; \"priority/critical\" is no legal label value"),
        "{shown}"
    );
    ensure!(shown.contains("\"octocat\""), "{shown}");
    let mut later = sample;
    later["spec"]["metadata"]["fromSource"] = json!(true);
    let later = file(&fixture, "later.yaml", &later)?.display().to_string();
    let (ok, shown) = taskgate(["render", &later, &object]).await?;
    let waits = shown.matches("set once the issue source has been read").count();
    ensure!(ok && waits == 2, "{shown}");
    let (ok, shown) = taskgate(["render", &policy, &object, "--engine", "Tera"]).await?;
    ensure!(
        !ok && shown.contains("spec.metadata.labels[kelos.dev/priority]: line 1, column"),
        "{shown}"
    );
    // The same for a Task that lives in a cluster.
    let stored = fixture.created(&task("fixer-42")).await?;
    ensure!(stored["metadata"]["labels"]["area"].is_null(), "{stored}");
    let kubeconfig = fixture.cp.kubeconfig().display().to_string();
    let live = [
        "render",
        &policy,
        "fixer-42",
        "--live",
        "--kubeconfig",
        &kubeconfig,
        "-n",
        fixture.ns.name(),
    ];
    let (ok, shown) = taskgate(live).await?;
    ensure!(ok && shown.contains(url) && shown.contains("label area"), "{shown}");
    Ok(())
}
