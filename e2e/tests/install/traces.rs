//! Reviews as traces: the spans that a collector receives.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, ensure};
use kelos_standin::CRDS;
use serde_json::{Value, json};
use taskgate_e2e::{ControlPlane, Gate, PATIENCE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::task;

/// The spans that a collector was sent.
type Sent = Arc<Mutex<Vec<Value>>>;

/// A collector for one exporter: takes whatever comes on a connection, one after another.
async fn collect(listener: TcpListener, sent: Sent) -> anyhow::Result<()> {
    loop {
        let (mut connection, _) = listener.accept().await?;
        while let Some(body) = request(&mut connection).await? {
            let scope = &body["resourceSpans"][0]["scopeSpans"][0];
            let spans = scope["spans"].as_array().context("spans")?.clone();
            sent.lock().expect("nothing panics with it").extend(spans);
            connection
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
    }
}

/// The body of the next request; `None` if there is none.
async fn request(connection: &mut TcpStream) -> anyhow::Result<Option<Value>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(None),
        }
    }
    let head = String::from_utf8(head)?.to_lowercase();
    ensure!(
        head.starts_with("post /v1/traces ") && head.contains("\r\ncontent-type: application/json\r\n"),
        "{head}"
    );
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.context("a length")?.parse()?];
    connection.read_exact(&mut body).await?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// The value of a span's attribute.
fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    let attributes = span["attributes"].as_array()?;
    let found = attributes.iter().find(|attribute| attribute["key"] == key)?;
    found["value"].as_object()?.values().next()
}

#[tokio::test]
async fn a_review_is_a_trace_of_its_own_that_is_called_by_its_uid() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("--otlp-endpoint=http://{}", listener.local_addr()?);
    let sent = Sent::default();
    let collector = tokio::spawn(collect(listener, sent.clone()));
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::builder().serve_flag(endpoint).start(&cp).await?;
    let ns = cp.namespace("traces").await?;
    let span = eventually("a review is traced", PATIENCE, || async {
        ensure!(!collector.is_finished(), "the collector ended");
        ns.dry_run(&task("probe", &json!({}))).await?;
        let sent = sent.lock().expect("nothing panics with it");
        ensure!(
            !json!(*sent).to_string().contains("a-secret-prompt"),
            "a prompt is traced"
        );
        let of_probe = |span: &&Value| attribute(span, "taskgate.review.name").is_some_and(|name| name == "probe");
        sent.iter().find(of_probe).cloned().context("no span")
    })
    .await?;
    ensure!(
        span["name"] == "review" && span["parentSpanId"] == "" && attribute(&span, "taskgate.review.allowed").is_some(),
        "{span}"
    );
    let uid = attribute(&span, "taskgate.review.uid")
        .and_then(Value::as_str)
        .context("a uid")?;
    ensure!(span["traceId"] == uid.replace('-', ""), "{span}");
    Ok(())
}
