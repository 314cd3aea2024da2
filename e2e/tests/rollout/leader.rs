//! A leader that is paused in the middle of its work and resumed when another one leads: it writes nothing more.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::CRDS;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, await_object, eventually, never, task_of_item};

/// More than one: its watch delivers all of them when it is resumed.
const TASKS: usize = 20;
/// How long the next leader keeps the Lease at least, although it is paused as well.
const OF_ANOTHER: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_writes_nothing_once_another_one_leads() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let gate = |name: &'static str| {
        let kubeconfig = cp.kubeconfig_as(name, &["system:masters"])?;
        anyhow::Ok(Gate::builder().named(name).kubeconfig(kubeconfig))
    };
    let paused = gate("gate-a")?.start(&cp).await?;
    let leads = async |gate: &Gate| {
        eventually("it leads", PATIENCE, || async {
            ensure!(gate.metrics().await?.sum("taskgate_leader") > 0.0);
            Ok(())
        })
        .await
    };
    leads(&paused).await?;
    let other = gate("gate-b")?.start(&cp).await?;
    let ns = cp.namespace("paused").await?;
    let spec = json!({"failurePolicy": {"maxRetriesPerItem": 3}});
    ns.apply_policy("agents", &spec).await?;
    let tasks = ns.tasks();
    for index in 0..TASKS {
        let task = task_of_item(&format!("t-{index}"), &format!("i-{index}"));
        ns.apply_yaml(&task.to_string()).await?;
        // By admission, or by the leader if it was faster than the policy.
        await_object(&tasks, &format!("t-{index}"), "is accounted for", |task| {
            kube::ResourceExt::labels(task).contains_key(keys::WORK_ITEM)
        })
        .await?;
    }

    paused.process().pause().await?;
    leads(&other).await?;
    // It has the Lease, and is paused for a while: every write now is one of the old leader.
    other.process().pause().await?;
    let failed = Patch::Merge(json!({"status": {"phase": "Failed", "completionTime": "2026-01-01T00:00:00Z"}}));
    for index in 0..TASKS {
        tasks
            .patch_status(&format!("t-{index}"), &PatchParams::default(), &failed)
            .await?;
    }
    let mark = cp.audit().mark()?;
    paused.process().resume().await?;
    never("the old leader writes", OF_ANOTHER, || async {
        let events = cp.audit().since(mark).await?;
        let wrote = events.into_iter().find(|event| {
            let by = event.impersonated_user.as_ref().map(|user| user.username.as_str());
            event.is_write() && by == Some("gate-a") && event.object_ref.api_group != "authorization.k8s.io"
        });
        Ok(wrote.map(|event| format!("{} {}", event.verb, event.request_uri)))
    })
    .await?;

    other.process().resume().await?;
    eventually("the new leader records all of them", PATIENCE, || async {
        let recorded = ns.work_items().list(&ListParams::default()).await?.items.len();
        ensure!(recorded == TASKS, "{recorded} recorded");
        Ok(())
    })
    .await
}
