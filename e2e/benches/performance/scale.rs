//! How long a replica takes to be ready with very many `WorkItem`s of three failures each, with which requests, and how much memory
//! it needs, beside an informer of client-go.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::ByteString;
use kelos_standin::CRDS;
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use taskgate_api::WorkItem;
use taskgate_e2e::{ControlPlane, Gate, Process, TASKGATE, eventually, taskgate};

use crate::{Size, statistics::Sample, twin};

/// In how many namespaces they are.
const NAMESPACES: usize = 20;
/// One of them, as it is stored.
const WORK_ITEM: &str = include_str!("work_item.json");
/// How many are written in one transaction; etcd takes 128.
const PUTS: usize = 100;
/// How many transactions are under way at the same time.
const TRANSACTIONS: usize = 8;
/// Longer than all of it takes.
const DEADLINE: Duration = Duration::from_mins(30);
/// Until what the start of a process needed is given back.
const IDLE: Duration = Duration::from_secs(10);

/// Measures both replicas and the informer.
pub(crate) async fn measure(size: Size) -> anyhow::Result<String> {
    let count = size.work_items;
    let cp = ControlPlane::builder().crds(CRDS).start().await?;
    cp.install_crds(&taskgate(["manifests", "crds"]).await?).await?;
    // Without a limit the leader would close the breakers.
    let limit = json!({
        "apiVersion": TASKGATE, "kind": "ClusterTaskPolicy", "metadata": {"name": "bench"},
        "spec": {"failurePolicy": {"maxRetriesPerItem": 3}},
    });
    cp.apply_yaml(&limit.to_string()).await?;
    fill(&cp, count).await?;
    let informer = cp.spawn(twin::command(&cp, "informer").await?).await?;
    let leader = Gate::builder()
        .named("leader")
        .ready_within(DEADLINE)
        .start(&cp)
        .await?;
    let follower = Gate::builder()
        .named("follower")
        .ready_within(DEADLINE)
        .start(&cp)
        .await?;
    let mut synced = Vec::new();
    let mut ready = Vec::new();
    let mut requests = String::new();
    for _ in 0..size.rounds {
        informer.terminate().await?;
        synced.push(time_to_sync(&informer).await?);
        follower.process().terminate().await?;
        let mark = cp.audit().mark()?;
        ready.push(time_to_ready(&follower).await?);
        requests = requests_of(&cp.audit().since(mark).await?);
    }
    wait_for_leader(&leader, count).await?;
    tokio::time::sleep(IDLE).await;
    let (synced, ready) = (Sample::of_times(synced), Sample::of_times(ready));
    let ratio = ready.median() / synced.median();
    let mut text = format!(
        "{count} WorkItems of three failures each in {NAMESPACES} namespaces; times are medians of {} starts, in turns.\n
| What | Figure |\n|---|---|
| start of taskgate until it is ready | {:.2} s |
| start of a client-go informer (typed, streaming) of the WorkItems until it is synced | {:.2} s |
| ratio | {ratio:.2} |
",
        size.rounds,
        ready.median() / 1000.0,
        synced.median() / 1000.0
    );
    for (name, process) in [
        ("leader", leader.process()),
        ("follower", follower.process()),
        ("informer", &informer),
    ] {
        writeln!(text, "| memory of the {name} | {} |", memory(process)?)?;
    }
    writeln!(text, "\nRequests of one start:\n\n{requests}")?;
    Ok(text)
}

/// How long the informer takes from its start until it prints that it is synced.
async fn time_to_sync(informer: &Process) -> anyhow::Result<Duration> {
    let printed = |process: &Process| anyhow::Ok(process.log()?.lines().count());
    let before = printed(informer)?;
    let began = Instant::now();
    informer.start().await?;
    while printed(informer)? == before {
        ensure!(
            informer.is_running() && began.elapsed() < DEADLINE,
            "{}",
            informer.log_tail(5)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(began.elapsed())
}

/// How long taskgate takes from its start until it is ready.
async fn time_to_ready(gate: &Gate) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let polled = async {
        while gate.admin("/readyz").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    };
    let (started, ready) = tokio::join!(gate.process().start(), polled);
    started?;
    Ok(ready)
}

/// Waits until the controller of the leader has read all of them.
async fn wait_for_leader(leader: &Gate, count: usize) -> anyhow::Result<()> {
    eventually("the controller has read all WorkItems", DEADLINE, || async {
        let open = leader.metrics().await?.sum("taskgate_open_items");
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let all = count as f64;
        ensure!(open >= all, "{open}");
        Ok(())
    })
    .await
}

/// How often each program asked for what.
fn requests_of(events: &[taskgate_e2e::AuditEvent]) -> String {
    let mut counts = BTreeMap::new();
    for event in events.iter().filter(|event| !event.object_ref.resource.is_empty()) {
        let agent = event.user_agent.split([' ', '/']).next().unwrap_or_default();
        *counts
            .entry((agent, &event.verb, &event.object_ref.resource))
            .or_insert(0) += 1;
    }
    let mut rows = vec!["| User agent | Verb | Resource | Requests |\n|---|---|---|---|".to_owned()];
    for ((agent, verb, resource), count) in counts {
        rows.push(format!("| {agent} | {verb} | {resource} | {count} |"));
    }
    rows.join("\n")
}

/// What Linux counts: resident, the part that is not backed by files, and the most that was resident.
pub(crate) fn memory(process: &Process) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let mebibytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes.div_ceil(1024))
            .with_context(|| format!("no {field}"))
    };
    let (now, own, peak) = (mebibytes("VmRSS:")?, mebibytes("RssAnon:")?, mebibytes("VmHWM:")?);
    Ok(format!(
        "{now} MiB resident, {own} MiB of it anonymous; at most {peak} MiB"
    ))
}

/// Stores that many WorkItems where the API server keeps them: through it, 100,000 would take the better part of an hour.
async fn fill(cp: &ControlPlane, count: usize) -> anyhow::Result<()> {
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cp.namespace("bench").await?);
    }
    let etcd = Client::try_from(kube::Config::new(cp.etcd_url().parse()?))?;
    let text = serde_json::from_str::<Value>(WORK_ITEM)?.to_string();
    let put = |index: usize| {
        let (namespace, number) = (namespaces[index % NAMESPACES].name(), index.to_string());
        let value = text
            .replace("$UID", &format!("00000000-0000-4000-8000-{index:012}"))
            .replace("$NAMESPACE", namespace)
            .replace("$INDEX", &number);
        let key = format!("/registry/taskgate.dev/workitems/{namespace}/fixer-{number}-e13156ca85");
        json!({"requestPut": {"key": ByteString(key.into_bytes()), "value": ByteString(value.into_bytes())}})
    };
    let transactions = stream::iter((0..count).step_by(PUTS)).map(|first| {
        let puts: Vec<_> = (first..count.min(first + PUTS)).map(put).collect();
        let (etcd, body) = (&etcd, json!({"success": puts}).to_string().into_bytes());
        async move {
            let answer: Value = etcd.request(http::Request::post("/v3/kv/txn").body(body)?).await?;
            ensure!(answer["succeeded"] == true, "{answer}");
            anyhow::Ok(())
        }
    });
    transactions
        .buffer_unordered(TRANSACTIONS)
        .try_collect::<Vec<_>>()
        .await?;
    // So that its caches are filled by a list, and not by that many events.
    cp.apiserver().restart().await?;
    eventually("the API server has read them all", DEADLINE, || async {
        let one = ListParams::default().limit(1);
        Ok(Api::<WorkItem>::all(cp.client()).list(&one).await?)
    })
    .await?;
    Ok(())
}
