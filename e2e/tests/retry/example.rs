//! `examples/foreman/`, applied as it is.

use anyhow::ensure;
use kube::ResourceExt as _;
use serde_json::json;
use taskgate_e2e::{attempt_number, stuck};

use crate::support::{await_retry, fail_new, start, three, work_item_of};

const POLICY: &str = include_str!("../../../examples/foreman/policy.yaml");

#[tokio::test]
async fn the_example_runs_a_failed_workload_again_with_the_current_configuration_and_feedback() -> anyhow::Result<()> {
    let fixture = start("example", three(json!({}))).await?;
    // It has the name of the fixture's own policy, which is deleted first so that nothing of it is left.
    fixture
        .kubectl(["delete", "taskpolicies", "retry"])
        .await?
        .stdout_ok()?;
    fixture.apply_yaml(POLICY).await?;
    fixture.await_policy_accepted("retry").await?;
    let first = fail_new(&fixture, "wl").await?;
    let second = fixture.await_successor(&first).await?;
    assert_eq!(attempt_number(&second), Some("2"));
    assert_eq!(second.spec.gate_profile, Some(json!({"language": "rust"})));
    assert_eq!(second.labels().get("retried").map(String::as_str), Some("true"));
    ensure!(second.spec.intent.contains("no way forward"), "{}", second.spec.intent);
    // Without the Secret the issue source cannot be asked: an Event, and nothing is stopped.
    let item = work_item_of(&fixture, "wl").await?.name_any();
    fixture.await_event(&item, "SourceUnknown", &["github-token"]).await?;
    // The next one waits longer, and nothing is repeated meanwhile.
    fixture.end("wl", stuck()).await?;
    await_retry(
        &fixture,
        "Workload/acme/wl#7",
        "has the second failure",
        |status, retry| status.attempts.len() == 2 && retry.attempt == 2,
    )
    .await?;
    assert_eq!(fixture.runs("wl"), 2);
    Ok(())
}
