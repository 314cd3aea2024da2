//! Tasks created at a fixed rate: a slow answer does not slow the next one down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use kelos_standin::types::Task;
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::json;
use taskgate_api::keys;
use taskgate_e2e::{Namespace, PATIENCE, eventually, is_soak};
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

/// What became of the creates.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    /// From its start to the last answer.
    pub(crate) took: Duration,
    /// What those were told that failed.
    pub(crate) failed: Vec<String>,
    /// Those that nobody governed, with the moment of their answer.
    pub(crate) slipped: Vec<(String, Instant)>,
}

impl Load {
    /// Creates Tasks in `ns`: for a trial only, or for good.
    pub(crate) fn start(ns: &Namespace, for_good: bool) -> Self {
        let tasks = ns.api::<Task>();
        let stop = watch::Sender::new(false);
        let counts = (Arc::default(), Arc::default());
        let running = tokio::spawn(run(tasks, for_good, stop.subscribe(), counts.clone()));
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

    /// Waits until as many more creates are answered as two seconds bring where nothing is in their way.
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

    /// Stops it; tells when all is answered.
    pub(crate) async fn stop(self) -> anyhow::Result<Tally> {
        self.stop.send_replace(true);
        Ok(self.running.await?)
    }
}

/// The counts are of those in flight, and of those answered.
async fn run(
    tasks: Api<Task>,
    for_good: bool,
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
                    let made = create(&tasks, &name, for_good).await;
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

async fn create(tasks: &Api<Task>, name: &str, for_good: bool) -> Result<Task, String> {
    let task = json!({
        "apiVersion": "kelos.dev/v1alpha2", "kind": "Task",
        "metadata": {"name": name, "annotations": {keys::ITEM: name}},
        "spec": {"type": "claude-code", "prompt": "fix", "credentials": {"type": "none"}},
    });
    let task = serde_json::from_value(task).map_err(|error| error.to_string())?;
    let params = PostParams {
        dry_run: !for_good,
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
            Err(told) => self.failed.push(told),
            Ok(task) if !is_governed(&task) => self.slipped.push((name, at)),
            Ok(_) => {}
        }
    }
}

/// Whether admission saw the Task.
pub(crate) fn is_governed(task: &Task) -> bool {
    task.labels().get(GOVERNED.0).is_some_and(|team| team == GOVERNED.1)
}
