//! A Kelos that has adopted the proposal on cancellation has the phase Cancelled; its CRDs may be installed while taskgate runs.

use anyhow::ensure;
use kelos_standin::{CRDS, CrdCapability, crds};
use taskgate_e2e::{ControlPlane, PATIENCE, eventually};

use crate::support::{await_cancelled, cancel, cancelled_condition, gate, start_on, task};

#[tokio::test]
async fn phase_and_field_are_used_once_the_crds_have_them() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = gate().await?.start(&cp).await?;
    let before = start_on(&cp, &gate, "before", CrdCapability::Base).await?;
    before.run(&task("early")).await?;
    cancel(&before, "early", "x").await?;
    ensure!(await_cancelled(&before, "early").await?.phase() == "Failed");

    cp.install_crds(&crds::yaml(CrdCapability::Cancellation)?).await?;
    eventually("taskgate has read the new schema", PATIENCE, || async {
        let log = gate.process().log()?;
        ensure!(
            log.contains("what Kelos' Tasks have for a cancelled one changed"),
            "not yet"
        );
        Ok(())
    })
    .await?;
    let after = start_on(&cp, &gate, "after", CrdCapability::Cancellation).await?;
    after.run(&task("late")).await?;
    cancel(&after, "late", "no longer needed").await?;
    let task = await_cancelled(&after, "late").await?;
    ensure!(task.phase() == "Cancelled", "{}", task.phase());
    let by = after.stored("tasks.kelos.dev", "late").await?.unwrap_or_default();
    ensure!(by["status"]["cancelledBy"] == "user:ann", "{by}");
    ensure!(cancelled_condition(&task)["status"] == "True");
    // Such a Kelos counts it itself.
    let labels = [
        ("namespace", after.ns.name()),
        ("phase", "Cancelled"),
        ("spawner", ""),
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
