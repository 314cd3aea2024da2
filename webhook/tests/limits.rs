//! Limits: one request or connection does not affect the others.

use std::{net::Ipv4Addr, num::NonZeroUsize, time::Duration};

use anyhow::Context as _;
use taskgate_e2e::eventually_that;
use taskgate_webhook::ServerLimits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::client::TlsStream;

mod support;
use support::{FixedCluster, PANICKING, SLOW, UNREADABLE, task_review};

const SOON: Duration = Duration::from_secs(5);
/// Another peer than the one that the other connections come from.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn count(count: usize) -> anyhow::Result<NonZeroUsize> {
    NonZeroUsize::new(count).context("not zero")
}

fn body(namespace: &str) -> String {
    task_review(namespace).to_string()
}

/// The answer comes at four fifths of the API server's timeout.
#[tokio::test]
async fn a_review_that_takes_too_long_gets_504_in_time() -> anyhow::Result<()> {
    let server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut connection = server.http1().await?;
    let began = Instant::now();
    let answer = connection.post("/mutate/tasks?timeout=2s", body(SLOW)).await?;
    let took = began.elapsed();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (504, "taskgate did not reach a decision in time")
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

/// Any caller may write a URL: no registration has more than 5 s.
#[tokio::test]
async fn a_timeout_longer_than_a_registration_allows_is_capped() -> anyhow::Result<()> {
    let server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let began = Instant::now();
    let answer = server.post("/mutate/tasks?timeout=30s", body(SLOW)).await?;
    assert_eq!(answer.status, 504);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    Ok(())
}

const HEAD: &str =
    "POST /mutate/tasks HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{";

/// Everything read from `stream` until it is closed, while `drip` is sent repeatedly.
async fn read_while_dripping(mut stream: TlsStream<TcpStream>, drip: &[u8]) -> anyhow::Result<String> {
    let mut heard = Vec::new();
    timeout(SOON, async {
        let mut buffer = [0; 1024];
        loop {
            match timeout(Duration::from_millis(50), stream.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => break,
                Ok(Ok(count)) => heard.extend_from_slice(&buffer[..count]),
                Err(_) => drop(stream.write_all(drip).await),
            }
        }
    })
    .await?;
    Ok(String::from_utf8(heard)?)
}

#[tokio::test]
async fn a_slow_body_is_cut() -> anyhow::Result<()> {
    for (body, stall, timeout, drip) in [
        (4_000, 300, "", ""),
        (300, 4_000, "", ""),
        // One byte at a time is no stall.
        (400, 300, "", " "),
        // No later than the API server gives up.
        (4_000, 4_000, "?timeout=500ms", ""),
    ] {
        let limits = ServerLimits {
            body: Duration::from_millis(body),
            stall: Duration::from_millis(stall),
            ..ServerLimits::default()
        };
        let server = support::serve(FixedCluster::default(), limits).await?;
        let mut stream = server.dial(b"http/1.1").await?;
        let began = Instant::now();
        let head = HEAD.replace("tasks ", &format!("tasks{timeout} "));
        stream.write_all(head.as_bytes()).await?;
        let text = read_while_dripping(stream, drip.as_bytes()).await?;
        assert!(text.starts_with("HTTP/1.1 408 "), "{body} {stall}: {text}");
        let took = began.elapsed();
        assert!(
            (Duration::from_millis(250)..Duration::from_secs(3)).contains(&took),
            "{took:?}"
        );
        assert!(server.metric("taskgate_reviews_refused_total{cause=\"slow_body\"}")? > 0.5);
    }
    Ok(())
}

/// No slot is taken before the body is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_idle_bodies_delays_no_other_request() -> anyhow::Result<()> {
    let limits = ServerLimits {
        body: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        review: Duration::from_secs(30),
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
    let mut kept = server.http1().await?;
    assert_eq!(kept.post("/mutate/tasks", body("team")).await?.status, 200);
    let mut flood = Vec::new();
    for _ in 0..300 {
        let mut stream = server.dial_from(ATTACKER, b"http/1.1").await?;
        stream.write_all(HEAD.as_bytes()).await?;
        flood.push(stream);
        if flood.len() % 50 == 0 {
            let (mut same, mut other) = (server.http1_from(ATTACKER).await?, server.http1().await?);
            for connection in [&mut kept, &mut same, &mut other] {
                let began = Instant::now();
                assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
                assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
            }
        }
    }
    assert!(server.metric("taskgate_reviews_in_flight")?.abs() < 0.5);
    assert!(server.metric("taskgate_reviews_refused_total{cause=\"busy\"}")?.abs() < 0.5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_gets_half_of_the_reviews() -> anyhow::Result<()> {
    let limits = ServerLimits {
        in_flight: count(4)?,
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut connection = server.http1_from(ATTACKER).await?;
        slow.push(tokio::spawn(async move {
            connection.post("/mutate/tasks?timeout=4s", body(SLOW)).await
        }));
    }
    let in_flight = || async { server.metric("taskgate_reviews_in_flight") };
    eventually_that("two requests in flight", SOON, in_flight, |seen| {
        (seen - 2.0).abs() < 0.5
    })
    .await?;
    let mut third = server.http1_from(ATTACKER).await?;
    assert_eq!(third.post("/mutate/tasks", body("team")).await?.status, 503);
    assert_eq!(server.post("/mutate/tasks", body("team")).await?.status, 200);
    for slow in slow {
        assert_eq!(slow.await??.status, 504);
    }
    Ok(())
}

/// Eight million bytes of zeroes are a quarter of a gigabyte of values: they are counted before they are built.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_grows_when_it_is_parsed_is_refused_before_it_does() -> anyhow::Result<()> {
    let server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let mut connection = server.http1().await?;
    for (unit, count) in [("0,", 4_000_000), ("[],", 2_700_000), ("{\"\":0},", 1_000_000)] {
        let zeroes = format!("[{}0]", unit.repeat(count));
        let review = body("team").replace("\"Fix it.\"", &zeroes);
        assert!(review.len() < 8 << 20, "{}", review.len());
        let answer = connection.post("/mutate/tasks?timeout=5s", review).await?;
        assert_eq!(answer.status, 413, "{unit}: {}", answer.text());
        assert_eq!(answer.text(), "the body would take more than 67108864 bytes of memory");
    }
    assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_panic_answers_its_own_request_only() -> anyhow::Result<()> {
    let server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
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
async fn an_input_that_cannot_be_read_is_an_error_and_no_decision() -> anyhow::Result<()> {
    let server = support::serve(FixedCluster::default(), ServerLimits::default()).await?;
    let answer = server.post("/mutate/tasks", body(UNREADABLE)).await?;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.text(),
        "taskgate cannot read Namespace unreadable: the API server is unavailable"
    );
    Ok(())
}

/// An empty cache does not mean that there is no policy.
#[tokio::test]
async fn nothing_is_decided_before_the_caches_are_synced() -> anyhow::Result<()> {
    let cluster = FixedCluster {
        starting: true,
        ..FixedCluster::default()
    };
    let server = support::serve(cluster, ServerLimits::default()).await?;
    let answer = server.post("/mutate/tasks", body("team")).await?;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("starting"), "{answer:?}");
    Ok(())
}

/// Above the limit the answer is a defined one, and quick.
#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_limit_are_refused_at_once() -> anyhow::Result<()> {
    let limits = ServerLimits {
        in_flight: count(8)?,
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
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
    let limits = ServerLimits {
        header: Duration::from_millis(300),
        idle: Duration::from_secs(30),
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
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
    let limits = ServerLimits {
        idle: Duration::from_millis(400),
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
    let mut connection = server.http1().await?;
    assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
    let began = Instant::now();
    timeout(SOON, connection.connection).await???;
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_does_not_complete_times_out() -> anyhow::Result<()> {
    let limits = ServerLimits {
        handshake: Duration::from_millis(200),
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
    let mut silent = TcpStream::connect(server.address).await?;
    assert_eq!(timeout(SOON, silent.read(&mut [0; 8])).await??, 0);
    let mut not_tls = TcpStream::connect(server.address).await?;
    not_tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    timeout(SOON, not_tls.read_to_end(&mut Vec::new())).await?.ok();
    for cause in ["handshake_timeout", "handshake"] {
        let series = format!("taskgate_connections_refused_total{{cause=\"{cause}\"}}");
        let counted = || async { server.metric(&series) };
        eventually_that(cause, SOON, counted, |seen| (seen - 1.0).abs() < 0.5).await?;
    }
    Ok(())
}

/// A peer that opens more connections than its share loses its own, and never one that another peer uses.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_costs_the_peer_that_makes_it() -> anyhow::Result<()> {
    let limits = ServerLimits {
        connections: count(8)?,
        ..ServerLimits::default()
    };
    let server = support::serve(FixedCluster::default(), limits).await?;
    let mut kept = server.http1().await?;
    assert_eq!(kept.post("/mutate/tasks", body("team")).await?.status, 200);
    let mut answered = server.http1_from(ATTACKER).await?;
    assert_eq!(answered.post("/mutate/tasks", body("team")).await?.status, 200);
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(server.dial_from(ATTACKER, b"http/1.1").await?);
    }
    let evicted = || async { server.metric("taskgate_connections_refused_total{cause=\"evicted\"}") };
    eventually_that("17 were closed for newer ones", SOON, evicted, |seen| {
        (seen - 17.0).abs() < 0.5
    })
    .await?;
    let open = || async { server.metric("taskgate_connections") };
    eventually_that("5 are left", SOON, open, |seen| (seen - 5.0).abs() < 0.5).await?;
    // A connection that served a review is evicted last, on either address.
    for connection in [&mut kept, &mut answered, &mut server.http1().await?] {
        assert_eq!(connection.post("/mutate/tasks", body("team")).await?.status, 200);
    }
    Ok(())
}
