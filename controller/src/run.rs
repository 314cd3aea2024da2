//! The controller's parts and how they hang together: watches fill caches and a queue, the queue feeds the reconciler. All
//! of it runs on the leader only.

use std::{future::ready, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    channel::mpsc,
    future::{join, join5},
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::DynamicObject,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _, applier,
        controller::{self, Action, ReconcileRequest},
        events::{Recorder, Reporter},
        reflector::{self, ObjectRef, Store},
        watcher,
        watcher::Event,
    },
};
use taskgate_api::{ClusterTaskPolicy, TaskPolicy, WorkItem, kelos};
use taskgate_policy::TaskState;
use tokio::{sync::mpsc as tokio_mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    context::Context,
    error::Error,
    leader::Leader,
    metrics::{Metrics, OpenItems},
    policies::Policies,
    spawner_status::{self, SpawnerRef},
    task,
    tasks::{TaskIndex, json_of, kelos_resource, resource, trim},
};

/// How many Tasks are looked after at the same time.
const CONCURRENCY: u16 = 16;
/// Until a failed step is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Until Kelos is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Taskgate's own namespace, where the Lease is.
    pub namespace: String,
    /// The name of the Lease. `None`: there is only this replica, which leads always and writes nothing at rest.
    pub lease: Option<String>,
    /// Who this replica is: different for each, such as the pod's name.
    pub identity: String,
    /// How many `WorkItem`s a namespace may have.
    pub work_items_per_namespace: usize,
}

/// Runs the controller until `shutdown`: whenever this replica leads, and Kelos is installed.
pub async fn run(client: Client, config: Config, metrics: Metrics, shutdown: CancellationToken) {
    let Some(lease) = &config.lease else {
        metrics.leads(true);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = lead(client, &config, &metrics) => warn!("the controller ended by itself"),
        }
        return;
    };
    let mut leader = Leader::new(client.clone(), &config.namespace, lease, &config.identity);
    while leader.acquire(&shutdown).await {
        metrics.leads(true);
        tokio::select! {
            () = leader.keep(&shutdown) => {}
            () = lead(client.clone(), &config, &metrics) => warn!("the controller ended by itself"),
        }
        metrics.leads(false);
        if shutdown.is_cancelled() {
            leader.release().await;
            return;
        }
    }
}

/// The version of Kelos' Tasks that the cluster serves; waits for Kelos to be installed.
async fn kelos_version(client: &Client) -> &'static str {
    loop {
        if let Ok(groups) = client.list_api_groups().await {
            let group = groups.groups.into_iter().find(|group| group.name == kelos::GROUP);
            let served = group.map(|group| group.versions).unwrap_or_default();
            let known = kelos::TASK_VERSIONS
                .into_iter()
                .find(|known| served.iter().any(|version| version.version == *known));
            if let Some(version) = known {
                return version;
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// What a watch tells the rest: which Tasks to look at. Sending fails only when all of it is being dropped.
type Queue = mpsc::UnboundedSender<ReconcileRequest<DynamicObject>>;
type Queued = mpsc::UnboundedReceiver<ReconcileRequest<DynamicObject>>;

/// The controller itself. Dropped when the Lease is lost.
async fn lead(client: Client, config: &Config, metrics: &Metrics) {
    let version = kelos_version(&client).await;
    let task_kind = resource(version);
    let spawner_kind = kelos_resource(version, "TaskSpawner", "taskspawners");
    let (local, local_writer) = reflector::store::<TaskPolicy>();
    let (cluster, cluster_writer) = reflector::store::<ClusterTaskPolicy>();
    let (namespaces, namespaces_writer) = reflector::store::<PartialObjectMeta<Namespace>>();
    let spawners_writer = reflector::store::Writer::<DynamicObject>::new(spawner_kind.clone());
    let (work_items, work_items_writer) = reflector::store::<WorkItem>();
    let tasks_writer = reflector::store::Writer::<DynamicObject>::new(task_kind.clone());
    let tasks = tasks_writer.as_reader();
    let reporter = Reporter {
        controller: "taskgate".into(),
        instance: Some(config.identity.clone()),
    };
    let context = Arc::new(Context {
        policies: Policies::new(local, cluster, namespaces, spawners_writer.as_reader()),
        work_items,
        index: TaskIndex::default(),
        recorder: Recorder::new(client.clone(), reporter),
        metrics: metrics.clone(),
        work_item_cap: config.work_items_per_namespace,
        task_kind: task_kind.clone(),
        spawner_kind: spawner_kind.clone(),
        client: client.clone(),
    });
    let (queue, queued) = mpsc::unbounded();
    let (changed, spawners) = tokio_mpsc::unbounded_channel();

    let all = watcher::Config::default;
    let policies = stream::select_all([
        cached(watcher(Api::<TaskPolicy>::all(client.clone()), all()), local_writer),
        cached(
            watcher(Api::<ClusterTaskPolicy>::all(client.clone()), all()),
            cluster_writer,
        ),
    ]);
    // Their labels are read when a Task is looked at; their own changes, of which a spawner has many, lead to nothing.
    let labels = stream::select_all([
        cached(
            watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), all()),
            namespaces_writer,
        ),
        cached(
            watcher(Api::<DynamicObject>::all_with(client.clone(), &spawner_kind), all()).map_ok(bare),
            spawners_writer,
        ),
    ]);
    let policies = policies.for_each(|()| {
        context.policies.compile();
        for task in tasks.state() {
            let task = ObjectRef::from_obj_with(&*task, task_kind.clone());
            let _ = queue.unbounded_send(task.into());
        }
        ready(())
    });
    let work_items = follow_work_items(&context, work_items_writer, &queue, &changed);
    let reconciling = async {
        // First what decides about Tasks, then the Tasks: nothing is let go because a policy is not known yet.
        context.ready().await;
        context.policies.compile();
        info!(version, "looking after Tasks");
        let watching = follow_tasks(&context, tasks_writer, &queue);
        join(watching, apply(&context, tasks.clone(), queued)).await;
    };
    let telling = spawner_status::run(Arc::clone(&context), spawners);
    join5(
        policies,
        labels.for_each(|()| ready(())),
        work_items,
        reconciling,
        telling,
    )
    .await;
}

/// Looks after each Task that the queue names.
async fn apply(context: &Arc<Context>, tasks: Store<DynamicObject>, queued: Queued) {
    let config = controller::Config::default().concurrency(CONCURRENCY);
    let failed = |object: Arc<DynamicObject>, error: &Error, _| {
        warn!(%error, source = %error.source, name = object.name_any(), "tried again soon");
        Action::requeue(RETRY)
    };
    applier(
        |object, context| Box::pin(task::reconcile(object, context)),
        failed,
        Arc::clone(context),
        tasks,
        queued.map(Ok::<_, Error>),
        config,
    )
    .for_each(|_| ready(()))
    .await;
}

/// Fills a store from a watch; tells of each change once the first list is complete.
fn cached<K>(
    watch: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    writer: reflector::store::Writer<K>,
) -> BoxStream<'static, ()>
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
{
    reflector::reflector(writer, watch.default_backoff())
        .filter_map(|event| ready(changes(event)))
        .boxed()
}

fn changes<K>(event: watcher::Result<Event<K>>) -> Option<()> {
    match event {
        Ok(Event::Init | Event::InitApply(_)) => None,
        Ok(_) => Some(()),
        Err(error) => {
            debug!(%error, "a watch is interrupted");
            None
        }
    }
}

/// Metadata is all that is kept of a spawner.
fn bare(event: Event<DynamicObject>) -> Event<DynamicObject> {
    let strip = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        object.data = serde_json::Value::Null;
        object
    };
    match event {
        Event::Apply(object) => Event::Apply(strip(object)),
        Event::InitApply(object) => Event::InitApply(strip(object)),
        other => other,
    }
}

/// A memory that changed or went concerns its Tasks and its spawner.
async fn follow_work_items(
    context: &Arc<Context>,
    writer: reflector::store::Writer<WorkItem>,
    queue: &Queue,
    changed: &tokio_mpsc::UnboundedSender<SpawnerRef>,
) {
    let watch = watcher(Api::<WorkItem>::all(context.client.clone()), watcher::Config::default());
    let mut open = OpenItems::default();
    reflector::reflector(writer, watch.default_backoff())
        .for_each(|event| {
            let (item, gone) = match event {
                Ok(Event::Apply(item) | Event::InitApply(item)) => (item, false),
                Ok(Event::Delete(item)) => (item, true),
                Ok(Event::Init | Event::InitDone) => return ready(()),
                Err(error) => {
                    debug!(%error, "the watch of WorkItems is interrupted");
                    return ready(());
                }
            };
            let namespace = item.namespace().unwrap_or_default();
            for task in context.index.of(&(namespace.clone(), item.name_any())) {
                let task = ObjectRef::new_with(&task.name, context.task_kind.clone()).within(&namespace);
                let _ = queue.unbounded_send(task.into());
            }
            let count = open.put(&item, gone);
            context.metrics.open_items(&namespace, count);
            if let Some(spawner) = item.spec.spawner {
                let _ = changed.send((namespace, spawner));
            }
            ready(())
        })
        .await;
}

/// Every change of a Task, with its index.
async fn follow_tasks(context: &Arc<Context>, writer: reflector::store::Writer<DynamicObject>, queue: &Queue) {
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &context.task_kind);
    let watch = watcher(api, watcher::Config::default()).default_backoff().modify(trim);
    reflector::reflector(writer, watch)
        .for_each(|event| {
            let (object, gone) = match event {
                Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
                Ok(Event::Delete(object)) => (object, true),
                Ok(Event::Init) => {
                    context.index.clear();
                    return ready(());
                }
                Ok(Event::InitDone) => return ready(()),
                Err(error) => {
                    debug!(%error, "the watch of Tasks is interrupted");
                    return ready(());
                }
            };
            let namespace = object.namespace().unwrap_or_default();
            let state = TaskState::of(&json_of(&object));
            match state {
                Some(state) if gone => context.index.remove(&namespace, &state),
                Some(state) => context.index.put(&namespace, state),
                None => {}
            }
            let task = ObjectRef::from_obj_with(&object, context.task_kind.clone());
            let _ = queue.unbounded_send(task.into());
            ready(())
        })
        .await;
}
