//! While nothing happens, only the Lease is renewed and read.

use std::time::Duration;

use anyhow::ensure;
use kelos_standin::CRDS;
use serde_json::json;
use taskgate_e2e::{ControlPlane, GATE_USER, Gate, is_soak, policy, task_of_item};
use tokio::time::sleep;

use crate::support::by_kind;

#[tokio::test]
async fn an_idle_minute_costs_only_the_lease() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let ns = cp.namespace("idle").await?;
    let leader = Gate::builder().named("taskgate-a").start(&cp).await?;
    let follower = Gate::builder().named("taskgate-b").start(&cp).await?;
    ns.apply_yaml(&policy("agents", &json!({"failurePolicy": {"maxRetriesPerItem": 3}})).to_string())
        .await?;
    ns.await_policy_accepted("agents").await?;
    ns.created(&task_of_item("a", "epic")).await?;
    // What starts is over: certificates, capabilities, the spawner's condition.
    sleep(Duration::from_secs(15)).await;

    let mark = cp.audit().mark()?;
    sleep(Duration::from_secs(if is_soak() { 60 } else { 20 })).await;
    let events = cp.audit().since(mark).await?;
    let of_taskgate = events.iter().filter(|event| event.user.username == GATE_USER);
    let requests = by_kind(of_taskgate);
    // A watch ends after some minutes, and begins again.
    let is_idle = |kind: &str| kind.ends_with(" leases") || kind.starts_with("watch ");
    ensure!(requests.keys().all(|kind| is_idle(kind)), "{requests:?}");
    ensure!(
        requests.contains_key("update leases") || requests.contains_key("patch leases"),
        "{requests:?}"
    );
    drop((leader, follower));
    Ok(())
}
