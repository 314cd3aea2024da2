//! A replica that is killed without a word, under load that is let pass (Ignore): what slipped through is found and mended.

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
use taskgate_api::keys;
use taskgate_e2e::{Gate, GateBuilder, PATIENCE, eventually, is_soak};
use tokio::task::AbortHandle;

use crate::load::{Load, Tally};
use crate::world::World;

/// How long what slipped through may stay as it is once the killed one is back.
const MENDED_WITHIN: Duration = Duration::from_secs(2);
/// How long the kubelet takes to start a container again that ended for the first time.
const AWAY: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_the_calls_in_flight_and_what_slipped_is_mended() -> anyhow::Result<()> {
    // As in a pod, who is started again has the name that it had.
    let number = Cell::new(0);
    let named = |gate: GateBuilder| gate.serve_flag(format!("--identity=replica-{}", number.replace(number.get() + 1)));
    let world = World::start(named).await?;
    world.account().await?;
    for leads in [false, true] {
        let victim = leader(&world.gates, leads).await?;
        let before = world.calls().await?;
        let mending = Mending::follow(world.ns.api());
        let load = Load::start(&world.ns, true);
        load.goes_on().await?;
        let at_risk = load.in_flight();
        world.gates[victim].process().kill().await?;
        let at_risk = at_risk.max(load.in_flight());
        // The kubelet's pace: nothing is waited for.
        tokio::time::sleep(AWAY).await;
        world.gates[victim].process().start().await?;
        let back = Instant::now();
        load.goes_on().await?;
        let tally = load.stop().await?;
        let after = world.calls().await?;
        let opened = after.opened - before.opened;
        let slowest = mending.slowest(&tally, back).await?;
        eprintln!(
            "leader killed: {leads}. {} creates, {at_risk} in flight at the kill: {opened} calls failed, {} creates slipped \
             through, the last one mended {slowest:?} after it was back",
            tally.sent,
            tally.slipped.len(),
        );
        ensure!(tally.failed.is_empty(), "{:?}", tally.failed);
        // Each create is sent to two webhooks of ours.
        let allowed = f64::from(u32::try_from(at_risk * 2)?);
        ensure!(
            opened <= allowed,
            "{opened} calls failed, {at_risk} creates were in flight"
        );
        if is_soak() {
            ensure!(slowest < MENDED_WITHIN, "mended after {slowest:?}");
        }
        world.both_are_ready().await?;
        world
            .ns
            .kubectl(["delete", "tasks.kelos.dev", "--all"])
            .await?
            .stdout_ok()?;
    }
    all_away_and_one_back(&world, true).await?;
    if is_soak() {
        for gate in &world.gates {
            if !gate.process().is_running() {
                gate.process().start().await?;
            }
        }
        world.both_are_ready().await?;
        all_away_and_one_back(&world, false).await?;
    }
    Ok(())
}

/// Nobody is there to answer; then one is: who led, and leads at once, or another, who leads when that one's Lease is over.
async fn all_away_and_one_back(world: &World, led: bool) -> anyhow::Result<()> {
    let mending = Mending::follow(world.ns.api());
    let first = leader(&world.gates, led).await?;
    for gate in &world.gates {
        gate.process().kill().await?;
    }
    let load = Load::start(&world.ns, true);
    load.goes_on().await?;
    let tally = load.stop().await?;
    ensure!(tally.failed.is_empty(), "{:?}", tally.failed);
    let slipped = tally.slipped.len();
    ensure!(slipped == tally.sent, "{slipped} of {} slipped through", tally.sent);
    world.gates[first].process().start().await?;
    let (ready, leads) = (Instant::now(), leader(&world.gates[first..=first], true));
    let (leads, mended) = tokio::try_join!(async { leads.await.map(|_| Instant::now()) }, mending.all(&tally))?;
    let last = mended
        .into_iter()
        .map(|(_, mended)| mended)
        .max()
        .context("something slipped through")?;
    eprintln!(
        "all killed, back is who led: {led}. {slipped} creates slipped through, the last one mended {:?} after one was ready again, {:?} after it led",
        last.saturating_duration_since(ready),
        last.saturating_duration_since(leads),
    );
    Ok(())
}

/// When each Task was first seen accounted for.
struct Mending {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    following: AbortHandle,
}

impl Mending {
    fn follow(tasks: Api<Task>) -> Self {
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
                    let mut noted = noted.lock().expect("nobody panics with it");
                    noted.entry(task.name_any()).or_insert_with(Instant::now);
                }
            }
        });
        Self {
            seen,
            following: following.abort_handle(),
        }
    }

    /// Waits until every Task that slipped through is accounted for; when each was answered, and when it was mended.
    async fn all(self, tally: &Tally) -> anyhow::Result<Vec<(Instant, Instant)>> {
        let all = eventually("all are mended", PATIENCE, || async {
            let seen = self.seen.lock().expect("nobody panics with it");
            let slipped = tally.slipped.iter();
            slipped
                .map(|(name, answered)| Ok((*answered, *seen.get(name).with_context(|| name.clone())?)))
                .collect()
        })
        .await;
        self.following.abort();
        all
    }

    /// Waits for them; how long after its answer, and after somebody was `back`, the last one was.
    async fn slowest(self, tally: &Tally, back: Instant) -> anyhow::Result<Duration> {
        let all = self.all(tally).await?.into_iter();
        let took = all.map(|(answered, mended)| mended.saturating_duration_since(answered.max(back)));
        Ok(took.max().unwrap_or_default())
    }
}

/// Which of `gates` leads, or does not.
async fn leader(gates: &[Gate], leads: bool) -> anyhow::Result<usize> {
    eventually("somebody leads", PATIENCE, || async {
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
        found.context("nobody")
    })
    .await
}
