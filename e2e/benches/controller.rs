//! How long a failure takes to be recorded, and how much memory taskgate needs, idle and with very many `WorkItem`s: the
//! real binary on a real control plane. Figures, no test: `make bench` prints them.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::ByteString;
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use taskgate_api::{WorkItem, WorkItemSpec};
use taskgate_e2e::{ControlPlane, Gate, Namespace, PATIENCE, eventually, taskgate};
use tokio::{sync::mpsc, task::JoinSet, time::interval};

/// Failures per second, and for how many seconds.
const PACES: [(u32, u32); 2] = [(10, 20), (100, 20)];
/// How many `WorkItem`s there are, if `WORK_ITEMS` does not say otherwise.
const WORK_ITEMS: usize = 100_000;
/// In how many namespaces.
const NAMESPACES: usize = 20;
/// The name of the one that the others are made after.
const MODEL: &str = "fixer-0-e13156ca85";
/// How many are written at once; etcd takes 128.
const PUTS: usize = 100;
/// How many requests are under way at the same time.
const REQUESTS: usize = 32;
/// Longer than all of them take.
const MINUTES: Duration = Duration::from_mins(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `-- memory` measures only that.
    if std::env::args().all(|arg| arg != "memory") {
        recording().await?;
    }
    memory().await
}

/// From the write of `Failed` being sent to the attempt arriving at who watches `WorkItem`s.
async fn recording() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    println!("resident memory, idle: {}", resident(&gate)?);
    let ns = cp.namespace("bench").await?;
    let policy = json!({
        "apiVersion": "taskgate.dev/v1alpha1", "kind": "TaskPolicy", "metadata": {"name": "bench"},
        "spec": {"failurePolicy": {"maxRetriesPerItem": 3}},
    });
    ns.apply_yaml(&policy.to_string()).await?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the policy governs", PATIENCE, || async {
        let probe = ns.api().create(&dry_run, &task("probe")?).await?;
        ensure!(probe.metadata.finalizers.is_some());
        Ok(())
    })
    .await?;
    for (pace, seconds) in PACES {
        let mut latencies = failures(&ns, pace, seconds).await?;
        latencies.sort_unstable();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        println!(
            "failed → recorded, {pace}/s for {seconds} s: p50 {:?}, p99 {:?}, longest {:?}",
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}

fn task(name: &str) -> anyhow::Result<Task> {
    let task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {"name": name, "annotations": {"taskgate.dev/item": name}},
        "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
    });
    Ok(serde_json::from_value(task)?)
}

/// Lets Tasks fail at that pace, each of an item of its own.
async fn failures(ns: &Namespace, pace: u32, seconds: u32) -> anyhow::Result<Vec<Duration>> {
    let tasks: Api<Task> = ns.api();
    let count = pace * seconds;
    let made: Vec<Task> = stream::iter((0..count).map(|index| task(&format!("at-{pace}-{index}"))))
        .map(|task| async { Ok::<_, anyhow::Error>(tasks.create(&PostParams::default(), &task?).await?) })
        .buffer_unordered(REQUESTS)
        .try_collect()
        .await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let items: Api<WorkItem> = ns.api();
    let watching = tokio::spawn(async move {
        let mut events = watcher(items, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(event) = events.next().await {
            let now = Instant::now();
            for attempt in event.ok().and_then(|item| item.status).unwrap_or_default().attempts {
                if seen.send((attempt.uid, now)).is_err() {
                    return;
                }
            }
        }
    });
    let mut writes = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / pace);
    for task in made {
        ticks.tick().await;
        let tasks = tasks.clone();
        writes.spawn(async move {
            let sent = Instant::now();
            let now = jiff::Timestamp::now();
            let status = json!({"status": {"phase": "Failed", "startTime": now, "completionTime": now}});
            tasks
                .patch_status(&task.name_any(), &PatchParams::default(), &Patch::Merge(status))
                .await?;
            anyhow::Ok((task.uid().unwrap_or_default(), sent))
        });
    }
    let mut sent: HashMap<String, Instant> = HashMap::new();
    while let Some(write) = writes.join_next().await {
        sent.extend([write??]);
    }
    let mut latencies = Vec::new();
    while !sent.is_empty() {
        let arrival = tokio::time::timeout(MINUTES, arrivals.recv()).await?;
        let (uid, at) = arrival.context("the watch ended")?;
        latencies.extend(sent.remove(&uid).map(|sent| at.saturating_duration_since(sent)));
    }
    watching.abort();
    Ok(latencies)
}

/// With very many `WorkItem`s of three failures each.
async fn memory() -> anyhow::Result<()> {
    let count = match std::env::var("WORK_ITEMS") {
        Ok(count) => count.parse().context("WORK_ITEMS")?,
        Err(_) => WORK_ITEMS,
    };
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    cp.install_crds(&taskgate(["manifests", "crds"]).await?).await?;
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cp.namespace("bench").await?);
    }
    let model = remember(&namespaces[0]).await?;
    let made = (1..count).map(|index| like(&model, namespaces[index % NAMESPACES].name(), index));
    store(&cp, &made.collect::<Vec<_>>()).await?;
    // So that its caches are filled by a list, and not by that many events.
    cp.apiserver().restart().await?;
    eventually("the API server has read them all", MINUTES, || async {
        let one = ListParams::default().limit(1);
        Ok(Api::<WorkItem>::all(cp.client()).list(&one).await?)
    })
    .await?;
    let began = Instant::now();
    let gate = Gate::builder().ready_within(MINUTES).serve_flag("--no-leader-election");
    let gate = gate.start(&cp).await?;
    eventually("the controller has read them all", MINUTES, || async {
        let open = gate.metrics().await?.sum("taskgate_open_items");
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let all = count as f64;
        ensure!(open >= all, "{open}");
        Ok(())
    })
    .await?;
    println!(
        "resident memory with {count} WorkItems: {}, read within {:?}",
        resident(&gate)?,
        began.elapsed()
    );
    Ok(())
}

/// One, made as taskgate makes them; as it is stored.
async fn remember(ns: &Namespace) -> anyhow::Result<Value> {
    let items = ns.api::<WorkItem>();
    let spec = WorkItemSpec {
        key: "fixer/0".to_owned(),
        item: "0".to_owned(),
        spawner: Some("fixer".to_owned()),
    };
    let mut item = WorkItem::new(MODEL, spec);
    item.labels_mut()
        .insert("app.kubernetes.io/part-of".to_owned(), "taskgate".to_owned());
    let mut item = items.create(&PostParams::default(), &item).await?;
    let now = jiff::Timestamp::now();
    let attempt = json!({
        "uid": "00000000-0000-4000-8000-000000000000", "name": "fixer-0", "outcome": "Failed",
        "reason": "BackoffLimitExceeded", "startTime": now, "completionTime": now, "costUSD": "0.25",
        "inputTokens": 12_000, "outputTokens": 900,
    });
    let status = json!({
        "breaker": "Open", "consecutiveFailures": 3, "lastFailureTime": now, "openedAt": now,
        "reason": "MaxRetriesExceeded", "totalCostUSD": "0.75", "attempts": [attempt, attempt, attempt],
    });
    item.status = Some(serde_json::from_value(status)?);
    items.replace_status(MODEL, &PostParams::default(), &item).await?;
    let kind = ApiResource::erase::<WorkItem>(&());
    let mut stored = serde_json::to_value(ns.dynamic_api(&kind).get(MODEL).await?)?;
    stored["metadata"]
        .as_object_mut()
        .context("no metadata")?
        .remove("resourceVersion");
    Ok(stored)
}

/// Another one.
fn like(model: &Value, namespace: &str, index: usize) -> Value {
    let mut item = model.clone();
    item["metadata"]["namespace"] = namespace.into();
    item["metadata"]["name"] = format!("fixer-{index}-e13156ca85").into();
    item["metadata"]["uid"] = format!("00000000-0000-4000-8000-{index:012}").into();
    item["spec"]["key"] = format!("fixer/{index}").into();
    item["spec"]["item"] = index.to_string().into();
    item
}

/// Writes them where the API server keeps them: through it, that many would take the better part of an hour.
async fn store(cp: &ControlPlane, items: &[Value]) -> anyhow::Result<()> {
    let etcd = Client::try_from(kube::Config::new(cp.etcd_url().parse()?))?;
    for items in items.chunks(PUTS) {
        let puts = items.iter().map(|item| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]));
            let key = format!("/registry/taskgate.dev/workitems/{namespace}/{name}");
            let value = ByteString(item.to_string().into_bytes());
            json!({"requestPut": {"key": ByteString(key.into_bytes()), "value": value}})
        });
        let body = json!({"success": puts.collect::<Vec<_>>()}).to_string().into_bytes();
        let answer: Value = etcd.request(http::Request::post("/v3/kv/txn").body(body)?).await?;
        ensure!(answer["succeeded"] == true, "{answer}");
    }
    Ok(())
}

/// What Linux says: now, and at most so far.
fn resident(gate: &Gate) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.process().pid()))?;
    let kibibytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.trim_end_matches("kB").trim().parse::<u64>().ok());
        number.with_context(|| format!("no {field}"))
    };
    let (now, peak) = (kibibytes("VmRSS:")?, kibibytes("VmHWM:")?);
    Ok(format!("{} MiB, at most {} MiB", now / 1024, peak / 1024))
}
