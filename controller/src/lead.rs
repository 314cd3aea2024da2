//! The controller's parts and how they hang together: watches fill caches and a queue, the queue feeds the reconciler. All
//! of it runs on the leader only.

use std::{future::ready, sync::Arc, time::Duration};

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
use tokio::{
    sync::{mpsc as tokio_mpsc, watch},
    time::sleep,
};
use tracing::{debug, info, warn};

use crate::{
    cancel::{self, Flavour, Siblings},
    context::Context,
    error::Error,
    metadata::{self, Told},
    metrics::Metrics,
    policies::{self, Policies, PolicyHead},
    queue, reassess,
    refusals::Refusals,
    retry::{self, Retry},
    run::Config,
    source::{self, Sources},
    spawner_status, task,
    tasks::{TaskIndex, json_of, kelos_resource, resource},
    unwinding::{Unwinding, restarted},
    watches::{Queue, Queued, bare, cached, follow_tasks, follow_work_items},
};

/// How many Tasks are looked after at the same time.
const CONCURRENCY: u16 = 16;
/// Until the API server is asked again.
const RETRY: Duration = Duration::from_secs(3);
/// Until Kelos is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The controller itself. Dropped when the Lease is lost. Without Kelos it looks after Foreman's Workloads alone, until Kelos
/// comes.
pub(crate) async fn lead(client: Client, config: &Config, metrics: &Metrics) {
    loop {
        let version = kelos_version(&client).await;
        if version.is_some() {
            return Box::pin(control(client, config, metrics, version)).await;
        }
        info!("Kelos is not installed");
        tokio::select! {
            () = control(client.clone(), config, metrics, None) => return,
            _ = kelos_comes(&client) => {}
        }
    }
}

async fn control(client: Client, config: &Config, metrics: &Metrics, kelos: Option<&'static str>) {
    let version = kelos.unwrap_or(kelos::TASK_VERSIONS[0]);
    let task_kind = resource(version);
    let spawner_kind = kelos_resource(version, "TaskSpawner", "taskspawners");
    let (local, local_changes) = policy_heads::<TaskPolicy>(&client);
    let (cluster, cluster_changes) = policy_heads::<ClusterTaskPolicy>(&client);
    let (namespaces, namespaces_writer) = reflector::store::<PartialObjectMeta<Namespace>>();
    let spawners_writer = reflector::store::Writer::<DynamicObject>::new(spawner_kind.clone());
    let (work_items, work_items_writer) = reflector::store::<WorkItem>();
    let tasks_writer = reflector::store::Writer::<DynamicObject>::new(task_kind.clone());
    let tasks = tasks_writer.as_reader();
    let (retry, retries) = Retry::new(&config.sources, metrics);
    let policies = Policies::new(
        config.policies.clone(),
        local,
        cluster,
        namespaces,
        spawners_writer.as_reader(),
    );
    let kinds = (&task_kind, &spawner_kind);
    let context = Arc::new(context(&client, config, metrics, policies, work_items, retry, kinds));
    let (queue, queued) = mpsc::unbounded();
    let (changed, spawners) = tokio_mpsc::unbounded_channel();
    let (new_policies, policies_changed) = watch::channel(());

    let all = watcher::Config::default;
    // Their labels are read when a Task is looked at; their own changes, of which a spawner has many, lead to nothing.
    let namespaces = cached(
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all()),
        namespaces_writer,
    );
    let spawners_watch = |writer| {
        let api = Api::<DynamicObject>::all_with(client.clone(), &spawner_kind);
        cached(watcher(api, all()).map_ok(bare), writer)
    };
    let policies = policies::changes(config.policies.clone()).for_each(|()| {
        queue_all(&context, &tasks, &queue);
        new_policies.send_replace(());
        ready(())
    });
    let work_items = follow_work_items(&context, work_items_writer, &queue, &changed);
    let reassessing = async {
        context.ready().await;
        // Of an item with Tasks it may be for them to tell. An error means that their watch was dropped, and this with it.
        let _ = tasks.wait_until_ready().await;
        reassess::run(&context, &tasks, policies_changed, &changed).await;
    };
    let reconciling = |tasks_writer| async {
        // First what decides about Tasks, then the Tasks: nothing is let go because a policy is not known yet.
        context.ready().await;
        info!(version, "looking after Tasks");
        let watching = follow_tasks(&context, tasks_writer, &queue);
        join(watching, apply(&context, tasks.clone(), queued)).await;
    };
    let look_at = |namespace: &str, task: &str| {
        let task = ObjectRef::new_with(task, task_kind.clone()).within(namespace);
        let _ = queue.unbounded_send(task.into());
    };
    let sources = || source::run(Arc::clone(&context), tasks.clone(), config.sources.clone());
    let mut parts: Vec<BoxFuture<'_, ()>> = vec![
        policies.boxed(),
        stream::select(local_changes, cluster_changes)
            .for_each(|()| ready(()))
            .boxed(),
        namespaces
            .for_each(|()| {
                queue_opted_out(&context, &tasks, &queue);
                ready(())
            })
            .boxed(),
        work_items.boxed(),
        retry::run(&context, retries).boxed(),
    ];
    if kelos.is_some() {
        parts.extend([
            spawners_watch(spawners_writer).for_each(|()| ready(())).boxed(),
            reconciling(tasks_writer).boxed(),
            cancel::follow_flavour(&context).boxed(),
            cancel::follow_sources(&context, look_at).boxed(),
            metadata::follow_sources(&context, &tasks, look_at).boxed(),
            spawner_status::run(Arc::clone(&context), spawners).boxed(),
            restarted("source", metrics, sources).boxed(),
            reassessing.boxed(),
        ]);
        if config.kueue.is_some() {
            parts.push(queue::run(Arc::clone(&context), tasks.clone()).boxed());
        }
    } else {
        // Whoever waits for them need not.
        drop((spawners_writer, tasks_writer));
    }
    join_all(parts).await;
}

/// What the parts of the controller share; `kinds` are the installed versions of Task and TaskSpawner.
fn context(
    client: &Client,
    config: &Config,
    metrics: &Metrics,
    policies: Policies,
    work_items: Store<WorkItem>,
    retry: Retry,
    (task_kind, spawner_kind): (&ApiResource, &ApiResource),
) -> Context {
    Context {
        policies,
        work_items,
        index: TaskIndex::default(),
        sources: Sources::default(),
        recorder: recorder(client, config),
        identity: config.identity.clone(),
        flavour: Flavour::default(),
        siblings: Siblings::default(),
        told: Told::default(),
        metrics: metrics.clone(),
        work_item_cap: config.work_items_per_namespace,
        kueue: config.kueue.clone().unwrap_or_default(),
        retries: config.retried_kinds(),
        namespace: config.namespace.clone(),
        retry,
        task_kind: task_kind.clone(),
        spawner_kind: spawner_kind.clone(),
        client: client.clone(),
    }
}

/// Requeues everything that policies decide about.
fn queue_all(context: &Context, tasks: &Store<DynamicObject>, queue: &Queue) {
    context.sources.look_again();
    for task in tasks.state() {
        retry::note(context, RetriedKind::Task, &json_of(&task), false);
        let task = ObjectRef::from_obj_with(&*task, context.task_kind.clone());
        let _ = queue.unbounded_send(task.into());
    }
    retry::reconsider(context);
}

/// Requeues the Tasks of namespaces that are opted out, as long as they have taskgate's finalizer: it is removed now, not when
/// they change next.
fn queue_opted_out(context: &Context, tasks: &Store<DynamicObject>, queue: &Queue) {
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

/// Looks after each Task that the queue names.
async fn apply(context: &Arc<Context>, tasks: Store<DynamicObject>, queued: Queued) {
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let refusals = Refusals::default();
    let failed = move |object: Arc<DynamicObject>, error: &Error, _| {
        warn!(%error, source = %error.source, name = object.name_any(), "tried again soon");
        Action::requeue(refusals.wait(object.uid(), error))
    };
    let unwinding = Arc::new(Unwinding::new("task", &context.metrics));
    applier(
        |object, context| {
            let unwinding = Arc::clone(&unwinding);
            Box::pin(async move {
                let reconcile = Box::pin(task::reconcile(Arc::clone(&object), context));
                unwinding.action(object.uid(), reconcile).await
            })
        },
        failed,
        Arc::clone(context),
        tasks,
        queued.map(Ok::<_, Error>),
        config,
    )
    .for_each(|_| ready(()))
    .await;
}

/// The version of Kelos' Tasks that the cluster serves; `None` when Kelos is not installed.
async fn kelos_version(client: &Client) -> Option<&'static str> {
    loop {
        match client.list_api_groups().await {
            Ok(groups) => {
                let group = groups.groups.into_iter().find(|group| group.name == kelos::GROUP);
                let served = group.map(|group| group.versions).unwrap_or_default();
                return kelos::TASK_VERSIONS
                    .into_iter()
                    .find(|known| served.iter().any(|version| version.version == *known));
            }
            Err(error) => debug!(%error, "whether Kelos is installed is not known"),
        }
        sleep(RETRY).await;
    }
}

/// Waits for Kelos to be installed; the version of its Tasks that the cluster serves.
pub(crate) async fn kelos_comes(client: &Client) -> &'static str {
    loop {
        if let Some(version) = kelos_version(client).await {
            return version;
        }
        sleep(LOOK_AGAIN).await;
    }
}
