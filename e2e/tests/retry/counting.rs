//! How runs are counted.

use std::time::Duration;

use foreman_standin::Outcome;
use serde_json::json;
use taskgate_e2e::{attempt_number, await_object, stuck};

use crate::support::{annotated, await_reason, start, start_with, stays_unchanged, three, work_item_of, workload};

#[tokio::test]
async fn the_number_on_the_object_is_validated() -> anyhow::Result<()> {
    let fixture = start_with("a01", json!({"maxAttempts": 2}), |options| {
        options.scripted(|_| Some((Duration::from_millis(100), stuck())))
    })
    .await?;
    let cases = [
        ("none", None, 2, 2),
        ("empty", Some(""), 2, 2),
        ("junk", Some("two"), 2, 2),
        ("zero", Some("0"), 2, 2),
        ("minus", Some("-3"), 2, 2),
        ("two", Some("2"), 1, 2),
        ("nine", Some("9"), 1, 9),
        // One more than the WorkItem's status takes.
        ("huge", Some("2147483648"), 2, 2),
    ];
    for (name, stated, ..) in cases {
        let object = match stated {
            None => workload(name),
            Some(stated) => annotated(name, &json!({"foreman.llmkube.dev/attempt": stated})),
        };
        fixture.created(&object).await?;
    }
    for (name, _, runs, attempt) in cases {
        let item = await_reason(&fixture, name, "MaxAttemptsReached").await?;
        assert_eq!(fixture.runs(name), runs, "{name}");
        let retry = item.status.and_then(|status| status.retry);
        assert_eq!(retry.map(|retry| retry.attempt), Some(attempt), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_failure_nothing_happens() -> anyhow::Result<()> {
    let fixture = start("a05", three(json!({}))).await?;
    for name in ["running", "done"] {
        fixture.created(&workload(name)).await?;
    }
    fixture.finish("done-code-7", Outcome::go()).await?;
    await_object(&fixture.workloads(), "done", "is completed", |wl| {
        wl.phase() == "Completed"
    })
    .await?;
    await_object(&fixture.workloads(), "running", "runs", |wl| wl.phase() == "Dispatched").await?;
    for name in ["running", "done"] {
        stays_unchanged(&fixture, name).await?;
        assert!(work_item_of(&fixture, name).await.is_err(), "{name} is recorded");
    }
    Ok(())
}

#[tokio::test]
async fn a_failure_of_the_cluster_keeps_the_number_in_every_shape() -> anyhow::Result<()> {
    let fixture = start("a11", json!({"maxAttempts": 3, "maxInfrastructureFailures": 3})).await?;
    fixture.created(&workload("wl")).await?;
    for (outcome, then) in [
        (Outcome::executor_error("403 from the model"), "1"),
        // The agent's own failure resets the count of the cluster's, and counts.
        (stuck(), "2"),
        (Outcome::job_error("evicted"), "2"),
        (stuck().with_reason("CloneFailed"), "2"),
        (stuck(), "3"),
        (Outcome::claim_expired(), "3"),
        (Outcome::verdict("MAYBE"), "3"),
    ] {
        let before = fixture.end("wl", outcome.clone()).await?;
        let next = fixture.await_successor(&before).await?;
        assert_eq!(attempt_number(&next), Some(then), "{outcome:?}");
    }
    fixture.end("wl", Outcome::executor_error("once more")).await?;
    let item = await_reason(&fixture, "wl", "MaxInfrastructureFailuresReached").await?;
    assert_eq!(item.status.map(|status| status.attempts.len()), Some(8));
    assert_eq!(fixture.runs("wl"), 8);
    Ok(())
}
