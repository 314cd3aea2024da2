//! The wiring of the controller: watches fill caches and a work queue, the queue feeds the reconciles. All of it runs on the leader
//! only.
//!
//! - here: which features run, and what they share. `watches`: what each change of a cached object leads to.
//! - `task`: the reconcile of one Task. `metrics`: the metrics of all features.
//!
//! Imports every feature. Called by `run`.

mod metrics;
mod task;
mod watches;

use std::{future::ready, sync::Arc};

use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    channel::mpsc,
    future::{BoxFuture, join, join_all},
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::{
        applier,
        controller::{self, Action},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, WorkItem, kelos, keys, task_policy::RetriedKind};
use tokio::sync::{mpsc as tokio_mpsc, watch};
use tracing::{info, warn};

use self::watches::{Enqueued, Queue, cached, follow_tasks, follow_work_items, trim_spawner};
use crate::{
    breaker::{BreakerReconciler, reassess, spawner_status},
    cancellation::{self, CancellationReconciler},
    config::Config,
    context::Context,
    error::Error,
    kubernetes::{
        json_of,
        kelos::{kelos_resource, served_version, task_resource, wait_until_installed},
    },
    metadata::{self, MetadataReconciler},
    policies::{self, PolicyHead, PolicyStore},
    queueing::{self, QueueingReconciler},
    retry::{RetriedObjects, RetryQueues, RetryReconciler},
    source::{self, Sources},
    task_index::TaskIndex,
    workqueue::{ErrorBackoff, PanicGuard, restart_on_panic},
};

pub use metrics::Metrics;

/// How many Tasks are reconciled in parallel.
const CONCURRENCY: u16 = 16;

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
pub(crate) async fn run(client: Client, config: &Config, metrics: &Metrics) {
    loop {
        let version = served_version(&client).await;
        if version.is_some() {
            return Box::pin(run_with(client, config, metrics, version)).await;
        }
        info!("Kelos is not installed");
        tokio::select! {
            () = run_with(client.clone(), config, metrics, None) => return,
            _ = wait_until_installed(&client) => {}
        }
    }
}

async fn run_with(client: Client, config: &Config, metrics: &Metrics, kelos: Option<&'static str>) {
    let version = kelos.unwrap_or(kelos::TASK_VERSIONS[0]);
    let task_kind = task_resource(version);
    let spawner_kind = kelos_resource(version, "TaskSpawner", "taskspawners");
    let (local, local_changes) = policy_heads::<TaskPolicy>(&client);
    let (cluster, cluster_changes) = policy_heads::<ClusterTaskPolicy>(&client);
    let (namespaces, namespaces_writer) = reflector::store::<PartialObjectMeta<Namespace>>();
    let spawners_writer = reflector::store::Writer::<DynamicObject>::new(spawner_kind.clone());
    let (work_items, work_items_writer) = reflector::store::<WorkItem>();
    let tasks_writer = reflector::store::Writer::<DynamicObject>::new(task_kind.clone());
    let tasks = tasks_writer.as_reader();
    let spawners = spawners_writer.as_reader();
    let policies = PolicyStore::new(
        config.policies.clone(),
        local,
        cluster,
        namespaces,
        spawners,
        spawner_kind.clone(),
    );
    let context = Context {
        policies,
        work_items,
        task_index: TaskIndex::default(),
        recorder: recorder(&client, config),
        identity: config.identity.clone(),
        namespace: config.namespace.clone(),
        panics: metrics.panics.clone(),
        task_kind,
        spawner_kind,
        client: client.clone(),
    };
    let (reconcilers, retry_queues) = Reconcilers::new(context, config, metrics);
    let context = &reconcilers.context;
    let (queue, enqueued) = mpsc::unbounded();
    let (changed, changed_spawners) = tokio_mpsc::unbounded_channel();
    let (new_policies, policies_changed) = watch::channel(());

    let all = watcher::Config::default;
    let namespaces = cached(
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all()),
        namespaces_writer,
    );
    let mut parts: Vec<BoxFuture<'_, ()>> = vec![
        policies::changes(config.policies.clone())
            .for_each(|()| {
                enqueue_all(&reconcilers, &tasks, &queue);
                new_policies.send_replace(());
                ready(())
            })
            .boxed(),
        stream::select(local_changes, cluster_changes)
            .for_each(|()| ready(()))
            .boxed(),
        namespaces
            .for_each(|()| {
                enqueue_opted_out(context, &tasks, &queue);
                ready(())
            })
            .boxed(),
        follow_work_items(&reconcilers, work_items_writer, &queue, &changed).boxed(),
        reconcilers.retry.run(retry_queues).boxed(),
    ];
    if kelos.is_some() {
        // Spawners are read when a Task is reconciled; their own changes, of which there are many, lead to nothing.
        let api = Api::<DynamicObject>::all_with(client.clone(), &context.spawner_kind);
        let spawners = cached(watcher(api, all()).map_ok(trim_spawner), spawners_writer);
        let watching_tasks = follow_tasks(&reconcilers, tasks_writer, &queue);
        parts.push(spawners.for_each(|()| ready(())).boxed());
        parts.push(spawner_status::run(Arc::clone(context), changed_spawners).boxed());
        parts.push(reassess::run(context, &tasks, policies_changed, &changed).boxed());
        parts.push(reconcile_tasks(&reconcilers, &tasks, watching_tasks, enqueued).boxed());
        parts.extend(kelos_parts(&reconcilers, config, metrics, &tasks, &queue));
    } else {
        // A wait for these caches ends, and nothing is enqueued that no loop takes out.
        drop((spawners_writer, tasks_writer, enqueued, changed_spawners));
    }
    join_all(parts).await;
}

/// The features that run only with Kelos, besides the reconcile of Tasks.
fn kelos_parts<'a>(
    reconcilers: &'a Arc<Reconcilers>,
    config: &'a Config,
    metrics: &'a Metrics,
    tasks: &'a Store<DynamicObject>,
    queue: &'a Queue,
) -> Vec<BoxFuture<'a, ()>> {
    let Reconcilers {
        context,
        sources,
        cancellation,
        metadata,
        ..
    } = &**reconcilers;
    let enqueue = move |namespace: &str, task: &str| {
        let task = ObjectRef::new_with(task, context.task_kind.clone()).within(namespace);
        let _ = queue.unbounded_send(task.into());
    };
    let read_sources = move || {
        source::run(
            Arc::clone(context),
            Arc::clone(sources),
            tasks.clone(),
            config.sources.clone(),
        )
    };
    let mut parts = vec![
        cancellation::follow_capability(cancellation).boxed(),
        cancellation::follow_sources(cancellation, enqueue).boxed(),
        metadata::follow_sources(metadata, tasks, enqueue).boxed(),
        restart_on_panic("source", &metrics.panics, read_sources).boxed(),
    ];
    if let Some(kueue) = &config.kueue {
        let queueing = QueueingReconciler::new(
            Arc::clone(context),
            tasks.clone(),
            kueue.clone(),
            metrics.queueing.clone(),
        );
        parts.push(queueing::run(Arc::new(queueing)).boxed());
    }
    parts
}

/// Enqueues everything that policies decide about.
fn enqueue_all(reconcilers: &Reconcilers, tasks: &Store<DynamicObject>, queue: &Queue) {
    reconcilers.sources.refresh();
    for task in tasks.state() {
        reconcilers
            .retry
            .object_changed(RetriedKind::Task, &json_of(&*task), false);
        let task = ObjectRef::from_obj_with(&*task, reconcilers.context.task_kind.clone());
        let _ = queue.unbounded_send(task.into());
    }
    reconcilers.retry.policies_changed();
}

/// Enqueues the Tasks with taskgate's finalizer in namespaces that are opted out: the finalizer is removed now, not when the Tasks
/// change next.
fn enqueue_opted_out(context: &Context, tasks: &Store<DynamicObject>, queue: &Queue) {
    for task in tasks.state() {
        let has_finalizer = task.finalizers().iter().any(|finalizer| finalizer == keys::ACCOUNTING);
        if has_finalizer && context.policies.is_opted_out(&task.namespace().unwrap_or_default()) {
            let task = ObjectRef::from_obj_with(&*task, context.task_kind.clone());
            let _ = queue.unbounded_send(task.into());
        }
    }
}

/// The policies of one kind without their specs, and the watch that keeps them current.
fn policy_heads<K: Resource<DynamicType = ()>>(client: &Client) -> (Store<PolicyHead>, BoxStream<'static, ()>) {
    let kind = ApiResource::erase::<K>(&());
    let writer = reflector::store::Writer::new(kind.clone());
    let store = writer.as_reader();
    let api = Api::all_with(client.clone(), &kind);
    (store, cached(watcher(api, watcher::Config::default()), writer))
}

fn recorder(client: &Client, config: &Config) -> Recorder {
    let reporter = Reporter {
        controller: "taskgate".into(),
        instance: Some(config.identity.clone()),
    };
    Recorder::new(client.clone(), reporter)
}

/// Reconciles each Task that is enqueued. The watch of Tasks starts once the policies are known, so that no finalizer is removed
/// because one is not.
async fn reconcile_tasks(
    reconcilers: &Arc<Reconcilers>,
    tasks: &Store<DynamicObject>,
    watching: impl Future<Output = ()>,
    enqueued: Enqueued,
) {
    reconcilers.context.ready().await;
    info!(version = reconcilers.context.task_kind.version, "reconciling Tasks");
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let backoff = ErrorBackoff::default();
    let failed = move |object: Arc<DynamicObject>, error: &Error, _| {
        warn!(%error, source = %error.source, name = object.name_any(), "tried again soon");
        Action::requeue(backoff.wait(object.uid(), error))
    };
    let panics = Arc::new(PanicGuard::new("task", &reconcilers.context.panics));
    let reconciling = applier(
        |object, reconcilers| {
            let panics = Arc::clone(&panics);
            Box::pin(async move {
                let reconcile = Box::pin(task::reconcile(Arc::clone(&object), reconcilers));
                panics.catch_action(object.uid(), reconcile).await
            })
        },
        failed,
        Arc::clone(reconcilers),
        tasks.clone(),
        enqueued.map(Ok::<_, Error>),
        config,
    )
    .for_each(|_| ready(()));
    join(watching, reconciling).await;
}
