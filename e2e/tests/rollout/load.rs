//! Tasks created at a fixed rate: a slow answer does not slow the next one down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use kelos_standin::types::Task;
use kube::{Api, ResourceExt as _, api::PostParams};
use taskgate_e2e::{ControlPlane, Namespace, PATIENCE, eventually, is_soak, task_of_item};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

/// The label that the policy gives every Task.
pub(crate) const GOVERNED: (&str, &str) = ("team", "blue");

/// More creates than this are never under way at once: a machine that cannot keep up is not what is tested.
const MOST: usize = 64;

/// Admissions per second; fewer where the machine has other suites to run.
pub(crate) fn rate() -> u32 {
    if is_soak() { 100 } else { 10 }
}

/// A load that runs until it is stopped.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    in_flight: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    running: JoinHandle<Tally>,
}

/// How the creates ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    /// From its start to the last answer.
    pub(crate) took: Duration,
    /// The errors of those that failed.
    pub(crate) failed: Vec<String>,
    /// Those that were created without admission, with the moment of their answer.
    pub(crate) unadmitted: Vec<(String, Instant)>,
}

impl Load {
    /// Creates Tasks in `ns`, as dry runs or persisted.
    pub(crate) fn start(ns: &Namespace, persisted: bool) -> Self {
        let tasks = ns.api::<Task>();
        let stop = watch::Sender::new(false);
        let counts = (Arc::default(), Arc::default());
        let running = tokio::spawn(run(tasks, persisted, stop.subscribe(), counts.clone()));
        let (in_flight, answered) = counts;
        Self {
            stop,
            in_flight,
            answered,
            running,
        }
    }

    /// How many creates are not answered yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Waits until as many more creates are answered as two undisturbed seconds bring.
    pub(crate) async fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.answered.load(Ordering::SeqCst);
        let wanted = usize::try_from(2 * rate())?;
        eventually("the load goes on", PATIENCE, || async {
            let answered = self.answered.load(Ordering::SeqCst) - before;
            ensure!(answered >= wanted, "{answered} answered");
            Ok(())
        })
        .await
    }

    /// Stops it, once all is answered.
    pub(crate) async fn stop(self) -> anyhow::Result<Tally> {
        self.stop.send_replace(true);
        Ok(self.running.await?)
    }
}

/// The counts are of those in flight, and of those answered.
async fn run(
    tasks: Api<Task>,
    persisted: bool,
    mut stop: watch::Receiver<bool>,
    counts: (Arc<AtomicUsize>, Arc<AtomicUsize>),
) -> Tally {
    let mut tally = Tally::default();
    let began = Instant::now();
    let mut creates = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / rate());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {
                if creates.len() >= MOST {
                    continue;
                }
                let name = format!("t-{}", tally.sent);
                tally.sent += 1;
                let (tasks, (in_flight, answered)) = (tasks.clone(), counts.clone());
                in_flight.fetch_add(1, Ordering::SeqCst);
                creates.spawn(async move {
                    let made = create(&tasks, &name, persisted).await;
                    in_flight.fetch_sub(1, Ordering::SeqCst);
                    answered.fetch_add(1, Ordering::SeqCst);
                    (name, made, Instant::now())
                });
            }
            Some(Ok(done)) = creates.join_next() => tally.note(done),
        }
    }
    while let Some(Ok(done)) = creates.join_next().await {
        tally.note(done);
    }
    tally.took = began.elapsed();
    tally
}

async fn create(tasks: &Api<Task>, name: &str, persisted: bool) -> Result<Task, String> {
    let task = task_of_item(name, name);
    let task = serde_json::from_value(task).map_err(|error| error.to_string())?;
    let params = PostParams {
        dry_run: !persisted,
        ..PostParams::default()
    };
    tasks
        .create(&params, &task)
        .await
        .map_err(|error| format!("{name}: {error}"))
}

impl Tally {
    fn note(&mut self, (name, made, at): (String, Result<Task, String>, Instant)) {
        match made {
            Err(error) => self.failed.push(error),
            Ok(task) if !is_governed(&task) => self.unadmitted.push((name, at)),
            Ok(_) => {}
        }
    }
}

/// Whether admission reviewed the Task.
pub(crate) fn is_governed(task: &Task) -> bool {
    task.labels().get(GOVERNED.0).is_some_and(|team| team == GOVERNED.1)
}

/// The API server's counts of calls to taskgate's webhooks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    /// All calls.
    made: f64,
    /// Those that failed, and the request with them.
    refused: f64,
    /// Those that failed, and the request was admitted.
    pub(crate) opened: f64,
}

impl Calls {
    pub(crate) async fn read(cp: &ControlPlane) -> anyhow::Result<Self> {
        let metrics = cp.apiserver_metrics().await?;
        let failed = [("error_type", "calling_webhook_error")];
        let refused = metrics.value("apiserver_admission_webhook_rejection_count", &failed);
        Ok(Self {
            made: metrics.sum("apiserver_admission_webhook_request_total"),
            refused: refused.unwrap_or(0.0),
            opened: metrics.sum("apiserver_admission_webhook_fail_open_count"),
        })
    }
}

/// Every create was governed, and no call of the API server failed since `before`.
pub(crate) async fn nothing_was_lost(cp: &ControlPlane, before: Calls, tally: &Tally) -> anyhow::Result<()> {
    let after = Calls::read(cp).await?;
    let (refused, opened) = (after.refused - before.refused, after.opened - before.opened);
    let (calls, failed, unadmitted) = (after.made - before.made, tally.failed.len(), tally.unadmitted.len());
    eprintln!(
        "{} creates in {:.0?}, {calls} calls: {failed} creates failed, {unadmitted} without admission; {refused} calls refused, \
         {opened} opened",
        tally.sent, tally.took,
    );
    let first = tally.failed.first().map_or("", String::as_str);
    ensure!(failed == 0, "{failed} creates failed, such as: {first}");
    ensure!(unadmitted == 0, "{unadmitted} creates were not governed");
    ensure!(refused + opened == 0.0, "{refused} calls refused, {opened} opened");
    ensure!(
        calls >= 2.0 * f64::from(u32::try_from(tally.sent)?),
        "the API server made only {calls} calls"
    );
    Ok(())
}
