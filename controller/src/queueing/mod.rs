//! Reports on each Task how far its Job is in Kueue's queue (`queueName`): condition `Queued`, Event, metric.
//!
//! ```text
//! Jobs ─┬─→ reconcile ── queue_state (policy) ── report: condition, Event, metric
//! Kueue ┘   Workloads, LocalQueues, WorkloadPriorityClasses, if it is installed
//! ```
//!
//! Admission puts Jobs into queues. The controller writes nothing but that condition, and fails a Job that Kueue deactivated, if the
//! policy says so (`onDeactivation`). Imports the shared modules only. Called by `controller`.

mod kueue;
mod report;

use std::{future::ready, sync::Arc, time::Duration};

use futures::{StreamExt as _, channel::mpsc, future::join4};
use jiff::Timestamp;
use k8s_openapi::api::{batch::v1, core::v1::ConfigMap};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _, applier,
        controller::{self, Action, ReconcileRequest},
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
    kueue::{ConfigRef, Settings, Workload},
    metadata::Owner,
    task_policy::QueueOnDeactivation,
};
use taskgate_policy::{InstalledKueue, JobEnd, QueueContext, QueueObservation, QueueReason, QueueState, queue_state};
use tokio::time::sleep;
use tracing::{debug, warn};

pub(crate) use report::QueueingMetrics;

use self::{
    kueue::{KueueCache, KueueChange, KueueObjects, trim_job},
    report::report,
};
use crate::{
    context::Context,
    error::{Error, is_absent, is_forbidden},
    job,
    kubernetes::{self, json_of, namespace_of},
    task::{Subject, TaskResult},
    workqueue::{PanicGuard, StepResult},
};

/// How many Jobs are reconciled in parallel.
const CONCURRENCY: u16 = 8;
/// Until a failed reconcile is tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Until a Job is reconciled again after another client wrote the Task.
const SOON: Duration = Duration::from_millis(200);
/// The reason with which a Job fails that Kueue deactivated, and its attempt is recorded.
const DEACTIVATED: &str = "QueueDeactivated";

/// The state of this feature beside the Tasks.
pub(crate) struct QueueingReconciler {
    context: Arc<Context>,
    kueue: KueueCache,
    /// Where Kueue's configuration is.
    kueue_config: ConfigRef,
    metrics: QueueingMetrics,
}

impl QueueingReconciler {
    pub(crate) fn new(context: Arc<Context>, kueue_config: ConfigRef, metrics: QueueingMetrics) -> Self {
        Self {
            context,
            kueue: KueueCache::default(),
            kueue_config,
            metrics,
        }
    }
}

/// Updates the condition of every Task that has a Job. Never ends.
///
/// RBAC: `list` and `watch` on jobs; `get` on tasks, `patch` on their status; `get` on the ConfigMap with Kueue's
/// configuration; and what [`KueueCache::follow`] needs.
pub(crate) async fn run(queueing: Arc<QueueingReconciler>) {
    let job_kind = ApiResource::erase::<v1::Job>(&());
    let writer = reflector::store::Writer::<DynamicObject>::new(job_kind.clone());
    let jobs = writer.as_reader();
    let client = queueing.context.client.clone();
    let (enqueue, enqueued) = mpsc::unbounded::<ReconcileRequest<DynamicObject>>();
    let reference = |namespace: &str, name: &str| ObjectRef::new_with(name, job_kind.clone()).within(namespace);

    let api = Api::<DynamicObject>::all_with(client.clone(), &job_kind);
    let watch = watcher(api, watcher::Config::default().labels(kelos::TASK_LABEL));
    let watch = watch.default_backoff().modify(trim_job);
    let (delete, deleted) = mpsc::unbounded();
    let following_jobs = reflector::reflector(writer, watch).for_each(|event| {
        match event {
            Ok(Event::Apply(job) | Event::InitApply(job)) => {
                let _ = enqueue.unbounded_send(ObjectRef::from_obj_with(&job, job_kind.clone()).into());
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
    let reconciling_deleted = deleted.for_each_concurrent(usize::from(CONCURRENCY), |job| {
        let (queueing, panics) = (Arc::clone(&queueing), Arc::clone(&panics));
        async move {
            let json = json_of(&job);
            // The Job is gone: there is nothing to try again.
            if let Ok(Err(error)) = panics.catch(job.uid(), queueing.reconcile_deleted(&json)).await {
                warn!(%error, source = %error.source, name = job.name_any(), "the end of a deleted Job was not reported on its Task");
            }
        }
    });
    let following_kueue = queueing.kueue.follow(&client, |changed| {
        if let KueueChange::Job(namespace, name) = &changed {
            let _ = enqueue.unbounded_send(reference(namespace, name).into());
            return;
        }
        for job in jobs.state().iter().filter(|job| concerns(&changed, job)) {
            let _ = enqueue.unbounded_send(ObjectRef::from_obj_with(&**job, job_kind.clone()).into());
        }
    });
    let failed = |job: Arc<DynamicObject>, error: &Error, _| {
        warn!(%error, source = %error.source, name = job.name_any(), "tried again soon");
        Action::requeue(RETRY)
    };
    let reconciling = async {
        queueing.context.ready().await;
        applier(
            |job, queueing| {
                let panics = Arc::clone(&panics);
                Box::pin(async move {
                    let reconcile = Box::pin(reconcile(Arc::clone(&job), queueing));
                    panics.catch_action(job.uid(), reconcile).await
                })
            },
            failed,
            Arc::clone(&queueing),
            jobs.clone(),
            enqueued.map(Ok::<_, Error>),
            controller::Config::default().concurrency(CONCURRENCY),
        )
        .for_each(|_| ready(()))
        .await;
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

async fn reconcile(job: Arc<DynamicObject>, queueing: Arc<QueueingReconciler>) -> Result<Action, Error> {
    let job = json_of(&*job);
    if queueing.context.is_opted_out(namespace_of(&job)) {
        return Ok(Action::await_change());
    }
    let (Some(owner), Some(objects)) = (Job::of(&job).task(), queueing.kueue.objects_of(&job)) else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let mut observed = queue_state(&inputs(&job, &objects, None, now));
    if let QueueObservation::State(state) = &observed
        && state.reason == QueueReason::NotNoticed
    {
        let manages = queueing.manages(namespace_of(&job)).await?;
        observed = queue_state(&inputs(&job, &objects, Some(manages), now));
    }
    let state = match observed {
        QueueObservation::Nothing => return Ok(Action::await_change()),
        QueueObservation::Later(at) => {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Action::requeue(wait.max(SOON)));
        }
        QueueObservation::State(state) => state,
    };
    let Some(task) = queueing.task(namespace_of(&job), &owner).await? else {
        return Ok(Action::await_change());
    };
    if matches!(report(&queueing, &task, &job, &state).await?, TaskResult::Conflict) {
        return Ok(Action::requeue(SOON));
    }
    let workload = objects.workload.as_deref().map(Workload::of);
    if state.reason == QueueReason::Deactivated && workload.is_some_and(|workload| is_stopped(&job, workload)) {
        return fail_deactivated(&queueing.context, &task, &state.message).await;
    }
    Ok(Action::await_change())
}

/// Whether Kueue has finished stopping the Job.
fn is_stopped(job: &Value, workload: Workload<'_>) -> bool {
    let job = Job::of(job);
    job.is_suspended() && !job.has_ended() && !workload.is("QuotaReserved") && !workload.is("Admitted")
}

/// Fails the Job of `task`, which Kueue deactivated, if the policy that governs the Task says so.
async fn fail_deactivated(context: &Context, task: &DynamicObject, message: &str) -> Result<Action, Error> {
    let Some(subject) = Subject::of(context, task) else {
        return Ok(Action::await_change());
    };
    let spawner = Task::of(&subject.object).spawner();
    let wanted = context.in_scope(&subject.namespace, spawner, |policies| {
        policies.on_deactivation(&subject.object)
    });
    if wanted != QueueOnDeactivation::Fail {
        return Ok(Action::await_change());
    }
    let job = job::of_task(context, &subject).await?;
    let Some(job) = job.filter(|job| JobEnd::of(job) == JobEnd::Open) else {
        return Ok(Action::await_change());
    };
    if !job::is_parked(&job) {
        return Ok(Action::requeue(SOON));
    }
    Ok(match job::fail(context, &subject, &job, DEACTIVATED, message).await? {
        StepResult::Conflict => Action::requeue(SOON),
        _ => Action::await_change(),
    })
}

fn inputs<'a>(
    job: &'a Value,
    objects: &'a KueueObjects,
    manages_namespace: Option<bool>,
    now: Timestamp,
) -> QueueContext<'a> {
    QueueContext {
        job,
        workload: objects.workload.as_deref(),
        kueue: objects.queue.as_ref().map(|queue| InstalledKueue {
            since: queue.since,
            local_queue: queue.local_queue.as_deref(),
            has_class: queue.has_class,
            manages_namespace,
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

    /// Whether Kueue manages a namespace. Without its configuration: whether it would by default.
    async fn manages(&self, namespace: &str) -> Result<bool, Error> {
        let at = &self.kueue_config;
        let maps = Api::<ConfigMap>::namespaced(self.context.client.clone(), &at.namespace);
        let map = match maps.get_opt(&at.name).await {
            Ok(map) => map,
            Err(error) if is_absent(&error) || is_forbidden(&error) => None,
            Err(error) => return Err(Error::new("reading", "ConfigMap", &at.namespace, &at.name, error)),
        };
        let text = map.and_then(|map| map.data?.remove(ConfigRef::KEY));
        let default = || Settings::of_namespace(&at.namespace);
        let settings = text.map_or_else(default, |text| {
            Settings::read(&at.namespace, &text).unwrap_or_else(|error| {
                warn!(%error, config = %at, "Kueue's configuration is not understood; its defaults are assumed");
                default()
            })
        });
        Ok(settings.manages(&self.context.namespace_labels(namespace)))
    }
}
