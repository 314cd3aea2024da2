//! Foreman's operator: plans Workloads, schedules their tasks. One reconcile of a kind at a time, from caches.

mod audit;
mod plan;
mod render;
mod rollup;
mod rounds;
pub(crate) mod task;
mod workload;

use crate::journal::Journal;
use crate::options::Options;
use crate::types::{Agent, AgenticTask, Workload};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kelos_standin::Key;
use kelos_standin::cache::{Cache, Change};
use kelos_standin::queue::Queue;
use kube::runtime::watcher::Config;
use kube::{Client, ResourceExt};
use std::sync::Arc;
use tokio::task::JoinSet;

/// One operator process.
pub(crate) struct Operator {
    client: Client,
    options: Options,
    journal: Journal,
    workloads: Arc<Cache<Workload>>,
    tasks: Arc<Cache<AgenticTask>>,
    agents: Arc<Cache<Agent>>,
}

/// Starts the caches and the loops in `running`.
pub(crate) async fn start(client: Client, options: Options, journal: Journal, running: &mut JoinSet<()>) {
    let workload_queue: Arc<Queue<Key>> = Arc::default();
    let task_queue: Arc<Queue<Key>> = Arc::default();
    let all = Config::default();
    let scope = &options.scope;
    // No predicate: every write to a Workload wakes it (F9).
    let workloads = Cache::start(&client, scope, &all, running, {
        let queue = workload_queue.clone();
        move |_: &Cache<Workload>, change| {
            if let Some(workload) = change.object() {
                queue.add(Key::of(&**workload));
            }
        }
    });
    let tasks = Cache::start(&client, scope, &all, running, {
        let (workloads, tasks) = (workload_queue.clone(), task_queue.clone());
        move |cache: &Cache<AgenticTask>, change| wake(cache, change, &workloads, &tasks)
    });
    let agents = Cache::start(&client, scope, &all, running, |_: &Cache<Agent>, _| {});
    tokio::join!(workloads.synced(), tasks.synced(), agents.synced());
    let operator = Arc::new(Operator {
        client,
        options,
        journal,
        workloads,
        tasks,
        agents,
    });
    running.spawn(run_workloads(operator.clone(), workload_queue));
    running.spawn(run_tasks(operator, task_queue));
}

/// A task wakes itself, its owner, and those that wait for it: the real operator polls these every 10 s, and nothing
/// hurts more quickly for it.
fn wake(cache: &Cache<AgenticTask>, change: &Change<AgenticTask>, workloads: &Queue<Key>, tasks: &Queue<Key>) {
    let Some(task) = change.object() else {
        return;
    };
    let key = Key::of(&**task);
    let owner = |owner: &&OwnerReference| owner.controller == Some(true) && owner.kind == "Workload";
    if let Some(owner) = task.owner_references().iter().find(owner) {
        workloads.add(Key::new(&key.namespace, &owner.name));
    }
    if task.has_ended() {
        let waiting = cache.list(&key.namespace).into_iter();
        for other in waiting.filter(|other| other.spec.depends_on.contains(&key.name)) {
            tasks.add(Key::of(&*other));
        }
    }
    tasks.add(key);
}

async fn run_workloads(operator: Arc<Operator>, queue: Arc<Queue<Key>>) {
    loop {
        let key = queue.next().await;
        let outcome = operator.reconcile_workload(&key).await;
        if let Err(error) = &outcome {
            tracing::debug!(workload = %key, %error, "reconcile failed");
        }
        queue.finish(&key, &outcome);
    }
}

async fn run_tasks(operator: Arc<Operator>, queue: Arc<Queue<Key>>) {
    loop {
        let key = queue.next().await;
        let outcome = operator.reconcile_task(&key).await;
        if let Err(error) = &outcome {
            tracing::debug!(task = %key, %error, "reconcile failed");
        }
        queue.finish(&key, &outcome);
    }
}
