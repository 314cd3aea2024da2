//! A rollout loses no request.

use std::time::Duration;

use taskgate_webhook::{ServerLimits, ShutdownConfig, ShutdownStage};
use tokio::time::{Instant, timeout};

mod support;
use support::{FixedCluster, SLOW, shutdown, task_review};

const SOON: Duration = Duration::from_secs(5);

fn body(namespace: &str) -> String {
    task_review(namespace).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lame_duck_serves_on_and_closes_each_connection_after_its_answer() -> anyhow::Result<()> {
    let mut server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut kept = server.http1().await?;
    let before = kept.post("/mutate/tasks", body("team")).await?;
    assert_eq!((before.status.as_u16(), before.headers.get("connection")), (200, None));

    let lifecycle = server.lifecycle.clone();
    let began = Instant::now();
    let winding = tokio::spawn(async move { lifecycle.wind_down(&shutdown()).await });
    timeout(SOON, server.lifecycle.reached(ShutdownStage::LameDuck)).await?;

    // On an existing connection, and on new ones, which API servers still open.
    let answer = kept.post("/mutate/tasks", body("team")).await?;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["connection"].to_str()?),
        (200, "close")
    );
    timeout(SOON, kept.connection).await???;
    let mut answers = 0;
    while server.lifecycle.stage() == ShutdownStage::LameDuck {
        // The last one may cross the end of the stage: then it is refused, not lost half-way.
        let Ok(mut connection) = server.http1().await else {
            break;
        };
        let Ok(answer) = connection.post("/mutate/tasks", body("team")).await else {
            break;
        };
        assert_eq!(
            (answer.status.as_u16(), answer.headers["connection"].to_str()?),
            (200, "close")
        );
        answers += 1;
    }
    // Requests kept coming, so it lasted as long as it may.
    assert!(answers > 10, "{answers}");
    assert!(began.elapsed() >= shutdown().lame_duck, "{:?}", began.elapsed());
    winding.await?;
    timeout(SOON, &mut server.task).await??;
    assert!(server.http1().await.is_err(), "the port is closed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lame_duck_stage_ends_early_when_requests_cease() -> anyhow::Result<()> {
    let mut server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let began = Instant::now();
    let lifecycle = server.lifecycle.clone();
    let long = ShutdownConfig {
        lame_duck: SOON * 4,
        ..shutdown()
    };
    let winding = tokio::spawn(async move { lifecycle.wind_down(&long).await });
    timeout(SOON, server.lifecycle.reached(ShutdownStage::LameDuck)).await?;
    let mut last = server.http1().await?;
    assert_eq!(last.post("/mutate/tasks", body("team")).await?.status, 200);
    winding.await?;
    timeout(SOON, &mut server.task).await??;
    assert!(began.elapsed() < SOON * 4, "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_requests_the_stage_lasts_its_full_time_and_idle_connections_do_not_delay_the_end() -> anyhow::Result<()>
{
    let mut server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut idle = server.http1().await?;
    assert_eq!(idle.post("/mutate/tasks", body("team")).await?.status, 200);
    let began = Instant::now();
    server.lifecycle.wind_down(&shutdown()).await;
    assert!(began.elapsed() >= shutdown().lame_duck, "{:?}", began.elapsed());
    timeout(SOON, &mut server.task).await??;
    timeout(SOON, idle.connection).await???;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_request_may_finish() -> anyhow::Result<()> {
    let mut server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut http1 = server.http1().await?;
    let old = tokio::spawn(async move { http1.post("/mutate/tasks?timeout=1s", body(SLOW)).await });
    let in_flight = || async { server.metric("taskgate_reviews_in_flight") };
    taskgate_e2e::eventually_that("it runs", SOON, in_flight, |seen| (seen - 1.0).abs() < 0.5).await?;
    server.lifecycle.enter(ShutdownStage::Draining);
    // A slow one ends by its own deadline, within the time to drain.
    assert_eq!(old.await??.status, 504);
    timeout(SOON, &mut server.task).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_finish_is_cut_off() -> anyhow::Result<()> {
    let mut server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut connection = server.http1().await?;
    let stuck = tokio::spawn(async move { connection.post("/mutate/tasks?timeout=30s", body(SLOW)).await });
    let in_flight = || async { server.metric("taskgate_reviews_in_flight") };
    taskgate_e2e::eventually_that("it runs", SOON, in_flight, |seen| (seen - 1.0).abs() < 0.5).await?;
    server.lifecycle.enter(ShutdownStage::Draining);
    timeout(SOON, &mut server.task).await??;
    assert!(stuck.await?.is_err());
    Ok(())
}
