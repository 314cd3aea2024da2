//! A Task's TTL runs from its end, however long it waited before.

use anyhow::ensure;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_gone, eventually, merged, never};

use crate::support::{A_WHILE, governed, task};

/// Shorter than [`A_WHILE`], so that it would be over while the Task waits.
const TTL: i64 = 2;

#[tokio::test]
async fn the_ttl_of_a_task_that_waits_is_kept_until_it_has_ended() -> anyhow::Result<()> {
    // Kelos handles the one TTL, taskgate the other.
    for policy in [
        json!({"queueName": "agents"}),
        json!({"queueName": "agents", "failurePolicy": {"maxRetriesPerItem": 3}}),
    ] {
        let ours = policy.get("failurePolicy").is_some();
        let fixture = governed("ttl", policy).await?;
        fixture.queue(0).await?;
        let more = json!({
            "metadata": {"annotations": {"taskgate.dev/item": "42"}}, "spec": {"ttlSecondsAfterFinished": TTL},
        });
        let mine = merged(task("mine"), &more);
        fixture.apply_yaml(&mine.to_string()).await?;
        fixture.await_queued("mine", "WaitingForAdmission").await?;
        never("a Task that waits is deleted", A_WHILE, || async {
            let task = fixture.tasks().get_opt("mine").await?;
            let going = task
                .as_ref()
                .is_none_or(|task| task.metadata.deletion_timestamp.is_some());
            Ok(going.then_some(task))
        })
        .await?;
        let waiting = fixture.tasks().get("mine").await?;
        let kept = serde_json::to_value(&waiting)?["spec"]["ttlSecondsAfterFinished"].as_i64();
        let moved = waiting.annotations().get(keys::TTL).map(String::as_str);
        let expected = if ours { (None, Some("2")) } else { (Some(TTL), None) };
        ensure!((kept, moved) == expected, "{kept:?} {moved:?}");

        fixture.apply_cluster_queue(1).await?;
        fixture.await_task_phase("mine", "Running").await?;
        fixture.succeed("mine").await?;
        await_gone(&fixture.tasks(), "mine").await?;
        await_gone(&fixture.jobs(), "mine").await?;
        eventually("Kueue frees its quota", PATIENCE, || async {
            let left = fixture.kueue_workloads().list(&ListParams::default()).await?.items;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
