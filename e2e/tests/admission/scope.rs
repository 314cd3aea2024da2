//! What never reaches taskgate, by the API server's audit log: an unchanged object alone would prove nothing.

use anyhow::ensure;
use serde_json::{Value, json};
use taskgate_e2e::{AuditEvent, Fixture, GATE_NAMESPACE, Namespace, job_of, task};

use crate::support::{MUTATE_JOBS, MUTATE_TASKS, governed, labelled, start};

/// The audit events of creations of `object` in `ns`.
async fn creation(fixture: &Fixture<'_>, ns: &Namespace, object: &Value) -> anyhow::Result<AuditEvent> {
    let mark = fixture.cp.audit().mark()?;
    ns.created(object).await?;
    let mut events = fixture.cp.audit().since(mark).await?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    // The job controller creates pods and Events in the same namespace.
    let ours = |event: &AuditEvent| {
        ["tasks", "jobs"].contains(&event.object_ref.resource.as_str()) && event.object_ref.name == name
    };
    events.retain(|event| event.verb == "create" && event.object_ref.namespace == ns.name() && ours(event));
    ensure!(events.len() == 1, "{events:?}");
    Ok(events.remove(0))
}

/// A Job with Kelos' labels and without an owner.
fn job(name: &str) -> Value {
    let mut job = job_of(&task(name));
    job["metadata"]["ownerReferences"] = json!([]);
    job
}

#[tokio::test]
async fn governed_objects_reach_taskgate() -> anyhow::Result<()> {
    let fixture = governed("reached", json!({"queueName": "agents"})).await?;
    let event = creation(&fixture, &fixture.ns, &task("a")).await?;
    ensure!(event.was_sent_to(MUTATE_TASKS), "{event:?}");
    let owner = fixture.created(&task("b")).await?;
    let event = creation(&fixture, &fixture.ns, &job_of(&owner)).await?;
    ensure!(event.was_sent_to(MUTATE_JOBS), "{event:?}");
    Ok(())
}

#[tokio::test]
async fn jobs_without_kelos_label_never_reach_taskgate() -> anyhow::Result<()> {
    let fixture = governed("plain", json!({"queueName": "agents"})).await?;
    let mut plain = job("plain");
    plain["metadata"]["labels"] = json!({"kelos.dev/taskspawner": "nightly"});
    let event = creation(&fixture, &fixture.ns, &plain).await?;
    ensure!(event.webhooks().is_empty(), "{:?}", event.webhooks());
    Ok(())
}

#[tokio::test]
async fn jobs_that_belong_to_no_task_stay_as_they_are() -> anyhow::Result<()> {
    let fixture = governed("foreign", json!({"queueName": "agents"})).await?;
    let mut spawner_run = job("spawner-run");
    spawner_run["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "1", "controller": true}]);
    let mut uncontrolled = job("uncontrolled");
    uncontrolled["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "name": "a", "uid": "1"}]);
    let mut tekton = job("tekton");
    tekton["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "tekton.dev/v1", "kind": "Task", "name": "a", "uid": "1", "controller": true}]);
    for object in [job("labelled-only"), spawner_run, uncontrolled, tekton] {
        let event = creation(&fixture, &fixture.ns, &object).await?;
        ensure!(event.patches_of(MUTATE_JOBS).is_empty(), "{event:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_namespace_that_opted_out_never_reaches_taskgate() -> anyhow::Result<()> {
    let fixture = labelled("optedout", &[("taskgate.dev/admission", "disabled")]).await?;
    let event = creation(&fixture, &fixture.ns, &task("a")).await?;
    ensure!(event.webhooks().is_empty(), "{:?}", event.webhooks());
    Ok(())
}

#[tokio::test]
async fn system_namespaces_and_taskgates_own_never_reach_it() -> anyhow::Result<()> {
    let fixture = start("system").await?;
    for namespace in ["kube-system", "kube-node-lease", GATE_NAMESPACE] {
        let mark = fixture.cp.audit().mark()?;
        let name = format!("probe-{}", fixture.ns.name());
        let args = ["-n", namespace, "create", "-f-"];
        fixture
            .cp
            .kubectl_with_input(args, &task(&name).to_string())
            .await?
            .stdout_ok()?;
        let events = fixture.cp.audit().since(mark).await?;
        let event = events
            .iter()
            .find(|event| event.verb == "create" && event.object_ref.namespace == namespace);
        ensure!(event.is_some_and(|event| event.webhooks().is_empty()), "{event:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_policy_nothing_changes() -> anyhow::Result<()> {
    let fixture = start("nopolicy").await?;
    let event = creation(&fixture, &fixture.ns, &task("a")).await?;
    ensure!(
        event.was_sent_to(MUTATE_TASKS) && event.patches_of(MUTATE_TASKS).is_empty(),
        "{event:?}"
    );
    let stored = fixture
        .kubectl(["get", "tasks.kelos.dev", "a", "-ojson"])
        .await?
        .stdout_ok()?;
    let mut stored: Value = serde_json::from_str(&stored)?;
    let metadata = stored["metadata"].as_object_mut().expect("it has metadata");
    for set_by_the_api_server in ["creationTimestamp", "generation", "namespace", "resourceVersion", "uid"] {
        metadata.remove(set_by_the_api_server);
    }
    ensure!(stored == task("a"), "{stored}");
    Ok(())
}

#[tokio::test]
async fn updates_and_deletions_never_reach_taskgate() -> anyhow::Result<()> {
    let fixture = governed("later", json!({"metadata": {"labels": {"team": "blue"}}})).await?;
    let mut kept = task("a");
    kept["metadata"]["finalizers"] = json!(["example.com/other"]);
    fixture.created(&kept).await?;
    let mark = fixture.cp.audit().mark()?;
    let ns = &fixture.ns;
    ns.kubectl(["label", "tasks.kelos.dev", "a", "x=y"])
        .await?
        .stdout_ok()?;
    ns.kubectl(["delete", "tasks.kelos.dev", "a", "--wait=false"])
        .await?
        .stdout_ok()?;
    ns.kubectl(["label", "tasks.kelos.dev", "a", "x=z", "--overwrite"])
        .await?
        .stdout_ok()?;
    let release = [
        "patch",
        "tasks.kelos.dev",
        "a",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#,
    ];
    ns.kubectl(release).await?.stdout_ok()?;
    let mut events = fixture.cp.audit().since(mark).await?;
    events.retain(|event| event.is_write() && event.object_ref.namespace == ns.name());
    ensure!(
        events.len() == 4 && events.iter().all(|event| event.webhooks().is_empty()),
        "{events:?}"
    );
    Ok(())
}
