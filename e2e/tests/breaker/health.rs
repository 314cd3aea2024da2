//! What a spawner notices of a breaker: nothing.

use std::time::Duration;

use anyhow::ensure;
use kube::ResourceExt as _;
use taskgate_e2e::{eventually, never};

use crate::world::{World, limit};

/// How long the spawner is watched after the opening (issue "zero failed cycles").
const WATCHED: Duration = Duration::from_mins(2);
/// A spawner that polls each second makes a Task within this, on a busy machine too; one in backoff is not that quick.
const AT_ONCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn no_cycle_fails_for_two_minutes_and_other_items_are_processed_at_once() -> anyhow::Result<()> {
    let world = World::governed("health", limit(1)).await?;
    world.repo().issue(42);
    world.spawner("fixer", None).await?;
    let tombstone = world.fail("fixer-42").await?;
    world.open("42").await?;
    ensure!(world.failed_cycles("fixer") == 0);
    let undisturbed = never("a failed cycle", WATCHED, || async {
        let failed = world.failed_cycles("fixer");
        Ok((failed > 0).then_some(failed))
    });
    let others = async {
        for number in 100..110 {
            world.repo().issue(number);
            let name = format!("fixer-{number}");
            eventually(format!("{name} is made"), AT_ONCE, || async {
                Ok(world.tasks().get(&name).await?)
            })
            .await?;
            world.succeed(&name).await?;
        }
        anyhow::Ok(())
    };
    let (undisturbed, others) = tokio::join!(undisturbed, others);
    undisturbed?;
    others?;
    world.condition("fixer", "tells of 42", "True").await?;
    ensure!(world.failed_cycles("fixer") == 0);
    ensure!(world.tasks().get("fixer-42").await?.uid() == Some(tombstone));
    Ok(())
}
