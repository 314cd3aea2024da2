//! The same by kubectl alone, as in docs/availability.md.

use anyhow::ensure;
use taskgate_e2e::{PATIENCE, eventually};

use crate::support::{CONFIGURATION, DisableFixture, KINDS};

const NAMESPACE: &str = "taskgate-system";

#[tokio::test]
async fn a_config_map_disables_a_running_taskgate_and_nothing_registers_it_again() -> anyhow::Result<()> {
    let fixture = DisableFixture::start().await?;
    let before = fixture.configurations().await?;
    let create = [
        "-n",
        NAMESPACE,
        "create",
        "configmap",
        "taskgate-disabled",
        "--from-literal=reason=incident 8",
    ];
    fixture.cp.kubectl(create).await?.stdout_ok()?;
    fixture.await_governed(false).await?;

    // A user registers it again meanwhile: the new configurations are off soon after.
    for kind in KINDS {
        fixture.cp.kubectl(["delete", kind, CONFIGURATION]).await?.stdout_ok()?;
    }
    let url = fixture.gate.url();
    taskgate_e2e::register(&fixture.cp, url, &["--failure-policy=fail".to_owned()]).await?;
    eventually("the new configurations are off as well", PATIENCE, || async {
        let status = fixture.taskgate(&["status"]).await?;
        ensure!(
            status.matches(": off;").count() == 2 && status.contains("incident 8"),
            "{status}"
        );
        Ok(())
    })
    .await?;
    fixture.await_governed(false).await?;

    fixture
        .cp
        .kubectl(["-n", NAMESPACE, "delete", "configmap", "taskgate-disabled"])
        .await?
        .stdout_ok()?;
    fixture.await_governed(true).await?;
    eventually("the configurations are as before", PATIENCE, || async {
        let webhooks =
            |found: &[serde_json::Value]| found.iter().map(|one| one["webhooks"].clone()).collect::<Vec<_>>();
        let (before, after) = (webhooks(&before), webhooks(&fixture.configurations().await?));
        ensure!(after == before, "{after:#?}\n{before:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn while_taskgate_does_not_run_two_manifests_disable_and_enable_it() -> anyhow::Result<()> {
    let fixture = DisableFixture::start().await?;
    let before = fixture.configurations().await?;
    fixture.gate.process().kill().await?;
    let apply = ["apply", "--server-side", "--field-manager=taskgate-disable", "-f-"];
    let off = taskgate_e2e::taskgate(["manifests", "disable"]).await?;
    fixture.cp.kubectl_with_input(apply, &off).await?.stdout_ok()?;
    fixture.await_governed(false).await?;
    let on = taskgate_e2e::taskgate(["manifests", "enable"]).await?;
    fixture.cp.kubectl_with_input(apply, &on).await?.stdout_ok()?;
    fixture
        .cp
        .kubectl(["-n", NAMESPACE, "delete", "configmap", "taskgate-disabled"])
        .await?
        .stdout_ok()?;
    let after = fixture.configurations().await?;
    ensure!(after == before, "{after:#?}\n{before:#?}");
    fixture.gate.process().start().await?;
    fixture.await_governed(true).await
}
