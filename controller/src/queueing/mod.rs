//! Reports on each Task how far its Job is in Kueue's queue (`queueName`): condition `Queued`, Event, metric.
//!
//! ```text
//! Jobs ─┬─→ reconcile ── queue_state (policy) ── report: condition, Event, metric
//! Kueue ┘   Workloads; LocalQueues and WorkloadPriorityClasses of the cluster cache, if it is installed
//! ```
//!
//! Admission puts Jobs into queues. The controller writes nothing but that condition, and fails a Job that Kueue deactivated, if the
//! policy says so (`onDeactivation`). Imports the shared modules only. Called by `controller`.

mod kueue;
mod report;

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join4};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1;
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, ObjectRef},
        watcher,
        watcher::Event,
    },
};
use serde_json::Value;
use taskgate_api::{
    condition::{Condition, QUEUED},
    job::Job,
    kelos::{self, Task},
    kueue::Workload,
    metadata::Owner,
    task_policy::QueueOnDeactivation,
};
use taskgate_cache::{KueueStores, NamespacedName};
use taskgate_policy::{InstalledKueue, JobEnd, QueueContext, QueueObservation, QueueReason, QueueState, queue_state};
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, warn};

pub(crate) use report::QueueingMetrics;

use self::{
    kueue::{KueueCache, KueueChange, KueueObjects, trim_job},
    report::report,
};
use crate::{
    context::Context,
    error::Error,
    job,
    kubernetes::{self, json_of, namespace_of},
    task::{Subject, TaskResult},
    workqueue::{self, PanicGuard, Reconciled, StepResult},
};

/// How many deleted Jobs are reported in parallel.
const DELETED_CONCURRENCY: usize = 8;
/// How often that is tried, and the time in between.
const TRIES: u32 = 10;
const RETRY: Duration = Duration::from_secs(3);
/// Until a Job is reconciled again after another client wrote the Task.
const SOON: Duration = Duration::from_millis(200);
/// The reason with which a Job fails that Kueue deactivated, and its attempt is recorded.
const DEACTIVATED: &str = "QueueDeactivated";

/// The state of this feature beside the Tasks.
pub(crate) struct QueueingReconciler {
    context: Arc<Context>,
    stores: Arc<KueueStores>,
    kueue: KueueCache,
    metrics: QueueingMetrics,
}

impl QueueingReconciler {
    pub(crate) fn new(context: Arc<Context>, stores: &Arc<KueueStores>, metrics: QueueingMetrics) -> Self {
        Self {
            stores: Arc::clone(stores),
            kueue: KueueCache::new(Arc::clone(stores), context.cache.clock().clone()),
            context,
            metrics,
        }
    }
}

/// Updates the condition of every Task that has a Job. Never ends.
///
/// RBAC: `list` and `watch` on jobs; `get` on tasks, `patch` on their status; and what [`KueueCache::follow`] needs.
pub(crate) async fn run(queueing: Arc<QueueingReconciler>) {
    let job_kind = ApiResource::erase::<v1::Job>(&());
    let writer = reflector::store::Writer::<DynamicObject>::new(job_kind.clone());
    let jobs = writer.as_reader();
    let client = queueing.context.client.clone();
    let (enqueue, enqueued) = mpsc::unbounded_channel();

    let api = Api::<DynamicObject>::all_with(client.clone(), &job_kind);
    let watch = watcher(api, watcher::Config::default().labels(kelos::TASK_LABEL));
    let watch = watch.default_backoff().modify(trim_job);
    let (delete, deleted) = futures::channel::mpsc::unbounded();
    let following_jobs = reflector::reflector(writer, watch).for_each(|event| {
        match event {
            Ok(Event::Apply(job) | Event::InitApply(job)) => {
                let _ = enqueue.send(NamespacedName::of(&job));
            }
            Ok(Event::Delete(job)) => {
                let _ = delete.unbounded_send(job);
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => debug!(%error, "the watch of Jobs is interrupted"),
        }
        ready(())
    });
    let panics = Arc::new(PanicGuard::new("queue", &queueing.context.panics));
    let reconciling_deleted = deleted.for_each_concurrent(DELETED_CONCURRENCY, |job| {
        let (queueing, panics) = (Arc::clone(&queueing), Arc::clone(&panics));
        async move {
            let json = json_of(&job);
            let _ = panics.catch(job.uid(), queueing.end_of_deleted(&json)).await;
        }
    });
    let following_kueue = queueing.kueue.follow(&client, |changed| {
        if let KueueChange::Job(namespace, name) = &changed {
            let _ = enqueue.send(NamespacedName::new(namespace, name));
            return;
        }
        for job in jobs.state().iter().filter(|job| concerns(&changed, job)) {
            let _ = enqueue.send(NamespacedName::of(&**job));
        }
    });
    let reconciling = async {
        queueing.context.ready().await;
        let reconcile = |key: NamespacedName| {
            let at = ObjectRef::new_with(&key.name, job_kind.clone()).within(&key.namespace);
            let job = jobs.get(&at);
            reconcile(job, &queueing)
        };
        workqueue::run("queue", &queueing.context.panics, enqueued, reconcile).await;
    };
    join4(following_jobs, reconciling_deleted, following_kueue, reconciling).await;
}

/// Whether the change may change the condition for `job`.
fn concerns(changed: &KueueChange, job: &DynamicObject) -> bool {
    let label = |key: &str| job.labels().get(key).map(String::as_str);
    match changed {
        KueueChange::Job(namespace, name) => job.namespace().as_ref() == Some(namespace) && job.name_any() == *name,
        KueueChange::Queue(namespace, name) => {
            job.namespace().as_ref() == Some(namespace) && label(taskgate_api::kueue::QUEUE_NAME) == Some(name)
        }
        KueueChange::Class(name) => label(taskgate_api::kueue::PRIORITY_CLASS) == Some(name),
        KueueChange::All => true,
    }
}

async fn reconcile(job: Option<Arc<DynamicObject>>, queueing: &QueueingReconciler) -> Reconciled {
    // A deleted one is handled where it is seen.
    let Some(job) = job.map(|job| json_of(&*job)) else {
        return Ok(None);
    };
    if queueing.context.is_opted_out(namespace_of(&job)) {
        return Ok(None);
    }
    let (Some(owner), Some(objects)) = (Job::of(&job).task(), queueing.kueue.objects_of(&job)) else {
        return Ok(None);
    };
    let now = queueing.context.now();
    let labels = queueing.context.namespace_labels(namespace_of(&job));
    let manages = queueing.stores.manages(&labels);
    let state = match queue_state(&inputs(&job, &objects, manages, now)) {
        QueueObservation::Nothing => return Ok(None),
        QueueObservation::Later(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Some(wait.max(SOON)));
        }
        QueueObservation::State(state) => state,
    };
    let Some(task) = queueing.task(namespace_of(&job), &owner).await? else {
        return Ok(None);
    };
    if matches!(report(queueing, &task, &job, &state).await?, TaskResult::Conflict) {
        return Ok(Some(SOON));
    }
    let workload = objects.workload.as_deref().map(Workload::of);
    if state.reason == QueueReason::Deactivated && workload.is_some_and(|workload| is_stopped(&job, workload)) {
        return fail_deactivated(&queueing.context, &task, &state.message).await;
    }
    Ok(None)
}

/// Whether Kueue has finished stopping the Job.
fn is_stopped(job: &Value, workload: Workload<'_>) -> bool {
    let job = Job::of(job);
    job.is_suspended() && !job.has_ended() && !workload.is("QuotaReserved") && !workload.is("Admitted")
}

/// Fails the Job of `task`, which Kueue deactivated, if the policy that governs the Task says so.
async fn fail_deactivated(context: &Context, task: &DynamicObject, message: &str) -> Reconciled {
    let Some(subject) = Subject::of(context, task) else {
        return Ok(None);
    };
    let spawner = Task::of(&subject.object).spawner();
    let wanted = context.in_scope(&subject.namespace, spawner, |policies| {
        policies.on_deactivation(&subject.object)
    });
    if wanted != QueueOnDeactivation::Fail {
        return Ok(None);
    }
    let job = job::of_task(context, &subject).await?;
    let Some(job) = job.filter(|job| JobEnd::of(job) == JobEnd::Open) else {
        return Ok(None);
    };
    if !job::is_parked(&job) {
        return Ok(Some(SOON));
    }
    Ok(match job::fail(context, &subject, &job, DEACTIVATED, message).await? {
        StepResult::Conflict => Some(SOON),
        _ => None,
    })
}

fn inputs<'a>(job: &'a Value, objects: &'a KueueObjects, manages_namespace: bool, now: Timestamp) -> QueueContext<'a> {
    QueueContext {
        job,
        workload: objects.workload.as_deref(),
        kueue: objects.queue.as_ref().map(|queue| InstalledKueue {
            since: queue.since,
            local_queue: queue.local_queue.as_deref(),
            has_class: queue.has_class,
            manages_namespace: Some(manages_namespace),
        }),
        now,
    }
}

impl QueueingReconciler {
    /// The Task that owns a Job; one that the cache does not have may be younger than the cache.
    async fn task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<Arc<DynamicObject>>, Error> {
        let task = match self.context.cache.tasks().get(namespace, owner.name) {
            Some(task) => Some(task),
            None => self.read_task(namespace, owner).await?.map(Arc::new),
        };
        Ok(task.filter(|task| task.uid().as_deref() == Some(owner.uid)))
    }

    async fn read_task(&self, namespace: &str, owner: &Owner<'_>) -> Result<Option<DynamicObject>, Error> {
        let found = kubernetes::find(&self.context.tasks(namespace), owner.name).await;
        found.map_err(|error| Error::new("reading", "Task", namespace, owner.name, error))
    }

    /// Does the following, and tries again after an error: no further event says that the Job is gone.
    async fn end_of_deleted(&self, job: &Value) {
        for _ in 0..TRIES {
            let Err(error) = self.reconcile_deleted(job).await else {
                return;
            };
            warn!(%error, source = %error.source, "the end of a deleted Job is not reported on its Task yet");
            sleep(RETRY).await;
        }
    }

    /// Updates a Task that ended in the queue and whose Job was deleted before the watch showed its end.
    async fn reconcile_deleted(&self, job: &Value) -> Result<(), Error> {
        let namespace = namespace_of(job);
        let Some(owner) = Job::of(job).task().filter(|_| !self.context.is_opted_out(namespace)) else {
            return Ok(());
        };
        let waits = |task: &DynamicObject| Condition::find(&json_of(task), QUEUED).is_some_and(Condition::is_true);
        if !self.task(namespace, &owner).await?.as_deref().is_some_and(waits) {
            return Ok(());
        }
        // Kelos creates the Job of a Task that has not ended again.
        let fresh = self.read_task(namespace, &owner).await?;
        let Some(task) = fresh.filter(|task| Task::of(&json_of(task)).is_terminal()) else {
            return Ok(());
        };
        let ended = QueueState::ended();
        while matches!(report(self, &task, job, &ended).await?, TaskResult::Conflict) {
            sleep(SOON).await;
        }
        Ok(())
    }
}
