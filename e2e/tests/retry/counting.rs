//! How runs are counted: A01, A04, A05, A10 to A12.

use foreman_standin::Outcome;
use serde_json::json;
use taskgate_e2e::{PATIENCE, await_object};

use crate::{
    steps::{annotated, number, stuck, three, workload},
    world::World,
};

#[tokio::test]
async fn a01_a04_what_stands_on_the_object_is_read_with_care() -> anyhow::Result<()> {
    let world = World::scripted("a01", json!({"maxAttempts": 2}), |_| stuck()).await?;
    let cases = [
        ("none", None, 2, 2),
        ("empty", Some(""), 2, 2),
        ("junk", Some("two"), 2, 2),
        ("zero", Some("0"), 2, 2),
        ("minus", Some("-3"), 2, 2),
        ("two", Some("2"), 1, 2),
        ("nine", Some("9"), 1, 9),
    ];
    for (name, stated, ..) in cases {
        let object = match stated {
            None => workload(name),
            Some(stated) => annotated(name, &json!({"foreman.llmkube.dev/attempt": stated})),
        };
        world.make(&object).await?;
    }
    for (name, _, runs, attempt) in cases {
        let memory = world.reason(name, "MaxAttemptsReached", PATIENCE).await?;
        assert_eq!(world.runs(name), runs, "{name}");
        let ledger = memory.status.and_then(|status| status.retry);
        assert_eq!(ledger.map(|ledger| ledger.attempt), Some(attempt), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a05_where_nothing_failed_nothing_happens() -> anyhow::Result<()> {
    let world = World::start("a05", three(json!({}))).await?;
    for name in ["running", "done"] {
        world.make(&workload(name)).await?;
    }
    world.finish("done-code-7", Outcome::go()).await?;
    await_object(&world.workloads(), "done", "is completed", |wl| {
        wl.phase() == "Completed"
    })
    .await?;
    await_object(&world.workloads(), "running", "runs", |wl| wl.phase() == "Dispatched").await?;
    for name in ["running", "done"] {
        world.stays(name).await?;
        assert!(world.memory(name).await.is_err(), "{name} is remembered");
    }
    Ok(())
}

#[tokio::test]
async fn a10_a11_a12_what_the_cluster_failed_keeps_its_number_in_every_shape() -> anyhow::Result<()> {
    let world = World::start("a11", json!({"maxAttempts": 3, "maxInfrastructureFailures": 3})).await?;
    world.make(&workload("wl")).await?;
    for (outcome, then) in [
        (Outcome::executor_error("403 from the model"), "1"),
        // The agent's own failure ends the row, and counts.
        (stuck(), "2"),
        (Outcome::job_error("evicted"), "2"),
        (stuck().with_reason("CloneFailed"), "2"),
        (stuck(), "3"),
        (Outcome::claim_expired(), "3"),
        (Outcome::verdict("MAYBE"), "3"),
    ] {
        let before = world.end("wl", outcome.clone()).await?;
        let next = world.next(&before).await?;
        assert_eq!(number(&next), Some(then), "{outcome:?}");
    }
    world.end("wl", Outcome::executor_error("once more")).await?;
    let memory = world.reason("wl", "MaxInfrastructureFailuresReached", PATIENCE).await?;
    assert_eq!(memory.status.map(|status| status.attempts.len()), Some(8));
    assert_eq!(world.runs("wl"), 8);
    Ok(())
}
