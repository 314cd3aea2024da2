//! How long it takes until a cancelled Task's Job has failed, and until Kelos has ended the Task: beside the stand-in of Kelos, many
//! cancelled at once.

use std::{
    collections::HashMap,
    fmt::{Debug, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::{
    future::try_join_all,
    stream::{self, StreamExt as _, TryStreamExt as _},
};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use kelos_standin::{Agents, CRDS, Options, Scope, Standin, client, types::Task};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use taskgate_e2e::{ControlPlane, Gate, Namespace, eventually, task};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use crate::statistics::Sample;

/// How many Tasks are cancelled at once.
const TASKS: usize = 200;
/// How many are created at the same time.
const REQUESTS: usize = 16;
/// Longer than all of it takes.
const DEADLINE: Duration = Duration::from_mins(10);

/// What happens to a cancelled Task, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Milestone {
    JobFailing,
    JobFailed,
    TaskFailed,
    TaskCancelled,
}

const MILESTONES: [(Milestone, &str); 4] = [
    (Milestone::JobFailing, "taskgate fails the Job"),
    (Milestone::JobFailed, "the job controller has ended it and its pods"),
    (Milestone::TaskFailed, "Kelos has ended the Task"),
    (Milestone::TaskCancelled, "the Task has condition Cancelled"),
];

type Arrivals = mpsc::UnboundedSender<(String, Milestone, Instant)>;

/// Measures from the annotation to each milestone.
pub(crate) async fn measure() -> anyhow::Result<String> {
    let cp = ControlPlane::builder().crds(CRDS).audit(false).start().await?;
    let _gate = Gate::builder().without_leader_election().start(&cp).await?;
    let ns = cp.namespace("cancel").await?;
    let scope = Scope::Namespaces(vec![ns.name().to_owned()]);
    let _agents = Agents::start(cp.client(), &scope).await;
    let _standin = Standin::start(client(cp.config())?, Options::new(scope, "http://127.0.0.1:1")).await?;
    run(&ns).await?;
    let (seen, mut arrivals) = mpsc::unbounded_channel();
    let mut watches = JoinSet::new();
    watches.spawn(watch(ns.api::<Task>(), of_task, seen.clone()));
    watches.spawn(watch(ns.api::<Job>(), of_job, seen));
    let tasks = &ns.api::<Task>();
    let annotation = &Patch::Merge(json!({"metadata": {"annotations": {"taskgate.dev/cancel": "bench"}}}));
    let cancelled = (0..TASKS).map(|index| async move {
        let (name, sent) = (format!("bench-{index}"), Instant::now());
        tasks.patch(&name, &PatchParams::default(), annotation).await?;
        anyhow::Ok((name, sent))
    });
    let sent: HashMap<_, _> = try_join_all(cancelled).await?.into_iter().collect();
    let mut took: HashMap<Milestone, HashMap<String, Duration>> = HashMap::new();
    while MILESTONES
        .iter()
        .any(|(of, _)| took.get(of).map_or(0, HashMap::len) < TASKS)
    {
        let (name, milestone, at) = timeout(DEADLINE, arrivals.recv()).await?.context("the watches ended")?;
        if let Some(sent) = sent.get(&name) {
            let after = at.saturating_duration_since(*sent);
            took.entry(milestone).or_default().entry(name).or_insert(after);
        }
    }
    let mut text = format!(
        "{TASKS} running Tasks cancelled at once, with the stand-in for Kelos.\n
| From the annotation until | p50 | p99 |\n|---|---|---|\n"
    );
    for (milestone, what) in MILESTONES {
        let took = Sample::of_times(took.remove(&milestone).unwrap_or_default().into_values());
        let (p50, p99) = (took.median() / 1000.0, took.percentile(99) / 1000.0);
        writeln!(text, "| {what} | {p50:.1} s | {p99:.1} s |")?;
    }
    Ok(text)
}

/// Creates the Tasks, and waits until all their agents run.
async fn run(ns: &Namespace) -> anyhow::Result<()> {
    let tasks: Api<Task> = ns.api();
    let created = stream::iter(0..TASKS).map(|index| {
        let tasks = &tasks;
        async move {
            let task = serde_json::from_value(task(&format!("bench-{index}")))?;
            anyhow::Ok(tasks.create(&PostParams::default(), &task).await?)
        }
    });
    created.buffer_unordered(REQUESTS).try_collect::<Vec<_>>().await?;
    eventually("all agents run", DEADLINE, || async {
        let running = tasks.list(&ListParams::default()).await?;
        let running = running.iter().filter(|task| task.phase() == "Running").count();
        ensure!(running == TASKS, "{running} of {TASKS}");
        Ok(())
    })
    .await
}

/// Reports the milestones of objects as they are seen.
async fn watch<K>(api: Api<K>, milestones: impl Fn(&K) -> Vec<Milestone>, seen: Arrivals)
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(event) = events.next().await {
        let (Ok(object), now) = (event, Instant::now()) else {
            continue;
        };
        for milestone in milestones(&object) {
            // Fails only at the end.
            let _ = seen.send((object.name_any(), milestone, now));
        }
    }
}

fn of_task(task: &Task) -> Vec<Milestone> {
    let state = task.annotations().get("taskgate.dev/cancel-state").map(String::as_str);
    let failed = (task.phase() == "Failed").then_some(Milestone::TaskFailed);
    failed
        .into_iter()
        .chain((state == Some("Cancelled")).then_some(Milestone::TaskCancelled))
        .collect()
}

fn of_job(job: &Job) -> Vec<Milestone> {
    let conditions = job
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten();
    let milestone = |condition: &JobCondition| match condition.type_.as_str() {
        "FailureTarget" => Some(Milestone::JobFailing),
        "Failed" => Some(Milestone::JobFailed),
        _ => None,
    };
    conditions.filter_map(milestone).collect()
}
