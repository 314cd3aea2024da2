//! What an operator of the cluster does: replaces the API server's CA, applies the registration with another tool.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use taskgate_e2e::{Gate, PATIENCE, eventually, never, taskgate};

use crate::support::{FAIL, plane, probe};

#[tokio::test(flavor = "multi_thread")]
async fn the_ca_of_the_api_server_is_replaced_while_taskgate_runs() -> anyhow::Result<()> {
    let cp = plane().await?;
    let file = cp.kubeconfig_as("taskgate-admin", &["system:masters"])?;
    let gate = Gate::builder().kubeconfig(file.clone()).start(&cp).await?;
    let leads = || async {
        let metrics = gate.metrics().await?;
        ensure!(metrics.sum("taskgate_leader") > 0.0, "it does not lead");
        ensure!(metrics.sum("taskgate_cache_age_seconds") == 0.0, "a cache is stale");
        Ok(())
    };
    eventually("it leads", PATIENCE, leads).await?;
    let ca = cp.replace_serving_ca().await?;
    eventually("the outage is seen", PATIENCE, || async {
        let log = gate.process().log()?;
        ensure!(log.contains("the API server does not answer"), "{log}");
        Ok(())
    })
    .await?;
    // As the kubelet does with the file in a pod.
    let mut kubeconfig: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let data = serde_json::to_value(k8s_openapi::ByteString(ca.into_bytes()))?;
    kubeconfig.pointer_mut("/clusters/0/cluster").context("no cluster")?["certificate-authority-data"] = data;
    std::fs::write(&file, serde_json::to_vec(&kubeconfig)?)?;
    eventually("it trusts the new CA", PATIENCE, || async {
        let log = gate.process().log()?;
        ensure!(log.contains("the CA of the API server was replaced"), "{log}");
        leads().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_field_manager_applies_the_registration_as_well() -> anyhow::Result<()> {
    let cp = plane().await?;
    let gate = Gate::builder().registration_flag(FAIL).start(&cp).await?;
    let ns = cp.namespace("second-manager").await?;
    probe(&ns).await?;
    for policy in [FAIL, "--failure-policy=ignore", FAIL] {
        let yaml = taskgate(["manifests", "registration", "--url", gate.url(), policy]).await?;
        let args = [
            "apply",
            "--server-side",
            "--field-manager=argocd",
            "--force-conflicts",
            "-f-",
        ];
        cp.kubectl_with_input(args, &yaml).await?.stdout_ok()?;
        never(
            "a replica is not ready, or does not answer",
            std::time::Duration::from_secs(3),
            || async {
                let problem = match gate.admin("/readyz").await {
                    Ok(_) => probe(&ns).await.err(),
                    Err(error) => Some(error),
                };
                Ok(problem.map(|problem| problem.to_string()))
            },
        )
        .await?;
    }
    for command in [["disable", "--reason=test"].as_slice(), &["enable"]] {
        let output = cp.taskgate(cp.kubeconfig(), command).await?;
        output.stdout_ok()?;
        probe(&ns).await?;
    }
    let log = gate.process().log()?;
    ensure!(!log.contains("owns the caBundle"), "{log}");
    ns.policy_for(
        &taskgate_e2e::task("a"),
        "agents",
        json!({"metadata": {"labels": {"team": "blue"}}}),
    )
    .await
}
