//! What happens while no replica runs.

use anyhow::ensure;
use k8s_openapi::api::core::v1::Namespace;
use kelos_standin::CRDS;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, await_object, eventually, task_of_item};

/// Scaled to zero, the namespace deleted, scaled up.
#[tokio::test]
async fn a_namespace_that_is_deleted_while_no_replica_runs_is_gone_once_one_does() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = Gate::start(&cp).await?;
    let ns = cp.namespace("absent").await?;
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 1}});
    ns.policy_for(&task_of_item("probe", "p"), "agents", spec).await?;
    let tasks = ns.tasks();
    for name in ["tombstone", "active"] {
        ns.created(&task_of_item(name, name)).await?;
    }
    let failed = Patch::Merge(json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}}));
    tasks
        .patch_status("tombstone", &PatchParams::default(), &failed)
        .await?;
    ns.await_open("tombstone").await?;
    for name in ["tombstone", "active"] {
        await_object(&tasks, name, "has the finalizer", |task| {
            task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING)
        })
        .await?;
    }
    gate.process().terminate().await?;
    let name = ns.name();
    cp.kubectl(["delete", "namespace", name, "--wait=false"])
        .await?
        .stdout_ok()?;
    eventually("the Tasks are being deleted", PATIENCE, || async {
        let task = tasks.get("active").await?;
        ensure!(task.metadata.deletion_timestamp.is_some());
        Ok(())
    })
    .await?;
    gate.process().start().await?;
    let namespaces = Api::<Namespace>::all(cp.client());
    eventually("the namespace is gone", PATIENCE, || async {
        let left = namespaces.get_opt(name).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await
}
