//! What one request or connection may cost the others: nothing.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::Context as _;
use taskgate_e2e::eventually_that;
use taskgate_webhook::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

mod support;
use support::{Given, PANICKING, SLOW, UNREADABLE, task_review};

const SOON: Duration = Duration::from_secs(5);

fn count(count: usize) -> anyhow::Result<NonZeroUsize> {
    NonZeroUsize::new(count).context("not zero")
}

fn body(namespace: &str) -> String {
    task_review(namespace).to_string()
}

/// C8: the answer comes before the API server gives up, at four fifths of what it says it waits.
#[tokio::test]
async fn a_review_that_takes_too_long_gets_504_in_time() -> anyhow::Result<()> {
    let server = support::serve(Given::default(), Limits::default()).await?;
    let mut connection = server.http1().await?;
    let began = Instant::now();
    let answer = connection.post("/mutate/tasks?timeout=2s", body(SLOW)).await?;
    let took = began.elapsed();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (504, "taskgate did not reach a verdict in time")
    );
    assert!(
        (Duration::from_millis(1_600)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    assert!(server.metric("taskgate_reviews_refused_total{cause=\"deadline\"}")? > 0.5);
    // The connection is as good as before.
    assert_eq!(
        connection.post("/mutate/tasks?timeout=1s", body("team")).await?.status,
        200
    );
    Ok(())
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_at_the_deadline() -> anyhow::Result<()> {
    let server = support::serve(Given::default(), Limits::default()).await?;
    let mut stream = server.dial(b"http/1.1").await?;
    let request = "POST /mutate/tasks?timeout=1s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{";
    stream.write_all(request.as_bytes()).await?;
    let mut heard = Vec::new();
    timeout(SOON, stream.read_to_end(&mut heard)).await?.ok();
    let text = String::from_utf8_lossy(&heard);
    assert!(text.starts_with("HTTP/1.1 504 "), "{text}");
    Ok(())
}

/// C13: one panicking request answers only itself.
#[tokio::test]
async fn a_panic_answers_its_own_request_only() -> anyhow::Result<()> {
    let server = support::serve(Given::default(), Limits::default()).await?;
    let mut connection = server.http1().await?;
    for _ in 0..3 {
        let answer = connection.post("/mutate/tasks", body(PANICKING)).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (500, "taskgate failed on this request")
        );
        assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
    }
    assert!((server.metric("taskgate_reviews_refused_total{cause=\"panic\"}")? - 3.0).abs() < 0.5);
    assert!(server.metric("taskgate_reviews_in_flight")?.abs() < 0.5);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_known_is_an_error_and_no_verdict() -> anyhow::Result<()> {
    let server = support::serve(Given::default(), Limits::default()).await?;
    let answer = server.post("/mutate/tasks", body(UNREADABLE)).await?;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.text(),
        "taskgate cannot read Namespace unreadable: the API server is away"
    );
    Ok(())
}

/// "No policy, no change" must not be concluded from a cache that is still empty.
#[tokio::test]
async fn before_the_caches_are_filled_nothing_is_decided() -> anyhow::Result<()> {
    let given = Given {
        starting: true,
        ..Given::default()
    };
    let server = support::serve(given, Limits::default()).await?;
    let answer = server.post("/mutate/tasks", body("team")).await?;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("starting"), "{answer:?}");
    Ok(())
}

/// G12, C21: above the cap the answer is a defined one, and it is quick.
#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_cap_are_answered_at_once() -> anyhow::Result<()> {
    let limits = Limits {
        in_flight: count(4)?,
        ..Limits::default()
    };
    let server = support::serve(Given::default(), limits).await?;
    let slow: Vec<_> = futures::future::try_join_all((0..4).map(|_| server.http1())).await?;
    let slow: Vec<_> = slow
        .into_iter()
        .map(|mut connection| {
            tokio::spawn(async move { connection.post("/mutate/tasks?timeout=3s", body(SLOW)).await })
        })
        .collect();
    let in_flight = || async { server.metric("taskgate_reviews_in_flight") };
    eventually_that("four requests in flight", SOON, in_flight, |seen| {
        (seen - 4.0).abs() < 0.5
    })
    .await?;

    let mut connection = server.http1().await?;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = connection.post("/mutate/tasks?timeout=3s", body("team")).await?;
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.headers.get("retry-after"),
            None,
            "client-go would wait and ask again"
        );
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    assert!((server.metric("taskgate_reviews_refused_total{cause=\"busy\"}")? - 20.0).abs() < 0.5);
    for slow in slow {
        assert_eq!(slow.await??.status, 504);
    }
    assert_eq!(
        connection.post("/mutate/tasks?timeout=3s", body("team")).await?.status,
        200
    );
    Ok(())
}

#[tokio::test]
async fn headers_that_do_not_end_close_the_connection_and_idling_does_not() -> anyhow::Result<()> {
    let limits = Limits {
        header: Duration::from_millis(300),
        idle: Duration::from_secs(30),
        ..Limits::default()
    };
    let server = support::serve(Given::default(), limits).await?;
    let mut kept = server.http1().await?;
    assert_eq!(kept.post("/mutate/tasks", body("team")).await?.status, 200);

    let mut stream = server.dial(b"http/1.1").await?;
    let began = Instant::now();
    stream.write_all(b"POST /mutate/tasks HTTP/1.1\r\nhost: a\r\n").await?;
    // One byte at a time does not extend it.
    let mut heard = [0; 64];
    let end = timeout(SOON, async {
        loop {
            match timeout(Duration::from_millis(50), stream.read(&mut heard)).await {
                Ok(end) => return end,
                Err(_) => stream.write_all(b"x").await?,
            }
        }
    });
    assert!(matches!(end.await?, Ok(0) | Err(_)));
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    let closed = || async { server.metric("taskgate_connections_refused_total{cause=\"header_timeout\"}") };
    eventually_that("it is counted", SOON, closed, |seen| (seen - 1.0).abs() < 0.5).await?;
    assert_eq!(
        kept.post("/mutate/tasks", body("team")).await?.status,
        200,
        "the kept connection idled for as long"
    );
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() -> anyhow::Result<()> {
    let limits = Limits {
        idle: Duration::from_millis(400),
        ..Limits::default()
    };
    let server = support::serve(Given::default(), limits).await?;
    let mut connection = server.http1().await?;
    assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
    let began = Instant::now();
    timeout(SOON, connection.connection).await???;
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_given_up() -> anyhow::Result<()> {
    let limits = Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = support::serve(Given::default(), limits).await?;
    let mut silent = TcpStream::connect(server.address).await?;
    assert_eq!(timeout(SOON, silent.read(&mut [0; 8])).await??, 0);
    let mut babbling = TcpStream::connect(server.address).await?;
    babbling.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    timeout(SOON, babbling.read_to_end(&mut Vec::new())).await?.ok();
    for cause in ["handshake_timeout", "handshake"] {
        let series = format!("taskgate_connections_refused_total{{cause=\"{cause}\"}}");
        let counted = || async { server.metric(&series) };
        eventually_that(cause, SOON, counted, |seen| (seen - 1.0).abs() < 0.5).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connections_above_the_cap_are_closed_and_room_is_made_when_one_ends() -> anyhow::Result<()> {
    let limits = Limits {
        connections: count(2)?,
        ..Limits::default()
    };
    let server = support::serve(Given::default(), limits).await?;
    let first = server.http1().await?;
    let _second = server.http1().await?;
    assert!(server.http1().await.is_err());
    assert!(server.metric("taskgate_connections_refused_total{cause=\"too_many\"}")? > 0.5);
    drop(first);
    let again = || async { Ok(server.http1().await.is_ok()) };
    eventually_that("there is room again", SOON, again, |fits| *fits).await?;
    Ok(())
}
