//! Admission of Tasks.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::task;

use crate::support::{apply_policy, governed, start};

fn team() -> Value {
    json!({"metadata": {"labels": {"team": "blue", "example.com/area": "backend"}, "annotations": {"note": "by policy"}}})
}

#[tokio::test]
async fn a_governed_task_gets_labels_and_annotations() -> anyhow::Result<()> {
    let fixture = governed("labels", team()).await?;
    let stored = fixture.created(&task("a")).await?;
    ensure!(
        stored["metadata"]["labels"] == json!({"team": "blue", "example.com/area": "backend"}),
        "{stored}"
    );
    ensure!(
        stored["metadata"]["annotations"] == json!({"note": "by policy"}),
        "{stored}"
    );
    let found = fixture
        .kubectl(["get", "tasks.kelos.dev", "-l", "team=blue", "-oname"])
        .await?
        .stdout_ok()?;
    ensure!(found.trim() == "task.kelos.dev/a", "{found}");
    Ok(())
}

#[tokio::test]
async fn a_value_of_the_creator_stays_with_a_warning() -> anyhow::Result<()> {
    let fixture = governed("kept", team()).await?;
    let mut mine = task("a");
    mine["metadata"]["labels"] = json!({"team": "red", "mine": "yes"});
    let output = fixture.create(&mine).await?;
    ensure!(
        output.warnings() == ["taskgate: TaskPolicy/agents: kept the Task's own value of team"],
        "{:?}",
        output.warnings()
    );
    output.stdout_ok()?;
    let stored = fixture
        .kubectl(["get", "tasks.kelos.dev", "a", "-ojsonpath={.metadata.labels}"])
        .await?
        .stdout_ok()?;
    let labels: Value = serde_json::from_str(&stored)?;
    ensure!(
        labels == json!({"team": "red", "mine": "yes", "example.com/area": "backend"}),
        "{labels}"
    );
    Ok(())
}

#[tokio::test]
async fn every_field_that_is_not_ours_survives() -> anyhow::Result<()> {
    let fixture = start("survives").await?;
    let mut rich = task("a");
    rich["metadata"]["annotations"] = json!({"odd/key": "a\"b\\c\n🦀 ~1 /", "empty": ""});
    rich["metadata"]["finalizers"] = json!(["example.com/mine"]);
    rich["spec"]["podOverrides"] = json!({
        "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
        "env": [{"name": "A", "value": "1"}],
        "nodeSelector": {"size": "xl"},
        "extraContainers": [{"name": "side", "image": "side", "resources": {}}],
    });
    rich["spec"]["dependsOn"] = json!(["b", "c"]);
    let before = fixture.dry_run(&rich).await?;
    apply_policy(&fixture, "agents", team()).await?;
    let mut after = fixture.dry_run(&rich).await?;
    ensure!(after["metadata"]["labels"]["team"] == "blue", "{after}");
    let metadata = after["metadata"].as_object_mut().expect("an object has metadata");
    metadata.remove("labels");
    metadata["annotations"]
        .as_object_mut()
        .expect("annotations were given")
        .remove("note");
    let identity = |object: &Value| {
        let mut object = object.clone();
        for field in ["uid", "creationTimestamp", "managedFields", "resourceVersion"] {
            object["metadata"][field].take();
        }
        object
    };
    ensure!(identity(&before) == identity(&after), "{before}\n{after}");
    Ok(())
}

#[tokio::test]
async fn the_older_version_of_a_task_is_governed_alike() -> anyhow::Result<()> {
    let fixture = governed("v1alpha1", team()).await?;
    let mut old = task("a");
    old["apiVersion"] = json!("kelos.dev/v1alpha1");
    let stored = fixture.created(&old).await?;
    ensure!(stored["metadata"]["labels"]["team"] == "blue", "{stored}");
    Ok(())
}

#[tokio::test]
async fn a_task_on_which_kelos_fails_silently_has_a_warning() -> anyhow::Result<()> {
    let fixture = governed("warnings", json!({"queueName": "agents"})).await?;
    let long = "l".repeat(64);
    let mut unstable = task("unstable");
    unstable["spec"]["model"] = json!("");
    unstable["spec"]["podOverrides"] = json!({"resources": {"limits": {"cpu": "0.5"}}});
    let mut lost = task("lost");
    lost["spec"]["workspaceRef"] = json!({"name": "nowhere"});
    for (object, expected) in [
        (
            task(&long),
            "taskgate: TaskPolicy/agents: the Task's name has 64 characters, its Job's may have 63: Kelos will never start it; \
             shorten the name",
        ),
        (
            unstable,
            "taskgate: TaskPolicy/agents: Kelos cannot write this spec back unchanged and will never start the Task; leave out \
             or write canonically: model, podOverrides.resources.limits.cpu",
        ),
        (
            lost,
            "taskgate: TaskPolicy/agents: Workspace nowhere does not exist: Kelos waits for it and does not report it",
        ),
    ] {
        let output = fixture.create(&object).await?;
        ensure!(output.warnings() == [expected], "{:?}", output.warnings());
        output.stdout_ok()?;
    }
    let fine = fixture.create(&task("fine")).await?;
    ensure!(fine.warnings().is_empty(), "{:?}", fine.warnings());
    Ok(())
}

#[tokio::test]
async fn nulls_where_maps_are_expected_do_no_harm() -> anyhow::Result<()> {
    let fixture = governed("nulls", team()).await?;
    let mut odd = task("a");
    odd["metadata"]["labels"] = Value::Null;
    odd["metadata"]["annotations"] = Value::Null;
    odd["metadata"]["ownerReferences"] = Value::Null;
    odd["metadata"]["finalizers"] = Value::Null;
    odd["spec"]["model"] = Value::Null;
    odd["spec"]["workspaceRef"] = Value::Null;
    let output = fixture.create(&odd).await?;
    ensure!(output.warnings().is_empty(), "{:?}", output.warnings());
    output.stdout_ok()?;
    let team = fixture
        .kubectl(["get", "tasks.kelos.dev", "a", "-ojsonpath={.metadata.labels.team}"])
        .await?;
    ensure!(team.stdout_ok()? == "blue");
    Ok(())
}

#[tokio::test]
async fn keys_of_taskgate_are_removed_from_a_new_task_and_changed_by_taskgate_alone() -> anyhow::Result<()> {
    let fixture = governed("forged", team()).await?;
    let mut forged = task("a");
    forged["metadata"]["labels"] = json!({"taskgate.dev/work-item": "victim", "mine": "yes"});
    forged["metadata"]["annotations"] = json!({"taskgate.dev/recorded": "x", "taskgate.dev/item": "epic"});
    forged["metadata"]["finalizers"] = json!(["taskgate.dev/accounting"]);
    let output = fixture.create(&forged).await?;
    ensure!(
        output.warnings()
            == [
                "taskgate: only taskgate sets these, removed: taskgate.dev/accounting, taskgate.dev/recorded, \
                 taskgate.dev/work-item"
            ],
        "{:?}",
        output.warnings()
    );
    let stored = fixture
        .kubectl(["get", "task.kelos.dev", "a", "-ojson"])
        .await?
        .stdout_ok()?;
    let stored: Value = serde_json::from_str(&stored)?;
    let metadata = &stored["metadata"];
    ensure!(
        metadata["annotations"] == json!({"taskgate.dev/item": "epic", "note": "by policy"}),
        "{metadata}"
    );
    ensure!(metadata["labels"]["mine"] == "yes" && metadata["labels"].get("taskgate.dev/work-item").is_none());
    ensure!(metadata.get("finalizers").is_none(), "{metadata}");

    let mark = ["annotate", "task.kelos.dev", "a", "taskgate.dev/recorded=x"];
    let refused = fixture.kubectl(mark).await?.stderr_failed()?;
    ensure!(
        refused.contains("only taskgate changes taskgate.dev/recorded"),
        "{refused}"
    );
    let note = ["annotate", "task.kelos.dev", "a", "note=mine", "--overwrite"];
    fixture.kubectl(note).await?.stdout_ok().map(drop)
}

/// Server-side apply may create an object with a time of deletion. Kubernetes 1.37 drops it, but after admission.
#[tokio::test]
async fn a_new_task_with_a_time_of_deletion_is_admitted_as_any_other() -> anyhow::Result<()> {
    let fixture = governed("dying", team()).await?;
    let mut forged = task("a");
    forged["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    forged["metadata"]["annotations"] = json!({"taskgate.dev/recorded": "x"});
    fixture.apply_yaml(&forged.to_string()).await?;
    let stored = fixture.stored("task.kelos.dev", "a").await?.context("the Task")?;
    let metadata = &stored["metadata"];
    ensure!(metadata["labels"]["team"] == "blue", "{metadata}");
    ensure!(metadata["annotations"] == json!({"note": "by policy"}), "{metadata}");
    Ok(())
}

#[tokio::test]
async fn overrides_of_a_retry_take_the_right_to_create_what_they_change() -> anyhow::Result<()> {
    let fixture = governed("overrides", team()).await?;
    let name = fixture.ns.name();
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "policies", "namespace": name},
        "rules": [{"apiGroups": ["taskgate.dev"], "resources": ["*"], "verbs": ["*"]}]});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
        "metadata": {"name": "policies", "namespace": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "policies"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "paul"}]});
    fixture.apply_yaml(&format!("{role}\n---\n{binding}")).await?;
    let policy = |overrides: Value| {
        json!({"apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "r"},
            "spec": {"retry": {"kinds": ["Task"], "maxAttempts": 2, "overrides": overrides}}})
        .to_string()
    };
    let create = ["create", "--dry-run=server", "-f-", "--as=paul"];
    let with = policy(json!({"task": {"image": "evil"}}));
    let refused = fixture.kubectl_with_input(create, &with).await?.stderr_failed()?;
    let expected = format!(
        "spec.retry.overrides: that takes the right to create tasks.kelos.dev in namespace {name}, which paul does not have"
    );
    ensure!(refused.contains(&expected), "{refused}");
    fixture
        .kubectl_with_input(create, &policy(Value::Null))
        .await?
        .stdout_ok()?;
    let admin = ["create", "--dry-run=server", "-f-"];
    fixture.kubectl_with_input(admin, &with).await?.stdout_ok().map(drop)
}
