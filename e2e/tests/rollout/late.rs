//! A client that keeps no connection, and reads the configuration late: it trusts the bundle of a second ago, and dials anew each
//! time. The real API server keeps its connections, and would hardly meet a certificate that is served too early, or a replica
//! that stops too early.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Request;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, Config, Error,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::ReplicaFixture;

const CONFIGURATION: &str = "admission.taskgate.dev";
/// How late it is, at least.
const LATE: Duration = Duration::from_secs(1);
/// How late it may be: taskgate waits a twentieth of the authority's life, which is a little more here.
const TOO_LATE: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Late {
    stop: watch::Sender<bool>,
    running: JoinHandle<anyhow::Result<u32>>,
}

impl Late {
    /// Dials `urls`, again and again.
    pub(crate) fn start(fixture: &ReplicaFixture, urls: Vec<String>) -> Self {
        let configurations = Api::all(fixture.cp.client());
        let stop = watch::Sender::new(false);
        let running = tokio::spawn(run(configurations, urls, stop.subscribe()));
        Self { stop, running }
    }

    /// Fails if a dial failed or met a certificate that it did not trust; else how often it dialled.
    pub(crate) async fn stop(self) -> anyhow::Result<u32> {
        self.stop.send_replace(true);
        self.running.await?
    }
}

async fn run(
    configurations: Api<MutatingWebhookConfiguration>,
    urls: Vec<String>,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<u32> {
    let mut known: VecDeque<(Instant, Value)> = VecDeque::new();
    let mut dialled = 0;
    while !*stop.borrow() {
        let asked = Instant::now();
        known.push_back((asked, bundle(&configurations).await?));
        while known.get(1).is_some_and(|(asked, _)| asked.elapsed() >= LATE) {
            known.pop_front();
        }
        let (asked, bundle) = known.front().context("one was pushed")?;
        if asked.elapsed() >= LATE {
            for url in &urls {
                let met = dial(url, bundle).await;
                // Later than that it proves nothing.
                if asked.elapsed() <= TOO_LATE {
                    met.with_context(|| format!("after {dialled} times"))?;
                    dialled += 1;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    ensure!(dialled > 0, "it never dialled in time");
    Ok(dialled)
}

/// The bundle that the API server trusts, in base64.
async fn bundle(configurations: &Api<MutatingWebhookConfiguration>) -> anyhow::Result<Value> {
    let found = configurations.get(CONFIGURATION).await?;
    let webhook = found.webhooks.into_iter().flatten().next().context("a webhook")?;
    Ok(serde_json::to_value(
        webhook.client_config.ca_bundle.context("a bundle")?,
    )?)
}

/// Any answer will do: it is one over TLS.
async fn dial(url: &str, bundle: &Value) -> anyhow::Result<()> {
    let file: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "it", "cluster": {"server": url, "certificate-authority-data": bundle}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}], "users": [{"name": "it", "user": {}}],
        "current-context": "it",
    }))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    let request = Request::get("/").body(Vec::new())?;
    match Client::try_from(config)?.request_text(request).await {
        Ok(_) | Err(Error::Api(_)) => Ok(()),
        Err(error) => Err(error).context(url.to_owned()),
    }
}
