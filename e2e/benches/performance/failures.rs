//! How long a failure takes to be recorded, and how many requests: from the write of `Failed` being sent to the attempt arriving at
//! who watches `WorkItem`s.

use std::{
    collections::HashMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use kelos_standin::{CRDS, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, Namespace, PATIENCE, TASKGATE_AGENT, eventually, policy, task_of_item};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::statistics::Sample;

/// Failures per second; the last one is more than two cores manage.
const RATES: [u32; 3] = [10, 40, 100];
/// For how many seconds.
const SECONDS: u32 = 20;
/// How many Tasks are created at the same time.
const REQUESTS: usize = 32;
/// Longer than the queue that forms lasts.
const DEADLINE: Duration = Duration::from_mins(10);

/// Measures each rate, each failure the first of its item.
pub(crate) async fn measure() -> anyhow::Result<String> {
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    let _gate = Gate::builder().without_leader_election().start(&cp).await?;
    let ns = cp.namespace("bench").await?;
    let limit = json!({"failurePolicy": {"maxRetriesPerItem": 3}});
    ns.apply_yaml(&policy("bench", &limit).to_string()).await?;
    eventually("the policy governs", PATIENCE, || async {
        let probe = ns.dry_run(&task_of_item("probe", "probe")).await?;
        ensure!(probe["metadata"]["finalizers"].is_array());
        Ok(())
    })
    .await?;
    let mut text = format!(
        "From the write of `Failed` to the attempt in the `WorkItem`, each failure the first of its item, for {SECONDS} s, with an audit
log of all requests.\n\n| Failures/s | p50 | p99 | recorded/s | taskgate's requests per failure |\n|---|---|---|---|---|\n"
    );
    for rate in RATES {
        let tasks = create(&ns, rate).await?;
        let mark = cp.audit().mark()?;
        let began = Instant::now();
        let took = fail(&ns, tasks, rate).await?;
        let recorded = f64::from(rate * SECONDS) / began.elapsed().as_secs_f64();
        // What follows the attempt is part of it.
        cp.settled_revision().await?;
        let mut events = cp.audit().since(mark).await?;
        events.retain(|event| event.user_agent.starts_with(TASKGATE_AGENT) && event.object_ref.resource != "leases");
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let requests = events.len() as f64 / f64::from(rate * SECONDS);
        let (p50, p99) = (took.median(), took.percentile(99));
        writeln!(
            text,
            "| {rate} | {p50:.0} ms | {p99:.0} ms | {recorded:.0} | {requests:.1} |"
        )?;
    }
    Ok(text)
}

async fn create(ns: &Namespace, rate: u32) -> anyhow::Result<Vec<Task>> {
    let tasks: Api<Task> = ns.api();
    let created = stream::iter(0..rate * SECONDS).map(|index| {
        let tasks = &tasks;
        async move {
            let name = format!("at-{rate}-{index}");
            let task = serde_json::from_value(task_of_item(&name, &name))?;
            anyhow::Ok(tasks.create(&PostParams::default(), &task).await?)
        }
    });
    created.buffer_unordered(REQUESTS).try_collect().await
}

/// Lets the Tasks fail at that rate; how long each took to be recorded.
async fn fail(ns: &Namespace, failing: Vec<Task>, rate: u32) -> anyhow::Result<Sample> {
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let (items, tasks): (Api<WorkItem>, Api<Task>) = (ns.api(), ns.api());
    let mut background = JoinSet::new();
    background.spawn(async move {
        let mut events = watcher(items, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(event) = events.next().await {
            let now = Instant::now();
            for attempt in event.ok().and_then(|item| item.status).unwrap_or_default().attempts {
                // Fails only at the end.
                let _ = seen.send((attempt.uid, now));
            }
        }
    });
    let mut writes = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / rate);
    for task in failing {
        ticks.tick().await;
        let tasks = tasks.clone();
        writes.spawn(async move {
            let (sent, now) = (Instant::now(), jiff::Timestamp::now());
            let status = json!({"status": {"phase": "Failed", "startTime": now, "completionTime": now}});
            tasks
                .patch_status(&task.name_any(), &PatchParams::default(), &Patch::Merge(status))
                .await?;
            anyhow::Ok((task.uid().unwrap_or_default(), sent))
        });
    }
    let mut sent = HashMap::new();
    while let Some(write) = writes.join_next().await {
        sent.extend([write??]);
    }
    let mut took = Vec::new();
    while !sent.is_empty() {
        let (uid, at) = timeout(DEADLINE, arrivals.recv()).await?.context("the watch ended")?;
        took.extend(sent.remove(&uid).map(|sent| at.saturating_duration_since(sent)));
    }
    Ok(Sample::of_times(took))
}
