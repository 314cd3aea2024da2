//! How long a failure takes to be recorded, and how much memory taskgate needs, idle and with very many `WorkItem`s: the
//! real binary on a real control plane. Figures, no test: `make bench` prints them.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_api::{WorkItem, WorkItemSpec};
use taskgate_e2e::{ControlPlane, Gate, Namespace, PATIENCE, eventually, taskgate};
use tokio::{sync::mpsc, task::JoinSet, time::interval};

/// Failures per second, and for how many seconds.
const PACES: [(u32, u32); 2] = [(10, 20), (100, 20)];
/// How many `WorkItem`s there are, and in how many namespaces.
const WORK_ITEMS: usize = 100_000;
const NAMESPACES: usize = 20;
/// How many requests are under way at the same time.
const REQUESTS: usize = 32;
/// Longer than all of them take.
const MINUTES: Duration = Duration::from_mins(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    recording().await?;
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
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    cp.install_crds(&taskgate(["manifests", "crds"]).await?).await?;
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cp.namespace("bench").await?.api::<WorkItem>());
    }
    stream::iter(0..WORK_ITEMS)
        .map(|index| remember(&namespaces[index % NAMESPACES], index))
        .buffer_unordered(REQUESTS)
        .try_collect::<()>()
        .await?;
    let began = Instant::now();
    let gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    eventually("the controller has read them all", MINUTES, || async {
        let open = gate.metrics().await?.sum("taskgate_open_items");
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let all = WORK_ITEMS as f64;
        ensure!(open >= all, "{open}");
        Ok(())
    })
    .await?;
    println!(
        "resident memory with {WORK_ITEMS} WorkItems: {}, read within {:?}",
        resident(&gate)?,
        began.elapsed()
    );
    Ok(())
}

async fn remember(items: &Api<WorkItem>, index: usize) -> anyhow::Result<()> {
    let spec = WorkItemSpec {
        key: format!("fixer/{index}"),
        item: index.to_string(),
        spawner: Some("fixer".to_owned()),
    };
    let name = format!("fixer-{index}-e13156ca85");
    let mut item = WorkItem::new(&name, spec);
    item.labels_mut()
        .insert("app.kubernetes.io/part-of".to_owned(), "taskgate".to_owned());
    let item = items.create(&PostParams::default(), &item).await?;
    let now = jiff::Timestamp::now();
    let attempts: Vec<_> = (0..3)
        .map(|attempt| {
            json!({
                "uid": format!("00000000-0000-4000-{attempt:04}-{index:012}"), "name": format!("fixer-{index}"),
                "outcome": "Failed", "opened": attempt == 2, "reason": "BackoffLimitExceeded", "startTime": now,
                "completionTime": now, "costUSD": "0.25", "inputTokens": 12_000, "outputTokens": 900,
            })
        })
        .collect();
    let status = json!({
        "metadata": {"resourceVersion": item.resource_version()},
        "status": {
            "breaker": "Open", "consecutiveFailures": 3, "lastFailureTime": now, "openedAt": now,
            "reason": "MaxRetriesExceeded", "totalCostUSD": "0.75", "attempts": attempts,
        },
    });
    items
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
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
