//! A tripped item does not disturb its spawner.

use std::time::Duration;

use anyhow::ensure;
use kube::ResourceExt as _;
use taskgate_e2e::{eventually, never};

use crate::support::{governed, limit};

/// How long the spawner is watched after the opening (issue "zero failed cycles").
const WATCHED: Duration = Duration::from_mins(2);
/// A spawner that polls each second makes a Task within this, on a busy machine too; one in backoff is not that quick.
const AT_ONCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn no_cycle_fails_for_two_minutes_and_other_items_are_processed_at_once() -> anyhow::Result<()> {
    let fixture = governed("health", limit(1)).await?;
    fixture.repo().issue(42);
    fixture.issue_spawner("fixer", None).await?;
    let tombstone = fixture.fail("fixer-42").await?;
    fixture.await_open("42").await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    let undisturbed = never("a failed cycle", WATCHED, || async {
        let failed = fixture.failed_cycles("fixer");
        Ok((failed > 0).then_some(failed))
    });
    let others = async {
        for number in 100..110 {
            fixture.repo().issue(number);
            let name = format!("fixer-{number}");
            eventually(format!("{name} is made"), AT_ONCE, || async {
                Ok(fixture.tasks().get(&name).await?)
            })
            .await?;
            fixture.succeed_recorded(&name).await?;
        }
        anyhow::Ok(())
    };
    let (undisturbed, others) = tokio::join!(undisturbed, others);
    undisturbed?;
    others?;
    fixture
        .await_spawner_condition("fixer", "ItemsCircuitBroken", "True")
        .await?;
    ensure!(fixture.failed_cycles("fixer") == 0);
    ensure!(fixture.tasks().get("fixer-42").await?.uid() == Some(tombstone));
    Ok(())
}
