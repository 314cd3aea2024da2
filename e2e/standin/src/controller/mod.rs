//! The Task controller (kelos §6), the `WorkerPool` part of it (kelos §7) and the part of the
//! `TaskSpawner` controller that keeps the spawners' runtimes (kelos §4). One reconcile at a time, from
//! caches, as Kelos.

mod branch;
mod create;
mod deletion;
mod dependencies;
mod events;
mod job;
mod outputs;
mod pool;
mod reconcile;
mod runtimes;
mod status;
mod wake;

pub use branch::BranchLocks;
use outputs::usage;

use crate::cache::{Cache, Key, Scope};
use crate::crds::CrdCapability;
use crate::metrics::{Errors, Metrics};
use crate::queue::Queue;
use crate::types::{Task, TaskSpawner, Workspace};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::runtime::watcher::Config;
use std::sync::Arc;
use tokio::task::JoinSet;

/// One controller process: its caches, its locks, its queue.
pub(crate) struct Controller {
    client: Client,
    events: events::Recorder,
    metrics: Metrics,
    capability: CrdCapability,
    locks: Arc<BranchLocks>,
    tasks: Arc<Cache<Task>>,
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    workspaces: Arc<Cache<Workspace>>,
    spawners: Arc<Cache<TaskSpawner>>,
}

/// What a controller is told at its start.
pub(crate) struct Setup {
    pub(crate) client: Client,
    pub(crate) scope: Scope,
    pub(crate) metrics: Metrics,
    pub(crate) locks: Arc<BranchLocks>,
    pub(crate) runtimes: bool,
    pub(crate) capability: CrdCapability,
}

/// Starts the caches and the loops in `tasks`.
pub(crate) async fn start(setup: Setup, running: &mut JoinSet<()>) {
    let (client, scope) = (&setup.client, &setup.scope);
    let task_queue: Arc<Queue<Key>> = Arc::default();
    let pool_queue: Arc<Queue<Key>> = Arc::default();
    let spawner_queue: Arc<Queue<Key>> = Arc::default();
    let all = Config::default();
    let tasks = Cache::start(client, scope, &all, running, {
        let (tasks, pools) = (task_queue.clone(), pool_queue.clone());
        let (spawners, capability) = (spawner_queue.clone(), setup.capability);
        move |cache: &Cache<Task>, change| {
            wake::for_task(capability, cache, change, &tasks, &pools);
            wake::spawner_of(change, &spawners);
        }
    });
    let jobs = Cache::start(client, scope, &all, running, {
        let queue = task_queue.clone();
        move |_: &Cache<Job>, change| wake::for_job(change, &queue)
    });
    let workspaces = Cache::start(client, scope, &all, running, {
        let (queue, tasks) = (task_queue.clone(), tasks.clone());
        move |_: &Cache<Workspace>, change| wake::for_workspace(&tasks, change, &queue)
    });
    let spawners = Cache::start(client, scope, &all, running, {
        let queue = spawner_queue.clone();
        move |_: &Cache<TaskSpawner>, change| {
            if let Some(spawner) = change.object() {
                queue.add(Key::of(&**spawner));
            }
        }
    });
    // Kelos reads pods through its cache as well, but no pod wakes a Task.
    let pods = Cache::start(client, scope, &all, running, |_: &Cache<Pod>, _| {});
    let controller = Arc::new(Controller {
        events: events::Recorder::new(client.clone()),
        client: setup.client,
        metrics: setup.metrics,
        capability: setup.capability,
        locks: setup.locks,
        tasks,
        jobs,
        pods,
        workspaces,
        spawners,
    });
    controller.synced().await;
    running.spawn(run_tasks(controller.clone(), task_queue));
    running.spawn(run_pools(controller.clone(), pool_queue));
    running.spawn(run_spawners(controller, spawner_queue, setup.runtimes));
}

impl Controller {
    async fn synced(&self) {
        tokio::join!(
            self.tasks.synced(),
            self.jobs.synced(),
            self.pods.synced(),
            self.workspaces.synced(),
            self.spawners.synced(),
        );
    }

    fn count_error(&self, controller: &'static str) {
        self.metrics.errors.get_or_create(&Errors { controller }).inc();
    }
}

async fn run_tasks(controller: Arc<Controller>, queue: Arc<Queue<Key>>) {
    loop {
        let key = queue.next().await;
        let outcome = controller.reconcile(&key).await;
        if let Err(error) = &outcome {
            controller.count_error("task");
            tracing::debug!(task = %key, %error, "reconcile failed");
        }
        queue.finish(&key, &outcome);
    }
}

async fn run_pools(controller: Arc<Controller>, queue: Arc<Queue<Key>>) {
    loop {
        let key = queue.next().await;
        let outcome = controller.reconcile_pool_task(&key).await;
        if let Err(error) = &outcome {
            controller.count_error("workerpool");
            tracing::debug!(task = %key, %error, "pool reconcile failed");
        }
        queue.finish(&key, &outcome);
    }
}

async fn run_spawners(controller: Arc<Controller>, queue: Arc<Queue<Key>>, runtimes: bool) {
    loop {
        let key = queue.next().await;
        let outcome = controller.reconcile_spawner(&key, runtimes).await;
        if let Err(error) = &outcome {
            controller.count_error("taskspawner");
            tracing::debug!(spawner = %key, %error, "spawner reconcile failed");
        }
        queue.finish(&key, &outcome);
    }
}
