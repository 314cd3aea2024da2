//! A replica that is killed without a word, under load that is let pass (Ignore): what slipped through is found and mended.

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
use taskgate_e2e::{PATIENCE, eventually, is_soak};
use tokio::task::AbortHandle;

use crate::load::{Load, Tally};
use crate::world::World;

/// How long what slipped through may stay as it is while somebody leads.
const MENDED_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_costs_the_calls_in_flight_and_what_slipped_is_mended() -> anyhow::Result<()> {
    let world = World::start(|gate| gate).await?;
    world.account().await?;
    // One that leads, and one that does not: the leader's work waits until its Lease is over.
    for leads in [false, true] {
        let victim = leader_or_not(&world, leads).await?;
        let before = world.calls().await?;
        let mending = Mending::follow(world.ns.api());
        let load = Load::start(&world.ns, true);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let at_risk = load.in_flight();
        world.gates[victim].process().kill().await?;
        let at_risk = at_risk.max(load.in_flight());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let tally = load.stop().await?;
        let after = world.calls().await?;
        let opened = after.opened - before.opened;
        let slowest = mending.slowest(&tally).await?;
        eprintln!(
            "leader killed: {leads}. {} creates, {at_risk} in flight at the kill: {opened} calls failed, {} creates slipped \
             through, the last one mended after {slowest:?}",
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
        if !leads && is_soak() {
            ensure!(slowest < MENDED_WITHIN, "mended after {slowest:?}");
        }
        world.gates[victim].process().start().await?;
        world.both_are_ready().await?;
        world
            .ns
            .kubectl(["delete", "tasks.kelos.dev", "--all"])
            .await?
            .stdout_ok()?;
    }
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

    /// Waits until every Task that slipped through is accounted for; how long after its answer the last one was.
    async fn slowest(self, tally: &Tally) -> anyhow::Result<Duration> {
        let slowest = eventually("all are mended", PATIENCE, || async {
            let seen = self.seen.lock().expect("nobody panics with it");
            let mut slowest = Duration::ZERO;
            for (name, answered) in &tally.slipped {
                let mended = seen.get(name).with_context(|| name.clone())?;
                slowest = slowest.max(mended.saturating_duration_since(*answered));
            }
            Ok(slowest)
        })
        .await;
        self.following.abort();
        slowest
    }
}

async fn leader_or_not(world: &World, leads: bool) -> anyhow::Result<usize> {
    eventually("somebody leads", PATIENCE, || async {
        let mut found = None;
        let mut leaders = 0;
        for (index, gate) in world.gates.iter().enumerate() {
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
