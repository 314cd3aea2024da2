//! The tenant whose service others must not touch: it creates governed Tasks all the time, and its items have counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::wait::{PATIENCE, eventually};
use crate::{ControlPlane, KELOS, Tenant, policy, resource, task_of_item};

/// Between two Tasks.
const PAUSE: Duration = Duration::from_millis(25);
/// So many Tasks before an attack, and at least as many during it.
const ENOUGH: usize = 30;
/// The API server waits 2 s for the mutating and 3 s for the validating webhook. Each Task must be reviewed, which
/// [`is_governed`] proves; how fast that is on an idle machine is for benchmarks to say.
const SLOWEST: Duration = Duration::from_secs(4);
/// What a busy machine with two cores and a debug build may add to the median, and to the slowest tenth.
const FLOORS: [(usize, Duration); 2] = [(50, Duration::from_millis(250)), (90, Duration::from_secs(1))];
/// For so long records must not change before they are taken for final.
const SILENCE: Duration = Duration::from_millis(750);
/// Longest that an attack may take.
const ATTACK: Duration = Duration::from_mins(2);

/// What admission puts on a Task that it reviewed.
const FINALIZER: &str = "taskgate.dev/accounting";

/// A tenant at work.
#[derive(Clone, Debug)]
pub struct Victim {
    tenant: Tenant,
    created: Arc<AtomicU32>,
}

/// What an attack must not change: WorkItems with their status, and Events.
#[derive(Clone, Debug, PartialEq)]
struct Records {
    items: Vec<Value>,
    events: Vec<String>,
}

/// How long requests took, shortest first.
struct Latencies(Vec<Duration>);

impl Victim {
    /// A namespace whose Tasks a policy limits and labels, with an item that failed once and one that is tripped.
    ///
    /// # Errors
    /// If taskgate does not govern it in time.
    pub async fn start(cp: &ControlPlane, hint: &str) -> anyhow::Result<Self> {
        let victim = Self {
            tenant: cp.tenant(hint).await?,
            created: Arc::default(),
        };
        let spec = json!({"failurePolicy": {"maxRetriesPerItem": 2}, "metadata": {"labels": {"team": "b"}}});
        victim.tenant.create(&policy("agents", &spec)).await?;
        eventually("the victim's Tasks are governed", PATIENCE, || async {
            is_governed(&victim.tenant.dry_run(&task_of_item("probe", "probe")).await?)
        })
        .await?;
        for (name, item) in [
            ("failing-1", "failing"),
            ("tripped-1", "tripped"),
            ("tripped-2", "tripped"),
        ] {
            victim.fail(name, item).await?;
        }
        Ok(victim)
    }

    /// Who it is.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Runs `attack` while the victim works, and returns what it gives.
    ///
    /// # Errors
    /// If a request of the victim fails, is not reviewed, or is slow compared to those before the attack; if its counts or
    /// Events change; if the controller no longer counts its failures.
    pub async fn undisturbed<T>(&self, attack: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let (stop, stopped) = watch::channel(true);
        let before = self.work(stopped).await.context("before the attack")?;
        let records = self.settled_records().await?;

        stop.send_replace(false);
        let (victim, stopped) = (self.clone(), stop.subscribe());
        // On a thread of its own: what the attack computes must not count as the victim's latency.
        let working = tokio::spawn(async move { victim.work(stopped).await });
        let result = timeout(ATTACK, attack).await.context("the attack does not end");
        stop.send_replace(true);
        let during = working.await?.context("during the attack")?;

        let result = result?;
        before.compare(&during)?;
        let now = self.records().await?;
        ensure!(
            now == records,
            "the victim's records changed from {records:#?} to {now:#?}"
        );
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let (name, item) = (format!("after-{number}"), format!("after-{number}"));
        self.fail(&name, &item).await.context("after the attack")?;
        result
    }

    /// Creates Tasks until told to stop, and at least [`ENOUGH`].
    async fn work(&self, stopped: watch::Receiver<bool>) -> anyhow::Result<Latencies> {
        let mut latencies = Vec::new();
        let client = self.tenant.api(KELOS, "Task");
        while latencies.len() < ENOUGH || !*stopped.borrow() {
            let number = self.created.fetch_add(1, Ordering::Relaxed);
            let name = format!("work-{number}");
            let object: DynamicObject = serde_json::from_value(task_of_item(&name, &name))?;
            let began = Instant::now();
            let created = client.create(&kube::api::PostParams::default(), &object).await;
            let took = began.elapsed();
            let created = created.with_context(|| format!("creating Task {name}, after {took:.1?}"))?;
            is_governed(&created).with_context(|| format!("Task {name}, after {took:.1?}"))?;
            latencies.push(took);
            sleep(PAUSE).await;
        }
        latencies.sort();
        Ok(Latencies(latencies))
    }

    /// Creates a Task for `item`, ends it as Kelos does, and waits until its failure is counted.
    async fn fail(&self, name: &str, item: &str) -> anyhow::Result<()> {
        self.tenant.create(&task_of_item(name, item)).await?;
        self.tenant.ns().patch_failed(name, &json!({})).await?;
        self.await_counted(name, item).await
    }

    async fn await_counted(&self, name: &str, item: &str) -> anyhow::Result<()> {
        eventually(format!("the failure of Task {name} is counted"), PATIENCE, || async {
            let items = self.tenant.ns().work_item_values().await?;
            let attempts = items
                .iter()
                .filter(|known| known["spec"]["item"] == *item)
                .filter_map(|known| known["status"]["attempts"].as_array());
            let counted = attempts.flatten().any(|attempt| attempt["name"] == *name);
            ensure!(counted, "{items:#?}");
            Ok(())
        })
        .await
    }

    /// The records once what was counted before has its Events too.
    async fn settled_records(&self) -> anyhow::Result<Records> {
        eventually("the victim's records stand still", PATIENCE, || async {
            let before = self.records().await?;
            sleep(SILENCE).await;
            let records = self.records().await?;
            ensure!(records == before, "{records:#?}");
            Ok(records)
        })
        .await
    }

    async fn records(&self) -> anyhow::Result<Records> {
        let events = self.tenant.ns().dynamic_api(&resource("events.k8s.io/v1", "Event"));
        let mut events: Vec<_> = events
            .list(&ListParams::default())
            .await?
            .iter()
            .map(|event| format!("{}: {}", event.data["reason"], event.data["note"]))
            .collect();
        events.sort();
        let items = self.tenant.ns().work_item_values().await?;
        Ok(Records { items, events })
    }
}

impl Latencies {
    /// The latency that `percent` of the requests do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn compare(&self, during: &Self) -> anyhow::Result<()> {
        let slowest = during.percentile(100);
        ensure!(
            slowest < SLOWEST,
            "a Task of the victim took {slowest:.1?}: {self} before the attack, {during} during it"
        );
        for (percent, floor) in FLOORS {
            let (was, is) = (self.percentile(percent), during.percentile(percent));
            ensure!(
                is <= 2 * was + floor,
                "the victim's Tasks became slow: {self} before the attack, {during} during it"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, p90, slowest] = [50, 90, 100].map(|percent| self.percentile(percent));
        write!(
            f,
            "median {median:.1?}, p90 {p90:.1?}, slowest {slowest:.1?} of {}",
            self.0.len()
        )
    }
}

/// Whether admission reviewed this Task of the victim.
fn is_governed(task: &DynamicObject) -> anyhow::Result<()> {
    let finalizer = task.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    let label = task.labels().get("team").is_some_and(|team| team == "b");
    ensure!(
        finalizer && label,
        "it was not reviewed: it has {:?} and {:?}",
        task.finalizers(),
        task.labels()
    );
    Ok(())
}
