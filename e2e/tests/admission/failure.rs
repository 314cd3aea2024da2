//! taskgate unavailable, starting or stopping. Each test has a control plane of its own.

use std::time::Duration;

use anyhow::ensure;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kelos_standin::CRDS;
use kube::Api;
use serde_json::json;
use taskgate_e2e::{ControlPlane, GATE_NAMESPACE, Gate, PATIENCE, eventually, task};

const SECRET: &str = "taskgate-serving-cert";

async fn plane() -> anyhow::Result<ControlPlane> {
    ControlPlane::builder().crds(CRDS).start().await
}

#[tokio::test]
async fn unavailable_and_fail_open_tasks_pass_and_cleanup_goes_on() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::start(&cp).await?;
    let ns = cp.namespace("open").await?;
    gate.process().kill().await?;
    ns.created(&task("a")).await?;
    let event = cp.apiserver_metrics().await?;
    let opened = event.sum("apiserver_admission_webhook_fail_open_count");
    ensure!(opened >= 1.0, "the API server counts calls without an answer: {opened}");
    ns.kubectl(["delete", "tasks.kelos.dev", "a"]).await?.stdout_ok()?;
    cp.kubectl(["delete", "namespace", ns.name(), "--timeout=60s"])
        .await?
        .stdout_ok()
        .map(drop)
}

#[tokio::test]
async fn unavailable_and_fail_closed_creates_stop_but_nothing_else_does() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .start(&cp)
        .await?;
    let ns = cp.namespace("closed").await?;
    let mut kept = task("kept");
    kept["metadata"]["finalizers"] = json!(["example.com/other"]);
    ns.created(&kept).await?;
    gate.process().kill().await?;
    let told = ns.create(&task("a")).await?.stderr_failed()?;
    ensure!(
        told.contains("failed calling webhook \"mutate.tasks.taskgate.dev\""),
        "{told}"
    );
    ns.kubectl(["delete", "tasks.kelos.dev", "kept", "--wait=false"])
        .await?
        .stdout_ok()?;
    let release = [
        "patch",
        "tasks.kelos.dev",
        "kept",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/metadata/finalizers"}]"#,
    ];
    ns.kubectl(release).await?.stdout_ok()?;
    cp.kubectl(["delete", "namespace", ns.name(), "--timeout=60s"])
        .await?
        .stdout_ok()?;
    gate.process().start().await?;
    let ns = cp.namespace("again").await?;
    ns.created(&task("a")).await.map(drop)
}

/// Fail-closed, so that one call that is not answered is one failed create.
#[tokio::test]
async fn two_hundred_creates_right_after_ready_all_succeed_and_are_governed() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .start(&cp)
        .await?;
    let ns = cp.namespace("burst").await?;
    ns.apply_policy("agents", &json!({"metadata": {"labels": {"team": "blue"}}}))
        .await?;
    gate.process().restart().await?;
    let client = cp.client();
    let tasks: Api<kube::core::DynamicObject> = Api::namespaced_with(
        client,
        ns.name(),
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("kelos.dev", "v1alpha2", "Task")),
    );
    let creates = (0..200).map(|index| {
        let tasks = tasks.clone();
        async move {
            let object = serde_json::from_value(task(&format!("t-{index}")))?;
            anyhow::Ok(tasks.create(&kube::api::PostParams::default(), &object).await?)
        }
    });
    // Twice as many at a time as connections that an API server keeps.
    for made in stream::iter(creates)
        .buffer_unordered(50)
        .try_collect::<Vec<_>>()
        .await?
    {
        let labels = made.metadata.labels.unwrap_or_default();
        ensure!(
            labels.get("team").is_some_and(|team| team == "blue"),
            "{:?}: {labels:?}",
            made.metadata.name
        );
    }
    Ok(())
}

#[tokio::test]
async fn on_sigterm_it_drains_and_exits_with_0() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .serve_flag("--lame-duck=3s")
        .start(&cp)
        .await?;
    let ns = cp.namespace("drain").await?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let creating = async {
        let mut count = 0;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let made = ns.create_dry_run(&task(&format!("t-{count}"))).await?;
            // Creates fail only once it has gone.
            if !made.status.success() {
                ensure!(
                    !gate.process().is_running() || made.stderr.contains("connection refused"),
                    "{}",
                    made.stderr
                );
                break;
            }
            count += 1;
        }
        anyhow::Ok(count)
    };
    let terminating = async {
        let exit = gate.process().terminate().await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        exit
    };
    let (count, exit) = tokio::join!(creating, terminating);
    ensure!(exit?.success(), "{}", gate.process().log_tail(20));
    ensure!(count? > 0, "creates went on while it was stopping");
    Ok(())
}

#[tokio::test]
async fn a_deleted_secret_and_a_removed_bundle_are_repaired_while_serving() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::builder()
        .registration_flag("--failure-policy=fail")
        .start(&cp)
        .await?;
    let ns = cp.namespace("certs").await?;
    let secrets: Api<Secret> = Api::namespaced(cp.client(), GATE_NAMESPACE);
    let before = secrets.get(SECRET).await?;
    cp.kubectl(["-n", GATE_NAMESPACE, "delete", "secret", SECRET])
        .await?
        .stdout_ok()?;
    eventually("the Secret is back, with another CA", PATIENCE, || async {
        let after = secrets.get(SECRET).await?;
        ensure!(after.metadata.uid != before.metadata.uid);
        Ok(())
    })
    .await?;
    let remove = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
    let args = [
        "patch",
        "mutatingwebhookconfiguration",
        "admission.taskgate.dev",
        "--type=json",
        "-p",
        remove,
    ];
    cp.kubectl(args).await?.stdout_ok()?;
    eventually("admission works again", PATIENCE, || async {
        ns.dry_run(&task("probe")).await.map(drop)
    })
    .await?;
    ensure!(gate.process().is_running());
    let managers = cp
        .kubectl([
            "get",
            "mutatingwebhookconfiguration",
            "admission.taskgate.dev",
            "-ojson",
            "--show-managed-fields",
        ])
        .await?
        .stdout_ok()?;
    let configuration: serde_json::Value = serde_json::from_str(&managers)?;
    let ours = configuration["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["manager"] == "taskgate-ca")
        .map(|entry| entry["fieldsV1"].to_string())
        .unwrap_or_default();
    ensure!(
        ours.contains("f:caBundle") && !ours.contains("f:rules") && !ours.contains("f:failurePolicy"),
        "{ours}"
    );
    Ok(())
}

#[tokio::test]
async fn kelos_may_be_installed_later() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    let gate = Gate::start(&cp).await?;
    let ns = cp.namespace("later").await?;
    ns.apply_policy("agents", &json!({"metadata": {"labels": {"team": "blue"}}}))
        .await?;
    cp.install_crds(CRDS).await?;
    eventually("Tasks are governed", PATIENCE, || async {
        let made = ns.create_dry_run(&task("a")).await?.stdout_ok()?;
        ensure!(made.contains(r#""team": "blue""#), "{made}");
        Ok(())
    })
    .await?;
    ensure!(gate.process().is_running());
    Ok(())
}

/// On a control plane of its own, so that the revision of etcd counts its writes alone.
#[tokio::test]
async fn dry_runs_and_idling_write_nothing() -> anyhow::Result<()> {
    let cp = plane().await?;
    // While idle only the Lease of several replicas is written.
    let gate = Gate::builder().without_leader_election().start(&cp).await?;
    let ns = cp.namespace("quiet").await?;
    ns.apply_policy(
        "agents",
        &json!({"metadata": {"labels": {"team": "blue"}}, "queueName": "agents"}),
    )
    .await?;
    let before = cp.settled_revision().await?;
    for index in 0..50 {
        ns.dry_run(&task(&format!("t-{index}"))).await?;
        ns.create_dry_run(&task("Not Legal")).await?.stderr_failed()?;
    }
    let reviews = gate.metrics().await?.sum("taskgate_reviews_total");
    ensure!(reviews >= 100.0, "the dry runs reached taskgate: {reviews}");
    taskgate_e2e::never("something writes", Duration::from_secs(10), || async {
        let now = cp.etcd_revision().await?;
        Ok((now != before).then_some(now - before))
    })
    .await
}
