//! The spawners (kelos §4, §5): one loop per polling `TaskSpawner`, and the ways in which Tasks are
//! pushed. Reads and writes go to the API server directly; only the wake-ups come from watches.

mod build;
mod comments;
mod conditions;
mod cron;
mod cycle;
mod deliver;
mod discover;
mod interval;
mod names;
mod rest;
mod template;

pub use deliver::{Delivered, Delivery};
pub(crate) use discover::Item;
pub use rest::DiscoverError;

use crate::cache::{Cache, Change, Key, Scope};
use crate::crds::CrdCapability;
use crate::error::Error;
use crate::keys;
use crate::metrics::Metrics;
use crate::queue::{Next, Queue};
use crate::types::{Task, TaskSpawner, Workspace};
use kube::api::Api;
use kube::runtime::watcher::Config;
use kube::{Client, ResourceExt};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a missing Workspace is looked for: until it exists Kelos has no Deployment.
const WORKSPACE: Duration = Duration::from_secs(2);

/// How often a spawner is looked at that the controller has not taken on: in Kelos it has no process yet.
const RUNTIME: Duration = Duration::from_millis(100);

/// All spawners of this process.
pub(crate) struct Spawners {
    client: Client,
    github: rest::GitHub,
    metrics: Metrics,
    capability: CrdCapability,
    deliveries: Mutex<BTreeSet<(Key, String)>>,
}

impl Spawners {
    pub(crate) fn new(client: Client, github_url: &str, metrics: Metrics, capability: CrdCapability) -> Self {
        Self {
            client,
            github: rest::GitHub::new(github_url),
            metrics,
            capability,
            deliveries: Mutex::default(),
        }
    }

    fn tasks(&self, spawner: &Key) -> Api<Task> {
        Api::namespaced(self.client.clone(), &spawner.namespace)
    }

    fn spawners(&self, spawner: &Key) -> Api<TaskSpawner> {
        Api::namespaced(self.client.clone(), &spawner.namespace)
    }

    async fn get(&self, key: &Key) -> Result<TaskSpawner, Error> {
        self.spawners(key)
            .get(&key.name)
            .await
            .map_err(Error::kube("fetching TaskSpawner", key))
    }

    /// The workspace that names the repository; `None` while it does not exist.
    async fn workspace(&self, spawner: &TaskSpawner) -> Result<Option<Workspace>, Error> {
        let key = Key::of(spawner);
        let name = spawner.spec.task_template.workspace();
        let api: Api<Workspace> = Api::namespaced(self.client.clone(), &key.namespace);
        let workspace = api.get_opt(name.unwrap_or_default()).await;
        workspace.map_err(Error::kube("fetching the Workspace of TaskSpawner", &key))
    }

    /// One run of a spawner's loop (kelos S8): success waits for the poll interval, failure backs off.
    async fn run_once(&self, key: &Key) -> Result<Next, Error> {
        let spawner = match self.get(key).await {
            Ok(spawner) => spawner,
            Err(error) if error.is_not_found() => return Ok(Next::Wait),
            Err(error) => return Err(error),
        };
        if !spawner.spec.when.polls() || spawner.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        if spawner.phase().is_empty() {
            return Ok(Next::After(RUNTIME));
        }
        let Some(workspace) = self.workspace(&spawner).await? else {
            return Ok(Next::After(WORKSPACE));
        };
        let started = Instant::now();
        let outcome = Box::pin(self.cycle(key, spawner, &workspace)).await;
        self.metrics.discovery_duration.observe(started.elapsed().as_secs_f64());
        match &outcome {
            Ok(result) => self.metrics.count_cycle(key, *result),
            Err(error) => {
                tracing::debug!(spawner = %key, %error, "cycle failed");
                self.metrics.discovery_errors.inc();
                self.metrics.count_cycle(key, error.of_cycle());
            }
        }
        outcome?;
        let spawner = self.get(key).await?;
        Ok(Next::After(interval::of(&spawner.spec.when)))
    }
}

/// Starts the wake-ups and the loops in `running`.
pub(crate) async fn start(spawners: Arc<Spawners>, scope: &Scope, running: &mut JoinSet<()>) {
    let queue: Arc<Queue<Key>> = Arc::default();
    let (client, all) = (spawners.client.clone(), Config::default());
    let objects = Cache::start(&client, scope, &all, running, {
        let queue = queue.clone();
        move |_: &Cache<TaskSpawner>, change| wake_by_spawner(change, &queue)
    });
    let labelled = Config::default().labels(keys::SPAWNER);
    let tasks = Cache::start(&client, scope, &labelled, running, {
        let queue = queue.clone();
        move |_: &Cache<Task>, change| wake_by_task(change, &queue)
    });
    tokio::join!(objects.synced(), tasks.synced());
    running.spawn(async move {
        let mut cycles = JoinSet::new();
        loop {
            tokio::select! {
                key = queue.next() => {
                    let (spawners, queue) = (spawners.clone(), queue.clone());
                    cycles.spawn(async move {
                        let outcome = spawners.run_once(&key).await;
                        queue.finish(&key, &outcome);
                    });
                }
                Some(_) = cycles.join_next() => {}
            }
        }
    });
}

/// A new spawner, a new generation, the end (kelos S9).
fn wake_by_spawner(change: &Change<TaskSpawner>, queue: &Queue<Key>) {
    let generation = |s: &Arc<TaskSpawner>| s.metadata.generation;
    let same = match (&change.old, &change.new) {
        (Some(old), Some(new)) => generation(old) == generation(new),
        _ => false,
    };
    if let Some(spawner) = change.object().filter(|_| !same) {
        queue.add(Key::of(&**spawner));
    }
}

/// A Task's phase changes, its deletion begins, or it is gone; its creation enqueues no spawner (kelos S9).
fn wake_by_task(change: &Change<Task>, queue: &Queue<Key>) {
    let wakes = match (&change.old, &change.new) {
        (Some(old), Some(new)) => {
            let deleting = |task: &Task| task.metadata.deletion_timestamp.is_some();
            old.phase() != new.phase() || deleting(old) != deleting(new)
        }
        (Some(_), None) => true,
        (None, _) => false,
    };
    if let Some(task) = change.object().filter(|_| wakes)
        && let Some(spawner) = task.labels().get(keys::SPAWNER)
    {
        queue.add(Key::new(task.namespace().unwrap_or_default(), spawner));
    }
}
