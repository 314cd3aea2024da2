//! The life of one item: its spawner makes a Task whenever there is none, Kelos ends it, people delete it now and then. What
//! its `WorkItem` has to say in the end is written down beside.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use kelos_standin::types::Task;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use rand::{Rng as _, rngs::StdRng};
use serde_json::json;
use taskgate_api::{
    WorkItem, keys,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::eventually;
use tokio::{sync::watch, time::timeout};

use crate::world::{STUCK, Seen, Spawner, World, answered, is_known};

/// How many attempts a `WorkItem` remembers.
const HISTORY: usize = 50;

/// What became of one Task.
#[derive(Clone, Debug, PartialEq)]
struct End {
    uid: String,
    outcome: Outcome,
}

/// One item, and what is true of it.
pub(crate) struct Item<'a> {
    world: &'a World,
    seen: watch::Receiver<Seen>,
    spawner: Spawner,
    number: usize,
    rng: StdRng,
    /// The Task that was made last.
    last: String,
    ends: Vec<End>,
    /// In micro-dollars. The n-th attempt costs 2^n, so that a sum tells which attempts are in it, and how often.
    cost: u128,
    pub(crate) failures: u32,
    /// Failures since the last success or reset.
    in_a_row: u32,
    /// Tasks that admission did not see.
    pub(crate) slipped: u32,
    is_open: bool,
}

impl<'a> Item<'a> {
    pub(crate) fn new(
        world: &'a World,
        seen: watch::Receiver<Seen>,
        spawner: Spawner,
        number: usize,
        rng: StdRng,
    ) -> Self {
        Self {
            world,
            seen,
            spawner,
            number,
            rng,
            last: String::new(),
            ends: Vec::new(),
            cost: 0,
            failures: 0,
            in_a_row: 0,
            slipped: 0,
            is_open: false,
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.spawner.name, self.number)
    }

    /// Lives until so many Tasks failed. Tells `ended` of each.
    pub(crate) async fn live(&mut self, failures: u32, ended: &watch::Sender<u32>) -> anyhow::Result<()> {
        while self.failures < failures {
            self.create().await?;
            match self.rng.random_range(0..100) {
                0..8 => self.delete_while_it_runs().await?,
                8..20 => {
                    self.end(Outcome::Succeeded).await?;
                    self.in_a_row = 0;
                    self.gone().await?;
                }
                _ => {
                    let failed = self.fail().await?;
                    ended.send_modify(|count| *count += 1);
                    // As a human, at once; but not what taskgate has marked: that it may have let go of.
                    let is_unmarked = !failed.annotations().contains_key(keys::RECORDED);
                    let may_reset = is_unmarked && is_known(&failed) && !kelos_may_delete(&failed);
                    if may_reset && self.rng.random_bool(0.1) && self.delete_as_it_was(&failed).await? {
                        self.forget();
                    }
                    self.settles().await?;
                    if self.is_open && self.failures < failures {
                        self.reset(&failed).await?;
                        self.gone().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// As the spawner: a Task for the item, where there is none. It is never denied: a spawner whose create is denied backs
    /// off for all its items.
    pub(crate) async fn create(&mut self) -> anyhow::Result<()> {
        let (tasks, task) = (self.world.tasks(), self.world.task(self.spawner, self.number)?);
        let params = PostParams::default();
        let made = answered("creating a Task", async || tasks.create(&params, &task).await).await?;
        let made = match made {
            Ok(made) => made,
            // The answer to the create was lost.
            Err(_) => tasks.get(&self.name()).await?,
        };
        let uid = made.uid().unwrap_or_default();
        ensure!(uid != self.last, "{} was there already", self.name());
        self.last = uid;
        self.slipped += u32::from(!is_known(&made));
        Ok(())
    }

    /// As Kelos: the end of the Task. Returns the Task as it was left.
    async fn end(&mut self, outcome: Outcome) -> anyhow::Result<Task> {
        let cost = 1 << self.ends.len();
        let phase = if outcome == Outcome::Succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
        let now = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
        let patch = json!({
            "metadata": {"uid": self.last},
            "status": {
                "phase": phase, "startTime": now, "completionTime": now,
                "usage": {"costUSD": format!("{}.{:06}", cost / 1_000_000, cost % 1_000_000)},
            },
        });
        let (tasks, name, patch) = (self.world.tasks(), self.name(), Patch::Merge(&patch));
        let params = PatchParams::default();
        let what = "ending a Task";
        let ended = answered(what, async || tasks.patch_status(&name, &params, &patch).await).await?;
        self.cost += cost;
        self.note(outcome);
        // Kelos' finalizer keeps it.
        ended.map_err(|code| anyhow::anyhow!("{what} {name}: {code}"))
    }

    /// As Kelos: the Task fails. Returns it as it was left.
    pub(crate) async fn fail(&mut self) -> anyhow::Result<Task> {
        let failed = self.end(Outcome::Failed).await?;
        self.failures += 1;
        self.in_a_row += 1;
        self.is_open = self.in_a_row == self.spawner.limit;
        Ok(failed)
    }

    /// Below the limit taskgate deletes the Task, at the limit it keeps it.
    pub(crate) async fn settles(&mut self) -> anyhow::Result<()> {
        if self.is_open {
            self.stays().await
        } else {
            self.gone().await
        }
    }

    /// As a human: the Task goes while it runs. A Task that nobody has seen yet would go without a trace.
    async fn delete_while_it_runs(&mut self) -> anyhow::Result<()> {
        self.until("is known to taskgate", |task| task.is_some_and(is_known))
            .await?;
        self.delete().await?;
        self.note(Outcome::Deleted);
        self.gone().await
    }

    async fn delete(&self) -> anyhow::Result<()> {
        let (tasks, name) = (self.world.tasks(), self.name());
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(self.last.clone()),
            resource_version: None,
        });
        let deleted = answered("deleting a Task", async || tasks.delete(&name, &params).await).await?;
        ensure!(deleted.is_ok(), "deleting {name}: {deleted:?}");
        Ok(())
    }

    /// Deletes `task` if nothing has changed about it; whether it did.
    async fn delete_as_it_was(&self, task: &Task) -> anyhow::Result<bool> {
        let (tasks, name) = (self.world.tasks(), self.name());
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: task.uid(),
            resource_version: task.resource_version(),
        });
        if answered("deleting a Task", async || tasks.delete(&name, &params).await)
            .await?
            .is_ok()
        {
            return Ok(true);
        }
        // Either taskgate was faster, or the answer to a first try was lost. taskgate marks a failed Task before it deletes it.
        let now = answered("reading a Task", async || tasks.get(&name).await).await?;
        Ok(now.is_ok_and(|now| {
            now.metadata.deletion_timestamp.is_some() && !now.annotations().contains_key(keys::RECORDED)
        }))
    }

    /// As a human: the item is to be tried again. Deleting its tombstone does it, unless Kelos may have done that itself.
    async fn reset(&mut self, tombstone: &Task) -> anyhow::Result<()> {
        if kelos_may_delete(tombstone) {
            let client = self.world.cp.client_as_taskgate();
            let items = kube::Api::<WorkItem>::namespaced(client, self.world.ns.name());
            let item = eventually("the memory is read", STUCK, || {
                self.world.memory(self.spawner, self.number)
            })
            .await?
            .name_any();
            let patch = Patch::Merge(json!({"status": {"consecutiveFailures": 0, "breaker": "Closed"}}));
            let params = PatchParams::default();
            let written = answered("resetting", async || items.patch_status(&item, &params, &patch).await).await?;
            ensure!(written.is_ok(), "resetting {item}: {written:?}");
        } else {
            self.delete().await?;
        }
        self.forget();
        Ok(())
    }

    /// The failures are forgotten.
    fn forget(&mut self) {
        self.in_a_row = 0;
        self.is_open = false;
    }

    fn note(&mut self, outcome: Outcome) {
        let uid = self.last.clone();
        self.ends.push(End { uid, outcome });
    }

    /// The Task becomes the tombstone.
    async fn stays(&mut self) -> anyhow::Result<()> {
        let recorded = |task: &Task| task.annotations().contains_key(keys::RECORDED);
        self.until("becomes the tombstone", |task| task.is_none_or(recorded))
            .await?;
        let moment = Duration::from_millis(self.rng.random_range(200..1_500));
        let held = |task: Option<&Task>| task.is_some_and(|task| task.metadata.deletion_timestamp.is_none());
        if timeout(moment, self.until("is deleted", |task| !held(task)))
            .await
            .is_ok()
        {
            bail!(
                "{} failed {} times in a row and is deleted by somebody",
                self.name(),
                self.in_a_row
            );
        }
        Ok(())
    }

    /// The Task is deleted, by whomever, and goes: nothing holds it.
    async fn gone(&mut self) -> anyhow::Result<()> {
        let (tasks, name, uid) = (self.world.tasks(), self.name(), self.last.clone());
        let is_left = |task: &Task| task.metadata.deletion_timestamp.is_some() || is_kelos_turn(task);
        self.until("is deleted", |task| task.is_none_or(is_left)).await?;
        // As Kelos: lets go of what is being deleted, and deletes what succeeded when its TTL has come. That taskgate has
        // seen its end is asked for because a success that goes unseen is nobody's fault.
        let now = answered("reading a Task", async || tasks.get(&name).await).await?;
        if let Ok(now) = now.as_ref()
            && is_kelos_turn(now)
            && now.metadata.deletion_timestamp.is_none()
        {
            self.delete().await?;
        }
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/metadata/finalizers/0", "value": "kelos.dev/finalizer"},
            {"op": "remove", "path": "/metadata/finalizers/0"},
        ]);
        let patch: Patch<Task> = Patch::Json(serde_json::from_value(patch)?);
        let params = PatchParams::default();
        let _ = answered("letting go of a Task", async || {
            match tasks.patch(&name, &params, &patch).await {
                // A test that fails: it was let go before.
                Err(kube::Error::Api(status)) if status.code == 422 => Ok(()),
                other => other.map(drop),
            }
        })
        .await?;
        self.until("is gone", |task| task.is_none()).await
    }

    /// Waits until the Task that was made last meets `condition`; `None` when there is none any more.
    async fn until(&mut self, what: &str, condition: impl Fn(Option<&Task>) -> bool) -> anyhow::Result<()> {
        let (name, uid, began) = (self.name(), self.last.clone(), Instant::now());
        let own = |seen: &Seen| {
            let task = seen.tasks.get(&name).cloned();
            task.filter(|task| task.uid().as_deref() == Some(uid.as_str()))
        };
        let met = |seen: &Seen| seen.asked >= began && condition(own(seen).as_ref());
        let in_time = timeout(STUCK, async { self.seen.wait_for(met).await.map(drop) }).await;
        match in_time {
            Ok(seen) => Ok(seen?),
            Err(_) => bail!("stuck: {name} {what}: {:#?}", own(&self.seen.borrow())),
        }
    }

    /// Compares the memory of the item with what is true of it.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let item = self.world.memory(self.spawner, self.number).await?;
        let status = item.status.unwrap_or_default();
        let total = status.total_cost_usd.as_deref().unwrap_or("0");
        let (whole, micro) = total.split_once('.').unwrap_or((total, "0"));
        let total = whole.parse::<u128>()? * 1_000_000 + format!("{micro:0<6}").parse::<u128>()?;
        let name = self.name();
        ensure!(
            total == self.cost,
            "{name}: attempts {:b} happened, {total:b} stand in the memory, as bits of their costs: {}",
            self.cost,
            serde_json::to_string(&status)?
        );
        let attempts = status.attempts.iter().map(|attempt| End {
            uid: attempt.uid.clone(),
            outcome: attempt.outcome,
        });
        let attempts: Vec<_> = attempts.collect();
        let ends = &self.ends[self.ends.len().saturating_sub(HISTORY)..];
        ensure!(
            attempts == ends,
            "{name}: happened: {ends:#?}\nin the memory: {attempts:#?}"
        );
        ensure!(
            status.consecutive_failures == self.in_a_row,
            "{name}: {} failures in a row, in the memory {}",
            self.in_a_row,
            status.consecutive_failures
        );
        let breaker = status.breaker.unwrap_or(Breaker::Closed);
        let expected = if self.is_open { Breaker::Open } else { Breaker::Closed };
        ensure!(breaker == expected, "{name}: {breaker:?}");
        let left = self.world.tasks().get_opt(&name).await?;
        let held = |task: &Task| {
            task.metadata.deletion_timestamp.is_none() && task.finalizers().iter().any(|one| one == keys::ACCOUNTING)
        };
        let as_it_should = left.as_ref().map_or(!self.is_open, |task| self.is_open && held(task));
        ensure!(as_it_should, "{name}: open: {}, its Task: {left:#?}", self.is_open);
        Ok(())
    }
}

/// Whether Kelos acts on the Task's TTL: admission did not see it.
fn kelos_may_delete(task: &Task) -> bool {
    task.spec.ttl_seconds.is_some()
}

/// Whether Kelos is to delete the Task. One that failed it leaves to taskgate, as if its TTL were longer.
fn is_kelos_turn(task: &Task) -> bool {
    task.phase() == "Succeeded" && kelos_may_delete(task) && task.annotations().contains_key(keys::RECORDED)
}
