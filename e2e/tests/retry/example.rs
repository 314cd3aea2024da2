//! `examples/foreman/`, applied as it is.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::json;

use crate::{
    steps::{number, stuck, three},
    world::World,
};

const POLICY: &str = include_str!("../../../examples/foreman/policy.yaml");

#[tokio::test]
async fn the_example_runs_a_failed_workload_again_with_todays_configuration_and_feedback() -> anyhow::Result<()> {
    let world = World::start("example", three(json!({}))).await?;
    // Of the same name as the world's own: it takes its place, and nothing of that is left.
    world
        .ns
        .kubectl(["delete", "taskpolicies", "retry"])
        .await?
        .stdout_ok()?;
    world.ns.apply_yaml(POLICY).await?;
    world.in_force().await?;
    let first = world.fail_new("wl").await?;
    let second = world.next(&first).await?;
    assert_eq!(number(&second), Some("2"));
    assert_eq!(second.spec.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(second.labels().get("retried").map(String::as_str), Some("true"));
    ensure!(second.spec.intent.contains("no way forward"), "{}", second.spec.intent);
    // Without the Secret nobody can be asked, which is told and stops nothing.
    let item = world.memory("wl").await?.name_any();
    world.told(&item, "SourceUnknown", &["github-token"]).await?;
    // The next one waits longer, and nothing is doubled meanwhile.
    world.end("wl", stuck()).await?;
    world
        .ledger("Workload/acme/wl#7", "knows of the second failure", |status, ledger| {
            status.attempts.len() == 2 && ledger.attempt == 2
        })
        .await?;
    assert_eq!(world.runs("wl"), 2);
    Ok(())
}
