//! The wiring of the controller: changes of the cluster cache fill indexes and a work queue, the queue feeds the reconciles. All of it
//! runs on the leader only.
//!
//! - here: which features run, and what they share. `changes`: what each change of a cached object leads to.
//! - `task`: the reconcile of one Task. `metrics`: the metrics of all features.
//!
//! Imports every feature. Called by `run`.

mod changes;
mod metrics;
mod task;

use std::sync::Arc;

use futures::{
    FutureExt as _,
    future::{BoxFuture, join, join_all},
};
use kube::Client;
use taskgate_api::kelos;
use taskgate_cache::{NamespacedName, kelos_resource};
use tokio::sync::{mpsc, watch};
use tracing::info;

use self::changes::{TaskQueue, follow_namespaces, follow_policies, follow_spawners, follow_tasks, follow_work_items};
use crate::{
    breaker::{
        BreakerReconciler, reassess,
        spawner_status::{self, SpawnerRef},
    },
    cancellation::{self, CancellationReconciler},
    config::Config,
    context::Context,
    events::EventQueue,
    kelos_fields,
    kubernetes::kelos::{served_version, task_resource, wait_until_installed},
    metadata::{self, MetadataReconciler},
    queueing::{self, QueueingReconciler},
    retry::{RetriedObjects, RetryQueues, RetryReconciler},
    source::{self, Sources},
    workqueue::{self, restart_on_panic},
};

pub use metrics::Metrics;

/// The reconcilers that a Task concerns, and what they share.
pub(crate) struct Reconcilers {
    context: Arc<Context>,
    sources: Arc<Sources>,
    breaker: Arc<BreakerReconciler>,
    cancellation: CancellationReconciler,
    metadata: MetadataReconciler,
    retry: RetryReconciler,
}

impl Reconcilers {
    fn new(context: Context, config: &Config, metrics: &Metrics) -> (Arc<Self>, RetryQueues) {
        let (context, sources) = (Arc::new(context), Arc::new(Sources::default()));
        let retried = Arc::new(RetriedObjects::default());
        let breaker = Arc::new(BreakerReconciler::new(
            Arc::clone(&context),
            metrics.breaker.clone(),
            config.work_items_per_namespace,
            {
                let retried = Arc::clone(&retried);
                move |item| retried.has(item)
            },
        ));
        let (retry, queues) = RetryReconciler::new(
            Arc::clone(&context),
            Arc::clone(&breaker),
            retried,
            config.retried_kinds(),
            &config.sources,
            metrics.retry.clone(),
        );
        let (cancellation, metadata) = (metrics.cancellation.clone(), metrics.metadata.clone());
        let reconcilers = Self {
            cancellation: CancellationReconciler::new(Arc::clone(&context), Arc::clone(&sources), cancellation),
            metadata: MetadataReconciler::new(Arc::clone(&context), Arc::clone(&sources), metadata),
            context,
            sources,
            breaker,
            retry,
        };
        (Arc::new(reconcilers), queues)
    }
}

/// Runs the controller, until it is dropped when the Lease is lost. Without Kelos it retries Foreman's Workloads only, until Kelos is
/// installed.
pub(crate) async fn run(client: &Client, events: &EventQueue, config: &Config, metrics: &Metrics) {
    loop {
        let version = served_version(client).await;
        if version.is_some() {
            return Box::pin(run_with(client, events, config, metrics, version)).await;
        }
        info!("Kelos is not installed");
        tokio::select! {
            () = run_with(client, events, config, metrics, None) => return,
            _ = wait_until_installed(client) => {}
        }
    }
}

async fn run_with(
    client: &Client,
    events: &EventQueue,
    config: &Config,
    metrics: &Metrics,
    kelos: Option<&'static str>,
) {
    let version = kelos.unwrap_or(kelos::TASK_VERSIONS[0]);
    let context = Context {
        cache: Arc::clone(&config.cache),
        started: watch::Sender::new(false),
        tasks_followed: watch::Sender::new(false),
        events: events.clone(),
        identity: config.identity.clone(),
        namespace: config.namespace.clone(),
        panics: metrics.panics.clone(),
        task_kind: task_resource(version),
        spawner_kind: kelos_resource(version, "TaskSpawner", "taskspawners"),
        client: client.clone(),
    };
    let (reconcilers, retry_queues) = Reconcilers::new(context, config, metrics);
    let context = &reconcilers.context;
    let (queue, enqueued) = TaskQueue::new();
    let (spawners, changed_spawners) = mpsc::unbounded_channel();
    let (new_policies, policies_changed) = watch::channel(());

    let mut parts: Vec<BoxFuture<'_, ()>> = vec![
        follow_policies(&reconcilers, &queue, &new_policies).boxed(),
        follow_namespaces(&context.cache, &queue).boxed(),
        follow_work_items(&reconcilers, kelos.is_some(), &queue, &spawners).boxed(),
        reconcilers.retry.run(retry_queues).boxed(),
    ];
    if kelos.is_some() {
        parts.push(spawner_status::run(Arc::clone(context), changed_spawners).boxed());
        parts.push(reassess::run(context, policies_changed, &spawners).boxed());
        parts.push(follow_spawners(context, &spawners).boxed());
        parts.push(reconcile_tasks(&reconcilers, &queue, enqueued, &spawners).boxed());
        parts.extend(kelos_parts(&reconcilers, config, metrics, &queue));
    } else {
        // Nothing is enqueued that no loop takes out.
        drop((enqueued, changed_spawners));
    }
    join_all(parts).await;
}

/// The features that run only with Kelos, besides the reconcile of Tasks.
fn kelos_parts<'a>(
    reconcilers: &'a Arc<Reconcilers>,
    config: &'a Config,
    metrics: &'a Metrics,
    queue: &'a TaskQueue,
) -> Vec<BoxFuture<'a, ()>> {
    let Reconcilers {
        context,
        sources,
        cancellation,
        metadata,
        ..
    } = &**reconcilers;
    let enqueue = move |namespace: &str, task: &str| queue.enqueue(namespace, task);
    let read_sources = move || source::run(Arc::clone(context), Arc::clone(sources), config.sources.clone());
    let mut parts = vec![
        kelos_fields::keep_extended(&context.client, &context.cache).boxed(),
        kelos_fields::restore_fields(context).boxed(),
        cancellation::follow_capability(cancellation).boxed(),
        cancellation::follow_sources(cancellation, enqueue).boxed(),
        metadata::follow_sources(metadata, enqueue).boxed(),
        restart_on_panic("source", &metrics.panics, read_sources).boxed(),
    ];
    if let Some(kueue) = context.cache.kueue() {
        let queueing = QueueingReconciler::new(Arc::clone(context), kueue, metrics.queueing.clone());
        parts.push(queueing::run(Arc::new(queueing)).boxed());
    }
    parts
}

/// Reconciles each Task that is enqueued. Tasks are followed once the policies are known, so that no finalizer is removed because one
/// is not; and reconciled once the indexes have all of them.
async fn reconcile_tasks(
    reconcilers: &Reconcilers,
    queue: &TaskQueue,
    enqueued: mpsc::UnboundedReceiver<NamespacedName>,
    spawners: &mpsc::UnboundedSender<SpawnerRef>,
) {
    let context = &reconcilers.context;
    context.ready().await;
    info!(version = context.task_kind.version, "reconciling Tasks");
    let reconciling = async {
        context.tasks_followed().await;
        let reconcile = |key| task::reconcile(reconcilers, key);
        workqueue::run("task", &context.panics, enqueued, reconcile).await;
    };
    join(follow_tasks(reconcilers, queue, spawners), reconciling).await;
}
