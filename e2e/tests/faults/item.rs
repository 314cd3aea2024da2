//! The life of one item: its spawner creates a Task whenever there is none, Kelos ends it, users delete it now and then. The
//! expected content of its `WorkItem` is kept beside.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kelos_standin::types::Task;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use rand::{Rng as _, rngs::StdRng};
use serde_json::json;
use taskgate_api::{
    WorkItem, keys,
    work_item::{Breaker, Outcome},
};
use taskgate_e2e::eventually;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::support::{FaultFixture, STUCK, Spawner, is_governed};

/// How many attempts a `WorkItem` keeps.
const HISTORY: usize = 50;
/// Between two tries, and between two reads.
const INTERVAL: Duration = Duration::from_millis(100);

/// How one Task ended.
#[derive(Clone, Debug, PartialEq)]
struct End {
    uid: String,
    outcome: Outcome,
}

/// One item, and its expected state.
pub(crate) struct Item<'a> {
    fixture: &'a FaultFixture,
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
    /// Tasks that were created without admission.
    pub(crate) unadmitted: u32,
    is_open: bool,
}

impl<'a> Item<'a> {
    pub(crate) fn new(
        fixture: &'a FaultFixture,
        seen: watch::Receiver<Seen>,
        spawner: Spawner,
        number: usize,
        rng: StdRng,
    ) -> Self {
        Self {
            fixture,
            seen,
            spawner,
            number,
            rng,
            last: String::new(),
            ends: Vec::new(),
            cost: 0,
            failures: 0,
            in_a_row: 0,
            unadmitted: 0,
            is_open: false,
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.spawner.name, self.number)
    }

    /// Runs until so many Tasks failed. Counts each in `ended`.
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
                    // As a user, at once; but not a Task that taskgate has marked, as it may have released that one.
                    let is_unmarked = !failed.annotations().contains_key(keys::RECORDED);
                    let may_reset = is_unmarked && is_governed(&failed) && !kelos_may_delete(&failed);
                    if may_reset && self.rng.random_bool(0.1) && self.delete_as_it_was(&failed).await? {
                        self.reset_count();
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
        let (tasks, task) = (self.fixture.ns.tasks(), self.fixture.task(self.spawner, self.number)?);
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
        self.unadmitted += u32::from(!is_governed(&made));
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
        let (tasks, name, patch) = (self.fixture.ns.tasks(), self.name(), Patch::Merge(&patch));
        let params = PatchParams::default();
        let what = "ending a Task";
        let ended = answered(what, async || tasks.patch_status(&name, &params, &patch).await).await?;
        self.cost += cost;
        self.record(outcome);
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

    /// Below the limit taskgate deletes the Task, at the limit it keeps the Task.
    pub(crate) async fn settles(&mut self) -> anyhow::Result<()> {
        if self.is_open {
            self.stays().await
        } else {
            self.gone().await
        }
    }

    /// As a user: the Task is deleted while it runs. A Task that taskgate has not seen yet would leave no trace.
    async fn delete_while_it_runs(&mut self) -> anyhow::Result<()> {
        self.until("is governed", |task| task.is_some_and(is_governed)).await?;
        self.delete().await?;
        self.record(Outcome::Deleted);
        self.gone().await
    }

    async fn delete(&self) -> anyhow::Result<()> {
        let (tasks, name) = (self.fixture.ns.tasks(), self.name());
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
        let (tasks, name) = (self.fixture.ns.tasks(), self.name());
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

    /// As a user: the item is to be tried again. Deleting its tombstone resets it, unless Kelos may have deleted it itself.
    async fn reset(&mut self, tombstone: &Task) -> anyhow::Result<()> {
        if kelos_may_delete(tombstone) {
            let client = self.fixture.cp.client_as_taskgate();
            let items = kube::Api::<WorkItem>::namespaced(client, self.fixture.ns.name());
            let item = eventually("the WorkItem is read", STUCK, || {
                self.fixture.work_item(self.spawner, self.number)
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
        self.reset_count();
        Ok(())
    }

    /// The count of failures starts anew.
    fn reset_count(&mut self) {
        self.in_a_row = 0;
        self.is_open = false;
    }

    fn record(&mut self, outcome: Outcome) {
        let uid = self.last.clone();
        self.ends.push(End { uid, outcome });
    }

    /// The Task becomes the tombstone.
    async fn stays(&mut self) -> anyhow::Result<()> {
        let recorded = |task: &Task| task.annotations().contains_key(keys::RECORDED);
        self.until("becomes the tombstone", |task| task.is_none_or(recorded))
            .await?;
        let moment = Duration::from_millis(self.rng.random_range(200..1_500));
        let is_kept = |task: Option<&Task>| task.is_some_and(|task| task.metadata.deletion_timestamp.is_none());
        if timeout(moment, self.until("is deleted", |task| !is_kept(task)))
            .await
            .is_ok()
        {
            bail!("{} failed {} times in a row and is deleted", self.name(), self.in_a_row);
        }
        Ok(())
    }

    /// The Task is deleted, and nothing keeps it.
    async fn gone(&mut self) -> anyhow::Result<()> {
        let (tasks, name, uid) = (self.fixture.ns.tasks(), self.name(), self.last.clone());
        let is_left = |task: &Task| task.metadata.deletion_timestamp.is_some() || is_kelos_turn(task);
        self.until("is deleted", |task| task.is_none_or(is_left)).await?;
        // As Kelos: removes its finalizer from Tasks that are being deleted, and deletes a succeeded Task after its TTL, once
        // taskgate has recorded it.
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
        let _ = answered("removing the finalizer of a Task", async || {
            match tasks.patch(&name, &params, &patch).await {
                // The test fails: the finalizer was removed before.
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

    /// Compares the WorkItem with the expected state.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let item = self.fixture.work_item(self.spawner, self.number).await?;
        let status = item.status.unwrap_or_default();
        let total = status.total_cost_usd.as_deref().unwrap_or("0");
        let (whole, micro) = total.split_once('.').unwrap_or((total, "0"));
        let total = whole.parse::<u128>()? * 1_000_000 + format!("{micro:0<6}").parse::<u128>()?;
        let name = self.name();
        ensure!(
            total == self.cost,
            "{name}: attempts {:b} happened, {total:b} are recorded, as bits of their costs: {}",
            self.cost,
            serde_json::to_string(&status)?
        );
        let attempts = status.attempts.iter().map(|attempt| End {
            uid: attempt.uid.clone(),
            outcome: attempt.outcome,
        });
        let attempts: Vec<_> = attempts.collect();
        let ends = &self.ends[self.ends.len().saturating_sub(HISTORY)..];
        ensure!(attempts == ends, "{name}: happened: {ends:#?}\nrecorded: {attempts:#?}");
        ensure!(
            status.consecutive_failures == self.in_a_row,
            "{name}: {} failures in a row, recorded {}",
            self.in_a_row,
            status.consecutive_failures
        );
        let breaker = status.breaker.unwrap_or(Breaker::Closed);
        let expected = if self.is_open { Breaker::Open } else { Breaker::Closed };
        ensure!(breaker == expected, "{name}: {breaker:?}");
        let left = self.fixture.ns.tasks().get_opt(&name).await?;
        let is_kept = |task: &Task| {
            task.metadata.deletion_timestamp.is_none() && task.finalizers().iter().any(|one| one == keys::ACCOUNTING)
        };
        let as_it_should = left
            .as_ref()
            .map_or(!self.is_open, |task| self.is_open && is_kept(task));
        ensure!(as_it_should, "{name}: open: {}, its Task: {left:#?}", self.is_open);
        Ok(())
    }
}

/// Whether Kelos acts on the Task's TTL: it was created without admission.
fn kelos_may_delete(task: &Task) -> bool {
    task.spec.ttl_seconds.is_some()
}

/// Whether Kelos is to delete the Task. It leaves a failed one to taskgate, as if its TTL were longer.
fn is_kelos_turn(task: &Task) -> bool {
    task.phase() == "Succeeded" && kelos_may_delete(task) && task.annotations().contains_key(keys::RECORDED)
}

/// All Tasks, as they were at some moment after `asked`.
#[derive(Debug)]
pub(crate) struct Seen {
    asked: Instant,
    tasks: HashMap<String, Task>,
}

impl Seen {
    /// Before the first read.
    pub(crate) fn nothing() -> watch::Sender<Self> {
        watch::Sender::new(Self {
            asked: Instant::now(),
            tasks: HashMap::new(),
        })
    }
}

/// Lists the Tasks again and again, for all items that wait for one of them.
pub(crate) async fn poll(tasks: Api<Task>, seen: &watch::Sender<Seen>) -> Infallible {
    loop {
        let asked = Instant::now();
        // While the API server is unavailable nothing is published.
        if let Ok(list) = tasks.list(&ListParams::default()).await {
            let tasks = list.items.into_iter().map(|task| (task.name_any(), task)).collect();
            seen.send_replace(Seen { asked, tasks });
        }
        sleep(INTERVAL).await;
    }
}

/// Repeats a request until the answer is certain: an API server that was killed may have carried it out or not.
async fn answered<T>(what: &str, mut request: impl AsyncFnMut() -> kube::Result<T>) -> anyhow::Result<Result<T, u16>> {
    let began = Instant::now();
    loop {
        let error = match request().await {
            Ok(done) => return Ok(Ok(done)),
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                ensure!(matches!(status.code, 404 | 409), "{what}: {status:?}");
                return Ok(Err(status.code));
            }
            Err(error) => error,
        };
        if began.elapsed() > STUCK {
            return Err(error).with_context(|| format!("{what}: no answer for {STUCK:?}"));
        }
        sleep(INTERVAL).await;
    }
}
