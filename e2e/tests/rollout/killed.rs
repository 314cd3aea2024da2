//! A replica that is killed under load, with failure policy Ignore: Tasks that were created without admission are repaired.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use kelos_standin::types::Task;
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{Gate, GateBuilder, PATIENCE, eventually, is_soak};
use tokio::task::AbortHandle;

use crate::load::{Calls, GOVERNED, Load, Tally};
use crate::support::ReplicaFixture;

/// How long an unadmitted Task may stay unrepaired once the killed replica is back.
const REPAIRED_WITHIN: Duration = Duration::from_secs(2);
/// How long the kubelet takes to start a container again that ended for the first time.
const RESTART_AFTER: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_the_calls_in_flight_and_unadmitted_tasks_are_repaired() -> anyhow::Result<()> {
    // As in a pod, a replica that is started again keeps its name.
    let number = Cell::new(0);
    let named = |gate: GateBuilder| gate.serve_flag(format!("--identity=replica-{}", number.replace(number.get() + 1)));
    let fixture = ReplicaFixture::start(named).await?;
    fixture
        .govern(&json!({"metadata": {"labels": {GOVERNED.0: GOVERNED.1}}, "failurePolicy": {"maxRetriesPerItem": 3}}))
        .await?;
    for leads in [false, true] {
        let victim = leader(&fixture.gates, leads).await?;
        let before = Calls::read(&fixture.cp).await?;
        let repairs = Repairs::watch(fixture.ns.tasks());
        let load = Load::start(&fixture.ns, true);
        load.goes_on().await?;
        let at_risk = load.in_flight();
        fixture.gates[victim].process().kill().await?;
        let at_risk = at_risk.max(load.in_flight());
        // As the kubelet does: nothing is awaited.
        tokio::time::sleep(RESTART_AFTER).await;
        fixture.gates[victim].process().start().await?;
        let back = Instant::now();
        load.goes_on().await?;
        let tally = load.stop().await?;
        let after = Calls::read(&fixture.cp).await?;
        let opened = after.opened - before.opened;
        let slowest = repairs.slowest(&tally, back).await?;
        eprintln!(
            "leader killed: {leads}. {} creates, {at_risk} in flight at the kill: {opened} calls failed, {} creates without \
             admission, the last one repaired {slowest:?} after it was back",
            tally.sent,
            tally.unadmitted.len(),
        );
        ensure!(tally.failed.is_empty(), "{:?}", tally.failed);
        // Each create is sent to two webhooks of ours.
        let allowed = f64::from(u32::try_from(at_risk * 2)?);
        ensure!(
            opened <= allowed,
            "{opened} calls failed, {at_risk} creates were in flight"
        );
        if is_soak() {
            ensure!(slowest < REPAIRED_WITHIN, "repaired after {slowest:?}");
        }
        fixture.both_are_ready().await?;
        fixture
            .ns
            .kubectl(["delete", "tasks.kelos.dev", "--all"])
            .await?
            .stdout_ok()?;
    }
    all_killed_and_one_back(&fixture, true).await?;
    if is_soak() {
        for gate in &fixture.gates {
            if !gate.process().is_running() {
                gate.process().start().await?;
            }
        }
        fixture.both_are_ready().await?;
        all_killed_and_one_back(&fixture, false).await?;
    }
    Ok(())
}

/// No replica runs; then one does: the one that led, which leads at once, or the other, which leads when the Lease is over.
async fn all_killed_and_one_back(fixture: &ReplicaFixture, led: bool) -> anyhow::Result<()> {
    let repairs = Repairs::watch(fixture.ns.tasks());
    let first = leader(&fixture.gates, led).await?;
    for gate in &fixture.gates {
        gate.process().kill().await?;
    }
    let load = Load::start(&fixture.ns, true);
    load.goes_on().await?;
    let tally = load.stop().await?;
    ensure!(tally.failed.is_empty(), "{:?}", tally.failed);
    let unadmitted = tally.unadmitted.len();
    ensure!(
        unadmitted == tally.sent,
        "{unadmitted} of {} without admission",
        tally.sent
    );
    fixture.gates[first].process().start().await?;
    let (ready, leads) = (Instant::now(), leader(&fixture.gates[first..=first], true));
    let (leads, repaired) = tokio::try_join!(async { leads.await.map(|_| Instant::now()) }, repairs.all(&tally))?;
    let last = repaired
        .into_iter()
        .map(|(_, repaired)| repaired)
        .max()
        .context("no create without admission")?;
    eprintln!(
        "all killed, the old leader is back: {led}. {unadmitted} creates without admission, the last one repaired {:?} after one was ready, \
         {:?} after it led",
        last.saturating_duration_since(ready),
        last.saturating_duration_since(leads),
    );
    Ok(())
}

/// When each Task was first seen with its WorkItem.
struct Repairs {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    following: AbortHandle,
}

impl Repairs {
    fn watch(tasks: Api<Task>) -> Self {
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let noted = seen.clone();
        let following = tokio::spawn(async move {
            let mut events = watcher(tasks, watcher::Config::default())
                .default_backoff()
                .applied_objects()
                .boxed();
            while let Some(event) = events.next().await {
                if let Ok(task) = event
                    && task.labels().contains_key(keys::WORK_ITEM)
                {
                    let mut noted = noted.lock().expect("nothing panics with it");
                    noted.entry(task.name_any()).or_insert_with(Instant::now);
                }
            }
        });
        Self {
            seen,
            following: following.abort_handle(),
        }
    }

    /// Waits until every unadmitted Task is repaired; when each was answered, and when it was repaired.
    async fn all(self, tally: &Tally) -> anyhow::Result<Vec<(Instant, Instant)>> {
        let all = eventually("all are repaired", PATIENCE, || async {
            let seen = self.seen.lock().expect("nothing panics with it");
            let unadmitted = tally.unadmitted.iter();
            unadmitted
                .map(|(name, answered)| Ok((*answered, *seen.get(name).with_context(|| name.clone())?)))
                .collect()
        })
        .await;
        self.following.abort();
        all
    }

    /// Waits for them; how long after its answer, and after a replica was `back`, the last one was.
    async fn slowest(self, tally: &Tally, back: Instant) -> anyhow::Result<Duration> {
        let all = self.all(tally).await?.into_iter();
        let took = all.map(|(answered, repaired)| repaired.saturating_duration_since(answered.max(back)));
        Ok(took.max().unwrap_or_default())
    }
}

/// Which of `gates` leads, or does not.
async fn leader(gates: &[Gate], leads: bool) -> anyhow::Result<usize> {
    eventually("one of them leads", PATIENCE, || async {
        let mut found = None;
        let mut leaders = 0;
        for (index, gate) in gates.iter().enumerate() {
            let is_leader = gate.metrics().await?.sum("taskgate_leader") > 0.0;
            leaders += u32::from(is_leader);
            if is_leader == leads {
                found = Some(index);
            }
        }
        ensure!(leaders == 1, "{leaders} lead");
        found.context("none")
    })
    .await
}
