//! Sends spans to the collector. One that is away costs spans, never reviews.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::span::Span;

/// How many spans are sent at once.
const BATCH: usize = 256;
/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends what was handed over, in batches: as much as there is.
pub(crate) struct Exporter {
    url: String,
    waiting: mpsc::Receiver<Span>,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Whether the last batch was lost.
    failing: bool,
}

impl Exporter {
    pub(super) fn new(endpoint: &Uri, waiting: mpsc::Receiver<Span>) -> Self {
        Self {
            url: format!("{}/v1/traces", endpoint.to_string().trim_end_matches('/')),
            waiting,
            client: Client::builder(TokioExecutor::new()).build_http(),
            failing: false,
        }
    }

    /// Runs until `shutdown`; what is there then is sent as well.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::new();
        while let Some(count) = shutdown
            .run_until_cancelled(self.waiting.recv_many(&mut batch, BATCH))
            .await
        {
            if count == 0 {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
        self.waiting.close();
        while self.waiting.recv_many(&mut batch, BATCH).await > 0 && !self.failing {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Sends a batch. One line when it fails for the first time, and one when it works again.
    async fn send(&mut self, spans: Vec<Span>) {
        let outcome = self.post(spans).await;
        match &outcome {
            Err(error) if !self.failing => warn!(url = self.url, error, "spans are lost"),
            Ok(()) if self.failing => info!(url = self.url, "spans are taken again"),
            _ => {}
        }
        self.failing = outcome.is_err();
    }

    async fn post(&self, spans: Vec<Span>) -> Result<(), String> {
        let attribute = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
        let host = std::env::var("HOSTNAME").unwrap_or_default();
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": [
                attribute("service.name", "taskgate"),
                attribute("service.version", env!("CARGO_PKG_VERSION")),
                attribute("service.instance.id", &host),
            ]},
            "scopeSpans": [{"scope": {"name": "taskgate"}, "spans": spans}],
        }]});
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))
            .map_err(|error| error.to_string())?;
        let answer = match timeout(PATIENCE, self.client.request(request)).await {
            Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
            Ok(answer) => answer.map_err(|error| error.to_string())?,
        };
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("the collector answers {}", answer.status()))
        }
    }
}
