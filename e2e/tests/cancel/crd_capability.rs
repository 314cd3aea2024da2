//! A Kelos that has adopted proposal 001 knows cancelled Tasks itself; it may come while taskgate runs.

use anyhow::ensure;
use kelos_standin::{CRDS, CrdCapability, crds};
use taskgate_e2e::{ControlPlane, PATIENCE, eventually};

use crate::world::{World, condition, gate, task};

#[tokio::test]
async fn phase_and_field_are_used_once_there_are_such() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate(&cp).await?;
    let before = World::on(&cp, &gate, "before", CrdCapability::Base).await?;
    before.run(&task("early")).await?;
    before.cancel("early", "x").await?;
    ensure!(before.await_cancelled("early").await?.phase() == "Failed");

    cp.install_crds(&crds::yaml(CrdCapability::Cancellation)?).await?;
    eventually("taskgate has seen the new schema", PATIENCE, || async {
        let log = gate.process().log()?;
        ensure!(log.contains("knows cancelled Tasks has changed"), "not yet");
        Ok(())
    })
    .await?;
    let after = World::on(&cp, &gate, "after", CrdCapability::Cancellation).await?;
    after.run(&task("late")).await?;
    after.cancel("late", "no longer needed").await?;
    let task = after.await_cancelled("late").await?;
    ensure!(task.phase() == "Cancelled", "{}", task.phase());
    let by = after.raw_task("late").await?;
    ensure!(by["status"]["cancelledBy"] == "user:ann", "{by}");
    ensure!(condition(&task)["status"] == "True");
    // Such a Kelos counts it itself.
    let labels = [
        ("namespace", after.ns.name()),
        ("phase", "Cancelled"),
        ("type", "claude-code"),
    ];
    ensure!(
        gate.metrics()
            .await?
            .value("kelos_task_completed_total", &labels)
            .is_none()
    );
    // To it the Task has ended: it makes no Job.
    ensure!(after.jobs().get_opt("late").await?.is_none());
    Ok(())
}
