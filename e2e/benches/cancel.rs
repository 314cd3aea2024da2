//! How long it takes until a cancelled Task's Job has failed, and until Kelos has ended the Task: the real binary beside the
//! stand-in of Kelos, many cancelled at once. Figures, no test: `make bench` prints them.

// A program for a person at a terminal: printing is what it is for.
#![allow(clippy::print_stdout)]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use kelos_standin::{Agents, CRDS, Options, Scope, Standin, client, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_e2e::{ControlPlane, Gate, Namespace, eventually};
use tokio::{sync::mpsc, task::JoinSet};

/// How many Tasks are cancelled at once.
const TASKS: usize = 200;
/// How many requests are under way at the same time while they are made.
const REQUESTS: usize = 16;
/// Longer than all of it takes.
const MINUTES: Duration = Duration::from_mins(10);

/// What a cancelled Task comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Milestone {
    /// The Job is told to fail.
    JobFailing,
    /// The job controller has ended it.
    JobFailed,
    /// Kelos has ended the Task.
    KelosTerminal,
    /// Who and why stands on the Task.
    Cancelled,
}

const MILESTONES: [Milestone; 4] = [
    Milestone::JobFailing,
    Milestone::JobFailed,
    Milestone::KelosTerminal,
    Milestone::Cancelled,
];

type Seen = (String, Milestone, Instant);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let _gate = Gate::builder().serve_flag("--no-leader-election").start(&cp).await?;
    let ns = cp.namespace("cancel").await?;
    let scope = Scope::Namespaces(vec![ns.name().to_owned()]);
    let _agents = Agents::start(cp.client(), &scope).await;
    let _standin = Standin::start(client(cp.config())?, Options::new(scope, "http://127.0.0.1:1")).await?;
    run(&ns).await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let _watching = watch(&ns, &seen);
    let sent = cancel(&ns).await?;
    let mut latencies: HashMap<Milestone, HashMap<String, Duration>> = HashMap::new();
    while MILESTONES
        .iter()
        .any(|of| latencies.get(of).map_or(0, HashMap::len) < TASKS)
    {
        let Some((name, milestone, at)) = tokio::time::timeout(MINUTES, arrivals.recv()).await? else {
            anyhow::bail!("the watches ended")
        };
        if let Some(sent) = sent.get(&name) {
            let took = at.saturating_duration_since(*sent);
            latencies.entry(milestone).or_default().entry(name).or_insert(took);
        }
    }
    for milestone in MILESTONES {
        let mut took: Vec<_> = latencies.remove(&milestone).unwrap_or_default().into_values().collect();
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "{TASKS} cancelled at once → {milestone:?}: p50 {:?}, p99 {:?}, longest {:?}",
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}

/// Makes the Tasks, and waits until all their agents run.
async fn run(ns: &Namespace) -> anyhow::Result<()> {
    let tasks: Api<Task> = ns.api();
    stream::iter((0..TASKS).map(|index| {
        json!({
            "apiVersion": "kelos.dev/v1alpha2", "kind": "Task", "metadata": {"name": format!("bench-{index}")},
            "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
        })
    }))
    .map(|task| async {
        anyhow::Ok(
            tasks
                .create(&PostParams::default(), &serde_json::from_value(task)?)
                .await?,
        )
    })
    .buffer_unordered(REQUESTS)
    .try_collect::<Vec<_>>()
    .await?;
    eventually("all agents run", MINUTES, || async {
        let running = tasks.list(&ListParams::default()).await?;
        let running = running.iter().filter(|task| task.phase() == "Running").count();
        ensure!(running == TASKS, "{running} of {TASKS}");
        Ok(())
    })
    .await
}

/// Tells of each milestone as it is seen.
fn watch(ns: &Namespace, seen: &mpsc::UnboundedSender<Seen>) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    let (tasks, jobs): (Api<Task>, Api<Job>) = (ns.api(), ns.api());
    let tell = seen.clone();
    watching.spawn(async move {
        let mut events = watcher(tasks, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(event) = events.next().await {
            let (Ok(task), now) = (event, Instant::now()) else {
                continue;
            };
            let state = task.annotations().get("taskgate.dev/cancel-state").map(String::as_str);
            let reached = [
                (task.phase() == "Failed").then_some(Milestone::KelosTerminal),
                (state == Some("Cancelled")).then_some(Milestone::Cancelled),
            ];
            for milestone in reached.into_iter().flatten() {
                let _ = tell.send((task.name_any(), milestone, now));
            }
        }
    });
    let tell = seen.clone();
    watching.spawn(async move {
        let mut events = watcher(jobs, watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        while let Some(event) = events.next().await {
            let (Ok(job), now) = (event, Instant::now()) else {
                continue;
            };
            let name = job.name_any();
            for condition in job.status.and_then(|status| status.conditions).unwrap_or_default() {
                let milestone = match condition.type_.as_str() {
                    "FailureTarget" => Milestone::JobFailing,
                    "Failed" => Milestone::JobFailed,
                    _ => continue,
                };
                let _ = tell.send((name.clone(), milestone, now));
            }
        }
    });
    watching
}

/// Cancels all of them, as fast as requests can be sent; returns when each request was sent.
async fn cancel(ns: &Namespace) -> anyhow::Result<HashMap<String, Instant>> {
    let mut requests = JoinSet::new();
    for index in 0..TASKS {
        let tasks: Api<Task> = ns.api();
        requests.spawn(async move {
            let name = format!("bench-{index}");
            let sent = Instant::now();
            let patch = Patch::Merge(json!({"metadata": {"annotations": {"taskgate.dev/cancel": "bench"}}}));
            tasks.patch(&name, &PatchParams::default(), &patch).await?;
            anyhow::Ok((name, sent))
        });
    }
    let mut sent = HashMap::new();
    while let Some(request) = requests.join_next().await {
        sent.extend([request??]);
    }
    Ok(sent)
}
