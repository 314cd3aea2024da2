//! The same by kubectl alone, as docs/failure-policy.md tells it.

use anyhow::ensure;
use taskgate_e2e::{PATIENCE, eventually};

use crate::world::{CONFIGURATION, KINDS, World};

const NAMESPACE: &str = "taskgate-system";

#[tokio::test]
async fn a_config_map_disables_a_taskgate_that_runs_and_nothing_registers_it_again() -> anyhow::Result<()> {
    let world = World::start().await?;
    let before = world.configurations().await?;
    let create = [
        "-n",
        NAMESPACE,
        "create",
        "configmap",
        "taskgate-disabled",
        "--from-literal=reason=incident 8",
    ];
    world.cp.kubectl(create).await?.stdout_ok()?;
    world.until_governed(false).await?;

    // Somebody installs it again meanwhile: it is off within a moment.
    for kind in KINDS {
        world.cp.kubectl(["delete", kind, CONFIGURATION]).await?.stdout_ok()?;
    }
    let url = world.gate.url();
    taskgate_e2e::register(&world.cp, url, &["--failure-policy=fail".to_owned()]).await?;
    eventually("what is new is off as well", PATIENCE, || async {
        let status = world.taskgate(&["status"]).await?;
        ensure!(
            status.matches(": off;").count() == 2 && status.contains("incident 8"),
            "{status}"
        );
        Ok(())
    })
    .await?;
    world.until_governed(false).await?;

    world
        .cp
        .kubectl(["-n", NAMESPACE, "delete", "configmap", "taskgate-disabled"])
        .await?
        .stdout_ok()?;
    world.until_governed(true).await?;
    eventually("all is as it was", PATIENCE, || async {
        let webhooks =
            |found: &[serde_json::Value]| found.iter().map(|one| one["webhooks"].clone()).collect::<Vec<_>>();
        let (before, after) = (webhooks(&before), webhooks(&world.configurations().await?));
        ensure!(after == before, "{after:#?}\n{before:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_taskgate_that_runs_two_files_do_it() -> anyhow::Result<()> {
    let world = World::start().await?;
    let before = world.configurations().await?;
    world.gate.process().kill().await?;
    let apply = ["apply", "--server-side", "--field-manager=taskgate-disable", "-f-"];
    let off = taskgate_e2e::taskgate(["manifests", "disable"]).await?;
    world.cp.kubectl_with_input(apply, &off).await?.stdout_ok()?;
    world.until_governed(false).await?;
    let on = taskgate_e2e::taskgate(["manifests", "enable"]).await?;
    world.cp.kubectl_with_input(apply, &on).await?.stdout_ok()?;
    world
        .cp
        .kubectl(["-n", NAMESPACE, "delete", "configmap", "taskgate-disabled"])
        .await?
        .stdout_ok()?;
    let after = world.configurations().await?;
    ensure!(after == before, "{after:#?}\n{before:#?}");
    world.gate.process().start().await?;
    world.until_governed(true).await
}
