//! A Task's TTL runs from its end, however long it waited before.

use anyhow::ensure;
use k8s_openapi::api::batch::v1::Job;
use kube::{ResourceExt as _, api::ListParams};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{PATIENCE, await_gone, eventually, never};

use crate::world::{A_WHILE, World, task};

/// Shorter than [`A_WHILE`], so that it would be over while the Task waits.
const TTL: i64 = 2;

#[tokio::test]
async fn the_ttl_of_a_task_that_waits_is_kept_until_it_has_ended() -> anyhow::Result<()> {
    // Kelos looks after the one TTL, taskgate after the other.
    for policy in [
        json!({"queueName": "agents"}),
        json!({"queueName": "agents", "failurePolicy": {"maxRetriesPerItem": 3}}),
    ] {
        let ours = policy.get("failurePolicy").is_some();
        let world = World::governed("ttl", policy).await?;
        world.queue(0).await?;
        let mut mine = task("mine");
        mine["spec"]["ttlSecondsAfterFinished"] = TTL.into();
        mine["metadata"]["annotations"] = json!({"taskgate.dev/item": "42"});
        world.ns.apply_yaml(&mine.to_string()).await?;
        world.queued("mine", "WaitingForAdmission").await?;
        never("a Task that waits is deleted", A_WHILE, || async {
            let task = world.tasks().get_opt("mine").await?;
            let going = task
                .as_ref()
                .is_none_or(|task| task.metadata.deletion_timestamp.is_some());
            Ok(going.then_some(task))
        })
        .await?;
        let waiting = world.tasks().get("mine").await?;
        let kept = serde_json::to_value(&waiting)?["spec"]["ttlSecondsAfterFinished"].as_i64();
        let moved = waiting.annotations().get(keys::TTL).map(String::as_str);
        let expected = if ours { (None, Some("2")) } else { (Some(TTL), None) };
        ensure!((kept, moved) == expected, "{kept:?} {moved:?}");

        world.cluster_queue(1).await?;
        world.runs("mine").await?;
        world.succeed("mine").await?;
        await_gone(&world.tasks(), "mine").await?;
        await_gone(&world.ns.api::<Job>(), "mine").await?;
        eventually("Kueue lets go of its quota", PATIENCE, || async {
            let left = world.workloads().list(&ListParams::default()).await?.items;
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
